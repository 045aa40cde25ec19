//! Many items in one frame: how they lie, how they are checked, how a part is cut out. Nothing here copies an item.
//!
//! A body is all items' bytes one after another, then, unless all items have one length, a table of where each ends:
//!
//! ```text
//! Uniform { len }:  | item 0 | item 1 | … |
//! Table { base }:   | item 0 | item 1 | … | end 0: u32 LE | end 1: u32 LE | … |
//! ```
//!
//! Item `i` lies at `ends[i-1] - base .. ends[i] - base` (`base ..` for the first). Ends count on through a batch, so a part of
//! it is a slice of the items and a slice of the table with another `base`: cutting never walks the items.

mod builder;
mod part;

pub use builder::BatchBuilder;
pub(crate) use builder::HEADROOM_BYTES;
use bytes::Bytes;
pub use part::Part;
use serde::{Deserialize, Serialize};

use crate::limits::BATCH_ITEMS_MAX;

/// How a batch's items lie in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Every item has `len` bytes; there is no table.
    Uniform {
        /// Bytes of each item.
        len: u32,
    },
    /// A table of little-endian `u32` ends follows the items.
    Table {
        /// What the table's numbers count from: the end of the item before the first.
        base: u32,
    },
}

/// What a message says of the body behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// Items in the body: 1 to [`BATCH_ITEMS_MAX`].
    pub count: u32,
    /// How they lie.
    pub layout: Layout,
}

/// Why a body is not what its header says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The number of items is zero or too large.
    #[error("a batch of {count} items; expected 1 to {BATCH_ITEMS_MAX}")]
    Count {
        /// Items according to the header.
        count: u32,
    },
    /// The body's length does not fit the header.
    #[error("a batch body of {came} bytes; its header makes {expected}")]
    Length {
        /// Bytes according to header and table.
        expected: u64,
        /// Bytes that came.
        came: u64,
    },
    /// The table of ends runs backwards.
    #[error("a batch whose table of item ends runs backwards")]
    Order,
}

/// A checked batch: items that are known to lie within their bytes. Cloning and slicing count references.
#[derive(Clone, Debug)]
pub struct Batch {
    header: BatchHeader,
    items: Bytes,
    table: Bytes,
}

impl Batch {
    /// Checks `body` against `header`, once: afterwards no item needs a look.
    pub fn check(header: BatchHeader, body: Bytes) -> Result<Batch, BatchError> {
        let count = header.count;
        if count == 0 || count > BATCH_ITEMS_MAX {
            return Err(BatchError::Count { count });
        }
        let came = body.len() as u64;
        match header.layout {
            Layout::Uniform { len } => {
                let expected = u64::from(count) * u64::from(len);
                if came != expected {
                    return Err(BatchError::Length { expected, came });
                }
                Ok(Batch { header, items: body, table: Bytes::new() })
            }
            Layout::Table { base } => {
                let table_bytes = 4 * count as usize;
                let Some(items_bytes) = body.len().checked_sub(table_bytes) else {
                    return Err(BatchError::Length { expected: table_bytes as u64, came });
                };
                let mut items = body;
                let table = items.split_off(items_bytes);
                let mut previous = base;
                let mut ordered = true;
                for end in ends(&table) {
                    ordered &= previous <= end;
                    previous = end;
                }
                if !ordered {
                    return Err(BatchError::Order);
                }
                let expected = u64::from(previous - base);
                if items_bytes as u64 != expected {
                    return Err(BatchError::Length { expected: expected + table_bytes as u64, came });
                }
                Ok(Batch { header, items, table })
            }
        }
    }

    /// A batch of one item.
    pub fn one(item: Bytes) -> Batch {
        // An item is at most ITEM_BYTES_MAX_CEILING long, which fits.
        let len = item.len() as u32;
        Batch { header: BatchHeader { count: 1, layout: Layout::Uniform { len } }, items: item, table: Bytes::new() }
    }

    /// What a message says of this batch.
    pub fn header(&self) -> BatchHeader {
        self.header
    }

