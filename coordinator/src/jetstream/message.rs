//! How what is stored at the servers lies. Each begins with a version, so that a program meets what a later one wrote with an error, and
//! not with nonsense. Numbers are little-endian.
//!
//! ```text
//! items:  | version: u8 | flags: u8 | 0: u16 | count: u32 | layout: u32 | len or base: u32 | [position: u64 | checksum: u64] | body |
//! marks, producer, machine:  | version: u8 | postcard |
//! ```
//!
//! `layout` is 0 for items of one length, 1 for a table of ends, and the body is as `common::batch` has it. Flag 1 says that the producer has
//! a name (which is in the subject), and that how far it has come with this batch follows.

use bytes::Bytes;
use common::batch::{Batch, BatchError, BatchHeader, Layout};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::limits::JETSTREAM_RECORD_BYTES_MAX;

/// The version of all that is stored.
pub(super) const FORMAT_VERSION: u8 = 1;

const HEAD_BYTES: usize = 16;
const PROGRESS_BYTES: usize = 16;
const FLAG_PROGRESS: u8 = 1;
const UNIFORM: u32 = 0;
const TABLE: u32 = 1;

/// What of a message is not items.
pub(super) const ITEMS_HEAD_BYTES_MAX: u64 = (HEAD_BYTES + PROGRESS_BYTES) as u64;

/// Why what is stored cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Another program wrote it.
    #[error("format version {came}, this program knows {FORMAT_VERSION}")]
    Version {
        /// The version that was found.
        came: u8,
    },
    /// It ends too early.
    #[error("{came} bytes, expected at least {expected}")]
    Short {
        /// What it takes to read on.
        expected: usize,
        /// Its length.
        came: usize,
    },
    /// It has a property that is not known.
    #[error("{what} {came}, which is not known")]
    Unknown {
        /// Which.
        what: &'static str,
        /// Its number.
        came: u32,
    },
    /// Its items are not where its head says.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Its content cannot be decoded.
    #[error("content that cannot be decoded: {0}")]
    Content(#[from] postcard::Error),
}

/// How far a producer is with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) position: u64,
    pub(super) checksum: u64,
}

/// What became of a message's items: kept beside the message, which stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Which are settled: index and count, in order.
    pub settled: Vec<(u32, u32)>,
    /// Which have failed before: index, count and failures, in order; none of them settled.
    pub failed: Vec<(u32, u32, u32)>,
}

/// Marks as they are stored: of the message with this hash. A stream that was made anew counts from 1 again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MarksRecord {
    pub(super) message_hash: u64,
    pub(super) marks: Marks,
}

/// What is known of a producer with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProducerRecord {
    /// The machine that it is connected to, or was last.
    pub(super) machine: String,
    pub(super) position: u64,
    pub(super) checksum: u64,
    pub(super) finished: bool,
}

/// What a machine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MachineRecord {
    /// For people: host and process.
    pub(super) name: String,
    /// Raised with each record, so that one can be told from the one before.
    pub(super) beat: u64,
    pub(super) producers_expected: u64,
    pub(super) producers_finished: u64,
    /// It goes, and is to be forgotten.
    pub(super) leaving: bool,
}

/// A message of items.
pub(super) fn write_items(batch: &Batch, reached: Option<Reached>) -> Bytes {
    let (layout, number) = match batch.header().layout {
        Layout::Uniform { len } => (UNIFORM, len),
        Layout::Table { base } => (TABLE, base),
    };
    let mut message = Vec::with_capacity(HEAD_BYTES + PROGRESS_BYTES + batch.body_bytes() as usize);
    message.extend([FORMAT_VERSION, if reached.is_some() { FLAG_PROGRESS } else { 0 }, 0, 0]);
    message.extend([batch.count(), layout, number].into_iter().flat_map(u32::to_le_bytes));
    if let Some(Reached { position, checksum }) = reached {
        message.extend([position, checksum].into_iter().flat_map(u64::to_le_bytes));
    }
    batch.body().into_iter().for_each(|piece| message.extend_from_slice(piece));
    message.into()
}

/// Reads a message of items.
pub(super) fn read_items(message: &Bytes) -> Result<(Batch, Option<Reached>), MessageError> {
    check_version(message)?;
    let short = |expected| MessageError::Short { expected, came: message.len() };
    let Some(&[[_, flags, zeros @ ..], count, layout, number]) = message.as_chunks::<4>().0.first_chunk::<4>() else {
        return Err(short(HEAD_BYTES));
    };
    if flags & !FLAG_PROGRESS != 0 || zeros != [0, 0] {
        return Err(MessageError::Unknown { what: "flags", came: u32::from_le_bytes([flags, zeros[0], zeros[1], 0]) });
    }
    let number = u32::from_le_bytes(number);
    let layout = match u32::from_le_bytes(layout) {
        UNIFORM => Layout::Uniform { len: number },
        TABLE => Layout::Table { base: number },
        came => return Err(MessageError::Unknown { what: "layout", came }),
    };
    let header = BatchHeader { count: u32::from_le_bytes(count), layout };
    if flags & FLAG_PROGRESS == 0 {
        return Ok((Batch::check(header, message.slice(HEAD_BYTES..))?, None));
    }
    let Some(&[position, checksum]) = message[HEAD_BYTES..].as_chunks().0.first_chunk::<2>() else {
        return Err(short(HEAD_BYTES + PROGRESS_BYTES));
    };
    let reached = Reached { position: u64::from_le_bytes(position), checksum: u64::from_le_bytes(checksum) };
    Ok((Batch::check(header, message.slice(HEAD_BYTES + PROGRESS_BYTES..))?, Some(reached)))
}

