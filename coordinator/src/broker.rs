//! The loop: one thread that owns the queue, all sockets and the clock, and turns what comes in into what goes out.
//!
//! A turn: wait for news, read each connection that has some once, hand its messages to the queue, move the queue's outputs to the
//! connections' outboxes and to the writer, write. No client is waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use common::endpoint::{Accepted, Listener};
use common::limits::PROTOCOL_VERSION;
use common::message::{CloseReason, Incoming, Message, Position, Role};
use common::pool::Pool;
use common::program::tell;
use common::spin::look_for;
use common::status::Status;
use common::transport::{self, Scratch};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::PROGRAM;
use crate::connection::{Broken, Connection, State};
use crate::door::{Door, Room};
use crate::journal::{Answer, Fsync, Journal, JournalError};
use crate::limits::{ACCEPT_RETRY, ACCEPTS_PER_TURN, FRAMES_PER_TURN, GREETING, LINGER, RESULTS_BYTES_MAX};
use crate::outputs::{DeadLetters, Outputs, Results};
use crate::queue::{ClientId, Entry, Input, Output, Queue, Recovered, Rules};
use crate::writer::{WriteFailure, Writer};

const LISTENER: Token = Token(0);
const WRITER: Token = Token(1);
const WATCHED: Token = Token(2);
const FIRST_CLIENT: u64 = 3;

/// To those for whom there is no room.
const CROWD: &str = "the coordinator has as many connections as it takes; try again later";

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
    /// The journal cannot be written or read any more.
    JournalFailed(JournalError),
}

/// What a broker is to be like.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The queue's bounds and rules.
    pub rules: Rules,
    /// Where its journal is, if it has one.
    pub keeping: Option<Keeping<'a>>,
    /// The file that results go to; else they go to stdout.
    pub output: Option<&'a Path>,
    /// Where dead letters go.
    pub dead_letters: DeadLetters,
    /// Before it sleeps, it keeps looking for news so long.
    pub spin: Duration,
}

/// Where a queue's journal is.
#[derive(Clone, Copy, Debug)]
pub struct Keeping<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// What its entries survive.
    pub fsync: Fsync,
    /// Which producers have finished is to be found out anew: they are our own, and look at their inputs again.
    pub anew: bool,
}

/// The queue and everything that is connected to it.
#[derive(Debug)]
pub struct Broker {
    started: Instant,
    spin: Duration,
    poll: Poll,
    /// Kept beyond the writer's end: dropped, a waker takes back what it has just woken for.
    _waker: Arc<Waker>,
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
    unflushed: BTreeSet<ClientId>,
    deadlines: BTreeSet<(Duration, ClientId)>,
    queue: Queue,
    item_bytes_max: u64,
    writer: Writer,
    journal: Option<Journal>,
    pool: Pool,
    scratch: Scratch,
    frames: Vec<Bytes>,
    events: Vec<Event>,
    /// It was said that no more connections can be accepted, and some still wait.
    told_of_crowd: bool,
    /// The last user that a connection was refused to, as far as it was known.
    told_of_foreigner: Option<Option<u32>>,
}

