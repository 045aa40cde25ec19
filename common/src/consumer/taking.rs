//! How the next item is taken: from what is here, in no time, or else waited for as long as the caller likes.

use std::time::Instant;

use super::claim::Claim;
use super::{Consumer, Delivery, Locked};
use crate::consumer_session::{ConsumerSession, Held};
use crate::driver::{Connection, State};
use crate::error::{Error, GetError};
use crate::message::{Outcome, cut_cause};
use crate::payload::{Decode, Undecodable};

/// How long a caller waits for an item.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    None,
    Until(Instant),
    Endless,
}

enum Prepared {
    /// There is one, unless another thread is faster.
    Item,
    /// There is and will be none.
    Stop,
    /// There was none in time.
    Nothing,
}

impl<T: Decode + ?Sized> Consumer<T> {
    pub(super) fn get_with(&self, patience: Patience) -> Result<Option<Delivery<'_, T>>, GetError> {
        self.take(patience, |error| *error)
    }

    /// Makes what is returned where it is returned: to move what was just written costs more than all the rest.
    #[inline(always)]
    pub(super) fn take<E>(&self, patience: Patience, refusal: impl Fn(Box<GetError>) -> E) -> Result<Option<Delivery<'_, T>>, E> {
        loop {
            if let Some(mut state) = self.connection.lock_as_owner() {
                if let Some(next) = state.session.next_quick() {
                    let held = next.held;
                    let decoded = T::decode(next.batch, next.index, next.share);
                    state.session.take_quick();
                    match decoded {
                        Ok(item) => {
                            // Ahead of what is made, not behind.
                            drop(state);
                            return Ok(Some(Delivery { claim: Claim { connection: &self.connection, held }, item }));
                        }
                        Err(why) => return Err(refusal(self.connection.give_back_undecodable(&mut state, held, why))),
                    }
                }
            } else if let Some(taken) = self.take_as_other() {
                return taken.map(Some).map_err(refusal);
            }
            match self.prepare(patience) {
                Ok(Prepared::Item) => {}
                Ok(Prepared::Stop) => return Ok(None),
                Ok(Prepared::Nothing) => return Err(refusal(Box::new(GetError::Empty))),
                Err(error) => return Err(refusal(error)),
            }
        }
    }

    /// For threads that share a consumer: likewise, with the ordinary lock.
    #[inline(never)]
    fn take_as_other(&self) -> Option<Result<Delivery<'_, T>, Box<GetError>>> {
        let mut state = self.connection.lock();
        let next = state.session.next_quick()?;
        let held = next.held;
        let decoded = T::decode(next.batch, next.index, next.share);
        state.session.take_quick();
        Some(match decoded {
            Ok(item) => Ok(Delivery { claim: Claim { connection: &self.connection, held }, item }),
            Err(why) => Err(self.connection.give_back_undecodable(&mut state, held, why)),
        })
    }

    /// Sees to it that an item can be taken.
    #[cold]
    fn prepare(&self, patience: Patience) -> Result<Prepared, Box<GetError>> {
        self.connection.prepare(patience).map_err(|error| Box::new(GetError::Other(error)))
    }
}

impl Connection<ConsumerSession> {
    fn prepare(&self, patience: Patience) -> Result<Prepared, Error> {
        let mut state = self.lock();
        if !state.session.has_local() && !state.session.is_stopped() {
            state = match patience {
                Patience::None => self.ask_once(state)?,
                Patience::Until(deadline) => self.wait_for_item(state, Some(deadline))?,
                Patience::Endless => self.wait_for_item(state, None)?,
            };
        }
        if state.session.has_local() {
            state.session.look_ahead(self.now());
            self.write(&mut state)?;
            self.arm(&mut state);
            return Ok(Prepared::Item);
        }
        Ok(match patience {
            _ if state.session.is_stopped() => Prepared::Stop,
            // Another thread was faster.
            Patience::Endless => Prepared::Item,
            Patience::None | Patience::Until(_) => Prepared::Nothing,
        })
    }

    /// Asks for an item, and waits until it is known whether the queue has one.
    fn ask_once<'a>(&'a self, state: Locked<'a>) -> Result<Locked<'a>, Error> {
        let now = self.now();
        // What goes back is the queue's again, and may be just what there is to get.
        let (mut state, waited) = self.wait_until(state, None, |session| session.may_demand().then_some(()));
        waited?;
        state.session.refill(now, true);
        // The answer to the withdrawal comes behind whatever the queue had to give.
        let number = state.session.withdraw();
        let answered = |session: &mut ConsumerSession| {
            let over = session.has_local() || session.is_stopped() || session.questions.is_withdrawn(number);
            over.then_some(())
        };
        state.session.begin_wait();
        let (mut state, waited) = self.wait_until(state, None, answered);
        state.session.end_wait(self.now(), self.now().saturating_sub(now));
        waited.map(|_| state)
    }

    /// Asks for an item and waits until there is one, or Stop, or the deadline comes.
    fn wait_for_item<'a>(&'a self, mut state: Locked<'a>, deadline: Option<Instant>) -> Result<Locked<'a>, Error> {
        let from = self.now();
        state.session.refill_to_wait(from);
        state.session.begin_wait();
        let news = |session: &mut ConsumerSession| {
            if session.has_local() || session.is_stopped() {
                return Some(());
            }
            session.keep_demanding();
            None
        };
        let (mut state, waited) = self.wait_until(state, deadline, news);
        let now = self.now();
        state.session.end_wait(now, now.saturating_sub(from));
        if waited?.is_none() {
            state.session.withdraw();
            self.write(&mut state)?;
        }
        self.arm(&mut state);
        Ok(state)
    }

    #[cold]
    fn give_back_undecodable(&self, state: &mut State<ConsumerSession>, held: Held, why: Undecodable) -> Box<GetError> {
        let why = why.to_string();
        let cause = format!("a consumer could not decode it: {why}");
        let given = state.session.give_back(held, Outcome::Failed { cause: cut_cause(cause) });
        let written = given.and_then(|()| self.write(state));
        self.arm(state);
        Box::new(written.err().unwrap_or(Error::Item { id: held.id, why }).into())
    }
}

#[cold]
pub(super) fn of_endless_patience(error: GetError) -> Error {
    match error {
        GetError::Other(error) => error,
        GetError::Empty => Error::Unexpected("end of a wait without deadline"),
    }
}
