//! The messages between coordinator, producers and consumers, and how a frame holds one: a postcard-encoded [`Message`],
//! and behind a `Put`, `Deliver`, `Result` or `DeadLetter` the body of its batch. `PROTOCOL.md` tells when each is sent and how it is answered.
//!
//! postcard numbers variants by their order here: append, never reorder. `Hello`, `Welcome` and `Close` keep their numbers and
//! their first fields for ever, so that peers of different versions can tell each other so.

mod coding;

use std::fmt;

pub use coding::{DecodeError, Incoming, cut_cause};
use serde::{Deserialize, Serialize};

use crate::batch::BatchHeader;
use crate::status::{ClientStatus, Status};

/// An item's number: given by the coordinator in the order of acceptance, from 0 on, and kept through every redelivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId(pub u64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How many items of one producer came before: its items are numbered by it, from 0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Consecutive items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRange {
    /// The first.
    pub first: ItemId,
    /// How many; at least one.
    pub count: u32,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Puts items.
    Producer,
    /// Gets and settles items.
    Consumer,
    /// Asks and steers: `status`, `stop`.
    Control,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
            Role::Control => "control connection",
        })
    }
}

/// Why a connection is closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The peers speak different versions.
    Version,
    /// The client is done.
    Goodbye,
    /// Bytes that are no message, or a message that this role or this moment does not allow.
    Protocol,
    /// The queue takes no more puts, or ends.
    Ended,
    /// Another producer came under the same name.
    Replaced,
    /// The peer is not the user who runs the coordinator.
    Forbidden,
    /// Too many connections, or one that took too long to say `Hello`.
    Limit,
}

/// How an item's attempt ended other than by acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Given back before anyone began it: as if never delivered.
    Unstarted,
    /// Let go without a verdict; delivered again at once, as a failed attempt.
    Released,
    /// Failed; delivered again after the retry delay, or dead-lettered after the last attempt.
    Failed {
        /// What went wrong, for people.
        cause: String,
    },
    /// Will never succeed: dead-lettered at once.
    Rejected {
        /// What is wrong with it, for people.
        cause: String,
    },
    /// To be delivered again later; not a failed attempt.
    RetryAfter {
        /// Milliseconds until then.
        delay_ms: u64,
    },
}