impl Broker {
    /// A broker that listens, and reports when `watched` is readable.
    pub fn new(listener: Listener, setup: Setup<'_>, watched: &UnixStream) -> Result<Broker> {
        let Setup { rules, keeping, output, dead_letters, spin } = setup;
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
        let (mut journal, recovered) = match keeping {
            Some(keeping) => open_journal(keeping, rules.item_bytes_max, output.is_some(), wake())?,
            None => (None, Recovered::default()),
        };
        let results = match (output, keeping) {
            (None, _) => Results::stdout()?,
            (Some(path), None) => Results::create(path)?,
            (Some(path), Some(_)) => Results::resume(path, recovered.output_bytes)?,
        };
        if let (Some(journal), Some(_), None) = (&mut journal, output, recovered.output_bytes) {
            // From now on, what is found in the file is ours.
            journal.keep_now(Entry::Output { bytes: 0 })?;
        }
        let synced = keeping.is_some_and(|keeping| keeping.fsync == Fsync::Always);
        let writer = Writer::start(Outputs::new(results, dead_letters, synced), wake())?;
        Ok(Broker {
            started: Instant::now(),
            spin,
            poll,
            _waker: waker,
            news: Events::with_capacity(1024),
            listener,
            accept_at: Some(Duration::ZERO),
            connections: BTreeMap::new(),
            door: Door::new(descriptor_limit()),
            next_client: FIRST_CLIENT,
            line: VecDeque::new(),
            held_back: Vec::new(),
            unflushed: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            item_bytes_max: rules.item_bytes_max,
            queue: Queue::recover(rules, &recovered),
            writer,
            journal,
            pool: Pool::default(),
            scratch: Scratch::default(),
            frames: Vec::new(),
            events: Vec::new(),
            told_of_crowd: false,
            told_of_foreigner: None,
        })
    }

    /// Time since the broker began: what all of its deadlines count in.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
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

    /// True when all results and dead letters are written, and all that counts is in the journal.
    pub fn is_written(&self) -> bool {
        self.writer.is_idle() && self.journal.as_ref().is_none_or(Journal::is_idle)
    }

