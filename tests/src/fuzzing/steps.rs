//! What can happen to a queue, as a fuzzer makes it up: well-behaved clients most of the time, and any message from anyone.

use std::time::Duration;

use arbitrary::Arbitrary;
use common::backoff::Backoff;
use common::limits::batch_cost_bytes;
use common::message::Outcome;
use coordinator::queue::{Lease, Rules, Window};

/// A queue's rules, and what happens to it.
#[derive(Arbitrary, Debug)]
pub(super) struct Story<'a> {
    pub(super) bounds: Bounds,
    pub(super) steps: Vec<Step<'a>>,
}

/// Small bounds: it is at them that things happen.
#[derive(Arbitrary, Debug)]
pub(super) struct Bounds {
    items: u8,
    bytes: u16,
    item_bytes: u8,
    attempts: u8,
    retry_ms: u8,
    producers_expected: Option<u8>,
    /// The story begins with a producer that has put something, and consumers that hold it.
    pub(super) at_work: bool,
}

/// Where a client of this number stands is the same for all steps; several connect there one after another.
pub(super) type Slot = u8;

/// One thing that happens; `Say` is anything that a frame can hold.
#[derive(Arbitrary, Debug)]
pub(super) enum Step<'a> {
    Connect {
        slot: Slot,
        name: Option<u8>,
    },
    Leave {
        slot: Slot,
        orderly: bool,
    },
    Put {
        slot: Slot,
        items: u8,
        bytes: u16,
        unlike: bool,
    },
    Want {
        slot: Slot,
        bytes: u16,
    },
    Hear {
        slot: Slot,
    },
    Finish {
        slot: Slot,
    },
    Join {
        slot: Slot,
    },
    Withdraw {
        slot: Slot,
    },
    Demand {
        slot: Slot,
        items: u8,
        bytes: u16,
    },
    Begin {
        slot: Slot,
        which: u8,
    },
    Extend {
        slot: Slot,
        which: u8,
        ms: u16,
    },
    Revoked {
        slot: Slot,
    },
    /// What it says is not heard before so much time has passed.
    Unheard {
        slot: Slot,
        ms: u8,
    },
    /// Something is said of an item that was taken back.
    Late {
        slot: Slot,
        how: u8,
    },
    Ack {
        slot: Slot,
        which: u8,
        count: u8,
    },
    Result {
        slot: Slot,
        which: u8,
        count: u8,
    },
    Return {
        slot: Slot,
        which: u8,
        count: u8,
        how: How,
    },
    Say {
        slot: Slot,
        frame: &'a [u8],
    },
    Written {
        which: u8,
    },
    Pass {
        ms: u16,
    },
    Lost {
        name: u8,
    },
    Drain,
    Stop,
    /// The journal answers what was asked, or keeps so many entries.
    Keep {
        entries: u8,
    },
    /// The queue hears of it.
    Kept,
    /// The coordinator dies, if it has a journal, and another goes on.
    Die,
    Pause {
        paused: bool,
    },
    /// The control connection deals with dead letters.
    Dead {
        from: u8,
        count: u8,
        how: Dead,
    },
}

/// What it does with them.
#[derive(Arbitrary, Debug)]
pub(super) enum Dead {
    List,
    Requeue,
    Drop,
}

/// How an item comes back.
#[derive(Arbitrary, Debug)]
pub(super) enum How {
    Unstarted,
    Released,
    Failed,
    Rejected,
    RetryAfter { ms: u64 },
}

impl Bounds {
    /// The journal's window, tiny; one bit tells whether there is a journal.
    fn window(&self) -> Option<Window> {
        let near_bytes = [0, 100, 400, 2000][usize::from(self.items / 64)];
        let unwritten_bytes = u64::from(self.attempts / 4) * 50;
        (self.items & 32 == 0).then_some(Window { near_bytes, unwritten_bytes })
    }

    /// What two bits of the bytes' number say that it does not need. Mostly so short that whatever time passes is too long.
    fn lease(&self) -> Option<Lease> {
        let timeouts = [None, Some(1), Some(10), Some(3_000)];
        let lease = |ms| Lease { item_timeout: Duration::from_millis(ms), grace: Duration::from_millis(ms / 10) };
        timeouts[usize::from(self.bytes >> 12 & 3)].map(lease)
    }

    /// Two more.
    fn early_bytes_max(&self) -> Option<u64> {
        [None, None, Some(0), Some(600)][usize::from(self.bytes >> 14)]
    }

    pub(super) fn rules(&self) -> Rules {
        let item_bytes_max = [0, 3, 40, 200, 1000][usize::from(self.item_bytes % 5)];
        let min = Duration::from_millis(self.retry_ms.into());
        Rules {
            capacity_items: 1 + u64::from(self.items % 32),
            capacity_bytes: batch_cost_bytes(item_bytes_max + 4) + u64::from(self.bytes % 4096),
            item_bytes_max,
            attempts_max: 1 + u32::from(self.attempts % 4),
            retry_delay: Backoff { min, max: min * 3 },
            lease: self.lease(),
            early_bytes_max: self.early_bytes_max(),
            producers_expected: self.producers_expected.map(|expected| u64::from(expected % 4)),
            dead_letters_max: u64::from(self.items % 4),
            dead_bytes_max: u64::from(self.bytes),
            journaled: self.window(),
            shared: false,
        }
    }
}

impl How {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            How::Unstarted => Outcome::Unstarted,
            How::Released => Outcome::Released,
            How::Failed => Outcome::Failed { cause: "failed".into() },
            How::Rejected => Outcome::Rejected { cause: "rejected".into() },
            How::RetryAfter { ms } => Outcome::RetryAfter { delay_ms: *ms },
        }
    }
}
