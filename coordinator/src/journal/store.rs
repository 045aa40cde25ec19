//! The journal's tables. Only this file and those in `store/` name `redb`.

mod seam;
#[cfg(test)]
pub(super) mod spoil;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::ItemId;
use common::limits::batch_cost_bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use seam::{Opened, guarded, translate};
use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;
use super::disk::Disk;
use super::error::JournalError;
use super::group::{Account, Group, Known, Producer, Totals};
use super::record::{self, Kind, RecordError};
use super::witness::Witness;
use crate::limits::{JOURNAL_CACHE_BYTES, JOURNAL_CHECK_BYTES_MAX, JOURNAL_KNOWN_MAX, JOURNAL_SLACK_BYTES, JOURNAL_SLACK_FACTOR};
use crate::marks::{self, Fate, Marks};
use crate::queue::{DeadLetter, DeadPage, DeadRange, Entry, Load, Loaded, Recovered};

const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
const MARKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("marks");
const PRODUCERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("producers");
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// In `meta`: what this is, and in which version. Must be readable by every version: these bytes, then the version as u32 LE.
const FORMAT: &str = "format";
const FORMAT_MAGIC: &[u8] = b"procq journal";
/// In `meta`: the record of the totals.
const TOTALS: &str = "totals";

/// Sizes that tests choose otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) cache_bytes: usize,
    pub(super) known_max: usize,
    pub(super) slack_bytes: u64,
    /// A larger file that was closed in order is trusted when it is opened.
    pub(super) check_bytes_max: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            cache_bytes: JOURNAL_CACHE_BYTES,
            known_max: JOURNAL_KNOWN_MAX,
            slack_bytes: JOURNAL_SLACK_BYTES,
            check_bytes_max: JOURNAL_CHECK_BYTES_MAX,
        }
    }
}

/// A dead letter, as it is stored under its item's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredLetter {
    pub(super) attempts: u32,
    pub(super) cause: String,
    pub(super) item: bytes::Bytes,
}

/// The tables of one journal, and the account of what is in them.
#[derive(Debug)]
pub(super) struct Store {
    database: Opened,
    account: Account,
    witness: Option<Witness>,
    sizes: Sizes,
    path: PathBuf,
    needed_repair: bool,
}

/// Makes an empty journal's file.
pub(super) fn create(disk: Box<dyn Disk>, path: &Path) -> Result<(), JournalError> {
    let made = guarded(|| {
        let database = open_database(disk, Sizes::default().cache_bytes, false, &Arc::default())?;
        let transaction = database.begin_write()?;
        transaction.open_table(BATCHES)?;
        transaction.open_table(MARKS)?;
        transaction.open_table(PRODUCERS)?;
        transaction.open_table(DEAD)?;
        let format = [FORMAT_MAGIC, &FORMAT_VERSION.to_le_bytes()].concat();
        transaction.open_table(META)?.insert(FORMAT, &*format)?;
        put_totals(&transaction, &Totals::default())?;
        transaction.commit()?;
        database.close()?;
        Ok(())
    });
    made.map_err(|error| translate("make", path, error))
}

impl Store {
    /// Opens a journal's file.
    pub(super) fn open(disk: Box<dyn Disk>, path: &Path, witness: Option<Witness>, sizes: Sizes) -> Result<Store, JournalError> {
        let file_bytes = disk.len().map_err(|source| JournalError::io("look at", path, source))?;
        if file_bytes == 0 {
            return Err(JournalError::damaged(path, "it is empty"));
        }
        let needed_repair = Arc::new(AtomicBool::new(false));
        let opened = guarded(|| {
            let database = open_database(disk, sizes.cache_bytes, file_bytes <= sizes.check_bytes_max, &needed_repair)?;
            let format = read_meta(&database, FORMAT)?;
            Ok((database, format))
        });
        let (database, format) = opened.map_err(|error| translate("open", path, error))?;
        check_version(path, format.as_deref().unwrap_or_default())?;
        let read = guarded(|| {
            let totals = read_meta(&database, TOTALS)?.unwrap_or_default();
            Ok((decode(Kind::Totals, b"", &totals)?, read_producers(&database)?))
        });
        let (totals, producers): (Totals, _) = read.map_err(|error| translate("read", path, error))?;
        let account = Account::new(totals, producers, path.into());
        let needed_repair = needed_repair.load(Ordering::Relaxed);
        let mut store = Store { database, account, witness, sizes, path: path.into(), needed_repair };
        store.ask_witness()?;
        store.compact(file_bytes)?;
        Ok(store)
    }

