//! Items whose bytes tell whose they are.

use crate::random::mix;

/// Who puts items, over all connections under one name, or over one connection without.
pub type Tag = u32;

/// How long items are; the same for the whole of a story.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// The shortest; at least what tells whose an item is.
    pub min: usize,
    /// The longest.
    pub max: usize,
}

/// The fewest bytes that tell whose an item is.
pub const ITEM_BYTES_MIN: usize = 8;

/// What the result of an item is filled with, so that it tells whose it is.
pub fn result_byte(id: u64) -> u8 {
    mix(id) as u8
}

impl Lengths {
    /// Appends item `n` of `tag`. How long it is depends on what its thread wants to put, too.
    pub fn write(self, tag: Tag, n: u64, wish: u16, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&(n as u16).to_le_bytes());
        out.extend_from_slice(&wish.to_le_bytes());
        out.resize(at + self.bytes(wish), (n as u8).wrapping_mul(31) ^ tag as u8);
    }

    fn bytes(self, wish: u16) -> usize {
        let span = (self.max - self.min + 1) as u64;
        self.min + (mix(u64::from(wish)) % span) as usize
    }

    /// Whose item this is, if it is one that was written here.
    pub fn read(self, bytes: &[u8]) -> Option<(Tag, u64)> {
        let tag = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let n = u64::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
        let wish = u16::from_le_bytes(bytes.get(6..8)?.try_into().ok()?);
        let filling = (n as u8).wrapping_mul(31) ^ tag as u8;
        // A look at both ends is enough: pieces that are mixed up or shifted differ there.
        let ends = bytes[8..].iter().take(64).chain(bytes[8..].iter().rev().take(64));
        let whole = bytes.len() == self.bytes(wish) && ends.copied().all(|byte| byte == filling);
        whole.then_some((tag, n))
    }
}