    /// Brings the journal to its end.
    pub fn close_journal(&mut self) -> Result<(), JournalError> {
        self.journal.take().map_or(Ok(()), Journal::close)
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
        let wake_at = [deadline, self.queue.next_timeout(), self.deadlines.first().map(|(due, _)| *due), self.accept_at];
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
                        self.unflushed.insert(client);
                    }
                    if connection.has_work() && !std::mem::replace(&mut connection.in_line, true) {
                        self.line.push_back(client);
                    }
                }
            }
        }
        self.collect_written();
        self.collect_journaled();
    }

    fn collect_journaled(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        match journal.collect() {
            Ok(answers) => {
                let now = self.started.elapsed();
                for answer in answers {
                    let input = match answer {
                        Answer::Kept(entries) => Input::Journaled { entries },
                        Answer::Loaded(batches) => Input::Loaded { batches },
                    };
                    self.queue.handle(input, now);
                }
            }
            Err(error) => self.events.push(Event::JournalFailed(error)),
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

    fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let room = self.door.room(self.now());
            match room {
                Room::At(until) => self.accept_at = Some(until),
                Room::WhenOneGoes => {
                    self.tell_of_crowd("as many are open as descriptors allow");
                    self.accept_at = Some(self.now() + ACCEPT_RETRY);
                }
                Room::Free | Room::If(_) | Room::Full => {}
            }
            if self.accept_at.is_some() {
                return;
            }
            let stream = match self.listener.accept() {
                Ok(Accepted::Client(stream)) => stream,
                Ok(Accepted::Foreign(stream, uid)) => {
                    // Once for many: it must not be able to fill a log.
                    if self.told_of_foreigner.replace(uid) != Some(uid) {
                        let who = uid.map_or("of an unknown user".into(), |uid| format!("of user {uid}"));
                        tell(PROGRAM, format_args!("refused a connection {who}"));
                    }
                    refuse(&stream, CloseReason::Forbidden, "this queue belongs to another user");
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.told_of_crowd = false;
                    return;
                }
                Err(error) if matches!(error.raw_os_error(), Some(code) if is_out_of_descriptors(code)) => {
                    self.tell_of_crowd(&error.to_string());
                    self.accept_at = Some(self.now() + ACCEPT_RETRY);
                    return;
                }
                // The one who came has gone already, or the like.
                Err(_) => continue,
            };
            match room {
                Room::If(another) => self.turn_away(another),
                Room::Full => {
                    refuse(&stream, CloseReason::Limit, CROWD);
                    continue;
                }
                Room::Free | Room::At(_) | Room::WhenOneGoes => {}
            }
            let client = ClientId(self.next_client);
            self.next_client += 1;
            let deadline = self.now() + GREETING;
            match Connection::new(stream, self.poll.registry(), Token(client.0 as usize), deadline, self.pool.clone()) {
                Ok(connection) => self.connections.insert(client, connection),
                Err(error) => {
                    tell(PROGRAM, format_args!("cannot watch a new connection, which is dropped: {error}"));
                    continue;
                }
            };
            self.deadlines.insert((deadline, client));
            self.door.came(client, self.now());
        }
        self.accept_at = Some(Duration::ZERO);
    }

    /// Drops a connection to make room, not without a word.
    fn turn_away(&mut self, client: ClientId) {
        if let Some(connection) = self.connections.get_mut(&client) {
            if connection.state == State::Greeting {
                connection.send(&Message::Close { reason: CloseReason::Limit, words: CROWD.into() }, None);
            }
            // What its buffer does not take now is not said.
            let _ = connection.flush();
        }
        self.forget(client, false);
    }

    fn tell_of_crowd(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told_of_crowd, true) {
            tell(PROGRAM, format_args!("cannot accept more connections for now: {why}; raise `ulimit -n` or use fewer clients"));
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
        }
        // What came before an end counts.
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if connection.is_confirmation_due() {
            self.unflushed.insert(client);
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
            (State::Open(Role::Control), Message::Shutdown { now }) => {
                self.events.push(Event::Shutdown { now });
                self.send(client, &Message::ShuttingDown);
                Ok(())
            }
            (State::Open(_), message) => {
                connection.gave_results |= matches!(message, Message::Result { .. });
                self.queue.handle(Input::Said { client, message, batch }, now);
                Ok(())
            }
        }
    }

    fn greet(&mut self, client: ClientId, role: Role, name: String) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if let Some(deadline) = connection.deadline {
            self.deadlines.remove(&(deadline, client));
        }
        connection.open(role, self.item_bytes_max);
        self.door.greeted(client);
        self.note_room();
        match role {
            Role::Producer => {
                let name = Some(name).filter(|name| !name.is_empty());
                self.queue.handle(Input::ProducerJoined { client, name }, self.now());
            }
            Role::Consumer => {
                self.welcome(client, Position(0), None);
                self.queue.handle(Input::ConsumerJoined { client }, self.now());
            }
            Role::Control => self.welcome(client, Position(0), None),
        }
    }

    fn welcome(&mut self, client: ClientId, position: Position, checksum: Option<u64>) {
        let message = Message::Welcome {
            version: PROTOCOL_VERSION,
            pid: std::process::id(),
            item_bytes_max: self.item_bytes_max,
            position,
            announce_from: self.queue.announce_from(),
            checksum,
        };
        self.send(client, &message);
    }

    /// Closes a connection after telling it why.
    fn close(&mut self, client: ClientId, reason: CloseReason, words: String) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(&client) else { return };
        match connection.state {
            State::Lingering => return,
            State::Greeting => {}
            State::Open(_) => self.queue.handle(Input::Left { client, orderly: false }, now),
        }
        if let Some(deadline) = connection.deadline.take() {
            self.deadlines.remove(&(deadline, client));
        }
        connection.linger(reason, words, now + LINGER);
        self.door.closed(client);
        self.deadlines.insert((now + LINGER, client));
        self.unflushed.insert(client);
        self.put_in_line(client);
    }

    /// Drops a connection.
    fn forget(&mut self, client: ClientId, orderly: bool) {
        let Some(connection) = self.connections.remove(&client) else { return };
        if let Some(deadline) = connection.deadline {
            self.deadlines.remove(&(deadline, client));
        }
        match connection.state {
            State::Open(_) => self.queue.handle(Input::Left { client, orderly }, self.now()),
            State::Greeting | State::Lingering => {}
        }
        self.unflushed.remove(&client);
        self.door.gone(client);
        self.note_room();
    }

    /// There may be room for who waits to be accepted.
    fn note_room(&mut self) {
        if self.accept_at.is_some() {
            self.accept_at = Some(Duration::ZERO);
        }
    }

    fn keep_deadlines(&mut self) {
        let now = self.now();
        if self.queue.next_timeout().is_some_and(|due| due <= now) {
            self.queue.handle(Input::Tick, now);
        }
        while let Some(&(due, client)) = self.deadlines.first().filter(|(due, _)| *due <= now) {
            self.deadlines.remove(&(due, client));
            let greeting = self.connections.get(&client).is_some_and(|connection| connection.state == State::Greeting);
            if greeting {
                let words = format!("no Hello within {} s", GREETING.as_secs());
                self.close(client, CloseReason::Limit, words);
            } else {
                self.forget(client, false);
            }
        }
    }

    /// Moves the queue's outputs to where they go, and writes; a connection that breaks by that gives the queue more to say.
    fn move_outputs(&mut self) {
        loop {
            self.fill_outboxes();
            let Some(client) = self.unflushed.pop_first() else { break };
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            match connection.flush() {
                Ok(()) => {}
                Err(_) if connection.state == State::Lingering => self.forget(client, false),
                Err(_) => connection.deafen(),
            }
            self.put_in_line(client);
        }
        if let Some(journal) = &mut self.journal {
            journal.flush();
        }
    }

    fn fill_outboxes(&mut self) {
        while let Some(output) = self.queue.poll() {
            match output {
                Output::Send { client, message, batch } => {
                    if let Some(connection) = self.connections.get_mut(&client) {
                        connection.send(&message, batch.as_ref());
                        self.unflushed.insert(client);
                    }
                }
                Output::Close { client, reason, words } => self.close(client, reason, words),
                Output::Write { ticket, record } => self.writer.write(ticket, record),
                Output::Welcome { client, position, checksum } => self.welcome(client, position, checksum),
                Output::Journal(entry) => {
                    if let Some(journal) = &mut self.journal {
                        journal.keep(entry);
                    }
                }
                Output::Load(load) => {
                    if let Some(journal) = &mut self.journal {
                        journal.load(load);
                    }
                }
            }
        }
    }

    fn send(&mut self, client: ClientId, message: &Message) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.send(message, None);
            self.unflushed.insert(client);
        }
    }
}

