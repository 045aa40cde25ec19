//! The journal: a queue's items and what became of them, kept where they outlive the coordinator.

pub mod model;

use crate::queue::{Entry, Load, Loaded, Recovered};
use std::path::Path;

/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fsync {
    /// x
    Always,
    /// x
    Never,
}
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct JournalError;
/// x
#[derive(Debug)]
pub struct Journal(model::Model, usize, Vec<Load>);
/// x
#[derive(Debug)]
pub enum Answer {
    /// x
    Kept(usize),
    /// x
    Loaded(Vec<Loaded>),
}
impl Journal {
    /// x
    pub fn open(
        _dir: &Path,
        _fsync: Fsync,
        _item_bytes_max: u64,
        wake: impl Fn() + Send + 'static,
    ) -> Result<(Journal, Recovered), JournalError> {
        wake();
        Ok((Journal(Default::default(), 0, vec![]), Recovered::default()))
    }
    /// x
    pub fn keep(&mut self, entry: Entry) {
        self.0.keep(&entry);
        self.1 += 1;
    }
    /// x
    pub fn load(&mut self, load: Load) {
        self.2.push(load)
    }
    /// x
    pub fn flush(&mut self) {}
    /// x
    pub fn collect(&mut self) -> Result<Vec<Answer>, JournalError> {
        Ok(std::iter::once(Answer::Kept(std::mem::take(&mut self.1)))
            .chain(std::mem::take(&mut self.2).into_iter().map(|load| Answer::Loaded(self.0.load(load))))
            .collect())
    }
    /// x
    pub fn is_idle(&self) -> bool {
        self.1 == 0
    }
    /// x
    pub fn close(self) -> Result<(), JournalError> {
        Ok(())
    }
}
