//! The queue, whatever happens to it and in whatever order.

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use common::batch::{Batch, BatchBuilder};
use common::limits::batch_cost_bytes;
use common::message::{DeadFate, ItemId, ItemRange, Message, Outcome, Position};
use common::status::Phase;
use coordinator::queue::{ClientId, Input};

use super::steps::{Dead, Slot, Step, Story};
use super::watched::{Client, Consumer, Kind, Producer, Watched};

/// More steps than this show nothing new.
const STEPS_MAX: usize = 300;

/// Of the slots, the first three are for producers, one is for a control connection, the others are for consumers.
const SLOTS: u8 = 8;
const CONTROL: u8 = 3;

/// What any bytes seldom come to by themselves: items in consumers' hands.
const AT_WORK: [Step<'_>; 9] = [
    Step::Connect { slot: 0, name: None },
    Step::Hear { slot: 0 },
    Step::Put { slot: 0, items: 7, bytes: 0, unlike: false },
    // Where there is a journal, it has them.
    Step::Keep { entries: u8::MAX },
    Step::Kept,
    Step::Connect { slot: 4, name: None },
    Step::Connect { slot: 5, name: None },
    Step::Demand { slot: 4, items: 2, bytes: u16::MAX },
    Step::Demand { slot: 5, items: 9, bytes: u16::MAX },
];

/// Each step is answered as PROTOCOL.md says, the bounds hold, no item is lost, mixed up or in two places; and in the end, once
/// clients come that behave, all that was accepted is settled and there is room again, whatever the others did.
pub fn queue(data: &[u8]) {
    revokes_in(data);
}

/// The same; how often something was taken back.
pub fn revokes_in(data: &[u8]) -> u64 {
    let Ok(story) = Story::arbitrary_take_rest(Unstructured::new(data)) else { return 0 };
    let rules = story.bounds.rules();
    let mut clients = Clients { watched: Watched::new(rules), slots: BTreeMap::new(), next: 0 };
    // Too small for a mark that tells whose item it is.
    clients.watched.unmarked = clients.watched.rules.item_bytes_max < 40;
    let beginning = if story.bounds.at_work { &AT_WORK[..] } else { &[] };
    for step in beginning.iter().chain(story.steps.iter().take(STEPS_MAX)) {
        clients.step(step);
    }
    clients.end();
    clients.watched.revokes
}

struct Clients {
    watched: Watched,
    slots: BTreeMap<Slot, ClientId>,
    next: u64,
}

