//! The loop: one thread that owns the queue, all sockets and the clock, and turns what comes in into what goes out.
//!
//! A turn: wait for news, read each connection that has some once, hand its messages to the queue, move the queue's outputs to the
//! connections' outboxes, to the writer and to the journal, write. No client is waited for. `setup`: what it begins with; `clients`: how
//! clients come and go.

mod clients;
mod setup;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use common::Endpoint;
use common::endpoint::Listener;
use common::message::{CloseReason, Incoming, Message, Outcome, Role};
use common::pool::Pool;
use common::spin::look_for;
use common::status::Status;
use common::transport::Scratch;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{debug, info, trace};

use crate::connection::{Broken, Connection, State};
use crate::door::Door;
use crate::figures::{Asker, Figures};
use crate::journal::Fsync;
use crate::keeper::Keeper;
use crate::limits::{FRAMES_PER_TURN, RESULTS_BYTES_MAX};
use crate::outputs::{Outputs, Results};
use crate::queue::{ClientId, Entry, Input, Output, Queue, Record};
use crate::writer::{WriteFailure, Writer};

pub use clients::clients_shown;
pub use setup::{Keeping, Setup};
use setup::{descriptor_limit, open};

const LISTENER: Token = Token(0);
const WRITER: Token = Token(1);
const WATCHED: Token = Token(2);
const FIRST_CLIENT: u64 = 3;

/// What a turn leaves to whoever runs the loop.
#[derive(Debug)]
pub enum Event {
    /// The watched descriptor is readable.
    Watched,
    /// A client asks for the coordinator's end.
    Shutdown {
        /// At once.
        now: bool,
    },
    /// Results or dead letters cannot be written any more.
    WriteFailed(WriteFailure),
    /// What the queue keeps cannot be kept any more.
    KeepingFailed(anyhow::Error),
}

/// The queue and everything that is connected to it.
#[derive(Debug)]
pub struct Broker {
    started: Instant,
    spin: Duration,
    poll: Poll,
    /// Kept beyond the writer's end: dropped, a waker takes back what it has just woken for.
    waker: Arc<Waker>,
    news: Events,
    listener: Listener,
    accept_at: Option<Duration>,
    connections: BTreeMap<ClientId, Connection>,
    door: Door,
    next_client: u64,
    /// Connections to be served in the coming turn.
    line: VecDeque<ClientId>,
    /// Consumers that are not read from until results are written.
    held_back: Vec<ClientId>,
    /// Those that have something to write, in the order in which they got it: an item leaves before the confirmation that it was put.
    unflushed: VecDeque<ClientId>,
    deadlines: BTreeSet<(Duration, ClientId)>,
    queue: Queue,
    figures: Figures,
    item_bytes_max: u64,
    writer: Writer,
    keeper: Keeper,
    pool: Pool,
    scratch: Scratch,
    frames: Vec<Bytes>,
    events: Vec<Event>,
    /// What was said last took as long to answer as many other messages: its connection has had its turn.
    has_had_its_turn: bool,
    /// It was said that no more connections can be accepted, and some still wait.
    told_of_crowd: bool,
    /// The last user that a connection was refused to, as far as it was known.
    told_of_foreigner: Option<Option<u32>>,
}