/// Everything that is said over the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Client's first message.
    Hello {
        /// [`PROTOCOL_VERSION`](crate::limits::PROTOCOL_VERSION) of the client.
        version: u16,
        /// What the connection is for.
        role: Role,
        /// A producer's name, under which its position is kept; empty for none.
        name: String,
    },
    /// The answer to `Hello`.
    Welcome {
        /// [`PROTOCOL_VERSION`](crate::limits::PROTOCOL_VERSION) of the coordinator.
        version: u16,
        /// The coordinator's process id.
        pid: u32,
        /// The largest item accepted, in bytes.
        item_bytes_max: u64,
        /// Items accepted so far under this producer's name.
        position: Position,
        /// A consumer says `Begin` for deliveries of this attempt and later ones.
        announce_from: u32,
        /// To a producer whose `Put`s are to carry one: the checksum of the items accepted so far. See [`crate::checksum`].
        checksum: Option<u64>,
        /// To a consumer: after how many milliseconds an attempt is over, from its `Begin` on, if that is limited.
        lease_ms: Option<u64>,
    },
    /// The last message of a connection, from either side.
    Close {
        /// Why, for programs.
        reason: CloseReason,
        /// Why, and what to do, for people.
        words: String,
    },
    /// To a consumer: there is and will be nothing more. The queue's state, not an item: each consumer gets it.
    Stop,
    /// Items from a producer; their bodies follow. Needs credit.
    Put {
        /// The first item's number among this producer's.
        position: Position,
        /// The checksum of all of them up to the batch's end, if the coordinator keeps one; else 0.
        checksum: u64,
        /// The batch behind this message.
        batch: BatchHeader,
    },
    /// To a producer: how far its items are accepted, and what more it may send.
    Confirm {
        /// Items accepted so far, all in all.
        position: Position,
        /// More items that it may put.
        credit_items: u64,
        /// More bytes that it may put, counted by `limits::batch_cost_bytes`.
        credit_bytes: u64,
    },
    /// A producer waits for credit for its next item.
    Want {
        /// The credit in bytes that it needs, all in all, for a batch of just this item.
        bytes: u64,
    },
    /// A producer puts no more: its end of stream.
    Finish,
    /// The answer to `Finish`, which comes only once all its items are confirmed.
    Finished,
    /// Asks to be told when every item accepted so far is settled.
    Join,
    /// The answer to `Join`.
    Joined,
    /// A consumer asks for more: adds to what it may be sent.
    Demand {
        /// More items.
        items: u32,
        /// More bytes; one item is delivered even if larger.
        bytes: u64,
    },
    /// Items to a consumer; their bodies follow.
    Deliver {
        /// The first item; the others follow it.
        first: ItemId,
        /// Which delivery this is of these items, from 1 on.
        attempt: u32,
        /// The batch behind this message.
        batch: BatchHeader,
    },
    /// A client asks for nothing more for now: takes back its whole `Demand`, or its `Want`.
    Withdraw,
    /// The answer to `Withdraw`: all that was granted or delivered before is on its way ahead of this.
    Withdrawn,
    /// Items are done.
    Ack {
        /// Which, at most [`ACK_RANGES_MAX`](crate::limits::ACK_RANGES_MAX) ranges.
        ranges: Vec<ItemRange>,
    },
    /// Items are done, and this is what came out: one result each, behind this message.
    Result {
        /// The first item; the others follow it.
        first: ItemId,
        /// The batch of results behind this message.
        batch: BatchHeader,
    },
    /// Items are not done.
    Return {
        /// Which.
        range: ItemRange,
        /// Why, and what shall become of them.
        outcome: Outcome,
    },
    /// Asks for the queue's state.
    StatusRequest,
    /// The answer to `StatusRequest`.
    Status(Box<Status>),
    /// Asks the coordinator to end.
    Shutdown {
        /// At once, instead of when all items are settled.
        now: bool,
    },
    /// The answer to `Shutdown`: it has begun.
    ShuttingDown,
    /// A consumer begins to work on an item whose attempt is at least `Welcome`'s `announce_from`: if the consumer dies now, this
    /// attempt has failed, while what it merely had at hand is not to blame.
    Begin {
        /// Which.
        id: ItemId,
    },
    /// To a producer: others lack the room that its unused credit reserves. If it has put nothing beyond `position`, its credit is void,
    /// and it says `Recalled`; if it has, this comes too late and counts for nothing.
    Recall {
        /// What the coordinator has seen of its items when it said this.
        position: Position,
    },
    /// A producer has given its credit back.
    Recalled,
    /// To a consumer: it has held these for too long, and does not hold them any more. It gets nothing until it says `Revoked`.
    Revoke {
        /// Which, at most [`ACK_RANGES_MAX`](crate::limits::ACK_RANGES_MAX) ranges.
        ranges: Vec<ItemRange>,
    },
    /// A consumer has heard a `Revoke`: whatever it says of these items from now on is wrong.
    Revoked,
    /// A consumer needs more time for an item.
    Extend {
        /// Which.
        id: ItemId,
        /// Milliseconds from now on.
        by_ms: u64,
    },
    /// The answer to `Extend`: the time is granted, unless a `Revoke` of the item has come before this.
    Extended,
    /// Asks who is connected, and what each does.
    ClientsRequest {
        /// From which connection's number on.
        from: u64,
    },
    /// The answer to `ClientsRequest`.
    Clients {
        /// Clients in the order of their numbers, at most [`CLIENTS_SHOWN_MAX`](crate::limits::CLIENTS_SHOWN_MAX).
        clients: Vec<ClientStatus>,
        /// From where on there are more.
        more_from: Option<u64>,
    },
    /// Asks the queue to hand out nothing for now, or to go on.
    SetPaused {
        /// Nothing.
        paused: bool,
    },
    /// The answer to `SetPaused`.
    PausedSet {
        /// Nothing is handed out now. A queue that is about to end cannot be paused.
        paused: bool,
        /// That was not so before.
        changed: bool,
    },
    /// Asks for the dead letters of items `from..until`, or the first of them.
    DeadList {
        /// The lowest number.
        from: ItemId,
        /// The number behind the highest.
        until: ItemId,
    },
    /// A dead letter, whose item follows, on the way to a `DeadListed`.
    DeadLetter {
        /// Its item's number.
        id: ItemId,
        /// How often it was delivered.
        attempts: u32,
        /// What became of the last attempt.
        cause: String,
        /// The batch behind this message: one item.
        batch: BatchHeader,
    },
    /// The answer to `DeadList`, behind the letters.
    DeadListed {
        /// Where to go on, if there may be more.
        next: Option<ItemId>,
        /// Dead letters that are not kept here any more: they were written where dead letters go.
        unkept: u64,
    },
    /// Asks that the dead letters of items `from..until`, or the first of them, be put again or dropped.
    DeadRemove {
        /// The lowest number.
        from: ItemId,
        /// The number behind the highest.
        until: ItemId,
        /// What shall become of them.
        fate: DeadFate,
    },
    /// The answer to `DeadRemove`: with a journal, it is there for good.
    DeadRemoved {
        /// How many are no dead letters any more.
        count: u64,
        /// Where to go on, if there may be more; with an obstacle, the letter that could not be put again.
        next: Option<ItemId>,
        /// Why it did not get further.
        obstacle: Option<Obstacle>,
    },
    /// To a consumer that holds something: somebody waits for that to be settled. What it has settled, it had better say at once.
    Hurry,
}

