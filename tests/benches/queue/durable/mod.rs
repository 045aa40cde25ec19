//! What it takes to keep what is put where it survives: a journal on a disk, beside servers that sync before they confirm, beside the
//! queue in memory, and beside the disk itself.

mod depth;
pub mod disk;
mod lone;
mod rates;

use anyhow::Result;

use crate::Run;
use crate::report::{Group, LeftOut};
use disk::Disk;

/// How far it goes.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    /// Lone puts in a turn.
    lone: u64,
    /// Items that wait while the coordinator is killed.
    waiting: u64,
}

impl Durable {
    pub const QUICK: Durable = Durable { lone: 300, waiting: 10_000_000 };
    pub const FULL: Durable = Durable { lone: 2000, waiting: 100_000_000 };

    pub fn measure(self, run: &Run, left_out: &mut Vec<LeftOut>) -> Result<Vec<Group>> {
        let disk = Disk::find()?;
        let mut groups = rates::measure(run, &disk, left_out)?;
        groups.extend(lone::measure(run, self.lone, &disk)?);
        groups.extend(depth::measure(self.waiting, &disk)?);
        Ok(groups)
    }
}
