//! The consumers: what each may still be sent, and what each holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::message::CloseReason;

use super::runs::{Run, Runs};
use super::{ClientId, Refusal};
use crate::limits::{DEMAND_BYTES_MAX, DEMAND_ITEMS_MAX};

#[derive(Debug, Default)]
pub(super) struct Consumers {
    consumers: BTreeMap<ClientId, Consumer>,
    /// Who waits for items, longest first. May name consumers that have gone or withdrawn meanwhile, and nobody twice.
    queue: VecDeque<ClientId>,
    held_items: u64,
}

#[derive(Debug, Default)]
struct Consumer {
    /// What it has asked for and not got; the last item may bring the bytes below zero.
    demand_items: u32,
    demand_bytes: i64,
    queued: bool,
    held: Runs,
    /// Held items that it is known to have begun.
    begun: BTreeSet<u64>,
}

impl Consumer {
    fn is_hungry(&self) -> bool {
        self.demand_items > 0 && self.demand_bytes > 0
    }
}

impl Consumers {
    pub(super) fn join(&mut self, client: ClientId) {
        self.consumers.insert(client, Consumer::default());
    }

    /// Forgets a consumer. Returns what it held, in order, and whether the attempt of each is known to have failed: the consumer
    /// had begun it, or held nothing else.
    pub(super) fn leave(&mut self, client: ClientId) -> Vec<(Run, bool)> {
        let Some(mut consumer) = self.consumers.remove(&client) else { return Vec::new() };
        self.held_items -= consumer.held.items();
        let alone = consumer.held.items() == 1;
        let mut runs = Vec::new();
        for run in consumer.held.drain() {
            let mut at = run.first;
            for &begun in consumer.begun.range(run.first..run.end()) {
                if at < begun {
                    runs.push((Run { first: at, count: begun - at, past: run.past }, false));
                }
                runs.push((Run::one(begun, run.past), true));
                at = begun + 1;
            }
            if at < run.end() {
                runs.push((Run { first: at, count: run.end() - at, past: run.past }, alone));
            }
        }
        runs
    }

    pub(super) fn demand(&mut self, client: ClientId, items: u32, bytes: u64) -> Result<(), Refusal> {
        let consumer = self.get(client, "Demand")?;
        consumer.demand_items = consumer.demand_items.saturating_add(items);
        consumer.demand_bytes = consumer.demand_bytes.saturating_add_unsigned(bytes);
        if consumer.demand_items > DEMAND_ITEMS_MAX || consumer.demand_bytes > DEMAND_BYTES_MAX {
            let words = format!("demands more than {DEMAND_ITEMS_MAX} items or {DEMAND_BYTES_MAX} bytes ahead");
            return Err((CloseReason::Protocol, words));
        }
        if consumer.is_hungry() && !std::mem::replace(&mut consumer.queued, true) {
            self.queue.push_back(client);
        }
        Ok(())
    }

    pub(super) fn withdraw(&mut self, client: ClientId) {
        if let Some(consumer) = self.consumers.get_mut(&client) {
            (consumer.demand_items, consumer.demand_bytes) = (0, 0);
        }
    }

    /// The consumer that has waited longest, and how much it asks for: items and bytes.
    pub(super) fn next_hungry(&mut self) -> Option<(ClientId, u32, u64)> {
        while let Some(&client) = self.queue.front() {
            match self.consumers.get_mut(&client) {
                Some(consumer) if consumer.is_hungry() => return Some((client, consumer.demand_items, consumer.demand_bytes as u64)),
                Some(consumer) => consumer.queued = false,
                None => {}
            }
            self.queue.pop_front();
        }
        None
    }

    /// Notes that the consumer at the front of the queue gets `run`.
    pub(super) fn deliver(&mut self, client: ClientId, run: Run, body_bytes: u64) {
        let Some(consumer) = self.consumers.get_mut(&client) else { panic!("{client:?} gets items but has left") };
        consumer.held.insert(run);
        self.held_items += run.count;
        consumer.demand_items -= run.count as u32;
        consumer.demand_bytes = consumer.demand_bytes.saturating_sub_unsigned(body_bytes);
        self.queue.pop_front();
        consumer.queued = consumer.is_hungry();
        if consumer.queued {
            self.queue.push_back(client);
        }
    }

    pub(super) fn begin(&mut self, client: ClientId, id: u64) -> Result<(), Refusal> {
        let consumer = self.get(client, "Begin")?;
        // It may cross an end that the coordinator has put to the delivery; nothing to blame on anyone then.
        if let Some(runs) = consumer.held.take(id, 1) {
            runs.into_iter().for_each(|run| consumer.held.insert(run));
            consumer.begun.insert(id);
        }
        Ok(())
    }

    /// Takes items out of a consumer's hands.
    pub(super) fn take(&mut self, client: ClientId, first: u64, count: u64, did: &str) -> Result<Vec<Run>, Refusal> {
        let consumer = self.get(client, "settling")?;
        let runs = consumer.held.take(first, count).filter(|_| count > 0).ok_or_else(|| {
            let last = first.saturating_add(count.saturating_sub(1));
            (CloseReason::Protocol, format!("this consumer {did} items {first} to {last}, not all of which it holds"))
        })?;
        if !consumer.begun.is_empty() {
            let end = first + count;
            while let Some(&begun) = consumer.begun.range(first..end).next() {
                consumer.begun.remove(&begun);
            }
        }
        self.held_items -= count;
        Ok(runs)
    }

    pub(super) fn all(&self) -> Vec<ClientId> {
        self.consumers.keys().copied().collect()
    }

    pub(super) fn connected(&self) -> u64 {
        self.consumers.len() as u64
    }

    pub(super) fn hungry(&self) -> u64 {
        self.consumers.values().filter(|consumer| consumer.is_hungry()).count() as u64
    }

    pub(super) fn held_items(&self) -> u64 {
        self.held_items
    }

    fn get(&mut self, client: ClientId, what: &str) -> Result<&mut Consumer, Refusal> {
        self.consumers.get_mut(&client).ok_or_else(|| (CloseReason::Protocol, format!("{what} is for consumers")))
    }
}
