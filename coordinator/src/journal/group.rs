//! From entries to what has to be written for them: an account of what the journal holds, and the changes that one commit makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use common::batch::Batch;
use serde::{Deserialize, Serialize};

use super::error::JournalError;
use crate::marks::{Fate, Marks};
use crate::queue::{DeadLetter, Entry, Progress, Recovered};

/// What is known of the whole, so that opening takes no look at each batch. Written with each commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// The commit's number.
    pub(super) sequence: u64,
    pub(super) next_id: u64,
    /// Items that are not settled.
    pub(super) items: u64,
    /// Batches with such items.
    pub(super) batches: u64,
    /// Bytes of these batches' bodies.
    pub(super) body_bytes: u64,
    pub(super) acknowledged: u64,
    pub(super) dead: u64,
    /// Bytes of the dead letters' items.
    pub(super) dead_bytes: u64,
    pub(super) finished_unnamed: u64,
    pub(super) output_bytes: Option<u64>,
    /// The largest item that was allowed since there were none.
    pub(super) item_bytes_max: u64,
}

/// A producer with a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Producer {
    pub(super) position: u64,
    pub(super) checksum: u64,
    pub(super) finished: bool,
}

/// A batch, but for its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) count: u32,
    pub(super) body_bytes: u64,
    pub(super) marks: Marks,
    /// There is a record of its marks.
    pub(super) marks_stored: bool,
}

/// What one commit changes. What comes and goes within the group is not in it.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) puts: BTreeMap<u64, Batch>,
    /// Batches of earlier commits that go, and whether there is a record of their marks.
    pub(super) removed: BTreeMap<u64, bool>,
    /// Batches whose marks have changed.
    pub(super) marked: BTreeSet<u64>,
    pub(super) producers: BTreeSet<Arc<str>>,
    pub(super) dead: BTreeMap<u64, DeadLetter>,
    /// Dead letters of earlier commits that go.
    pub(super) dead_removed: BTreeSet<u64>,
}

/// The account: true of the last commit, and of the entries taken since.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) totals: Totals,
    pub(super) producers: BTreeMap<Arc<str>, Producer>,
    /// Batches that were touched lately: those near the head, most of all.
    known: BTreeMap<u64, Known>,
    /// How many batches and runs of marks `known` has.
    known_weight: usize,
    /// For errors.
    path: PathBuf,
}

/// Finds the batch in which an item lies, as it was at the last commit.
pub(super) trait Find: FnMut(u64) -> Result<Option<(u64, Known)>, JournalError> {}

impl<F: FnMut(u64) -> Result<Option<(u64, Known)>, JournalError>> Find for F {}

impl Account {
    pub(super) fn new(totals: Totals, producers: BTreeMap<Arc<str>, Producer>, path: PathBuf) -> Account {
        Account { totals, producers, known: BTreeMap::new(), known_weight: 0, path }
    }

    pub(super) fn recovered(&self) -> Recovered {
        let progress = |(name, producer): (&Arc<str>, &Producer)| {
            let Producer { position, checksum, finished } = *producer;
            (Progress { name: Arc::clone(name), position, checksum }, finished)
        };
        let totals = &self.totals;
        Recovered {
            next_id: totals.next_id,
            items: totals.items,
            batches: totals.batches,
            body_bytes: totals.body_bytes,
            acknowledged: totals.acknowledged,
            dead: totals.dead,
            producers: self.producers.iter().map(progress).collect(),
            finished_unnamed: totals.finished_unnamed,
            output_bytes: totals.output_bytes,
        }
    }

    /// Takes an entry into the group.
    pub(super) fn take(&mut self, entry: Entry, group: &mut Group, find: &mut impl Find) -> Result<(), JournalError> {
        match entry {
            Entry::Put { first, batch, by } => self.put(first, batch, by, group),
            Entry::Settled { first, count, output_bytes } => {
                self.totals.acknowledged += count;
                self.totals.output_bytes = output_bytes.or(self.totals.output_bytes);
                self.mark(first, count, Fate::Settled, group, find)
            }
            Entry::Dead(letter) => {
                self.totals.dead += 1;
                self.totals.dead_bytes += letter.item.len() as u64;
                let id = letter.id.0;
                group.dead.insert(id, letter);
                self.mark(id, 1, Fate::Settled, group, find)
            }
            Entry::Requeued { id, first, batch } => {
                self.remove_dead(id, batch.body_bytes(), group)?;
                self.put(first, batch, None, group)
            }
            Entry::Dropped { id, item_bytes } => self.remove_dead(id, item_bytes, group),
            Entry::Failed { first, count, failures } => self.mark(first, count, Fate::Failed(failures), group, find),
            Entry::Output { bytes } => {
                self.totals.output_bytes = Some(bytes);
                Ok(())
            }
            Entry::Finished { name: None } => {
                self.totals.finished_unnamed += 1;
                Ok(())
            }
            Entry::Finished { name: Some(name) } => {
                self.producers.entry(Arc::clone(&name)).or_default().finished = true;
                group.producers.insert(name);
                Ok(())
            }
        }
    }

