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
    #[error("the coordinator is gone: {0}")]
    Gone(String),
    /// The coordinator closed the connection and said why.
    #[error("the coordinator closed the connection: {words}")]
    Closed {
        /// Why, for programs.
        reason: CloseReason,
        /// Why, for people.
        words: String,
    },
    /// The coordinator did not answer the greeting in time.
    #[error("the coordinator did not answer within {} s; is it stopped?", crate::limits::HANDSHAKE.as_secs())]
    Handshake,
    /// The coordinator sent bytes that are no frame.
    #[error("the coordinator does not speak this protocol")]
    Frame(#[from] FrameError),
    /// The coordinator sent a frame that is no message.
    #[error("the coordinator does not speak this protocol")]
    Decode(#[from] DecodeError),
    /// The coordinator sent a message that has no place here.
    #[error("the coordinator sent an unexpected {0}")]
    Unexpected(&'static str),
    /// An item is larger than the coordinator takes. Nothing was put.
    #[error("an item of {bytes} bytes; the coordinator takes at most {bytes_max} (--max-item)")]
    ItemTooLarge {
        /// The item's size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// An item could not be encoded. Nothing was put.
    #[error("the item cannot be encoded: {0}")]
    Encode(String),
    /// An item could not be decoded as the type that was asked for. It counts as a failed attempt of this item.
    #[error("item {id} cannot be decoded as this consumer's type: {why}")]
    Item {
        /// Which.
        id: crate::message::ItemId,
        /// What the decoder says.
        why: String,
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
    #[error("the queue is full")]
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
    #[error("the queue is empty")]
    Empty,
    /// Something else went wrong.
    #[error(transparent)]
    Other(#[from] Error),
}
