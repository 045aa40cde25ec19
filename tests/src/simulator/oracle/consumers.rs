//! What consumers have asked for, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};

use common::batch::Batch;
use coordinator::limits::{DEMAND_BYTES_MAX, DEMAND_ITEMS_MAX};
use coordinator::queue::ClientId;

use super::Refused;

#[derive(Debug, Default)]
pub(super) struct Consumers {
    consumers: BTreeMap<ClientId, Consumer>,
}

#[derive(Debug, Default)]
struct Consumer {
    /// Items asked for and not got.
    items: u64,
    /// Likewise; the last item may bring it below zero.
    bytes: i64,
    /// Who was served since it asks.
    passed_by: BTreeSet<ClientId>,
    /// How often it has to answer that something was taken back from it. Until then it gets nothing.
    revokes: u32,
    told_to_stop: bool,
    done: u64,
    failed: u64,
}

impl Consumer {
    fn is_hungry(&self) -> bool {
        self.items > 0 && self.bytes > 0 && self.revokes == 0
    }
}

impl Consumers {
    pub(super) fn joined(&mut self, client: ClientId) {
        self.consumers.insert(client, Consumer::default());
    }

    /// True if it was one.
    pub(super) fn left(&mut self, client: ClientId) -> bool {
        self.consumers.remove(&client).is_some()
    }

    pub(super) fn check(&self, client: ClientId) -> Result<(), Refused> {
        if self.consumers.contains_key(&client) { Ok(()) } else { Err(Refused) }
    }

    pub(super) fn demand(&mut self, client: ClientId, items: u32, bytes: u64) -> Result<(), Refused> {
        let consumer = self.consumers.get_mut(&client).ok_or(Refused)?;
        if !consumer.is_hungry() {
            consumer.passed_by.clear();
        }
        consumer.items += u64::from(items);
        consumer.bytes = consumer.bytes.saturating_add_unsigned(bytes);
        let fair = consumer.items <= u64::from(DEMAND_ITEMS_MAX) && consumer.bytes <= DEMAND_BYTES_MAX;
        if fair { Ok(()) } else { Err(Refused) }
    }

    /// Something is taken back from it.
    pub(super) fn revoke(&mut self, client: ClientId) {
        if let Some(consumer) = self.consumers.get_mut(&client) {
            consumer.revokes += 1;
        }
    }

    /// It has heard of that. True once it has heard of all.
    pub(super) fn revoked(&mut self, client: ClientId) -> Result<bool, Refused> {
        let consumer = self.consumers.get_mut(&client).filter(|consumer| consumer.revokes > 0).ok_or(Refused)?;
        consumer.revokes -= 1;
        consumer.passed_by.clear();
        Ok(consumer.revokes == 0)
    }

    /// It has settled so many.
    pub(super) fn settled(&mut self, client: ClientId, count: usize, done: bool) {
        if let Some(consumer) = self.consumers.get_mut(&client) {
            *(if done { &mut consumer.done } else { &mut consumer.failed }) += count as u64;
        }
    }

    /// Whether a consumer waits for items, how many it has done, and how many attempts of its have failed by its own word.
    pub(super) fn work(&self, client: ClientId) -> Option<(bool, u64, u64)> {
        self.consumers.get(&client).map(|consumer| (consumer.is_hungry(), consumer.done, consumer.failed))
    }

    pub(super) fn items(&self, client: ClientId) -> u64 {
        self.consumers.get(&client).map_or(0, |consumer| consumer.items)
    }

    pub(super) fn withdrawn(&mut self, client: ClientId) {
        if let Some(consumer) = self.consumers.get_mut(&client) {
            (consumer.items, consumer.bytes) = (0, 0);
        }
    }

    pub(super) fn delivered(&mut self, client: ClientId, batch: &Batch) {
        for (other, waits) in self.consumers.iter_mut().filter(|(other, consumer)| **other != client && consumer.is_hungry()) {
            assert!(waits.passed_by.insert(client), "{client:?} is served twice while {other:?} waits");
        }
        let consumer = self.consumers.get_mut(&client).unwrap_or_else(|| panic!("items go to {client:?}, which is no consumer"));
        assert!(!consumer.told_to_stop, "{client:?} gets items behind Stop");
        let (items, bytes) = (u64::from(batch.count()), batch.iter().map(|item| item.len() as i64).sum::<i64>());
        let covered = consumer.bytes > 0 && (items == 1 || bytes <= consumer.bytes);
        assert!(items <= consumer.items && covered, "{client:?} gets {items} items of {bytes} bytes on a demand of {consumer:?}");
        consumer.items -= items;
        consumer.bytes -= batch.body_bytes() as i64;
        consumer.passed_by.clear();
    }

    pub(super) fn told_to_stop(&mut self, client: ClientId) {
        let consumer = self.consumers.get_mut(&client).unwrap_or_else(|| panic!("{client:?} is told to stop, but is no consumer"));
        assert!(!std::mem::replace(&mut consumer.told_to_stop, true), "{client:?} is told to stop twice");
    }

    /// Somebody tells the queue to stop, though it may have come to its end before.
    pub(super) fn are_told_again(&mut self) {
        self.consumers.values_mut().for_each(|consumer| consumer.told_to_stop = false);
    }

    pub(super) fn is_hungry(&self, client: ClientId) -> bool {
        self.consumers.get(&client).is_some_and(Consumer::is_hungry)
    }

    pub(super) fn hungry(&self) -> u64 {
        self.consumers.values().filter(|consumer| consumer.is_hungry()).count() as u64
    }
}
