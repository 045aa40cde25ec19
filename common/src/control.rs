//! The client that asks and steers: what `coordinator status`, `top`, `stop`, `pause`, `resume` and `dead` use.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::driver::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::limits::DROP_FLUSH;
use crate::message::{CloseReason, DeadFate, Incoming, ItemId, Message, Obstacle, Role};
use crate::outbox::Outbox;
use crate::session::{Greeting, Question, Questions, Session};
use crate::status::{ClientStatus, Status};

/// A connection that neither puts nor gets.
#[derive(Debug)]
pub struct Control {
    connection: Connection<ControlSession>,
    /// Whose turn it is, where answers tell what the question has changed; also, the coordinator deals with one about dead letters at a time.
    turn: Mutex<()>,
}

/// Whether a queue is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseState {
    /// It hands out nothing for now.
    pub paused: bool,
    /// That was not so before.
    pub changed: bool,
}

/// An item that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number.
    pub id: ItemId,
    /// How often it was delivered.
    pub attempts: u32,
    /// What became of the last attempt.
    pub cause: String,
    /// The item.
    pub item: Bytes,
}

/// Some dead letters, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Where to go on, if there may be more.
    pub next: Option<ItemId>,
    /// Dead letters that the coordinator has let go of, to bound its memory: they were written where dead letters go.
    pub unkept: u64,
}

/// What became of dead letters that were to be put again or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadRemoval {
    /// How many are no dead letters any more.
    pub count: u64,
    /// Where to go on, if there may be more; with an obstacle, the letter that could not be put again.
    pub next: Option<ItemId>,
    /// Why it did not get further.
    pub obstacle: Option<Obstacle>,
}

