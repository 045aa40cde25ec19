//! How many items a worker gets ahead: as a consumer asks for them ahead, by the same rule.

use std::time::Instant;

use common::prefetch::Prefetch;

use crate::limits::WORKER_QUIET;

/// A worker's pace: time passes for it while it has something to do.
#[derive(Debug)]
pub(super) struct Pace {
    prefetch: Prefetch,
    started: Instant,
    answered: u64,
    idle_since: Option<Instant>,
    talked_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(fixed: Option<u32>, now: Instant) -> Pace {
        Pace { prefetch: Prefetch::new(fixed), started: now, answered: 0, idle_since: Some(now), talked_at: None }
    }

    /// Items to be given to it beyond the one that it works on.
    pub(super) fn ahead(&self, now: Instant) -> usize {
        let talks = self.talked_at.is_some_and(|at| now.saturating_duration_since(at) < WORKER_QUIET);
        if talks && !self.prefetch.is_fixed() { 0 } else { self.prefetch.ahead() as usize }
    }

    /// True if it gets any ahead, or will when it is silent again.
    pub(super) fn is_ahead(&self) -> bool {
        self.prefetch.ahead() > 0
    }

    /// False if it is a fixed number.
    pub(super) fn adapts(&self) -> bool {
        !self.prefetch.is_fixed()
    }

    /// It has something to do.
    pub(super) fn work(&mut self, now: Instant) {
        if let Some(since) = self.idle_since.take() {
            self.prefetch.count_waited(now.saturating_duration_since(since));
        }
    }

    /// It has answered so many items, and has nothing left to do if `is_idle`.
    pub(super) fn answered(&mut self, count: usize, is_idle: bool, now: Instant) {
        self.answered += count as u64;
        if is_idle {
            self.idle_since.get_or_insert(now);
        }
    }

    /// Takes into account what was answered since the last time.
    pub(super) fn measure(&mut self, now: Instant) {
        // Idling that is not over yet is counted when it is.
        let until = self.idle_since.unwrap_or(now);
        self.prefetch.measure(until.saturating_duration_since(self.started), self.answered);
    }

    /// It said something on stderr.
    pub(super) fn talked(&mut self, now: Instant) {
        self.talked_at = Some(now);
    }

    /// The item at hand takes long, or it was the last of a worker.
    pub(super) fn collapse(&mut self) {
        self.prefetch.collapse();
    }

    #[cfg(test)]
    fn at(&self, after: std::time::Duration) -> Instant {
        self.started + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_quick_worker_gets_many_ahead_and_idling_does_not_count() {
        let mut pace = Pace::new(None, Instant::now());
        for round in 1..10 {
            let begin = pace.at(round * Duration::from_secs(1));
            pace.work(begin);
            let many = pace.ahead(begin) + 1;
            pace.answered(many, true, begin + 2 * US * many as u32);
            pace.measure(begin + Duration::from_millis(500));
        }
        let ahead = pace.ahead(Instant::now());
        assert!((900..=1100).contains(&ahead), "{ahead}");
        pace.collapse();
        assert_eq!(pace.ahead(Instant::now()), 0);
    }

    #[test]
    fn a_slow_worker_and_one_that_talks_get_one_at_a_time() {
        let mut pace = Pace::new(None, Instant::now());
        pace.work(pace.at(US));
        pace.answered(1, true, pace.at(Duration::from_millis(20)));
        pace.measure(pace.at(Duration::from_millis(20)));
        assert_eq!(pace.ahead(pace.at(Duration::from_millis(20))), 0);
        let mut talking = Pace::new(None, Instant::now());
        talking.work(talking.at(US));
        talking.answered(1, true, talking.at(2 * US));
        talking.measure(talking.at(2 * US));
        talking.talked(talking.at(3 * US));
        assert_eq!(talking.ahead(talking.at(4 * US)), 0);
        assert_eq!(talking.ahead(talking.at(3 * US + WORKER_QUIET)), 8);
    }

    #[test]
    fn a_fixed_number_stays() {
        let mut pace = Pace::new(Some(3), Instant::now());
        pace.talked(pace.at(US));
        pace.collapse();
        assert_eq!(pace.ahead(pace.at(2 * US)), 3);
    }
}
