//! What can go wrong for a client.

use std::sync::Arc;

use crate::endpoint::EndpointError;
use crate::frame::FrameError;
use crate::message::{CloseReason, DecodeError};

/// Why a client's call failed. A connection that has failed answers every later call with the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no coordinator to talk to, or none that can be trusted.
    #[error(transparent)]
    Endpoint(Arc<EndpointError>),
    /// The connection broke off without a word: the coordinator died, or its machine is out of something.
    #[error("the coordinator is gone: {0}; what it said last tells why. Start it again; with --reconnect, clients go on by themselves")]
    Gone(String),
    /// The coordinator closed the connection and said why.
    #[error("the coordinator closed the connection: {words}{}", what_to_do(*reason))]
    Closed {
        /// Why, for programs.
        reason: CloseReason,
        /// Why, for people.
        words: String,
    },
    /// The coordinator did not answer the greeting in time.
    #[error("the coordinator did not answer within {} s; see whether it is stopped (`kill -CONT` lets it go on), or start another", crate::limits::HANDSHAKE.as_secs())]
    Handshake,
    /// The coordinator sent bytes that are no frame.
    #[error("the coordinator does not speak this protocol; use one release of procq on both sides, and the socket of its coordinator")]
    Frame(#[from] FrameError),
    /// The coordinator sent a frame that is no message.
    #[error("the coordinator does not speak this protocol; use one release of procq on both sides, and the socket of its coordinator")]
    Decode(#[from] DecodeError),
    /// The coordinator sent a message that has no place here.
    #[error("the coordinator sent an unexpected {0}; use one release of procq on both sides")]
    Unexpected(&'static str),
    /// An item is larger than the coordinator takes. Nothing was put.
    #[error("an item of {bytes} bytes; the coordinator takes at most {bytes_max}; raise its --max-item, or put a file's name instead")]
    ItemTooLarge {
        /// The item's size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// An item could not be encoded. Nothing was put.
    #[error("the item cannot be encoded: {0}; put a type that postcard takes, or bytes")]
    Encode(String),
    /// An item could not be decoded as the type that was asked for. It counts as a failed attempt of this item.
    #[error("item {id} cannot be decoded as this consumer's type: {why}; have producers and consumers use one type")]
    Item {
        /// Which.
        id: crate::message::ItemId,
        /// What the decoder says.
        why: String,
    },
    /// The item was taken back: its attempt took longer than the coordinator allows. It is delivered again, or a dead letter if that was its
    /// last attempt; whatever was still to be said of this delivery counts for nothing. The connection is as good as before.
    #[error(
        "item {id} was taken back from this consumer: its attempt took longer than {} (--item-timeout); \
         call extend() in time where an item may take longer", humantime::format_duration(*item_timeout)
    )]
    Expired {
        /// Which.
        id: crate::message::ItemId,
        /// How long an attempt may take.
        item_timeout: std::time::Duration,
    },
    /// The connection was lost, and the coordinator that is there now does not know all that was confirmed to this producer.
    #[error(
        "the coordinator came back without its journal: it had confirmed {confirmed} items of this producer's and knows of {position}. \
         It is another queue now; start it with the journal that it had, or put the items that are lost again"
    )]
    Forgotten {
        /// How many items it knows of.
        position: crate::message::Position,
        /// How many it had confirmed.
        confirmed: crate::message::Position,
    },
    /// The connection was lost, and under this producer's name the coordinator has items by now that it has not put.
    #[error(
        "the coordinator has {position} items under this producer's name, and they are not those that it has put: somebody else uses \
         the name, or the coordinator came back with another journal. Give each producer a name of its own"
    )]
    Foreign {
        /// How many items it has.
        position: crate::message::Position,
    },
    /// The producer has finished: nothing can be put any more.
    #[error("this producer has finished; connect another to put more")]
    Finished,
}

impl From<EndpointError> for Error {
    fn from(error: EndpointError) -> Error {
        Error::Endpoint(Arc::new(error))
    }
}

/// A socket that fails has lost its other side, whatever the system calls it.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Gone(error.to_string())
    }
}

/// Why an item was not put.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The queue is full. The item was not put.
    #[error("the queue is full; try again later, or wait for room")]
    Full,
    /// Something else went wrong.
    #[error(transparent)]
    Other(#[from] Error),
}

/// Why no item came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The queue has nothing to give now.
    #[error("the queue is empty; try again later, or wait for an item")]
    Empty,
    /// Something else went wrong.
    #[error(transparent)]
    Other(#[from] Error),
}

/// What a coordinator's words leave to be said: they are the same for all clients.
fn what_to_do(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Protocol => "; use one release of procq on both sides, or mend the client by PROTOCOL.md",
        CloseReason::Ended => "; start another coordinator to put more",
        CloseReason::Replaced => "; give each producer a name of its own",
        CloseReason::Forbidden => "; use a coordinator of your own",
        CloseReason::Version | CloseReason::Limit | CloseReason::Goodbye => "",
    }
}
