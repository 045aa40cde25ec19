//! Where each item should be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use coordinator::queue::{ClientId, Lease, Rules};

use super::Refused;
use crate::simulator::item::Tag;

/// The coordinator here has time whenever its queue asks for it.
const LATE_MAX: Duration = Duration::from_micros(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Delayed(Duration),
    Held(ClientId),
    /// Its result was sent, but not handed to the writer.
    HasResult,
    /// It is to be given up, but was not handed to the writer.
    Dying,
    Writing {
        dead: bool,
    },
    /// It is settled once the journal knows.
    Settling,
    Acknowledged,
    Dead,
}

#[derive(Debug)]
struct Item {
    whose: (Tag, u64),
    attempts: u32,
    failures: u32,
    /// As the journal knows.
    failures_recorded: u32,
    begun: bool,
    /// When it is taken back from whoever holds it, if it has begun it.
    due: Duration,
    place: Place,
}

/// All items that were ever delivered, by number; those above were not.
#[derive(Debug, Default)]
pub(super) struct Items {
    items: Vec<Item>,
    journaled: bool,
    accepted: u64,
    /// Items that were given out to the journal, and those that are in it.
    entered: u64,
    certain: u64,
    /// What the journal is to be told: of items to be settled, whether they are dead and how long the output file is; of others' failures.
    settlements: BTreeMap<u64, (bool, Option<u64>)>,
    failures: BTreeMap<u64, u32>,
    settling: u64,
    unsettled: BTreeSet<u64>,
    /// Ready once more.
    returned: BTreeSet<u64>,
    delayed: BTreeSet<(Duration, u64)>,
    held: BTreeMap<ClientId, BTreeSet<u64>>,
    /// Those with a result that was not handed to the writer, and how long that is.
    results: VecDeque<(u64, usize)>,
    lease: Option<Lease>,
    /// Where results are written in order: bytes of those that wait before others are held back.
    early_bytes_max: Option<u64>,
    /// Until when consumers that have begun nothing may hold what they hold.
    sits: BTreeMap<ClientId, Duration>,
    /// Taken back from consumers that may not have heard of it; and those that they are to be told of.
    revoked: BTreeMap<ClientId, BTreeSet<u64>>,
    untold: BTreeMap<ClientId, BTreeSet<u64>>,
    dying: BTreeSet<u64>,
    writing: u64,
    acknowledged: u64,
    dead: u64,
    /// Dead letters that are none any more, and those of them that are items again, for sure.
    dead_removed: u64,
    requeued: u64,
    redelivered: u64,
}

impl Items {
    pub(super) fn new(rules: &Rules) -> Items {
        let &Rules { lease, early_bytes_max, .. } = rules;
        Items { journaled: rules.journaled.is_some(), lease, early_bytes_max, ..Items::default() }
    }

    /// Items are given out to the journal.
    pub(super) fn enter(&mut self, first: u64, count: u64) {
        assert_eq!(first, self.entered, "the number of the next item");
        self.entered += count;
    }

    /// So many more are in it.
    pub(super) fn is_certain(&mut self, count: u64) {
        self.certain += count;
    }

    /// What is in the journal.
    pub(super) fn certain(&self) -> u64 {
        self.certain
    }

    /// Items that may be given to consumers do not count as such before they are in the journal.
    pub(super) fn uncertain(&self) -> u64 {
        self.entered - self.certain
    }

    pub(super) fn settlement_given_out(&mut self, id: u64, dead: bool, output_bytes: Option<u64>) {
        assert_eq!(self.settlements.remove(&id), Some((dead, output_bytes)), "item {id} is settled in the journal");
    }

    pub(super) fn check_letter(&self, id: u64, attempts: u32, whose: Option<(Tag, u64)>) {
        let item = &self.items[id as usize];
        assert_eq!((item.attempts, Some(item.whose)), (attempts, whose), "the dead letter of item {id}");
    }

    pub(super) fn is_dead(&self, id: u64) -> bool {
        self.items[id as usize].place == Place::Dead
    }

    pub(super) fn whose(&self, id: u64) -> (Tag, u64) {
        self.items[id as usize].whose
    }

    pub(super) fn dead_letters_removed(&mut self, count: u64) {
        self.dead -= count;
        self.dead_removed += count;
    }

    pub(super) fn dead_removed(&self) -> u64 {
        self.dead_removed
    }