/// What shall become of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadFate {
    /// Each is put again: a new item, with a number of its own.
    Requeue,
    /// They are forgotten.
    Drop,
}

/// Why a dead letter could not be put again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// The queue has no room for it now.
    Full,
    /// The queue hands out nothing any more.
    Ending,
}

impl Message {
    /// The message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello { .. } => "Hello",
            Message::Welcome { .. } => "Welcome",
            Message::Close { .. } => "Close",
            Message::Stop => "Stop",
            Message::Put { .. } => "Put",
            Message::Confirm { .. } => "Confirm",
            Message::Want { .. } => "Want",
            Message::Finish => "Finish",
            Message::Finished => "Finished",
            Message::Join => "Join",
            Message::Joined => "Joined",
            Message::Demand { .. } => "Demand",
            Message::Deliver { .. } => "Deliver",
            Message::Withdraw => "Withdraw",
            Message::Withdrawn => "Withdrawn",
            Message::Ack { .. } => "Ack",
            Message::Result { .. } => "Result",
            Message::Return { .. } => "Return",
            Message::StatusRequest => "StatusRequest",
            Message::Status(_) => "Status",
            Message::Shutdown { .. } => "Shutdown",
            Message::ShuttingDown => "ShuttingDown",
            Message::Begin { .. } => "Begin",
            Message::Recall { .. } => "Recall",
            Message::Recalled => "Recalled",
            Message::Revoke { .. } => "Revoke",
            Message::Revoked => "Revoked",
            Message::Extend { .. } => "Extend",
            Message::Extended => "Extended",
            Message::ClientsRequest { .. } => "ClientsRequest",
            Message::Clients { .. } => "Clients",
            Message::SetPaused { .. } => "SetPaused",
            Message::PausedSet { .. } => "PausedSet",
            Message::DeadList { .. } => "DeadList",
            Message::DeadLetter { .. } => "DeadLetter",
            Message::DeadListed { .. } => "DeadListed",
            Message::DeadRemove { .. } => "DeadRemove",
            Message::DeadRemoved { .. } => "DeadRemoved",
            Message::Hurry => "Hurry",
        }
    }
}

#[cfg(test)]
mod tests;
