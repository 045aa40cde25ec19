//! A consumer's side of a connection, without I/O: holds what was delivered ahead, asks for more in time, gathers what is settled.
//!
//! What is delivered ahead must not wait behind a long item while other consumers are idle: when the application takes nothing for
//! [`PREFETCH_GIVE_BACK_AFTER`], everything that it has not begun goes back.

mod leases;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::batch::{Batch, BatchBuilder};
use crate::error::Error;
use crate::limits::{
    ACK_RANGES_MAX, FLUSH_DELAY, HURRIED_WAITS, PREFETCH_BYTES_MAX, PREFETCH_GIVE_BACK_AFTER, WITHDRAWALS_MAX, result_bytes_max,
};
use crate::message::{CloseReason, Incoming, ItemId, ItemRange, Message, Outcome};
use crate::outbox::Outbox;
use crate::prefetch::Prefetch;
use crate::session::{Greeting, Questions, Session};
use leases::Leased;

/// Stands for no range: no item follows upon it.
const NO_ACKS: ItemRange = ItemRange { first: ItemId(u64::MAX), count: 0 };

/// A batch that was delivered, none of which is taken.
#[derive(Debug)]
struct Delivered {
    first: ItemId,
    attempt: u32,
    batch: Batch,
}

/// The batch that items are taken from: there is one as long as there are items, and it has some left.
#[derive(Debug)]
struct Current {
    first: ItemId,
    attempt: u32,
    turn: Turn,
    batch: Batch,
    /// A share of its memory, for the next item.
    share: Option<Bytes>,
    /// The item that is taken next.
    next: u32,
    /// Items before this one may be taken without a look ahead.
    quick_end: u32,
}

/// An item that the application has taken, and the connection on which it came: on another one, nothing can be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub id: ItemId,
    turn: Turn,
}

/// Which delivery of an item it is, and on which connection. In one word: the processor waits for halves that are written apart and read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn(u64);

/// An item at hand: `index` within `batch`.
#[derive(Debug)]
pub struct Next<'a> {
    /// Which.
    pub held: Held,
    /// Where it lies.
    pub batch: &'a Batch,
    /// Which of the batch's it is.
    pub index: u32,
    /// A share of the batch's memory, to be taken if it is of use.
    pub share: &'a mut Option<Bytes>,
}

impl Held {
    /// The item with this number, at this delivery of it, on the connection before which so many were lost.
    pub fn new(id: ItemId, attempt: u32, epoch: u32) -> Held {
        Held { id, turn: Turn::new(attempt, epoch) }
    }

    /// Which delivery of it this is: an earlier one may still be in somebody's hands, who was too slow.
    #[inline]
    pub fn attempt(self) -> u32 {
        self.turn.0 as u32
    }

    /// How many connections were lost before.
    #[inline]
    fn epoch(self) -> u32 {
        (self.turn.0 >> 32) as u32
    }

    fn delivery(self) -> (ItemId, u32) {
        (self.id, self.attempt())
    }
}

impl Turn {
    fn new(attempt: u32, epoch: u32) -> Turn {
        Turn(u64::from(epoch) << 32 | u64::from(attempt))
    }
}

impl Current {
    #[inline]
    fn left(&self) -> u32 {
        self.batch.count() - self.next
    }

    #[inline]
    fn next_id(&self) -> ItemId {
        ItemId(self.first.0 + u64::from(self.next))
    }
}

