//! The producers: credit, and who waits for room.
//!
//! Credit is what a producer may send without asking. As long as nobody lacks room it is a reservation: the place is there when the
//! items come. When somebody does lack it, reservations that are not used are taken back, oldest first: their owner may be stopped,
//! and must not hold others up. It is told (`Recall`); what it has put before it heard that and the queue has no room for by then waits
//! *parked* with its connection, unconfirmed, first come first served. So the bounds always hold for what is accepted, and a connection
//! costs at most its credit beyond them.
//!
//! Whether a recall was heard in time shows in what the producer says: a `Put` has crossed it and makes it void, `Recalled` answers it.
//! Until then nothing is granted to it, so that both sides always agree on its credit; it does not wait in line, so that one which never
//! answers holds up nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use common::batch::Batch;
use common::limits::{CREDIT_BYTES_MAX, CREDIT_ITEMS_MAX, batch_cost_bytes};
use common::message::CloseReason;
use common::status::Work;

use super::entry::{Progress, Recovered};
use super::{ClientId, Refusal, Rules};
use crate::limits::NAMES_MAX;

/// Items and bytes together: what both bounds are counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

impl Amount {
    pub(super) fn of(batch: &Batch) -> Amount {
        Amount { items: u64::from(batch.count()), bytes: batch_cost_bytes(batch.body_bytes()) }
    }

    fn covers(self, other: Amount) -> bool {
        self.items >= other.items && self.bytes >= other.bytes
    }

    pub(super) fn plus(self, other: Amount) -> Amount {
        Amount { items: self.items + other.items, bytes: self.bytes + other.bytes }
    }

    /// What is left of it, each number for itself, without going below nothing.
    pub(super) fn less(self, other: Amount) -> Amount {
        Amount { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn min(self, other: Amount) -> Amount {
        Amount { items: self.items.min(other.items), bytes: self.bytes.min(other.bytes) }
    }

    fn max(self, other: Amount) -> Amount {
        Amount { items: self.items.max(other.items), bytes: self.bytes.max(other.bytes) }
    }

    fn divided(self, by: u64) -> Amount {
        Amount { items: self.items / by, bytes: self.bytes / by }
    }

    fn is_nothing(self) -> bool {
        self == Amount::default()
    }
}

#[derive(Debug)]
pub(super) struct Intake {
    capacity: Amount,
    /// Others put as well, at other machines.
    shared: bool,
    /// Credit that is granted without being asked for more.
    credit_ahead: Amount,
    /// Credit that the largest item needs.
    credit_item: Amount,
    stored: Amount,
    reserved: Amount,
    /// Stored, and on its way to the journal; that and what is reserved have a bound of their own, since all of it is in memory.
    unwritten_bytes: u64,
    unwritten_bytes_max: u64,
    producers: BTreeMap<ClientId, Producer>,
    names: BTreeMap<Arc<str>, Named>,
    /// Who waits for room, longest first; each once, and only while it does wait.
    waiting: VecDeque<ClientId>,
    /// Who was granted credit when; may name producers that have used it up or gone.
    granted: VecDeque<ClientId>,
    unconfirmed: VecDeque<ClientId>,
    recalled: VecDeque<ClientId>,
    finished: u64,
    /// Producers that are connected and have not finished.
    unfinished: u64,
    /// The last admitted batch's owner, until the batch is stored.
    admitting: Option<ClientId>,
}

/// Whether there is room for something that no producer puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// Once some of what is on its way to the journal is there.
    Later,
    None,
}

/// A batch that has its place.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) client: ClientId,
    pub(super) batch: Batch,
    /// How far its producer is with it, if it has a name.
    pub(super) by: Option<Progress>,
}

#[derive(Debug, Default)]
struct Named {
    position: u64,
    checksum: u64,
    /// Batches that are on their way to the journal: only with them is known how far it has come.
    unwritten: u32,
    client: Option<ClientId>,
    finished: bool,
}