    /// Items: at least one.
    #[inline]
    pub fn count(&self) -> u32 {
        self.header.count
    }

    /// Bytes of the body as it goes over the socket.
    pub fn body_bytes(&self) -> u64 {
        (self.items.len() + self.table.len()) as u64
    }

    /// The body in its two pieces, items and table, to be sent one after the other.
    pub fn body(&self) -> [&Bytes; 2] {
        [&self.items, &self.table]
    }

    /// The bytes of item `index`.
    ///
    /// # Panics
    /// When there is no such item.
    #[inline]
    pub fn item(&self, index: u32) -> &[u8] {
        let (from, to) = self.bounds(index);
        &self.items[from..to]
    }

    /// The bytes of item `index`, sharing this batch's memory.
    ///
    /// # Panics
    /// When there is no such item.
    pub fn item_shared(&self, index: u32) -> Bytes {
        let (from, to) = self.bounds(index);
        self.items.slice(from..to)
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count()).map(|index| self.item(index))
    }

    /// Items `from .. from + count` as a batch of their own, sharing this one's memory.
    ///
    /// # Panics
    /// When the part is empty or reaches beyond the batch.
    pub fn slice(&self, from: u32, count: u32) -> Batch {
        assert!(count > 0 && from + count <= self.count(), "a part outside its batch");
        if count == self.count() {
            return self.clone();
        }
        let start = self.bounds(from).0;
        let stop = self.bounds(from + count - 1).1;
        let (layout, table) = match self.header.layout {
            Layout::Uniform { len } => (Layout::Uniform { len }, Bytes::new()),
            Layout::Table { base } => {
                let base = if from == 0 { base } else { self.end(from - 1) };
                (Layout::Table { base }, self.table.slice(4 * from as usize..4 * (from + count) as usize))
            }
        };
        Batch { header: BatchHeader { count, layout }, items: self.items.slice(start..stop), table }
    }

    /// How many items, from item `from` on and `count` at most, fit into `bytes_max`; at least one.
    pub fn fit(&self, from: u32, count: u32, bytes_max: u64) -> u32 {
        let count = count.min(self.count() - from);
        let fits = |n: u32| {
            let bytes = (self.bounds(from + n - 1).1 - self.bounds(from).0) as u64;
            bytes <= bytes_max
        };
        if count <= 1 || fits(count) {
            return count;
        }
        let (mut fit, mut over) = (1, count);
        while over - fit > 1 {
            let middle = fit + (over - fit) / 2;
            if fits(middle) { fit = middle } else { over = middle }
        }
        fit
    }

    #[inline]
    fn bounds(&self, index: u32) -> (usize, usize) {
        assert!(index < self.count(), "item {index} of a batch of {}", self.count());
        match self.header.layout {
            Layout::Uniform { len } => {
                let from = index as usize * len as usize;
                (from, from + len as usize)
            }
            Layout::Table { base } => {
                let from = if index == 0 { base } else { self.end(index - 1) };
                ((from - base) as usize, (self.end(index) - base) as usize)
            }
        }
    }

    #[inline]
    fn end(&self, index: u32) -> u32 {
        let at = 4 * index as usize;
        let entry = &self.table[at..at + 4];
        u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]])
    }
}

