//! The consumers: what each may still be sent, and what each holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::message::{CloseReason, ItemId};
use common::status::{AtHand, Work};

use super::runs::{Run, Runs};
use super::{ClientId, Refusal};
use crate::limits::{DEMAND_BYTES_MAX, DEMAND_ITEMS_MAX};

#[derive(Debug, Default)]
pub(super) struct Consumers {
    consumers: BTreeMap<ClientId, Consumer>,
    /// Who waits for items, longest first. May name consumers that have withdrawn meanwhile, and nobody twice.
    queue: VecDeque<ClientId>,
    held_items: u64,
    /// Consumers with open demand: counted, since anybody may ask for it as often as they like.
    hungry: u64,
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
    /// When it last got something into empty hands, began or settled something.
    moved: Duration,
    done: u64,
    failed: u64,
}

impl Consumer {
    fn is_hungry(&self) -> bool {
        self.demand_items > 0 && self.demand_bytes > 0
    }

    fn at_hand(&self, now: Duration) -> Option<AtHand> {
        let first = self.held.first()?;
        let (id, past) = match self.begun.first() {
            None => (first.first, first.past),
            Some(&begun) => (begun, self.held.past_of(begun)?),
        };
        let for_ms = now.saturating_sub(self.moved).as_millis() as u64;
        Some(AtHand { id: ItemId(id), attempt: past.attempts, for_ms })
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
        self.hungry -= u64::from(consumer.is_hungry());
        if consumer.queued {
            // Where nothing comes to be delivered, nobody else would take it out.
            self.queue.retain(|waiting| *waiting != client);
        }
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
        let items = consumer.demand_items.saturating_add(items);
        let bytes = consumer.demand_bytes.saturating_add_unsigned(bytes);
        if items > DEMAND_ITEMS_MAX || bytes > DEMAND_BYTES_MAX {
            let words = format!("demands more than {DEMAND_ITEMS_MAX} items or {DEMAND_BYTES_MAX} bytes ahead");
            return Err((CloseReason::Protocol, words));
        }
        let was_hungry = consumer.is_hungry();
        (consumer.demand_items, consumer.demand_bytes) = (items, bytes);
        let is_hungry = consumer.is_hungry();
        let comes = is_hungry && !std::mem::replace(&mut consumer.queued, true);
        self.hungry += u64::from(is_hungry && !was_hungry);
        if comes {
            self.queue.push_back(client);
        }
        Ok(())
    }

    pub(super) fn withdraw(&mut self, client: ClientId) {
        if let Some(consumer) = self.consumers.get_mut(&client) {
            self.hungry -= u64::from(consumer.is_hungry());
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
    pub(super) fn deliver(&mut self, client: ClientId, run: Run, body_bytes: u64, now: Duration) {
        let Some(consumer) = self.consumers.get_mut(&client) else { panic!("{client:?} gets items but has left") };
        if consumer.held.items() == 0 {
            consumer.moved = now;
        }
        consumer.held.insert(run);
        self.held_items += run.count;
        consumer.demand_items -= run.count as u32;
        consumer.demand_bytes = consumer.demand_bytes.saturating_sub_unsigned(body_bytes);
        self.queue.pop_front();
        consumer.queued = consumer.is_hungry();
        if consumer.queued {
            self.queue.push_back(client);
        } else {
            self.hungry -= 1;
        }
    }

    pub(super) fn begin(&mut self, client: ClientId, id: u64, now: Duration) -> Result<(), Refusal> {
        let consumer = self.get(client, "Begin")?;
        // It may cross an end that the coordinator has put to the delivery; nothing to blame on anyone then.
        if let Some(runs) = consumer.held.take(id, 1) {
            runs.into_iter().for_each(|run| consumer.held.insert(run));
            consumer.begun.insert(id);
            consumer.moved = now;
        }
        Ok(())
    }

    /// Notes that a consumer has settled so many of what was taken out of its hands: done, failed, or neither.
    pub(super) fn settled(&mut self, client: ClientId, done: u64, failed: u64, now: Duration) {
        if let Some(consumer) = self.consumers.get_mut(&client) {
            consumer.done += done;
            consumer.failed += failed;
            consumer.moved = now;
        }
    }

    /// What a consumer does.
    pub(super) fn work(&self, client: ClientId, now: Duration) -> Option<Work> {
        let consumer = self.consumers.get(&client)?;
        Some(Work::Consumer {
            held: consumer.held.items(),
            at_hand: consumer.at_hand(now),
            waiting: consumer.is_hungry(),
            done: consumer.done,
            failed: consumer.failed,
        })
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
        self.hungry
    }

    pub(super) fn held_items(&self) -> u64 {
        self.held_items
    }

    fn get(&mut self, client: ClientId, what: &str) -> Result<&mut Consumer, Refusal> {
        self.consumers.get_mut(&client).ok_or_else(|| (CloseReason::Protocol, format!("{what} is for consumers")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::runs::Past;

    #[test]
    fn who_asks_and_goes_while_nothing_comes_leaves_nothing_behind() {
        let mut consumers = Consumers::default();
        for n in 0..100 {
            consumers.join(ClientId(n));
            consumers.demand(ClientId(n), 1, 1).unwrap();
            consumers.leave(ClientId(n));
        }
        assert!(consumers.queue.is_empty() && consumers.consumers.is_empty());
        assert_eq!(consumers.hungry(), 0);
    }

    #[test]
    fn the_hungry_are_those_with_open_demand_in_items_and_in_bytes() {
        let mut consumers = Consumers::default();
        let (a, b) = (ClientId(1), ClientId(2));
        consumers.join(a);
        consumers.join(b);
        consumers.demand(a, 2, 100).unwrap();
        consumers.demand(a, 0, 100).unwrap();
        consumers.demand(b, 2, 0).unwrap();
        assert_eq!(consumers.hungry(), 1);
        consumers.demand(b, u32::MAX, 1).unwrap_err();
        assert_eq!(consumers.hungry(), 1);
        assert_eq!(consumers.next_hungry(), Some((a, 2, 200)));
        consumers.deliver(a, Run::one(0, Past::default()), 500, Duration::ZERO);
        assert_eq!((consumers.hungry(), consumers.next_hungry()), (0, None));
        consumers.demand(a, 0, 1000).unwrap();
        assert_eq!(consumers.hungry(), 1);
        consumers.withdraw(a);
        consumers.withdraw(a);
        assert_eq!(consumers.hungry(), 0);
        consumers.demand(b, 0, 5).unwrap();
        consumers.leave(b);
        assert_eq!(consumers.hungry(), 0);
    }
}
