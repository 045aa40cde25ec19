//! The client that gets.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::biased::Guard;
use crate::consumer_session::{ConsumerSession, Held, Settled};
use crate::driver::{Connection, State};
use crate::endpoint::Endpoint;
use crate::error::{Error, GetError};
use crate::limits::{DROP_FLUSH, result_bytes_max};
use crate::message::{ItemId, Outcome, Role, cut_cause};
use crate::payload::{Decode, Undecodable};
use crate::status::Status;

type Locked<'a> = Guard<'a, State<ConsumerSession>>;

/// Gets items of type `T`; `Consumer<[u8]>` gets bytes as they are. Threads may share it, each with deliveries of its own.
///
/// When its connection closes, however it does, whatever it holds unsettled goes back to the head of the queue at once. One that may
/// connect again ([`Endpoint::with_reconnect`]) goes on with new deliveries then; to settle an old one is without effect.
pub struct Consumer<T: Decode + ?Sized> {
    connection: Connection<ConsumerSession>,
    items: PhantomData<fn() -> T>,
}

impl<T: Decode + ?Sized> Consumer<T> {
    /// Connects. How many items are asked for ahead adapts to how long they take: long ones come one by one.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let numbers = Consumer::<u32>::connect(&endpoint)?;
    /// let bytes = Consumer::<[u8]>::connect(&endpoint)?; // as they are, not copied
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn connect(endpoint: &Endpoint) -> Result<Consumer<T>, Error> {
        Consumer::open(endpoint, None)
    }

    /// Connects, and always asks for `items` ahead of the one being worked on.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect_with_prefetch(&endpoint, 0)?; // one item at a time
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn connect_with_prefetch(endpoint: &Endpoint, items: u32) -> Result<Consumer<T>, Error> {
        Consumer::open(endpoint, Some(items))
    }

    /// For one that takes several items before it begins the first: from now on, taking one does not count as beginning it, and
    /// [`Delivery::begin`] is to be called for each. If the process dies, only what it had begun is blamed for that.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # let producer = Producer::<u32>::connect(&endpoint)?;
    /// # producer.put_all(&[1, 2])?;
    /// # producer.flush()?;
    /// let consumer = Consumer::<u32>::connect_with_prefetch(&endpoint, 1)?.begin_by_hand();
    /// let (Some(first), Some(second)) = (consumer.get()?, consumer.get()?) else { return Ok(()) };
    /// first.begin()?;
    /// first.ack()?;
    /// second.begin()?;
    /// second.ack()?;
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn begin_by_hand(self) -> Consumer<T> {
        self.connection.lock().session.begin_by_hand();
        self
    }

    /// From which attempt on the coordinator wants to hear that an item is begun; see [`Consumer::begin_by_hand`].
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert_eq!(consumer.announce_from(), 2); // not at its first delivery
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn announce_from(&self) -> u32 {
        self.connection.lock().session.announce_from()
    }