    pub(super) fn recovered(&self) -> Recovered {
        self.account.recovered()
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.account.totals
    }

    /// True if it was not closed by the one who wrote it last, or was checked when it was opened.
    pub(super) fn needed_repair(&self) -> bool {
        self.needed_repair
    }

    /// From now on items may have so many bytes; an error if those that are there were allowed more.
    pub(super) fn allow_items(&mut self, item_bytes_max: u64) -> Result<(), JournalError> {
        let needed = self.account.totals.item_bytes_max;
        let is_empty = self.account.totals.batches == 0 && self.account.totals.dead == 0;
        if !is_empty && item_bytes_max < needed {
            return Err(JournalError::ItemsTooLarge { path: self.path.clone(), needed, given: item_bytes_max });
        }
        // It is written with the first commit that brings items.
        self.account.totals.item_bytes_max = item_bytes_max;
        Ok(())
    }

    /// Makes entries durable, all or none. After an error the store is not to be used any more.
    pub(super) fn commit(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), JournalError> {
        let Store { database, account, path, .. } = self;
        let mut group = Group::default();
        let mut find = |id| guarded(|| find_batch(database, id)).map_err(|error| translate("read", path, error));
        for entry in entries {
            account.take(entry, &mut group, &mut find)?;
        }
        account.totals.sequence += 1;
        let written = guarded(|| write_group(database, account, &group));
        written.map_err(|error| translate("write", path, error))?;
        account.committed(&group, self.sizes.known_max);
        self.witness.as_ref().map_or(Ok(()), |witness| witness.write(self.account.totals.sequence))
    }

    /// The batches that are asked for, of which there must be one at least.
    pub(super) fn load(&mut self, load: Load) -> Result<Vec<Loaded>, JournalError> {
        let Store { database, account, path, .. } = self;
        let loaded = guarded(|| load_batches(database, account, load)).map_err(|error| translate("read", path, error))?;
        if loaded.is_empty() {
            return Err(JournalError::damaged(
                path,
                format_args!("there is nothing where items {} to {} should be", load.from, load.until),
            ));
        }
        account.forget(self.sizes.known_max);
        Ok(loaded)
    }

    /// The first of the dead letters that are asked for.
    pub(super) fn load_dead(&self, range: DeadRange) -> Result<DeadPage, JournalError> {
        let loaded = guarded(|| {
            let dead = self.database.begin_read()?.open_table(DEAD)?;
            let letters = dead.range(range.from..range.until)?.map(|row| {
                let (id, record) = row?;
                let id = id.value();
                let StoredLetter { attempts, cause, item } = decode(Kind::Dead, &id.to_le_bytes(), record.value())?;
                Ok(DeadLetter { id: ItemId(id), attempts, cause: cause.into(), item })
            });
            DeadPage::of_results::<redb::Error>(letters)
        });
        loaded.map_err(|error| translate("read", &self.path, error))
    }

    /// Closes the file, so that the next one who opens it need not look whether it is whole.
    pub(super) fn close(self) -> Result<(), JournalError> {
        let Store { database, path, .. } = self;
        guarded(|| database.close()).map_err(|error| translate("close", &path, error))
    }

    /// Checks all that the store itself can check: true if nothing is wrong. Mends what can be mended.
    pub(super) fn check_integrity(&mut self) -> Result<bool, JournalError> {
        let Store { database, path, .. } = self;
        guarded(|| Ok(database.check_integrity()?)).map_err(|error| translate("check", path, error))
    }

    /// The first batch's first item.
    pub(super) fn first_id(&self) -> Result<Option<u64>, JournalError> {
        let first = guarded(|| Ok(self.database.begin_read()?.open_table(BATCHES)?.first()?.map(|(first, _)| first.value())));
        first.map_err(|error| translate("read", &self.path, error))
    }

    /// Shows each batch's record, in order.
    pub(super) fn each_batch(&self, mut show: impl FnMut(u64, Result<Known, RecordError>)) -> Result<(), JournalError> {
        self.each(BATCHES, |first, record| show(first, known(first, record)))
    }

    /// Shows each record of marks, in order.
    pub(super) fn each_marks(&self, mut show: impl FnMut(u64, Result<marks::Stored, RecordError>)) -> Result<(), JournalError> {
        self.each(MARKS, |first, record| show(first, record::read(Kind::Marks, &first.to_le_bytes(), record)))
    }

