//! A queue that is watched: everything that goes in and comes out passes a plain model of PROTOCOL.md, one entry an item.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::batch::Batch;
use common::limits::HURRIED_WAITS;
use common::message::{CloseReason, Message};
use common::status::{Phase, Work};
use coordinator::queue::{ClientId, Input, Output, Queue, Record, Rules, Ticket};

use super::journaled::Journal;
use super::steering::Dead;

/// The queue, and what must be true of it.
pub(super) struct Watched {
    pub(super) queue: Queue,
    pub(super) rules: Rules,
    pub(super) journal: Option<Journal>,
    pub(super) now: Duration,
    pub(super) clients: BTreeMap<ClientId, Client>,
    /// Items that were delivered and are not settled.
    pub(super) items: BTreeMap<u64, Item>,
    /// Every item below this was delivered at least once.
    pub(super) seen: u64,
    pub(super) tickets: Vec<Ticket>,
    pub(super) writing: BTreeMap<Ticket, (Vec<u64>, bool)>,
    pub(super) acknowledged: u64,
    pub(super) dead: u64,
    pub(super) dead_letters: Dead,
    confirmed: u64,
    /// Confirmed so far under each name.
    pub(super) positions: BTreeMap<String, u64>,
    pub(super) finished_names: BTreeSet<String>,
    pub(super) finished: u64,
    /// By the mark that a producer puts on its items: the number of the next one.
    marks: BTreeMap<String, u64>,
    /// Somebody has put items without such marks.
    pub(super) unmarked: bool,
    /// How often something was taken back.
    pub(super) revokes: u64,
    phase: Phase,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) kind: Kind,
    /// Joins asked, each by the number of items that were accepted then.
    pub(super) joins: Vec<u64>,
    pub(super) withdrawals: u32,
    pub(super) finishes: u32,
}

#[derive(Default)]
pub(super) enum Kind {
    Producer(Producer),
    Consumer(Consumer),
    #[default]
    Control,
}

#[derive(Default)]
pub(super) struct Producer {
    pub(super) name: Option<String>,
    pub(super) welcomed: bool,
    pub(super) put: u64,
    pub(super) confirmed: u64,
    /// With a journal: batches that wait for room, each with the checksum that was said with it; what is accepted; and of that, what is in
    /// the journal as far as the queue knows.
    pub(super) parked: VecDeque<(Batch, u64)>,
    pub(super) admitted: u64,
    pub(super) certain: u64,
    /// Items and bytes by what it has heard.
    pub(super) credit: (i64, i64),
    /// Likewise by what it was told, heard or not.
    pub(super) granted: (i64, i64),
    pub(super) unheard: Vec<Message>,
    /// The bytes that it waits for.
    pub(super) wish: Option<u64>,
    pub(super) recalled: bool,
    pub(super) finished: bool,
    /// It has said something that its client library never would.
    pub(super) rogue: bool,
}

#[derive(Default)]
pub(super) struct Consumer {
    pub(super) demand: (u32, i64),
    pub(super) held: BTreeSet<u64>,
    /// With when each is taken back.
    pub(super) begun: BTreeMap<u64, Duration>,
    /// Until when it may hold what it holds, having begun nothing.
    pub(super) sits: Option<Duration>,
    /// Taken back from it, and it may not have heard; what it is still to be told of that; how often it has to answer.
    pub(super) revoked: BTreeSet<u64>,
    pub(super) untold: BTreeSet<u64>,
    /// It has got something, and was not told to hurry just before that.
    pub(super) unhurried: bool,
    pub(super) hurried_deliveries: u32,
    pub(super) revokes: u32,
    /// Questions for more time that have no answer.
    pub(super) extends: u32,
    /// Settled by it as done, and as failed.
    pub(super) done: u64,
    pub(super) failed: u64,
    stops: u32,
}

impl Consumer {
    fn is_hungry(&self) -> bool {
        self.demand.0 > 0 && self.demand.1 > 0 && self.revokes == 0
    }
}

pub(super) struct Item {
    pub(super) bytes: Vec<u8>,
    pub(super) attempts: u32,
    pub(super) failures: u32,
    /// As the journal was told, and as it knows for sure.
    pub(super) failures_given_out: u32,
    pub(super) failures_recorded: u32,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Delayed(Duration),
    Held(ClientId),
    /// To be written as a dead letter by the step under way.
    Dying,
    /// Its results are to be given out by the step under way.
    Done,
    Writing,
    /// Settled once the journal knows.
    Settling,
}