fn open_journal(
    Keeping { folder, fsync, anew }: Keeping<'_>,
    item_bytes_max: u64,
    has_output: bool,
    wake: impl Fn() + Send + 'static,
) -> Result<(Option<Journal>, Recovered)> {
    let (journal, mut recovered) = Journal::open(folder, fsync, item_bytes_max, wake)?;
    if recovered.output_bytes.is_some() && !has_output {
        bail!("the results so far, by the journal in {}, are in a file; give the same --output as before", folder.display());
    }
    if recovered.items > 0 {
        let (items, done) = (recovered.items, recovered.acknowledged + recovered.dead);
        tell(PROGRAM, format_args!("going on with {items} items from the journal in {}; {done} were done before", folder.display()));
    }
    if anew {
        recovered.finished_unnamed = 0;
        recovered.producers.iter_mut().for_each(|(_, finished)| *finished = false);
    }
    Ok((Some(journal), recovered))
}

/// How many descriptors this process may have.
fn descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Says why a connection is dropped that was just made: a courtesy. Its buffer is empty and takes this, or it is not said.
fn refuse(stream: &UnixStream, reason: CloseReason, words: &str) {
    let mut frame = Vec::new();
    Message::Close { reason, words: words.into() }.encode(0, &mut frame);
    let _ = transport::send(stream, &[io::IoSlice::new(&frame)]);
}

fn is_out_of_descriptors(code: i32) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|errno| errno.raw_os_error() == code)
}
