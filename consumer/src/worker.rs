//! A worker: a command that is started once and stays up. It gets one item a line on its stdin and answers each with one line on its
//! stdout.
//!
//! Items are given to it ahead, as many as it does in two milliseconds by its recent pace, so that a quick one never waits for us. It answers
//! in order, so the first item without an answer is the one that it works on: that one has failed if the worker ends; those
//! behind it were merely in the pipe, and go back as if they had never been delivered. An item that is delivered again is given to it
//! alone, so that a bad one is found by itself.
//!
//! # Layout
//! Two threads: the caller's gets items (here); the `attendant` gives them to the worker's `process`, takes its answers and passes on its
//! `stderr`. What they say to each other goes through the `handover`.

mod attendant;
mod handover;
mod pace;
mod process;
mod stderr;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use common::program::EXIT_DONE;
use common::{Consumer, Error};

use crate::command::Running;
use crate::joblog::JobLog;
use attendant::Attendant;
use handover::{Handover, Supply};
use process::Plan;

/// How a worker is to be run.
pub struct Worker {
    plan: Plan,
    /// What ends an item, and an answer.
    separator: u8,
    prefetch: Option<u32>,
    connects_again: bool,
    joblog: Option<JobLog>,
}

/// Workers keep ending: no other consumer's would do better.
#[derive(Debug)]
pub struct Hopeless {
    /// How the last one has ended.
    what: String,
}

impl fmt::Display for Hopeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; workers keep ending without an answer, so this was the last", self.what)
    }
}

impl std::error::Error for Hopeless {}

impl Worker {
    /// A worker with these words, whose program is looked for now. `prefetch` items are given to it ahead, or as many as its pace suggests.
    ///
    /// With `dies_with_us` the kernel kills it when the thread that attends to it dies, however it does.
    pub fn find(words: &[OsString], socket: &Path, dies_with_us: bool, separator: u8, prefetch: Option<u32>) -> Result<Worker> {
        let plan = Plan::new(words, socket, dies_with_us)?;
        Ok(Worker { plan, separator, prefetch, connects_again: false, joblog: None })
    }

    /// After a lost connection the consumer goes on with another.
    pub fn with_reconnect(self, connects_again: bool) -> Worker {
        Worker { connects_again, ..self }
    }

    /// Each attempt is noted there.
    pub fn with_joblog(self, joblog: Option<JobLog>) -> Worker {
        Worker { joblog, ..self }
    }

    /// Has it work until Stop; the exit code. The consumer is one that begins by hand.
    pub fn work(&self, consumer: &Consumer<[u8]>, running: &Running) -> Result<u8> {
        let handover = Handover::new().context("cannot make a socket pair")?;
        let attendant = Attendant::new(self, consumer, &handover, running)?;
        std::thread::scope(|scope| {
            let attendant = scope.spawn(|| {
                let attended = attendant.attend();
                handover.close();
                // Wakes the getter. If the connection is broken, that has woken it.
                let _ = consumer.stop();
                attended
            });
            let got = get_items(consumer, &handover);
            handover.end(if got.is_ok() { Supply::Over } else { Supply::Broken });
            let attended = attendant.join().unwrap_or_else(|_| Err(anyhow!("the thread that attends to {} has panicked", self.plan)));
            handover.give_back();
            // What the coordinator said last tells more than that it is gone.
            got.and(attended).map(|()| EXIT_DONE)
        })
    }
}

/// Until Stop, or until nobody attends any more.
fn get_items<'c>(consumer: &'c Consumer<[u8]>, handover: &Handover<'c>) -> Result<()> {
    let mut permit = None;
    loop {
        let Some(now) = permit.or_else(|| handover.wait_for_room()) else { return Ok(()) };
        permit = match consumer.get() {
            Ok(Some(delivery)) => handover.give(delivery, now),
            Ok(None) => return Ok(()),
            Err(error @ Error::Closed { .. }) => return Err(error).context("the queue has ended"),
            Err(error) => return Err(error.into()),
        }
    }
}
