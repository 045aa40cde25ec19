//! How the journal's records lie. Reading from the store checks nothing, so each record carries a checksum of its own, which covers the
//! record's kind and key as well: one that has come to lie in another's place is damage, too.
//!
//! ```text
//! batch:        | checksum: u64 | count: u32 | layout: u32 | len or base: u32 | body: items, then the table if there is one |
//! every other:  | checksum: u64 | payload: postcard |
//! ```
//!
//! Numbers are little-endian; `layout` is 0 for items of one length, 1 for a table of ends (`common::batch`). The checksum is the 64 bits of
//! XXH3 of what follows it, seeded with those of the key, seeded with the kind's number.

use bytes::Bytes;
use common::batch::{Batch, BatchError, BatchHeader, Layout};
use serde::Serialize;
use serde::de::DeserializeOwned;
use twox_hash::XxHash3_64;

/// What is before a batch's body.
const BATCH_HEAD_BYTES: usize = CHECKSUM_BYTES + 12;

const CHECKSUM_BYTES: usize = 8;

const UNIFORM: u32 = 0;
const TABLE: u32 = 1;

/// What a record is. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A batch, by its first item's number.
    Batch = 1,
    /// What became of a batch's items, by its first item's number.
    Marks = 2,
    /// A producer, by its name.
    Producer = 3,
    /// A dead letter, by its item's number.
    Dead = 4,
    /// The totals, by nothing.
    Totals = 5,
}

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends too early.
    #[error("a record of {came} bytes; expected at least {expected}")]
    Short {
        /// What it takes to read on.
        expected: usize,
        /// Its length.
        came: usize,
    },
    /// It is not what was written there.
    #[error("a record whose checksum is {came:016x}; expected {expected:016x}")]
    Checksum {
        /// The checksum of what is there.
        expected: u64,
        /// The one that was written with it.
        came: u64,
    },
    /// Its items lie in a way that is not known.
    #[error("a batch of layout {came}; expected {UNIFORM} or {TABLE}")]
    Layout {
        /// The layout's number.
        came: u32,
    },
    /// Its items are not where its head says.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Its payload is no such payload.
    #[error("a payload that cannot be decoded: {0}")]
    Payload(#[from] postcard::Error),
}

/// Makes a batch's record, in the place of what `record` holds.
pub(super) fn write_batch(first: u64, batch: &Batch, record: &mut Vec<u8>) {
    let (layout, number) = match batch.header().layout {
        Layout::Uniform { len } => (UNIFORM, len),
        Layout::Table { base } => (TABLE, base),
    };
    let [items, table] = batch.body();
    record.clear();
    record.reserve(BATCH_HEAD_BYTES + batch.body_bytes() as usize);
    for part in [&[0; CHECKSUM_BYTES][..], &batch.count().to_le_bytes(), &layout.to_le_bytes(), &number.to_le_bytes(), items, table] {
        record.extend_from_slice(part);
    }
    let checksum = checksum(Kind::Batch, &first.to_le_bytes(), &record[CHECKSUM_BYTES..]);
    record[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// What a batch's record says of its items, after its checksum was checked.
pub(super) fn check_batch(first: u64, record: &[u8]) -> Result<BatchHeader, RecordError> {
    let content = check(Kind::Batch, &first.to_le_bytes(), record)?;
    let Some(&[count, layout, number]) = content.as_chunks().0.first_chunk::<3>() else {
        return Err(RecordError::Short { expected: BATCH_HEAD_BYTES, came: record.len() });
    };
    let number = u32::from_le_bytes(number);
    let layout = match u32::from_le_bytes(layout) {
        UNIFORM => Layout::Uniform { len: number },
        TABLE => Layout::Table { base: number },
        came => return Err(RecordError::Layout { came }),
    };
    Ok(BatchHeader { count: u32::from_le_bytes(count), layout })
}

/// The bytes of the body in a batch's record.
pub(super) fn body_bytes(record: &[u8]) -> u64 {
    record.len().saturating_sub(BATCH_HEAD_BYTES) as u64
}

/// Reads a batch's record.
pub(super) fn read_batch(first: u64, record: &[u8]) -> Result<Batch, RecordError> {
    let header = check_batch(first, record)?;
    Ok(Batch::check(header, Bytes::copy_from_slice(&record[BATCH_HEAD_BYTES..]))?)
}

/// Makes a record of any other kind.
pub(super) fn write(kind: Kind, key: &[u8], payload: &impl Serialize) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "numbers, strings and bytes can always be encoded in memory")]
    let mut record = postcard::to_extend(payload, vec![0; CHECKSUM_BYTES]).expect("a payload can be encoded");
    let checksum = checksum(kind, key, &record[CHECKSUM_BYTES..]);
    record[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    record
}

