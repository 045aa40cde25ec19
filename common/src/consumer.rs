//! The client that gets.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crate::consumer_session::{ConsumerSession, Settled};
use crate::driver::{Connection, Greeting, State};
use crate::endpoint::Endpoint;
use crate::error::{Error, GetError};
use crate::limits::{DROP_FLUSH, result_bytes_max};
use crate::message::{ItemId, Outcome, Role, cut_cause};
use crate::payload::{Decode, Undecodable};
use crate::status::Status;

/// Gets items of type `T`; `Consumer<[u8]>` gets bytes as they are. Threads may share it, each with deliveries of its own.
///
/// When its connection closes, however it does, whatever it holds unsettled goes back to the head of the queue at once.
pub struct Consumer<T: Decode + ?Sized> {
    connection: Connection<ConsumerSession>,
    coordinator_pid: u32,
    item_bytes_max: u64,
    items: PhantomData<fn() -> T>,
}

impl<T: Decode + ?Sized> Consumer<T> {
    /// Connects. How many items are asked for ahead adapts to how long they take: long ones come one by one.
    pub fn connect(endpoint: &Endpoint) -> Result<Consumer<T>, Error> {
        Consumer::open(endpoint, None)
    }

    /// Connects, and always asks for `items` ahead of the one being worked on.
    pub fn connect_with_prefetch(endpoint: &Endpoint, items: u32) -> Result<Consumer<T>, Error> {
        Consumer::open(endpoint, Some(items))
    }

