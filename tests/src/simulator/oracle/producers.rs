//! What producers may put, and what of it is in.

use std::collections::BTreeMap;

use common::batch::Batch;
use common::limits::batch_cost_bytes;
use coordinator::queue::{ClientId, Rules};

use super::Refused;
use crate::simulator::item::Tag;

#[derive(Debug, Default)]
pub(super) struct Producers {
    owners: BTreeMap<ClientId, Tag>,
    streams: BTreeMap<Tag, Stream>,
    connected: BTreeMap<ClientId, Connected>,
    wanted_bytes_max: u64,
    accepted: u64,
    stored_bytes: u64,
}

/// All that comes from one producer, over any number of connections.
#[derive(Debug, Default)]
struct Stream {
    /// Items that its application has put.
    put: u64,
    accepted: u64,
    /// Items that were delivered.
    seen: u64,
    /// Batches that were sent, by their first item.
    batches: BTreeMap<u64, Sent>,
}

#[derive(Debug)]
struct Sent {
    unsettled: u64,
    cost_bytes: u64,
}

#[derive(Debug, Default)]
struct Connected {
    next: u64,
    credit_items: u64,
    credit_bytes: u64,
    recalled: bool,
    finished: bool,
}

impl Producers {
    pub(super) fn new(rules: &Rules) -> Producers {
        let wanted_bytes_max = batch_cost_bytes(rules.item_bytes_max + 4).min(rules.capacity_bytes);
        Producers { wanted_bytes_max, ..Producers::default() }
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

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(super) fn joined(&mut self, client: ClientId) {
        let tag = self.owners[&client];
        let stream = self.streams.entry(tag).or_default();
        // What an earlier connection has parked is forgotten.
        stream.batches.retain(|first, _| *first < stream.accepted);
        self.connected.insert(client, Connected { next: stream.accepted, ..Connected::default() });
    }

    pub(super) fn left(&mut self, client: ClientId) {
        self.connected.remove(&client);
    }

    fn get(&mut self, client: ClientId) -> Result<&mut Connected, Refused> {
        self.connected.get_mut(&client).ok_or(Refused)
    }

    pub(super) fn put(&mut self, client: ClientId, position: u64, batch: &Batch) -> Result<(), Refused> {
        let (items, cost_bytes) = (u64::from(batch.count()), batch_cost_bytes(batch.body_bytes()));
        let producer = self.get(client)?;
        let covered = producer.credit_items >= items && producer.credit_bytes >= cost_bytes;
        if producer.finished || position != producer.next || !covered {
            return Err(Refused);
        }
        producer.recalled = false;
        producer.credit_items -= items;
        producer.credit_bytes -= cost_bytes;
        producer.next += items;
        if let Some(stream) = self.streams.get_mut(&self.owners[&client]) {
            stream.batches.insert(position, Sent { unsettled: items, cost_bytes });
        }
        Ok(())
    }

    pub(super) fn want(&mut self, client: ClientId, bytes: u64) -> Result<(), Refused> {
        let most = self.wanted_bytes_max;
        let producer = self.get(client)?;
        if producer.finished || bytes > most { Err(Refused) } else { Ok(()) }
    }

    pub(super) fn gives_credit_back(&mut self, client: ClientId) -> Result<(), Refused> {
        let producer = self.get(client)?;
        if !std::mem::take(&mut producer.recalled) {
            return Err(Refused);
        }
        (producer.credit_items, producer.credit_bytes) = (0, 0);
        Ok(())
    }

    pub(super) fn finish(&mut self, client: ClientId) -> Result<(), Refused> {
        let accepted = self.owners.get(&client).map_or(0, |tag| self.streams[tag].accepted);
        let producer = self.get(client)?;
        let too_early = producer.next > accepted;
        if too_early || std::mem::replace(&mut producer.finished, true) { Err(Refused) } else { Ok(()) }
    }

    pub(super) fn recalled(&mut self, client: ClientId, position: u64) {
        let Some(producer) = self.connected.get_mut(&client) else { panic!("{client:?} is recalled, but is no producer") };
        assert!(!std::mem::replace(&mut producer.recalled, true), "{client:?} is recalled twice");
        assert_eq!(position, producer.next, "the position of a Recall");
    }

    pub(super) fn confirmed(&mut self, client: ClientId, position: u64, credit_items: u64, credit_bytes: u64) {
        let Some(producer) = self.connected.get_mut(&client) else { panic!("{client:?} gets a Confirm, but is no producer") };
        assert!(!producer.recalled || (credit_items, credit_bytes) == (0, 0), "credit is given to {client:?}, whose credit is recalled");
        producer.credit_items += credit_items;
        producer.credit_bytes += credit_bytes;
        assert!(position <= producer.next, "{client:?} is confirmed {position} items; it has put {}", producer.next);
        let Some(stream) = self.streams.get_mut(&self.owners[&client]) else { return };
        assert!(position >= stream.accepted, "{client:?} is confirmed {position} items; {} were before", stream.accepted);
        let stored = stream.batches.range(stream.accepted..position);
        self.stored_bytes += stored.map(|(_, sent)| sent.cost_bytes).sum::<u64>();
        self.accepted += position - stream.accepted;
        stream.accepted = position;
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
            stream.batches.remove(&first);
        }
    }

    pub(super) fn check_all_seen(&self) {
        for (tag, stream) in &self.streams {
            assert_eq!(stream.seen, stream.accepted, "all that was accepted of producer {tag} was delivered");
        }
    }
}
