//! How values become items' bytes and back: by postcard for whatever serde knows, untouched for byte slices.

use std::borrow::Borrow;

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::Batch;

/// A value that a producer can put: anything that serde serializes, or `[u8]` as it is.
pub trait Encode {
    /// Appends the item's bytes; the error is for people. Called while the client is locked: it must not call its client.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), String>;
}

/// A value that a consumer can get: anything that serde deserializes, or `[u8]` as it is.
pub trait Decode {
    /// What a delivery holds: the value, or shared bytes.
    type Held: Borrow<Self>;

    /// Decodes item `index` of `batch`, all of its bytes; the error is for people. It must not call its client, which is locked.
    fn decode(batch: &Batch, index: u32) -> Result<Self::Held, String>;
}

impl<T: Serialize> Encode for T {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), String> {
        append(self, out).map_err(|error| error.to_string())
    }
}

impl Encode for [u8] {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(self);
        Ok(())
    }
}

impl<T: DeserializeOwned> Decode for T {
    type Held = T;

    fn decode(batch: &Batch, index: u32) -> Result<T, String> {
        let bytes = batch.item(index);
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(format!("{} of its {} bytes are left over", rest.len(), bytes.len())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Decode for [u8] {
    type Held = Bytes;

    fn decode(batch: &Batch, index: u32) -> Result<Bytes, String> {
        Ok(batch.item_shared(index))
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
        assert_eq!(<(u64, String)>::decode(&batch(&value), 0).unwrap(), value);
        assert_eq!(<[u8]>::decode(&batch(&b"raw"[..]), 0).unwrap(), &b"raw"[..]);
    }

    #[test]
    fn an_item_of_another_type_is_refused_not_half_read() {
        let error = u8::decode(&batch(&(1u8, 2u8)), 0).unwrap_err();
        assert_eq!(error, "1 of its 2 bytes are left over");
        assert!(String::decode(&batch(&200u8), 0).is_err());
    }
}
