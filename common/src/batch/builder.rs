//! How a batch comes about, item by item.

use bytes::Bytes;

use super::{Batch, BatchHeader, Layout};
use crate::limits::{BATCH_BYTES_TARGET, BATCH_ITEMS_MAX};

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
}