impl Watched {
    pub(super) fn new(rules: Rules) -> Watched {
        Watched {
            queue: Queue::new(rules.clone()),
            journal: rules.journaled.map(|_| Journal::default()),
            rules,
            now: Duration::ZERO,
            clients: BTreeMap::new(),
            items: BTreeMap::new(),
            seen: 0,
            tickets: Vec::new(),
            writing: BTreeMap::new(),
            acknowledged: 0,
            dead: 0,
            dead_letters: Dead::default(),
            confirmed: 0,
            positions: BTreeMap::new(),
            finished_names: BTreeSet::new(),
            finished: 0,
            marks: BTreeMap::new(),
            unmarked: false,
            revokes: 0,
            phase: Phase::Running,
        }
    }

    /// Lets the queue handle an input; who is closed by it, and why.
    pub(super) fn handle(&mut self, input: Input) -> BTreeMap<ClientId, CloseReason> {
        match input {
            Input::Tick => self.expire(),
            Input::Unheard { client } => self.unheard(client),
            _ => {}
        }
        if matches!(input, Input::Drain | Input::Stop) {
            self.dead_letters.paused = false;
        }
        self.queue.handle(input, self.now);
        let mut closed = BTreeMap::new();
        while let Some(output) = self.queue.poll() {
            match output {
                Output::Close { client, reason, words } => {
                    assert!(!words.is_empty());
                    assert!(self.clients.remove(&client).is_some(), "{client:?} is closed, and was not there");
                    self.stops_asking(client);
                    closed.insert(client, reason);
                }
                Output::Send { client, message, batch } => self.sent(client, message, batch),
                Output::Write { ticket, record } => self.note_write(ticket, record),
                Output::Welcome { client, position, checksum } => {
                    let Some(Kind::Producer(producer)) = self.clients.get(&client).map(|client| &client.kind) else {
                        panic!("{client:?} is welcomed and is no producer");
                    };
                    let (known, its_checksum, certain) = self.progress(producer.name.as_deref());
                    assert_eq!((position.0, checksum), (known, its_checksum), "how far {client:?} has come");
                    assert!(
                        certain || self.queue.phase() != Phase::Running,
                        "{client:?} is welcomed before it is certain how far it has come"
                    );
                    if let Some(Client { kind: Kind::Producer(producer), .. }) = self.clients.get_mut(&client) {
                        assert!(!std::mem::replace(&mut producer.welcomed, true), "{client:?} is welcomed twice");
                        (producer.put, producer.confirmed, producer.admitted, producer.certain) = (known, known, known, known);
                    }
                }
                Output::Journal(entry) => self.keeps(entry),
                Output::Load(load) => self.loads(load),
                Output::LoadDead(range) => self.loads_dead(range),
                other => panic!("only a shared queue says {other:?}"),
            }
        }
        self.give_up_waiting();
        self.watch();
        self.check();
        closed
    }

    /// How long what begins now may be held.
    pub(super) fn time(&self) -> Duration {
        let Some(lease) = self.rules.lease else { return Duration::MAX };
        self.now.saturating_add(lease.item_timeout).saturating_add(lease.grace)
    }

    /// Who holds something and has begun nothing of it has its time from now on.
    fn watch(&mut self) {
        let due = self.time();
        for client in self.clients.values_mut() {
            if let Kind::Consumer(consumer) = &mut client.kind
                && self.rules.lease.is_some()
            {
                let sits = !consumer.held.is_empty() && consumer.begun.is_empty();
                consumer.sits = sits.then(|| consumer.sits.unwrap_or(due));
            }
        }
    }

    /// When what is taken back from whom; without an item, all that a consumer has not begun.
    fn dues(&self) -> impl Iterator<Item = (Duration, ClientId, Option<u64>)> {
        let consumers = self.clients.iter().filter_map(|(id, client)| match &client.kind {
            Kind::Consumer(consumer) => Some((*id, consumer)),
            _ => None,
        });
        let limited = self.rules.lease.is_some();
        consumers.filter(move |_| limited).flat_map(|(client, consumer)| {
            let begun = consumer.begun.iter().map(move |(id, due)| (*due, client, Some(*id)));
            begun.chain(consumer.sits.map(|due| (due, client, None)))
        })
    }

