//! The checksum by which a producer that comes again knows that its input begins as it did: a chain over its items, so that it depends
//! neither on how they were gathered into batches nor on how often the producer has come.

use twox_hash::XxHash64;

/// The checksum of no items.
pub const START: u64 = 0;

/// The checksum of some items and one more: XXH64 of the item's bytes, seeded with the checksum before it.
#[inline]
pub fn add(before: u64, item: &[u8]) -> u64 {
    XxHash64::oneshot(before, item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_xxh64_that_others_compute() {
        // From the reference implementation's own sanity checks: no bytes, seed 0.
        assert_eq!(add(START, b""), 0xef46_db37_51d8_e999);
        assert_eq!(add(START, b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn it_tells_where_one_item_ends() {
        let both = |a: &[u8], b: &[u8]| add(add(START, a), b);
        assert_ne!(both(b"ab", b"c"), both(b"a", b"bc"));
        assert_ne!(both(b"", b"a"), both(b"a", b""));
    }
}