    /// A dead letter is an item again.
    pub(super) fn is_requeued(&mut self) {
        self.requeued += 1;
    }

    pub(super) fn requeued(&self) -> u64 {
        self.requeued
    }

    pub(super) fn failure_given_out(&mut self, id: u64, failures: u32) {
        let item = &self.items[id as usize];
        assert_eq!((failures, item.place == Place::Settling), (item.failures, false), "the failures of item {id}, in the journal");
        self.failures.remove(&id);
    }

    pub(super) fn failure_is_certain(&mut self, id: u64, failures: u32) {
        self.items[id as usize].failures_recorded = failures;
    }

    /// The journal knows that an item is settled.
    pub(super) fn settled(&mut self, id: u64, dead: bool) -> (Tag, u64) {
        let item = &mut self.items[id as usize];
        assert_eq!(item.place, Place::Settling, "item {id} is settled");
        item.place = if dead { Place::Dead } else { Place::Acknowledged };
        self.settling -= 1;
        *(if dead { &mut self.dead } else { &mut self.acknowledged }) += 1;
        self.unsettled.remove(&id);
        item.whose
    }

    /// Only what the journal knows is true any more.
    pub(super) fn die(&mut self) {
        let (acknowledged, dead, certain) = (self.acknowledged, self.dead, self.certain);
        let (dead_removed, requeued) = (self.dead_removed, self.requeued);
        let (mut items, mut unsettled) = (std::mem::take(&mut self.items), std::mem::take(&mut self.unsettled));
        unsettled.split_off(&certain);
        for item in items.iter_mut().filter(|item| !matches!(item.place, Place::Acknowledged | Place::Dead)) {
            (item.place, item.begun) = (Place::Ready, false);
            (item.attempts, item.failures) = (item.failures_recorded, item.failures_recorded);
        }
        let returned = unsettled.range(..items.len() as u64).copied().collect();
        let &mut Items { lease, early_bytes_max, .. } = self;
        let counts = Items { acknowledged, dead, dead_removed, requeued, journaled: true, lease, early_bytes_max, ..Items::default() };
        let known = Items { accepted: certain, entered: certain, certain, ..counts };
        *self = Items { items, unsettled, returned, ..known };
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn accept(&mut self, accepted: u64) {
        self.unsettled.extend(self.accepted..accepted);
        self.accepted = accepted;
        if self.journaled {
            assert_eq!(accepted, self.entered, "what is accepted is given out to the journal");
        } else {
            (self.entered, self.certain) = (accepted, accepted);
        }
        assert!(self.items.len() as u64 <= accepted, "items are delivered before they are accepted");
    }

    /// Acknowledged, dead, delayed, held.
    pub(super) fn counts(&self) -> (u64, u64, u64, u64) {
        let held = self.held.values().map(|ids| ids.len() as u64).sum::<u64>();
        (self.acknowledged, self.dead, self.delayed.len() as u64, held + self.results.len() as u64 + self.writing + self.settling)
    }

    /// Deliveries beyond each item's first.
    pub(super) fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// True if it is the first time.
    pub(super) fn delivered(&mut self, id: u64, client: ClientId, attempt: u32, whose: (Tag, u64)) -> bool {
        let fresh = self.items.len() as u64;
        let first = self.returned.first().copied().unwrap_or(fresh);
        assert_eq!(id, first, "the first ready item is delivered first");
        assert!(!self.journaled || id < self.certain, "item {id} is delivered before it is in the journal");
        if id == fresh {
            let item =
                Item { whose, attempts: 0, failures: 0, failures_recorded: 0, begun: false, due: Duration::ZERO, place: Place::Ready };
            self.items.push(item);
        }
        if let Some(most) = self.early_bytes_max {
            let waiting: usize = self.results.iter().map(|(_, bytes)| bytes).sum();
            assert!((waiting as u64) < most.max(1) || id == self.next(), "item {id} is delivered while {waiting} bytes wait for another");
        }
        self.returned.remove(&id);
        let item = &mut self.items[id as usize];
        assert_eq!(item.whose, whose, "item {id} has changed");
        assert_eq!(item.place, Place::Ready, "item {id} is delivered");
        item.attempts += 1;
        assert_eq!(item.attempts, attempt, "the attempt of item {id}");
        self.redelivered += u64::from(attempt > 1);
        (item.begun, item.place) = (false, Place::Held(client));
        self.held.entry(client).or_default().insert(id);
        id == fresh
    }

    /// Items that a client holds, and those that it held and may not know to be taken back: all of these.
    pub(super) fn held_range(&self, client: ClientId, first: u64, count: u64) -> Result<(Vec<u64>, Vec<u64>), Refused> {
        let end = first.checked_add(count).ok_or(Refused)?;
        let within =
            |ids: &BTreeMap<ClientId, BTreeSet<u64>>| ids.get(&client).map_or(Vec::new(), |ids| ids.range(first..end).copied().collect());
        let (held, late) = (within(&self.held), within(&self.revoked));
        if count > 0 && (held.len() + late.len()) as u64 == count { Ok((held, late)) } else { Err(Refused) }
    }

    fn holds(&self, client: ClientId, id: u64) -> bool {
        self.held.get(&client).is_some_and(|held| held.contains(&id))
    }

    fn time(&self, now: Duration) -> Duration {
        self.lease.map_or(Duration::ZERO, |lease| now + lease.item_timeout + lease.grace)
    }

    pub(super) fn begin(&mut self, client: ClientId, id: u64, now: Duration) {
        if self.holds(client, id) && !self.items[id as usize].begun {
            (self.items[id as usize].begun, self.items[id as usize].due) = (true, self.time(now));
        }
    }

    pub(super) fn extend(&mut self, client: ClientId, id: u64, by: Duration, now: Duration) -> Result<(), Refused> {
        self.held_range(client, id, 1).map(drop).or_else(|refused| if self.lease.is_none() { Ok(()) } else { Err(refused) })?;
        self.begin(client, id, now);
        if self.holds(client, id) {
            let item = &mut self.items[id as usize];
            item.due = item.due.max(now + by + self.lease.map_or(Duration::ZERO, |lease| lease.grace));
        }
        Ok(())
    }

    /// Who holds something and has begun nothing of it has its time from now on.
    pub(super) fn watch(&mut self, now: Duration) {
        if self.lease.is_none() {
            return;
        }
        let due = self.time(now);
        for (client, held) in &self.held {
            if held.is_empty() || held.iter().any(|id| self.items[*id as usize].begun) {
                self.sits.remove(client);
            } else {
                self.sits.entry(*client).or_insert(due);
            }
        }
    }

    pub(super) fn held_by(&self, client: ClientId) -> u64 {
        self.held.get(&client).map_or(0, |held| held.len() as u64)
    }

    /// The first that a consumer has begun, else the first that it holds; and in which attempt.
    pub(super) fn at_hand(&self, client: ClientId) -> Option<(u64, u32)> {
        let held = self.held.get(&client)?;
        let id = *held.iter().find(|id| self.items[**id as usize].begun).or(held.first())?;
        Some((id, self.items[id as usize].attempts))
    }

    /// What it has said is not heard yet.
    pub(super) fn unheard(&mut self, client: ClientId, now: Duration) {
        let until = now + self.lease.map_or(Duration::ZERO, |lease| lease.grace);
        for &id in self.held.get(&client).into_iter().flatten() {
            let item = &mut self.items[id as usize];
            if item.begun && item.due <= now {
                item.due = until;
            }
        }
        if let Some(due) = self.sits.get_mut(&client).filter(|due| **due <= now) {
            *due = until;
        }
    }

    /// The clock is looked at: whom something is taken back from, as often as that happens.
    pub(super) fn expire(&mut self, now: Duration, rules: &Rules) -> Vec<ClientId> {
        let mut clients = Vec::new();
        while self.lease.is_some() {
            let all = self.held.iter().flat_map(|(client, held)| held.iter().map(|id| (*client, *id)));
            let begun = all.filter(|(_, id)| self.items[*id as usize].begun);
            let begun = begun.map(|(client, id)| (self.items[id as usize].due, client, Some(id)));
            let sits = self.sits.iter().map(|(client, due)| (*due, *client, None));
            let Some((due, client, id)) = begun.chain(sits).min().filter(|(due, ..)| *due <= now) else { break };
            assert!(due + LATE_MAX >= now, "{client:?} may hold item {id:?} until {due:?}, and is looked at at {now:?}");
            clients.push(client);
            let held = self.held[&client].clone();
            for &other in &held {
                if id != Some(other) && self.items[other as usize].begun {
                    continue;
                }
                if id == Some(other) || (id.is_none() && held.len() == 1) {
                    self.failed(other, rules.attempts_max, now, |failures| rules.retry_delay.spread(failures, other));
                } else {
                    self.comes_back(other, now, now);
                }
                self.revoked.entry(client).or_default().insert(other);
                self.untold.entry(client).or_default().insert(other);
            }
            self.watch(now);
        }
        clients
    }

    /// A consumer is told that these are taken back.
    pub(super) fn told_of(&mut self, client: ClientId, ids: impl Iterator<Item = u64>) {
        let untold = self.untold.entry(client).or_default();
        ids.for_each(|id| assert!(untold.remove(&id), "{client:?} is told that item {id} is taken back"));
    }

    /// A consumer has heard of all that was taken back from it.
    pub(super) fn revoked(&mut self, client: ClientId) {
        self.revoked.remove(&client);
    }

    /// The lowest item that is not through: the results of those behind it wait for it.
    fn next(&self) -> u64 {
        let blocks = |place| matches!(place, Place::Ready | Place::Delayed(_) | Place::Held(_) | Place::HasResult);
        let is_next = |id: &&u64| self.items.get(**id as usize).is_none_or(|item| blocks(item.place));
        self.unsettled.iter().find(is_next).copied().unwrap_or(self.accepted)
    }

    /// True where results wait for an item that is not the next to be delivered: maybe so many that nothing else is.
    pub(super) fn holds_back(&self) -> bool {
        let ready = self.returned.first().copied().unwrap_or(self.items.len() as u64);
        self.early_bytes_max.is_some() && !self.results.is_empty() && ready != self.next()
    }

    /// Nothing is handed out any more. If nobody holds anything either, results whose turn has not come will not be written.
    pub(super) fn give_up_waiting(&mut self) {
        if self.early_bytes_max.is_none() || self.held.values().any(|held| !held.is_empty()) {
            return;
        }
        self.results.make_contiguous().sort_unstable();
        let mut in_turn = self.next();
        let mut kept = VecDeque::new();
        for (id, bytes) in std::mem::take(&mut self.results) {
            let through = (in_turn..id).all(|id| !matches!(self.items[id as usize].place, Place::Ready | Place::Delayed(_)));
            if through {
                in_turn = id + 1;
                kept.push_back((id, bytes));
            } else {
                self.items[id as usize].place = Place::Ready;
                self.returned.insert(id);
                in_turn = id;
            }
        }
        self.results = kept;
    }

    pub(super) fn any_ready(&self) -> bool {
        !self.returned.is_empty() || (self.items.len() as u64) < self.certain
    }

    /// An honest consumer says what became of an item: it has announced it, if it had to.
    pub(super) fn check_announced(&self, id: u64, announce_from: u32) {
        let item = &self.items[id as usize];
        assert!(item.begun || item.attempts < announce_from, "attempt {} at item {id} was not announced", item.attempts);
    }

    fn take(&mut self, id: u64) -> &mut Item {
        let item = &mut self.items[id as usize];
        let Place::Held(client) = item.place else { panic!("item {id} is settled where it is {:?}", item.place) };
        if let Some(held) = self.held.get_mut(&client) {
            held.remove(&id);
        }
        self.sits.remove(&client);
        item
    }

    /// Whose it was, if that counts at once.
    pub(super) fn acknowledged(&mut self, id: u64) -> Option<(Tag, u64)> {
        if self.journaled {
            self.take(id).place = Place::Settling;
            self.settling += 1;
            self.settlements.insert(id, (false, None));
            return None;
        }
        self.acknowledged += 1;
        self.unsettled.remove(&id);
        let item = self.take(id);
        item.place = Place::Acknowledged;
        Some(item.whose)
    }

    pub(super) fn has_result(&mut self, id: u64, bytes: usize) {
        self.take(id).place = Place::HasResult;
        self.results.push_back((id, bytes));
    }

    /// The oldest results that wait are handed to the writer, or the first.
    pub(super) fn results(&mut self, count: u32) -> Vec<u64> {
        self.writing += u64::from(count);
        if self.early_bytes_max.is_some() {
            self.results.make_contiguous().sort_unstable();
        }
        let ids: Vec<u64> = self.results.drain(..count as usize).map(|(id, _)| id).collect();
        for id in &ids {
            assert!(self.early_bytes_max.is_none() || self.next() == *id, "the result of item {id} passes item {}", self.next());
            self.items[*id as usize].place = Place::Writing { dead: false };
        }
        ids
    }

    pub(super) fn dead_letter(&mut self, id: u64, attempts: u32, whose: Option<(Tag, u64)>) -> u64 {
        assert!(self.dying.remove(&id), "item {id} is given up, but should not be");
        self.writing += 1;
        let item = &mut self.items[id as usize];
        assert_eq!((item.attempts, Some(item.whose)), (attempts, whose), "the dead letter of item {id}");
        item.place = Place::Writing { dead: true };
        id
    }

    /// Whose it was, if that counts at once.
    pub(super) fn written(&mut self, id: u64, output_bytes: Option<u64>) -> Option<(Tag, u64)> {
        let item = &mut self.items[id as usize];
        let Place::Writing { dead } = item.place else { panic!("item {id} is written where it is {:?}", item.place) };
        self.writing -= 1;
        if self.journaled {
            item.place = Place::Settling;
            self.settling += 1;
            self.settlements.insert(id, (dead, output_bytes));
            return None;
        }
        item.place = if dead { Place::Dead } else { Place::Acknowledged };
        self.dead += u64::from(dead);
        self.acknowledged += u64::from(!dead);
        self.unsettled.remove(&id);
        Some(item.whose)
    }

    pub(super) fn never_delivered(&mut self, id: u64) {
        let item = self.take(id);
        let again = item.attempts > 1;
        item.attempts -= 1;
        item.place = Place::Ready;
        self.redelivered -= u64::from(again);
        self.returned.insert(id);
    }

    pub(super) fn failed(&mut self, id: u64, attempts_max: u32, now: Duration, delay: impl Fn(u32) -> Duration) {
        self.items[id as usize].failures += 1;
        let failures = self.items[id as usize].failures;
        if failures >= attempts_max {
            return self.rejected(id);
        }
        if self.journaled {
            self.failures.insert(id, failures);
        }
        self.comes_back(id, now + delay(failures), now);
    }

    pub(super) fn rejected(&mut self, id: u64) {
        self.take(id).place = Place::Dying;
        self.dying.insert(id);
    }

    pub(super) fn comes_back(&mut self, id: u64, due: Duration, now: Duration) {
        let item = self.take(id);
        if due > now {
            item.place = Place::Delayed(due);
            self.delayed.insert((due, id));
        } else {
            item.place = Place::Ready;
            self.returned.insert(id);
        }
    }

    pub(super) fn holder_left(&mut self, client: ClientId, orderly: bool, attempts_max: u32) {
        let held = self.held.get(&client).cloned().unwrap_or_default();
        for id in &held {
            let to_blame = self.items[*id as usize].begun || held.len() == 1;
            match (orderly, to_blame) {
                (true, _) => self.never_delivered(*id),
                (false, true) => self.failed(*id, attempts_max, Duration::ZERO, |_| Duration::ZERO),
                (false, false) => self.comes_back(*id, Duration::ZERO, Duration::ZERO),
            }
        }
        self.held.remove(&client);
        self.sits.remove(&client);
        self.revoked.remove(&client);
        self.untold.remove(&client);
    }

    pub(super) fn wake(&mut self, now: Duration) {
        while let Some(&(due, id)) = self.delayed.first().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, id));
            assert_eq!(self.items[id as usize].place, Place::Delayed(due), "item {id} is woken");
            assert!(due + LATE_MAX >= now, "item {id} is woken at {now:?}, but was due at {due:?}");
            self.items[id as usize].place = Place::Ready;
            self.returned.insert(id);
        }
    }

    pub(super) fn check_nothing_pending(&self) {
        assert!(self.dying.is_empty(), "items {:?} should be given up", self.dying);
        let waits = || self.early_bytes_max.is_some_and(|_| self.results.iter().map(|(id, _)| *id).min() > Some(self.next()));
        assert!(self.results.is_empty() || waits(), "the results of items {:?} should be written", self.results);
        assert!(self.untold.values().all(BTreeSet::is_empty), "consumers are not told what is taken back: {:?}", self.untold);
        assert!(self.settlements.is_empty(), "the journal is not told that items are settled: {:?}", self.settlements);
        assert!(self.failures.is_empty(), "the journal is not told that items have failed: {:?}", self.failures);
    }

    pub(super) fn check_settled(&self, until: u64) {
        let left = self.unsettled.range(..until).next();
        assert_eq!(left, None, "all items before number {until} should be settled");
    }
}
