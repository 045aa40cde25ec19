//! How cost grows: with the items that wait, with the consumers that work, with those that are merely connected.
//!
//! The first row of each group is what the others are compared with. Other queues have no part in this.

pub mod circuit;
pub mod crowd;
mod deep;
mod depth;
mod fan;
mod raw;

use anyhow::Result;

use crate::Run;
use crate::report::{Group, LeftOut};

/// How far it goes.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// The most items that wait.
    deepest: u64,
    /// Connected consumers that ask for nothing.
    idle: u64,
}

impl Growth {
    pub const QUICK: Growth = Growth { deepest: 1_000_000, idle: 2000 };
    pub const FULL: Growth = Growth { deepest: 10_000_000, idle: 10_000 };

    pub fn measure(self, run: &Run, left_out: &mut Vec<LeftOut>) -> Result<Vec<Group>> {
        let mut groups = depth::measure(run, self.deepest)?;
        groups.push(fan::measure(run)?);
        groups.extend(crowd::measure(run, self.idle, left_out)?);
        Ok(groups)
    }
}

/// A number as people write it.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
