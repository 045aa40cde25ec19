//! The journal: a queue's items and what became of them, kept where they outlive the coordinator.
//!
//! [`Journal`] is the near end of a thread that owns the store. What is handed over while a commit runs rides in the next one, and is
//! reported only once it is durable.
//!
//! - `folder`: the directory, who may use it and who does; `witness`: how far the journal has come at least; `disk`: files, and the seam for
//!   tests;
//! - `group`: from entries to the changes that a commit makes; `marks`: what became of a batch's items; `store`: the tables; `record`: their
//!   bytes;
//! - [`inspect`]: looking at a journal without changing it; [`model`]: what all of this does, as plainly as it can be written.

mod disk;
mod error;
mod folder;
mod group;
pub mod inspect;
pub mod model;
mod record;
mod store;
mod witness;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use clap::ValueEnum;
use tracing::debug;

pub use disk::sync_name;
pub use error::JournalError;
use folder::Folder;
pub use record::RecordError;
use store::{Sizes, Store};

use crate::limits::JOURNAL_COMMIT_BYTES_MAX;
use crate::queue::{DeadPage, DeadRange, Entry, Load, Loaded, Recovered};

/// The version of the journal's format: raised when a program that knows the former could misread it.
pub const FORMAT_VERSION: u32 = 1;

/// When what is written has to have reached the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Before it counts: it survives the machine
    #[default]
    Always,
    /// Whenever the system likes: it survives the coordinator, not the machine
    Never,
}

/// What comes back from the journal.
#[derive(Debug)]
pub enum Answer {
    /// So many more of the entries are there for good, in the order of being handed over.
    Kept(usize),
    /// What was asked for, with all that was reported as kept before, and nothing else.
    Loaded(Vec<Loaded>),
    /// The same of dead letters.
    DeadLoaded(DeadPage),
}

/// The near end of the journal's thread.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    work: Option<Sender<Vec<Work>>>,
    answers: Receiver<Result<Answer, JournalError>>,
    thread: Option<JoinHandle<Result<(), JournalError>>>,
    gathered: Vec<Work>,
    waiting_entries: usize,
    waiting_looks: usize,
    has_failed: bool,
}

#[derive(Debug)]
enum Work {
    Keep(Entry),
    Look(Look),
}

/// What is wanted from the store.
#[derive(Debug)]
enum Look {
    Load(Load),
    Dead(DeadRange),
}

impl Journal {
    /// Opens the journal in a directory, or makes one in an empty directory or a new one, and starts its thread. `wake` is called when there
    /// is something to collect.
    pub fn open(
        dir: &Path,
        fsync: Fsync,
        item_bytes_max: u64,
        wake: impl Fn() + Send + 'static,
    ) -> Result<(Journal, Recovered), JournalError> {
        let folder = Folder::open(dir)?;
        let mut store = folder.store(fsync, Sizes::default())?;
        store.allow_items(item_bytes_max)?;
        let recovered = store.recovered();
        Ok((Journal::start(store, dir, folder, wake)?, recovered))
    }

    /// Takes an entry to be kept; [`Journal::flush`] hands it over.
    pub fn keep(&mut self, entry: Entry) {
        self.waiting_entries += 1;
        self.gathered.push(Work::Keep(entry));
    }

    /// Asks for batches, of which there is one at least; [`Journal::flush`] hands it over.
    pub fn load(&mut self, load: Load) {
        self.look(Look::Load(load));
    }

    /// Asks for dead letters; [`Journal::flush`] hands it over.
    pub fn load_dead(&mut self, range: DeadRange) {
        self.look(Look::Dead(range));
    }

    fn look(&mut self, look: Look) {
        self.waiting_looks += 1;
        self.gathered.push(Work::Look(look));
    }

    /// Hands over what was taken since the last call.
    pub fn flush(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        if let Some(work) = &self.work {
            // After a failure the thread is gone; that was reported, and nothing is kept any more.
            let _ = work.send(gathered);
        }
    }

    /// What has come back since the last call. After an error nothing is kept any more.
    pub fn collect(&mut self) -> Result<Vec<Answer>, JournalError> {
        let mut answers = Vec::new();
        while !self.has_failed {
            match self.answers.try_recv() {
                Ok(answer) => {
                    let answer = answer.inspect_err(|_| self.has_failed = true)?;
                    match &answer {
                        Answer::Kept(entries) => self.waiting_entries -= entries,
                        Answer::Loaded(_) | Answer::DeadLoaded(_) => self.waiting_looks -= 1,
                    }
                    answers.push(answer);
                }
                Err(TryRecvError::Empty) => return Ok(answers),
                Err(TryRecvError::Disconnected) => self.has_failed = true,
            }
        }
        Err(JournalError::Ended { path: self.path.clone() })
    }

