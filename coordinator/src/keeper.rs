//! Where what the queue keeps outlives the coordinator, if it does: in a journal, or at the servers that it is shared at.

use std::time::Duration;

use anyhow::{Context, Result};
use common::program::tell;

use crate::PROGRAM;
use crate::jetstream::Cluster;
use crate::journal::{Answer, Journal};
use crate::limits::JETSTREAM_SERVER_OLDEST;
use crate::queue::{Input, Output};
use crate::sharing::{Notice, Said, Sharing};

/// What keeps the queue.
#[derive(Debug)]
pub enum Keeper {
    /// Nothing: it ends with the coordinator.
    Nothing,
    /// A journal on this machine's disk.
    Journal(Journal),
    /// Servers, for many machines.
    Servers(Box<Sharing<Cluster>>),
}

impl Keeper {
    /// Does what the queue says, if that is for it to do; gives back what is not.
    pub fn serve(&mut self, output: Output, now: Duration) -> Option<Output> {
        match (self, output) {
            (Keeper::Journal(journal), Output::Journal(entry)) => journal.keep(entry),
            (Keeper::Journal(journal), Output::Load(load)) => journal.load(load),
            (Keeper::Journal(journal), Output::LoadDead(range)) => journal.load_dead(range),
            (Keeper::Servers(sharing), output) => return sharing.serve(output, now),
            (_, output) => return Some(output),
        }
        None
    }

    /// Lets what has gathered go its way.
    pub fn flush(&mut self, now: Duration) {
        match self {
            Keeper::Nothing => {}
            Keeper::Journal(journal) => journal.flush(),
            Keeper::Servers(sharing) => sharing.note_marks(now),
        }
    }

    /// When [`Keeper::flush`] has something to do by itself.
    pub fn next_due(&self) -> Option<Duration> {
        match self {
            Keeper::Servers(sharing) => sharing.next_due(),
            Keeper::Nothing | Keeper::Journal(_) => None,
        }
    }

    /// How many more entries count though nothing has come back for them.
    pub fn take_kept(&mut self) -> usize {
        match self {
            Keeper::Servers(sharing) => sharing.take_kept(),
            Keeper::Nothing | Keeper::Journal(_) => 0,
        }
    }

    /// What has come for the queue since the last call. After an error nothing is kept any more.
    pub fn collect(&mut self) -> Result<Vec<Input>> {
        match self {
            Keeper::Nothing => Ok(Vec::new()),
            Keeper::Journal(journal) => {
                let answers = journal.collect().context("nothing more is accepted; what was confirmed is there at the next start")?;
                let input = |answer| match answer {
                    Answer::Kept(entries) => Input::Journaled { entries },
                    Answer::Loaded(batches) => Input::Loaded { batches },
                    Answer::DeadLoaded(page) => Input::DeadLoaded(page),
                };
                Ok(answers.into_iter().map(input).collect())
            }
            Keeper::Servers(sharing) => {
                let said = sharing
                    .collect()
                    .context("this machine can take no further part in the queue; what was confirmed is at the servers")?;
                let input = |said| match said {
                    Said::Input(input) => Some(input),
                    Said::Notice(notice) => {
                        tell_people(&notice);
                        None
                    }
                };
                Ok(said.into_iter().filter_map(input).collect())
            }
        }
    }

    /// True when all that was given out is kept.
    pub fn is_idle(&self) -> bool {
        match self {
            Keeper::Nothing => true,
            Keeper::Journal(journal) => journal.is_idle(),
            Keeper::Servers(sharing) => sharing.is_idle(),
        }
    }

    /// Brings it to its end.
    pub fn close(self) -> Result<()> {
        match self {
            Keeper::Nothing => {}
            Keeper::Journal(journal) => journal.close()?,
            Keeper::Servers(sharing) => (*sharing).into_servers().close(),
        }
        Ok(())
    }
}

fn tell_people(notice: &Notice) {
    match notice {
        Notice::Outage(said) => tell(PROGRAM, format_args!("the servers cannot be reached ({said}); trying on, nothing is lost meanwhile")),
        Notice::Restored { after } => {
            let after = humantime::format_duration(Duration::from_millis(after.as_millis() as u64));
            tell(PROGRAM, format_args!("the servers can be reached again, after {after}"));
        }
        Notice::NoSpace(said) => {
            tell(PROGRAM, format_args!("the servers have no room though the queue is not full ({said}); trying on, producers wait"));
        }
        Notice::OldServer(version) => {
            let (major, minor, patch) = JETSTREAM_SERVER_OLDEST;
            tell(
                PROGRAM,
                format_args!(
                    "the NATS server is {version}; before {major}.{minor}.{patch} an item can be lost when a server is killed: install a newer one"
                ),
            );
        }
        Notice::Lost { machine, producers_unfinished: 0 } => {
            tell(PROGRAM, format_args!("the coordinator {machine} is gone; what it held comes again"));
        }
        Notice::Lost { machine, producers_unfinished } => {
            let producers = if *producers_unfinished == 1 { "a producer that had" } else { "producers that had" };
            tell(
                PROGRAM,
                format_args!(
                    "the coordinator {machine} is gone, with {producers_unfinished} of its {producers} not finished: \
                     what was not put is missing unless it is started again; what it held comes again"
                ),
            );
        }
    }
}