#[derive(Debug, Default)]
struct Producer {
    name: Option<Arc<str>>,
    /// Items accepted for good.
    position: u64,
    /// Items accepted, those on their way to the journal among them.
    admitted: u64,
    /// Items accepted or parked: what the next put begins with.
    next: u64,
    credit: Amount,
    reserved: Amount,
    in_granted: bool,
    /// It was told that its credit is void, or is about to be, and has not shown to have heard it.
    recalled: bool,
    /// It is about to be told.
    recall_due: bool,
    wanted: Option<Amount>,
    /// Batches that wait for room, and the checksum up to the end of each.
    parked: VecDeque<(Batch, u64)>,
    finished: bool,
    /// Credit granted since the last confirmation.
    granted: Amount,
    confirm: bool,
}

/// What a producer is told that comes with one name too many.
pub(super) fn too_many_names() -> String {
    format!("{NAMES_MAX} producers have names already; connect without one")
}

impl Intake {
    pub(super) fn new(rules: &Rules) -> Intake {
        let capacity = Amount { items: rules.capacity_items, bytes: rules.capacity_bytes };
        let one_item = Amount { items: 1, bytes: batch_cost_bytes(rules.item_bytes_max + 4) };
        let unwritten_bytes_max = rules.journaled.map_or(u64::MAX, |window| window.unwritten_bytes.max(one_item.bytes));
        let credit_ahead = Amount { items: CREDIT_ITEMS_MAX, bytes: CREDIT_BYTES_MAX.min(unwritten_bytes_max) };
        Intake {
            capacity,
            shared: rules.shared,
            // Never more than fits: what waits for more room than there is would wait, and hold others up, for ever.
            credit_ahead: credit_ahead.min(capacity),
            credit_item: one_item.min(capacity),
            stored: Amount::default(),
            reserved: Amount::default(),
            unwritten_bytes: 0,
            unwritten_bytes_max,
            producers: BTreeMap::new(),
            names: BTreeMap::new(),
            waiting: VecDeque::new(),
            granted: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            recalled: VecDeque::new(),
            finished: 0,
            unfinished: 0,
            admitting: None,
        }
    }

    /// Takes over what a journal holds: `bytes` is what its batches cost.
    pub(super) fn recover(&mut self, recovered: &Recovered, bytes: u64) {
        self.stored = Amount { items: recovered.items, bytes };
        self.finished = recovered.finished_unnamed;
        for (Progress { name, position, checksum }, finished) in &recovered.producers {
            let named = Named { position: *position, checksum: *checksum, finished: *finished, ..Named::default() };
            self.names.insert(Arc::clone(name), named);
            self.finished += u64::from(*finished);
        }
    }

    /// Forgets the producer that is connected under a name, and says who that was: another has come.
    pub(super) fn replace(&mut self, name: &str) -> Option<ClientId> {
        let replaced = self.names.get(name)?.client?;
        self.leave(replaced);
        Some(replaced)
    }

    /// True if it is known how far a name has come.
    pub(super) fn is_settled(&self, name: &str) -> bool {
        self.names.get(name).is_none_or(|named| named.unwritten == 0)
    }

    /// Adds a producer, whose name nobody else has now. Returns how far it has come, and the checksum of that.
    pub(super) fn join(&mut self, client: ClientId, name: Option<Arc<str>>) -> Result<(u64, u64), Refusal> {
        let mut producer = Producer { name: name.clone(), ..Producer::default() };
        let mut checksum = 0;
        if let Some(name) = name {
            if self.names.len() >= NAMES_MAX && !self.names.contains_key(&name) {
                return Err((CloseReason::Limit, too_many_names()));
            }
            let named = self.names.entry(name).or_default();
            named.client = Some(client);
            checksum = named.checksum;
            producer.position = named.position;
            producer.admitted = named.position;
            producer.next = named.position;
        }
        let position = producer.position;
        self.producers.insert(client, producer);
        self.unfinished += 1;
        self.grant_ahead(client);
        Ok((position, checksum))
    }

