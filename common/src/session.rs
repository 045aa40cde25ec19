//! What both clients' sessions share: the driver's view of them, and the questions that either may ask.

use std::time::Duration;

use crate::error::Error;
use crate::message::{Incoming, Message};
use crate::outbox::Outbox;
use crate::status::Status;

/// A client's state of one connection, without I/O or clock: messages and times come in, bytes to send pile up in the outbox.
/// Times count from the connection's beginning.
pub(crate) trait Session: Send {
    /// Takes in a message.
    fn handle(&mut self, incoming: Incoming) -> Result<(), Error>;

    /// Bytes to send.
    fn outbox(&mut self) -> &mut Outbox;

    /// When [`Session::handle_timeout`] is due, whatever the caller does.
    fn next_timeout(&self) -> Option<Duration>;

    /// Does what has become due by `now`.
    fn handle_timeout(&mut self, now: Duration);

    /// Puts all that is pending into the outbox, and the last message behind it.
    fn goodbye(&mut self);
}

/// The questions that any client may ask, and their answers.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    joins: u32,
    withdrawals: u32,
    statuses: u32,
    status: Option<Box<Status>>,
}

impl Questions {
    pub(crate) fn join(&mut self, outbox: &mut Outbox) {
        self.joins += 1;
        outbox.push(&Message::Join);
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.joins == 0
    }

    pub(crate) fn withdraw(&mut self, outbox: &mut Outbox) {
        self.withdrawals += 1;
        outbox.push(&Message::Withdraw);
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawals == 0
    }

    pub(crate) fn ask_status(&mut self, outbox: &mut Outbox) {
        self.status = None;
        self.statuses += 1;
        outbox.push(&Message::StatusRequest);
    }

    /// The answer to the last question.
    pub(crate) fn take_status(&mut self) -> Option<Status> {
        if self.statuses > 0 {
            return None;
        }
        self.status.take().map(|status| *status)
    }

    /// Takes in an answer; gives back a message that is none, and errors on an answer nobody asked for.
    pub(crate) fn handle(&mut self, incoming: Incoming) -> Result<Option<Incoming>, Error> {
        let name = incoming.message.name();
        let open = match &incoming.message {
            Message::Joined => &mut self.joins,
            Message::Withdrawn => &mut self.withdrawals,
            Message::Status(_) => &mut self.statuses,
            Message::Close { reason, words } => return Err(Error::Closed { reason: *reason, words: words.clone() }),
            _ => return Ok(Some(incoming)),
        };
        *open = open.checked_sub(1).ok_or(Error::Unexpected(name))?;
        if let Message::Status(status) = incoming.message {
            self.status = Some(status);
        }
        Ok(None)
    }
}
