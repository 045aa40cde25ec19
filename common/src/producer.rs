//! The client that puts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::biased::Guard;
use crate::driver::{Connection, State};
use crate::endpoint::Endpoint;
use crate::error::{Error, PutError};
use crate::limits::DROP_FLUSH;
use crate::message::{Position, Role};
use crate::payload::Encode;
use crate::producer_session::{ProducerSession, Put};
use crate::session::Greeting;
use crate::status::Status;

/// Puts items of type `T` into the queue; `Producer<[u8]>` puts bytes as they are. Shared by threads, it keeps their order of calls.
///
/// An item put is on its way within a millisecond, whether or not another call follows; under load, calls share frames. Dropping a
/// producer waits up to [`DROP_FLUSH`] for what it has put to be confirmed; [`Producer::finish`] waits as long as it takes.
#[derive(Debug)]
pub struct Producer<T: ?Sized> {
    connection: Connection<ProducerSession>,
    /// By the coordinator that it first connected to.
    greeted: Greeting,
    items: PhantomData<fn(&T)>,
}

impl<T: Encode + ?Sized> Producer<T> {
    /// Connects without a name.
    ///
    /// ```
    /// use common::Producer;
    ///
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let numbers = Producer::<u32>::connect(&endpoint)?;
    /// let lines = Producer::<String>::connect(&endpoint)?;
    /// let bytes = Producer::<[u8]>::connect(&endpoint)?;
    /// bytes.put(b"as they are")?;
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn connect(endpoint: &Endpoint) -> Result<Producer<T>, Error> {
        Producer::connect_named(endpoint, "")
    }

    /// Connects under a name, of at most [`NAME_BYTES_MAX`](crate::limits::NAME_BYTES_MAX) bytes: the coordinator keeps the count
    /// of items accepted under it, so that one that comes again can go on at [`Producer::resumed_at`]. It replaces an older
    /// connection of the same name.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let first = Producer::<u32>::connect_named(&endpoint, "numbers")?;
    /// first.put_all(&[1, 2, 3])?;
    /// first.flush()?;
    /// drop(first); // as if it had been killed
    ///
    /// let second = Producer::<u32>::connect_named(&endpoint, "numbers")?;
    /// assert_eq!(second.resumed_at().0, 3); // go on with the fourth
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn connect_named(endpoint: &Endpoint, name: &str) -> Result<Producer<T>, Error> {
        let open = |name: &str, session: fn(Greeting) -> ProducerSession| Connection::open(endpoint, Role::Producer, name, session);
        let connection = match (endpoint.reconnect().is_zero(), name) {
            (true, "") => open("", ProducerSession::nameless)?,
            (true, _) => open(name, ProducerSession::new)?,
            (false, "") => open(&unique_name(), ProducerSession::resumable)?,
            (false, _) => open(name, ProducerSession::resumable)?,
        };
        let greeted = connection.lock().greeting;
        Ok(Producer { connection, greeted, items: PhantomData })
    }

    /// Puts an item; waits while the queue is full.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&7)?;
    /// # Ok::<(), common::Error>(())
    /// ```
    #[inline(always)]
    pub fn put(&self, item: &T) -> Result<(), Error> {
        let Some(mut state) = self.connection.lock_as_owner() else { return self.put_as_other(item) };
        match state.session.put(|out| item.encode(out), || self.connection.now()) {
            Ok(Put::Taken) => Ok(()),
            put => self.put_slowly(state.into(), item, put),
        }
    }

    /// Puts an item if the queue has room now.
    ///
    /// ```
    /// use common::PutError;
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&["--capacity", "1"]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.try_put(&1)?;
    /// assert!(matches!(producer.try_put(&2), Err(PutError::Full)));
    /// # Ok::<(), PutError>(())
    /// ```
    pub fn try_put(&self, item: &T) -> Result<(), PutError> {
        self.put_until(item, Wait::No)
    }

    /// Puts an item; waits for room for `wait` at most, the whole call included.
    ///
    /// ```
    /// use std::time::Duration;
    /// # use common::{Producer, PutError};
    /// # let queue = tests::LocalQueue::serve(&["--capacity", "1"]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&1)?;
    /// assert!(matches!(producer.put_timeout(&2, Duration::from_millis(10)), Err(PutError::Full)));
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn put_timeout(&self, item: &T, wait: Duration) -> Result<(), PutError> {
        // A wait beyond what the clock can express is one without end.
        let deadline = Instant::now().checked_add(wait).map_or(Wait::Forever, Wait::Until);
        self.put_until(item, if wait.is_zero() { Wait::No } else { deadline })
    }

