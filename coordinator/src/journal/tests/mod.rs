//! What the tests share: stories of entries, and disks that remember all that is done to them.

mod crash;
mod damage;
mod fixture;
mod folder;
mod model;
mod speed;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::ItemId;
use common::batch::{Batch, BatchHeader, Layout};

use super::disk::Disk;
use super::error::JournalError;
use super::inspect::{Verdict, check_records};
use super::model::Model;
use super::store::{self, Sizes, Store};
use super::witness::Witness;
use crate::queue::{DeadLetter, DeadPage, DeadRange, Entry, Load, Loaded, Progress};

/// Small enough that every bound is met.
const TIGHT: Sizes = Sizes { cache_bytes: 64 * 1024, known_max: 12, slack_bytes: u64::MAX, check_bytes_max: u64::MAX };

/// Everything.
const ALL: Load = Load { from: 0, until: u64::MAX, bytes_min: u64::MAX };

/// Random numbers that a seed repeats (splitmix64).
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Makes entries that make sense, one after the other.
#[derive(Debug)]
struct Story {
    chance: Chance,
    open: BTreeSet<u64>,
    dead: BTreeMap<u64, Bytes>,
    next_id: u64,
    item_bytes_max: u64,
}

impl Story {
    fn new(seed: u64) -> Story {
        Story { chance: Chance(seed), open: BTreeSet::new(), dead: BTreeMap::new(), next_id: 0, item_bytes_max: 40 }
    }

    fn next(&mut self) -> Entry {
        let chance = &mut self.chance;
        match chance.below(100) {
            0..30 => self.put(),
            30 => Entry::Output { bytes: chance.below(1000) },
            31..34 => {
                let name = (chance.below(2) == 0).then(|| format!("p{}", chance.below(4)).into());
                Entry::Finished { name }
            }
            94.. if !self.dead.is_empty() => self.remove_dead(),
            sort => {
                let Some((first, count)) = self.open_run() else { return self.put() };
                if (34..50).contains(&sort) {
                    return Entry::Failed { first, count, failures: 1 + self.chance.below(3) as u32 };
                }
                let count = if sort < 56 { 1 } else { count };
                (first..first + count).for_each(|id| assert!(self.open.remove(&id)));
                if sort < 56 {
                    let item = Bytes::from(vec![b'x'; self.chance.below(50) as usize]);
                    self.dead.insert(first, item.clone());
                    return Entry::Dead(DeadLetter { id: ItemId(first), attempts: 3, cause: "exit status 1".into(), item });
                }
                let output_bytes = (self.chance.below(2) == 0).then(|| self.chance.below(1000));
                Entry::Settled { first, count, output_bytes }
            }
        }
    }

    fn remove_dead(&mut self) -> Entry {
        let at = self.chance.below(self.dead.len() as u64) as usize;
        let (id, item) = self.dead.iter().nth(at).map(|(id, item)| (*id, item.clone())).unwrap();
        self.dead.remove(&id);
        if self.chance.below(3) == 0 {
            return Entry::Dropped { id, item_bytes: item.len() as u64 };
        }
        let first = self.next_id;
        self.next_id += 1;
        self.open.insert(first);
        Entry::Requeued { id, first, batch: Batch::one(item) }
    }

    fn group(&mut self, entries_max: u64) -> Vec<Entry> {
        (0..1 + self.chance.below(entries_max)).map(|_| self.next()).collect()
    }

    fn put(&mut self) -> Entry {
        let chance = &mut self.chance;
        let first = self.next_id;
        let batch = batch(chance, self.item_bytes_max);
        self.next_id += u64::from(batch.count());
        self.open.extend(first..self.next_id);
        let by = (chance.below(2) == 0).then(|| Progress {
            name: format!("p{}", chance.below(4)).into(),
            position: chance.below(1000),
            checksum: chance.next(),
        });
        Entry::Put { first, batch, by }
    }

    /// Open items in a row, across batches.
    fn open_run(&mut self) -> Option<(u64, u64)> {
        // Mostly near the head, as it is in life.
        let at = if self.chance.below(4) == 0 { self.chance.below(self.open.len() as u64) } else { self.chance.below(4) };
        let first = *self.open.iter().nth(at as usize).or(self.open.first())?;
        let wanted = 1 + self.chance.below(30);
        let count = (first..first + wanted).take_while(|id| self.open.contains(id)).count();
        Some((first, count as u64))
    }
}

