//! One item at one consumer, and the ways to settle it.

use std::borrow::Borrow;
use std::fmt;
use std::time::Duration;

use super::claim::Claim;
use crate::error::Error;
use crate::message::{ItemId, Outcome, cut_cause};
use crate::payload::Decode;

/// One item at one consumer. Settle it by one of its methods; dropped unsettled it is released, and delivered again.
#[must_use = "a delivery that is dropped is released and comes again"]
pub struct Delivery<'c, T: Decode + ?Sized> {
    pub(super) claim: Claim<'c>,
    pub(super) item: T::Held,
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
    /// ([`Consumer::item_timeout`](crate::Consumer::item_timeout)); to settle it is [`Error::Expired`] then.
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
    /// coordinator's answer, so that after `Ok` the item is this consumer's for that long. Without a limit
    /// ([`Consumer::item_timeout`](crate::Consumer::item_timeout)) it does nothing.
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

    /// Work on the item begins now: to be said by who said [`Consumer::begin_by_hand`](crate::Consumer::begin_by_hand), and by nobody else.
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
        let Delivery { claim, item } = self;
        claim.ack(T::share(item)).map_err(|error| *error)
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