    /// Whose words are not heard yet has the grace once more.
    fn unheard(&mut self, client: ClientId) {
        let until = self.now.saturating_add(self.rules.lease.map_or(Duration::ZERO, |lease| lease.grace));
        let Some(Kind::Consumer(consumer)) = self.clients.get_mut(&client).map(|client| &mut client.kind) else { return };
        let times = consumer.begun.values_mut().chain(&mut consumer.sits);
        times.filter(|due| **due <= self.now).for_each(|due| *due = until);
    }

    /// The clock is looked at: what has been held for too long is taken back.
    fn expire(&mut self) {
        while let Some((_, client, id)) = self.dues().min().filter(|(due, ..)| *due <= self.now) {
            let Some(Kind::Consumer(consumer)) = self.clients.get_mut(&client).map(|client| &mut client.kind) else { return };
            let begun = &consumer.begun;
            let taken: Vec<u64> = consumer.held.iter().copied().filter(|other| id == Some(*other) || !begun.contains_key(other)).collect();
            let alone = consumer.held.len() == 1;
            consumer.revokes += 1;
            for other in taken {
                consumer.held.remove(&other);
                consumer.begun.remove(&other);
                consumer.revoked.insert(other);
                consumer.untold.insert(other);
                let item = self.items.get_mut(&other).expect("a held item");
                item.state = State::Ready;
                if id == Some(other) || (id.is_none() && alone) {
                    item.failures += 1;
                    let delay = self.rules.retry_delay.spread(item.failures, other);
                    item.state = match item.failures >= self.rules.attempts_max {
                        true => State::Dying,
                        false if delay.is_zero() => State::Ready,
                        false => State::Delayed(self.now.saturating_add(delay)),
                    };
                }
            }
            self.watch();
        }
    }

    /// The lowest item that is not through: the results of those behind it wait for it.
    fn next(&self) -> u64 {
        let blocks = |state| matches!(state, State::Ready | State::Delayed(_) | State::Held(_) | State::Done);
        self.items.iter().find(|(_, item)| blocks(item.state)).map_or(self.seen, |(id, _)| *id)
    }

    /// Nothing is handed out any more: if nobody holds anything, results whose turn has not come will not be written.
    fn give_up_waiting(&mut self) {
        let held = self.items.values().any(|item| matches!(item.state, State::Held(_)));
        if self.rules.early_bytes_max.is_some() && self.queue.phase() == Phase::Stopping && !held {
            self.items.values_mut().filter(|item| item.state == State::Done).for_each(|item| item.state = State::Ready);
        }
    }

    /// True where results wait for an item that is not the next to be delivered: maybe so many that nothing else is.
    fn holds_back(&self) -> bool {
        let first = |is: fn(State) -> bool| self.items.iter().find(|(_, item)| is(item.state)).map(|(id, _)| *id);
        let ready = first(|state| state == State::Ready).unwrap_or(self.seen);
        first(|state| state == State::Done).is_some() && ready != self.next()
    }

    /// Nobody is connected any more, and nothing is written.
    pub(super) fn restart(&mut self) {
        self.clients.clear();
        self.tickets.clear();
        self.writing.clear();
        self.phase = Phase::Running;
    }

    /// Items are handed out in this phase.
    pub(super) fn serves(&self) -> bool {
        matches!(self.queue.phase(), Phase::Running | Phase::Draining)
    }

