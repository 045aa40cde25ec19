//! A watched queue that lies in a journal: what is given out, what of it counts, and what is there after the coordinator has died.

use std::collections::{BTreeMap, VecDeque};

use common::batch::Batch;
use common::limits::batch_cost_bytes;
use common::message::DeadFate;
use coordinator::journal::model::Model;
use coordinator::queue::{ClientId, DeadRange, Entry, Input, Load, Progress, Queue};

use super::watched::{Client, Kind, State, Watched};

/// A journal, and what the queue knows of it.
#[derive(Default)]
pub(super) struct Journal {
    model: Model,
    /// Given out and not in the journal; for a `Put`, with the connection that it came over.
    entries: VecDeque<(Entry, Option<ClientId>)>,
    /// In the journal, and not reported.
    kept: VecDeque<(Entry, Option<ClientId>)>,
    load: Option<Load>,
    pub(super) dead_load: Option<DeadRange>,
    answers: VecDeque<Input>,
    /// Items given out, and those that the queue knows to be in.
    pub(super) entered: u64,
    pub(super) certain: u64,
    /// Items that are settled but for the journal: how long the output file is, and whether they are dead.
    settlements: BTreeMap<u64, (Option<u64>, bool)>,
    pub(super) output_bytes: u64,
    positions: BTreeMap<String, (u64, u64)>,
}

impl Journal {
    pub(super) fn is_loading(&self) -> bool {
        self.load.is_some() || self.answers.iter().any(|answer| matches!(answer, Input::Loaded { .. }))
    }

    /// Producers that say they put no more, and of which the queue does not know that the journal knows.
    fn finishing(&self) -> usize {
        self.kept.iter().chain(&self.entries).filter(|(entry, _)| matches!(entry, Entry::Finished { .. })).count()
    }

    fn unwritten(&self) -> impl Iterator<Item = (&Batch, Option<&Progress>)> {
        self.kept.iter().chain(&self.entries).filter_map(|(entry, _)| match entry {
            Entry::Put { batch, by, .. } => Some((batch, by.as_ref())),
            Entry::Requeued { batch, .. } => Some((batch, None)),
            _ => None,
        })
    }
}

impl Watched {
    /// The queue gives an entry out.
    pub(super) fn keeps(&mut self, entry: Entry) {
        let journal = self.journal.as_mut().expect("an entry for the journal, and there is none");
        let mut from = None;
        match &entry {
            Entry::Put { first, batch, by } => {
                assert_eq!(*first, journal.entered, "the number of the next item");
                journal.entered += u64::from(batch.count());
                let is_same = |sent: &Batch| sent.body()[0].as_ptr() == batch.body()[0].as_ptr() && sent.count() == batch.count();
                let (client, producer) = self
                    .clients
                    .iter_mut()
                    .find_map(|(client, Client { kind, .. })| match kind {
                        Kind::Producer(producer) if producer.parked.front().is_some_and(|(sent, _)| is_same(sent)) => {
                            Some((*client, producer))
                        }
                        _ => None,
                    })
                    .expect("what is accepted was put, and nothing before it waits");
                let checksum = producer.parked.pop_front().map(|(_, checksum)| checksum).unwrap_or_default();
                producer.admitted += u64::from(batch.count());
                let position = producer.admitted;
                assert_eq!(*by, producer.name.as_deref().map(|name| Progress { name: name.into(), position, checksum }));
                from = Some(client);
            }
            Entry::Settled { first, count, output_bytes } => {
                for id in *first..first + count {
                    assert_eq!(self.items.get(&id).map(|item| item.state), Some(State::Settling), "item {id} is settled in the journal");
                    assert_eq!(journal.settlements.remove(&id), Some((*output_bytes, false)), "the end of item {id}");
                }
            }
            Entry::Dead(letter) => {
                assert_eq!(journal.settlements.remove(&letter.id.0), Some((None, true)), "item {} is dead in the journal", letter.id);
            }
            Entry::Failed { first, count, failures } => {
                for id in *first..first + count {
                    let item = self.items.get_mut(&id).expect("an item that is not settled");
                    assert_eq!(item.failures, *failures, "the failures of item {id}");
                    item.failures_given_out = *failures;
                }
            }
            Entry::Requeued { id, first, batch } => {
                assert_eq!(*first, journal.entered, "the number of the next item");
                journal.entered += 1;
                let letter = self.goes(Some(*id), Some(DeadFate::Requeue));
                assert!(batch.iter().eq([&letter.item[..]]), "the item of the dead letter {id}");
                self.dead_letters.again.insert(*first, letter.item.to_vec());
            }
            Entry::Dropped { id, item_bytes } => {
                let letter = self.goes(Some(*id), Some(DeadFate::Drop));
                assert_eq!(letter.item.len() as u64, *item_bytes);
            }
            Entry::Finished { .. } => {}
            Entry::Output { .. } => panic!("the output file is not the queue's"),
        }
        let journal = self.journal.as_mut().expect("it was there");
        journal.entries.push_back((entry, from));
    }

