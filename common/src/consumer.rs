//! The client that gets.

mod claim;
mod delivery;
mod taking;

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub use delivery::Delivery;
use taking::{Patience, of_endless_patience};

use crate::biased::Guard;
use crate::consumer_session::ConsumerSession;
use crate::driver::{Connection, State};
use crate::endpoint::Endpoint;
use crate::error::{Error, GetError};
use crate::limits::{DROP_FLUSH, result_bytes_max};
use crate::message::Role;
use crate::payload::Decode;
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