    /// Forgets a producer, and what it has parked.
    pub(super) fn leave(&mut self, client: ClientId) {
        let Some(producer) = self.producers.remove(&client) else { return };
        self.reserved = self.reserved.less(producer.reserved);
        self.unfinished -= u64::from(!producer.finished);
        self.waiting.retain(|waiting| *waiting != client);
        self.granted.retain(|granted| *granted != client);
        let Some(name) = producer.name else { return };
        if let Some(named) = self.names.get_mut(&name) {
            named.client = None;
            if named.position == 0 && named.unwritten == 0 && !named.finished {
                self.names.remove(&name);
            }
        }
    }

    /// Takes a batch into the line for room; `checksum` is that of all up to its end.
    pub(super) fn put(&mut self, client: ClientId, position: u64, batch: Batch, checksum: u64) -> Result<(), Refusal> {
        let cost = Amount::of(&batch);
        let producer = self.get(client, "Put")?;
        if producer.finished {
            return Err((CloseReason::Protocol, "a Put after Finish".into()));
        }
        if position != producer.next {
            let next = producer.next;
            return Err((CloseReason::Protocol, format!("a Put of position {position}; the next is {next}")));
        }
        if !producer.credit.covers(cost) {
            let (Amount { items, bytes }, credit) = (cost, producer.credit);
            let words = format!("a Put of {items} items and {bytes} bytes on credit for {} and {}", credit.items, credit.bytes);
            return Err((CloseReason::Protocol, words));
        }
        let waits_now = std::mem::take(&mut producer.recalled) && producer.wanted.is_some();
        producer.recall_due = false;
        producer.credit = producer.credit.less(cost);
        producer.next += cost.items;
        producer.parked.push_back((batch, checksum));
        if producer.parked.len() == 1 && (producer.wanted.is_none() || waits_now) {
            // What holds a reservation passes those who wait for room: its place is not theirs.
            if producer.reserved.covers(cost) { self.waiting.push_front(client) } else { self.waiting.push_back(client) }
        }
        Ok(())
    }

    /// Notes that a producer waits until its credit reaches `bytes`.
    pub(super) fn want(&mut self, client: ClientId, bytes: u64) -> Result<(), Refusal> {
        let most = self.credit_item.bytes;
        let producer = self.get(client, "Want")?;
        if producer.finished {
            return Err((CloseReason::Protocol, "a Want after Finish".into()));
        }
        if bytes > most {
            return Err((CloseReason::Protocol, format!("wants {bytes} bytes; the largest item needs {most}")));
        }
        let wanted = Amount { items: 1, bytes };
        if producer.credit.covers(wanted) {
            // A grant that is on its way crosses the question, and answers it.
            return Ok(());
        }
        let waits = producer.wanted.replace(wanted).is_some() || !producer.parked.is_empty();
        if !waits && !producer.recalled {
            self.waiting.push_back(client);
        }
        Ok(())
    }

    /// Notes that a producer has given back its credit.
    pub(super) fn recalled(&mut self, client: ClientId) -> Result<(), Refusal> {
        let producer = self.get(client, "Recalled")?;
        if !std::mem::take(&mut producer.recalled) {
            return Err((CloseReason::Protocol, "Recalled without a Recall, or after a Put that made it void".into()));
        }
        producer.credit = Amount::default();
        if producer.wanted.is_some() && producer.parked.is_empty() {
            self.waiting.push_back(client);
        }
        Ok(())
    }

    pub(super) fn withdraw(&mut self, client: ClientId) {
        if let Some(producer) = self.producers.get_mut(&client)
            && producer.wanted.take().is_some()
            && producer.parked.is_empty()
        {
            self.waiting.retain(|waiting| *waiting != client);
        }
    }

