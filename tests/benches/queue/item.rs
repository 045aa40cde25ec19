//! What passes through every queue here: items that tell their own number, so that none is counted unread.
//!
//! An item of 8 bytes is its number, spread over all bits. A larger one begins with that word and ends with its complement; between
//! the two stands the same pattern in all items, of which each check reads one word, the next one at the next item.

use anyhow::{Result, ensure};

const WORD: usize = 8;

fn word(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The item of 8 bytes with this number.
pub fn small(number: u64) -> [u8; WORD] {
    word(number).to_le_bytes()
}

/// How many items there were, and the sum of their first words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: u64,
    pub sum: u64,
}

impl Tally {
    /// What the items with the numbers up to `count` have to give.
    pub fn expected(count: u64) -> Tally {
        Tally::of(0..count)
    }

    /// What items with these numbers have to give.
    pub fn of(numbers: impl Iterator<Item = u64>) -> Tally {
        let (count, sum) = numbers.fold((0, 0u64), |(count, sum), number| (count + 1, sum.wrapping_add(word(number))));
        Tally { count, sum }
    }

    pub fn add(&mut self, other: Tally) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Counts an item of 8 bytes.
    pub fn add_small(&mut self, item: [u8; WORD]) {
        self.add(Tally { count: 1, sum: u64::from_le_bytes(item) });
    }

    /// Refuses anything but exactly the items up to `count`.
    pub fn verify(self, count: u64) -> Result<()> {
        self.verify_against(Tally::expected(count))
    }

    pub fn verify_against(self, expected: Tally) -> Result<()> {
        ensure!(self == expected, "{self:?} came instead of {expected:?}");
        Ok(())
    }
}

/// Makes items of one size.
pub struct Maker {
    template: Vec<u8>,
}

impl Maker {
    pub fn new(size: usize) -> Maker {
        let template = (0..size as u64 / WORD as u64).flat_map(small).collect();
        Maker { template }
    }

    /// The item with this number, until the next is made.
    pub fn make(&mut self, number: u64) -> &[u8] {
        stamp(number, &mut self.template);
        &self.template
    }
}

/// Turns any item into the one with this number.
pub fn stamp(number: u64, item: &mut [u8]) {
    if let Some(last) = item.last_chunk_mut() {
        *last = (!word(number)).to_le_bytes();
    }
    if let Some(first) = item.first_chunk_mut() {
        *first = word(number).to_le_bytes();
    }
}

/// Checks items of one size, and counts those that are right.
pub struct Checker {
    size: usize,
    inside: usize,
    tally: Tally,
}

impl Checker {
    pub fn new(size: usize) -> Checker {
        Checker { size, inside: WORD, tally: Tally::default() }
    }

    pub fn check(&mut self, item: &[u8]) -> Result<()> {
        ensure!(item.len() == self.size, "an item of {} bytes came instead of {}", item.len(), self.size);
        let first = word_at(item, 0);
        if self.size > WORD {
            let right = word_at(item, self.size - WORD) == !first && self.is_inside_right(item);
            ensure!(right, "item {} came damaged", self.tally.count);
        }
        self.tally.add(Tally { count: 1, sum: first });
        Ok(())
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn is_inside_right(&mut self, item: &[u8]) -> bool {
        let at = self.inside;
        self.inside = if at + 2 * WORD < self.size - WORD { at + WORD } else { WORD };
        at >= self.size - WORD || word_at(item, at) == word((at / WORD) as u64)
    }
}

fn word_at(item: &[u8], at: usize) -> u64 {
    item[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
