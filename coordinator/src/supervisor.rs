//! When a child that ended is started again, and when it is given up. Rules only: no process, no clock.

use std::time::Duration;

use common::program::EXIT_HOPELESS;

use crate::limits::{CHILD_FAILURES_MAX, CHILD_RESTART};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a child is for, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes items; another can always take its place.
    Consumer,
    /// Puts items; another can go on where it was.
    Producer,
    /// Puts items from an input that is gone with it.
    OneTimeProducer,
}

/// What is to be done about an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it has done its work.
    Done,
    /// Start another after this long.
    Restart {
        /// The pause.
        after: Duration,
    },
    /// No other would do better: a producer's input is bad, or the same happens again and again.
    GiveUp,
}

/// What was got done so far, by whomever; neither number ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Items acknowledged, or accepted.
    pub done: u64,
    /// Items that went to the dead letters.
    pub dead: u64,
}

/// One child's record.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// How often an item may kill a consumer before it is given up.
    attempts_max: u32,
    failures: u32,
    tally: Tally,
}

impl Record {
    /// A fresh record in a queue that gives each item this many attempts.
    pub fn new(attempts_max: u32) -> Record {
        Record { attempts_max, ..Record::default() }
    }

    /// Judges an end. `lived` is how long the child did.
    pub fn judge(&mut self, kind: Kind, exit: Exit, tally: Tally, lived: Duration) -> Verdict {
        match (kind, exit) {
            (_, Exit::Code(0)) => return Verdict::Done,
            // It has said itself what is wrong, and a second one would read the same.
            (Kind::Producer | Kind::OneTimeProducer, Exit::Code(_)) | (Kind::OneTimeProducer, _) => return Verdict::GiveUp,
            (Kind::Consumer, _) | (Kind::Producer, Exit::Signal(_)) => {}
        }
        // An item that kills consumers is got rid of by its dead letter. One that says itself that it cannot go on (its command cannot be
        // started, its worker keeps ending) would make a dead letter of each.
        let got_rid = tally.dead > self.tally.dead && matches!(exit, Exit::Signal(_));
        let progressed = tally.done > self.tally.done || got_rid;
        self.tally = tally;
        if progressed {
            self.failures = 0;
            // At once, unless it died so soon that it may be others' progress while this one only dies.
            return Verdict::Restart { after: CHILD_RESTART.min.saturating_sub(lived) };
        }
        // It was patient itself.
        if exit == Exit::Code(i32::from(EXIT_HOPELESS)) {
            return Verdict::GiveUp;
        }
        self.failures += 1;
        // One that is killed may have been so by an item, which is given all of its attempts before it is dead-lettered: that is progress.
        let patience = if matches!(exit, Exit::Signal(_)) { self.attempts_max } else { 0 };
        if self.failures >= CHILD_FAILURES_MAX.saturating_add(patience) {
            return Verdict::GiveUp;
        }
        Verdict::Restart { after: CHILD_RESTART.after(self.failures) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal(9);
    const LONG: Duration = Duration::from_secs(1);

    fn done(done: u64) -> Tally {
        Tally { done, dead: 0 }
    }

    #[test]
    fn one_that_dies_between_items_is_started_again_at_once_however_often() {
        let mut record = Record::default();
        for progress in 1..100 {
            assert_eq!(record.judge(Kind::Consumer, KILLED, done(progress), LONG), Verdict::Restart { after: Duration::ZERO });
        }
    }

    #[test]
    fn one_that_dies_as_soon_as_it_is_born_is_not_started_faster_than_others_get_work_done() {
        let verdict = Record::default().judge(Kind::Consumer, KILLED, done(1), Duration::from_millis(1));
        assert_eq!(verdict, Verdict::Restart { after: CHILD_RESTART.min - Duration::from_millis(1) });
    }

    #[test]
    fn one_that_dies_again_and_again_without_progress_is_given_up_after_growing_pauses() {
        let mut record = Record::default();
        let mut pauses = Vec::new();
        loop {
            match record.judge(Kind::Consumer, Exit::Code(1), done(0), LONG) {
                Verdict::Restart { after } => pauses.push(after),
                verdict => break assert_eq!(verdict, Verdict::GiveUp),
            }
        }
        assert_eq!(pauses.len() as u32, CHILD_FAILURES_MAX - 1);
        assert!(pauses.is_sorted() && pauses[0] == CHILD_RESTART.min);
    }

    #[test]
    fn one_that_is_killed_is_given_as_many_more_lives_as_an_item_has_attempts() {
        let mut record = Record::new(7);
        let lives = (0..).take_while(|_| record.judge(Kind::Consumer, KILLED, done(0), LONG) != Verdict::GiveUp).count();
        assert_eq!(lives as u32 + 1, CHILD_FAILURES_MAX + 7);
    }

    #[test]
    fn dead_letters_are_progress_of_one_that_is_killed_and_not_of_one_that_gives_up_by_itself() {
        let mut killed = Record::new(1);
        let dead = |dead| Tally { done: 0, dead };
        for n in 1..100 {
            assert_eq!(killed.judge(Kind::Consumer, KILLED, dead(n), LONG), Verdict::Restart { after: Duration::ZERO });
        }
        let mut broken = Record::new(1);
        let lives = (1..).take_while(|n| broken.judge(Kind::Consumer, Exit::Code(1), dead(*n), LONG) != Verdict::GiveUp).count();
        assert_eq!(lives as u32 + 1, CHILD_FAILURES_MAX);
    }

    #[test]
    fn one_that_says_that_none_would_do_better_is_given_up_unless_others_get_work_done() {
        let hopeless = Exit::Code(i32::from(EXIT_HOPELESS));
        let mut record = Record::new(5);
        assert!(matches!(record.judge(Kind::Consumer, hopeless, done(1), LONG), Verdict::Restart { .. }));
        assert_eq!(record.judge(Kind::Consumer, hopeless, done(1), LONG), Verdict::GiveUp);
    }

    #[test]
    fn a_producer_that_fails_by_itself_or_whose_input_is_gone_is_not_started_again() {
        assert_eq!(Record::default().judge(Kind::Producer, Exit::Code(1), done(9), LONG), Verdict::GiveUp);
        assert_eq!(Record::default().judge(Kind::OneTimeProducer, KILLED, done(9), LONG), Verdict::GiveUp);
        assert!(matches!(Record::default().judge(Kind::Producer, KILLED, done(9), LONG), Verdict::Restart { .. }));
        assert_eq!(Record::default().judge(Kind::OneTimeProducer, Exit::Code(0), done(9), LONG), Verdict::Done);
    }
}
