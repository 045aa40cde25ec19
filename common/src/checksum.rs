//! The checksum by which a producer that comes again knows that its input begins as it did: a chain over its items, so that it depends
//! neither on how they were gathered into batches nor on how often the producer has come.

use twox_hash::XxHash3_64;

/// The checksum of no items.
pub const START: u64 = 0;

/// The checksum of some items and one more: the 64 bits of XXH3 of the item's bytes, seeded with the checksum before it.
#[inline]
pub fn add(before: u64, item: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(before, item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_xxh3_that_others_compute() {
        // By the reference implementation, whose ways differ by length and seed.
        assert_eq!(add(START, b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(add(START, b"abc"), 0x78af_5f94_892f_3950);
        assert_eq!(add(5, &[b'x'; 1000]), 0x1dad_5699_6e17_bc6c);
    }

    #[test]
    fn it_tells_where_one_item_ends() {
        let both = |a: &[u8], b: &[u8]| add(add(START, a), b);
        assert_ne!(both(b"ab", b"c"), both(b"a", b"bc"));
        assert_ne!(both(b"", b"a"), both(b"a", b""));
    }
}