fn ends(table: &[u8]) -> impl Iterator<Item = u32> + '_ {
    table.chunks_exact(4).map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(items: &[Vec<u8>]) -> Batch {
        let mut builder = BatchBuilder::default();
        for item in items {
            builder.push_bytes(item);
        }
        builder.take_batch().unwrap()
    }

    fn body(batch: &Batch) -> Bytes {
        batch.body().map(|piece| piece.to_vec()).concat().into()
    }

    #[test]
    fn items_of_one_length_need_no_table() {
        let batch = build(&[b"ab".to_vec(), b"cd".to_vec()]);
        assert_eq!(batch.header(), BatchHeader { count: 2, layout: Layout::Uniform { len: 2 } });
        assert_eq!(&body(&batch)[..], b"abcd");
        assert_eq!([batch.item(0), batch.item(1)], [b"ab", b"cd"]);
    }

    #[test]
    fn items_of_several_lengths_are_followed_by_their_ends() {
        let batch = build(&[b"a".to_vec(), b"".to_vec(), b"bcd".to_vec()]);
        assert_eq!(batch.header().layout, Layout::Table { base: 0 });
        assert_eq!(&body(&batch)[..], b"abcd\x01\0\0\0\x01\0\0\0\x04\0\0\0");
    }

    #[test]
    fn bodies_that_do_not_fit_their_header_are_refused() {
        let uniform = |count, len| BatchHeader { count, layout: Layout::Uniform { len } };
        let table = |count, base| BatchHeader { count, layout: Layout::Table { base } };
        let check = |header, body: &'static [u8]| Batch::check(header, Bytes::from_static(body)).unwrap_err();
        assert_eq!(check(uniform(0, 1), b""), BatchError::Count { count: 0 });
        assert_eq!(check(uniform(BATCH_ITEMS_MAX + 1, 0), b""), BatchError::Count { count: BATCH_ITEMS_MAX + 1 });
        assert_eq!(check(uniform(2, 3), b"abcde"), BatchError::Length { expected: 6, came: 5 });
        assert_eq!(check(uniform(60_000, u32::MAX), b""), BatchError::Length { expected: 60_000 * 0xffff_ffff, came: 0 });
        assert_eq!(check(table(2, 0), b"abc"), BatchError::Length { expected: 8, came: 3 });
        assert_eq!(check(table(2, 0), b"ab\x02\0\0\0\x01\0\0\0"), BatchError::Order);
        assert_eq!(check(table(1, 5), b"\x04\0\0\0"), BatchError::Order);
        assert_eq!(check(table(1, 0), b"ab\x03\0\0\0"), BatchError::Length { expected: 7, came: 6 });
    }

    #[test]
    fn a_batch_may_have_exactly_as_many_items_as_is_allowed_and_is_full_then() {
        let mut builder = BatchBuilder::default();
        for _ in 0..BATCH_ITEMS_MAX {
            assert!(!builder.is_full());
            builder.push_bytes(b"");
        }
        assert!(builder.is_full());
        let batch = builder.take_batch().unwrap();
        assert_eq!(Batch::check(batch.header(), body(&batch)).unwrap().count(), BATCH_ITEMS_MAX);
    }

    proptest! {
        #[test]
        fn any_part_of_any_batch_holds_its_items(
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 1..40),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        ) {
            let mut items = items;
            let mut batch = build(&items);
            for (from, count) in cuts {
                let from = from.index(items.len());
                let count = 1 + count.index(items.len() - from);
                batch = batch.slice(from as u32, count as u32);
                items = items[from..from + count].to_vec();
                let again = Batch::check(batch.header(), body(&batch)).unwrap();
                prop_assert_eq!(again.iter().collect::<Vec<_>>(), items.iter().map(Vec::as_slice).collect::<Vec<_>>());
                prop_assert_eq!(batch.item_shared(0), items[0].clone());
            }
        }

        #[test]
        fn fit_is_the_longest_part_within_the_bytes_but_one_at_least(
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..40),
            from in any::<prop::sample::Index>(), count in 1u32..50, bytes_max in 0u64..100,
        ) {
            let batch = build(&items);
            let from = from.index(items.len());
            let mut sum = 0;
            let naive = items[from..].iter().take(count as usize)
                .take_while(|item| { sum += item.len() as u64; sum <= bytes_max }).count().max(1);
            prop_assert_eq!(batch.fit(from as u32, count, bytes_max) as usize, naive);
        }

        #[test]
        fn no_body_however_odd_makes_check_panic(count in any::<u32>(), len in any::<u32>(), table: bool, body: Vec<u8>) {
            let layout = if table { Layout::Table { base: len } } else { Layout::Uniform { len } };
            if let Ok(batch) = Batch::check(BatchHeader { count, layout }, body.into()) {
                prop_assert_eq!(batch.iter().count() as u32, count);
            }
        }
    }
}