    /// Keeps an entry, and waits until it is there for good: at the start, while there is nothing else to wait for.
    pub fn keep_now(&mut self, entry: Entry) -> Result<(), JournalError> {
        debug_assert!(self.is_idle(), "an answer to something else could come first");
        self.keep(entry);
        self.flush();
        self.answers.recv().unwrap_or_else(|_| Err(JournalError::Ended { path: self.path.clone() }))?;
        self.waiting_entries = 0;
        Ok(())
    }

    /// True when all that was taken has come back.
    pub fn is_idle(&self) -> bool {
        self.waiting_entries == 0 && self.waiting_looks == 0
    }

    /// Finishes what was taken, and closes the journal.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.flush();
        self.work = None;
        let ended = || JournalError::Ended { path: self.path.clone() };
        let closed = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_else(|| Err(ended()));
        self.answers.try_iter().try_for_each(|answer| answer.map(drop))?;
        if self.has_failed { Err(ended()) } else { closed }
    }

    /// What is `held` is let go of once the store is closed.
    fn start(store: Store, path: &Path, held: impl Send + 'static, wake: impl Fn() + Send + 'static) -> Result<Journal, JournalError> {
        let (work, waiting) = channel();
        let (report, answers) = channel();
        let worker = thread::Builder::new().name("journal".into()).spawn(move || {
            let closed = Worker { store, entries: VecDeque::new(), looks: VecDeque::new() }.run(&waiting, &report, wake);
            drop(held);
            closed
        });
        let thread = worker.map_err(|source| JournalError::io("start a thread for", path, source))?;
        Ok(Journal {
            path: path.into(),
            work: Some(work),
            answers,
            thread: Some(thread),
            gathered: Vec::new(),
            waiting_entries: 0,
            waiting_looks: 0,
            has_failed: false,
        })
    }
}

type Report = Sender<Result<Answer, JournalError>>;

/// The far end.
struct Worker {
    store: Store,
    entries: VecDeque<Entry>,
    looks: VecDeque<Look>,
}

impl Worker {
    /// Works until nothing more can come, then closes the store; or until something fails, and reports that.
    fn run(mut self, waiting: &Receiver<Vec<Work>>, report: &Report, wake: impl Fn()) -> Result<(), JournalError> {
        loop {
            if self.is_idle() {
                let Ok(work) = waiting.recv() else { return self.store.close() };
                self.take(work);
            }
            waiting.try_iter().for_each(|work| self.take(work));
            let answer = self.answer();
            let has_failed = answer.is_err();
            // If nobody collects any more, what was handed over is kept all the same.
            let _ = report.send(answer);
            wake();
            if has_failed {
                return Ok(());
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.looks.is_empty()
    }

    fn take(&mut self, work: Vec<Work>) {
        for work in work {
            match work {
                Work::Keep(entry) => self.entries.push_back(entry),
                Work::Look(look) => self.looks.push_back(look),
            }
        }
    }

    /// Looks come first: they take no sync, and consumers wait for them.
    fn answer(&mut self) -> Result<Answer, JournalError> {
        match self.looks.pop_front() {
            Some(Look::Load(load)) => return self.store.load(load).map(Answer::Loaded),
            Some(Look::Dead(range)) => return self.store.load_dead(range).map(Answer::DeadLoaded),
            None => {}
        }
        let mut bytes = 0;
        let mut fits = |entry: &Entry| {
            let first = bytes == 0;
            bytes += entry_bytes(entry);
            first || bytes <= JOURNAL_COMMIT_BYTES_MAX
        };
        let entries = self.entries.iter().take_while(|entry| fits(entry)).count();
        let began = Instant::now();
        self.store.commit(self.entries.drain(..entries))?;
        debug!(entries, micros = began.elapsed().as_micros() as u64, "committed");
        Ok(Answer::Kept(entries))
    }
}

/// What an entry costs about.
fn entry_bytes(entry: &Entry) -> u64 {
    let content_bytes = match entry {
        Entry::Put { batch, .. } | Entry::Requeued { batch, .. } => batch.body_bytes(),
        Entry::Dead(letter) => letter.item.len() as u64,
        Entry::Dropped { .. } | Entry::Settled { .. } | Entry::Failed { .. } | Entry::Output { .. } | Entry::Finished { .. } => 0,
    };
    content_bytes + size_of::<Entry>() as u64
}

#[cfg(test)]
mod tests;