    /// Items that producers were told are accepted.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn sent(&mut self, to: ClientId, message: Message, batch: Option<Batch>) {
        self.revokes += u64::from(matches!(message, Message::Revoke { .. }));
        let phase = self.queue.phase();
        let settled = self.first_unsettled();
        let Some(client) = self.clients.get_mut(&to) else { panic!("{to:?} is told {} and is not there", message.name()) };
        match (&mut client.kind, message) {
            (Kind::Producer(producer), message @ Message::Confirm { position, credit_items, credit_bytes }) => {
                let most = self.journal.as_ref().map_or(producer.put, |_| producer.certain);
                assert!((producer.confirmed..=most).contains(&position.0), "{position} is confirmed");
                self.confirmed += position.0 - producer.confirmed;
                producer.confirmed = position.0;
                producer.granted.0 += credit_items as i64;
                producer.granted.1 += credit_bytes as i64;
                producer.wish.take_if(|bytes| producer.granted.0 > 0 && producer.granted.1 >= *bytes as i64);
                assert!(credit_items + credit_bytes == 0 || !producer.recalled, "credit before a Recall is answered");
                if let Some(name) = &producer.name
                    && self.journal.is_none()
                {
                    self.positions.insert(name.clone(), position.0);
                }
                producer.unheard.push(message);
            }
            (Kind::Producer(producer), message @ Message::Recall { .. }) => {
                assert!(!std::mem::replace(&mut producer.recalled, true), "a second Recall before the first was answered");
                assert_ne!(producer.granted, (0, 0), "a Recall of nothing");
                producer.unheard.push(message);
            }
            (Kind::Producer(_), Message::Finished) => client.finishes -= 1,
            (Kind::Consumer(consumer), Message::Stop) => {
                assert!(matches!(phase, Phase::Stopping | Phase::Done));
                consumer.stops += 1;
            }
            (Kind::Consumer(consumer), Message::Deliver { first, attempt, .. }) => {
                assert!(!self.dead_letters.paused, "items are handed out by a queue that is paused");
                let Some(batch) = batch else { panic!("a Deliver without its items") };
                assert!(consumer.demand.0 >= batch.count() && consumer.demand.1 > 0, "more than was asked for");
                assert!(batch.count() == 1 || batch.body()[0].len() as i64 <= consumer.demand.1, "more bytes than were asked for");
                consumer.demand.0 -= batch.count();
                consumer.demand.1 = consumer.demand.1.saturating_sub_unsigned(batch.body_bytes());
                consumer.unhurried |= consumer.hurried_deliveries == 0;
                consumer.hurried_deliveries = consumer.hurried_deliveries.saturating_sub(1);
                consumer.held.extend(first.0..first.0 + u64::from(batch.count()));
                self.delivered(to, first.0, attempt, &batch);
            }
            (Kind::Consumer(consumer), Message::Revoke { ranges }) => {
                let ids = ranges.iter().flat_map(|range| range.first.0..range.first.0 + u64::from(range.count));
                ids.for_each(|id| assert!(consumer.untold.remove(&id), "{to:?} is told that item {id} is taken back"));
            }
            (Kind::Consumer(consumer), Message::Hurry) => {
                assert!(
                    std::mem::take(&mut consumer.unhurried) && !consumer.held.is_empty(),
                    "{to:?} is told to hurry, and knows or has nothing"
                );
                consumer.hurried_deliveries = HURRIED_WAITS / 2;
            }
            (Kind::Consumer(consumer), Message::Extended) => consumer.extends -= 1,
            (kind, Message::Withdrawn) => {
                client.withdrawals -= 1;
                if let Kind::Consumer(consumer) = kind {
                    consumer.demand = (0, 0);
                }
            }
            (_, Message::Joined) => {
                let answered = client.joins.iter().position(|asked| *asked <= settled);
                client.joins.remove(answered.expect("Joined before its time"));
            }
            (Kind::Control, message) => self.steered(to, message, batch),
            (_, message) => panic!("{to:?} is told {}", message.name()),
        }
    }

    fn delivered(&mut self, to: ClientId, first: u64, attempt: u32, batch: &Batch) {
        for (id, bytes) in (first..).zip(batch.iter()) {
            let ready = self.items.iter().find(|(_, item)| item.state == State::Ready).map_or(self.seen, |(id, _)| *id);
            assert!(id <= ready, "item {id} passes item {ready}");
            if id == self.seen {
                self.seen += 1;
                match self.dead_letters.again.remove(&id) {
                    Some(letter) => assert_eq!(letter, bytes, "item {id}, which was a dead letter"),
                    None => self.check_mark(bytes),
                }
                assert!(
                    self.journal.as_ref().is_none_or(|journal| id < journal.certain),
                    "item {id} is delivered before it is in the journal"
                );
                let item = Item {
                    bytes: bytes.to_vec(),
                    attempts: 0,
                    failures: 0,
                    failures_given_out: 0,
                    failures_recorded: 0,
                    state: State::Ready,
                };
                self.items.insert(id, item);
            }
            let item = self.items.get_mut(&id).expect("an item that is not settled");
            let is_due = matches!(item.state, State::Delayed(due) if due <= self.now);
            assert!(item.state == State::Ready || is_due, "item {id} is delivered while it is {:?}", item.state);
            assert_eq!(item.bytes, bytes, "item {id}");
            item.attempts += 1;
            assert_eq!(item.attempts, attempt, "the attempt of item {id}");
            item.state = State::Held(to);
        }
    }

    /// One producer's items come in the order in which it has put them, none missing and none twice.
    fn check_mark(&mut self, bytes: &[u8]) {
        if self.unmarked {
            return;
        }
        let text = std::str::from_utf8(bytes).expect("a marked item");
        let (mark, number) = text.split_once(':').expect("a marked item");
        let next = self.marks.entry(mark.to_string()).or_default();
        assert_eq!(number.trim_end_matches('.').parse::<u64>(), Ok(*next), "an item of {mark}");
        *next += 1;
    }

    fn note_write(&mut self, ticket: Ticket, record: Record) {
        let (ids, dead) = match record {
            Record::DeadLetter(letter) => {
                let item = &self.items[&letter.id.0];
                assert_eq!((item.state, item.attempts, &item.bytes[..]), (State::Dying, letter.attempts, &letter.item[..]));
                let id = letter.id.0;
                self.dead_letters.dying.insert(id, letter);
                (vec![id], true)
            }
            Record::Results(batch) => {
                let done = self.items.iter().filter(|(_, item)| item.state == State::Done);
                let ids: Vec<u64> = done.map(|(id, _)| *id).take(batch.count() as usize).collect();
                assert_eq!(ids.len(), batch.count() as usize, "a result for each item");
                let consecutive = (ids[0]..).zip(&ids).all(|(expected, id)| expected == *id);
                let in_turn = self.rules.early_bytes_max.is_none() || ids[0] == self.next();
                assert!(consecutive && in_turn, "the results of items {ids:?}, where the next is {}", self.next());
                (ids, false)
            }
        };
        for id in &ids {
            self.items.get_mut(id).expect("an item that is not settled").state = State::Writing;
        }
        assert!(self.writing.insert(ticket, (ids, dead)).is_none());
        self.tickets.push(ticket);
    }

    /// The lowest number of an item that is not settled, as far as items were delivered.
    fn first_unsettled(&self) -> u64 {
        self.items.first_key_value().map_or(self.seen, |(id, _)| *id)
    }

    fn check(&mut self) {
        for item in self.items.values_mut() {
            if matches!(item.state, State::Delayed(due) if due <= self.now) {
                item.state = State::Ready;
            }
        }
        let count = |is: fn(State) -> bool| self.items.values().filter(|item| is(item.state)).count() as u64;
        let status = self.queue.status();
        assert_eq!(status.accepted, status.acknowledged + status.dead + status.dead_removed + status.stored());
        assert_eq!((status.dead_removed, status.paused), (self.dead_letters.removed, self.dead_letters.paused && self.serves()));
        assert_eq!((status.acknowledged, status.dead), (self.acknowledged, self.dead));
        let accepted = self.journal.as_ref().map_or(self.confirmed + self.dead_letters.requeued, |journal| journal.entered);
        assert_eq!(status.accepted, accepted, "what is accepted is confirmed, or on its way to the journal");
        assert_eq!(status.held, count(|state| matches!(state, State::Held(_) | State::Done | State::Writing | State::Settling)));
        let waits = |id| self.rules.early_bytes_max.is_some() && id != self.next();
        let pending = self.items.iter().find(|(id, item)| item.state == State::Done && !waits(**id));
        assert!(pending.is_none(), "the result of item {:?} is not written", pending.map(|(id, _)| id));
        self.check_journaled();
        assert_eq!(status.delayed, count(|state| matches!(state, State::Delayed(_))));
        assert_eq!(status.ready, count(|state| state == State::Ready) + status.accepted - self.seen);
        assert!(status.stored() <= self.rules.capacity_items && status.bytes <= self.rules.capacity_bytes, "the bounds: {status:?}");
        assert_eq!(status.bytes == 0, status.stored() == 0);
        let due = self.items.values().filter_map(|item| if let State::Delayed(due) = item.state { Some(due) } else { None });
        assert_eq!(self.queue.next_timeout(), due.chain(self.dues().map(|(due, ..)| due)).min());

        let phase = self.queue.phase();
        assert!(phase as u8 >= self.phase as u8, "{:?} was before {phase:?}", self.phase);
        self.phase = phase;
        let serves = matches!(phase, Phase::Running | Phase::Draining);
        let uncertain = self.journal.as_ref().map_or(0, |journal| journal.entered - journal.certain);
        let loading = self.journal.as_ref().is_some_and(Journal::is_loading);
        assert!(
            !serves || status.paused || status.ready == uncertain || status.consumers_waiting == 0 || loading || self.holds_back(),
            "items wait while somebody asks"
        );
        assert_eq!(status.producers_finished, self.finished);
        let count = |is: fn(&Kind) -> bool| self.clients.values().filter(|client| is(&client.kind)).count() as u64;
        assert_eq!(status.producers, count(|kind| matches!(kind, Kind::Producer(producer) if producer.welcomed)));
        assert_eq!(status.consumers, count(|kind| matches!(kind, Kind::Consumer(_))));
        let is_hungry = |kind: &Kind| matches!(kind, Kind::Consumer(consumer) if consumer.is_hungry());
        assert_eq!(status.consumers_waiting, count(is_hungry));
        let may_end = phase == Phase::Draining || self.rules.producers_expected.is_some_and(|expected| self.finished >= expected);
        self.check_shown();
        let (mut parked, mut waiting) = (false, 0);
        let first_unsettled = self.first_unsettled();
        for (id, client) in &self.clients {
            let finishes = if self.journal.is_some() { 0 } else { client.finishes };
            assert_eq!((client.withdrawals, finishes), (0, 0), "{id:?} was not answered");
            assert!(client.joins.iter().all(|asked| *asked > first_unsettled), "{id:?} joins in vain");
            match &client.kind {
                Kind::Producer(producer) => {
                    // Who waits until it is certain how far its name has come is told that first.
                    let waits = !producer.welcomed && !self.progress(producer.name.as_deref()).2;
                    assert!(phase == Phase::Running || waits, "{id:?} was not sent away");
                    let parks = if self.journal.is_some() { !producer.parked.is_empty() } else { producer.put > producer.confirmed };
                    parked |= parks;
                    let wishes = producer.wish.is_some() && !producer.recalled && !producer.finished;
                    waiting += u64::from(parks || wishes);
                }
                Kind::Consumer(consumer) => {
                    assert_eq!(consumer.stops > 0, !serves, "{id:?} is told of the end");
                    assert!(consumer.untold.is_empty(), "{id:?} is not told what is taken back: {:?}", consumer.untold);
                    assert_eq!(consumer.extends, 0, "{id:?} was not answered");
                }
                Kind::Control => {}
            }
        }
        assert_eq!(status.producers_waiting, waiting, "who waits stands in line, once");
        let waited_for = waiting > 0 || may_end || self.clients.values().any(|client| !client.joins.is_empty());
        if waited_for && status.consumers_waiting > 0 {
            let gathers = |kind: &Kind| matches!(kind, Kind::Consumer(consumer) if consumer.unhurried && !consumer.held.is_empty());
            assert!(!self.clients.values().any(|client| gathers(&client.kind)), "what is waited for may gather at a consumer");
        }
        assert!(!parked || status.stored() > 0, "what was put waits at an empty queue");
        assert!(!(serves && may_end && status.stored() == 0), "{phase:?}, and there is nothing to wait for");
        for name in &self.finished_names {
            assert!(self.queue.has_finished(name), "{name}");
        }
        for (name, position) in &self.positions {
            assert_eq!(self.queue.position(name).0, *position, "the position of {name}");
        }
    }
    /// Each client is shown as it is.
    fn check_shown(&self) {
        for (id, client) in &self.clients {
            let shown = self.queue.work(*id, self.now);
            match &client.kind {
                Kind::Producer(Producer { welcomed: false, .. }) | Kind::Control => assert_eq!(shown, None),
                Kind::Producer(producer) => {
                    let Some(Work::Producer { name, accepted, parked, finished, .. }) = shown else { panic!("{id:?} is {shown:?}") };
                    let (own_name, journaled) = (producer.name.as_deref().unwrap_or_default(), self.journal.is_some());
                    let (certain, waits) = if journaled {
                        (producer.certain, producer.parked.iter().map(|(batch, _)| u64::from(batch.count())).sum())
                    } else {
                        (producer.confirmed, producer.put - producer.confirmed)
                    };
                    assert_eq!((&name[..], accepted, parked, finished), (own_name, certain, waits, producer.finished), "{id:?}");
                }
                Kind::Consumer(consumer) => {
                    let Some(Work::Consumer { held, at_hand, done, failed, .. }) = shown else { panic!("{id:?} is {shown:?}") };
                    assert_eq!((held, done, failed), (consumer.held.len() as u64, consumer.done, consumer.failed), "{id:?}");
                    let first = consumer.begun.keys().next().or_else(|| consumer.held.first());
                    let expected = first.map(|first| (*first, self.items[first].attempts));
                    assert_eq!(at_hand.map(|at_hand| (at_hand.id.0, at_hand.attempt)), expected, "what {id:?} has at hand");
                }
            }
        }
    }
}
