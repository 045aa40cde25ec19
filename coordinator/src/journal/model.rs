//! What a journal does, as plainly as it can be written: in memory, one entry an item. For tests: of the queue, which it serves, and of
//! the real journal, which must give the same answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::batch::Batch;
use common::limits::batch_cost_bytes;

use crate::queue::{DeadLetter, DeadPage, DeadRange, Entry, Load, Loaded, Progress, Recovered};

/// A journal that does not outlive anybody.
#[derive(Clone, Debug, Default)]
pub struct Model {
    batches: BTreeMap<u64, Kept>,
    producers: BTreeMap<Arc<str>, (u64, u64, bool)>,
    /// The dead letters, by their items' numbers.
    pub dead: BTreeMap<u64, DeadLetter>,
    next_id: u64,
    acknowledged: u64,
    finished_unnamed: u64,
    output_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
struct Kept {
    batch: Batch,
    /// What became of each item.
    items: Vec<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open { failures: u32 },
    Settled,
}

impl Model {
    /// Keeps an entry.
    ///
    /// # Panics
    /// When it speaks of items that are not in, or settled already.
    pub fn keep(&mut self, entry: &Entry) {
        match entry {
            Entry::Put { first, batch, by } => {
                self.put(*first, batch);
                if let Some(Progress { name, position, checksum }) = by {
                    let before = self.producers.entry(Arc::clone(name)).or_default();
                    (before.0, before.1) = (*position, *checksum);
                }
            }
            Entry::Settled { first, count, output_bytes } => {
                (*first..first + count).for_each(|id| self.settle(id));
                self.acknowledged += count;
                self.output_bytes = output_bytes.or(self.output_bytes);
            }
            Entry::Dead(letter) => {
                self.settle(letter.id.0);
                self.dead.insert(letter.id.0, letter.clone());
            }
            Entry::Requeued { id, first, batch } => {
                let letter = self.remove_dead(*id);
                assert!(batch.iter().eq([&letter.item[..]]), "item {first} is another than the dead letter {id}");
                self.put(*first, batch);
            }
            Entry::Dropped { id, item_bytes } => {
                let letter = self.remove_dead(*id);
                assert_eq!(letter.item.len() as u64, *item_bytes, "bytes of the dead letter {id}");
            }
            Entry::Failed { first, count, failures } => {
                for id in *first..first + count {
                    let (_, fate) = self.fate(id);
                    assert_ne!(*fate, Fate::Settled, "item {id} has failed and is settled");
                    *fate = Fate::Open { failures: *failures };
                }
            }
            Entry::Output { bytes } => self.output_bytes = Some(*bytes),
            Entry::Finished { name: Some(name) } => self.producers.entry(Arc::clone(name)).or_default().2 = true,
            Entry::Finished { name: None } => self.finished_unnamed += 1,
        }
    }

    /// The batches that are asked for.
    pub fn load(&self, Load { from, until, bytes_min }: Load) -> Vec<Loaded> {
        let mut bytes = 0;
        let mut loaded = Vec::new();
        for (first, kept) in self.batches.range(from..until) {
            if bytes >= bytes_min {
                break;
            }
            bytes += batch_cost_bytes(kept.batch.body_bytes());
            let runs = |wanted: fn(&Fate) -> Option<u32>| {
                let mut runs: Vec<(u64, u64, u32)> = Vec::new();
                for (id, fate) in (*first..).zip(&kept.items) {
                    match (wanted(fate), runs.last_mut()) {
                        (None, _) => {}
                        (Some(sort), Some(last)) if last.0 + last.1 == id && last.2 == sort => last.1 += 1,
                        (Some(sort), _) => runs.push((id, 1, sort)),
                    }
                }
                runs
            };
            let settled = runs(|fate| (*fate == Fate::Settled).then_some(0));
            let failed = runs(|fate| match fate {
                Fate::Open { failures } if *failures > 0 => Some(*failures),
                _ => None,
            });
            let settled = settled.into_iter().map(|(first, count, _)| (first, count)).collect();
            loaded.push(Loaded { first: *first, batch: kept.batch.clone(), settled, failed, attempts: 0 });
        }
        loaded
    }

    /// The first of the dead letters that are asked for.
    pub fn load_dead(&self, DeadRange { from, until }: DeadRange) -> DeadPage {
        DeadPage::of(self.dead.range(from..until).map(|(_, letter)| letter.clone()))
    }

    /// What one finds who opens it.
    pub fn recovered(&self) -> Recovered {
        let open = |kept: &Kept| kept.items.iter().filter(|fate| **fate != Fate::Settled).count() as u64;
        let progress = |(name, (position, checksum, finished)): (&Arc<str>, &(u64, u64, bool))| {
            (Progress { name: Arc::clone(name), position: *position, checksum: *checksum }, *finished)
        };
        Recovered {
            next_id: self.next_id,
            items: self.batches.values().map(open).sum(),
            batches: self.batches.len() as u64,
            body_bytes: self.batches.values().map(|kept| kept.batch.body_bytes()).sum(),
            acknowledged: self.acknowledged,
            dead: self.dead.len() as u64,
            producers: self.producers.iter().map(progress).collect(),
            finished_unnamed: self.finished_unnamed,
            output_bytes: self.output_bytes,
        }
    }

    fn put(&mut self, first: u64, batch: &Batch) {
        assert!(first >= self.next_id, "item {first} is put twice");
        self.next_id = first + u64::from(batch.count());
        let items = vec![Fate::Open { failures: 0 }; batch.count() as usize];
        self.batches.insert(first, Kept { batch: batch.clone(), items });
    }

    fn remove_dead(&mut self, id: u64) -> DeadLetter {
        self.dead.remove(&id).unwrap_or_else(|| panic!("item {id} is no dead letter"))
    }

    fn fate(&mut self, id: u64) -> (u64, &mut Fate) {
        let Some((first, kept)) = self.batches.range_mut(..=id).next_back() else { panic!("item {id} is not in the journal") };
        let Some(fate) = kept.items.get_mut((id - first) as usize) else { panic!("item {id} is not in the journal") };
        (*first, fate)
    }

    fn settle(&mut self, id: u64) {
        let (first, fate) = self.fate(id);
        assert_ne!(std::mem::replace(fate, Fate::Settled), Fate::Settled, "item {id} is settled twice");
        if self.batches[&first].items.iter().all(|fate| *fate == Fate::Settled) {
            self.batches.remove(&first);
        }
    }
}
