//! When it is looked what the queue holds, and what has been seen.

use std::time::Duration;

use super::registry::View;
use crate::limits::{JETSTREAM_FULL, JETSTREAM_LAST_LOOK};

/// What a look has shown of the stream of items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) messages: u64,
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
}

/// Looks at the stream of items, which are asked for or due from time to time, and at how many dead letters there are.
#[derive(Debug)]
pub(super) struct Looks {
    every: Duration,
    at: Duration,
    /// When the last one left.
    began: Duration,
    /// Somebody waits for a view that is made after now.
    is_wanted: bool,
    /// How many in a row somebody wanted that showed nothing new.
    idle: u32,
    count_at: Duration,
    seen: Option<Seen>,
    letters: Option<u64>,
    /// All producers have finished, and the stream was empty after that.
    is_over: bool,
    /// Raised when that becomes so, or otherwise, and when there may be other dead letters since.
    ends: u64,
    /// For which of these the dead letters were counted.
    counted: Option<u64>,
    is_done: bool,
    has_to_tell: bool,
    told: Option<View>,
}

impl Looks {
    pub(super) fn new(every: Duration) -> Looks {
        Looks {
            every,
            at: Duration::ZERO,
            began: Duration::ZERO,
            is_wanted: false,
            idle: 0,
            count_at: Duration::ZERO,
            seen: None,
            letters: None,
            is_over: false,
            ends: 0,
            counted: None,
            is_done: false,
            has_to_tell: false,
            told: None,
        }
    }

    /// Somebody asks for a look.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When the next is due, as far as it is not needed for another reason.
    pub(super) fn due(&self) -> Duration {
        match self.is_wanted {
            true => self.at.min(self.began + JETSTREAM_FULL.after(self.idle)),
            false => self.at,
        }
    }

    /// One leaves now; the last ones come in quicker succession. True if it is wanted, which goes with it.
    pub(super) fn begin(&mut self, is_last: bool, now: Duration) -> bool {
        self.began = now;
        self.at = now + if is_last { JETSTREAM_LAST_LOOK.min(self.every) } else { self.every };
        std::mem::take(&mut self.is_wanted)
    }

    /// The end may have come, or is near: something that others wait for has come to an end here. `is_idle`: this machine holds nothing.
    pub(super) fn near_end(&mut self, is_idle: bool) {
        let after = if is_idle { JETSTREAM_FULL.after(0) } else { JETSTREAM_LAST_LOOK };
        self.at = self.at.min(self.began + after);
    }

    /// One will not be answered.
    pub(super) fn lost(&mut self, is_wanted: bool) {
        self.is_wanted |= is_wanted;
        self.idle = self.idle.saturating_add(1);
    }

    /// What was seen before may have changed in the meantime.
    pub(super) fn resume(&mut self, now: Duration) {
        (self.at, self.count_at, self.idle) = (now, now, 0);
    }

    /// One was answered. `is_over`: all producers have finished, and it found nothing left.
    pub(super) fn saw(&mut self, seen: Seen, is_wanted: bool, is_over: bool) {
        let state = |seen: Seen| (seen.items, seen.first_sequence);
        let before = self.seen.replace(seen);
        if before.map(state) != Some(state(seen)) {
            self.idle = 0;
        } else if is_wanted {
            self.idle = self.idle.saturating_add(1);
        }
        self.has_to_tell |= is_wanted;
        // Something may have been put and settled between two looks that found nothing, a dead letter for one.
        if self.is_over != is_over || before.is_some_and(|before| before.last_sequence != seen.last_sequence) {
            (self.is_over, self.ends) = (is_over, self.ends + 1);
        }
        self.is_done = is_over && self.counted == Some(self.ends);
    }

    /// True if dead letters are to be counted now: from time to time, and once all is over, since any that there are have been kept by then.
    pub(super) fn begin_count(&mut self, is_counting: impl Fn(u64) -> bool, now: Duration) -> Option<u64> {
        let is_last = self.is_over && self.counted != Some(self.ends);
        let is_due = (is_last || self.count_at <= now) && !is_counting(self.ends);
        if is_due {
            self.count_at = now + self.every;
        }
        is_due.then_some(self.ends)
    }

    /// A dead letter has come or gone here: they are counted again before the end is told.
    pub(super) fn note_letter(&mut self) {
        (self.ends, self.is_done) = (self.ends + 1, false);
    }