    /// Shows each dead letter, in order.
    pub(super) fn each_dead(&self, mut show: impl FnMut(u64, Result<StoredLetter, RecordError>)) -> Result<(), JournalError> {
        self.each(DEAD, |id, record| show(id, record::read(Kind::Dead, &id.to_le_bytes(), record)))
    }

    fn each(&self, table: TableDefinition<'_, u64, &'static [u8]>, mut show: impl FnMut(u64, &[u8])) -> Result<(), JournalError> {
        let shown = guarded(|| {
            for row in self.database.begin_read()?.open_table(table)?.iter()? {
                let (key, record) = row?;
                show(key.value(), record.value());
            }
            Ok(())
        });
        shown.map_err(|error| translate("read", &self.path, error))
    }

    fn ask_witness(&self) -> Result<(), JournalError> {
        let Some(witness) = &self.witness else { return Ok(()) };
        let found = self.account.totals.sequence;
        match witness.read()? {
            Some(confirmed) if confirmed > found => {
                Err(JournalError::Behind { path: self.path.clone(), witness: witness.path().into(), found, confirmed })
            }
            Some(confirmed) if confirmed == found => Ok(()),
            _ => witness.write(found),
        }
    }

    /// A deep queue that was drained has left a large file. What is to be moved is little, or it is left as it is.
    fn compact(&mut self, file_bytes: u64) -> Result<(), JournalError> {
        let totals = &self.account.totals;
        let held_bytes = totals.body_bytes + totals.dead_bytes;
        if file_bytes < self.sizes.slack_bytes || file_bytes / JOURNAL_SLACK_FACTOR < held_bytes {
            return Ok(());
        }
        let Store { database, path, .. } = self;
        let compacted = guarded(|| Ok(database.compact().map(drop)?));
        compacted.map_err(|error| translate("compact", path, error))
    }
}

fn open_database(disk: Box<dyn Disk>, cache_bytes: usize, check: bool, needed_repair: &Arc<AtomicBool>) -> Result<Opened, redb::Error> {
    let needed_repair = Arc::clone(needed_repair);
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes).set_repair_callback(move |_| needed_repair.store(true, Ordering::Relaxed));
    builder.set_check_integrity_on_open(check);
    Opened::open_or_make(&builder, disk)
}

fn check_version(path: &Path, format: &[u8]) -> Result<(), JournalError> {
    let version = format.strip_prefix(FORMAT_MAGIC).and_then(|version| version.try_into().ok()).map(u32::from_le_bytes);
    match version {
        Some(FORMAT_VERSION) => Ok(()),
        Some(came) => Err(JournalError::Version { path: path.into(), came }),
        None => Err(JournalError::Foreign { path: path.into(), what: "a database of something else".into() }),
    }
}

fn write_group(database: &Database, account: &Account, group: &Group) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    write_batches(&transaction, account, group)?;
    // A table that was opened is written, even if nothing in it has changed.
    if !group.producers.is_empty() {
        let mut producers = transaction.open_table(PRODUCERS)?;
        for name in &group.producers {
            let producer = account.producers.get(name).copied().unwrap_or_default();
            producers.insert(&**name, &*record::write(Kind::Producer, name.as_bytes(), &producer))?;
        }
    }
    if !group.dead.is_empty() || !group.dead_removed.is_empty() {
        let mut dead = transaction.open_table(DEAD)?;
        for id in &group.dead_removed {
            if dead.remove(id)?.is_none() {
                return Err(redb::Error::Corrupted(format!("the dead letter of item {id} goes, and is not there")));
            }
        }
        for DeadLetter { id, attempts, cause, item } in group.dead.values() {
            let letter = StoredLetter { attempts: *attempts, cause: cause.to_string(), item: item.clone() };
            dead.insert(id.0, &*record::write(Kind::Dead, &id.0.to_le_bytes(), &letter))?;
        }
    }
    put_totals(&transaction, &account.totals)?;
    transaction.commit()?;
    Ok(())
}

fn write_batches(transaction: &WriteTransaction, account: &Account, group: &Group) -> Result<(), redb::Error> {
    // What goes comes first: its place can be taken by what comes.
    let mut marks_gone: Vec<u64> = Vec::new();
    let mut batches = transaction.open_table(BATCHES)?;
    for (first, marks_stored) in &group.removed {
        batches.remove(first)?;
        marks_gone.extend(marks_stored.then_some(first));
    }
    // Not by `insert_reserve`: that clears and copies as many bytes as are to be written, for each batch in fresh memory.
    let mut record = Vec::new();
    for (first, batch) in &group.puts {
        record::write_batch(*first, batch, &mut record);
        batches.insert(first, &*record)?;
    }
    if marks_gone.is_empty() && group.marked.is_empty() {
        return Ok(());
    }
    let mut marks = transaction.open_table(MARKS)?;
    for first in marks_gone {
        marks.remove(first)?;
    }
    for first in &group.marked {
        let Some(known) = account.known(*first) else { continue };
        if known.marks.len() > 0 {
            marks.insert(first, &*record::write(Kind::Marks, &first.to_le_bytes(), &known.marks.to_stored()))?;
        } else {
            marks.remove(first)?;
        }
    }
    Ok(())
}