/// Reads a record of any other kind.
pub(super) fn read<T: DeserializeOwned>(kind: Kind, key: &[u8], record: &[u8]) -> Result<T, RecordError> {
    Ok(postcard::from_bytes(check(kind, key, record)?)?)
}

fn check<'a>(kind: Kind, key: &[u8], record: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let Some((came, content)) = record.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(RecordError::Short { expected: CHECKSUM_BYTES, came: record.len() });
    };
    let (came, expected) = (u64::from_le_bytes(*came), checksum(kind, key, content));
    if came == expected { Ok(content) } else { Err(RecordError::Checksum { expected, came }) }
}

fn checksum(kind: Kind, key: &[u8], content: &[u8]) -> u64 {
    let seed = XxHash3_64::oneshot_with_seed(kind as u64, key);
    XxHash3_64::oneshot_with_seed(seed, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(first: u64, batch: &Batch) -> Vec<u8> {
        let mut record = b"what was there before".to_vec();
        write_batch(first, batch, &mut record);
        record
    }

    fn table() -> Batch {
        let body = [&b"abcdef"[..], &[12, 0, 0, 0], &[16, 0, 0, 0]].concat();
        Batch::check(BatchHeader { count: 2, layout: Layout::Table { base: 10 } }, body.into()).unwrap()
    }

    #[test]
    fn the_bytes_are_those_that_are_documented() {
        let golden = "5f1a540245ec7a7e010000000000000003000000616263";
        assert_eq!(hex(&record(7, &Batch::one(b"abc"[..].into()))), golden);
        let golden = "0aa178d46ace2a8c02000000010000000a0000006162636465660c00000010000000";
        assert_eq!(hex(&record(7, &table())), golden);
        assert_eq!(hex(&write(Kind::Producer, b"a", &(5_u64, 300_u64, true))), "bea1daa9574f4a3e05ac0201");
    }

    #[test]
    fn what_was_written_is_read() {
        for batch in [Batch::one(b"abc"[..].into()), table()] {
            let read = read_batch(7, &record(7, &batch)).unwrap();
            assert_eq!((read.header(), read.body()), (batch.header(), batch.body()));
        }
        let record = write(Kind::Producer, b"a", &(5_u64, true));
        assert_eq!(read::<(u64, bool)>(Kind::Producer, b"a", &record), Ok((5, true)));
    }

    #[test]
    fn a_record_in_anothers_place_or_with_any_bit_flipped_is_refused() {
        let batch = record(7, &table());
        assert!(matches!(read_batch(8, &batch), Err(RecordError::Checksum { .. })));
        let other = write(Kind::Producer, b"a", &5_u64);
        assert!(read::<u64>(Kind::Producer, b"b", &other).is_err() && read::<u64>(Kind::Marks, b"a", &other).is_err());
        for bit in 0..8 * batch.len() {
            let mut flipped = batch.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_batch(7, &flipped).is_err(), "bit {bit}");
        }
        for len in 0..batch.len() {
            assert!(read_batch(7, &batch[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_checksum_that_is_right_does_not_excuse_what_it_covers() {
        let mut odd = record(7, &table());
        odd[12] = 9;
        let checksum = checksum(Kind::Batch, &7_u64.to_le_bytes(), &odd[8..]);
        odd[..8].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(read_batch(7, &odd).unwrap_err(), RecordError::Layout { came: 9 });
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