    /// Notes that a producer puts no more; returns its name. [`Intake::finished_by`] follows once that counts.
    pub(super) fn finish(&mut self, client: ClientId) -> Result<Option<Arc<str>>, Refusal> {
        let producer = self.get(client, "Finish")?;
        if !producer.parked.is_empty() {
            return Err((CloseReason::Protocol, "Finish before all that was put is confirmed".into()));
        }
        if std::mem::replace(&mut producer.finished, true) {
            return Err((CloseReason::Protocol, "Finish twice".into()));
        }
        let unused = std::mem::take(&mut producer.reserved);
        let name = producer.name.clone();
        self.unfinished -= 1;
        self.reserved = self.reserved.less(unused);
        // What it still waits for would be a reservation that nobody uses.
        self.withdraw(client);
        Ok(name)
    }

    /// Counts a producer, with or without a name, that puts no more. A name finishes once.
    pub(super) fn finished_by(&mut self, name: Option<Arc<str>>) {
        let before = name.is_some_and(|name| std::mem::replace(&mut self.names.entry(name).or_default().finished, true));
        self.finished += u64::from(!before);
    }

    /// Grants and admits in the order of waiting. Returns a batch that now has its place; report it by [`Intake::stored`], and by
    /// [`Intake::kept`] once that is for good.
    pub(super) fn next_admitted(&mut self) -> Option<Admitted> {
        assert!(self.admitting.is_none(), "a batch was admitted and not stored");
        while let Some(&client) = self.waiting.front() {
            let Some(producer) = self.producers.get(&client) else { panic!("{client:?} waits but has left") };
            let Some((batch, _)) = producer.parked.front() else {
                if producer.recalled {
                    self.waiting.pop_front();
                    continue;
                }
                if !self.grant_wanted(client) {
                    return None;
                }
                self.waiting.pop_front();
                continue;
            };
            let cost = Amount::of(batch);
            let own = producer.reserved.min(cost);
            if !self.find_room(client, cost.less(own)) {
                return None;
            }
            self.reserved = self.reserved.less(own);
            let producer = self.producers.get_mut(&client)?;
            producer.reserved = producer.reserved.less(own);
            producer.admitted += cost.items;
            let (batch, checksum) = producer.parked.pop_front()?;
            let position = producer.admitted;
            let by = producer.name.clone().map(|name| Progress { name, position, checksum });
            if producer.parked.is_empty() && producer.wanted.is_none() {
                self.waiting.pop_front();
            }
            if let Some(named) = by.as_ref().and_then(|by| self.names.get_mut(&by.name)) {
                named.unwritten += 1;
            }
            self.admitting = Some(client);
            return Some(Admitted { client, batch, by });
        }
        None
    }

    /// The admitted batch is stored, or on its way to where it will be.
    pub(super) fn stored(&mut self, batch: &Batch) {
        let Some(client) = self.admitting.take() else { panic!("a batch is stored that was not admitted") };
        self.stored_again(batch);
        self.grant_ahead(client);
    }

    /// Makes room for a batch that comes from no producer, by taking back reservations if need be; `client` is nobody who has some.
    pub(super) fn room_for(&mut self, client: ClientId, batch: &Batch) -> Room {
        let cost = Amount::of(batch);
        if !self.capacity.less(self.stored).covers(cost) {
            return Room::None;
        }
        if self.find_room(client, cost) { Room::Free } else { Room::Later }
    }

    /// A batch is stored that has room.
    pub(super) fn stored_again(&mut self, batch: &Batch) {
        let cost = Amount::of(batch);
        self.unwritten_bytes += cost.bytes;
        self.stored = self.stored.plus(cost);
        // What other machines put meanwhile has taken no notice of what is reserved here.
        assert!(self.shared || self.capacity.covers(self.stored.plus(self.reserved)), "the bounds are broken: {self:?}");
    }

    /// So much is stored, as far as is known of a shared queue.
    pub(super) fn note_stored(&mut self, stored: Amount) {
        self.stored = stored;
    }

