//! Chance, from a seed alone: a schedule or a story that went wrong can be told again, on every machine and with every release of every
//! crate.

use std::time::Duration;

/// A generator: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Random {
        // Seeds that follow one another must not give the same numbers one step apart.
        Random(mix(seed ^ 0x5851_f42d_4c95_7f2d))
    }

    /// The next number, any.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.any()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `min` to `max`, both possible.
    pub fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.below(max - min + 1)
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number from `min` to `max` whose length in bits is about equally likely: small ones are as likely as large ones.
    pub fn scale(&mut self, min: u64, max: u64) -> u64 {
        let bits = self.below(u64::from(64 - (max - min + 1).leading_zeros()));
        let span = (2u64 << bits).min(max - min + 1);
        min + self.below(span)
    }

    /// A time from `min` to `max` microseconds.
    pub fn micros(&mut self, (min, max): (u64, u64)) -> Duration {
        Duration::from_micros(self.scale(min, max))
    }

    /// As many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.any() as u8).collect()
    }
}

/// A number that looks like chance and depends on `value` alone.
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