    /// Waits for the next item. `None`: Stop; there is and will be nothing more.
    #[inline(always)]
    pub fn get(&self) -> Result<Option<Delivery<'_, T>>, Error> {
        let mut state = self.connection.lock();
        match self.take_quick(&mut state) {
            Some((id, attempt, Ok(item))) => Ok(Some(Delivery { consumer: self, id, attempt, item, settled: false })),
            Some((id, _, Err(why))) => Err(self.give_back_undecodable(&mut state, id, why)),
            None => self.get_slowly(state),
        }
    }

    /// An item, if the queue has one now. `Ok(None)`: Stop.
    pub fn try_get(&self) -> Result<Option<Delivery<'_, T>>, GetError> {
        let mut state = self.connection.lock();
        if let Some(taken) = self.take(&mut state) {
            return Ok(Some(taken?));
        }
        let now = self.connection.now();
        state.session.refill(now, true);
        // The answer to the withdrawal comes behind whatever the queue had to give.
        let number = state.session.withdraw();
        let answered = |session: &mut ConsumerSession| {
            let over = session.has_local() || session.is_stopped() || session.questions.is_withdrawn(number);
            over.then_some(())
        };
        state.session.begin_wait();
        let (mut state, waited) = self.connection.wait_until(state, None, answered);
        state.session.end_wait(self.connection.now(), self.connection.now().saturating_sub(now));
        waited?;
        match self.take(&mut state) {
            Some(taken) => Ok(Some(taken?)),
            None if state.session.is_stopped() => Ok(None),
            None => Err(GetError::Empty),
        }
    }

    /// Waits for the next item for `wait` at most, the whole call included. `Ok(None)`: Stop.
    pub fn get_timeout(&self, wait: Duration) -> Result<Option<Delivery<'_, T>>, GetError> {
        if wait.is_zero() {
            return self.try_get();
        }
        // A wait beyond what the clock can express is one without end.
        let deadline = Instant::now().checked_add(wait);
        let mut state = self.connection.lock();
        loop {
            if let Some(taken) = self.take(&mut state) {
                return Ok(Some(taken?));
            }
            if state.session.is_stopped() {
                return Ok(None);
            }
            let (state_after, in_time) = self.wait(state, deadline)?;
            state = state_after;
            if !in_time {
                state.session.withdraw();
                self.connection.write(&mut state)?;
                self.connection.arm(&mut state);
                return Err(GetError::Empty);
            }
        }
    }

    /// Deliveries until Stop.
    pub fn iter(&self) -> impl Iterator<Item = Result<Delivery<'_, T>, Error>> {
        std::iter::from_fn(|| self.get().transpose())
    }

    /// Ends the getting, from any thread: what is not begun goes back, and every `get` gives `None` from now on. Deliveries in hand can
    /// still be settled.
    pub fn stop(&self) -> Result<(), Error> {
        let mut state = self.connection.lock();
        state.session.stop();
        let written = self.connection.write(&mut state);
        self.connection.arm(&mut state);
        written
    }

    /// Returns once every item that the queue has accepted so far is settled. What this consumer itself still holds keeps it waiting.
    pub fn join(&self) -> Result<(), Error> {
        let mut state = self.connection.lock();
        state.session.send_settled();
        let number = state.session.join();
        self.connection.wait_for(state, |session| session.questions.is_joined(number).then_some(()))
    }

    /// Items that wait in the queue to be delivered; those delayed for a retry count, those that consumers hold don't.
    pub fn len(&self) -> Result<u64, Error> {
        self.stats().map(|status| status.ready + status.delayed)
    }

    /// True when no item waits to be delivered.
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.len().map(|len| len == 0)
    }

    /// True when the queue takes no further item now.
    pub fn is_full(&self) -> Result<bool, Error> {
        self.stats().map(|status| status.is_full())
    }

    /// The queue's state, what this consumer has settled before included.
    pub fn stats(&self) -> Result<Status, Error> {
        let mut state = self.connection.lock();
        state.session.send_settled();
        let number = state.session.ask_status();
        self.connection.wait_for(state, |session| session.questions.status(number))
    }

    /// The largest result that the coordinator takes, in bytes: an item of the largest size and the end of its line.
    pub fn result_bytes_max(&self) -> u64 {
        result_bytes_max(self.item_bytes_max)
    }

    /// The coordinator's process id.
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator_pid
    }

    fn open(endpoint: &Endpoint, prefetch: Option<u32>) -> Result<Consumer<T>, Error> {
        let session = |greeting: Greeting| ConsumerSession::new(greeting.item_bytes_max, greeting.announce_from, prefetch);
        let (connection, greeting) = Connection::open(endpoint, Role::Consumer, "", session)?;
        let Greeting { pid: coordinator_pid, item_bytes_max, .. } = greeting;
        Ok(Consumer { connection, coordinator_pid, item_bytes_max, items: PhantomData })
    }

    #[cold]
    fn get_slowly<'a>(&'a self, mut state: MutexGuard<'a, State<ConsumerSession>>) -> Result<Option<Delivery<'a, T>>, Error> {
        loop {
            if let Some(taken) = self.take(&mut state) {
                return taken.map(Some);
            }
            if state.session.is_stopped() {
                return Ok(None);
            }
            state = self.wait(state, None)?.0;
        }
    }

    /// The next item at hand, if nothing else is to be done about it.
    #[inline]
    fn take_quick(&self, state: &mut State<ConsumerSession>) -> Option<(ItemId, u32, Result<T::Held, Undecodable>)> {
        state.session.take_quick(|id, attempt, batch, index| (id, attempt, T::decode(batch, index)))
    }

    fn take(&self, state: &mut State<ConsumerSession>) -> Option<Result<Delivery<'_, T>, Error>> {
        if state.session.has_local() {
            state.session.look_ahead(self.connection.now());
            let written = self.connection.write(state);
            self.connection.arm(state);
            if let Err(error) = written {
                return Some(Err(error));
            }
        }
        let (id, attempt, decoded) = self.take_quick(state)?;
        Some(match decoded {
            Ok(item) => Ok(Delivery { consumer: self, id, attempt, item, settled: false }),
            Err(why) => Err(self.give_back_undecodable(state, id, why)),
        })
    }

    #[cold]
    fn give_back_undecodable(&self, state: &mut State<ConsumerSession>, id: ItemId, why: Undecodable) -> Error {
        let why = why.to_string();
        let cause = format!("a consumer could not decode it: {why}");
        state.session.give_back(id, Outcome::Failed { cause: cut_cause(cause) });
        let written = self.connection.write(state);
        self.connection.arm(state);
        written.err().unwrap_or(Error::Item { id, why })
    }

    /// Asks for an item and waits until there is one, or Stop; false when the deadline came first.
    #[cold]
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<ConsumerSession>>,
        deadline: Option<Instant>,
    ) -> Result<(MutexGuard<'a, State<ConsumerSession>>, bool), Error> {
        let from = self.connection.now();
        state.session.refill(from, true);
        state.session.begin_wait();
        let news = |session: &mut ConsumerSession| {
            if session.has_local() || session.is_stopped() {
                return Some(());
            }
            session.keep_demanding();
            None
        };
        let (mut state, waited) = self.connection.wait_until(state, deadline, news);
        let now = self.connection.now();
        state.session.end_wait(now, now.saturating_sub(from));
        self.connection.arm(&mut state);
        Ok((state, waited?.is_some()))
    }
}

impl<T: Decode + ?Sized> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.connection.close(Instant::now() + DROP_FLUSH, |_| true);
    }
}

