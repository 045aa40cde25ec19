//! What producers may put, and what of it is in.

use std::collections::{BTreeMap, BTreeSet};

use common::batch::Batch;
use common::checksum;
use common::limits::batch_cost_bytes;
use coordinator::queue::{ClientId, Progress, Rules};

use super::Refused;
use crate::simulator::item::Tag;

#[derive(Debug, Default)]
pub(super) struct Producers {
    journaled: bool,
    names: BTreeMap<Tag, String>,
    owners: BTreeMap<ClientId, Tag>,
    streams: BTreeMap<Tag, Stream>,
    connected: BTreeMap<ClientId, Connected>,
    wanted_bytes_max: u64,
    accepted: u64,
    stored_bytes: u64,
    /// Of batches of which a consumer got something since the coordinator has begun.
    touched_bytes: u64,
    finished_names: BTreeSet<String>,
    /// Of these, those that the journal knows of.
    finished_for_good: BTreeSet<String>,
    finished_nameless: u64,
    to_be_replaced: Option<ClientId>,
}

/// How often another may get credit while one waits for some: on what it was granted before, and on what it has asked for before.
const PASSED_MAX: u32 = 2;

/// All that comes from one producer, over any number of connections.
#[derive(Debug, Default)]
struct Stream {
    /// Items that its application has put.
    put: u64,
    accepted: u64,
    /// The checksum of these.
    checksum: u64,
    /// Accepted or on their way to the journal.
    entered: u64,
    /// Its producer has heard that these are accepted.
    confirmed: u64,
    /// Items that were delivered.
    seen: u64,
    /// Batches that were sent, by their first item.
    batches: BTreeMap<u64, Sent>,
}

#[derive(Debug)]
struct Sent {
    unsettled: u64,
    cost_bytes: u64,
    /// The producer's, up to its end.
    checksum: u64,
    touched: bool,
}

#[derive(Debug, Default)]
struct Connected {
    name: Option<String>,
    welcomed: bool,
    confirmed: u64,
    next: u64,
    checksum: u64,
    credit_items: u64,
    credit_bytes: u64,
    recalled: bool,
    finished: bool,
    /// It has asked for credit, and got none since.
    waits: bool,
    /// Who was given credit since it waits, and how often.
    passed_by: BTreeMap<ClientId, u32>,
}

impl Producers {
    pub(super) fn new(rules: &Rules) -> Producers {
        let wanted_bytes_max = batch_cost_bytes(rules.item_bytes_max + 4).min(rules.capacity_bytes);
        Producers { wanted_bytes_max, journaled: rules.journaled.is_some(), ..Producers::default() }
    }

    pub(super) fn owns(&mut self, client: ClientId, tag: Tag) {
        self.owners.insert(client, tag);
        self.streams.entry(tag).or_default();
    }

    pub(super) fn puts(&mut self, tag: Tag, n: u64) {
        let stream = self.streams.entry(tag).or_default();
        stream.put = stream.put.max(n + 1);
    }

    pub(super) fn accepted_of(&self, tag: Tag) -> u64 {
        self.streams.get(&tag).map_or(0, |stream| stream.accepted)
    }