    /// Bytes of what is stored.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored.bytes
    }

    /// How far a name has come, which nobody has used here so far, or somebody elsewhere since.
    pub(super) fn note_progress(&mut self, Progress { name, position, checksum }: Progress) {
        let named = self.names.entry(name).or_default();
        (named.position, named.checksum) = (position, checksum);
    }

    /// Such a batch is kept for good.
    pub(super) fn kept_again(&mut self, bytes: u64) {
        self.unwritten_bytes -= bytes;
    }

    /// A stored batch, of so many items that cost so many bytes, is kept for good: its producer may know.
    pub(super) fn kept(&mut self, client: ClientId, items: u64, bytes: u64, by: Option<Progress>) {
        self.unwritten_bytes -= bytes;
        if let Some(Progress { name, position, checksum }) = by
            && let Some(named) = self.names.get_mut(&name)
        {
            named.unwritten -= 1;
            (named.position, named.checksum) = (position, checksum);
        }
        if let Some(producer) = self.producers.get_mut(&client) {
            producer.position += items;
            self.confirm(client);
        }
    }

    /// Items are settled: `items` fewer, all bytes now being `bytes`.
    pub(super) fn settle(&mut self, items: u64, bytes: u64) {
        self.stored = Amount { items: self.stored.items - items, bytes };
    }

    /// The next producer to be told of its position and of credit granted since the last time.
    pub(super) fn next_confirmation(&mut self) -> Option<(ClientId, u64, Amount)> {
        while let Some(client) = self.unconfirmed.pop_front() {
            if let Some((position, credit)) = self.confirmation(client) {
                return Some((client, position, credit));
            }
        }
        None
    }

    /// What a producer is to be told of its position and credit, if anything.
    pub(super) fn confirmation(&mut self, client: ClientId) -> Option<(u64, Amount)> {
        let producer = self.producers.get_mut(&client)?;
        std::mem::take(&mut producer.confirm).then(|| (producer.position, std::mem::take(&mut producer.granted)))
    }

    /// The next producer to be told that its unused credit is void, and the position that it has put up to. Behind its own
    /// confirmation, which may bring some of that credit, and before all others.
    pub(super) fn next_recall(&mut self) -> Option<(ClientId, u64)> {
        while let Some(client) = self.recalled.pop_front() {
            if let Some(producer) = self.producers.get_mut(&client)
                && std::mem::take(&mut producer.recall_due)
            {
                return Some((client, producer.next));
            }
        }
        None
    }

    /// Forgets all producers, parked items included; returns them.
    pub(super) fn close(&mut self) -> Vec<ClientId> {
        let clients: Vec<ClientId> = self.producers.keys().copied().collect();
        clients.iter().for_each(|client| self.leave(*client));
        clients
    }

    pub(super) fn has_finished(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|named| named.finished)
    }

    /// How many items were accepted under a name, and their checksum.
    pub(super) fn progress(&self, name: &str) -> (u64, u64) {
        self.names.get(name).map_or((0, 0), |named| (named.position, named.checksum))
    }

    pub(super) fn is_connected(&self, client: ClientId) -> bool {
        self.producers.contains_key(&client)
    }

    /// What a producer does.
    pub(super) fn work(&self, client: ClientId) -> Option<Work> {
        let producer = self.producers.get(&client)?;
        Some(Work::Producer {
            name: producer.name.as_deref().unwrap_or_default().into(),
            accepted: producer.position,
            parked: producer.next - producer.admitted,
            waiting: producer.wanted.is_some() || !producer.parked.is_empty(),
            finished: producer.finished,
        })
    }

    pub(super) fn connected(&self) -> u64 {
        self.producers.len() as u64
    }

    /// Producers that are connected and have not finished.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished
    }

    pub(super) fn finished(&self) -> u64 {
        self.finished
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    fn room(&self) -> Amount {
        self.free().less(self.reserved)
    }

    /// What would be room if nothing was reserved.
    fn free(&self) -> Amount {
        let unwritten = Amount { items: u64::MAX, bytes: self.unwritten_bytes_max.saturating_sub(self.unwritten_bytes) };
        self.capacity.less(self.stored).min(unwritten)
    }

    /// Tops a producer's credit up to its share while nobody waits for room: half of it stays for others.
    fn grant_ahead(&mut self, client: ClientId) {
        let Some(producer) = self.producers.get(&client) else { return };
        let low = producer.credit.items <= self.credit_ahead.items / 2 || producer.credit.bytes <= self.credit_ahead.bytes / 2;
        if !low || producer.recalled || !self.waiting.is_empty() {
            return;
        }
        let amount = self.credit_ahead.less(producer.credit).min(self.room().divided(2));
        let credit = producer.credit.plus(amount);
        if credit.items > 0 && credit.bytes > batch_cost_bytes(0) {
            self.grant(client, amount);
        }
    }

    /// Grants what a producer waits for, and more if there is room for its share. False when there is not even room for that.
    fn grant_wanted(&mut self, client: ClientId) -> bool {
        let Some(producer) = self.producers.get(&client) else { return true };
        let Some(wanted) = producer.wanted else { return true };
        let lacking = wanted.less(producer.credit);
        let headroom = self.credit_ahead.less(producer.credit);
        if !self.find_room(client, lacking) {
            return false;
        }
        let share = self.room().divided(self.waiting.len() as u64 + 1).min(headroom);
        self.grant(client, lacking.max(share));
        if let Some(producer) = self.producers.get_mut(&client) {
            producer.wanted = None;
        }
        true
    }

    fn grant(&mut self, client: ClientId, amount: Amount) {
        if amount.is_nothing() {
            return;
        }
        let Some(producer) = self.producers.get_mut(&client) else { return };
        producer.credit = producer.credit.plus(amount);
        if !std::mem::replace(&mut producer.in_granted, true) {
            self.granted.push_back(client);
        }
        producer.reserved = producer.reserved.plus(amount);
        producer.granted = producer.granted.plus(amount);
        self.reserved = self.reserved.plus(amount);
        self.confirm(client);
    }

    /// True when there is room for `amount`; if need be, others' unused reservations are taken back for it.
    fn find_room(&mut self, client: ClientId, amount: Amount) -> bool {
        if self.room().covers(amount) {
            return true;
        }
        let free = self.free();
        let own = self.producers.get(&client).map(|producer| producer.reserved).unwrap_or_default();
        if !free.covers(amount.plus(own)) {
            // Taking reservations back would not help.
            return false;
        }
        while !self.room().covers(amount) {
            let Some(at) = self.granted.iter().position(|holder| *holder != client) else { return false };
            let Some(holder) = self.granted.remove(at) else { return false };
            if let Some(producer) = self.producers.get_mut(&holder) {
                producer.in_granted = false;
                self.reserved = self.reserved.less(producer.reserved);
                producer.reserved = Amount::default();
                // Also what it was not told of yet: it may be the answer to its question, which it would wait for without end.
                if !producer.credit.is_nothing() && !std::mem::replace(&mut producer.recalled, true) {
                    producer.recall_due = true;
                    self.recalled.push_back(holder);
                    if producer.parked.is_empty() && producer.wanted.is_some() {
                        self.waiting.retain(|waiting| *waiting != holder);
                    }
                }
            }
        }
        true
    }

    fn confirm(&mut self, client: ClientId) {
        if let Some(producer) = self.producers.get_mut(&client)
            && !std::mem::replace(&mut producer.confirm, true)
        {
            self.unconfirmed.push_back(client);
        }
    }

    fn get(&mut self, client: ClientId, what: &str) -> Result<&mut Producer, Refusal> {
        self.producers.get_mut(&client).ok_or_else(|| (CloseReason::Protocol, format!("{what} is for producers")))
    }
}
