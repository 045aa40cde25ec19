//! What a worker says: answers on stdout, anything on stderr.

use std::io::BufRead;
use std::time::Instant;

use anyhow::{Context, Result};
use common::program::tell;

use super::{Attendant, Given};
use crate::PROGRAM;
use crate::command::printed_too_much;
use crate::joblog::{Attempt, Began, JobLog, Outcome};
use crate::unless_expired;
use crate::worker::handover::Supply;
use crate::worker::process::{Process, read_some};
use crate::worker::stderr::About;

/// What the worker said.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) anything: bool,
    /// What it may not say.
    pub(super) wrong: Option<String>,
}

impl Attendant<'_, '_> {
    /// Reads answers and what is on stderr.
    pub(super) fn listen(&mut self) -> Result<Heard> {
        let Some(process) = &mut self.process else { return Ok(Heard::default()) };
        let cannot = || format!("cannot read from {}", self.worker.plan);
        let before = self.output.len();
        read_some(&mut process.stdout, &mut self.scratch, &mut self.output).with_context(cannot)?;
        let mut said = Vec::new();
        read_some(&mut process.stderr, &mut self.scratch, &mut said).with_context(cannot)?;
        if !said.is_empty() {
            if self.given.len() > 1 {
                // It may have gone on to the next meanwhile.
                read_some(&mut process.stdout, &mut self.scratch, &mut self.output).with_context(cannot)?;
            }
            let answers = self.output[before..].iter().filter(|byte| **byte == self.worker.separator).count();
            self.pace.talked(Instant::now());
            self.lines.pass_on(&said, self.about(answers));
        }
        if self.overdue_until.is_some() {
            // An answer comes too late.
            self.output.clear();
        }
        let answers = self.output.len() > before;
        let wrong = if answers { self.take_answers()? } else { None };
        Ok(Heard { anything: answers || !said.is_empty(), wrong })
    }

    /// What a line on stderr may be about that came with so many answers.
    pub(super) fn about(&self, answers: usize) -> About {
        let last = self.given.get(answers.min(self.given.len().saturating_sub(1)))?;
        Some((self.given.front()?.item.id(), last.item.id()))
    }

    /// Settles what is answered. Says what is wrong with that, if anything is.
    fn take_answers(&mut self) -> Result<Option<String>> {
        if self.given.is_empty() && self.supply != Supply::Open {
            let pid = self.process.as_ref().map_or(0, Process::pid);
            tell(PROGRAM, format_args!("worker {} (pid {pid}) printed more after its last item, which is no result", self.worker.plan));
            self.output.clear();
            return Ok(None);
        }
        let output = std::mem::take(&mut self.output);
        let (mut at, mut look_from, mut count) = (0, std::mem::take(&mut self.looked_through), 0);
        let (now, bytes_max) = (Began::now(), self.consumer.result_bytes_max() as usize);
        let wrong = loop {
            // A slice is read without fail.
            let looked = (&output[look_from..]).skip_until(self.worker.separator).unwrap_or_default();
            let answer = &output[at..look_from + looked];
            let is_whole = answer.last() == Some(&self.worker.separator);
            if answer.is_empty() || (!is_whole && !self.given.is_empty() && answer.len() < bytes_max) {
                break None;
            }
            if self.given.is_empty() {
                break Some("it printed something while it had no item".into());
            }
            if answer.len() > bytes_max || !is_whole {
                break Some(printed_too_much(bytes_max as u64));
            }
            if self.given.len() == 1 && at + answer.len() < output.len() {
                break Some("it printed more than one line for an item".into());
            }
            self.done(answer, now)?;
            (at, look_from, count) = (at + answer.len(), at + answer.len(), count + 1);
        };
        self.output = output;
        self.output.drain(..at);
        self.looked_through = self.output.len();
        if count > 0 {
            self.pace.answered(count, self.given.is_empty(), Instant::now());
            self.running.set_idle(self.given.is_empty());
        }
        Ok(wrong)
    }

    /// The first item is answered.
    fn done(&mut self, answer: &[u8], now: Began) -> Result<()> {
        let Some(Given { item, .. }) = self.given.pop_front() else { return Ok(()) };
        self.held_bytes -= item.item().len() as u64;
        if let Some(process) = &mut self.process {
            process.has_answered = true;
        }
        let attempt = Attempt { bytes: answer.len(), ..self.attempt(Outcome::Done, None) };
        let item = JobLog::note(self.worker.joblog.as_ref(), item, &attempt)?;
        self.began = now;
        unless_expired(item.ack_with(answer))
    }
}