    pub(super) fn confirmed_of(&self, tag: Tag) -> u64 {
        self.streams.get(&tag).map_or(0, |stream| stream.confirmed)
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(super) fn joined(&mut self, client: ClientId, name: Option<String>) {
        let same = self.connected.iter().find(|(_, other)| name.is_some() && other.name == name);
        self.to_be_replaced = same.map(|(other, _)| *other);
        let tag = self.owners[&client];
        let stream = self.streams.entry(tag).or_default();
        // What an earlier connection has parked is forgotten.
        stream.batches.retain(|first, _| *first < stream.entered);
        name.iter().for_each(|name| _ = self.names.insert(tag, name.clone()));
        self.connected.insert(client, Connected { name, ..Connected::default() });
    }

    pub(super) fn left(&mut self, client: ClientId) {
        self.connected.remove(&client);
    }

    pub(super) fn replaced(&mut self, client: ClientId) {
        assert_eq!(self.to_be_replaced.take(), Some(client), "{client:?} is replaced");
        self.left(client);
    }

    pub(super) fn check_replaced(&self) {
        assert_eq!(self.to_be_replaced, None, "another has come under its name, and it is not closed");
    }

    /// It is told how far it has come, which is certain.
    pub(super) fn welcomed(&mut self, client: ClientId, position: u64, checksum: Option<u64>) {
        let stream = &self.streams[&self.owners[&client]];
        let expected = (stream.accepted, self.journaled.then_some(stream.checksum));
        assert_eq!((position, checksum), expected, "how far {client:?} has come, and the checksum of that");
        let Some(producer) = self.connected.get_mut(&client) else { panic!("{client:?} is welcomed, but is no producer") };
        assert!(!std::mem::replace(&mut producer.welcomed, true), "{client:?} is welcomed twice");
        (producer.next, producer.confirmed, producer.checksum) = (position, position, stream.checksum);
        assert_eq!(stream.entered, stream.accepted, "{client:?} is welcomed before it is certain how far it has come");
    }

    pub(super) fn name_of(&self, tag: Tag) -> Option<&str> {
        self.names.get(&tag).map(String::as_str)
    }

    /// A batch is given out to the journal. Returns how far its producer is with it, and the checksum of that.
    pub(super) fn entered(&mut self, tag: Tag, n: u64, count: u64) -> (u64, u64) {
        let Some(stream) = self.streams.get_mut(&tag) else { panic!("an item of producer {tag}, who is not there") };
        assert_eq!(n, stream.entered, "the items of producer {tag} are accepted in the order in which they were put");
        let sent = stream.batches.get(&n).filter(|sent| sent.unsettled == count).expect("what is accepted was sent so");
        self.stored_bytes += sent.cost_bytes;
        stream.entered += count;
        (stream.entered, sent.checksum)
    }

    /// All items before `end` are in the journal.
    pub(super) fn accept(&mut self, tag: Tag, end: u64) {
        let stream = self.streams.get_mut(&tag).expect("what is accepted was sent");
        let (_, last) = stream.batches.range(..end).next_back().expect("what is accepted was sent");
        self.accepted += end - stream.accepted;
        (stream.accepted, stream.checksum) = (end, last.checksum);
    }

    /// Only what the journal knows is true any more.
    pub(super) fn die(&mut self) {
        self.connected.clear();
        self.to_be_replaced = None;
        self.finished_names = self.finished_for_good.clone();
        (self.stored_bytes, self.touched_bytes) = (0, 0);
        for (tag, stream) in &mut self.streams {
            assert!(
                stream.confirmed <= stream.accepted,
                "producer {tag} was told of {} items; {} are left",
                stream.confirmed,
                stream.accepted
            );
            stream.batches.retain(|first, _| *first < stream.accepted);
            stream.entered = stream.accepted;
            for sent in stream.batches.values_mut() {
                sent.touched = false;
                self.stored_bytes += sent.cost_bytes;
            }
        }
    }

    /// What the journal says of a producer.
    pub(super) fn check_recovered(&self, Progress { name, position, checksum }: &Progress, finished: bool) {
        let tag = self.names.iter().find(|(_, known)| **known == **name).map(|(tag, _)| *tag);
        let stream = tag.and_then(|tag| self.streams.get(&tag)).unwrap_or_else(|| panic!("the journal knows {name}"));
        let expected = (stream.accepted, stream.checksum, self.finished_for_good.contains(&**name));
        assert_eq!((*position, *checksum, finished), expected, "how far {name} has come, by the journal");
    }

    pub(super) fn check_finished(&self, count: u64) {
        assert_eq!(count, self.finished_for_good.len() as u64 + self.finished_nameless, "producers that have finished, by the journal");
    }

    pub(super) fn touched_bytes(&self) -> u64 {
        self.touched_bytes
    }

    /// Every producer knows what there is for it to know.
    pub(super) fn check_told(&self, connected: u64) {
        let welcomed = self.connected.values().filter(|producer| producer.welcomed).count() as u64;
        assert_eq!(connected, welcomed, "producers that are connected");
        for (client, producer) in &self.connected {
            let stream = &self.streams[&self.owners[client]];
            assert!(producer.welcomed || stream.entered > stream.accepted, "{client:?} waits to be welcomed in vain");
            assert!(!producer.welcomed || producer.confirmed == stream.accepted, "{client:?} is not told that its items are accepted");
        }
    }

    /// What somebody is told who asks what a producer does; nothing of one that is not welcomed yet.
    pub(super) fn check_shown(&self, client: ClientId, name: &str, accepted: u64, parked: u64, finished: bool) {
        let Some(producer) = self.connected.get(&client).filter(|producer| producer.welcomed) else {
            return assert_eq!((name, accepted, parked, finished), ("", 0, 0, false), "{client:?} is not let in yet");
        };
        let stream = &self.streams[&self.owners[&client]];
        let known = producer.name.as_deref().unwrap_or_default();
        let expected = (known, stream.accepted, producer.next - stream.entered, producer.finished);
        assert_eq!((name, accepted, parked, finished), expected, "what {client:?} does");
    }

    /// Nothing more comes from a producer, and that is for good.
    pub(super) fn finish_for_good(&mut self, name: Option<String>) {
        match name {
            Some(name) => {
                self.finish_name(&name);
                self.finished_for_good.insert(name);
            }
            None => self.finished_nameless += 1,
        }
    }

    /// Nothing more comes under a name.
    pub(super) fn finish_name(&mut self, name: &str) {
        self.finished_names.insert(name.into());
    }

    pub(super) fn finished(&self) -> u64 {
        self.finished_names.len() as u64 + self.finished_nameless
    }

    pub(super) fn withdrawn(&mut self, client: ClientId) {
        if let Some(producer) = self.connected.get_mut(&client) {
            producer.waits = false;
        }
    }

    fn get(&mut self, client: ClientId) -> Result<&mut Connected, Refused> {
        self.connected.get_mut(&client).ok_or(Refused)
    }

    pub(super) fn put(&mut self, client: ClientId, position: u64, said: u64, batch: &Batch) -> Result<(), Refused> {
        let journaled = self.journaled;
        let (items, cost_bytes) = (u64::from(batch.count()), batch_cost_bytes(batch.body_bytes()));
        let producer = self.get(client)?;
        let covered = producer.credit_items >= items && producer.credit_bytes >= cost_bytes;
        if producer.finished || position != producer.next || !covered {
            return Err(Refused);
        }
        if std::mem::take(&mut producer.recalled) {
            // It did not wait until now, and is the last in line.
            producer.passed_by.clear();
        }
        producer.credit_items -= items;
        producer.credit_bytes -= cost_bytes;
        producer.next += items;
        if journaled && producer.name.is_some() {
            producer.checksum = batch.iter().fold(producer.checksum, checksum::add);
        }
        let checksum = producer.checksum;
        assert_eq!(said, checksum, "the checksum that {client:?} says");
        if let Some(stream) = self.streams.get_mut(&self.owners[&client]) {
            stream.batches.insert(position, Sent { unsettled: items, cost_bytes, checksum, touched: false });
        }
        Ok(())
    }

    pub(super) fn want(&mut self, client: ClientId, bytes: u64) -> Result<(), Refused> {
        let most = self.wanted_bytes_max;
        let producer = self.get(client)?;
        if producer.finished || bytes > most {
            return Err(Refused);
        }
        if producer.credit_items == 0 || producer.credit_bytes < bytes {
            producer.waits = true;
            producer.passed_by.clear();
        }
        Ok(())
    }

    pub(super) fn gives_credit_back(&mut self, client: ClientId) -> Result<(), Refused> {
        let producer = self.get(client)?;
        if !std::mem::take(&mut producer.recalled) {
            return Err(Refused);
        }
        producer.passed_by.clear();
        (producer.credit_items, producer.credit_bytes) = (0, 0);
        Ok(())
    }

    /// Its name, if it has one.
    pub(super) fn finish(&mut self, client: ClientId) -> Result<Option<String>, Refused> {
        let accepted = self.owners.get(&client).map_or(0, |tag| self.streams[tag].accepted);
        let producer = self.get(client)?;
        let too_early = producer.next > accepted;
        if too_early || std::mem::replace(&mut producer.finished, true) {
            return Err(Refused);
        }
        producer.waits = false;
        Ok(producer.name.clone())
    }

    pub(super) fn recalled(&mut self, client: ClientId, position: u64) {
        let Some(producer) = self.connected.get_mut(&client) else { panic!("{client:?} is recalled, but is no producer") };
        assert!(!std::mem::replace(&mut producer.recalled, true), "{client:?} is recalled twice");
        assert_eq!(position, producer.next, "the position of a Recall");
    }

    /// While somebody waits for credit, nobody else gets some again and again.
    fn gets_credit(&mut self, client: ClientId) {
        for (other, producer) in self.connected.iter_mut().filter(|(_, producer)| producer.waits && !producer.recalled) {
            if *other == client {
                producer.waits = false;
                continue;
            }
            let times = producer.passed_by.entry(client).or_default();
            *times += 1;
            assert!(*times <= PASSED_MAX, "{client:?} gets credit {times} times while {other:?} waits for some");
        }
    }

    pub(super) fn confirmed(&mut self, client: ClientId, position: u64, credit_items: u64, credit_bytes: u64) {
        if credit_items > 0 || credit_bytes > 0 {
            self.gets_credit(client);
        }
        let Some(producer) = self.connected.get_mut(&client) else { panic!("{client:?} gets a Confirm, but is no producer") };
        assert!(!producer.recalled || (credit_items, credit_bytes) == (0, 0), "credit is given to {client:?}, whose credit is recalled");
        producer.credit_items += credit_items;
        producer.credit_bytes += credit_bytes;
        assert!(position <= producer.next, "{client:?} is confirmed {position} items; it has put {}", producer.next);
        producer.confirmed = position;
        let Some(stream) = self.streams.get_mut(&self.owners[&client]) else { return };
        stream.confirmed = position;
        if self.journaled {
            let accepted = stream.accepted;
            assert!(position <= accepted, "{client:?} is confirmed {position} items; {accepted} are in the journal");
            return;
        }
        assert!(position >= stream.accepted, "{client:?} is confirmed {position} items; {} were before", stream.accepted);
        let stored = stream.batches.range(stream.accepted..position);
        self.stored_bytes += stored.map(|(_, sent)| sent.cost_bytes).sum::<u64>();
        self.accepted += position - stream.accepted;
        (stream.accepted, stream.entered) = (position, position);
    }

    /// An item is delivered.
    pub(super) fn touch(&mut self, tag: Tag, n: u64) {
        let stream = self.streams.get_mut(&tag).expect("an item of a producer");
        let (_, sent) = stream.batches.range_mut(..=n).next_back().expect("an item that was sent");
        self.touched_bytes += if std::mem::replace(&mut sent.touched, true) { 0 } else { sent.cost_bytes };
    }

    /// An item is delivered for the first time: the next of its producer's.
    pub(super) fn seen(&mut self, tag: Tag, n: u64) {
        let Some(stream) = self.streams.get_mut(&tag) else { panic!("an item of producer {tag}, who is not there") };
        assert_eq!(n, stream.seen, "the items of producer {tag} leave in the order in which they were put");
        stream.seen += 1;
        assert!(stream.seen <= stream.put, "item {n} of producer {tag} was never put");
    }

    pub(super) fn settled(&mut self, tag: Tag, n: u64) {
        let stream = self.streams.get_mut(&tag).expect("what is settled was seen");
        let (&first, sent) = stream.batches.range_mut(..=n).next_back().expect("what is settled was sent");
        sent.unsettled -= 1;
        if sent.unsettled == 0 {
            self.stored_bytes -= sent.cost_bytes;
            self.touched_bytes -= if sent.touched { sent.cost_bytes } else { 0 };
            stream.batches.remove(&first);
        }
    }

    /// A producer has said goodbye, behind all that its application has put.
    pub(super) fn check_all_heard(&self, client: ClientId) {
        if let Some(producer) = self.connected.get(&client) {
            let put = self.owners.get(&client).map_or(0, |tag| self.streams[tag].put);
            assert_eq!(producer.next, put, "what {client:?} has put before its goodbye");
        }
    }

    /// Everything before `position` of a producer is settled.
    pub(super) fn check_settled(&self, tag: Tag, position: u64) {
        let left = self.streams.get(&tag).and_then(|stream| stream.batches.range(..position).next());
        assert!(left.is_none(), "producer {tag} believes that all its items before {position} are settled: {left:?}");
    }

    pub(super) fn check_all_seen(&self) {
        for (tag, stream) in &self.streams {
            assert_eq!(stream.seen, stream.accepted, "all that was accepted of producer {tag} was delivered");
        }
    }
}