    /// Waits for the next item. `None`: Stop; there is and will be nothing more.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&["--expect-producers", "1"]);
    /// # let endpoint = queue.endpoint();
    /// # let producer = Producer::<u32>::connect(&endpoint)?;
    /// # producer.put_all(&[1, 2, 3])?;
    /// # producer.finish()?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let mut sum = 0;
    /// while let Some(delivery) = consumer.get()? {
    ///     sum += delivery.item();
    ///     delivery.ack()?;
    /// }
    /// assert_eq!(sum, 6);
    /// # Ok::<(), common::Error>(())
    /// ```
    #[inline(always)]
    pub fn get(&self) -> Result<Option<Delivery<'_, T>>, Error> {
        self.take(Patience::Endless, |error| of_endless_patience(*error))
    }

    /// An item, if the queue has one now. `Ok(None)`: Stop.
    ///
    /// ```
    /// use common::GetError;
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert!(matches!(consumer.try_get(), Err(GetError::Empty)));
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn try_get(&self) -> Result<Option<Delivery<'_, T>>, GetError> {
        self.get_with(Patience::None)
    }

    /// Waits for the next item for `wait` at most, the whole call included. `Ok(None)`: Stop.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use common::GetError;
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert!(matches!(consumer.get_timeout(Duration::from_millis(10)), Err(GetError::Empty)));
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn get_timeout(&self, wait: Duration) -> Result<Option<Delivery<'_, T>>, GetError> {
        // A wait beyond what the clock can express is one without end.
        let patience = Instant::now().checked_add(wait).map_or(Patience::Endless, Patience::Until);
        self.get_with(if wait.is_zero() { Patience::None } else { patience })
    }

    /// Deliveries until Stop.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&["--expect-producers", "1"]);
    /// # let endpoint = queue.endpoint();
    /// # let producer = Producer::<u32>::connect(&endpoint)?;
    /// # producer.put_all(&[1, 2, 3])?;
    /// # producer.finish()?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// for delivery in consumer.iter() {
    ///     let delivery = delivery?;
    ///     println!("{}", delivery.item());
    ///     delivery.ack()?;
    /// }
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<Delivery<'_, T>, Error>> {
        std::iter::from_fn(|| self.get().transpose())
    }

    /// Ends the getting, from any thread: what is not begun goes back, and every `get` gives `None` from now on. Deliveries in hand can
    /// still be settled.
    ///
    /// ```
    /// use std::thread;
    ///
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// thread::scope(|scope| {
    ///     let worker = scope.spawn(|| consumer.get().map(|delivery| delivery.is_none()));
    ///     consumer.stop()?;
    ///     assert!(worker.join().expect("a worker")?);
    ///     Ok(())
    /// })
    /// # .map_err(|error: common::Error| error)?;
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn stop(&self) -> Result<(), Error> {
        let now = self.connection.now();
        let mut state = self.connection.lock();
        state.session.stop(now);
        let written = self.connection.write(&mut state);
        self.connection.arm(&mut state);
        // Without a connection there is no answer that would do it.
        self.connection.wake_waiters(&state);
        written
    }

    /// True once every `get` gives `None`: Stop has come, or [`Consumer::stop`] was called. Takes in what has come, without waiting; for
    /// who does not get now.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert!(!consumer.is_stopped()?);
    /// consumer.stop()?;
    /// assert!(consumer.is_stopped()?);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn is_stopped(&self) -> Result<bool, Error> {
        let mut state = self.connection.lock();
        self.connection.read(&mut state)?;
        self.connection.arm(&mut state);
        Ok(state.session.is_stopped())
    }

    /// Returns once every item that the queue has accepted so far is settled. What this consumer itself still holds keeps it waiting.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// consumer.get()?.expect("an item").ack()?;
    /// consumer.join()?; // all that the queue had is settled
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn join(&self) -> Result<(), Error> {
        let mut state = self.connection.lock();
        state.session.send_settled();
        let number = state.session.join();
        self.connection.wait_for(state, |session| session.questions.is_joined(number).then_some(()))
    }

    /// Items that wait in the queue to be delivered; those delayed for a retry count, those that consumers hold don't.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[1, 2, 3])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert_eq!(consumer.len()?, 3);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn len(&self) -> Result<u64, Error> {
        self.stats().map(|status| status.ready + status.delayed)
    }

    /// True when no item waits to be delivered.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert!(consumer.is_empty()?);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.len().map(|len| len == 0)
    }

    /// True when the queue takes no further item now.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert!(!consumer.is_full()?);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn is_full(&self) -> Result<bool, Error> {
        self.stats().map(|status| status.is_full())
    }

    /// The queue's state, what this consumer has settled before included.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// consumer.get()?.expect("an item").ack()?;
    /// assert_eq!(consumer.stats()?.acknowledged, 1);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Status, Error> {
        let mut state = self.connection.lock();
        state.session.send_settled();
        let number = state.session.ask_status();
        self.connection.wait_for(state, |session| session.questions.status(number))
    }

    /// The largest result that the coordinator takes, in bytes: an item of the largest size and the end of its line.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&["--max-item", "1KiB"]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert_eq!(consumer.result_bytes_max(), 1025);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn result_bytes_max(&self) -> u64 {
        result_bytes_max(self.connection.lock().greeting.item_bytes_max)
    }

    /// The descriptor of the connection that there is now, to wait for its end beside other things (`POLLHUP`); see also
    /// [`Delivery::is_held`]. Reading from it would break the connection.
    ///
    /// ```
    /// use std::os::fd::AsFd;
    ///
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let descriptor = consumer.descriptor();
    /// let to_be_polled = descriptor.as_fd(); // beside a child's pipes, say, for POLLHUP
    /// # let _ = to_be_polled;
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn descriptor(&self) -> impl AsFd + use<T> {
        self.connection.stream()
    }

    /// How long an attempt at an item may take (the coordinator's `--item-timeout`), if that is limited; see [`Delivery::extend`].
    ///
    /// ```
    /// # use common::Consumer;
    /// # use std::time::Duration;
    /// # let queue = tests::LocalQueue::serve(&["--item-timeout", "30s"]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?; // to a coordinator with `--item-timeout 30s`
    /// assert_eq!(consumer.item_timeout(), Some(Duration::from_secs(30)));
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn item_timeout(&self) -> Option<Duration> {
        self.connection.lock().greeting.lease
    }

    /// The coordinator's process id.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// assert_eq!(consumer.coordinator_pid(), std::process::id()); // of this example's, which is in this process
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn coordinator_pid(&self) -> u32 {
        self.connection.lock().greeting.pid
    }

    fn open(endpoint: &Endpoint, prefetch: Option<u32>) -> Result<Consumer<T>, Error> {
        let connection = Connection::open(endpoint, Role::Consumer, "", |greeting| ConsumerSession::new(greeting, prefetch))?;
        Ok(Consumer { connection, items: PhantomData })
    }

    fn get_with(&self, patience: Patience) -> Result<Option<Delivery<'_, T>>, GetError> {
        self.take(patience, |error| *error)
    }

    /// Makes what is returned where it is returned: to move what was just written costs more than all the rest.
    #[inline(always)]
    fn take<E>(&self, patience: Patience, refusal: impl Fn(Box<GetError>) -> E) -> Result<Option<Delivery<'_, T>>, E> {
        loop {
            if let Some(mut state) = self.connection.lock_as_owner() {
                if let Some(next) = state.session.next_quick() {
                    let held = next.held;
                    let decoded = T::decode(next.batch, next.index);
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
        let decoded = T::decode(next.batch, next.index);
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

#[cold]
fn of_endless_patience(error: GetError) -> Error {
    match error {
        GetError::Other(error) => error,
        GetError::Empty => Error::Unexpected("end of a wait without deadline"),
    }
}

/// How long a caller waits for an item.
#[derive(Clone, Copy)]
enum Patience {
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
        let (mut state, waited) = self.wait_until(state, None, |session| (!session.is_giving_back()).then_some(()));
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
        state.session.refill(from, true);
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

impl<T: Decode + ?Sized> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.connection.close(Instant::now() + DROP_FLUSH, |_| true);
    }
}

impl<T: Decode + ?Sized> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("coordinator_pid", &self.coordinator_pid()).finish_non_exhaustive()
    }
}

