//! What is on its way to the stream, in order, and when the next may leave.
//!
//! Messages are published without waiting for the confirmation of those before: only as long as it is certain that there is room for all of
//! them, since one that is refused while the next is taken would be overtaken. How full the stream is shows a *look*. A machine that is
//! alone may fill up what it finds free. Where there are several, none has more under way and allowed than one *share*, and each look sets
//! aside a share for each other machine, which may have looked at the same time. A message larger than a share leaves alone, after a look
//! with nothing under way.

use std::collections::VecDeque;
use std::time::Duration;

use common::batch::Batch;

use super::message::{ItemsMessage, Reached};
use crate::limits::{JETSTREAM_FLIGHT_BYTES_MAX, JETSTREAM_FLIGHT_MESSAGES_MAX, JETSTREAM_FULL, JETSTREAM_OVERHEAD_BYTES, JETSTREAM_SHARE};

/// Items and bytes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

impl Amount {
    fn covers(self, other: Amount) -> bool {
        self.items >= other.items && self.bytes >= other.bytes
    }

    fn plus(self, other: Amount) -> Amount {
        Amount { items: self.items + other.items, bytes: self.bytes + other.bytes }
    }

    fn less(self, other: Amount) -> Amount {
        Amount { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn min(self, other: Amount) -> Amount {
        Amount { items: self.items.min(other.items), bytes: self.bytes.min(other.bytes) }
    }

    fn times(self, factor: u64) -> Amount {
        Amount { items: self.items.saturating_mul(factor), bytes: self.bytes.saturating_mul(factor) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Flying,
    Stored,
}

/// A message of items.
#[derive(Debug)]
pub(super) struct Put {
    /// Whose confirmation this is, if it is the last that belongs to it.
    pub(super) ticket: Option<u64>,
    pub(super) subject: String,
    /// What the server knows it by if it comes again.
    pub(super) id: String,
    pub(super) batch: Batch,
    /// Its number in the stream, once it is there.
    pub(super) sequence: u64,
    /// How far its producer is with it, if it has a name.
    pub(super) by: Option<(std::sync::Arc<str>, Reached)>,
    state: State,
    /// It was sent, and may have been stored without our hearing of it.
    was_sent: bool,
    /// It does not leave any more, nor again.
    is_withdrawn: bool,
}

impl Put {
    pub(super) fn new(ticket: Option<u64>, subject: String, id: String, batch: Batch) -> Put {
        Put { ticket, subject, id, batch, sequence: 0, by: None, state: State::Waiting, was_sent: false, is_withdrawn: false }
    }

    /// It is done with, though it was not stored as far as is known.
    fn drop_if_withdrawn(&mut self) {
        if self.is_withdrawn && self.state == State::Waiting {
            (self.state, self.by) = (State::Stored, None);
        }
    }

    fn amount(&self) -> Amount {
        Amount { items: u64::from(self.batch.count()), bytes: self.batch.body_bytes() + MESSAGE_BYTES }
    }

    /// The message: made when it leaves, so that what waits is there once.
    pub(super) fn message(&self) -> ItemsMessage {
        ItemsMessage::write(&self.batch, self.by.as_ref().map(|(_, reached)| *reached))
    }
}

/// About what the server counts for a message beside its payload.
const MESSAGE_BYTES: u64 = JETSTREAM_OVERHEAD_BYTES / 32;

/// The messages that are not known to be stored.
#[derive(Debug)]
pub(super) struct Puts {
    line: VecDeque<Put>,
    /// The number of the first in line.
    first: u64,
    /// The place in line of the first that waits.
    waiting: usize,
    flying: usize,
    /// The number of the last that left.
    last: u64,
    flying_amount: Amount,
    bounds: Amount,
    machines: u64,
    /// What may leave without waiting for those before.
    budget: Amount,
    /// What the last look found free, if nothing was under way then nor has left since.
    room: Option<Amount>,
    /// The stream was empty when it was looked.
    is_empty: bool,
    /// A look is under way; what was flying when it was asked for, and has left since.
    asked: Option<Amount>,
    look_at: Duration,
    full_looks: u32,
}

impl Puts {
    pub(super) fn new(bounds: Amount) -> Puts {
        Puts {
            line: VecDeque::new(),
            first: 0,
            waiting: 0,
            flying: 0,
            last: 0,
            flying_amount: Amount::default(),
            bounds,
            machines: 1,
            budget: Amount::default(),
            room: None,
            is_empty: false,
            asked: None,
            look_at: Duration::ZERO,
            full_looks: 0,
        }
    }

    pub(super) fn push(&mut self, put: Put) {
        self.line.push_back(put);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The next that may leave, and its number: it is to be published.
    pub(super) fn next(&mut self) -> Option<(u64, &Put)> {
        let put = self.line.get(self.waiting)?;
        let amount = put.amount();
        let number = self.first + self.waiting as u64;
        let overtakes_nobody = self.flying == 0 || self.last < number;
        let is_window_full = self.flying >= JETSTREAM_FLIGHT_MESSAGES_MAX || self.flying_amount.bytes >= JETSTREAM_FLIGHT_BYTES_MAX;
        if !overtakes_nobody || is_window_full {
            return None;
        }
        let has_room = !self.share().covers(amount) && self.room.is_some_and(|room| room.covers(amount));
        let alone = self.flying == 0 && (put.was_sent || has_room || self.is_empty);
        if !self.budget.covers(amount) && !alone {
            return None;
        }
        self.budget = self.budget.less(amount);
        self.room = None;
        self.is_empty = false;
        self.asked = self.asked.map(|asked| asked.plus(amount));
        (self.flying, self.last) = (self.flying + 1, number);
        self.flying_amount = self.flying_amount.plus(amount);
        let place = self.waiting;
        let put = &mut self.line[place];
        (put.state, put.was_sent) = (State::Flying, true);
        self.waiting = self.next_waiting(place + 1);
        Some((number, &self.line[place]))
    }

    /// A message is stored under this number. Gives those that are now done with, in order.
    pub(super) fn stored(&mut self, number: u64, sequence: u64) -> Vec<Put> {
        if let Some(place) = self.landed(number, State::Stored) {
            self.line[place].sequence = sequence;
        }
        self.done()
    }

    /// There was no room for a message. It leaves again before any other. Gives those that are now done with, as all that follow.
    pub(super) fn refused(&mut self, number: u64, now: Duration) -> Vec<Put> {
        let Some(place) = self.landed(number, State::Waiting) else { return Vec::new() };
        self.line[place].was_sent = false;
        self.line[place].drop_if_withdrawn();
        self.waiting = self.next_waiting(self.waiting.min(place));
        (self.budget, self.room) = (Amount::default(), None);
        self.full(now);
        self.done()
    }

    /// The producer from which these messages come has gone to another machine, and puts there again what has not left: it is dropped here.
    pub(super) fn withdraw(&mut self, source: &str) -> Vec<Put> {
        let is_its = |put: &&mut Put| put.subject.rsplit_once('.').is_some_and(|(_, its)| its == source);
        for put in self.line.iter_mut().filter(is_its) {
            put.is_withdrawn = true;
            put.drop_if_withdrawn();
        }
        self.waiting = self.next_waiting(self.waiting);
        self.done()
    }

    /// The connection is lost: what was flying leaves again, and the server drops what it has.
    pub(super) fn lost(&mut self) -> Vec<Put> {
        for put in self.line.iter_mut().filter(|put| put.state == State::Flying) {
            put.state = State::Waiting;
            put.drop_if_withdrawn();
        }
        (self.flying, self.flying_amount) = (0, Amount::default());
        (self.budget, self.room, self.asked) = (Amount::default(), None, None);
        (self.look_at, self.full_looks) = (Duration::ZERO, 0);
        self.waiting = self.next_waiting(0);
        self.done()
    }

    /// When it has to be looked how full the stream is, if that is needed.
    pub(super) fn look_at(&self) -> Option<Duration> {
        let next = self.line.get(self.waiting)?.amount();
        // Early enough that the answer comes before the budget is used up.
        let has_enough = self.budget.covers(next) && self.budget.times(4).covers(self.share().times(3));
        (self.asked.is_none() && !has_enough).then_some(self.look_at)
    }

    /// A look is under way.
    pub(super) fn asked(&mut self) {
        self.asked = Some(self.flying_amount);
    }

    /// What it has shown: what lies in the stream, with so many machines about.
    pub(super) fn looked(&mut self, found: Amount, machines: u64, now: Duration) {
        let Some(ours) = self.asked.take() else { return };
        self.is_empty = found == Amount::default() && ours == Amount::default();
        let room = self.bounds.less(found).less(ours);
        self.room = (ours == Amount::default()).then_some(room);
        self.machines = machines;
        self.budget = room.less(self.share().times(machines - 1));
        if machines > 1 {
            // Not less what is under way now: somebody may have looked since this was asked, and what has left since counts for both looks.
            self.budget = self.budget.min(self.share().less(ours));
        }
        let next = self.line.get(self.waiting).map(Put::amount).unwrap_or_default();
        if self.budget.covers(next) || (!self.share().covers(next) && room.covers(next)) || self.is_empty {
            (self.full_looks, self.look_at) = (0, now);
        } else {
            self.full(now);
        }
    }

    /// So many machines are there: what one may do alone, it may not any more when there is another.
    pub(super) fn note_machines(&mut self, machines: u64) {
        self.machines = machines;
        if machines > 1 {
            self.budget = self.budget.min(self.share().less(self.flying_amount));
        }
    }

    /// What each of the machines may have under way: together they set aside no more than one part of the queue, however many they are.
    fn share(&self) -> Amount {
        let parts = JETSTREAM_SHARE * self.machines;
        Amount { items: self.bounds.items / parts, bytes: (self.bounds.bytes / parts).min(JETSTREAM_FLIGHT_BYTES_MAX) }
    }

    fn full(&mut self, now: Duration) {
        self.full_looks = self.full_looks.saturating_add(1);
        self.look_at = now + JETSTREAM_FULL.after(self.full_looks);
    }

    /// Returns the place in line, unless that had been known already.
    fn landed(&mut self, number: u64, state: State) -> Option<usize> {
        let place = number.checked_sub(self.first)? as usize;
        let put = self.line.get_mut(place).filter(|put| put.state != state)?;
        let (was, amount) = (put.state, put.amount());
        put.state = state;
        if was == State::Flying {
            self.flying -= 1;
            self.flying_amount = self.flying_amount.less(amount);
        }
        if was == State::Waiting {
            self.waiting = self.next_waiting(0);
        }
        Some(place)
    }

    /// Those at the front that are done with.
    fn done(&mut self) -> Vec<Put> {
        let mut done = Vec::new();
        while self.line.front().is_some_and(|put| put.state == State::Stored) {
            done.extend(self.line.pop_front());
            self.first += 1;
            self.waiting = self.waiting.saturating_sub(1);
        }
        done
    }

    fn next_waiting(&self, from: usize) -> usize {
        let next = self.line.iter().skip(from).position(|put| put.state == State::Waiting);
        next.map_or(self.line.len(), |next| from + next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::batch::{BatchHeader, Layout};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const NOW: Duration = Duration::ZERO;

    fn put(ticket: u64, count: u32) -> Put {
        let header = BatchHeader { count, layout: Layout::Uniform { len: 0 } };
        let batch = Batch::check(header, bytes::Bytes::new()).unwrap();
        Put::new(Some(ticket), String::new(), String::new(), batch)
    }

    fn puts(capacity_items: u64, count: u64) -> Puts {
        let mut puts = Puts::new(Amount { items: capacity_items, bytes: 1 << 30 });
        (0..count).for_each(|ticket| puts.push(put(ticket, 1)));
        puts
    }

    fn look(puts: &mut Puts, items: u64, machines: u64) {
        puts.asked();
        puts.looked(Amount { items, bytes: 0 }, machines, NOW);
    }

    fn leave(puts: &mut Puts) -> Vec<u64> {
        std::iter::from_fn(|| puts.next().map(|(number, _)| number)).collect()
    }

    fn tickets(puts: &mut Puts, number: u64) -> Vec<u64> {
        puts.stored(number, 0).into_iter().filter_map(|put| put.ticket).collect()
    }

    #[test]
    fn nothing_leaves_before_it_is_known_whether_there_is_room() {
        let mut puts = puts(320, 50);
        assert_eq!(leave(&mut puts), [0; 0]);
        assert_eq!(puts.look_at(), Some(NOW));
        look(&mut puts, 0, 2);
        assert_eq!(leave(&mut puts).len(), 10, "half of a sixteenth");
        assert_eq!(puts.look_at(), Some(NOW));
        look(&mut puts, 0, 2);
        assert_eq!(leave(&mut puts).len(), 0, "as much is under way");
        (0..4).for_each(|number| drop(puts.stored(number, 0)));
        look(&mut puts, 4, 2);
        assert_eq!(leave(&mut puts).len(), 4);
        look(&mut puts, 290, 1);
        assert_eq!(leave(&mut puts).len(), 20, "alone, it may fill up what is free and not for what is on its way");
    }

    #[test]
    fn what_others_may_fill_up_is_set_aside() {
        let mut puts = puts(320, 30);
        look(&mut puts, 302, 2);
        assert_eq!(leave(&mut puts), [0, 1, 2, 3, 4, 5, 6, 7], "18 are free, of which 10 may be the other's");
        (0..8).for_each(|number| drop(puts.stored(number, 0)));
        look(&mut puts, 310, 2);
        assert_eq!(leave(&mut puts), [0; 0]);
        assert_eq!(puts.look_at(), Some(JETSTREAM_FULL.min));
        look(&mut puts, 309, 2);
        assert_eq!((leave(&mut puts), puts.look_at()), (vec![8], Some(NOW)));
    }

    #[test]
    fn what_one_may_do_alone_it_may_not_when_another_comes() {
        let mut puts = puts(320, 50);
        look(&mut puts, 0, 1);
        puts.note_machines(2);
        assert_eq!(leave(&mut puts).len(), 10);
    }

    #[test]
    fn a_message_larger_than_a_share_leaves_alone_after_a_look_with_nothing_under_way() {
        let mut puts = Puts::new(Amount { items: 32, bytes: 1 << 30 });
        (0..3).for_each(|ticket| puts.push(put(ticket, 9)));
        look(&mut puts, 10, 2);
        assert_eq!(leave(&mut puts), [0]);
        look(&mut puts, 10, 2);
        puts.stored(0, 0);
        assert_eq!(leave(&mut puts), [0; 0], "what was on its way may not have been seen");
        look(&mut puts, 19, 2);
        assert_eq!(leave(&mut puts), [1]);
        puts.stored(1, 0);
        look(&mut puts, 28, 2);
        assert_eq!((leave(&mut puts), puts.look_at()), (vec![], Some(JETSTREAM_FULL.min)));
    }

    #[test]
    fn confirmations_are_told_in_order() {
        let mut puts = puts(1000, 3);
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [0, 1, 2]);
        assert_eq!(tickets(&mut puts, 2), [0; 0]);
        assert_eq!(tickets(&mut puts, 0), [0]);
        assert_eq!(tickets(&mut puts, 1), [1, 2]);
        assert_eq!(tickets(&mut puts, 1), [0; 0], "an answer that comes twice");
        assert!(puts.is_empty());
    }

    #[test]
    fn one_that_is_refused_leaves_again_first_and_nothing_overtakes_it_any_more() {
        let mut puts = puts(1000, 4);
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [0, 1, 2, 3]);
        puts.refused(0, NOW);
        puts.refused(0, NOW);
        assert_eq!(puts.look_at(), Some(JETSTREAM_FULL.min));
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [0; 0], "three are on their way");
        puts.refused(1, NOW);
        puts.stored(2, 0);
        puts.stored(3, 0);
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [0, 1]);
        assert_eq!(tickets(&mut puts, 0), [0]);
        assert_eq!(tickets(&mut puts, 1), [1, 2, 3]);
    }

    #[test]
    fn after_a_loss_all_that_is_not_confirmed_leaves_again_without_asking_for_room_that_it_may_have() {
        let mut puts = puts(1000, 3);
        look(&mut puts, 0, 1);
        leave(&mut puts);
        puts.stored(1, 0);
        puts.lost();
        assert_eq!(leave(&mut puts), [0], "the queue may be full of just these");
        assert_eq!(tickets(&mut puts, 0), [0, 1]);
        assert_eq!(leave(&mut puts), [2]);
    }

    #[test]
    fn what_is_withdrawn_is_told_in_its_turn_and_leaves_no_more_whatever_becomes_of_it() {
        let named = |ticket| {
            let reached = Reached { position: ticket, checksum: 0 };
            let put = put(ticket, 1);
            Put { subject: format!("items.1.{}", ["na", "n"][ticket as usize % 2]), by: Some(("a".into(), reached)), ..put }
        };
        let mut puts = Puts::new(Amount { items: 1000, bytes: 1 << 30 });
        (0..4).for_each(|ticket| puts.push(named(ticket)));
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [0, 1, 2, 3]);
        (4..8).for_each(|ticket| puts.push(named(ticket)));
        let told = |done: Vec<Put>| done.into_iter().map(|put| (put.ticket.unwrap(), put.by.is_some())).collect::<Vec<_>>();
        assert_eq!(told(puts.withdraw("na")), [], "the first may be stored");
        assert_eq!(told(puts.refused(0, NOW)), [(0, false)]);
        assert_eq!(told(puts.stored(1, 9)), [(1, true)]);
        assert_eq!(told(puts.lost()), [(2, false)]);
        assert_eq!(leave(&mut puts), [3], "it was sent, and may be there");
        assert_eq!(told(puts.stored(3, 9)), [(3, true), (4, false)]);
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [5, 7]);
        assert_eq!((told(puts.stored(7, 9)), told(puts.stored(5, 9))), (vec![], vec![(5, true), (6, false), (7, true)]));
        assert!(puts.is_empty());
    }

    #[test]
    fn a_message_larger_than_the_queue_passes_when_that_is_empty() {
        let mut puts = Puts::new(Amount { items: 5, bytes: 1 << 30 });
        puts.push(put(0, 9));
        look(&mut puts, 1, 1);
        assert_eq!(leave(&mut puts), [0; 0]);
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [0]);
    }