fn put_totals(transaction: &WriteTransaction, totals: &Totals) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(TOTALS, &*record::write(Kind::Totals, b"", totals))?;
    Ok(())
}

fn load_batches(database: &Database, account: &mut Account, load: Load) -> Result<Vec<Loaded>, redb::Error> {
    let transaction = database.begin_read()?;
    let (batches, marks) = (transaction.open_table(BATCHES)?, transaction.open_table(MARKS)?);
    let (mut loaded, mut bytes) = (Vec::new(), 0);
    for row in batches.range(load.from..load.until)? {
        if bytes >= load.bytes_min {
            break;
        }
        let (first, record) = row?;
        let first = first.value();
        let batch = record::read_batch(first, record.value()).map_err(|error| corrupted("batch", first, &error))?;
        bytes += batch_cost_bytes(batch.body_bytes());
        if account.known(first).is_none() {
            let known = Known { count: batch.count(), body_bytes: batch.body_bytes(), ..Known::default() };
            account.learn(first, with_marks(first, known, &marks)?);
        }
        let marks = account.known(first).map(|known| &known.marks);
        let (mut settled, mut failed) = (Vec::new(), Vec::new());
        for (from, until, fate) in marks.into_iter().flat_map(Marks::iter) {
            let (id, count) = (first + u64::from(from), u64::from(until - from));
            match fate {
                Fate::Settled => settled.push((id, count)),
                Fate::Failed(failures) => failed.push((id, count, failures)),
            }
        }
        loaded.push(Loaded { first, batch, settled, failed, attempts: 0 });
    }
    Ok(loaded)
}

fn find_batch(database: &Database, id: u64) -> Result<Option<(u64, Known)>, redb::Error> {
    let transaction = database.begin_read()?;
    let (batches, marks) = (transaction.open_table(BATCHES)?, transaction.open_table(MARKS)?);
    let Some((first, record)) = batches.range(..=id)?.next_back().transpose()? else { return Ok(None) };
    let first = first.value();
    let known = known(first, record.value()).map_err(|error| corrupted("batch", first, &error))?;
    Ok(Some((first, with_marks(first, known, &marks)?)))
}

fn known(first: u64, record: &[u8]) -> Result<Known, RecordError> {
    let count = record::check_batch(first, record)?.count;
    Ok(Known { count, body_bytes: record::body_bytes(record), ..Known::default() })
}

fn with_marks(first: u64, known: Known, marks: &impl ReadableTable<u64, &'static [u8]>) -> Result<Known, redb::Error> {
    let Some(record) = marks.get(first)? else { return Ok(known) };
    let stored = decode(Kind::Marks, &first.to_le_bytes(), record.value())?;
    let Some(marks) = Marks::from_stored(stored, known.count) else {
        return Err(redb::Error::Corrupted(format!("what became of the items from {first} on does not fit them")));
    };
    Ok(Known { marks, marks_stored: true, ..known })
}

fn read_meta(database: &Database, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let value = database.begin_read()?.open_table(META)?.get(key)?;
    Ok(value.map(|value| value.value().to_vec()))
}

fn read_producers(database: &Database) -> Result<BTreeMap<Arc<str>, Producer>, redb::Error> {
    let mut producers = BTreeMap::new();
    for row in database.begin_read()?.open_table(PRODUCERS)?.iter()? {
        let (name, record) = row?;
        let name = name.value();
        producers.insert(name.into(), decode(Kind::Producer, name.as_bytes(), record.value())?);
    }
    Ok(producers)
}

fn decode<T: serde::de::DeserializeOwned>(kind: Kind, key: &[u8], record: &[u8]) -> Result<T, redb::Error> {
    record::read(kind, key, record).map_err(|error| redb::Error::Corrupted(format!("{kind:?}: {error}")))
}

fn corrupted(what: &str, first: u64, error: &RecordError) -> redb::Error {
    redb::Error::Corrupted(format!("the {what} of item {first}: {error}"))
}
