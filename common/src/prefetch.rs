//! How much a consumer asks for ahead: as many items as it works off in [`PREFETCH_TIME_TARGET`], so that long items are handed
//! out one by one and tiny ones by the thousand.

use std::time::Duration;

use crate::limits::{PREFETCH_ITEMS_MAX, PREFETCH_TIME_TARGET};

/// The window grows at most by this factor at a time: one lucky measurement does not make it jump.
const GROWTH_MAX: u32 = 8;

/// What counts as a measurement: such a part of the window's items, or of the time that they are to take.
const SAMPLE_PART: u32 = 4;

/// The number of items to have at hand beyond the one being worked on.
#[derive(Debug)]
pub struct Prefetch {
    ahead: u32,
    fixed: bool,
    item_ns: Option<u64>,
    measured_from: Duration,
    waited: Duration,
    taken_total: u64,
}

impl Prefetch {
    /// Adapts by itself, or stays at `fixed`.
    pub fn new(fixed: Option<u32>) -> Prefetch {
        Prefetch {
            ahead: fixed.unwrap_or(0).min(PREFETCH_ITEMS_MAX),
            fixed: fixed.is_some(),
            item_ns: None,
            measured_from: Duration::ZERO,
            waited: Duration::ZERO,
            taken_total: 0,
        }
    }

    /// How many items to have at hand beyond the one being worked on.
    pub fn ahead(&self) -> u32 {
        self.ahead
    }

    /// True if it does not adapt.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// The application waited this long for an item: not work.
    pub fn count_waited(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// Takes the items since the last call into account; `taken_total` went to the application so far. A slower pace counts at once,
    /// a faster one half.
    pub fn measure(&mut self, now: Duration, taken_total: u64) {
        let taken = taken_total - self.taken_total;
        if self.fixed || taken == 0 {
            return;
        }
        let worked = now.saturating_sub(self.measured_from).saturating_sub(self.waited);
        // By few items out of many, one would measure what it takes to be woken, or that another process had the processor.
        if taken < u64::from(self.ahead / SAMPLE_PART) && worked < PREFETCH_TIME_TARGET / SAMPLE_PART {
            return;
        }
        let measured_ns = (worked.as_nanos() as u64 / taken).max(1);
        let item_ns = self.item_ns.map_or(measured_ns, |before| measured_ns.max(before.midpoint(measured_ns)));
        self.item_ns = Some(item_ns);
        let target = PREFETCH_TIME_TARGET.as_nanos() as u64 / item_ns;
        let most = (self.ahead.saturating_mul(GROWTH_MAX)).clamp(GROWTH_MAX, PREFETCH_ITEMS_MAX);
        self.ahead = target.min(u64::from(most)) as u32;
        self.measured_from = now;
        self.waited = Duration::ZERO;
        self.taken_total = taken_total;
    }

    /// The item at hand takes long: begin again from one at a time.
    pub fn collapse(&mut self) {
        if !self.fixed {
            self.ahead = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(prefetch: &mut Prefetch, item: Duration, rounds: u32) {
        let mut now = prefetch.measured_from;
        for _ in 0..rounds {
            let items = prefetch.ahead().max(1);
            now += item * items;
            prefetch.measure(now, prefetch.taken_total + u64::from(items));
        }
    }

    #[test]
    fn tiny_items_are_asked_for_by_the_thousand_within_a_few_rounds() {
        let mut prefetch = Prefetch::new(None);
        run(&mut prefetch, Duration::from_nanos(100), 8);
        assert!(prefetch.ahead() >= 16_000, "{}", prefetch.ahead());
    }

    #[test]
    fn long_items_are_asked_for_one_by_one() {
        let mut prefetch = Prefetch::new(None);
        run(&mut prefetch, Duration::from_millis(3), 3);
        assert_eq!(prefetch.ahead(), 0);
    }

    #[test]
    fn one_long_item_ends_the_prefetching_of_tiny_ones_at_once() {
        let mut prefetch = Prefetch::new(None);
        run(&mut prefetch, Duration::from_micros(1), 8);
        assert!(prefetch.ahead() > 1000);
        prefetch.measure(prefetch.measured_from + Duration::from_millis(10), prefetch.taken_total + 1);
        assert_eq!(prefetch.ahead(), 0);
    }

    #[test]
    fn a_slower_pace_counts_at_once_and_a_faster_one_half() {
        let mut prefetch = Prefetch::new(None);
        let mut ahead_after = |micros: u64| {
            prefetch.measure(prefetch.measured_from + Duration::from_micros(10 * micros), prefetch.taken_total + 10);
            prefetch.ahead()
        };
        assert_eq!([100, 100, 50, 75, 25, 100].map(&mut ahead_after), [8, 20, 26, 26, 40, 20]);
    }

    #[test]
    fn a_few_of_many_items_say_nothing_until_they_take_long_or_more_are_taken() {
        let mut prefetch = Prefetch::new(None);
        let mut ahead_after = |micros, items| {
            prefetch.measure(prefetch.measured_from + Duration::from_micros(micros), prefetch.taken_total + items);
            prefetch.ahead()
        };
        assert_eq!([ahead_after(10, 1), ahead_after(80, 8), ahead_after(160, 16)], [8, 64, 200]);
        assert_eq!(ahead_after(499, 49), 200, "few of 200, and before they have taken long");
        assert_eq!(ahead_after(500, 49), 196, "few of 200, but they have");
        assert_eq!(ahead_after(490, 48), 196, "few of 196");
        assert_eq!(ahead_after(490, 49), 197, "enough");
        assert_eq!(ahead_after(500, 1), 4, "one that takes long");
    }

    #[test]
    fn after_an_item_that_takes_long_the_next_are_asked_for_one_by_one() {
        let mut prefetch = Prefetch::new(None);
        run(&mut prefetch, Duration::from_micros(1), 8);
        prefetch.collapse();
        assert_eq!(prefetch.ahead(), 0);
    }

    #[test]
    fn waiting_does_not_count_as_work() {
        let mut prefetch = Prefetch::new(None);
        prefetch.count_waited(Duration::from_secs(1));
        prefetch.measure(Duration::from_secs(1) + Duration::from_micros(1), 1);
        assert!(prefetch.ahead() > 0);
    }

    #[test]
    fn a_fixed_number_stays() {
        let mut prefetch = Prefetch::new(Some(7));
        run(&mut prefetch, Duration::from_millis(50), 5);
        prefetch.collapse();
        assert_eq!(prefetch.ahead(), 7);
    }
}