    proptest! {
        /// Machines that look and put in any order, at a stream that takes what fits.
        #[test]
        fn whatever_machines_do_none_is_overtaken_by_itself(
            capacity in 64u64..200, machines in 2usize..4, steps in prop::collection::vec((0usize..4, 0u8..8), 500..4000),
        ) {
            let mut puts: Vec<Puts> = (0..machines).map(|_| puts(capacity, 2000)).collect();
            let (mut stream, mut flying) = (Vec::new(), vec![BTreeSet::new(); machines]);
            let (mut looks, mut stored) = (BTreeMap::new(), vec![Vec::new(); machines]);
            for (machine, step) in steps {
                let machine = machine % machines;
                let its = &mut puts[machine];
                match step {
                    0 if its.look_at().is_some() => {
                        its.asked();
                        looks.insert(machine, stream.len() as u64);
                    }
                    1 => {
                        if let Some(items) = looks.remove(&machine) {
                            its.looked(Amount { items, bytes: 0 }, machines as u64, NOW);
                        }
                    }
                    2 => flying[machine].extend(leave(its)),
                    // In order of leaving: the stream takes a connection's messages as they come.
                    3..6 => if let Some(number) = flying[machine].pop_first() {
                        if (stream.len() as u64) < capacity {
                            stream.push(machine);
                            stored[machine].push(number);
                            its.stored(number, 0);
                        } else {
                            its.refused(number, NOW);
                        }
                    }
                    // It gets its turn only now and then, so that the stream is full mostly.
                    6 if machine == 0 && !stream.is_empty() => drop(stream.remove(0)),
                    _ => {}
                }
            }
            prop_assert!(stored.iter().all(|order| order.is_sorted()), "{stored:?}");
        }
    }
}
