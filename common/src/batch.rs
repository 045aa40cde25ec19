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

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{BATCH_BYTES_TARGET, BATCH_ITEMS_MAX};

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

/// Collects items into a body behind some room for the frame's header, so that a full batch is sent as it lies.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: Vec<u8>,
    count: u32,
    /// The length of the first item, and of all others as long as `ends` is empty.
    len: u32,
    ends: Vec<u32>,
    /// The batch should leave once its items have this many bytes: with their table, BATCH_BYTES_TARGET.
    full_bytes: u64,
}

/// Room in front of the items for the length prefix and the message: the longest `Put` takes 4 + 37 bytes.
pub(crate) const HEADROOM_BYTES: usize = 48;

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder { buffer: vec![0; HEADROOM_BYTES], count: 0, len: 0, ends: Vec::new(), full_bytes: BATCH_BYTES_TARGET as u64 }
    }
}

impl BatchBuilder {
    /// Adds one item.
    pub fn push_bytes(&mut self, item: &[u8]) {
        self.open_item().extend_from_slice(item);
        self.end_item();
    }

    /// Where the next item's bytes are appended; [`BatchBuilder::end_item`] or [`BatchBuilder::drop_item`] has to follow.
    #[inline]
    pub(crate) fn open_item(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// What was appended since the last item is one.
    #[inline]
    pub(crate) fn end_item(&mut self) {
        // The body stays far below 4 GiB: an item has at most ITEM_BYTES_MAX_CEILING bytes, and the owner sends a body on that
        // has reached BATCH_BYTES_TARGET.
        let end = self.body_bytes() as u32;
        if self.ends.is_empty() && u64::from(end) == (u64::from(self.count) + 1) * u64::from(self.len) {
            self.count += 1;
        } else {
            self.end_other_length(end);
        }
    }

    #[cold]
    fn end_other_length(&mut self, end: u32) {
        if self.count == 0 {
            self.len = end;
        } else {
            if self.ends.is_empty() {
                self.ends.extend((1..=self.count).map(|count| count * self.len));
            }
            self.ends.push(end);
            self.full_bytes = (BATCH_BYTES_TARGET as u64).saturating_sub(4 * self.ends.len() as u64);
        }
        self.count += 1;
    }

    /// Takes back what was appended since the last item.
    pub(crate) fn drop_item(&mut self) {
        let end = self.items_bytes() as usize;
        self.buffer.truncate(HEADROOM_BYTES + end);
    }

    /// All items so far, in order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = HEADROOM_BYTES;
        (0..self.count as usize).map(move |index| {
            let to = self.ends.get(index).map_or(from + self.len as usize, |end| HEADROOM_BYTES + *end as usize);
            &self.buffer[std::mem::replace(&mut from, to)..to]
        })
    }

    /// Items so far.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of all items so far, without a table.
    pub fn items_bytes(&self) -> u64 {
        self.ends.last().map_or(u64::from(self.count) * u64::from(self.len), |end| u64::from(*end))
    }

    /// Bytes appended so far, those that are no item yet among them.
    #[inline]
    pub(crate) fn body_bytes(&self) -> u64 {
        // An encoder may have taken bytes away that it has not put there.
        self.buffer.len().saturating_sub(HEADROOM_BYTES) as u64
    }

    /// True once the batch should leave: it is large, or full.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.body_bytes() >= self.full_bytes || self.count >= BATCH_ITEMS_MAX
    }

    /// Takes what is collected: its header, and a buffer with [`HEADROOM_BYTES`] of room before the body. None when empty. The next
    /// batch is collected in `next`.
    pub(crate) fn take(&mut self, mut next: Vec<u8>) -> Option<(BatchHeader, Vec<u8>)> {
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return None;
        }
        if next.capacity() == 0 {
            next.reserve(self.buffer.capacity().min(2 * BATCH_BYTES_TARGET));
        }
        next.resize(HEADROOM_BYTES, 0);
        let mut buffer = std::mem::replace(&mut self.buffer, next);
        let layout = if self.ends.is_empty() {
            Layout::Uniform { len: self.len }
        } else {
            buffer.reserve_exact(4 * self.ends.len());
            buffer.extend(self.ends.iter().flat_map(|end| end.to_le_bytes()));
            self.ends.clear();
            self.full_bytes = BATCH_BYTES_TARGET as u64;
            Layout::Table { base: 0 }
        };
        Some((BatchHeader { count, layout }, buffer))
    }

    /// Takes what is collected as a batch of its own. None when empty.
    pub fn take_batch(&mut self) -> Option<Batch> {
        let (header, buffer) = self.take(Vec::new())?;
        let body = Bytes::from(buffer).slice(HEADROOM_BYTES..);
        let (items, table) = match header.layout {
            Layout::Uniform { .. } => (body, Bytes::new()),
            Layout::Table { .. } => {
                let at = body.len() - 4 * header.count as usize;
                (body.slice(..at), body.slice(at..))
            }
        };
        Some(Batch { header, items, table })
    }
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
    fn a_refused_item_leaves_no_trace() {
        let mut builder = BatchBuilder::default();
        builder.open_item().extend([2; 9]);
        builder.drop_item();
        for item in [&[1][..], &[1, 2]] {
            builder.push_bytes(item);
            builder.open_item().extend([2; 9]);
            builder.drop_item();
        }
        let batch = builder.take_batch().unwrap();
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&[1u8][..], &[1, 2]]);
        assert!(builder.take_batch().is_none());
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

    #[test]
    fn a_batch_is_full_once_it_has_the_bytes_that_are_worth_a_frame() {
        let mut builder = BatchBuilder::default();
        builder.push_bytes(&vec![0; BATCH_BYTES_TARGET - 1]);
        assert!(!builder.is_full());
        builder.push_bytes(b"1");
        assert!(builder.is_full());
    }

    #[test]
    fn the_table_counts_among_the_bytes_that_are_worth_a_frame() {
        let mut builder = BatchBuilder::default();
        for length in (5..=6).cycle() {
            if builder.is_full() {
                break;
            }
            assert!(builder.items_bytes() + 4 * u64::from(builder.count()) < BATCH_BYTES_TARGET as u64);
            builder.push_bytes(&vec![1; length]);
        }
        assert!(builder.items_bytes() + 4 * u64::from(builder.count()) >= BATCH_BYTES_TARGET as u64);
    }

    #[test]
    fn a_batch_is_gathered_in_memory_like_the_one_before_and_a_huge_item_is_not_remembered() {
        let mut builder = BatchBuilder::default();
        builder.push_bytes(&[1; 1000]);
        let (_, first) = builder.take(Vec::new()).unwrap();
        assert!(builder.buffer.capacity() >= first.capacity(), "it need not grow again");
        builder.push_bytes(&[1; 1 << 20]);
        builder.take(Vec::new()).unwrap();
        assert_eq!(builder.buffer.capacity(), 2 * BATCH_BYTES_TARGET);
        builder.push_bytes(&[1; 1000]);
        builder.take(Vec::with_capacity(500)).unwrap();
        assert_eq!(builder.buffer.capacity(), 500, "memory that is given is used as it is");
    }

    #[test]
    fn a_table_takes_no_more_memory_than_it_needs() {
        let mut builder = BatchBuilder::default();
        (0..11_000).for_each(|n| builder.push_bytes(&[1; 6][..5 + n % 2]));
        let (_, buffer) = builder.take(Vec::new()).unwrap();
        assert_eq!(buffer.capacity(), buffer.len());
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
