//! A worker that has ended, or is to be: what becomes of its items, and whether another is started.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

use anyhow::Result;
use common::ItemId;
use common::program::tell;

use super::{Attendant, Given, Leaving};
use crate::PROGRAM;
use crate::joblog::{Attempt, Began, JobLog, Outcome};
use crate::limits::{WORKER_FAILURES_MAX, WORKER_RESTART};
use crate::unless_expired;
use crate::worker::Hopeless;
use crate::worker::handover::{Item, Supply};

impl<'c> Attendant<'_, 'c> {
    pub(super) fn worker_ended(&mut self, status: ExitStatus) -> Result<()> {
        if self.overdue_until.is_some() {
            return self.worker_took_too_long();
        }
        let how = match status.signal() {
            Some(signal) => format!("ended by signal {signal}"),
            None => format!("exit status {}", status.code().unwrap_or_default()),
        };
        if self.given.is_empty() && self.supply != Supply::Open {
            // An end that was asked for.
            if !status.success() && !matches!(self.leaving, Some(Leaving::Asked { .. })) {
                tell(PROGRAM, format_args!("worker {}: {how}, after its last item", self.worker.plan));
            }
            self.lines.end(None);
            self.process = None;
            return Ok(());
        }
        self.worker_failed(&how, Some(status))
    }

    /// The worker is of no use any more: the item at hand has failed, the rest goes back, another is started.
    pub(super) fn worker_failed(&mut self, cause: &str, status: Option<ExitStatus>) -> Result<()> {
        self.lines.end(self.about(0));
        let (exit, signal) = status.map_or((None, None), |status| (status.code(), status.signal()));
        let at_hand = self.given.pop_front();
        let failed = at_hand.as_ref().map(|given| given.item.id());
        let plan = &self.worker.plan;
        if let Some(Given { item, .. }) = at_hand {
            let cause = format!("{plan}: {cause}");
            let attempt = Attempt { exit, signal, ..self.attempt(Outcome::Failed, Some(&cause)) };
            let item = JobLog::note(self.worker.joblog.as_ref(), item, &attempt)?;
            unless_expired(item.fail(cause))?;
        }
        let (pid, has_answered) = self.process.take().map_or((None, false), |process| (Some(process.pid()), process.has_answered));
        for Given { item, .. } in std::mem::take(&mut self.given) {
            unless_expired(item.give_back_unstarted())?;
        }
        self.give_back_behind()?;
        self.held_bytes = 0;
        self.input.clear();
        self.input_written = 0;
        self.output.clear();
        self.looked_through = 0;
        self.closed_at = None;
        self.pace.collapse();
        let now = Instant::now();
        self.pace.answered(0, true, now);
        self.running.set_idle(true);
        self.judge(has_answered, failed, now, || match pid {
            Some(pid) => format!("worker {plan} (pid {pid}): {cause}"),
            None => cause.to_string(),
        })
    }

    /// Decides when another worker is started; an error is that none would do better.
    fn judge(&mut self, has_answered: bool, failed: Option<ItemId>, now: Instant, what: impl Fn() -> String) -> Result<()> {
        let took_too_long = self.overdue_until.take().is_some();
        if has_answered {
            (self.fruitless, self.suspects, self.suspect) = (0, 0, None);
        } else if !took_too_long {
            self.fruitless += 1;
            // The same item again and again is a bad item, which comes to its last attempt by itself.
            if failed.is_none() || failed != self.suspect {
                self.suspects += 1;
            }
            self.suspect = failed;
        }
        if self.suspects >= WORKER_FAILURES_MAX {
            return Err(Hopeless { what: what() }.into());
        }
        self.start_at = if has_answered || took_too_long { now } else { now + WORKER_RESTART.after(self.fruitless) };
        if self.supply == Supply::Open {
            let of_that = if took_too_long && !has_answered { ", its start included" } else { "" };
            tell(PROGRAM, format_args!("{}{of_that}; starting another", what()));
        }
        Ok(())
    }

    /// What is not given to the worker goes back; and what is got for it from now on, or was just now, would wait for the next one.
    pub(super) fn give_back_behind(&mut self) -> Result<()> {
        self.handover.revoke();
        self.handover.take(&mut self.waiting);
        self.give_back_waiting()
    }

    pub(super) fn give_back_waiting(&mut self) -> Result<()> {
        for item in std::mem::take(&mut self.waiting) {
            self.held_bytes = self.held_bytes.saturating_sub(item.item().len() as u64);
            unless_expired(item.give_back_unstarted())?;
        }
        Ok(())
    }

    pub(super) fn reject(&mut self, item: Item<'c>) -> Result<()> {
        let cause = match self.worker.separator {
            0 => "the item holds a NUL byte, which is what ends an item for a worker with --format nul",
            _ => "the item holds a line end, which is what ends an item for a worker; use --format nul",
        };
        let cause = format!("{}: {cause}", self.worker.plan);
        let attempt = Attempt { pid: None, began: Began::now(), ..self.attempt(Outcome::Rejected, Some(&cause)) };
        unless_expired(JobLog::note(self.worker.joblog.as_ref(), item, &attempt)?.reject(cause))
    }
}