impl Control {
    /// Connects.
    ///
    /// ```
    /// use common::Control;
    ///
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let control = Control::connect(&endpoint)?;
    /// println!("{} items wait", control.status()?.ready);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn connect(endpoint: &Endpoint) -> Result<Control, Error> {
        let endpoint = endpoint.clone().with_reconnect(Duration::ZERO);
        let connection = Connection::open(&endpoint, Role::Control, "", |_| ControlSession::default())?;
        Ok(Control { connection, turn: Mutex::default() })
    }

    /// The queue's state.
    ///
    /// ```
    /// # use common::Control;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let control = Control::connect(&endpoint)?;
    /// let status = control.status()?;
    /// assert_eq!((status.accepted, status.stored(), status.is_full()), (0, 0, false));
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn status(&self) -> Result<Status, Error> {
        self.ask(|session| session.questions.ask_status(&mut session.outbox), |session, number| session.questions.status(number))
    }

    /// Who is connected, in the order of coming, this connection included.
    ///
    /// ```
    /// # use common::Control;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let control = Control::connect(&endpoint)?;
    /// let clients = control.clients()?;
    /// assert_eq!(clients[0].pid, Some(std::process::id())); // this connection's
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn clients(&self) -> Result<Vec<ClientStatus>, Error> {
        let mut all = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let part = self.ask(|session| session.ask_clients(from), |session, number| session.answers.remove(&number))?;
            all.extend(part.clients);
            // It only goes forward: an end is reached, whoever answers.
            next = part.more_from.filter(|more_from| *more_from > from);
        }
        Ok(all)
    }

    /// Asks the coordinator to end: once all items are settled, or at once (`now`). Returns when it has begun to.
    ///
    /// ```
    /// # use common::{Consumer, Control, Producer};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// # Producer::<u32>::connect(&endpoint)?.put_all(&[7])?;
    /// let control = Control::connect(&endpoint)?;
    /// control.stop(false)?; // no more puts; what is there is handed out
    ///
    /// let consumer = Consumer::<u32>::connect(&endpoint)?;
    /// consumer.get()?.expect("the item that was there").ack()?;
    /// assert!(consumer.get()?.is_none());
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn stop(&self, now: bool) -> Result<(), Error> {
        self.ask(|session| session.ask_shutdown(now), |session, number| session.shutdowns.is_answered(number).then_some(()))
    }

    /// Asks the queue to hand out nothing for now: what consumers hold goes on, and puts are taken until it is full.
    ///
    /// ```
    /// # use common::Control;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// let control = Control::connect(&queue.endpoint())?;
    /// assert!(control.pause()?.changed);
    /// assert!(control.status()?.paused);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn pause(&self) -> Result<PauseState, Error> {
        self.set_paused(true)
    }

    /// Asks the queue to go on.
    ///
    /// ```
    /// # use common::Control;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// let control = Control::connect(&queue.endpoint())?;
    /// assert!(!control.resume()?.changed); // it was not paused
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn resume(&self) -> Result<PauseState, Error> {
        self.set_paused(false)
    }

    /// The first dead letters of items with numbers in `range`: up to
    /// [`DEAD_PAGE_LETTERS_MAX`](crate::limits::DEAD_PAGE_LETTERS_MAX), or so many as bring
    /// [`DEAD_PAGE_BYTES_MAX`](crate::limits::DEAD_PAGE_BYTES_MAX).
    ///
    /// ```
    /// # use common::{Control, ItemId};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// let control = Control::connect(&queue.endpoint())?;
    /// let page = control.dead_letters(ItemId(0)..ItemId(u64::MAX))?;
    /// assert!(page.letters.is_empty() && page.next.is_none());
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn dead_letters(&self, range: Range<ItemId>) -> Result<DeadPage, Error> {
        self.ask_of_dead(Message::DeadList { from: range.start, until: range.end }, |answer| match answer {
            DeadAnswer::Listed(page) => Some(page),
            DeadAnswer::Removed(_) => None,
        })
    }

    /// Puts the first dead letters of items with numbers in `range` again, likewise so many at once: each becomes a new item with a number of
    /// its own and all its attempts before it. They need room as any item does.
    ///
    /// ```
    /// # use common::{Control, ItemId};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// let control = Control::connect(&queue.endpoint())?;
    /// let done = control.requeue_dead(ItemId(0)..ItemId(u64::MAX))?;
    /// assert_eq!((done.count, done.obstacle), (0, None));
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn requeue_dead(&self, range: Range<ItemId>) -> Result<DeadRemoval, Error> {
        self.remove_dead(range, DeadFate::Requeue)
    }

    /// Forgets the first dead letters of items with numbers in `range`, likewise so many at once. A range from 0 on that ends behind those
    /// that the coordinator has let go of counts them, too.
    ///
    /// ```
    /// # use common::{Control, ItemId};
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// let control = Control::connect(&queue.endpoint())?;
    /// assert_eq!(control.drop_dead(ItemId(0)..ItemId(u64::MAX))?.count, 0);
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn drop_dead(&self, range: Range<ItemId>) -> Result<DeadRemoval, Error> {
        self.remove_dead(range, DeadFate::Drop)
    }

    /// Waits until the coordinator is gone.
    ///
    /// ```
    /// # use common::Control;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let control = Control::connect(&endpoint)?;
    /// control.stop(true)?;
    /// control.wait_for_end();
    /// assert!(Control::connect(&endpoint).is_err());
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn wait_for_end(&self) {
        let never = |_: &mut ControlSession| None::<()>;
        // The wait ends by the connection's end, which is what is waited for.
        let _ = self.connection.wait_for(self.connection.lock(), never);
    }

    /// The coordinator's process id.
    ///
    /// ```
    /// # use common::Control;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let control = Control::connect(&endpoint)?;
    /// assert_eq!(control.coordinator_pid(), std::process::id()); // of this example's, which is in this process
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn coordinator_pid(&self) -> u32 {
        self.connection.lock().greeting.pid
    }

    fn take_turn(&self) -> MutexGuard<'_, ()> {
        // Nothing is behind it that a panic could have left half done.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_paused(&self, paused: bool) -> Result<PauseState, Error> {
        let _turn = self.take_turn();
        self.ask(
            |session| session.ask_paused(paused),
            |session, number| session.pauses.is_answered(number).then_some(session.pause_state).flatten(),
        )
    }

    fn remove_dead(&self, range: Range<ItemId>, fate: DeadFate) -> Result<DeadRemoval, Error> {
        self.ask_of_dead(Message::DeadRemove { from: range.start, until: range.end, fate }, |answer| match answer {
            DeadAnswer::Removed(removal) => Some(removal),
            DeadAnswer::Listed(_) => None,
        })
    }

    fn ask_of_dead<R>(&self, question: Message, read: impl Fn(DeadAnswer) -> Option<R>) -> Result<R, Error> {
        let _turn = self.take_turn();
        self.ask(
            |session| session.ask_of_dead(&question),
            |session, number| session.dead.is_answered(number).then(|| session.dead_answer.take()).flatten().and_then(&read),
        )
    }

    fn ask<R>(
        &self,
        question: impl FnOnce(&mut ControlSession) -> u64,
        answer: impl Fn(&mut ControlSession, u64) -> Option<R>,
    ) -> Result<R, Error> {
        let mut state = self.connection.lock();
        let number = question(&mut state.session);
        self.connection.wait_for(state, |session| answer(session, number))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.connection.close(Instant::now() + DROP_FLUSH, |_| true);
    }
}

