//! The coordinator's loop (`coordinator/src/broker`) without its sockets and its threads: the same connections, the same queue, the same
//! order of things within a turn. It reports all that the queue hears and says to the oracle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use common::limits::PROTOCOL_VERSION;
use common::message::{CloseReason, Incoming, Message, Position, Role};
use common::pool::Pool;
use coordinator::broker::clients_shown;
use coordinator::connection::{Broken, Connection, State};
use coordinator::limits::{FRAMES_PER_TURN, GREETING, LINGER};
use coordinator::queue::{ClientId, Entry, Input, Output, Queue, Rules};

use super::item::Tag;
use super::journal::Journal;
use super::link::{End, Side};
use super::network::Stage;
use super::scenario::Scenario;
use super::writer::Writer;

/// The coordinator.
#[derive(Debug)]
pub struct Broker {
    connections: BTreeMap<ClientId, Connection<End>>,
    line: VecDeque<ClientId>,
    held_back: Vec<ClientId>,
    unflushed: BTreeSet<ClientId>,
    deadlines: BTreeSet<(Duration, ClientId)>,
    /// The queue under test.
    pub queue: Queue,
    rules: Rules,
    writer: Writer,
    journal: Option<Journal>,
    /// It has died, and nobody has started it again.
    pub is_down: bool,
    results_bytes_max: usize,
    names: BTreeMap<String, Tag>,
    pool: Pool,
    /// The queue was told something since the oracle has looked at it.
    unchecked: bool,
    /// The queue was told what the journal holds, and was not polled since: it may have recalled credit or closed a connection.
    journal_answered: bool,
}

impl Broker {
    /// A coordinator for this story.
    pub fn new(scenario: &Scenario) -> Broker {
        let names = scenario.producers.iter().filter(|plan| !plan.name.is_empty()).map(|plan| (plan.name.clone(), plan.tag));
        let &Scenario { writing, results_bytes_max, has_output, .. } = scenario;
        let rules = scenario.rules.clone();
        let mut journal = rules.journaled.map(|_| Journal::new(scenario.journal));
        if let Some(journal) = journal.as_mut().filter(|_| has_output) {
            journal.model.keep(&Entry::Output { bytes: 0 });
        }
        Broker {
            connections: BTreeMap::new(),
            line: VecDeque::new(),
            held_back: Vec::new(),
            unflushed: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            queue: Queue::new(rules.clone()),
            rules,
            writer: Writer::new(writing, has_output),
            journal,
            is_down: false,
            results_bytes_max,
            names: names.collect(),
            pool: Pool::default(),
            unchecked: false,
            journal_answered: false,
        }
    }

