//! The consumers: what each may still be sent, what each holds, and until when it may.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::limits::{ACK_RANGES_MAX, HURRIED_WAITS};
use common::message::{CloseReason, ItemId};
use common::status::{AtHand, Work};

use super::runs::{Run, Runs};
use super::{ClientId, Lease, Refusal};
use crate::limits::{DEMAND_BYTES_MAX, DEMAND_ITEMS_MAX};

#[derive(Debug, Default)]
pub(super) struct Consumers {
    consumers: BTreeMap<ClientId, Consumer>,
    /// Who waits for items, longest first. May name consumers that have withdrawn meanwhile, and nobody twice.
    queue: VecDeque<ClientId>,
    held_items: u64,
    /// Items that all of them together may still be sent.
    demand_items: u64,
    /// Who may let gather what it settles: it has got something, and not just been told to hurry.
    unhurried: BTreeSet<ClientId>,
    /// Consumers with open demand: counted, since anybody may ask for it as often as they like.
    hungry: u64,
    lease: Option<Lease>,
    /// When which item is taken back from whom; without an item, all that it sits on without having begun any.
    due: BTreeSet<(Duration, ClientId, Option<u64>)>,
}

#[derive(Debug, Default)]
struct Consumer {
    /// What it has asked for and not got; the last item may bring the bytes below zero.
    demand_items: u32,
    demand_bytes: i64,
    queued: bool,
    held: Runs,
    /// Held items that it is known to have begun, and when each is taken back.
    begun: BTreeMap<u64, Duration>,
    /// When all is taken back, while it has begun nothing of what it holds.
    sits_until: Option<Duration>,
    /// Taken back from it, and it may not have heard of that. It gets nothing while there is something here: so this has an end, and one
    /// that has stopped holds up nothing more.
    revoked: Runs,
    /// How many messages about that it has to answer.
    revokes: u32,
    /// So many deliveries more find it in a hurry.
    hurried_deliveries: u32,
    /// When it last got something into empty hands, began or settled something.
    moved: Duration,
    done: u64,
    failed: u64,
}

/// What is taken back from a consumer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) client: ClientId,
    /// In order, and whether the attempt of each has failed.
    pub(super) runs: Vec<(Run, bool)>,
    /// It had not begun any of them.
    pub(super) sat_on: bool,
}

impl Consumer {
    fn is_hungry(&self) -> bool {
        self.demand_items > 0 && self.demand_bytes > 0 && self.revokes == 0
    }

    fn at_hand(&self, now: Duration) -> Option<AtHand> {
        let first = self.held.first()?;
        let (id, past) = match self.begun.first_key_value() {
            None => (first.first, first.past),
            Some((&begun, _)) => (begun, self.held.covering(begun)?.past),
        };
        let for_ms = now.saturating_sub(self.moved).as_millis() as u64;
        Some(AtHand { id: ItemId(id), attempt: past.attempts, for_ms })
    }

