//! What happens to the queue, and what is to be done about it.

use std::sync::Arc;

use bytes::Bytes;
use common::ItemId;
use common::backoff::Backoff;
use common::batch::Batch;
use common::message::{CloseReason, Message};

/// A connection's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// The bounds and rules of a queue.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The most items accepted and not settled.
    pub capacity_items: u64,
    /// The most bytes that they cost; at least what one item of `item_bytes_max` costs.
    pub capacity_bytes: u64,
    /// The largest item.
    pub item_bytes_max: u64,
    /// Failed attempts after which an item is dead-lettered.
    pub attempts_max: u32,
    /// The delay after a failed attempt.
    pub retry_delay: Backoff,
    /// How many producers must finish before the queue can be done; `None`: it is done only when it is told to drain.
    pub producers_expected: Option<u64>,
}

/// What happens to the queue.
#[derive(Clone, Debug)]
pub enum Input {
    /// A producer has connected, under a name or none.
    ProducerJoined {
        /// Its connection.
        client: ClientId,
        /// Its name.
        name: Option<String>,
    },
    /// A consumer has connected.
    ConsumerJoined {
        /// Its connection.
        client: ClientId,
    },
    /// A connection is closed.
    Left {
        /// Which.
        client: ClientId,
        /// It said goodbye: what it still held has crossed its goodbye, and was not begun.
        orderly: bool,
    },
    /// A client said something.
    Said {
        /// Which.
        client: ClientId,
        /// What.
        message: Message,
        /// The batch of a `Put` or `Result`.
        batch: Option<Batch>,
    },
    /// What [`Output::Write`] gave out is written.
    Written {
        /// Its ticket.
        ticket: Ticket,
    },
    /// A producer that is expected will never come again: it counts as finished.
    ProducerLost {
        /// Its name.
        name: String,
    },
    /// Take no more items; hand out what is there.
    Drain,
    /// Take and hand out nothing any more.
    Stop,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a message, and its batch.
    Send {
        /// To whom.
        client: ClientId,
        /// What.
        message: Message,
        /// The batch of a `Deliver`.
        batch: Option<Batch>,
    },
    /// Close a connection, which the queue has forgotten already.
    Close {
        /// Which.
        client: ClientId,
        /// Why, for programs.
        reason: CloseReason,
        /// Why, for people.
        words: String,
    },
    /// Write a record to the outside, then report [`Input::Written`]: only then do its items count as settled.
    Write {
        /// To be reported.
        ticket: Ticket,
        /// What to write.
        record: Record,
    },
}

/// What leaves the queue other than to a client.
#[derive(Clone, Debug)]
pub enum Record {
    /// Results of acknowledged items.
    Results(Batch),
    /// An item that is given up.
    DeadLetter(DeadLetter),
}

/// An item that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number.
    pub id: ItemId,
    /// How often it was delivered.
    pub attempts: u32,
    /// What became of the last attempt.
    pub cause: Arc<str>,
    /// The item.
    pub item: Bytes,
}

/// Names a [`Record`] that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);