    /// The queue asks for what is in the journal alone.
    pub(super) fn loads(&mut self, load: Load) {
        let journal = self.journal.as_mut().expect("a journal");
        assert!(!journal.is_loading(), "it asks for two things at once");
        journal.load = Some(load);
    }

    /// Items are settled as soon as the journal knows.
    pub(super) fn settling(&mut self, ids: &[u64], output_bytes: Option<u64>, dead: bool) {
        for id in ids {
            self.items.get_mut(id).expect("an item that is not settled").state = State::Settling;
            self.journal.as_mut().expect("a journal").settlements.insert(*id, (output_bytes, dead));
        }
    }

    /// The journal answers a question, or keeps so many entries.
    pub(super) fn journal_works(&mut self, entries: usize) {
        let Some(journal) = &mut self.journal else { return };
        if let Some(load) = journal.load.take() {
            return journal.answers.push_back(Input::Loaded { batches: journal.model.load(load) });
        }
        if let Some(range) = journal.dead_load.take() {
            return journal.answers.push_back(Input::DeadLoaded(journal.model.load_dead(range)));
        }
        let entries = entries.min(journal.entries.len());
        for entry in journal.entries.drain(..entries) {
            journal.model.keep(&entry.0);
            journal.kept.push_back(entry);
        }
        if entries > 0 {
            journal.answers.push_back(Input::Journaled { entries });
        }
    }

    /// The oldest answer is heard.
    pub(super) fn journal_answers(&mut self) -> bool {
        let Some(answer) = self.journal.as_mut().and_then(|journal| journal.answers.pop_front()) else { return false };
        if let Input::Journaled { entries } = answer {
            (0..entries).for_each(|_| self.is_certain());
        }
        if let Input::DeadLoaded(page) = &answer {
            self.dead_loaded(&page.letters, page.next);
        }
        self.handle(answer);
        true
    }

    /// All that the journal has to do.
    pub(super) fn journal_ends(&mut self) {
        loop {
            self.journal_works(usize::MAX);
            if !self.journal_answers() {
                return;
            }
        }
    }

    /// The queue is about to hear that one more entry is in.
    fn is_certain(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let (entry, from) = journal.kept.pop_front().expect("an entry that is in the journal");
        match entry {
            Entry::Put { batch, by, .. } => {
                journal.certain += u64::from(batch.count());
                if let Some(Kind::Producer(producer)) = from.and_then(|from| self.clients.get_mut(&from)).map(|client| &mut client.kind) {
                    producer.certain += u64::from(batch.count());
                }
                if let Some(Progress { name, position, checksum }) = by {
                    journal.positions.insert(name.to_string(), (position, checksum));
                    self.positions.insert(name.to_string(), position);
                }
            }
            Entry::Settled { first, count, .. } => {
                (first..first + count).for_each(|id| drop(self.items.remove(&id)));
                self.acknowledged += count;
            }
            Entry::Dead(letter) => {
                self.items.remove(&letter.id.0);
                self.dead += 1;
                self.dead_letters.keep(letter.id.0, None);
            }
            Entry::Requeued { id, .. } => {
                journal.certain += 1;
                self.is_removed(id, true);
            }
            Entry::Dropped { id, .. } => self.is_removed(id, false),
            Entry::Failed { first, count, failures } => {
                (first..first + count)
                    .filter_map(|id| self.items.get_mut(&id).map(|item| item.failures_recorded = failures))
                    .for_each(drop);
            }
            Entry::Finished { name } => {
                let first = name.is_none_or(|name| self.finished_names.insert(name.to_string()));
                self.finished += u64::from(first);
            }
            Entry::Output { .. } => {}
        }
    }