    /// What it holds, in order, and whether the attempt of each is known to have failed if it has failed altogether: it has begun it, or
    /// holds nothing else.
    fn blamed(&self) -> Vec<(Run, bool)> {
        let alone = self.held.items() == 1;
        let mut runs = Vec::new();
        for run in self.held.iter() {
            let mut at = run.first;
            for &begun in self.begun.range(run.first..run.end()).map(|(begun, _)| begun) {
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

    /// Takes these items out of its hands, those passed over that were taken back already. None, and nothing is changed, unless it held all.
    fn take(&mut self, first: u64, count: u64) -> Option<Vec<Run>> {
        if self.revokes == 0 {
            return self.held.take(first, count);
        }
        let end = first.checked_add(count)?;
        let (mut parts, mut at) = (Vec::new(), first);
        while at < end {
            let held = self.held.covering(at);
            let until = held.or_else(|| self.revoked.covering(at))?.end().min(end);
            parts.extend(held.map(|_| (at, until - at)));
            at = until;
        }
        Some(parts.into_iter().filter_map(|(first, count)| self.held.take(first, count)).flatten().collect())
    }
}

impl Consumers {
    /// None, with what they will hold for so long at most.
    pub(super) fn new(lease: Option<Lease>) -> Consumers {
        Consumers { lease, ..Consumers::default() }
    }

    pub(super) fn join(&mut self, client: ClientId) {
        self.consumers.insert(client, Consumer::default());
    }

    /// Forgets a consumer. Returns what it held, in order, and whether the attempt of each is known to have failed: the consumer
    /// had begun it, or held nothing else.
    pub(super) fn leave(&mut self, client: ClientId) -> Vec<(Run, bool)> {
        let Some(consumer) = self.consumers.remove(&client) else { return Vec::new() };
        self.hungry -= u64::from(consumer.is_hungry());
        self.demand_items -= u64::from(consumer.demand_items);
        if consumer.queued {
            // Where nothing comes to be delivered, nobody else would take it out.
            self.queue.retain(|waiting| *waiting != client);
        }
        self.held_items -= consumer.held.items();
        self.unhurried.remove(&client);
        let due = consumer.begun.iter().map(|(id, due)| (*due, Some(*id))).chain(consumer.sits_until.map(|due| (due, None)));
        due.for_each(|(due, id)| _ = self.due.remove(&(due, client, id)));
        consumer.blamed()
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
        let more = items - consumer.demand_items;
        (consumer.demand_items, consumer.demand_bytes) = (items, bytes);
        self.demand_items += u64::from(more);
        self.note_hunger(client, was_hungry);
        Ok(())
    }

    fn note_hunger(&mut self, client: ClientId, was_hungry: bool) {
        let Some(consumer) = self.consumers.get_mut(&client) else { return };
        let is_hungry = consumer.is_hungry();
        let comes = is_hungry && !std::mem::replace(&mut consumer.queued, true);
        self.hungry += u64::from(is_hungry);
        self.hungry -= u64::from(was_hungry);
        if comes {
            self.queue.push_back(client);
        }
    }

    pub(super) fn withdraw(&mut self, client: ClientId) {
        if let Some(consumer) = self.consumers.get_mut(&client) {
            self.hungry -= u64::from(consumer.is_hungry());
            self.demand_items -= u64::from(consumer.demand_items);
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
        self.demand_items -= run.count;
        consumer.demand_bytes = consumer.demand_bytes.saturating_sub_unsigned(body_bytes);
        self.queue.pop_front();
        consumer.queued = consumer.is_hungry();
        if consumer.queued {
            self.queue.push_back(client);
        } else {
            self.hungry -= 1;
        }
        match consumer.hurried_deliveries.checked_sub(1) {
            Some(left) => consumer.hurried_deliveries = left,
            None => _ = self.unhurried.insert(client),
        }
        self.watch(client, now);
    }

    /// Who holds something and may let gather what it settles of that: to be told to hurry.
    pub(super) fn take_unhurried(&mut self) -> Vec<ClientId> {
        let mut unhurried = Vec::new();
        for client in std::mem::take(&mut self.unhurried) {
            if let Some(consumer) = self.consumers.get_mut(&client).filter(|consumer| consumer.held.items() > 0) {
                consumer.hurried_deliveries = HURRIED_WAITS / 2;
                unhurried.push(client);
            }
        }
        unhurried
    }

    pub(super) fn begin(&mut self, client: ClientId, id: u64, now: Duration) -> Result<(), Refusal> {
        let due = self.lease.map_or(Duration::MAX, |lease| now.saturating_add(lease.item_timeout).saturating_add(lease.grace));
        let consumer = self.get(client, "Begin")?;
        // It may cross an end that the coordinator has put to the delivery; nothing to blame on anyone then.
        if consumer.held.covering(id).is_some() && !consumer.begun.contains_key(&id) {
            consumer.begun.insert(id, due);
            consumer.moved = now;
            self.note_due(due, client, Some(id));
            self.watch(client, now);
        }
        Ok(())
    }

    /// A consumer needs so much more time for an item, from now on.
    pub(super) fn extend(&mut self, client: ClientId, id: u64, by: Duration, now: Duration) -> Result<(), Refusal> {
        self.begin(client, id, now)?;
        let Some(lease) = self.lease else { return Ok(()) };
        let due = now.saturating_add(by).saturating_add(lease.grace);
        let consumer = self.get(client, "Extend")?;
        let before = match consumer.begun.get_mut(&id) {
            Some(known) if *known < due => std::mem::replace(known, due),
            Some(_) => return Ok(()),
            None if consumer.revoked.covering(id).is_some() => return Ok(()),
            None => return Err((CloseReason::Protocol, format!("this consumer extends item {id}, which it does not hold"))),
        };
        self.due.remove(&(before, client, Some(id)));
        self.note_due(due, client, Some(id));
        Ok(())
    }

    /// When the next item is taken back.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// Whose time is over.
    pub(super) fn overdue(&self, now: Duration) -> Vec<ClientId> {
        let overdue = self.due.iter().take_while(|(due, ..)| *due <= now).map(|(_, client, _)| *client);
        overdue.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A consumer whose time is over has the grace once more.
    pub(super) fn unheard(&mut self, client: ClientId, now: Duration) {
        let (Some(lease), Some(consumer)) = (self.lease, self.consumers.get_mut(&client)) else { return };
        let until = now.saturating_add(lease.grace);
        let times =
            consumer.begun.iter_mut().map(|(id, due)| (Some(*id), due)).chain(consumer.sits_until.iter_mut().map(|due| (None, due)));
        for (id, due) in times.filter(|(_, due)| **due <= now) {
            self.due.remove(&(*due, client, id));
            self.due.insert((until, client, id));
            *due = until;
        }
    }

    /// Takes back what has been held for too long, from one consumer: an item, and what it held besides and had not begun, since it may
    /// have stopped. It is to be told in messages of [`ACK_RANGES_MAX`] runs each.
    pub(super) fn next_expired(&mut self, now: Duration) -> Option<Expired> {
        let &(_, client, id) = self.due.first().filter(|(due, ..)| *due <= now)?;
        let consumer = self.consumers.get(&client)?;
        let runs: Vec<(Run, bool)> =
            consumer.blamed().into_iter().filter(|(run, _)| id == Some(run.first) || !consumer.begun.contains_key(&run.first)).collect();
        let was_hungry = consumer.is_hungry();
        for (run, _) in &runs {
            self.drop_held(client, run.first, run.count);
            let Some(consumer) = self.consumers.get_mut(&client) else { continue };
            consumer.held.take(run.first, run.count);
            consumer.revoked.insert(*run);
        }
        self.watch(client, now);
        if let Some(consumer) = self.consumers.get_mut(&client) {
            consumer.revokes += runs.chunks(ACK_RANGES_MAX).len() as u32;
        }
        self.note_hunger(client, was_hungry);
        Some(Expired { client, runs, sat_on: id.is_none() })
    }

    /// A consumer has heard of something that was taken back from it.
    pub(super) fn revoked(&mut self, client: ClientId) -> Result<(), Refusal> {
        let consumer = self.get(client, "Revoked")?;
        let was_hungry = consumer.is_hungry();
        let Some(left) = consumer.revokes.checked_sub(1) else {
            return Err((CloseReason::Protocol, "Revoked without a Revoke".into()));
        };
        consumer.revokes = left;
        if left == 0 {
            consumer.revoked = Runs::default();
        }
        self.note_hunger(client, was_hungry);
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

    /// Takes items out of a consumer's hands; those that were taken back before it could know are passed over.
    pub(super) fn take(&mut self, client: ClientId, first: u64, count: u64, did: &str, now: Duration) -> Result<Vec<Run>, Refusal> {
        let consumer = self.get(client, "settling")?;
        let runs = consumer.take(first, count).filter(|_| count > 0).ok_or_else(|| {
            let last = first.saturating_add(count.saturating_sub(1));
            (CloseReason::Protocol, format!("this consumer {did} items {first} to {last}, not all of which it holds"))
        })?;
        for run in &runs {
            self.drop_held(client, run.first, run.count);
        }
        if self.lease.is_some() {
            // It does something: what else it holds has its time anew.
            self.note_sits(client, None);
            self.watch(client, now);
        }
        Ok(runs)
    }

    /// A consumer does not hold these any more.
    fn drop_held(&mut self, client: ClientId, first: u64, count: u64) {
        self.held_items -= count;
        let Some(consumer) = self.consumers.get_mut(&client).filter(|consumer| !consumer.begun.is_empty()) else { return };
        while let Some((&begun, &due)) = consumer.begun.range(first..first + count).next() {
            consumer.begun.remove(&begun);
            self.due.remove(&(due, client, Some(begun)));
        }
    }

    fn note_due(&mut self, due: Duration, client: ClientId, id: Option<u64>) {
        if self.lease.is_some() {
            self.due.insert((due, client, id));
        }
    }

    /// Gives a consumer that holds something and has begun nothing its time from now on, unless it runs already.
    fn watch(&mut self, client: ClientId, now: Duration) {
        let (Some(lease), Some(consumer)) = (self.lease, self.consumers.get(&client)) else { return };
        let sits = consumer.held.items() > 0 && consumer.begun.is_empty();
        let due = now.saturating_add(lease.item_timeout).saturating_add(lease.grace);
        let until = sits.then(|| consumer.sits_until.unwrap_or(due));
        self.note_sits(client, until);
    }

    fn note_sits(&mut self, client: ClientId, until: Option<Duration>) {
        let Some(consumer) = self.consumers.get_mut(&client) else { return };
        let before = std::mem::replace(&mut consumer.sits_until, until);
        if before != until {
            before.map(|due| self.due.remove(&(due, client, None)));
            until.map(|due| self.due.insert((due, client, None)));
        }
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

    /// Items that one may still be sent, if it is waiting for some.
    pub(super) fn lacks(&self, client: ClientId) -> u32 {
        self.consumers.get(&client).filter(|consumer| consumer.is_hungry()).map_or(0, |consumer| consumer.demand_items)
    }

    /// Items that all of them together may still be sent.
    pub(super) fn demand_items(&self) -> u64 {
        self.demand_items
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
        consumers.join(ClientId(100));
        consumers.demand(ClientId(100), 1, 1).unwrap();
        consumers.next_hungry().unwrap();
        consumers.deliver(ClientId(100), Run::one(0, Past::default()), 1, Duration::ZERO);
        consumers.leave(ClientId(100));
        assert!(consumers.queue.is_empty() && consumers.consumers.is_empty() && consumers.unhurried.is_empty());
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
