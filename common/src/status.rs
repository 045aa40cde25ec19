//! The queue's state as `status` and the clients' `stats` show it, and that of each client.

use serde::{Deserialize, Serialize};

use crate::message::{ItemId, Role};

/// A moment of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The coordinator's process id.
    pub pid: u32,
    /// Milliseconds since it began.
    pub uptime_ms: u64,
    /// What the queue does.
    pub phase: Phase,
    /// Items that wait to be delivered; of a shared queue all that this coordinator does not have in hand, at whatever machine.
    pub ready: u64,
    /// Items that wait for their retry delay to pass.
    pub delayed: u64,
    /// Items that consumers hold, or whose results or dead letters are being written or wait for that.
    pub held: u64,
    /// Items in the dead letters now.
    pub dead: u64,
    /// Items acknowledged so far.
    pub acknowledged: u64,
    /// Items accepted so far.
    pub accepted: u64,
    /// Deliveries so far beyond each item's first.
    pub redelivered: u64,
    /// Bytes that the items take of `capacity_bytes`.
    pub bytes: u64,
    /// The most items that the queue holds.
    pub capacity_items: u64,
    /// The most bytes that the queue holds.
    pub capacity_bytes: u64,
    /// Connected producers.
    pub producers: u64,
    /// Producers that have finished.
    pub producers_finished: u64,
    /// Producers that wait for room.
    pub producers_waiting: u64,
    /// Connected consumers.
    pub consumers: u64,
    /// Consumers that wait for items.
    pub consumers_waiting: u64,
    /// It is paused: it hands out nothing for now.
    pub paused: bool,
    /// Items that were dead letters and are none any more: put again, under a number of their own, or dropped.
    pub dead_removed: u64,
    /// The whole queue, if it is shared with other machines; the figures above are then this one's, but for what is ready, the
    /// capacity and the dead letters.
    pub shared: Option<SharedStatus>,
}

/// A queue that many machines share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStatus {
    /// Items in it that are accepted and not settled, at whatever machine.
    pub items: u64,
    /// All items that were put by now have numbers below this.
    pub next_id: u64,
    /// Machines that take part.
    pub machines: u64,
    /// Producers that they wait for, or have waited for.
    pub producers_expected: u64,
    /// Those of them that have finished.
    pub producers_finished: u64,
}

impl Status {
    /// Items that count against the capacity: all that are accepted and not settled.
    pub fn stored(&self) -> u64 {
        self.shared.map_or(self.ready + self.delayed + self.held, |shared| shared.items)
    }

    /// Items that were accepted and count against nothing any more: done, or dead letters, also such as were put again or dropped since.
    pub fn settled(&self) -> u64 {
        self.acknowledged + self.dead + self.dead_removed
    }

    /// True when the queue takes no further item.
    pub fn is_full(&self) -> bool {
        self.stored() >= self.capacity_items || self.bytes >= self.capacity_bytes
    }
}

/// What the queue as a whole is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Takes and hands out items.
    #[default]
    Running,
    /// Takes no more items; hands out what it has.
    Draining,
    /// Neither takes nor hands out; waits for what consumers hold.
    Stopping,
    /// All is settled: every consumer gets `Stop`.
    Done,
}

/// A client, and what it is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its connection's number: given in the order of coming, never used again.
    pub number: u64,
    /// Its process id, where the system tells.
    pub pid: Option<u32>,
    /// Milliseconds since it connected.
    pub connected_ms: u64,
    /// What it does.
    pub work: Work,
}

/// What a client does, by its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// A producer.
    Producer {
        /// The name under which its position is kept; empty for none.
        name: String,
        /// Items accepted of it, those of earlier connections under its name included.
        accepted: u64,
        /// Items that it has sent and that wait for room.
        parked: u64,
        /// It waits for room.
        waiting: bool,
        /// It puts no more.
        finished: bool,
    },
    /// A consumer.
    Consumer {
        /// Items that it holds.
        held: u64,
        /// What it is working on, as far as can be seen: the first item that it has announced, else the first that it holds.
        at_hand: Option<AtHand>,
        /// It waits for items.
        waiting: bool,
        /// Items that it has acknowledged.
        done: u64,
        /// Attempts of its that it has reported as failed.
        failed: u64,
    },
    /// A control connection.
    Control,
}

impl Work {
    /// Whose work this is.
    pub fn role(&self) -> Role {
        match self {
            Work::Producer { .. } => Role::Producer,
            Work::Consumer { .. } => Role::Consumer,
            Work::Control => Role::Control,
        }
    }
}

/// The item that a consumer has at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtHand {
    /// Which.
    pub id: ItemId,
    /// Which delivery of it this is, from 1 on.
    pub attempt: u32,
    /// Milliseconds since its consumer last got something into empty hands, announced an item, or settled one.
    pub for_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_what_is_done_or_given_up_whatever_became_of_that_since() {
        let status = Status { acknowledged: 20, dead: 3, dead_removed: 100, ready: 7, ..Status::default() };
        assert_eq!(status.settled(), 123);
    }

    #[test]
    fn a_queue_is_full_once_either_bound_is_reached_by_what_is_not_settled() {
        let status =
            |ready, delayed, held, bytes| Status { ready, delayed, held, bytes, capacity_items: 9, capacity_bytes: 5, ..Status::default() };
        assert_eq!(status(2, 3, 4, 0).stored(), 9);
        assert!(status(2, 3, 4, 0).is_full() && status(0, 0, 0, 5).is_full());
        assert!(!status(2, 3, 3, 4).is_full());
    }
}