impl<T: Decode + ?Sized> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("coordinator_pid", &self.coordinator_pid).finish_non_exhaustive()
    }
}

/// The connection's descriptor, to wait for its end beside other things (`POLLHUP`). Reading from it would break the connection.
impl<T: Decode + ?Sized> AsFd for Consumer<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// One item at one consumer. Settle it by one of its methods; dropped unsettled it is released, and delivered again.
#[must_use = "a delivery that is dropped is released and comes again"]
pub struct Delivery<'c, T: Decode + ?Sized> {
    consumer: &'c Consumer<T>,
    id: ItemId,
    attempt: u32,
    item: T::Held,
    settled: bool,
}

impl<T: Decode + ?Sized> Delivery<'_, T> {
    /// The item.
    #[inline]
    pub fn item(&self) -> &T {
        self.item.borrow()
    }

    /// Its number, the same in every delivery.
    pub fn id(&self) -> ItemId {
        self.id
    }

    /// Which delivery of this item this is, from 1 on.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The item is done. The acknowledgement is on its way within a millisecond, whether or not another call follows.
    #[inline(always)]
    pub fn ack(mut self) -> Result<(), Error> {
        self.settled = true;
        let connection = &self.consumer.connection;
        let mut state = connection.lock();
        if state.session.ack_quick(self.id) { Ok(()) } else { self.ack_slowly(state) }
    }

    #[cold]
    fn ack_slowly(&self, mut state: MutexGuard<'_, State<ConsumerSession>>) -> Result<(), Error> {
        let connection = &self.consumer.connection;
        match state.session.ack(self.id, || connection.now()) {
            // Of every batch, only the first needs the background thread told, and only the last the socket.
            Settled::Gathered => return Ok(()),
            Settled::Gathering => {}
            Settled::Ready => connection.write(&mut state)?,
        }
        connection.arm(&mut state);
        Ok(())
    }

    /// The item is done, and this came out: the coordinator writes it to its results, once, before the item counts as done.
    pub fn ack_with(mut self, result: &[u8]) -> Result<(), Error> {
        self.settled = true;
        let connection = &self.consumer.connection;
        let mut state = connection.lock();
        let settled = state.session.ack_with(self.id, result, || connection.now());
        if !matches!(settled, Ok(Settled::Gathered | Settled::Gathering)) {
            connection.write(&mut state)?;
        }
        if !matches!(settled, Ok(Settled::Gathered)) {
            connection.arm(&mut state);
        }
        settled.map(|_| ())
    }

    /// This attempt failed: the item is delivered again after the retry delay, or dead-lettered with `cause` if it was the last.
    pub fn fail(self, cause: impl fmt::Display) -> Result<(), Error> {
        self.give_back(Outcome::Failed { cause: cut_cause(cause.to_string()) })
    }

    /// The item can never succeed: it is dead-lettered with `cause` at once.
    pub fn reject(self, cause: impl fmt::Display) -> Result<(), Error> {
        self.give_back(Outcome::Rejected { cause: cut_cause(cause.to_string()) })
    }

    /// The item shall be delivered again after `wait`; this does not count as a failed attempt.
    pub fn retry_after(self, wait: Duration) -> Result<(), Error> {
        let delay_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.give_back(Outcome::RetryAfter { delay_ms })
    }

    /// Gives the item back for another consumer, at once; a failed attempt all the same. What dropping does, with its error.
    pub fn release(self) -> Result<(), Error> {
        self.give_back(Outcome::Released)
    }

    /// Gives the item back as if it had not been delivered: nobody has begun it.
    pub fn give_back_unstarted(self) -> Result<(), Error> {
        self.give_back(Outcome::Unstarted)
    }

    fn give_back(mut self, outcome: Outcome) -> Result<(), Error> {
        self.settled = true;
        self.send_outcome(outcome)
    }

    fn send_outcome(&self, outcome: Outcome) -> Result<(), Error> {
        let connection = &self.consumer.connection;
        let mut state = connection.lock();
        state.session.give_back(self.id, outcome);
        let written = connection.write(&mut state);
        connection.arm(&mut state);
        written
    }
}

impl<T: Decode + ?Sized> Drop for Delivery<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if !self.settled {
            // If the connection is broken, the coordinator has released the item already.
            let _ = self.send_outcome(Outcome::Released);
        }
    }
}

impl<T: Decode + ?Sized> fmt::Debug for Delivery<'_, T>
where
    T::Held: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Delivery");
        shown.field("id", &self.id).field("attempt", &self.attempt).field("item", &self.item).finish_non_exhaustive()
    }
}