impl Clients {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect { slot, name } => {
                let slot = slot % SLOTS;
                self.leave(slot, false);
                let kind = match slot {
                    0..3 => Kind::Producer(Producer { name: name.map(name_of), ..Producer::default() }),
                    CONTROL => Kind::Control,
                    _ => Kind::Consumer(Consumer::default()),
                };
                let client = self.connect(kind);
                self.slots.insert(slot, client);
            }
            Step::Leave { slot, orderly } => self.leave(slot % SLOTS, orderly),
            Step::Put { slot, items, bytes, unlike } => {
                let bytes = usize::from(bytes) % (self.watched.rules.item_bytes_max as usize + 1);
                if let Some(client) = self.at(slot) {
                    self.put(client, 1 + u64::from(items % 8), bytes, unlike);
                }
            }
            Step::Want { slot, bytes } => {
                let most = batch_cost_bytes(self.watched.rules.item_bytes_max + 4);
                self.say(slot, Message::Want { bytes: u64::from(bytes) % (most + 1) });
            }
            Step::Hear { slot } => {
                if let Some(client) = self.at(slot) {
                    self.hear(client);
                }
            }
            Step::Finish { slot } => self.say(slot, Message::Finish),
            Step::Join { slot } => self.say(slot, Message::Join),
            Step::Withdraw { slot } => self.say(slot, Message::Withdraw),
            Step::Demand { slot, items, bytes } => self.say(slot, Message::Demand { items: items.into(), bytes: bytes.into() }),
            Step::Begin { slot, which } => {
                if let Some(range) = self.held(slot, which, 0) {
                    self.say(slot, Message::Begin { id: range.first });
                }
            }
            Step::Extend { slot, which, ms } => {
                if let Some(range) = self.held(slot, which, 0) {
                    self.say(slot, Message::Extend { id: range.first, by_ms: ms.into() });
                }
            }
            Step::Revoked { slot } => {
                if let Some(client) = self.at(slot) {
                    self.answer(client);
                }
            }
            Step::Late { slot, how } => self.late(slot, how),
            Step::Ack { slot, which, count } => {
                if let Some(range) = self.held(slot, which, count) {
                    self.say(slot, Message::Ack { ranges: vec![range] });
                }
            }
            Step::Result { slot, which, count } => {
                if let (Some(client), Some(range)) = (self.at(slot), self.held(slot, which, count)) {
                    let results = batch((0..range.count).map(|_| b"r".to_vec()));
                    self.watched.say(client, Message::Result { first: range.first, batch: results.header() }, Some(results));
                }
            }
            Step::Return { slot, which, count, ref how } => {
                if let Some(range) = self.held(slot, which, count) {
                    self.say(slot, Message::Return { range, outcome: how.outcome() });
                }
            }
            Step::Say { slot, frame } => {
                let (Some(client), Ok(said)) = (self.at(slot), Message::decode(Bytes::copy_from_slice(frame))) else { return };
                let steers = matches!(said.message, Message::SetPaused { .. } | Message::DeadList { .. } | Message::DeadRemove { .. });
                match &mut self.client(client).kind {
                    Kind::Producer(producer) => producer.rogue = true,
                    Kind::Control if steers => return self.watched.steer(client, said.message),
                    Kind::Control | Kind::Consumer(_) => {}
                }
                self.watched.unmarked |= matches!(said.message, Message::Put { .. });
                self.watched.say(client, said.message, said.batch);
            }
            Step::Written { which } => self.written(which.into()),
            Step::Unheard { slot, ms } => {
                self.watched.now = self.watched.now.saturating_add(Duration::from_millis(ms.into()));
                if let Some(client) = self.at(slot) {
                    self.watched.handle(Input::Unheard { client });
                }
                self.watched.handle(Input::Tick);
            }
            Step::Pass { ms } => {
                self.watched.now = self.watched.now.saturating_add(Duration::from_millis(ms.into()));
                self.watched.handle(Input::Tick);
            }
            Step::Lost { name } => {
                let name = name_of(name);
                self.watched.finished += u64::from(self.watched.finished_names.insert(name.clone()));
                self.watched.handle(Input::ProducerLost { name });
            }
            Step::Drain => drop(self.watched.handle(Input::Drain)),
            Step::Stop => drop(self.watched.handle(Input::Stop)),
            Step::Pause { paused } => self.steer(Message::SetPaused { paused }),
            Step::Dead { from, count, ref how } => {
                let (from, until) =
                    (ItemId(from.into()), ItemId(if count == u8::MAX { u64::MAX } else { u64::from(from) + u64::from(count) }));
                self.steer(match how {
                    Dead::List => Message::DeadList { from, until },
                    Dead::Requeue => Message::DeadRemove { from, until, fate: DeadFate::Requeue },
                    Dead::Drop => Message::DeadRemove { from, until, fate: DeadFate::Drop },
                });
            }
            Step::Keep { entries } => self.watched.journal_works(entries.into()),
            Step::Kept => _ = self.watched.journal_answers(),
            Step::Die => {
                if self.watched.journal.is_some() {
                    self.slots.clear();
                    self.watched.die();
                }
            }
        }
    }

    fn steer(&mut self, message: Message) {
        if let Some(client) = self.at(CONTROL) {
            self.watched.steer(client, message);
        }
    }

    fn at(&self, slot: Slot) -> Option<ClientId> {
        self.slots.get(&(slot % SLOTS)).copied().filter(|client| self.watched.clients.contains_key(client))
    }

    fn client(&mut self, client: ClientId) -> &mut Client {
        self.watched.clients.get_mut(&client).expect("a connected client")
    }

    fn connect(&mut self, kind: Kind) -> ClientId {
        let client = ClientId(self.next);
        self.next += 1;
        let input = match &kind {
            Kind::Producer(producer) => Some(Input::ProducerJoined { client, name: producer.name.clone() }),
            Kind::Consumer(_) => Some(Input::ConsumerJoined { client }),
            Kind::Control => None,
        };
        self.watched.clients.insert(client, Client { kind, ..Client::default() });
        input.map(|input| self.watched.handle(input));
        client
    }

    fn leave(&mut self, slot: Slot, orderly: bool) {
        if let Some(client) = self.at(slot) {
            self.watched.leave(client, orderly);
        }
        self.slots.remove(&slot);
    }

    fn say(&mut self, slot: Slot, message: Message) {
        if let Some(client) = self.at(slot) {
            self.watched.say(client, message, None);
        }
    }

    /// Puts as many items as the credit allows that the producer has heard of.
    fn put(&mut self, client: ClientId, items: u64, bytes: usize, unlike: bool) -> bool {
        let unmarked = self.watched.unmarked;
        let Kind::Producer(producer) = &self.client(client).kind else { return false };
        if producer.finished || !producer.welcomed {
            return false;
        }
        let (credit_items, credit_bytes) = producer.credit;
        let mark = producer.name.clone().unwrap_or_else(|| client.0.to_string());
        let first = producer.put;
        let texts = (first..first + items.min(credit_items.max(0) as u64)).map(|number| {
            let bytes = if unlike { bytes.saturating_sub(number as usize % 3) } else { bytes };
            if unmarked { vec![b'.'; bytes] } else { format!("{:.<bytes$}", format!("{mark}:{number}")).into_bytes() }
        });
        let mut cost = batch_cost_bytes(0);
        let fits = |text: &Vec<u8>| {
            // With a place in a table, whether the batch has one or not.
            cost += text.len() as u64 + 4;
            cost as i64 <= credit_bytes
        };
        let texts: Vec<Vec<u8>> = texts.take_while(fits).collect();
        if texts.is_empty() {
            return false;
        }
        let batch = batch(texts.into_iter());
        // Any will do: only the producers know what it must be.
        let checksum = first * 31 + client.0;
        self.watched.say(client, Message::Put { position: Position(first), checksum, batch: batch.header() }, Some(batch))
    }

    /// A producer takes in what it was told, and answers a recall.
    fn hear(&mut self, client: ClientId) {
        let Kind::Producer(producer) = &mut self.client(client).kind else { return };
        let mut recalled = false;
        for message in std::mem::take(&mut producer.unheard) {
            match message {
                Message::Confirm { credit_items, credit_bytes, .. } => {
                    producer.credit.0 += credit_items as i64;
                    producer.credit.1 = producer.credit.1.saturating_add_unsigned(credit_bytes);
                }
                Message::Recall { position } if position.0 == producer.put => {
                    producer.credit = (0, 0);
                    recalled = true;
                }
                _ => {}
            }
        }
        if recalled && !producer.rogue {
            self.watched.say(client, Message::Recalled, None);
        }
    }

    /// Some of what a consumer holds: consecutive items.
    fn held(&mut self, slot: Slot, which: u8, count: u8) -> Option<ItemRange> {
        let client = self.at(slot)?;
        let Kind::Consumer(consumer) = &self.client(client).kind else { return None };
        let first = *consumer.held.iter().nth(usize::from(which) % consumer.held.len().max(1))?;
        let count = (first..=first + u64::from(count)).take_while(|id| consumer.held.contains(id)).count();
        Some(ItemRange { first: ItemId(first), count: count as u32 })
    }

    /// A consumer has heard what was taken back from it.
    fn answer(&mut self, client: ClientId) {
        if matches!(&self.client(client).kind, Kind::Consumer(consumer) if consumer.revokes > 0) {
            self.watched.say(client, Message::Revoked, None);
        }
    }

    fn late(&mut self, slot: Slot, how: u8) {
        let Some(client) = self.at(slot) else { return };
        let Kind::Consumer(consumer) = &self.client(client).kind else { return };
        let Some(id) = consumer.revoked.first().copied() else { return };
        let range = ItemRange { first: ItemId(id), count: 1 };
        let results = batch([b"r".to_vec()].into_iter());
        match how % 4 {
            0 => self.say(slot, Message::Ack { ranges: vec![range] }),
            1 => self.say(slot, Message::Return { range, outcome: Outcome::Released }),
            2 => self.say(slot, Message::Extend { id: range.first, by_ms: 1 }),
            _ => _ = self.watched.say(client, Message::Result { first: range.first, batch: results.header() }, Some(results)),
        }
    }

    fn written(&mut self, which: usize) {
        if self.watched.tickets.is_empty() {
            return;
        }
        let ticket = self.watched.tickets.swap_remove(which % self.watched.tickets.len());
        let (ids, dead) = self.watched.writing.remove(&ticket).expect("what is being written");
        let mut output_bytes = None;
        if let Some(journal) = &mut self.watched.journal {
            journal.output_bytes += ids.len() as u64;
            output_bytes = Some(journal.output_bytes).filter(|_| !dead);
            self.watched.settling(&ids, output_bytes, dead);
        } else {
            *(if dead { &mut self.watched.dead } else { &mut self.watched.acknowledged }) += ids.len() as u64;
            let bounds = (self.watched.rules.dead_letters_max, self.watched.rules.dead_bytes_max);
            ids.iter().filter(|_| dead).for_each(|id| self.watched.dead_letters.keep(*id, Some(bounds)));
            ids.iter().for_each(|id| drop(self.watched.items.remove(id)));
        }
        self.watched.handle(Input::Written { ticket, output_bytes });
    }

    /// The consumers go; one comes that works off everything, then a producer that wants room, while the others are silent.
    fn end(&mut self) {
        for slot in 4..SLOTS {
            self.leave(slot, false);
        }
        let control = self.connect(Kind::Control);
        self.watched.steer(control, Message::SetPaused { paused: false });
        let worker = self.connect(Kind::Consumer(Consumer::default()));
        self.work_off(worker);
        if self.watched.queue.phase() != Phase::Running {
            return;
        }
        self.grant_wishes();
        let newcomer = self.connect(Kind::Producer(Producer::default()));
        let well_behaved = (0..3).filter_map(|slot| self.at(slot)).collect::<Vec<_>>().into_iter().chain([newcomer]);
        for producer in well_behaved {
            self.hear(producer);
            let (Some(Client { kind: Kind::Producer(known), .. }), bytes) =
                (self.watched.clients.get(&producer), self.watched.rules.item_bytes_max)
            else {
                continue;
            };
            if known.rogue || known.finished {
                continue;
            }
            self.watched.say(producer, Message::Want { bytes: batch_cost_bytes(bytes + 4) }, None);
            self.hear(producer);
            assert!(self.put(producer, 1, bytes as usize, false), "{producer:?} waits in vain at an empty queue");
            self.work_off(worker);
        }
    }

    /// Whoever has asked for room gets it by and by, without asking again; only who has not answered a recall is not to be served.
    fn grant_wishes(&mut self) {
        for _ in 0..SLOTS {
            let all: Vec<ClientId> = self.watched.clients.keys().copied().collect();
            all.into_iter().for_each(|client| self.hear(client));
            self.watched.handle(Input::Tick);
            self.watched.journal_ends();
        }
        for (id, client) in &self.watched.clients {
            if let Kind::Producer(producer) = &client.kind {
                assert!(producer.wish.is_none() || producer.recalled || producer.finished, "{id:?} waits in vain for {:?}", producer.wish);
            }
        }
    }

    fn settle_all(&mut self, worker: ClientId) {
        let Kind::Consumer(consumer) = &self.client(worker).kind else { return };
        let ranges = consumer.held.iter().map(|id| ItemRange { first: ItemId(*id), count: 1 }).collect();
        self.watched.say(worker, Message::Ack { ranges }, None);
    }

    fn work_off(&mut self, worker: ClientId) {
        let serves = matches!(self.watched.queue.phase(), Phase::Running | Phase::Draining);
        for _ in 0..10_000 {
            while !self.watched.tickets.is_empty() {
                self.written(0);
            }
            self.watched.journal_ends();
            self.answer(worker);
            self.settle_all(worker);
            let Kind::Consumer(consumer) = &self.client(worker).kind else { return };
            if !(consumer.demand.0 > 0 && consumer.demand.1 > 0) {
                self.watched.say(worker, Message::Demand { items: 10, bytes: 10_000 }, None);
                self.settle_all(worker);
            }
            if let Some(due) = self.watched.queue.next_timeout() {
                self.watched.now = due;
            }
            self.watched.handle(Input::Tick);
            let parked = self.watched.clients.values().any(|client| match &client.kind {
                Kind::Producer(producer) => producer.put > producer.confirmed,
                Kind::Consumer(_) | Kind::Control => false,
            });
            if !serves || (self.watched.queue.status().stored() == 0 && !parked) {
                return;
            }
        }
        panic!("it never ends: {:?}", self.watched.queue.status());
    }
}

fn name_of(name: u8) -> String {
    ["in", "other"][usize::from(name % 2)].into()
}

fn batch(items: impl Iterator<Item = Vec<u8>>) -> Batch {
    let mut builder = BatchBuilder::default();
    items.for_each(|item| builder.push_bytes(&item));
    builder.take_batch().expect("at least one item")
}