fn batch(chance: &mut Chance, item_bytes_max: u64) -> Batch {
    let count = 1 + chance.below(20) as u32;
    if chance.below(2) == 0 {
        let len = chance.below(item_bytes_max) as u32;
        let body: Vec<u8> = (0..count * len).map(|_| chance.next() as u8).collect();
        return Batch::check(BatchHeader { count, layout: Layout::Uniform { len } }, body.into()).unwrap();
    }
    let base = chance.below(100) as u32;
    let (mut items, mut table, mut end) = (Vec::new(), Vec::new(), base);
    for _ in 0..count {
        let len = chance.below(item_bytes_max) as u32;
        items.extend((0..len).map(|_| chance.next() as u8));
        end += len;
        table.extend(end.to_le_bytes());
    }
    Batch::check(BatchHeader { count, layout: Layout::Table { base } }, [items, table].concat().into()).unwrap()
}

type Plain = (u64, BatchHeader, Vec<u8>, Vec<(u64, u64)>, Vec<(u64, u64, u32)>);

/// Something that can be compared.
fn plain(loaded: &[Loaded]) -> Vec<Plain> {
    let plain = |loaded: &Loaded| {
        let Loaded { first, batch, settled, failed, attempts: _ } = loaded;
        (*first, batch.header(), batch.body().map(|part| &part[..]).concat(), settled.clone(), failed.clone())
    };
    loaded.iter().map(plain).collect()
}

/// The store holds exactly what the model does.
fn assert_same(store: &mut Store, model: &Model, case: &str) {
    assert_eq!(store.recovered(), model.recovered(), "{case}");
    let expected = model.load(ALL);
    if !expected.is_empty() {
        assert_eq!(plain(&store.load(ALL).unwrap()), plain(&expected), "{case}");
    }
    let mut verdict = Verdict::default();
    check_records(store, &mut verdict).unwrap();
    assert_eq!(verdict.problems, [""; 0], "{case}");
    let all = DeadRange { from: 0, until: u64::MAX };
    assert_eq!(store.load_dead(all).unwrap(), model.load_dead(all), "{case}");
}

/// What is done to a file.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// Two files and all that was done to them: the journal and the witness.
#[derive(Debug, Default)]
struct Disks {
    files: [Vec<u8>; 2],
    steps: Vec<(usize, Step)>,
    /// From which step on an error comes, which, and how often.
    fault: Option<(usize, i32, usize)>,
}

const JOURNAL: usize = 0;
const WITNESS: usize = 1;

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Disks>>);

impl Shared {
    fn holding(files: [Vec<u8>; 2]) -> Shared {
        Shared(Arc::new(Mutex::new(Disks { files, ..Disks::default() })))
    }

    /// With a new, empty journal.
    fn new() -> Shared {
        let shared = Shared::default();
        store::create(Box::new(shared.disk(JOURNAL)), Path::new("journal")).unwrap();
        shared.0.lock().unwrap().steps.clear();
        shared
    }

    fn disk(&self, file: usize) -> MemoryDisk {
        MemoryDisk { file, disks: self.clone() }
    }

    fn open(&self, sizes: Sizes) -> Result<Store, JournalError> {
        let witness = Witness::new(Box::new(self.disk(WITNESS)), Path::new("witness"));
        Store::open(Box::new(self.disk(JOURNAL)), Path::new("journal"), Some(witness), sizes)
    }

    fn files(&self) -> [Vec<u8>; 2] {
        self.0.lock().unwrap().files.clone()
    }

    fn step(&self, file: usize, step: Step) -> io::Result<()> {
        let mut disks = self.0.lock().unwrap();
        let at = disks.steps.len();
        if let Some((from, error, times)) = disks.fault
            && (from..from.saturating_add(times)).contains(&at)
        {
            disks.steps.push((file, Step::Sync));
            return Err(io::Error::from_raw_os_error(error));
        }
        apply(&mut disks.files[file], &step);
        disks.steps.push((file, step));
        Ok(())
    }
}

fn apply(file: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(offset, bytes) => {
            let end = *offset as usize + bytes.len();
            file.resize(file.len().max(end), 0);
            file[*offset as usize..end].copy_from_slice(bytes);
        }
        Step::SetLen(len) => file.resize(*len as usize, 0),
        Step::Sync => {}
    }
}

#[derive(Debug)]
struct MemoryDisk {
    file: usize,
    disks: Shared,
}

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disks.0.lock().unwrap().files[self.file].len() as u64)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let disks = self.disks.0.lock().unwrap();
        let bytes = disks.files[self.file].get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disks.step(self.file, Step::Write(offset, bytes.to_vec()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disks.step(self.file, Step::SetLen(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.disks.step(self.file, Step::Sync)
    }
}