    /// So many there are; asked for when `ends` was so.
    pub(super) fn counted(&mut self, letters: u64, ends: u64, now: Duration) {
        if self.counted > Some(ends) {
            return;
        }
        (self.letters, self.counted) = (Some(letters), Some(ends));
        if self.is_over && !self.is_done && ends == self.ends {
            self.at = now;
        }
    }

    /// The view that is to be told now, if any is: one that has changed, or that somebody waits for.
    pub(super) fn view(&mut self, machines: View) -> Option<View> {
        let (Seen { messages, items, bytes, first_sequence, last_sequence }, dead) = (self.seen?, self.letters?);
        let view = View { messages, items, bytes, first_sequence, last_sequence, dead, is_done: self.is_done, ..machines };
        let is_news = self.told.as_ref() != Some(&view);
        if !std::mem::take(&mut self.has_to_tell) && !is_news {
            return None;
        }
        self.told = Some(view.clone());
        Some(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn looks() -> Looks {
        let mut looks = Looks::new(SECOND);
        assert_eq!(looks.begin_count(|_| false, Duration::ZERO), Some(0));
        looks.counted(3, 0, Duration::ZERO);
        looks
    }

    fn seen(items: u64) -> Seen {
        Seen { items, ..Seen::default() }
    }

    #[test]
    fn who_asks_is_answered_even_if_nothing_has_changed_and_nobody_else_is() {
        let mut looks = looks();
        assert!(!looks.begin(false, SECOND));
        looks.saw(seen(1), false, false);
        assert_eq!(looks.view(View::default()), Some(View { items: 1, dead: 3, ..View::default() }));
        looks.saw(seen(1), false, false);
        assert_eq!((looks.view(View::default()), looks.due()), (None, 2 * SECOND));
        looks.want();
        assert!(looks.begin(false, 2 * SECOND));
        looks.saw(seen(1), true, false);
        assert!(looks.view(View::default()).is_some() && looks.view(View::default()).is_none());
    }

    #[test]
    fn looks_that_show_nothing_new_become_rarer_and_those_that_do_do_not() {
        let mut looks = looks();
        let mut waits = Vec::new();
        for items in [1, 2, 2, 2, 2, 3, 4] {
            looks.want();
            waits.push((looks.due() - looks.began).as_millis());
            let due = looks.due();
            assert!(looks.begin(false, due));
            looks.saw(seen(items), true, false);
        }
        assert_eq!(waits, [0, 4, 4, 4, 8, 16, 4]);
    }

    #[test]
    fn near_the_end_it_is_looked_soon_and_at_once_by_who_has_done_its_part() {
        let mut looks = looks();
        looks.begin(false, SECOND);
        looks.near_end(false);
        assert_eq!(looks.due(), SECOND + JETSTREAM_LAST_LOOK);
        looks.near_end(true);
        assert_eq!(looks.due(), SECOND + JETSTREAM_FULL.min);
        looks.begin(true, 2 * SECOND);
        assert_eq!(looks.due(), 2 * SECOND + JETSTREAM_LAST_LOOK);
    }

    #[test]
    fn a_look_that_is_not_answered_is_made_up_for() {
        let mut looks = looks();
        looks.want();
        let is_wanted = looks.begin(false, SECOND);
        looks.want();
        assert!(looks.due() < 2 * SECOND, "it wants to know how things are after now");
        looks.lost(is_wanted);
        assert!(looks.begin(false, SECOND));
    }

    #[test]
    fn a_look_that_somebody_waits_for_is_made_again_if_it_is_not_answered_but_not_at_once() {
        let mut looks = looks();
        looks.want();
        let is_wanted = looks.begin(false, SECOND);
        looks.lost(is_wanted);
        assert_eq!(looks.due(), SECOND + JETSTREAM_FULL.after(1));
        let due = looks.due();
        assert!(looks.begin(false, due));
        looks.lost(false);
        assert_eq!(looks.due(), due + SECOND);
    }

    #[test]
    fn after_an_outage_it_is_looked_and_counted_at_once() {
        let mut looks = looks();
        looks.begin(false, SECOND);
        (0..5).for_each(|_| looks.lost(false));
        let now = SECOND + SECOND / 2;
        assert_eq!((looks.due(), looks.begin_count(|_| false, SECOND - SECOND / 2)), (2 * SECOND, None));
        looks.resume(now);
        assert_eq!((looks.due(), looks.begin_count(|_| false, now)), (now, Some(0)));
        looks.begin(false, now);
        looks.want();
        assert_eq!(looks.due(), now + JETSTREAM_FULL.after(0), "what went unanswered before says nothing of now");
    }

    #[test]
    fn before_the_end_dead_letters_are_counted_from_time_to_time_and_once_at_a_time() {
        let mut looks = looks();
        looks.note_letter();
        assert_eq!(looks.begin_count(|_| false, SECOND / 2), None);
        assert_eq!(looks.begin_count(|_| true, SECOND), None);
        assert_eq!(looks.begin_count(|_| false, SECOND), Some(1));
        assert_eq!(looks.begin_count(|_| false, SECOND), None);
        assert_eq!(looks.begin_count(|_| false, 2 * SECOND), Some(1));
    }

    #[test]
    fn it_is_looked_at_once_when_the_last_count_has_come_and_for_no_other() {
        let mut looks = looks();
        looks.begin(false, SECOND);
        looks.counted(3, 0, SECOND);
        assert_eq!(looks.due(), 2 * SECOND, "it is not over");
        looks.saw(seen(0), false, true);
        looks.counted(3, 0, SECOND);
        assert_eq!(looks.due(), 2 * SECOND, "it was asked for before that was known");
        looks.counted(3, 1, SECOND);
        assert_eq!(looks.due(), SECOND);
        looks.begin(false, SECOND);
        looks.saw(seen(0), false, true);
        looks.counted(3, 1, SECOND);
        assert_eq!(looks.due(), 2 * SECOND, "the end is told");
    }

    #[test]
    fn what_was_seen_is_told_with_what_machines_say_and_how_many_dead_letters_there_are() {
        let mut looks = looks();
        looks.saw(Seen { messages: 1, items: 2, bytes: 4, first_sequence: 5, last_sequence: 6 }, false, false);
        let machines = View { machines: 7, producers_expected: 8, producers_finished: 9, ..View::default() };
        let seen = View { messages: 1, items: 2, bytes: 4, first_sequence: 5, last_sequence: 6, dead: 3, ..machines.clone() };
        assert_eq!(looks.view(machines), Some(seen));
    }

    #[test]
    fn the_end_is_told_with_all_dead_letters_counted() {
        let mut looks = looks();
        looks.saw(seen(0), false, true);
        assert!(looks.view(View::default()).is_some_and(|view| !view.is_done));
        assert_eq!(looks.begin_count(|ends| ends == 0, Duration::ZERO), Some(1), "one that was asked for before counts for nothing");
        assert_eq!(looks.begin_count(|ends| ends == 1, Duration::ZERO), None);
        looks.counted(9, 0, SECOND);
        looks.saw(seen(0), false, true);
        assert!(looks.view(View::default()).is_some_and(|view| !view.is_done));
        looks.begin(true, SECOND);
        looks.counted(5, 1, SECOND);
        assert_eq!(looks.due(), SECOND);
        looks.saw(seen(0), false, true);
        assert_eq!(looks.view(View::default()), Some(View { dead: 5, is_done: true, ..View::default() }));
        looks.saw(seen(1), false, false);
        looks.saw(seen(0), false, true);
        assert!(looks.view(View::default()).is_some_and(|view| !view.is_done), "something was put again");
    }

    #[test]
    fn dead_letters_are_counted_again_if_any_may_have_come_or_gone_since_the_end() {
        let is_done = |looks: &mut Looks| looks.view(View::default()).is_some_and(|view| view.is_done);
        let empty = |last_sequence| Seen { last_sequence, ..Seen::default() };
        let mut looks = looks();
        looks.saw(empty(1), true, true);
        looks.counted(3, 1, SECOND);
        looks.saw(empty(1), true, true);
        assert!(is_done(&mut looks));
        looks.saw(empty(2), true, true);
        assert!(!is_done(&mut looks), "one was put again and is settled");
        assert_eq!(looks.begin_count(|_| false, SECOND), Some(2));
        looks.counted(3, 2, SECOND);
        looks.saw(empty(2), true, true);
        assert!(is_done(&mut looks));
        looks.note_letter();
        looks.counted(2, 2, SECOND);
        assert_eq!(
            looks.view(View::default()),
            Some(View { last_sequence: 2, dead: 2, ..View::default() }),
            "no end is told without a look"
        );
        looks.saw(empty(2), true, true);
        assert!(!is_done(&mut looks), "another has gone");
        looks.counted(1, 3, SECOND);
        looks.counted(2, 2, SECOND);
        looks.saw(empty(2), true, true);
        assert_eq!(looks.view(View::default()), Some(View { last_sequence: 2, dead: 1, is_done: true, ..View::default() }));
    }
}
