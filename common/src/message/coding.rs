//! How a frame holds a message, and how much a message's fields may hold.

use bytes::Bytes;

use super::{Message, Outcome};
use crate::batch::{Batch, BatchError};
use crate::limits::{
    ACK_RANGES_MAX, CAUSE_BYTES_MAX, CLIENTS_SHOWN_MAX, FRAME_PREFIX_BYTES, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, PROTOCOL_VERSION,
};

/// A decoded frame: the message, and its batch where it has one.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What was said.
    pub message: Message,
    /// The checked batch of a `Put`, `Deliver`, `Result` or `DeadLetter`.
    pub batch: Option<Batch>,
}

/// Why a frame holds no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The other side speaks another version.
    #[error(
        "a greeting of protocol version {came}; this side speaks version {PROTOCOL_VERSION}: \
         use programs of one procq release"
    )]
    Version {
        /// The version that came.
        came: u64,
    },
    /// Not a message.
    #[error("a frame of {bytes} bytes that holds no message: {why}")]
    Invalid {
        /// The frame's length.
        bytes: usize,
        /// What the decoder says.
        why: String,
    },
    /// More bytes than the message has.
    #[error("{bytes} bytes behind a message that ends before them")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The batch is not what the message says.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A field is over its limit.
    #[error("{came} {field}; at most {max} are accepted")]
    Limit {
        /// Which.
        field: &'static str,
        /// Its size.
        came: usize,
        /// The most.
        max: usize,
    },
}

impl Message {
    /// Appends the frame of this message to `out`, its length counting `body_bytes` that the caller sends behind it.
    pub fn encode(&self, body_bytes: usize, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
        #[expect(clippy::expect_used, reason = "only types of unknown length cannot be encoded, and Message has none")]
        crate::payload::append(self, out).expect("every Message can be encoded");
        let bytes = (out.len() - at - FRAME_PREFIX_BYTES + body_bytes) as u32;
        out[at..at + FRAME_PREFIX_BYTES].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Decodes and checks a whole frame.
    pub fn decode(frame: Bytes) -> Result<Incoming, DecodeError> {
        refuse_other_version(&frame)?;
        let bytes = frame.len();
        let (message, rest) = postcard::take_from_bytes::<Message>(&frame[..bytes.min(MESSAGE_BYTES_MAX)])
            .map_err(|error| DecodeError::Invalid { bytes, why: error.to_string() })?;
        let message_bytes = bytes.min(MESSAGE_BYTES_MAX) - rest.len();
        message.check_limits()?;
        let batch = match &message {
            Message::Put { batch, .. }
            | Message::Deliver { batch, .. }
            | Message::Result { batch, .. }
            | Message::DeadLetter { batch, .. } => Some(Batch::check(*batch, frame.slice(message_bytes..))?),
            _ if message_bytes < bytes => return Err(DecodeError::Trailing { bytes: bytes - message_bytes }),
            _ => None,
        };
        Ok(Incoming { message, batch })
    }

    fn check_limits(&self) -> Result<(), DecodeError> {
        let (field, came, max) = match self {
            // Its number was written in more bytes than it needs, or refuse_other_version would have seen it.
            Message::Hello { version, .. } | Message::Welcome { version, .. } if *version != PROTOCOL_VERSION => {
                return Err(DecodeError::Version { came: u64::from(*version) });
            }
            Message::Hello { name, .. } => ("bytes of name", name.len(), NAME_BYTES_MAX),
            Message::Ack { ranges } => ("acknowledged ranges", ranges.len(), ACK_RANGES_MAX),
            Message::Revoke { ranges } => ("revoked ranges", ranges.len(), ACK_RANGES_MAX),
            Message::Clients { clients, .. } => ("clients", clients.len(), CLIENTS_SHOWN_MAX),
            Message::Return { outcome: Outcome::Failed { cause } | Outcome::Rejected { cause }, .. }
            | Message::DeadLetter { cause, .. } => ("bytes of cause", cause.len(), CAUSE_BYTES_MAX),
            _ => return Ok(()),
        };
        if came > max { Err(DecodeError::Limit { field, came, max }) } else { Ok(()) }
    }
}

/// Cuts a cause of failure to [`CAUSE_BYTES_MAX`], at a character.
pub fn cut_cause(mut cause: String) -> String {
    if cause.len() > CAUSE_BYTES_MAX {
        cause.truncate(cause.floor_char_boundary(CAUSE_BYTES_MAX - '…'.len_utf8()));
        cause.push('…');
    }
    cause
}

/// `Hello` and `Welcome` begin with their number and the version in every version: read just these before the rest.
fn refuse_other_version(frame: &[u8]) -> Result<(), DecodeError> {
    let Some((0 | 1, rest)) = frame.split_first() else { return Ok(()) };
    match postcard::take_from_bytes::<u64>(rest) {
        Ok((came, _)) if came != u64::from(PROTOCOL_VERSION) => Err(DecodeError::Version { came }),
        _ => Ok(()),
    }
}
