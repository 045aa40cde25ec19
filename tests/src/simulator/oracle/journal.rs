//! What is to be in the journal, and what of it is there for sure.

use std::collections::{BTreeMap, VecDeque};

use common::limits::batch_cost_bytes;
use coordinator::queue::{Entry, Load, Progress, Queue, Recovered};

use super::Oracle;
use crate::simulator::item::Tag;

/// What an entry changes once it is there.
#[derive(Debug)]
enum Change {
    Put { tag: Tag, end: u64, cost_bytes: u64 },
    Settled { first: u64, count: u64, output_bytes: Option<u64> },
    Dead { id: u64 },
    Failed { first: u64, count: u64, failures: u32 },
    Finished { name: Option<String> },
}

/// What the queue has given out and not heard of.
#[derive(Debug, Default)]
pub(super) struct Journal {
    changes: VecDeque<Change>,
    unwritten_bytes: u64,
    /// What the queue waits for.
    loading: Option<Load>,
    /// Producers that say they put no more, in the order of saying it.
    pub(super) finishing: VecDeque<Option<String>>,
    /// The results of items that are being settled.
    pub(super) results: BTreeMap<u64, Vec<u8>>,
    /// Those of items that are settled.
    output: Vec<u8>,
    /// The last item whose result is there.
    last_result: Option<u64>,
    largest_batch_bytes: u64,
}

impl Journal {
    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }
}

impl Oracle {
    /// The queue gives an entry out: it is one that is due, and says what is so.
    pub(super) fn keeps(&mut self, entry: &Entry) {
        assert!(self.rules.journaled.is_some(), "there is no journal");
        let change = match entry {
            Entry::Put { first, batch, by } => {
                let items: Vec<(Tag, u64)> = batch.iter().filter_map(|item| self.lengths.read(item)).collect();
                let (tag, n) = items[0];
                assert!(items.iter().copied().eq((n..n + u64::from(batch.count())).map(|n| (tag, n))), "the items of an entry: {items:?}");
                self.items.enter(*first, u64::from(batch.count()));
                let (end, checksum) = self.producers.entered(tag, n, u64::from(batch.count()));
                let expected = self.producers.name_of(tag).map(|name| Progress { name: name.into(), position: end, checksum });
                assert_eq!(*by, expected, "how far producer {tag} is");
                let cost_bytes = batch_cost_bytes(batch.body_bytes());
                self.journal.unwritten_bytes += cost_bytes;
                self.journal.largest_batch_bytes = self.journal.largest_batch_bytes.max(cost_bytes);
                Change::Put { tag, end, cost_bytes }
            }
            Entry::Settled { first, count, output_bytes } => {
                (*first..first + count).for_each(|id| self.items.settlement_given_out(id, false, *output_bytes));
                Change::Settled { first: *first, count: *count, output_bytes: *output_bytes }
            }
            Entry::Dead(letter) => {
                self.items.settlement_given_out(letter.id.0, true, None);
                self.items.check_letter(letter.id.0, letter.attempts, self.lengths.read(&letter.item));
                Change::Dead { id: letter.id.0 }
            }
            Entry::Failed { first, count, failures } => {
                (*first..first + count).for_each(|id| self.items.failure_given_out(id, *failures));
                Change::Failed { first: *first, count: *count, failures: *failures }
            }
            Entry::Output { .. } => panic!("the output file is not the queue's"),
            Entry::Finished { name } => {
                let name = name.as_ref().map(|name| name.to_string());
                assert_eq!(self.journal.finishing.pop_front().as_ref(), Some(&name), "a producer finishes");
                Change::Finished { name }
            }
        };
        self.journal.changes.push_back(change);
    }

    /// The queue wants something back.
    pub(super) fn loads(&mut self, load: Load) {
        assert!(self.rules.journaled.is_some(), "there is no journal");
        assert_eq!(self.journal.loading.replace(load), None, "the queue asks for two things at once");
    }

    pub(super) fn loaded(&mut self) {
        self.journal.loading = None;
    }

