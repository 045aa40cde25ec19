//! One item that shares its batch's memory, and how the share passes on to the next.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::{Buf, Bytes};

use super::Batch;

/// One item's bytes, in the memory of its batch.
///
/// To share memory is to count who does, atomically, and not to do so any more as well: some 12 ns for each item, beside 20 for all else that a
/// consumer does about it. So a part is a share of all from its first byte to the end of its batch, which the next part can go on with.
pub struct Part {
    rest: Bytes,
    len: usize,
}

impl Batch {
    /// The bytes of item `index`, by `share` if that reaches so far back.
    ///
    /// # Panics
    /// When there is no such item.
    #[inline]
    pub(crate) fn part(&self, index: u32, share: Option<Bytes>) -> Part {
        let (from, to) = self.bounds(index);
        let left = self.items.len() - from;
        let mut rest = match share {
            Some(share) if share.len() >= left && self.is_end(&share) => share,
            _ => self.items.clone(),
        };
        rest.advance(rest.len() - left);
        Part { rest, len: to - from }
    }

    /// True if `share` is one of this batch's memory, up to its end.
    #[inline]
    fn is_end(&self, share: &Bytes) -> bool {
        // As long as both are there, no other memory has any of these bytes.
        !share.is_empty() && share.as_ptr_range().end == self.items.as_ptr_range().end
    }

    /// Keeps `share` in `kept` if a later part can go on with it.
    #[inline]
    pub(crate) fn keep_share(&self, share: Bytes, kept: &mut Option<Bytes>) {
        if kept.is_none() && self.is_end(&share) {
            *kept = Some(share);
        }
    }
}

impl Part {
    /// What the next part of the same batch can go on with.
    #[inline]
    pub(crate) fn into_share(self) -> Bytes {
        self.rest
    }
}

impl Deref for Part {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.rest[..self.len]
    }
}

impl Borrow<[u8]> for Part {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rest.slice(..self.len).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BatchBuilder;
    use super::*;

    fn batch(items: &[&[u8]]) -> Batch {
        let mut builder = BatchBuilder::default();
        items.iter().for_each(|item| builder.push_bytes(item));
        builder.take_batch().unwrap()
    }

    /// The items in this order, each by the share of the one before it.
    fn in_order(batch: &Batch, order: impl IntoIterator<Item = u32>) -> Vec<Vec<u8>> {
        let mut kept = None;
        let mut next = |index| {
            let part = batch.part(index, kept.take());
            let item = part.to_vec();
            batch.keep_share(part.into_share(), &mut kept);
            item
        };
        order.into_iter().map(&mut next).collect()
    }

    #[test]
    fn each_item_is_what_it_is_whatever_was_taken_before_it() {
        for items in [[&b"ab"[..], b"cd", b"ef", b"gh"], [b"", b"abc", b"", b"d"], [b"a", b"", b"", b""], [&b""[..]; 4]] {
            let whole = batch(&items);
            for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 3, 0]] {
                assert_eq!(in_order(&whole, order), order.map(|index| items[index as usize]));
            }
            let cut = whole.slice(1, 2);
            assert_eq!(in_order(&cut, [0, 1]), &items[1..3]);
        }
    }

    #[test]
    fn the_next_item_goes_on_with_the_share_of_the_one_before() {
        let batch = batch(&[b"ab", b"cd"]);
        let first = batch.part(0, None).into_share();
        let second = batch.part(1, Some(first)).into_share();
        assert_eq!(&second[..], b"cd");
        // It is the only share besides the batch's own.
        assert!(!batch.items.is_unique());
        drop(batch);
        assert!(second.is_unique());
    }

    #[test]
    fn a_share_of_other_memory_or_one_that_begins_too_late_is_let_go() {
        let (one, other) = (batch(&[b"ab", b"cd"]), batch(&[b"ef", b"gh"]));
        let mut kept = None;
        one.keep_share(other.part(0, None).into_share(), &mut kept);
        assert!(kept.is_none());
        assert_eq!(&*one.part(0, Some(other.part(0, None).into_share())), b"ab");
        assert_eq!(&*one.part(0, Some(one.part(1, None).into_share())), b"ab");
        // A part of it that ends before has another end.
        one.keep_share(one.slice(0, 1).part(0, None).into_share(), &mut kept);
        assert!(kept.is_none());
        one.keep_share(one.part(1, None).into_share(), &mut kept);
        one.keep_share(one.part(0, None).into_share(), &mut kept);
        assert_eq!(kept.unwrap(), &b"cd"[..], "the first to come stays");
    }

    #[test]
    fn it_looks_like_the_bytes_that_it_is() {
        let part = batch(&[b"a\n", b"b"]).part(0, None);
        assert_eq!((Borrow::borrow(&part), format!("{part:?}")), (&b"a\n"[..], String::from(r#"b"a\n""#)));
    }
}