/// Any other record.
pub(super) fn write_record(record: &impl Serialize) -> Bytes {
    #[expect(clippy::expect_used, reason = "numbers and strings can always be encoded in memory")]
    let bytes = postcard::to_extend(record, vec![FORMAT_VERSION]).expect("a record can be encoded");
    bytes.into()
}

/// Reads any other record.
pub(super) fn read_record<T: DeserializeOwned>(record: &[u8]) -> Result<T, MessageError> {
    let content = check_version(record)?;
    if record.len() > JETSTREAM_RECORD_BYTES_MAX {
        return Err(MessageError::Unknown { what: "a record's length", came: record.len() as u32 });
    }
    let (value, rest) = postcard::take_from_bytes(content)?;
    if rest.is_empty() { Ok(value) } else { Err(postcard::Error::DeserializeBadEncoding.into()) }
}

/// What tells one message from another that has its number.
pub(super) fn hash(message: &[u8]) -> u64 {
    XxHash3_64::oneshot(message)
}

fn check_version(message: &[u8]) -> Result<&[u8], MessageError> {
    match message.split_first() {
        Some((&FORMAT_VERSION, content)) => Ok(content),
        Some((&came, _)) => Err(MessageError::Version { came }),
        None => Err(MessageError::Short { expected: 1, came: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::batch::BatchBuilder;
    use proptest::prelude::*;

    fn batch(items: &[Vec<u8>]) -> Batch {
        let mut builder = BatchBuilder::default();
        items.iter().for_each(|item| builder.push_bytes(item));
        builder.take_batch().unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_are_those_that_are_documented() {
        let one = Batch::one(b"abc"[..].into());
        assert_eq!(hex(&write_items(&one, None)), "01000000010000000000000003000000616263");
        let reached = Reached { position: 7, checksum: 0x1122 };
        let golden = "0101000002000000010000000000000007000000000000002211000000000000616263010000000300000000";
        assert_eq!(hex(&write_items(&batch(&[b"a".to_vec(), b"bc".to_vec()]), Some(reached))), golden[..golden.len() - 2]);
        let marks = Marks { settled: vec![(0, 300)], failed: vec![(301, 1, 2)] };
        assert_eq!(hex(&write_record(&MarksRecord { message_hash: 5, marks })), "01050100ac0201ad020102");
        let producer = ProducerRecord { machine: "m".into(), position: 300, checksum: 1, finished: true };
        assert_eq!(hex(&write_record(&producer)), "01016dac020101");
        let machine = MachineRecord { name: "h".into(), beat: 1, producers_expected: 2, producers_finished: 1, leaving: false };
        assert_eq!(hex(&write_record(&machine)), "01016801020100");
    }

    #[test]
    fn what_a_later_program_wrote_is_told_from_damage() {
        let mut later = write_items(&Batch::one(b"abc"[..].into()), None).to_vec();
        later[0] = 2;
        assert_eq!(read_items(&later.clone().into()).unwrap_err(), MessageError::Version { came: 2 });
        assert_eq!(read_record::<ProducerRecord>(&later).unwrap_err(), MessageError::Version { came: 2 });
        (later[0], later[1]) = (1, 4);
        assert!(matches!(read_items(&later.clone().into()), Err(MessageError::Unknown { what: "flags", .. })));
        (later[1], later[8]) = (0, 9);
        assert_eq!(read_items(&later.into()).unwrap_err(), MessageError::Unknown { what: "layout", came: 9 });
        assert!(matches!(read_items(&Bytes::new()), Err(MessageError::Short { .. })));
    }

    #[test]
    fn what_follows_a_record_is_damage() {
        let record = [&write_record(&ProducerRecord::default())[..], b"x"].concat();
        assert!(matches!(read_record::<ProducerRecord>(&record), Err(MessageError::Content(_))));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 1..40),
            part in any::<(prop::sample::Index, prop::sample::Index)>(), reached in any::<Option<(u64, u64)>>(),
        ) {
            let from = part.0.index(items.len());
            let part = batch(&items).slice(from as u32, 1 + part.1.index(items.len() - from) as u32);
            let reached = reached.map(|(position, checksum)| Reached { position, checksum });
            let (read, came) = read_items(&write_items(&part, reached)).unwrap();
            prop_assert_eq!((read.iter().collect::<Vec<_>>(), came), (part.iter().collect::<Vec<_>>(), reached));
        }

        #[test]
        fn no_bytes_however_odd_make_a_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), ours: bool) {
            if let (Some(version), true) = (bytes.first_mut(), ours) {
                *version = FORMAT_VERSION;
            }
            let _ = read_record::<MarksRecord>(&bytes);
            let _ = read_record::<ProducerRecord>(&bytes);
            let _ = read_record::<MachineRecord>(&bytes);
            if let Ok((batch, _)) = read_items(&bytes.into()) {
                prop_assert_eq!(batch.iter().count() as u32, batch.count());
            }
        }

        #[test]
        fn a_message_with_any_byte_changed_is_read_or_refused(at in any::<prop::sample::Index>(), to: u8) {
            let mut bytes = write_items(&batch(&[b"a".to_vec(), b"bc".to_vec()]), Some(Reached { position: 1, checksum: 2 })).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok((batch, _)) = read_items(&bytes.into()) {
                prop_assert_eq!(batch.iter().count() as u32, batch.count());
            }
        }
    }
}