/// One item at one consumer. Settle it by one of its methods; dropped unsettled it is released, and delivered again.
#[must_use = "a delivery that is dropped is released and comes again"]
pub struct Delivery<'c, T: Decode + ?Sized> {
    claim: Claim<'c>,
    item: T::Held,
}

/// The duty to settle an item; it is released with the claim unless the claim is forgotten.
struct Claim<'c> {
    connection: &'c Connection<ConsumerSession>,
    held: Held,
}

impl<T: Decode + ?Sized> Delivery<'_, T> {
    /// The item.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<(u32, String)>::connect(&endpoint)?.put(&(7, "seven".into()))?;
    /// let consumer = Consumer::<(u32, String)>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// let (number, name) = delivery.item();
    /// # assert_eq!((*number, &name[..]), (7, "seven"));
    /// # Ok::<(), common::Error>(())
    /// ```
    #[inline]
    pub fn item(&self) -> &T {
        self.item.borrow()
    }

    /// Its number, the same in every delivery.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let first = consumer.get()?.expect("an item");
    /// let id = first.id();
    /// drop(first);
    /// assert_eq!(consumer.get()?.expect("the same again").id(), id);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn id(&self) -> ItemId {
        self.claim.held.id
    }

    /// False once the connection on which it came is known to be lost: the item is delivered again, maybe to another, and to settle this
    /// delivery is without effect, and no error. Also once the item is known to have been taken back because its time was over
    /// ([`Consumer::item_timeout`]); to settle it is [`Error::Expired`] then.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// assert!(delivery.is_held());
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn is_held(&self) -> bool {
        let Claim { connection, held } = self.claim;
        let mut state = connection.lock();
        let looked = connection.look_if_overdue(&mut state, held);
        looked.is_ok() && state.session.is_held(held) && state.session.check_lease(held).is_ok()
    }

    /// Asks for more time for this item: `by` from now on, should that be later than when its time is over anyway. Waits for the
    /// coordinator's answer, so that after `Ok` the item is this consumer's for that long. Without a limit ([`Consumer::item_timeout`]) it does nothing.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # use std::time::Duration;
    /// # let queue = tests::LocalQueue::serve(&["--item-timeout", "30s"]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// delivery.extend(Duration::from_secs(300))?; // this one takes longer than others
    /// delivery.ack()?;
    /// # Ok::<(), common::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Expired`] when the item was taken back before, [`Error::Gone`] when the connection on which it came was lost.
    pub fn extend(&self, by: Duration) -> Result<(), Error> {
        let Claim { connection, held, .. } = self.claim;
        let mut state = connection.lock();
        let Some(number) = state.session.extend(held, by, connection.now())? else { return Ok(()) };
        connection.wait_for(state, |session| {
            // On another connection, it is nobody's answer.
            session.questions.is_extended(number).then(|| match session.is_held(held) {
                true => session.check_lease(held),
                false => Err(Error::Gone(format!("the connection over which item {} came was lost", held.id))),
            })
        })?
    }

    /// Which delivery of this item this is, from 1 on.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// drop(consumer.get()?);
    /// assert_eq!(consumer.get()?.expect("the same again").attempt(), 2);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn attempt(&self) -> u32 {
        self.claim.held.attempt()
    }

    /// Work on the item begins now: to be said by who said [`Consumer::begin_by_hand`], and by nobody else.
    ///
    /// # Errors
    /// [`Error::Expired`] when the item was taken back before.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # let producer = Producer::<u32>::connect(&endpoint)?;
    /// # producer.put_all(&[1, 2])?;
    /// # producer.flush()?;
    /// let consumer = Consumer::<u32>::connect_with_prefetch(&endpoint, 1)?.begin_by_hand();
    /// let (Some(first), Some(second)) = (consumer.get()?, consumer.get()?) else { return Ok(()) };
    /// first.begin()?;
    /// first.ack()?;
    /// second.begin()?;
    /// second.ack()?;
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn begin(&self) -> Result<(), Error> {
        let Claim { connection, held } = self.claim;
        let mut state = connection.lock();
        connection.look_if_overdue(&mut state, held)?;
        state.session.begin(held, connection.now())?;
        let written = connection.write(&mut state);
        connection.arm(&mut state);
        written
    }

    /// The item is done. The acknowledgement is on its way within a millisecond, whether or not another call follows.
    ///
    /// # Errors
    /// [`Error::Expired`], here and wherever a delivery is settled, when the item was taken back because its time was over. (One that is
    /// taken back while the acknowledgement is on its way is not done either, and nobody hears of that.)
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// delivery.ack()?;
    /// # assert_eq!(consumer.stats()?.acknowledged, 1);
    /// # Ok::<(), common::Error>(())
    /// ```
    #[inline(always)]
    pub fn ack(self) -> Result<(), Error> {
        self.claim.ack().map_err(|error| *error)
    }

    /// The item is done, and this came out: the coordinator writes it to its results, once, before the item counts as done.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// let result = format!("{}\n", delivery.item() * 2);
    /// delivery.ack_with(result.as_bytes())?;
    /// consumer.join()?; // it is written: to the coordinator's stdout, or --output
    /// # assert_eq!(queue.results(), "14\n");
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn ack_with(self, result: &[u8]) -> Result<(), Error> {
        self.claim.ack_with(result)
    }

    /// This attempt failed: the item is delivered again after the retry delay, or dead-lettered with `cause` if it was the last.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&["--retry-delay", "1ms..1ms"]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// delivery.fail("the server is busy")?;
    /// assert_eq!(consumer.get()?.expect("the same after a while").attempt(), 2);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn fail(self, cause: impl fmt::Display) -> Result<(), Error> {
        self.claim.give_back(Outcome::Failed { cause: cut_cause(cause.to_string()) })
    }

    /// The item can never succeed: it is dead-lettered with `cause` at once.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// delivery.reject("there is no such page")?;
    /// consumer.join()?; // it is in the dead letters
    /// # assert!(queue.dead_letters().contains("no such page"));
    /// # assert_eq!(consumer.stats()?.dead, 1);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn reject(self, cause: impl fmt::Display) -> Result<(), Error> {
        self.claim.give_back(Outcome::Rejected { cause: cut_cause(cause.to_string()) })
    }

    /// The item shall be delivered again after `wait`; this does not count as a failed attempt.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// delivery.retry_after(Duration::from_millis(10))?;
    /// assert_eq!(consumer.stats()?.delayed, 1);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn retry_after(self, wait: Duration) -> Result<(), Error> {
        let delay_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.claim.give_back(Outcome::RetryAfter { delay_ms })
    }

    /// Gives the item back for another consumer, at once; a failed attempt all the same. What dropping does, with its error.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// delivery.release()?;
    /// assert_eq!(consumer.get()?.expect("the same again").attempt(), 2);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn release(self) -> Result<(), Error> {
        self.claim.give_back(Outcome::Released)
    }

    /// Gives the item back as if it had not been delivered: nobody has begun it.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// let delivery = consumer.get()?.expect("an item");
    /// delivery.give_back_unstarted()?;
    /// assert_eq!(consumer.get()?.expect("the same again").attempt(), 1);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn give_back_unstarted(self) -> Result<(), Error> {
        self.claim.give_back(Outcome::Unstarted)
    }
}

impl Claim<'_> {
    #[inline(always)]
    fn ack(self) -> Result<(), Box<Error>> {
        let (connection, held) = (self.connection, self.held);
        std::mem::forget(self);
        let Some(mut state) = connection.lock_as_owner() else { return connection.ack_as_other(held) };
        if state.session.ack_quick(held) { Ok(()) } else { connection.ack_slowly(state.into(), held) }
    }

    fn ack_with(self, result: &[u8]) -> Result<(), Error> {
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

    fn give_back(self, outcome: Outcome) -> Result<(), Error> {
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
    fn look_if_overdue(&self, state: &mut State<ConsumerSession>, held: Held) -> Result<(), Error> {
        if state.session.is_overdue(held, || self.now()) { self.read(state) } else { Ok(()) }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // If the connection is broken, the coordinator has released the item already.
        let _ = self.connection.give_back(self.held, Outcome::Released);
    }
}

impl<T: Decode + ?Sized> fmt::Debug for Delivery<'_, T>
where
    T::Held: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Delivery");
        shown
            .field("id", &self.claim.held.id)
            .field("attempt", &self.claim.held.attempt())
            .field("item", &self.item)
            .finish_non_exhaustive()
    }
}
