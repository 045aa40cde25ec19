//! What a queue that outlives its coordinator keeps in its journal, and what it gets from there.

use std::sync::Arc;

use common::batch::Batch;

use super::DeadLetter;

/// Something that has to be in the journal before it counts. Entries are made durable in order, those that were given out together
/// all or none.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Items are accepted, numbered from `first` on.
    Put {
        /// The first item's number.
        first: u64,
        /// The items.
        batch: Batch,
        /// Who has put them, if it has a name.
        by: Option<Progress>,
    },
    /// Items are done with, and no dead letters.
    Settled {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
        /// How long the output file is with their results in it; none if it has not grown.
        output_bytes: Option<u64>,
    },
    /// An item is given up: it is an item no more, but a dead letter.
    Dead(DeadLetter),
    /// Items whose attempts have failed so many times by now, and will be tried again.
    Failed {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
        /// Failed attempts of each.
        failures: u32,
    },
    /// The output file is ours from its beginning on, and has this length.
    Output {
        /// Bytes.
        bytes: u64,
    },
    /// No more comes from a producer: under this name, or from one without.
    Finished {
        /// The name.
        name: Option<Arc<str>>,
    },
}

/// How far a producer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its name.
    pub name: Arc<str>,
    /// How many of its items are accepted.
    pub position: u64,
    /// The checksum of these items: see `Welcome` in `PROTOCOL.md`.
    pub checksum: u64,
}

/// Batches wanted back from the journal: those whose first item lies in `from..until`, from the lowest on, until they cost `bytes_min`
/// together (as [`batch_cost_bytes`](common::limits::batch_cost_bytes) counts) or there are no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The lowest number.
    pub from: u64,
    /// The number behind the highest.
    pub until: u64,
    /// Enough.
    pub bytes_min: u64,
}

/// A batch from the journal.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its first item's number.
    pub first: u64,
    /// Its items, settled ones included.
    pub batch: Batch,
    /// Which are settled already: first and count, in order.
    pub settled: Vec<(u64, u64)>,
    /// Which have failed before: first, count and failures, in order; none of them settled.
    pub failed: Vec<(u64, u64, u32)>,
}

/// What a journal holds when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The number of the next item.
    pub next_id: u64,
    /// Items that are not settled.
    pub items: u64,
    /// Batches with such items.
    pub batches: u64,
    /// Bytes of these batches' bodies.
    pub body_bytes: u64,
    /// Items that were acknowledged.
    pub acknowledged: u64,
    /// Items that were given up.
    pub dead: u64,
    /// Producers with a name, and whether each has finished.
    pub producers: Vec<(Progress, bool)>,
    /// Producers without a name that have finished.
    pub finished_unnamed: u64,
    /// How long the output file is as far as its results count; none if there was none.
    pub output_bytes: Option<u64>,
}