/// A consumer's state of one connection.
#[derive(Debug)]
pub struct ConsumerSession {
    item_bytes_max: u64,
    announce_from: u32,
    /// To take an item is to begin it; else the application says when it does.
    taking_begins: bool,
    /// How long an attempt may take, if that is limited.
    lease: Option<Duration>,
    /// Then: each delivery that is taken, or just about to be, and not settled, by its item and its attempt.
    leased: BTreeMap<(ItemId, u32), Leased>,
    current: Option<Current>,
    /// What was delivered behind the current batch.
    behind: VecDeque<Delivered>,
    behind_items: u32,
    behind_bytes: i64,
    /// What the coordinator has still to send, as far as it is known here; both sides only add and subtract, so that they agree
    /// whatever crosses on the way. The last item may bring the bytes below zero.
    demanded_items: u32,
    demanded_bytes: i64,
    prefetch: Prefetch,
    /// Items taken from the batches before the current one.
    taken_before: u64,
    watch: Option<Watch>,
    callers_waiting: u32,
    /// Before so many waits nothing gathers: somebody waits for what is settled here.
    hurried_waits: u32,
    /// The range that is being lengthened, which others have come before; [`NO_ACKS`] if there is none.
    last_acks: ItemRange,
    acks: Vec<ItemRange>,
    results_first: ItemId,
    results: BatchBuilder,
    settled_since: Option<Duration>,
    stopped: bool,
    /// The last withdrawal ahead of whose answer nothing is to be taken.
    giving_back: Option<u64>,
    epoch: u32,
    /// The questions that it has asked.
    pub questions: Questions,
    outbox: Outbox,
}

/// What became of a settled item's word to the coordinator.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// It gathers with others.
    Gathered,
    /// It is the first to gather.
    Gathering,
    /// It is in the outbox.
    Ready,
}

/// Since when the application is known to have taken nothing.
#[derive(Debug)]
struct Watch {
    since: Duration,
    taken_total: u64,
}

impl ConsumerSession {
    /// A consumer that was greeted so, and asks for `prefetch` items ahead, or for as many as its pace says.
    pub fn new(greeting: Greeting, prefetch: Option<u32>) -> ConsumerSession {
        let Greeting { item_bytes_max, announce_from, lease, .. } = greeting;
        ConsumerSession {
            item_bytes_max,
            announce_from,
            taking_begins: true,
            lease,
            leased: BTreeMap::new(),
            current: None,
            behind: VecDeque::new(),
            behind_items: 0,
            behind_bytes: 0,
            demanded_items: 0,
            demanded_bytes: 0,
            prefetch: Prefetch::new(prefetch),
            taken_before: 0,
            watch: None,
            callers_waiting: 0,
            hurried_waits: 0,
            last_acks: NO_ACKS,
            acks: Vec::new(),
            results_first: ItemId(0),
            results: BatchBuilder::default(),
            settled_since: None,
            stopped: false,
            giving_back: None,
            epoch: 0,
            questions: Questions::default(),
            outbox: Outbox::default(),
        }
    }

