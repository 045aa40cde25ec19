//! What is compared, and in which cases.

use std::ops::Range;

use anyhow::Result;

use crate::trips::Trips;

/// Items of one size, from as many producers to as many consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub size: usize,
    pub fan: usize,
}

impl Case {
    /// The one where what an item costs counts most.
    pub const SMALLEST: Case = Case { size: 8, fan: 1 };
    /// The one to compare a fan with.
    pub const ONE_TO_ONE: Case = Case { size: 128, fan: 1 };
    pub const FANNED: Case = Case { size: 128, fan: 4 };

    pub fn name(self) -> String {
        let size = match self.size {
            size if size >= 1 << 20 && size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
            size if size >= 1 << 10 && size % (1 << 10) == 0 => format!("{} KiB", size >> 10),
            size => format!("{size} B"),
        };
        if self.fan == 1 { size } else { format!("{size}, {fan}→{fan}", fan = self.fan) }
    }
}

/// A way for items to get from one place to another.
pub trait Peer {
    fn name(&self) -> &'static str;

    /// Passes this many items, verifies them all, and returns the seconds from the first put until all have arrived (and are
    /// acknowledged, where there is such a thing).
    fn pass(&self, case: Case, count: u64) -> Result<f64>;

    fn takes(&self, case: Case) -> bool {
        case.fan == 1
    }

    /// This many round trips over two queues, if that is to be compared.
    fn trips(&self, _count: u64) -> Option<Result<Trips>> {
        None
    }
}

/// The numbers that the one with this index, of so many, puts or takes.
pub fn share(count: u64, index: u64, of: u64) -> Range<u64> {
    count * index / of..count * (index + 1) / of
}