    /// The system reports news of a connection.
    pub fn note(&mut self, client: ClientId, readable: bool, hung_up: bool, writable: bool) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.note(readable, hung_up);
        if writable {
            self.unflushed.insert(client);
        }
        self.put_in_line(client);
    }

    /// One turn. Returns when the next is due at the latest.
    pub fn turn(&mut self, stage: &mut Stage) -> Option<Duration> {
        if self.is_down {
            // Nobody listens.
            stage.network.fresh.clear();
            return None;
        }
        self.collect_written(stage);
        self.collect_journaled(stage);
        self.accept(stage);
        // The order in which the system reports is anybody's guess.
        let turned = stage.random.below(self.line.len() as u64 + 1) as usize;
        self.line.rotate_left(turned.min(self.line.len()));
        for _ in 0..self.line.len() {
            if let Some(client) = self.line.pop_front() {
                self.serve(client, stage);
            }
        }
        self.keep_deadlines(stage);
        self.move_outputs(stage);
        let journaled = self.journal.as_ref().and_then(Journal::next);
        let deadline = self.deadlines.first().map(|(due, _)| *due);
        let now = (!self.line.is_empty()).then_some(stage.now);
        [self.queue.next_timeout(), deadline, self.writer.next(), journaled, now].into_iter().flatten().min()
    }

    /// Tells the queue something that did not come from a client.
    pub fn feed(&mut self, input: Input, stage: &mut Stage) {
        self.handle(input, stage);
        self.move_outputs(stage);
    }

    /// The real loop does not poll the queue after everything that it tells it. Nor does this one, save where the oracle could not tell
    /// what is right without knowing all that was decided before.
    fn handle(&mut self, input: Input, stage: &mut Stage) {
        let as_it_comes = match &input {
            Input::Written { .. } | Input::Journaled { .. } | Input::Loaded { .. } | Input::DeadLoaded(_) => true,
            Input::Said { client, message: Message::Put { .. } | Message::Want { .. } | Message::Recalled, .. } => {
                !self.journal_answered && !stage.network.rogues.contains(client)
            }
            _ => false,
        };
        if !as_it_comes {
            self.fill_outboxes(stage);
        }
        stage.tell(|| format!("queue hears {}", shown(&input)));
        stage.oracle.before(&input, self.queue.phase(), stage.now);
        self.journal_answered |= matches!(input, Input::Journaled { .. });
        self.queue.handle(input, stage.now);
        self.unchecked = true;
    }

    fn collect_written(&mut self, stage: &mut Stage) {
        while let Some(written) = self.writer.collect(stage.now, &mut stage.random) {
            self.handle(written, stage);
        }
        if self.writer.waiting_bytes() < self.results_bytes_max {
            for client in std::mem::take(&mut self.held_back) {
                self.put_in_line(client);
            }
        }
    }

    fn collect_journaled(&mut self, stage: &mut Stage) {
        if let Some(journal) = &mut self.journal {
            journal.go_on(stage.now, &mut stage.random);
        }
        while let Some(answer) = self.journal.as_mut().and_then(|journal| journal.collect(stage.now)) {
            self.handle(answer, stage);
        }
    }

    /// The coordinator dies: all that was in memory is lost, connections are closed by the system.
    pub fn die(&mut self, stage: &mut Stage) {
        let Some(journal) = &mut self.journal else { return };
        self.is_down = true;
        self.writer.dies(stage.now, &mut stage.random);
        let unreported = journal.dies(stage.now, &mut stage.random);
        stage.oracle.dies(unreported, &journal.model.recovered());
        self.connections.clear();
        self.line.clear();
        self.held_back.clear();
        self.unflushed.clear();
        self.deadlines.clear();
    }

    /// A new one goes on where the journal says.
    pub fn begin_again(&mut self, stage: &mut Stage) {
        let Some(journal) = &self.journal else { return };
        let recovered = journal.model.recovered();
        self.is_down = false;
        self.unchecked = false;
        self.writer.resume(recovered.output_bytes);
        stage.oracle.check_output(self.output());
        self.queue = Queue::recover(self.rules.clone(), &recovered);
        self.feed(Input::Tick, stage);
    }

    /// Its disk is a quick one from now on.
    pub fn mend(&mut self) {
        self.journal.iter_mut().for_each(Journal::mend);
    }

    /// What is in the output file, if there is one.
    pub fn output(&self) -> Option<&[u8]> {
        self.writer.file.as_deref()
    }

    fn accept(&mut self, stage: &mut Stage) {
        for (client, end) in std::mem::take(&mut stage.network.fresh) {
            let deadline = stage.now + GREETING;
            self.connections.insert(client, Connection::over(end, deadline, self.pool.clone()));
            self.deadlines.insert((deadline, client));
            let hung_up = stage.network.link(client).is_some_and(|link| link.borrow_mut().has_ended(Side::Coordinator));
            self.note(client, true, hung_up, false);
        }
    }

    fn serve(&mut self, client: ClientId, stage: &mut Stage) {
        let results_wait = self.writer.waiting_bytes() >= self.results_bytes_max;
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.in_line = false;
        if results_wait && connection.gave_results && !connection.has_hung_up() {
            self.held_back.push(client);
            return;
        }
        if connection.is_clogged() {
            return;
        }
        connection.gave_results = false;
        if connection.unhandled.is_empty() && connection.ending.is_none() {
            let mut frames = Vec::new();
            connection.ending = connection.receive(&mut stage.scratch, &mut frames).err();
            connection.unhandled.extend(frames);
        }
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = self.next_unhandled(client) else { break };
            let said = Message::decode(frame).map_err(Broken::from).and_then(|incoming| self.said(client, incoming, stage));
            if let Err(broken) = said {
                return self.end(client, broken, stage);
            }
            self.fill_outboxes(stage);
        }
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if connection.is_confirmation_due() {
            self.unflushed.insert(client);
        }
        match connection.ending.take_if(|_| connection.unhandled.is_empty()) {
            Some(broken) => self.end(client, broken, stage),
            None => self.put_in_line(client),
        }
    }

    fn end(&mut self, client: ClientId, broken: Broken, stage: &mut Stage) {
        match broken {
            Broken::Gone => self.forget(client, false, stage),
            Broken::Refused(reason, words) => self.close(client, reason, words, stage),
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

    fn said(&mut self, client: ClientId, Incoming { message, batch }: Incoming, stage: &mut Stage) -> Result<(), Broken> {
        let Some(connection) = self.connections.get_mut(&client) else { return Ok(()) };
        match (connection.state, message) {
            (State::Lingering, _) => Ok(()),
            (State::Greeting, Message::Hello { role, name, .. }) => {
                self.greet(client, role, name, stage);
                Ok(())
            }
            (State::Greeting, other) => Err(Broken::Refused(CloseReason::Protocol, format!("you said {} before Hello", other.name()))),
            (State::Open(_), Message::Close { .. }) => {
                self.forget(client, true, stage);
                Ok(())
            }
            (State::Open(_), Message::StatusRequest) => {
                connection.send(&Message::Status(Box::new(self.queue.status())), None);
                self.unflushed.insert(client);
                Ok(())
            }
            (State::Open(Role::Control), Message::ClientsRequest { from }) => {
                // For the oracle to know all that was decided before.
                self.fill_outboxes(stage);
                let (clients, more_from) = clients_shown(&self.connections, &self.queue, from, stage.now);
                stage.oracle.check_clients(&clients, stage.now);
                if let Some(connection) = self.connections.get_mut(&client) {
                    connection.send(&Message::Clients { clients, more_from }, None);
                    self.unflushed.insert(client);
                }
                Ok(())
            }
            (State::Open(Role::Control), message @ (Message::SetPaused { .. } | Message::DeadList { .. } | Message::DeadRemove { .. })) => {
                self.handle(Input::Steered { client, message }, stage);
                Ok(())
            }
            (State::Open(_), message) => {
                connection.gave_results |= matches!(message, Message::Result { .. });
                self.handle(Input::Said { client, message, batch }, stage);
                Ok(())
            }
        }
    }

    fn greet(&mut self, client: ClientId, role: Role, name: String, stage: &mut Stage) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if let Some(deadline) = connection.deadline {
            self.deadlines.remove(&(deadline, client));
        }
        connection.open(role, self.rules.item_bytes_max);
        match role {
            Role::Producer => {
                let name = Some(name).filter(|name| !name.is_empty());
                self.handle(Input::ProducerJoined { client, name }, stage);
            }
            Role::Consumer => {
                self.welcome(client, Position(0), None, self.queue.item_timeout());
                self.handle(Input::ConsumerJoined { client }, stage);
            }
            Role::Control => self.welcome(client, Position(0), None, None),
        }
    }

    fn welcome(&mut self, client: ClientId, position: Position, checksum: Option<u64>, item_timeout: Option<Duration>) {
        let (item_bytes_max, announce_from) = (self.rules.item_bytes_max, self.queue.announce_from());
        let lease_ms = item_timeout.map(|timeout| timeout.as_millis() as u64);
        if let Some(connection) = self.connections.get_mut(&client) {
            let welcome =
                Message::Welcome { version: PROTOCOL_VERSION, pid: 1, item_bytes_max, position, announce_from, checksum, lease_ms };
            connection.send(&welcome, None);
            self.unflushed.insert(client);
        }
    }

    fn close(&mut self, client: ClientId, reason: CloseReason, words: String, stage: &mut Stage) {
        let Some(connection) = self.connections.get(&client) else { return };
        match connection.state {
            State::Lingering => return,
            State::Greeting => {}
            State::Open(_) => self.handle(Input::Left { client, orderly: false }, stage),
        }
        stage.tell(|| format!("{client:?} is closed: {words}"));
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if let Some(deadline) = connection.deadline.take() {
            self.deadlines.remove(&(deadline, client));
        }
        connection.linger(reason, words, stage.now + LINGER);
        self.deadlines.insert((stage.now + LINGER, client));
        self.unflushed.insert(client);
        self.put_in_line(client);
    }

    fn forget(&mut self, client: ClientId, orderly: bool, stage: &mut Stage) {
        let Some(connection) = self.connections.remove(&client) else { return };
        if let Some(deadline) = connection.deadline {
            self.deadlines.remove(&(deadline, client));
        }
        if matches!(connection.state, State::Open(_)) {
            self.handle(Input::Left { client, orderly }, stage);
        }
        self.unflushed.remove(&client);
    }

    fn keep_deadlines(&mut self, stage: &mut Stage) {
        if self.queue.next_timeout().is_some_and(|due| due <= stage.now) {
            for client in self.queue.overdue(stage.now) {
                if self.connections.get(&client).is_some_and(Connection::has_work) {
                    stage.count("unheard", 1);
                    self.handle(Input::Unheard { client }, stage);
                }
            }
            self.handle(Input::Tick, stage);
        }
        while let Some(&(due, client)) = self.deadlines.first().filter(|(due, _)| *due <= stage.now) {
            self.deadlines.remove(&(due, client));
            if self.connections.get(&client).is_some_and(|connection| connection.state == State::Greeting) {
                self.close(client, CloseReason::Limit, "no Hello in time".into(), stage);
            } else {
                self.forget(client, false, stage);
            }
        }
    }

    fn move_outputs(&mut self, stage: &mut Stage) {
        loop {
            self.fill_outboxes(stage);
            let Some(client) = self.unflushed.pop_first() else { break };
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            match connection.flush() {
                Ok(()) => {}
                Err(_) if connection.state == State::Lingering => self.forget(client, false, stage),
                Err(_) => connection.deafen(),
            }
            self.put_in_line(client);
        }
        if let Some(journal) = &mut self.journal {
            journal.go_on(stage.now, &mut stage.random);
        }
    }

    fn fill_outboxes(&mut self, stage: &mut Stage) {
        self.journal_answered = false;
        while let Some(output) = self.queue.poll() {
            stage.tell(|| format!("queue says {}", shown(&output)));
            stage.oracle.after(&output);
            match output {
                Output::Send { client, message, batch } => {
                    if let Some(connection) = self.connections.get_mut(&client) {
                        connection.send(&message, batch.as_ref());
                        self.unflushed.insert(client);
                    }
                }
                Output::Close { client, reason, words } => self.close(client, reason, words, stage),
                Output::Welcome { client, position, checksum } => self.welcome(client, position, checksum, None),
                Output::Write { ticket, record } => self.writer.write(ticket, record, stage.now, &mut stage.random),
                Output::Journal(entry) => self.journal.as_mut().expect("a journal").keep(entry),
                Output::Load(load) => self.journal.as_mut().expect("a journal").load(load),
                Output::LoadDead(range) => self.journal.as_mut().expect("a journal").load_dead(range),
                other => panic!("only a shared queue says {other:?}"),
            }
        }
        if !std::mem::take(&mut self.unchecked) {
            return;
        }
        stage.oracle.check(&self.queue);
        for (name, tag) in &self.names {
            stage.oracle.check_position(*tag, self.queue.position(name).0);
        }
    }
}

/// A line that tells what a queue heard or said: the bytes of items tell nothing.
const SHOWN_CHARS_MAX: usize = 240;

fn shown(what: &impl std::fmt::Debug) -> String {
    let mut words = format!("{what:?}");
    if let Some(end) = words.find("batch: Some(") {
        words.truncate(end);
    }
    if let Some((end, _)) = words.char_indices().nth(SHOWN_CHARS_MAX) {
        words.truncate(end);
        words.push('…');
    }
    words
}
