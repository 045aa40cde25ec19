//! What happens to the queue, and what is to be done about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::ItemId;
use common::backoff::Backoff;
use common::batch::Batch;
use common::message::{CloseReason, Message, Position};

use super::entry::{DeadPage, DeadRange, Entry, Load, Loaded, Progress};

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
    /// The delay after a failed attempt, which is spread over the items: see [`Backoff::spread`].
    pub retry_delay: Backoff,
    /// How long an attempt may take, if that is limited.
    pub lease: Option<Lease>,
    /// Set if results are written in the order of their items: so many bytes of results that wait, and of their items, before only
    /// the item that they wait for is handed out.
    pub early_bytes_max: Option<u64>,
    /// How many producers must finish before the queue can be done; `None`: it is done only when it is told to drain.
    pub producers_expected: Option<u64>,
    /// The most dead letters that are kept without a journal, besides the last one.
    pub dead_letters_max: u64,
    /// The most bytes that these cost.
    pub dead_bytes_max: u64,
    /// Set if nothing counts before it is in a journal, which also holds what memory does not.
    pub journaled: Option<Window>,
    /// The queue is shared with other machines: what is put here goes to servers, and what is handed out here comes from them. They take the
    /// journal's place, so never without [`Rules::journaled`]; and never with an order, which no machine knows.
    pub shared: bool,
}

/// How long an attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// From its beginning on, by its consumer's clock.
    pub item_timeout: Duration,
    /// The queue takes the item back so much later: an honest consumer reports by itself, and knows better what was wrong.
    pub grace: Duration,
}

/// How much of a queue that lies in a journal is in memory as well. One item of the largest size fits in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes of items near the head.
    pub near_bytes: u64,
    /// Bytes of items that are on their way to the journal, and of credit for such.
    pub unwritten_bytes: u64,
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
    /// A client said something, by now, that cannot be listened to yet: until it is, nothing is taken back from it.
    Unheard {
        /// Which.
        client: ClientId,
    },
    /// A control connection said something that steers the queue.
    Steered {
        /// Which.
        client: ClientId,
        /// What.
        message: Message,
    },
    /// What [`Output::Write`] gave out is written.
    Written {
        /// Its ticket.
        ticket: Ticket,
        /// How long the output file is with it, if it went there.
        output_bytes: Option<u64>,
    },
    /// So many more of the entries that [`Output::Journal`] gave out are in the journal for good, in the order of being given out.
    Journaled {
        /// How many.
        entries: usize,
    },
    /// The answer to [`Output::Load`].
    Loaded {
        /// Batches in order. An answer without any means that there are none.
        batches: Vec<Loaded>,
    },
    /// The answer to [`Output::LoadDead`].
    DeadLoaded(DeadPage),
    /// The next batch that [`Output::Publish`] gave out is at the servers.
    Published {
        /// The number behind its last item.
        until: u64,
    },
    /// Batches that [`Output::Want`] asked for have come, in any order.
    Arrived {
        /// Each as it is known at all machines.
        batches: Vec<Loaded>,
    },
    /// The answer to [`Output::Claim`].
    Claimed {
        /// How far the name has come, at whatever machine.
        by: Progress,
    },
    /// A name that was claimed here has a producer at another machine now.
    Replaced {
        /// Which.
        name: Arc<str>,
    },
    /// What is known of the whole shared queue.
    Whole(Whole),
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

/// A shared queue as a whole: what all machines have in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Items at the servers: what was reported as published is counted, what was reported as settled is not.
    pub items: u64,
    /// The bytes that they take.
    pub bytes: u64,
    /// All items before this number are settled.
    pub settled_until: u64,
    /// All items that were put by now have numbers below this.
    pub next_id: u64,
    /// Dead letters.
    pub dead: u64,
    /// Machines.
    pub machines: u64,
    /// Producers that they wait for, or have waited for.
    pub producers_expected: u64,
    /// Those that have finished.
    pub producers_finished: u64,
    /// There were producers, all have finished, and all is settled.
    pub is_done: bool,
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
        /// The batch of a `Deliver` or `DeadLetter`.
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
    /// Tell a producer that it is known, and how far it has come.
    Welcome {
        /// Its connection.
        client: ClientId,
        /// Items accepted under its name.
        position: Position,
        /// Their checksum, if the queue keeps one.
        checksum: Option<u64>,
    },
    /// Keep this in the journal, then report [`Input::Journaled`]: only then does it count. Never without [`Rules::journaled`].
    Journal(Entry),
    /// Get these from the journal, and report [`Input::Loaded`].
    Load(Load),
    /// Get the first of these from the journal, and report [`Input::DeadLoaded`]: with all that was reported as kept before.
    LoadDead(DeadRange),
    /// Give this to the servers that the queue is shared at, and report [`Input::Published`], in order.
    Publish {
        /// The items.
        batch: Batch,
        /// Where they come from.
        origin: Origin,
    },
    /// So many more batches are wanted from there, to be reported as [`Input::Arrived`].
    Want {
        /// Beyond those that are wanted already and have not come.
        batches: u32,
    },
    /// None is wanted any more. What is on its way may come all the same.
    WantNothing,
    /// Give a batch back to all machines: nothing of it is in anybody's hand here.
    Release {
        /// Its first item's number.
        first: u64,
        /// Nobody is to get it before this has passed.
        delay: Duration,
    },
    /// Find out how far a producer's name has come, and make it this machine's: [`Input::Claimed`].
    Claim {
        /// The name.
        name: Arc<str>,
    },
    /// Tell all machines of this one's producers.
    Announce {
        /// Those that it waits for, or has waited for.
        expected: u64,
        /// Those of them that have finished.
        finished: u64,
    },
    /// Find out how the whole queue is doing: [`Input::Whole`].
    Look,
}

/// Where items come from that go into a shared queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer with a name, which with them has come so far.
    Producer(Progress),
    /// A producer without.
    Nameless,
    /// A dead letter, by its number: it is put again.
    DeadLetter(ItemId),
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