impl Broker {
    /// A broker that listens, and reports when `watched` is readable.
    pub fn new(listener: Listener, setup: Setup<'_>, watched: &UnixStream) -> Result<Broker> {
        let Setup { mut rules, keeping, output, dead_letters, screen, spin } = setup;
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&listener.as_fd().as_raw_fd()), LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&watched.as_raw_fd()), WATCHED, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WRITER)?);
        let wake = || {
            let waker = Arc::clone(&waker);
            move || {
                // It fails only when the loop is gone.
                let _ = waker.wake();
            }
        };
        let synced = matches!(keeping, Keeping::Journal { fsync: Fsync::Always, .. });
        let (mut keeper, recovered) = open(keeping, &mut rules, output.is_some(), wake())?;
        let results = match (output, &keeper) {
            (None, _) => Results::stdout(screen)?,
            (Some(path), Keeper::Journal(_)) => Results::resume(path, recovered.output_bytes)?,
            (Some(path), _) => Results::create(path)?,
        };
        if let (Keeper::Journal(journal), Some(_), None) = (&mut keeper, output, recovered.output_bytes) {
            // From now on, what is found in the file is ours.
            journal.keep_now(Entry::Output { bytes: 0 })?;
        }
        let writer = Writer::start(Outputs::new(results, dead_letters, synced)?, wake())?;
        Ok(Broker {
            started: Instant::now(),
            spin,
            poll,
            waker,
            news: Events::with_capacity(1024),
            listener,
            accept_at: Some(Duration::ZERO),
            connections: BTreeMap::new(),
            door: Door::new(descriptor_limit()),
            next_client: FIRST_CLIENT,
            line: VecDeque::new(),
            held_back: Vec::new(),
            unflushed: VecDeque::new(),
            deadlines: BTreeSet::new(),
            item_bytes_max: rules.item_bytes_max,
            queue: Queue::recover(rules, &recovered),
            figures: Figures::default(),
            writer,
            keeper,
            pool: Pool::default(),
            scratch: Scratch::default(),
            frames: Vec::new(),
            events: Vec::new(),
            has_had_its_turn: false,
            told_of_crowd: false,
            told_of_foreigner: None,
        })
    }

    /// Time since the broker began: what all of its deadlines count in.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        self.listener.endpoint()
    }

    /// The queue, to be looked at.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The queue's figures, as clients get them.
    pub fn status(&self) -> Status {
        let uptime_ms = self.now().as_millis() as u64;
        Status { pid: std::process::id(), uptime_ms, ..self.queue.status() }
    }

    /// Lets another thread ask for these figures.
    pub fn asker(&self) -> Asker {
        let waker = Arc::clone(&self.waker);
        self.figures.asker(move || {
            // It fails only when the loop is gone.
            let _ = waker.wake();
        })
    }

    /// True when all results and dead letters are written, and all that counts is kept.
    pub fn is_written(&self) -> bool {
        self.writer.is_idle() && self.keeper.is_idle()
    }

    /// Brings to its end what keeps the queue.
    pub fn close_keeper(&mut self) -> Result<()> {
        std::mem::replace(&mut self.keeper, Keeper::Nothing).close()
    }

    /// Closes all connections, without a word.
    pub fn hang_up(&mut self) {
        self.connections.clear();
    }

    /// Tells the queue something that did not come from a client.
    pub fn feed(&mut self, input: Input) {
        self.queue.handle(input, self.now());
        self.move_outputs();
    }

    /// Waits for news until `deadline` at the latest, and deals with it.
    pub fn turn(&mut self, deadline: Option<Duration>) -> io::Result<Vec<Event>> {
        let now = self.now();
        let next_deadline = self.deadlines.first().map(|(due, _)| *due);
        let wake_at = [deadline, self.queue.next_timeout(), next_deadline, self.accept_at, self.keeper.next_due()];
        let timeout = match wake_at.into_iter().flatten().min() {
            _ if !self.line.is_empty() => Some(Duration::ZERO),
            Some(wake_at) => Some(wake_at.saturating_sub(now)),
            None => None,
        };
        let spin = timeout.map_or(self.spin, |timeout| timeout.min(self.spin));
        let (poll, news) = (&mut self.poll, &mut self.news);
        let found = look_for(spin, || match poll.poll(news, Some(Duration::ZERO)) {
            Ok(()) if news.is_empty() => None,
            polled => Some(polled),
        });
        match found.unwrap_or_else(|| poll.poll(news, timeout.map(|timeout| timeout - spin))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.note_news();
        if self.accept_at.is_some_and(|at| at <= self.now()) {
            self.accept();
        }
        for _ in 0..self.line.len() {
            if let Some(client) = self.line.pop_front() {
                self.serve(client);
            }
        }
        self.keep_deadlines();
        self.move_outputs();
        if self.figures.is_asked() {
            self.figures.answer(self.status());
        }
        Ok(std::mem::take(&mut self.events))
    }

    fn note_news(&mut self) {
        for event in self.news.iter() {
            match event.token() {
                LISTENER => self.accept_at = Some(Duration::ZERO),
                WRITER => {}
                WATCHED => self.events.push(Event::Watched),
                Token(number) => {
                    let client = ClientId(number as u64);
                    let Some(connection) = self.connections.get_mut(&client) else { continue };
                    connection.note(event.is_readable(), event.is_read_closed() || event.is_error());
                    if event.is_writable() {
                        // Should it fail, we are told more than we ask for.
                        let _ = connection.watch_room(true, self.poll.registry(), event.token());
                        line_up_to_write(connection, client, &mut self.unflushed);
                    }
                    if connection.has_work() && !std::mem::replace(&mut connection.in_line, true) {
                        self.line.push_back(client);
                    }
                }
            }
        }
        self.collect_written();
        self.collect_kept();
    }

    fn collect_kept(&mut self) {
        match self.keeper.collect() {
            Ok(inputs) => {
                let now = self.started.elapsed();
                inputs.into_iter().for_each(|input| self.queue.handle(input, now));
            }
            Err(error) => self.events.push(Event::KeepingFailed(error)),
        }
    }

    fn collect_written(&mut self) {
        if self.writer.is_idle() {
            return;
        }
        match self.writer.collect() {
            Ok(tickets) => {
                let now = self.now();
                for (ticket, output_bytes) in tickets {
                    self.queue.handle(Input::Written { ticket, output_bytes }, now);
                }
            }
            Err(failure) => self.events.push(Event::WriteFailed(failure)),
        }
        if self.writer.waiting_bytes() < RESULTS_BYTES_MAX {
            for client in std::mem::take(&mut self.held_back) {
                self.put_in_line(client);
            }
        }
    }

    /// Reads from a connection once, and deals with what it said; not with more than it takes answers for.
    fn serve(&mut self, client: ClientId) {
        let results_wait = self.writer.waiting_bytes() >= RESULTS_BYTES_MAX;
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.in_line = false;
        if results_wait && connection.gave_results && !connection.has_hung_up() {
            self.held_back.push(client);
            return;
        }
        if connection.is_clogged() {
            // Writing puts it back into the line.
            return;
        }
        connection.gave_results = false;
        if connection.unhandled.is_empty() && connection.ending.is_none() {
            let mut frames = std::mem::take(&mut self.frames);
            connection.ending = connection.receive(&mut self.scratch, &mut frames).err();
            connection.unhandled.extend(frames.drain(..));
            self.frames = frames;
        }
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = self.next_unhandled(client) else { break };
            let said = Message::decode(frame).map_err(Broken::from).and_then(|incoming| self.said(client, incoming));
            if let Err(broken) = said {
                return self.end(client, broken);
            }
            self.fill_outboxes();
            if std::mem::take(&mut self.has_had_its_turn) {
                break;
            }
        }
        // What came before an end counts.
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if connection.is_confirmation_due() {
            line_up_to_write(connection, client, &mut self.unflushed);
        }
        match connection.ending.take_if(|_| connection.unhandled.is_empty()) {
            Some(broken) => self.end(client, broken),
            None => self.put_in_line(client),
        }
    }

    fn end(&mut self, client: ClientId, broken: Broken) {
        match broken {
            Broken::Gone => self.forget(client, false),
            Broken::Refused(reason, words) => self.close(client, reason, words),
        }
    }

    fn next_unhandled(&mut self, client: ClientId) -> Option<Bytes> {
        let connection = self.connections.get_mut(&client)?;
        if connection.is_clogged() { None } else { connection.unhandled.pop_front() }
    }

    fn put_in_line(&mut self, client: ClientId) {
        if let Some(connection) = self.connections.get_mut(&client)
            && connection.has_work()
            && !std::mem::replace(&mut connection.in_line, true)
        {
            self.line.push_back(client);
        }
    }

    fn said(&mut self, client: ClientId, Incoming { message, batch }: Incoming) -> Result<(), Broken> {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(&client) else { return Ok(()) };
        match (connection.state, message) {
            (State::Lingering, _) => Ok(()),
            (State::Greeting, Message::Hello { role, name, .. }) => {
                self.greet(client, role, name);
                Ok(())
            }
            (State::Greeting, other) => {
                let words = format!("you said {} before Hello", other.name());
                Err(Broken::Refused(CloseReason::Protocol, words))
            }
            (State::Open(_), Message::Close { .. }) => {
                self.forget(client, true);
                Ok(())
            }
            (State::Open(_), Message::StatusRequest) => {
                let status = Message::Status(Box::new(self.status()));
                self.send(client, &status);
                Ok(())
            }
            (State::Open(Role::Control), Message::ClientsRequest { from }) => {
                let (clients, more_from) = self.clients(from);
                self.send(client, &Message::Clients { clients, more_from });
                self.has_had_its_turn = true;
                Ok(())
            }
            (State::Open(Role::Control), Message::Shutdown { now }) => {
                info!(client = client.0, now, "told to end");
                self.events.push(Event::Shutdown { now });
                self.send(client, &Message::ShuttingDown);
                Ok(())
            }
            (State::Open(Role::Control), message @ (Message::SetPaused { .. } | Message::DeadList { .. } | Message::DeadRemove { .. })) => {
                self.queue.handle(Input::Steered { client, message }, now);
                Ok(())
            }
            (State::Open(_), message) => {
                connection.gave_results |= matches!(message, Message::Result { .. });
                match &message {
                    Message::Return { outcome: Outcome::Unstarted, .. } => {}
                    Message::Return { range, outcome } => {
                        debug!(client = client.0, first = range.first.0, count = range.count, ?outcome, "given back");
                    }
                    other => trace!(client = client.0, message = other.name(), "received"),
                }
                self.queue.handle(Input::Said { client, message, batch }, now);
                Ok(())
            }
        }
    }

    /// Moves the queue's outputs to where they go, and writes; a connection that breaks by that gives the queue more to say.
    fn move_outputs(&mut self) {
        loop {
            self.fill_outboxes();
            let Some(client) = self.unflushed.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            let registry = self.poll.registry();
            match connection.flush().and_then(|()| connection.watch_room(false, registry, Token(client.0 as usize))) {
                Ok(()) => {}
                Err(_) if connection.state == State::Lingering => self.forget(client, false),
                Err(_) => connection.deafen(),
            }
            self.put_in_line(client);
        }
        self.keeper.flush(self.now());
    }

    fn fill_outboxes(&mut self) {
        loop {
            while let Some(output) = self.queue.poll() {
                self.follow(output);
            }
            let entries = self.keeper.take_kept();
            if entries == 0 {
                return;
            }
            self.queue.handle(Input::Journaled { entries }, self.now());
        }
    }

    fn follow(&mut self, output: Output) {
        match output {
            Output::Send { client, message, batch } => {
                if let Some(connection) = self.connections.get_mut(&client) {
                    connection.send(&message, batch.as_ref());
                    line_up_to_write(connection, client, &mut self.unflushed);
                }
            }
            Output::Close { client, reason, words } => self.close(client, reason, words),
            Output::Write { ticket, record } => {
                if let Record::DeadLetter(letter) = &record {
                    info!(item = letter.id.0, attempts = letter.attempts, cause = &*letter.cause, "dead letter");
                }
                self.writer.write(ticket, record);
            }
            Output::Welcome { client, position, checksum } => self.welcome(client, position, checksum, None),
            kept => {
                let now = self.now();
                let left = self.keeper.serve(kept, now);
                debug_assert!(left.is_none(), "the queue says what nobody does: {left:?}");
            }
        }
    }

    fn send(&mut self, client: ClientId, message: &Message) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.send(message, None);
            line_up_to_write(connection, client, &mut self.unflushed);
        }
    }
}

/// Has a connection written to, behind those that are to be already.
fn line_up_to_write(connection: &mut Connection, client: ClientId, line: &mut VecDeque<ClientId>) {
    if !std::mem::replace(&mut connection.in_line_to_write, true) {
        line.push_back(client);
    }
}