    /// The next item at hand; none that is due for a [`ConsumerSession::look_ahead`].
    #[inline(always)]
    pub fn next_quick(&mut self) -> Option<Next<'_>> {
        let current = self.current.as_mut()?;
        let held = Held { id: current.next_id(), turn: current.turn };
        let Current { batch, share, next: index, quick_end, .. } = current;
        (*index < *quick_end).then_some(Next { held, batch, index: *index, share })
    }

    /// Takes what [`ConsumerSession::next_quick`] has given.
    #[inline(always)]
    pub fn take_quick(&mut self) {
        let Some(current) = &mut self.current else { return };
        current.next += 1;
        if current.left() == 0 {
            self.next_batch();
        }
    }

    /// Keeps a share of an item's memory for the next one, if that lies in the same.
    #[inline(always)]
    pub fn keep_share(&mut self, share: Option<Bytes>) {
        if let (Some(share), Some(current)) = (share, &mut self.current) {
            current.batch.keep_share(share, &mut current.share);
        }
    }

    /// Does what is due before the next item is taken: announces it, asks for more if few are left behind it. Whatever is in the
    /// outbox afterwards is to be written before the item is worked on.
    pub fn look_ahead(&mut self, now: Duration) {
        let Some(current) = &self.current else { return };
        let announced = self.taking_begins && current.attempt >= self.announce_from;
        if announced {
            self.outbox.push(&Message::Begin { id: current.next_id() });
        }
        if let Some(lease) = self.lease {
            let delivery = (current.next_id(), current.attempt);
            self.leased.entry(delivery).or_insert(Leased { until: now.saturating_add(lease), expired: false });
        }
        let bytes = if current.left() == 1 { self.behind_bytes } else { self.local_bytes() };
        let few = self.local_items() - 1 + self.demanded_items <= self.low_items();
        let light = self.is_out_of_bytes() && bytes <= PREFETCH_BYTES_MAX as i64 / 2;
        if self.prefetch.ahead() > 0 && (few || light) {
            self.ask(now, 0, self.local_items() - 1, bytes);
        }
        let (low, behind) = (self.low_items(), self.behind_items + self.demanded_items);
        if let Some(current) = &mut self.current {
            let until_few = (current.left() + behind).saturating_sub(low + 1);
            let quick = if announced || self.lease.is_some() { 1 } else { until_few.clamp(1, current.left()) };
            current.quick_end = current.next + quick;
        }
    }

    /// From now on the application says by [`ConsumerSession::begin`] which of the items that it has taken it begins.
    pub fn begin_by_hand(&mut self) {
        self.taking_begins = false;
    }

    /// From which attempt on the coordinator wants to hear of an item's beginning.
    pub fn announce_from(&self) -> u32 {
        self.announce_from
    }

    /// Announces that a taken item is begun, if the coordinator wants to hear of it: its time counts from now on. An error if it was
    /// taken back before.
    pub fn begin(&mut self, held: Held, now: Duration) -> Result<(), Error> {
        if self.is_held(held) && held.attempt() >= self.announce_from {
            self.check_lease(held)?;
            if let (Some(lease), Some(leased)) = (self.lease, self.leased.get_mut(&held.delivery())) {
                leased.until = now.saturating_add(lease);
            }
            self.outbox.push(&Message::Begin { id: held.id });
        }
        Ok(())
    }

    /// True when an item is at hand.
    pub fn has_local(&self) -> bool {
        self.current.is_some()
    }

    /// Goes on to the next batch.
    #[cold]
    fn next_batch(&mut self) {
        self.taken_before += self.current.take().map_or(0, |current| u64::from(current.next));
        self.current = self.behind.pop_front().map(|Delivered { first, attempt, batch }| {
            self.behind_items -= batch.count();
            self.behind_bytes -= batch.body_bytes() as i64;
            Current { first, attempt, turn: Turn::new(attempt, self.epoch), batch, share: None, next: 0, quick_end: 0 }
        });
    }

    /// Items delivered and not taken.
    fn local_items(&self) -> u32 {
        self.behind_items + self.current.as_ref().map_or(0, Current::left)
    }

    /// Bytes of the batches delivered and not used up.
    fn local_bytes(&self) -> i64 {
        self.behind_bytes + self.current.as_ref().map_or(0, |current| current.batch.body_bytes() as i64)
    }

    fn taken_total(&self) -> u64 {
        self.taken_before + self.current.as_ref().map_or(0, |current| u64::from(current.next))
    }

    /// What is at hand has changed otherwise than by taking: the next item is looked at closely.
    fn forget_quick_end(&mut self) {
        if let Some(current) = &mut self.current {
            current.quick_end = 0;
        }
    }

    fn low_items(&self) -> u32 {
        self.prefetch.ahead() / 2
    }

    fn is_out_of_bytes(&self) -> bool {
        self.demanded_items > 0 && self.demanded_bytes <= 0
    }

    /// For who is about to wait for an item: likewise, unless enough is on its way. Then what is settled gathers until it is due, or until
    /// more is asked for: a message for each item would be read by a coordinator that has nothing to do about it.
    pub fn refill_to_wait(&mut self, now: Duration) {
        let hurried = self.settled_since.is_some() && self.hurried_waits > 0;
        self.hurried_waits -= u32::from(hurried);
        let due = self.settled_since.is_some_and(|since| since + FLUSH_DELAY <= now);
        let enough = self.local_items() + self.demanded_items > self.low_items() && !self.is_out_of_bytes();
        if hurried || due || !enough {
            self.refill(now, true);
        } else {
            self.prefetch.measure(now, self.taken_total());
        }
    }

    /// Sends what is settled, and asks for as much as the pace since the last time says; for one item at least if `now_needed`.
    pub fn refill(&mut self, now: Duration, now_needed: bool) {
        self.ask(now, u32::from(now_needed), self.local_items(), self.local_bytes());
    }

    fn ask(&mut self, now: Duration, items_min: u32, local_items: u32, local_bytes: i64) {
        self.send_settled();
        if self.stopped || !self.may_demand() {
            return;
        }
        self.prefetch.measure(now, self.taken_total());
        let items = self.prefetch.ahead().max(items_min).saturating_sub(local_items + self.demanded_items);
        let bytes = (PREFETCH_BYTES_MAX as i64 - local_bytes - self.demanded_bytes).max(0);
        if items > 0 || (bytes > 0 && self.is_out_of_bytes()) {
            self.demand(items, bytes);
        }
        if self.watch.is_none() {
            self.watch = Some(Watch { since: now, taken_total: self.taken_total() });
        }
    }

    fn demand(&mut self, items: u32, bytes: i64) {
        self.demanded_items += items;
        self.demanded_bytes += bytes;
        self.outbox.push(&Message::Demand { items, bytes: bytes as u64 });
    }

    /// A caller begins or ends to wait for an item; while one does, nothing is given back.
    pub fn begin_wait(&mut self) {
        self.callers_waiting += 1;
    }

    /// Sees to it that as many items are asked for as callers wait for one: another thread may have taken what was asked for, or
    /// withdrawn the demand, which is this connection's; or it could not be asked for yet.
    pub fn keep_demanding(&mut self) {
        let coming = self.local_items() + self.demanded_items;
        if !self.stopped && self.may_demand() && coming < self.callers_waiting {
            let bytes = (PREFETCH_BYTES_MAX as i64 - self.local_bytes() - self.demanded_bytes).max(0);
            self.demand(self.callers_waiting - coming, bytes);
        }
    }

    /// See [`ConsumerSession::begin_wait`].
    pub fn end_wait(&mut self, now: Duration, waited: Duration) {
        self.callers_waiting -= 1;
        self.prefetch.count_waited(waited);
        if let Some(watch) = &mut self.watch {
            watch.since = now;
        } else if self.is_watched() {
            // It was asked for since a connection was lost, which ended the watch.
            self.watch = Some(Watch { since: now, taken_total: self.taken_total() });
        }
    }

    /// Takes the demand back; what was delivered before still comes. If nothing was asked for since the last withdrawal, its answer is this one's.
    pub fn withdraw(&mut self) -> u64 {
        if self.demanded_items == 0 && !self.questions.all_withdrawn() {
            return self.questions.last_withdrawal();
        }
        self.demanded_items = 0;
        self.demanded_bytes = 0;
        self.forget_quick_end();
        self.questions.withdraw(&mut self.outbox)
    }

    /// Gives back what is not begun, and asks for nothing more; what is still on its way goes back as it comes. The coordinator's answer wakes
    /// whoever waits.
    pub fn stop(&mut self, now: Duration) {
        self.stopped = true;
        self.withdraw();
        self.give_back_unstarted();
        // The application may be at an item for long, and take nothing in.
        self.watch = Some(Watch { since: now, taken_total: self.taken_total() });
    }

    /// True when there is and will be nothing to take.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// True while the connection on which the item came is there: else it is delivered again, and to settle it is without effect.
    pub fn is_held(&self, held: Held) -> bool {
        held.epoch() == self.epoch
    }

    /// Notes that the item is done, if it follows upon another that waits to be acknowledged.
    #[inline]
    pub fn ack_quick(&mut self, held: Held) -> bool {
        let last = &mut self.last_acks;
        let follows = last.first.0.wrapping_add(u64::from(last.count)) == held.id.0 && held.epoch() == self.epoch && last.count < u32::MAX;
        if follows {
            last.count += 1;
        }
        follows
    }

    /// Notes that the item is done.
    pub fn ack(&mut self, held: Held, now: impl FnOnce() -> Duration) -> Result<Settled, Error> {
        if !self.is_held(held) {
            return Ok(Settled::Gathered);
        }
        self.end_lease(held)?;
        let first = self.settled_since.is_none();
        if first {
            self.settled_since = Some(now());
        }
        if !self.ack_quick(held) {
            self.close_last_acks();
            self.last_acks = ItemRange { first: held.id, count: 1 };
        }
        if self.lease.is_some() {
            // Each is looked at.
            self.close_last_acks();
        }
        if self.acks.len() + 1 >= ACK_RANGES_MAX {
            self.send_settled();
            return Ok(Settled::Ready);
        }
        Ok(if first { Settled::Gathering } else { Settled::Gathered })
    }

    fn close_last_acks(&mut self) {
        if self.last_acks != NO_ACKS {
            self.acks.push(std::mem::replace(&mut self.last_acks, NO_ACKS));
        }
    }

    /// Notes that the item is done with this result.
    pub fn ack_with(&mut self, held: Held, result: &[u8], now: impl FnOnce() -> Duration) -> Result<Settled, Error> {
        if !self.is_held(held) {
            return Ok(Settled::Gathered);
        }
        let id = held.id;
        let (bytes, bytes_max) = (result.len() as u64, result_bytes_max(self.item_bytes_max));
        if bytes > bytes_max {
            let cause = format!("a result of {bytes} bytes; at most {bytes_max} are accepted (--max-item)");
            self.give_back(held, Outcome::Failed { cause })?;
            return Err(Error::ItemTooLarge { bytes, bytes_max });
        }
        self.end_lease(held)?;
        let first = self.settled_since.is_none();
        self.settled_since.get_or_insert_with(now);
        let follows = self.results_first.0 + u64::from(self.results.count()) == id.0;
        if !follows {
            self.send_results();
        }
        if self.results.count() == 0 {
            self.results_first = id;
        }
        self.results.push_bytes(result);
        if self.results.is_full() {
            self.send_settled();
            return Ok(Settled::Ready);
        }
        Ok(if first { Settled::Gathering } else { Settled::Gathered })
    }

    /// Says that the item is not done.
    pub fn give_back(&mut self, held: Held, outcome: Outcome) -> Result<(), Error> {
        if self.is_held(held) {
            self.end_lease(held)?;
            let unstarted = outcome == Outcome::Unstarted;
            if unstarted {
                self.stop_what_comes();
            }
            self.outbox.push(&Message::Return { range: ItemRange { first: held.id, count: 1 }, outcome });
            if unstarted {
                self.give_back_unstarted();
            }
        }
        Ok(())
    }

    /// Puts what is settled into the outbox.
    pub fn send_settled(&mut self) {
        if self.settled_since.take().is_none() {
            return;
        }
        self.close_last_acks();
        if !self.acks.is_empty() {
            let ranges = std::mem::take(&mut self.acks);
            self.outbox.push(&Message::Ack { ranges });
        }
        self.send_results();
    }

    /// Asks when all that is accepted is settled.
    pub fn join(&mut self) -> u64 {
        self.questions.join(&mut self.outbox)
    }

    /// Asks for the queue's state.
    pub fn ask_status(&mut self) -> u64 {
        self.questions.ask_status(&mut self.outbox)
    }

    fn send_results(&mut self) {
        if let Some((header, buffer)) = self.results.take(self.outbox.take_spare()) {
            let first = self.results_first;
            self.outbox.push_built(|batch| Message::Result { first, batch }, header, buffer);
        }
    }

    /// False while an answer has to come before anything is asked for.
    pub fn may_demand(&self) -> bool {
        !self.is_giving_back() && self.questions.open_withdrawals() < WITHDRAWALS_MAX
    }

    /// True while something may be on its way that goes back as soon as it comes. What is asked for meanwhile could be newer, and pass it.
    fn is_giving_back(&self) -> bool {
        self.giving_back.is_some_and(|number| !self.questions.is_withdrawn(number))
    }

    /// For who gives something back: what is on its way meanwhile goes back as soon as it comes, so that all come again in their order.
    fn stop_what_comes(&mut self) {
        if self.demanded_items > 0 {
            self.giving_back = Some(self.withdraw());
        } else if !self.questions.all_withdrawn() {
            // Sent on a demand that was withdrawn before.
            self.giving_back = Some(self.questions.last_withdrawal());
        }
    }

    fn give_back_unstarted(&mut self) {
        while let Some(current) = &self.current {
            let range = ItemRange { first: current.next_id(), count: current.left() };
            // It may have been announced already.
            self.leased.remove(&(range.first, current.attempt));
            self.outbox.push(&Message::Return { range, outcome: Outcome::Unstarted });
            self.next_batch();
        }
    }

    fn is_watched(&self) -> bool {
        let something_to_give = self.has_local() || self.demanded_items > 0 || !self.questions.all_withdrawn();
        let kept_by_wish = self.prefetch.is_fixed() && self.prefetch.ahead() > 0 && !self.stopped;
        self.callers_waiting == 0 && !kept_by_wish && something_to_give
    }
}

