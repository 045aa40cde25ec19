//! How what is stored at the servers lies. Each begins with a version, so that a program meets what a later one wrote with an error, and
//! not with nonsense.
//!
//! ```text
//! items:  header Procq-Items: VERSION COUNT uniform LEN | VERSION COUNT table BASE, and perhaps POSITION CHECKSUM behind that;
//!         payload: the body, as `common::batch` has it
//! marks, producer, machine:  payload: | version: u8 | postcard |
//! ```
//!
//! `uniform` are items of one length, `table` those with a table of their ends behind them. A producer that has a name (which is in the subject)
//! has come so far with this batch. What describes the items is a header, so that they leave in the memory in which they came.

use bytes::Bytes;
use common::batch::{Batch, BatchError, BatchHeader, Layout};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::limits::JETSTREAM_RECORD_BYTES_MAX;

/// The version of all that is stored.
pub(super) const FORMAT_VERSION: u8 = 1;

const UNIFORM: &str = "uniform";
const TABLE: &str = "table";

/// The header that describes a message's items.
pub(super) const ITEMS_HEADER: &str = "Procq-Items";

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
    /// It is longer than any such record.
    #[error("{came} bytes, expected at most {JETSTREAM_RECORD_BYTES_MAX}")]
    Long {
        /// Its length.
        came: usize,
    },
    /// It is not described as items are.
    #[error("the header {ITEMS_HEADER} {came:?}, expected a version, a count, `uniform` or `table`, and a number")]
    Head {
        /// What it says; nothing if it is not there.
        came: String,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ItemsMessage {
    /// What [`ITEMS_HEADER`] says; nothing if it is not there.
    pub(super) head: String,
    pub(super) body: Bytes,
}

impl ItemsMessage {
    /// Describes a batch. Its body is copied only if it has a table, which may lie elsewhere.
    pub(super) fn write(batch: &Batch, reached: Option<Reached>) -> ItemsMessage {
        let (layout, number) = match batch.header().layout {
            Layout::Uniform { len } => (UNIFORM, len),
            Layout::Table { base } => (TABLE, base),
        };
        let mut head = format!("{FORMAT_VERSION} {} {layout} {number}", batch.count());
        if let Some(Reached { position, checksum }) = reached {
            head += &format!(" {position} {checksum}");
        }
        let body = match batch.body() {
            [items, table] if table.is_empty() => items.clone(),
            [items, table] => [&items[..], table].concat().into(),
        };
        ItemsMessage { head, body }
    }

    /// The items, and how far their producer was with them, if it has a name.
    pub(super) fn read(&self) -> Result<(Batch, Option<Reached>), MessageError> {
        let odd = || MessageError::Head { came: self.head.clone() };
        let (version, rest) = self.head.split_once(' ').ok_or_else(odd)?;
        let came = version.parse().map_err(|_| odd())?;
        if came != FORMAT_VERSION {
            return Err(MessageError::Version { came });
        }
        let words: Vec<&str> = rest.split(' ').collect();
        let (count, layout, number, reached) = match words[..] {
            [count, layout, number] => (count, layout, number, None),
            [count, layout, number, position, checksum] => (count, layout, number, Some((position, checksum))),
            _ => return Err(odd()),
        };
        let number = number.parse().map_err(|_| odd())?;
        let layout = match layout {
            UNIFORM => Layout::Uniform { len: number },
            TABLE => Layout::Table { base: number },
            _ => return Err(odd()),
        };
        let reached = match reached {
            Some((position, checksum)) => {
                Some(Reached { position: position.parse().map_err(|_| odd())?, checksum: checksum.parse().map_err(|_| odd())? })
            }
            None => None,
        };
        let header = BatchHeader { count: count.parse().map_err(|_| odd())?, layout };
        Ok((Batch::check(header, self.body.clone())?, reached))
    }

    /// What tells it from another message that has its number.
    pub(super) fn hash(&self) -> u64 {
        XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(self.head.as_bytes()), &self.body)
    }
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
        return Err(MessageError::Long { came: record.len() });
    }
    let (value, rest) = postcard::take_from_bytes(content)?;
    if rest.is_empty() { Ok(value) } else { Err(postcard::Error::DeserializeBadEncoding.into()) }
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
        assert_eq!(ItemsMessage::write(&one, None), ItemsMessage { head: "1 1 uniform 3".into(), body: b"abc"[..].into() });
        let reached = Reached { position: 7, checksum: 0x1122 };
        let two = ItemsMessage::write(&batch(&[b"a".to_vec(), b"bc".to_vec()]), Some(reached));
        assert_eq!((&two.head[..], hex(&two.body)), ("1 2 table 0 7 4386", "6162630100000003000000".into()));
        let marks = Marks { settled: vec![(0, 300)], failed: vec![(301, 1, 2)] };
        assert_eq!(hex(&write_record(&MarksRecord { message_hash: 5, marks })), "01050100ac0201ad020102");
        let producer = ProducerRecord { machine: "m".into(), position: 300, checksum: 1, finished: true };
        assert_eq!(hex(&write_record(&producer)), "01016dac020101");
        let machine = MachineRecord { name: "h".into(), beat: 1, producers_expected: 2, producers_finished: 1, leaving: false };
        assert_eq!(hex(&write_record(&machine)), "01016801020100");
    }

    #[test]
    fn items_of_one_length_leave_in_the_memory_in_which_they_came() {
        let body = Bytes::from(b"abcdef".to_vec());
        let batch = Batch::check(BatchHeader { count: 3, layout: Layout::Uniform { len: 2 } }, body.clone()).unwrap();
        assert_eq!(ItemsMessage::write(&batch, None).body.as_ptr(), body.as_ptr());
    }

    #[test]
    fn messages_that_differ_anywhere_have_another_hash() {
        let message = |head: &str, body: &'static str| ItemsMessage { head: head.into(), body: body.into() }.hash();
        let hashes = [message("1 1 uniform 3", "abc"), message("1 1 uniform 3 7 7", "abc"), message("1 1 uniform 3", "abd")];
        assert!(hashes[0] != hashes[1] && hashes[0] != hashes[2] && hashes[1] != hashes[2]);
        assert_eq!(hashes[0], message("1 1 uniform 3", "abc"));
    }

    #[test]
    fn what_a_later_program_wrote_is_told_from_damage() {
        let read = |head: &str| ItemsMessage { head: head.into(), body: b"abc"[..].into() }.read().map(|_| ());
        assert_eq!(read("1 1 uniform 3"), Ok(()));
        assert_eq!(read("2 1 striped 3 and more"), Err(MessageError::Version { came: 2 }));
        assert_eq!(read_record::<ProducerRecord>(&[2, 0]).unwrap_err(), MessageError::Version { came: 2 });
        for head in [
            "",
            "1",
            "x 1 uniform 3",
            "1 1 striped 3",
            "1 1 uniform",
            "1 1 uniform 3 7",
            "1 1 uniform 3 7 7 7",
            "1 1 uniform x",
            "1 -1 uniform 3",
        ] {
            assert_eq!(read(head), Err(MessageError::Head { came: head.into() }));
        }
        assert!(matches!(read("1 2 uniform 3"), Err(MessageError::Batch(_))));
    }

    #[test]
    fn a_record_is_bounded() {
        // The length of a name that fills a record takes two bytes more than that of none.
        let name_bytes = JETSTREAM_RECORD_BYTES_MAX - write_record(&ProducerRecord::default()).len() - 2;
        let longest = ProducerRecord { machine: "m".repeat(name_bytes), ..ProducerRecord::default() };
        let mut record = write_record(&longest).to_vec();
        assert_eq!((record.len(), read_record(&record)), (JETSTREAM_RECORD_BYTES_MAX, Ok(longest)));
        record.push(0);
        assert_eq!(read_record::<ProducerRecord>(&record).unwrap_err(), MessageError::Long { came: JETSTREAM_RECORD_BYTES_MAX + 1 });
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
            let (read, came) = ItemsMessage::write(&part, reached).read().unwrap();
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
        }

        #[test]
        fn a_message_with_any_description_is_read_or_refused(
            head in "[12] [0-9]{1,11} (uniform|table) [0-9]{1,11}( [0-9]{1,21} [0-9]{1,21})?", body in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok((batch, _)) = (ItemsMessage { head, body: body.into() }).read() {
                prop_assert_eq!(batch.iter().count() as u32, batch.count());
            }
        }
    }
}
