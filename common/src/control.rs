//! The client that asks and steers: what `coordinator status`, `coordinator top` and `coordinator stop` use.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::driver::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::limits::DROP_FLUSH;
use crate::message::{CloseReason, Incoming, Message, Role};
use crate::outbox::Outbox;
use crate::session::{Greeting, Question, Questions, Session};
use crate::status::{ClientStatus, Status};

/// A connection that neither puts nor gets.
#[derive(Debug)]
pub struct Control {
    connection: Connection<ControlSession>,
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
        Ok(Control { connection })
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
    outbox: Outbox,
}

/// A part of who is connected.
#[derive(Debug)]
struct Clients {
    clients: Vec<ClientStatus>,
    more_from: Option<u64>,
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
}

impl Session for ControlSession {
    fn handle(&mut self, incoming: Incoming) -> Result<(), Error> {
        match self.questions.handle(incoming)? {
            None => Ok(()),
            Some(Incoming { message: Message::ShuttingDown, .. }) => self.shutdowns.answer("ShuttingDown").map(drop),
            Some(Incoming { message: Message::Clients { clients, more_from }, .. }) => {
                let number = self.clients.answer("Clients")?;
                self.answers.insert(number, Clients { clients, more_from });
                Ok(())
            }
            Some(other) => Err(Error::Unexpected(other.message.name())),
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
