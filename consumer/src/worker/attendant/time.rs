//! What becomes due while a worker works: the time of the item that it works on, a hint, and what others could do meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;
use common::limits::{COMMAND_END, PREFETCH_GIVE_BACK_AFTER};
use common::program::tell;
use rustix::process::Signal;

use super::{Attendant, Leaving};
use crate::PROGRAM;
use crate::command::took_too_long;
use crate::limits::{WORKER_CLOSED, WORKER_HINT};
use crate::worker::handover::Supply;

impl Attendant<'_, '_> {
    /// How long nothing becomes due.
    pub(super) fn next_timeout(&self, now: Instant) -> Option<Duration> {
        let start = (self.process.is_none() && self.supply == Supply::Open).then_some(self.start_at);
        let leaving = self.leaving.map(|leaving| match leaving {
            Leaving::ByItself { until } | Leaving::Asked { until } => until,
        });
        let closed = self.closed_at.map(|at| at + WORKER_CLOSED);
        let due = start.into_iter().chain(leaving).chain(closed).chain(self.overdue_until).min();
        let due = due.map(|due| due.saturating_duration_since(now));
        let at_work = (!self.given.is_empty() && self.overdue_until.is_none()).then(|| self.began.elapsed());
        let left = |of: Option<Duration>| Some(of?.saturating_sub(at_work?));
        let timeout = left(self.item_timeout);
        let give_back = left(self.may_hold_back().then_some(PREFETCH_GIVE_BACK_AFTER));
        let hint = left((!self.hinted).then_some(WORKER_HINT));
        due.into_iter().chain(timeout).chain(give_back).chain(hint).min()
    }

    /// True if more may be got behind the item at hand, which others may lack.
    pub(super) fn may_hold_back(&self) -> bool {
        self.pace.adapts() && self.pace.is_ahead()
    }

    /// Sees what takes too long.
    pub(super) fn look_at_time(&mut self) -> Result<()> {
        if let Some(until) = self.overdue_until {
            return if until <= Instant::now() { self.worker_took_too_long() } else { Ok(()) };
        }
        if self.given.is_empty() {
            return Ok(());
        }
        let elapsed = self.began.elapsed();
        if self.item_timeout.is_some_and(|item_timeout| item_timeout <= elapsed)
            && let Some(process) = &self.process
        {
            process.signal(Signal::TERM);
            self.overdue_until = Some(Instant::now() + COMMAND_END);
            return self.give_back_behind();
        }
        if elapsed >= PREFETCH_GIVE_BACK_AFTER && self.may_hold_back() {
            // What was got until now stays, so that items keep their order; its number was bounded by the pace.
            self.pace.collapse();
            self.handover.revoke();
        }
        if elapsed >= WORKER_HINT && !self.hinted {
            self.hinted = true;
            if self.process.as_ref().is_some_and(|process| !process.has_answered) {
                let (plan, id) = (&self.worker.plan, self.given.front().map_or(0, |first| first.item.id().0));
                let hint = "a worker has to write one line for each, and flush it before it reads the next";
                tell(PROGRAM, format_args!("{plan} has not answered item {id} for {}: {hint}", humantime::format_duration(WORKER_HINT)));
            }
        }
        Ok(())
    }

    /// It has ended upon that, or is killed now, with all that it has started.
    pub(super) fn worker_took_too_long(&mut self) -> Result<()> {
        if let Some(process) = &self.process {
            process.kill_all();
        }
        let cause = took_too_long(self.item_timeout.unwrap_or_default());
        self.worker_failed(&cause, None)
    }
}