    /// What a producer under this name has to be told, and whether that is certain.
    pub(super) fn progress(&self, name: Option<&str>) -> (u64, Option<u64>, bool) {
        let Some(journal) = &self.journal else { return (name.map_or(0, |name| self.queue.position(name).0), None, true) };
        let Some(name) = name else { return (0, Some(0), true) };
        let (position, checksum) = journal.positions.get(name).copied().unwrap_or_default();
        (position, Some(checksum), journal.unwritten().all(|(_, by)| by.is_none_or(|by| *by.name != *name)))
    }

    /// The coordinator dies, and another goes on where its journal says. What was kept and not reported counts.
    pub(super) fn die(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let kept = journal.kept.len();
        (0..kept).for_each(|_| self.is_certain());
        let Some(journal) = &mut self.journal else { return };
        journal.answers.clear();
        journal.entries.clear();
        journal.settlements.clear();
        (journal.load, journal.dead_load, journal.entered) = (None, None, journal.certain);
        self.dead_letters.die(journal.certain);
        let recovered = journal.model.recovered();
        self.queue = Queue::recover(self.rules.clone(), &recovered);
        self.restart();
        for item in self.items.values_mut() {
            let failures = item.failures_recorded;
            (item.attempts, item.failures, item.failures_given_out, item.state) = (failures, failures, failures, State::Ready);
        }
        let left = self.journal.as_ref().map_or(0, |journal| journal.certain) - self.acknowledged - self.dead - self.dead_letters.removed;
        assert_eq!((recovered.items, recovered.acknowledged, recovered.dead), (left, self.acknowledged, self.dead));
        let finished = recovered.producers.iter().filter(|(_, finished)| *finished).map(|(progress, _)| progress.name.to_string());
        self.finished_names = finished.collect();
        self.finished = self.finished_names.len() as u64 + recovered.finished_unnamed;
        self.handle(Input::Tick);
    }

    /// What holds at any time with a journal, and only there.
    pub(super) fn check_journaled(&self) {
        let (Some(journal), Some(window)) = (&self.journal, self.rules.journaled) else { return };
        assert!(journal.settlements.is_empty(), "the journal is not told that items are settled: {:?}", journal.settlements);
        for (id, item) in &self.items {
            let recorded = item.failures == item.failures_given_out || matches!(item.state, State::Writing | State::Settling);
            assert!(recorded, "the journal is not told that item {id} has failed");
        }
        let unwritten: u64 = journal.unwritten().map(|(batch, _)| batch_cost_bytes(batch.body_bytes())).sum();
        let most = window.unwritten_bytes.max(batch_cost_bytes(self.rules.item_bytes_max + 4));
        assert!(unwritten <= most, "{unwritten} bytes are on their way to the journal; {most} may be");
        let finishes: u32 = self.clients.values().map(|client| client.finishes).sum();
        assert!(finishes as usize <= journal.finishing(), "a producer was not told that it has finished");
        for (id, client) in &self.clients {
            if let Kind::Producer(producer) = &client.kind {
                assert!(producer.welcomed || !self.progress(producer.name.as_deref()).2, "{id:?} waits to be welcomed in vain");
                assert_eq!(producer.confirmed, producer.certain, "{id:?} is told what is in the journal, and of nothing else");
            }
        }
    }
}