impl Session for ConsumerSession {
    fn handle(&mut self, incoming: Incoming) -> Result<(), Error> {
        let Some(incoming) = self.questions.handle(incoming)? else { return Ok(()) };
        match (incoming.message, incoming.batch) {
            (Message::Deliver { first, attempt, .. }, Some(batch)) => {
                // What comes ahead of the answer to a withdrawal was sent on the demand that is withdrawn.
                if self.questions.all_withdrawn() {
                    self.demanded_items = self.demanded_items.saturating_sub(batch.count());
                    self.demanded_bytes -= batch.body_bytes() as i64;
                }
                self.behind_items += batch.count();
                self.behind_bytes += batch.body_bytes() as i64;
                self.behind.push_back(Delivered { first, attempt, batch });
                if self.current.is_none() {
                    self.next_batch();
                }
                if self.stopped || self.is_giving_back() {
                    self.give_back_unstarted();
                }
                Ok(())
            }
            (Message::Revoke { ranges }, _) => {
                self.revoke(&ranges);
                Ok(())
            }
            (Message::Hurry, _) => {
                self.hurried_waits = HURRIED_WAITS;
                self.send_settled();
                Ok(())
            }
            (Message::Stop, _) => {
                self.stopped = true;
                self.give_back_unstarted();
                Ok(())
            }
            (other, _) => Err(Error::Unexpected(other.name())),
        }
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn next_timeout(&self) -> Option<Duration> {
        let settled = self.settled_since.map(|since| since + FLUSH_DELAY);
        let watch = self.watch.as_ref().filter(|_| self.is_watched()).map(|watch| watch.since + PREFETCH_GIVE_BACK_AFTER);
        settled.into_iter().chain(watch).min()
    }

    fn handle_timeout(&mut self, now: Duration) {
        if self.settled_since.is_some_and(|since| since + FLUSH_DELAY <= now) {
            self.send_settled();
        }
        let (watched, taken_total) = (self.is_watched(), self.taken_total());
        let Some(watch) = &mut self.watch else { return };
        if watch.since + PREFETCH_GIVE_BACK_AFTER > now {
            return;
        }
        let idle = watch.taken_total == taken_total;
        *watch = Watch { since: now, taken_total };
        if idle && watched {
            self.stop_what_comes();
            self.give_back_unstarted();
            self.prefetch.collapse();
        }
        // Who stops waiting begins a watch of its own: more may have come than it takes.
        if !self.is_watched() {
            self.watch = None;
        }
    }

    fn goodbye(&mut self) {
        self.send_settled();
        self.give_back_unstarted();
        self.outbox.push(&Message::Close { reason: CloseReason::Goodbye, words: String::new() });
    }

    fn lose(&mut self) {
        self.epoch += 1;
        self.behind.clear();
        (self.behind_items, self.behind_bytes) = (0, 0);
        // Counts what was taken of the current batch, and lets go of it.
        self.next_batch();
        (self.demanded_items, self.demanded_bytes) = (0, 0);
        (self.watch, self.giving_back) = (None, None);
        (self.settled_since, self.last_acks) = (None, NO_ACKS);
        self.acks.clear();
        self.results = BatchBuilder::default();
        self.leased.clear();
        self.questions.lose();
        self.outbox = Outbox::default();
    }

    fn resume(&mut self, greeting: Greeting) -> Result<(), Error> {
        (self.item_bytes_max, self.announce_from, self.lease) = (greeting.item_bytes_max, greeting.announce_from, greeting.lease);
        // What was asked for without a connection counts for nothing; who waits asks again.
        (self.demanded_items, self.demanded_bytes, self.watch) = (0, 0, None);
        self.outbox = Outbox::default();
        self.questions.resume(&mut self.outbox);
        Ok(())
    }

    fn is_owed(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