    /// So many entries more are in the journal.
    pub(super) fn journaled(&mut self, entries: usize) {
        for change in self.journal.changes.drain(..entries) {
            match change {
                Change::Put { tag, end, cost_bytes } => {
                    let before = self.producers.accepted_of(tag);
                    self.items.is_certain(end - before);
                    self.producers.accept(tag, end);
                    self.journal.unwritten_bytes -= cost_bytes;
                }
                Change::Settled { first, count, output_bytes } => {
                    for id in first..first + count {
                        let (tag, n) = self.items.settled(id, false);
                        self.producers.settled(tag, n);
                        let result = self.journal.results.remove(&id);
                        assert!(self.writes_to_no_file || result.is_some() == output_bytes.is_some(), "the result of item {id}");
                        if result.is_some() && self.rules.early_bytes_max.is_some() {
                            let last = self.journal.last_result.replace(id);
                            assert!(last < Some(id), "the result of item {id} lies behind that of item {last:?}");
                        }
                        self.journal.output.extend(result.into_iter().flatten());
                    }
                    let length = self.journal.output.len() as u64;
                    assert!(output_bytes.is_none_or(|bytes| bytes == length), "results take {length} bytes, by an entry {output_bytes:?}");
                }
                Change::Dead { id } => {
                    let (tag, n) = self.items.settled(id, true);
                    self.producers.settled(tag, n);
                }
                Change::Failed { first, count, failures } => {
                    (first..first + count).for_each(|id| self.items.failure_is_certain(id, failures))
                }
                Change::Finished { name } => self.producers.finish_for_good(name),
            }
        }
    }

    /// The coordinator dies. Of the entries that it has not heard of, so many are in its journal, which holds this: just what counts.
    pub fn dies(&mut self, committed: usize, recovered: &Recovered) {
        self.journaled(committed);
        self.items.die();
        self.producers.die();
        self.consumers = Default::default();
        self.joins.clear();
        self.extensions.clear();
        self.writing.clear();
        self.applications.lose_all();
        (self.to_be_closed, self.drains) = (None, false);
        let output = std::mem::take(&mut self.journal.output);
        let Journal { largest_batch_bytes, last_result, .. } = self.journal;
        self.journal = Journal { output, last_result, largest_batch_bytes, ..Journal::default() };

        let (acknowledged, dead, ..) = self.items.counts();
        let counts = (recovered.next_id, recovered.items, recovered.acknowledged, recovered.dead);
        let accepted = self.items.accepted();
        assert_eq!(counts, (accepted, accepted - acknowledged - dead, acknowledged, dead), "accepted, left, acknowledged, dead");
        let bytes = recovered.body_bytes + recovered.batches * batch_cost_bytes(0);
        assert_eq!(bytes, self.producers.stored_bytes(), "bytes of what is left");
        for (progress, finished) in &recovered.producers {
            self.producers.check_recovered(progress, *finished);
        }
        self.producers
            .check_finished(recovered.producers.iter().filter(|(_, finished)| *finished).count() as u64 + recovered.finished_unnamed);
        let output = Some(self.journal.output.len() as u64).filter(|_| !self.writes_to_no_file);
        assert_eq!(recovered.output_bytes, output, "how long the output file is");
    }

    /// What may be found in the output file when nobody writes to it: each result that counts, once.
    pub fn check_output(&self, output: Option<&[u8]>) {
        assert!(output.is_none_or(|output| output == self.journal.output), "the output file holds other results than those that count");
    }

    /// Memory holds the window, what goes to the journal, and what consumers got. Loading brings one batch too many at most.
    pub(super) fn check_memory(&self, queue: &Queue) {
        let Some(window) = self.rules.journaled else { return };
        let item_bytes = batch_cost_bytes(self.rules.item_bytes_max + 4);
        let Journal { unwritten_bytes, largest_batch_bytes, finishing, .. } = &self.journal;
        assert!(*unwritten_bytes <= window.unwritten_bytes.max(item_bytes), "{unwritten_bytes} bytes are on their way to the journal");
        let most = window.near_bytes + largest_batch_bytes + unwritten_bytes + self.producers.touched_bytes();
        let bytes = queue.bytes_in_memory();
        assert!(bytes <= most, "{bytes} bytes are in memory; {most} may be");
        assert!(finishing.is_empty(), "{finishing:?} have finished, and the journal is not told");
    }
}