    /// Puts all of an iterator's items; waits while the queue is full.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put_all(&[1, 2, 3])?;
    /// producer.put_all((4..100).collect::<Vec<_>>().iter())?;
    /// # assert_eq!(producer.len()?, 99);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn put_all<'a>(&self, items: impl IntoIterator<Item = &'a T>) -> Result<(), Error>
    where
        T: 'a,
    {
        items.into_iter().try_for_each(|item| self.put(item))
    }

    /// Returns once all that was put so far is confirmed: in the coordinator's hands, and on disk where it keeps a journal.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&7)?;
    /// producer.flush()?;
    /// assert_eq!(producer.confirmed().0, 1);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn flush(&self) -> Result<(), Error> {
        let mut state = self.connection.lock();
        let put = state.session.flush();
        self.connection.wait_for(state, |session| (session.confirmed() >= put).then_some(()))
    }

    /// Returns once every item that the queue has accepted so far, from anyone, is settled: acknowledged or dead-lettered.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # let worker = std::thread::spawn({
    /// #     let endpoint = endpoint.clone();
    /// #     move || {
    /// #         let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// #         consumer.get()?.map_or(Ok(()), |delivery| delivery.ack())
    /// #     }
    /// # });
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&7)?;
    /// producer.join()?; // a consumer has acknowledged it
    /// # worker.join().unwrap()?;
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn join(&self) -> Result<(), Error> {
        self.flush()?;
        let mut state = self.connection.lock();
        let number = state.session.join();
        self.connection.wait_for(state, |session| session.questions.is_joined(number).then_some(()))
    }

    /// Ends this producer's stream, after all that it has put is confirmed: the queue knows that nothing more comes from it.
    ///
    /// ```
    /// # use common::{Consumer, Producer};
    /// # let queue = tests::LocalQueue::serve(&["--expect-producers", "1"]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&7)?;
    /// producer.finish()?;
    ///
    /// // It was the only one that is expected (`--expect-producers 1`), so the queue ends once its items are settled.
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// consumer.get()?.expect("an item").ack()?;
    /// assert!(consumer.get()?.is_none());
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn finish(self) -> Result<(), Error> {
        self.flush()?;
        let mut state = self.connection.lock();
        state.session.finish();
        self.connection.wait_for(state, |session| session.is_finished().then_some(()))
    }

    /// Items that wait in the queue to be delivered; those delayed for a retry count, those that consumers hold don't.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put_all(&[1, 2, 3])?;
    /// assert_eq!(producer.len()?, 3);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn len(&self) -> Result<u64, Error> {
        self.stats().map(|status| status.ready + status.delayed)
    }

    /// True when no item waits to be delivered.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// assert!(producer.is_empty()?);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.len().map(|len| len == 0)
    }

    /// True when the queue takes no further item now.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&["--capacity", "1"]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&1)?;
    /// assert!(producer.is_full()?);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn is_full(&self) -> Result<bool, Error> {
        self.stats().map(|status| status.is_full())
    }

    /// The queue's state, all that this producer has put before included.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&7)?;
    /// let status = producer.stats()?;
    /// assert_eq!((status.accepted, status.ready, status.producers), (1, 1, 1));
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Status, Error> {
        let mut state = self.connection.lock();
        state.session.send_gathered();
        let number = state.session.ask_status();
        self.connection.wait_for(state, |session| session.questions.status(number))
    }

    /// How many items the coordinator had accepted under this producer's name before it connected: where to go on.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let items = [1, 2, 3];
    /// # Producer::<u32>::connect_named(&endpoint, "items")?.put(&1)?;
    /// let producer = Producer::<u32>::connect_named(&endpoint, "items")?;
    /// producer.put_all(&items[producer.resumed_at().0 as usize..])?;
    /// # assert_eq!(producer.len()?, 3);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn resumed_at(&self) -> Position {
        self.greeted.position
    }

    /// The [checksum](crate::checksum) of the items before [`Producer::resumed_at`], by which one that comes again knows that they are
    /// those that it would put. None from a coordinator without a journal.
    ///
    /// ```
    /// use common::checksum;
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let items: [&[u8]; 2] = [b"a", b"b"];
    /// let producer = Producer::<[u8]>::connect_named(&endpoint, "items")?;
    /// let put_before = &items[..producer.resumed_at().0 as usize];
    /// let sum = put_before.iter().fold(checksum::START, |sum, item| checksum::add(sum, item));
    /// assert!(producer.resumed_checksum().is_none_or(|there| there == sum), "other items than before");
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn resumed_checksum(&self) -> Option<u64> {
        self.greeted.checksum
    }

    /// How many items are confirmed, [`Producer::resumed_at`] included.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put_all(&[1, 2, 3])?;
    /// producer.flush()?;
    /// assert_eq!(producer.confirmed().0, 3);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn confirmed(&self) -> Position {
        self.connection.lock().session.confirmed()
    }

    /// The largest item that the coordinator takes, in bytes.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&["--max-item", "1KiB"]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<[u8]>::connect(&endpoint)?;
    /// assert_eq!(producer.item_bytes_max(), 1024);
    /// assert!(producer.put(&[0; 1025]).is_err());
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn item_bytes_max(&self) -> u64 {
        self.connection.lock().greeting.item_bytes_max
    }

    /// The coordinator's process id.
    ///
    /// ```
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// assert_eq!(producer.coordinator_pid(), std::process::id()); // of this example's, which is in this process
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn coordinator_pid(&self) -> u32 {
        self.connection.lock().greeting.pid
    }

    #[inline(never)]
    fn put_as_other(&self, item: &T) -> Result<(), Error> {
        let mut state = self.connection.lock();
        match state.session.put(|out| item.encode(out), || self.connection.now()) {
            Ok(Put::Taken) => Ok(()),
            put => self.put_slowly(state, item, put),
        }
    }

    #[cold]
    fn put_slowly<'a>(&'a self, state: Guard<'a, State<ProducerSession>>, item: &T, put: Result<Put, Error>) -> Result<(), Error> {
        match self.end_put(state, item, put, Wait::Forever) {
            Ok(()) => Ok(()),
            // Without a deadline there is no such thing as "still full".
            Err(PutError::Full) => Err(Error::Unexpected("refusal of a put that waits")),
            Err(PutError::Other(error)) => Err(error),
        }
    }

    fn put_until(&self, item: &T, wait: Wait) -> Result<(), PutError> {
        let mut state = self.connection.lock();
        // Credit may have been recalled meanwhile, for others that found the queue full.
        self.connection.read(&mut state)?;
        let put = state.session.put(|out| item.encode(out), || self.connection.now());
        self.end_put(state, item, put, wait)
    }

    /// Sees a put through that has come as far as `put`.
    fn end_put<'a>(
        &'a self,
        mut state: Guard<'a, State<ProducerSession>>,
        item: &T,
        mut put: Result<Put, Error>,
        wait: Wait,
    ) -> Result<(), PutError> {
        let connection = &self.connection;
        loop {
            match put? {
                Put::Taken => return Ok(()),
                gathered @ (Put::Gathering | Put::Ready) => {
                    // The confirmation of the batch before may have come unread.
                    if gathered == Put::Gathering || state.session.is_short_of_credit() {
                        connection.read(&mut state)?;
                    }
                    connection.write(&mut state)?;
                    if matches!(wait, Wait::Forever) && state.session.has_much_unsent() {
                        let sent = |session: &mut ProducerSession| (!session.has_much_unsent()).then_some(());
                        connection.wait_for(state, sent)?;
                    } else {
                        connection.arm(&mut state);
                    }
                    return Ok(());
                }
                Put::NoCredit => {
                    connection.read(&mut state)?;
                    if state.session.has_wanted() {
                        put = state.session.put(|out| item.encode(out), || connection.now());
                        continue;
                    }
                    state.session.want();
                    let no_wait = matches!(wait, Wait::No);
                    let withdrawal = no_wait.then(|| state.session.withdraw());
                    let deadline = if let Wait::Until(deadline) = wait { Some(deadline) } else { None };
                    let answered = |session: &mut ProducerSession| {
                        if session.has_wanted() {
                            return Some(true);
                        }
                        match withdrawal {
                            Some(number) => session.questions.is_withdrawn(number).then_some(false),
                            None => {
                                // Another thread may have taken the credit, or withdrawn the wish, which is this connection's.
                                session.want();
                                None
                            }
                        }
                    };
                    let (state_after, waited) = connection.wait_until(state, deadline, answered);
                    state = state_after;
                    if waited? != Some(true) {
                        if withdrawal.is_none() {
                            state.session.withdraw();
                            connection.write(&mut state)?;
                            connection.arm(&mut state);
                        }
                        return Err(PutError::Full);
                    }
                    put = state.session.put(|out| item.encode(out), || connection.now());
                }
            }
        }
    }
}

/// A name that no other producer has: under it, what is put again can be told from what was accepted.
fn unique_name() -> String {
    // Each is seeded by the system's randomness.
    let random = || RandomState::new().build_hasher().finish();
    format!("{}-{:016x}{:016x}", std::process::id(), random(), random())
}

#[derive(Clone, Copy)]
enum Wait {
    No,
    Until(Instant),
    Forever,
}

impl<T: ?Sized> Drop for Producer<T> {
    fn drop(&mut self) {
        self.connection.close(Instant::now() + DROP_FLUSH, |session| {
            session.send_gathered();
            session.is_confirmed()
        });
    }
}