#[derive(Debug, Default)]
struct ControlSession {
    questions: Questions,
    shutdowns: Question,
    clients: Question,
    /// By the number of the question; each is taken by who has asked.
    answers: BTreeMap<u64, Clients>,
    pauses: Question,
    pause_state: Option<PauseState>,
    dead: Question,
    /// Letters that have come ahead of their answer.
    letters: Vec<DeadLetter>,
    dead_answer: Option<DeadAnswer>,
    outbox: Outbox,
}

/// A part of who is connected.
#[derive(Debug)]
struct Clients {
    clients: Vec<ClientStatus>,
    more_from: Option<u64>,
}

#[derive(Debug)]
enum DeadAnswer {
    Listed(DeadPage),
    Removed(DeadRemoval),
}

impl ControlSession {
    fn ask_clients(&mut self, from: u64) -> u64 {
        self.outbox.push(&Message::ClientsRequest { from });
        self.clients.ask()
    }

    fn ask_shutdown(&mut self, now: bool) -> u64 {
        self.outbox.push(&Message::Shutdown { now });
        self.shutdowns.ask()
    }

    fn ask_paused(&mut self, paused: bool) -> u64 {
        self.outbox.push(&Message::SetPaused { paused });
        self.pauses.ask()
    }

    fn ask_of_dead(&mut self, question: &Message) -> u64 {
        self.outbox.push(question);
        self.dead.ask()
    }
}

impl Session for ControlSession {
    fn handle(&mut self, incoming: Incoming) -> Result<(), Error> {
        let Some(Incoming { message, batch }) = self.questions.handle(incoming)? else { return Ok(()) };
        let name = message.name();
        match (message, batch) {
            (Message::ShuttingDown, None) => self.shutdowns.answer(name).map(drop),
            (Message::Clients { clients, more_from }, None) => {
                let number = self.clients.answer(name)?;
                self.answers.insert(number, Clients { clients, more_from });
                Ok(())
            }
            (Message::PausedSet { paused, changed }, None) => {
                self.pause_state = Some(PauseState { paused, changed });
                self.pauses.answer(name).map(drop)
            }
            (Message::DeadLetter { id, attempts, cause, .. }, Some(batch)) => {
                self.letters.push(DeadLetter { id, attempts, cause, item: Bytes::copy_from_slice(batch.item(0)) });
                Ok(())
            }
            (Message::DeadListed { next, unkept }, None) => {
                let letters = std::mem::take(&mut self.letters);
                self.dead_answer = Some(DeadAnswer::Listed(DeadPage { letters, next, unkept }));
                self.dead.answer(name).map(drop)
            }
            (Message::DeadRemoved { count, next, obstacle }, None) => {
                self.dead_answer = Some(DeadAnswer::Removed(DeadRemoval { count, next, obstacle }));
                self.dead.answer(name).map(drop)
            }
            (other, _) => Err(Error::Unexpected(other.name())),
        }
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn next_timeout(&self) -> Option<Duration> {
        None
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn goodbye(&mut self) {
        self.outbox.push(&Message::Close { reason: CloseReason::Goodbye, words: String::new() });
    }

    // Whoever steers a coordinator means the one that is there: a lost connection is the end of it.
    fn lose(&mut self) {}

    fn resume(&mut self, _greeting: Greeting) -> Result<(), Error> {
        Ok(())
    }

    fn is_owed(&self) -> bool {
        false
    }
}
