//! How values become items' bytes and back: by postcard for whatever serde knows, untouched for byte slices.

use std::borrow::Borrow;

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::{Batch, Part};

/// A value that a producer can put: anything that serde serializes, or `[u8]` as it is. Nothing else implements it: an encoder of
/// somebody else's could take away what other items have appended.
pub trait Encode: sealed::Encode {
    /// Appends the item's bytes; the error is for people. Called while the client is locked: it must not call its client.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), String>;
}

/// A value that a consumer can get: anything that serde deserializes, or `[u8]` as it is.
pub trait Decode {
    /// What a delivery holds: the value, or shared bytes.
    type Held: Borrow<Self>;

    /// Decodes item `index` of `batch`, all of its bytes, taking the share of its memory that there may be. It must not call its client, which
    /// is locked.
    fn decode(batch: &Batch, index: u32, share: &mut Option<Bytes>) -> Result<Self::Held, Undecodable>;

    /// A share of its batch's memory that is not needed any more, if there is one.
    fn share(held: Self::Held) -> Option<Bytes>;
}

/// Why an item's bytes are no value of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The value ends before the item does.
    #[error("{left} of its {bytes} bytes are left over")]
    LeftOver {
        /// Bytes behind the value.
        left: usize,
        /// Bytes of the item.
        bytes: usize,
    },
    /// They are not its encoding.
    #[error(transparent)]
    Encoding(#[from] postcard::Error),
}

mod sealed {
    pub trait Encode {}
    impl<T: serde::Serialize> Encode for T {}
    impl Encode for [u8] {}
}

/// Values of at most this size are tried on the stack first, where an encoding of known length becomes a store or two instead of a
/// check of the room for each byte.
const SMALL_BYTES_MAX: usize = 32;

impl<T: Serialize> Encode for T {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), String> {
        if size_of::<T>() <= SMALL_BYTES_MAX {
            // Twice the size: numbers take up to a fifth more than in memory. What has more outside, such as a String, may not fit.
            let mut scratch = [0; 2 * SMALL_BYTES_MAX];
            if let Ok(encoded) = postcard::to_slice(self, &mut scratch) {
                out.extend_from_slice(encoded);
                return Ok(());
            }
        }
        append(self, out).map_err(|error| error.to_string())
    }
}

impl Encode for [u8] {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(self);
        Ok(())
    }
}

impl<T: DeserializeOwned> Decode for T {
    type Held = T;

    // Out of line, the decoder of a small type is inlined here as a whole; in line, it would be called from wherever this came to lie.
    #[inline(never)]
    fn decode(batch: &Batch, index: u32, _share: &mut Option<Bytes>) -> Result<T, Undecodable> {
        let bytes = batch.item(index);
        match postcard::take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            (_, rest) => Err(Undecodable::LeftOver { left: rest.len(), bytes: bytes.len() }),
        }
    }

    #[inline]
    fn share(_held: T) -> Option<Bytes> {
        None
    }
}

impl Decode for [u8] {
    type Held = Part;

    #[inline]
    fn decode(batch: &Batch, index: u32, share: &mut Option<Bytes>) -> Result<Part, Undecodable> {
        Ok(batch.part(index, share.take()))
    }

    #[inline]
    fn share(held: Part) -> Option<Bytes> {
        Some(held.into_share())
    }
}

/// Appends `value`'s encoding to `out`; on an error some of it may be there.
pub(crate) fn append(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append(out))
}

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch<T: Encode + ?Sized>(value: &T) -> Batch {
        let mut bytes = Vec::new();
        value.encode(&mut bytes).unwrap();
        Batch::one(bytes.into())
    }

    #[test]
    fn values_and_bytes_come_back() {
        let value = (7u64, "seven".to_string());
        assert_eq!(<(u64, String)>::decode(&batch(&value), 0, &mut None).unwrap(), value);
        assert_eq!(<[u8]>::decode(&batch(&b"raw"[..]), 0, &mut None).unwrap()[..], b"raw"[..]);
        let longer_than_the_stack_is_tried_for = (0..200).collect::<Vec<u8>>();
        assert_eq!(
            <Vec<u8>>::decode(&batch(&longer_than_the_stack_is_tried_for), 0, &mut None).unwrap(),
            longer_than_the_stack_is_tried_for
        );
    }

    #[test]
    fn an_item_of_another_type_is_refused_not_half_read() {
        let error = u8::decode(&batch(&(1u8, 2u8)), 0, &mut None).unwrap_err();
        assert_eq!(error.to_string(), "1 of its 2 bytes are left over");
        assert!(String::decode(&batch(&200u8), 0, &mut None).is_err());
    }
}