    /// A batch that is in the store, if it is known.
    pub(super) fn known(&self, first: u64) -> Option<&Known> {
        self.known.get(&first)
    }

    /// Remembers a batch that is in the store.
    pub(super) fn learn(&mut self, first: u64, known: Known) {
        self.known_weight += weight(&known);
        if let Some(before) = self.known.insert(first, known) {
            self.known_weight -= weight(&before);
        }
    }

    /// The group is in the store. What is known is cut to a bound, from the end, which is needed last.
    pub(super) fn committed(&mut self, group: &Group, known_weight_max: usize) {
        for first in &group.marked {
            if let Some(known) = self.known.get_mut(first) {
                known.marks_stored = true;
            }
        }
        self.forget(known_weight_max);
    }

    /// Cuts what is known to a bound, from the end, which is needed last.
    pub(super) fn forget(&mut self, known_weight_max: usize) {
        while self.known_weight > known_weight_max {
            let Some((_, known)) = self.known.pop_last() else { break };
            self.known_weight -= weight(&known);
        }
    }

    fn put(&mut self, first: u64, batch: Batch, by: Option<Progress>, group: &mut Group) -> Result<(), JournalError> {
        if first < self.totals.next_id {
            return Err(self.odd(format_args!("item {first} is put, and {} is the next", self.totals.next_id)));
        }
        let (count, body_bytes) = (batch.count(), batch.body_bytes());
        self.totals.next_id = first + u64::from(count);
        self.totals.items += u64::from(count);
        self.totals.batches += 1;
        self.totals.body_bytes += body_bytes;
        self.learn(first, Known { count, body_bytes, ..Known::default() });
        group.puts.insert(first, batch);
        if let Some(Progress { name, position, checksum }) = by {
            let producer = self.producers.entry(Arc::clone(&name)).or_default();
            (producer.position, producer.checksum) = (position, checksum);
            group.producers.insert(name);
        }
        Ok(())
    }

    /// That it is there shows when the group is written.
    fn remove_dead(&mut self, id: u64, item_bytes: u64, group: &mut Group) -> Result<(), JournalError> {
        let (Some(dead), Some(dead_bytes)) = (self.totals.dead.checked_sub(1), self.totals.dead_bytes.checked_sub(item_bytes)) else {
            return Err(self.odd(format_args!("the dead letter of item {id} goes, and there is none by the totals")));
        };
        (self.totals.dead, self.totals.dead_bytes) = (dead, dead_bytes);
        if group.dead.remove(&id).is_none() {
            group.dead_removed.insert(id);
        }
        Ok(())
    }

    fn mark(&mut self, first: u64, count: u64, fate: Fate, group: &mut Group, find: &mut impl Find) -> Result<(), JournalError> {
        let (mut id, end) = (first, first + count);
        while id < end {
            let batch = self.batch_of(id, group, find)?;
            let Some(known) = self.known.get_mut(&batch) else { return Err(self.odd(format_args!("item {id} is unknown"))) };
            // The batch begins at `id` or before, and has at most u32::MAX items.
            let from = (id - batch) as u32;
            let until = (end - batch).min(u64::from(known.count)) as u32;
            self.known_weight -= weight(known);
            if !known.marks.set(from, until, fate) {
                return Err(self.odd(format_args!("items {id} to {} are settled, some of them again", batch + u64::from(until) - 1)));
            }
            self.known_weight += weight(known);
            let is_settled = known.marks.settled() == known.count;
            self.totals.items -= if fate == Fate::Settled { u64::from(until - from) } else { 0 };
            id = batch + u64::from(until);
            if is_settled { self.remove(batch, group) } else { _ = group.marked.insert(batch) }
        }
        Ok(())
    }

    fn remove(&mut self, batch: u64, group: &mut Group) {
        let Some(known) = self.known.remove(&batch) else { return };
        self.known_weight -= weight(&known);
        self.totals.batches -= 1;
        self.totals.body_bytes -= known.body_bytes;
        group.marked.remove(&batch);
        if group.puts.remove(&batch).is_none() {
            group.removed.insert(batch, known.marks_stored);
        }
    }

    /// The first item of the batch in which `id` lies, which is known afterwards.
    fn batch_of(&mut self, id: u64, group: &Group, find: &mut impl Find) -> Result<u64, JournalError> {
        if let Some((first, known)) = self.known.range(..=id).next_back()
            && id - first < u64::from(known.count)
        {
            return Ok(*first);
        }
        match find(id)? {
            Some((first, known)) if id - first < u64::from(known.count) && !group.removed.contains_key(&first) => {
                self.learn(first, known);
                Ok(first)
            }
            _ => Err(self.odd(format_args!("item {id} is not there"))),
        }
    }

    fn odd(&self, what: std::fmt::Arguments<'_>) -> JournalError {
        JournalError::damaged(&self.path, what)
    }
}

fn weight(known: &Known) -> usize {
    1 + known.marks.len()
}
