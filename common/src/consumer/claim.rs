//! Settling: what is said to the session for an item, and by whom it is written when.

use bytes::Bytes;

use super::Locked;
use crate::consumer_session::{ConsumerSession, Held, Settled};
use crate::driver::{Connection, State};
use crate::error::Error;
use crate::message::Outcome;

/// The duty to settle an item; it is released with the claim unless the claim is forgotten.
pub(super) struct Claim<'c> {
    pub(super) connection: &'c Connection<ConsumerSession>,
    pub(super) held: Held,
}

impl Claim<'_> {
    #[inline(always)]
    pub(super) fn ack(self, share: Option<Bytes>) -> Result<(), Box<Error>> {
        let (connection, held) = (self.connection, self.held);
        std::mem::forget(self);
        let Some(mut state) = connection.lock_as_owner() else { return connection.ack_as_other(held) };
        state.session.keep_share(share);
        if state.session.ack_quick(held) { Ok(()) } else { connection.ack_slowly(state.into(), held) }
    }

    pub(super) fn ack_with(self, result: &[u8]) -> Result<(), Error> {
        let (connection, held) = (self.connection, self.held);
        std::mem::forget(self);
        let mut state = connection.lock();
        connection.look_if_overdue(&mut state, held)?;
        let settled = state.session.ack_with(held, result, || connection.now());
        if !matches!(settled, Ok(Settled::Gathered | Settled::Gathering)) {
            connection.write(&mut state)?;
        }
        if !matches!(settled, Ok(Settled::Gathered)) {
            connection.arm(&mut state);
        }
        settled.map(|_| ())
    }

    pub(super) fn give_back(self, outcome: Outcome) -> Result<(), Error> {
        let given = self.connection.give_back(self.held, outcome);
        std::mem::forget(self);
        given
    }
}

impl Connection<ConsumerSession> {
    #[inline(never)]
    fn ack_as_other(&self, held: Held) -> Result<(), Box<Error>> {
        let mut state = self.lock();
        if state.session.ack_quick(held) { Ok(()) } else { self.ack_slowly(state, held) }
    }

    #[cold]
    fn ack_slowly(&self, mut state: Locked<'_>, held: Held) -> Result<(), Box<Error>> {
        self.look_if_overdue(&mut state, held)?;
        match state.session.ack(held, || self.now())? {
            // Of every batch, only the first needs the background thread told, and only the last the socket.
            Settled::Gathered => return Ok(()),
            Settled::Gathering => {}
            Settled::Ready => self.write(&mut state)?,
        }
        self.arm(&mut state);
        Ok(())
    }

    fn give_back(&self, held: Held, outcome: Outcome) -> Result<(), Error> {
        let mut state = self.lock();
        self.look_if_overdue(&mut state, held)?;
        state.session.give_back(held, outcome)?;
        let written = self.write(&mut state);
        self.arm(&mut state);
        written
    }

    /// What the coordinator says of an item whose time is over is to be known before the item is settled.
    pub(super) fn look_if_overdue(&self, state: &mut State<ConsumerSession>, held: Held) -> Result<(), Error> {
        if state.session.is_overdue(held, || self.now()) { self.read(state) } else { Ok(()) }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // If the connection is broken, the coordinator has released the item already.
        let _ = self.connection.give_back(self.held, Outcome::Released);
    }
}
