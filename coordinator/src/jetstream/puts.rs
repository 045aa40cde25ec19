//! What is on its way to the stream, in order, and when the next may leave.
//!
//! Messages are published without waiting for the confirmation of those before: only as long as it is certain that there is room for all of
//! them, since one that is refused while the next is taken would be overtaken. How full the stream is shows a *look*. Each look allows a
//! machine to fill up one *share* at most, and as much is left to each other machine, which may have looked at the same time. Once there
//! is less room than that, one message is under way at a time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::message::Reached;
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
    pub(super) payload: Bytes,
    pub(super) items: u64,
    /// Its number in the stream, once it is there.
    pub(super) sequence: u64,
    /// How far its producer is with it, if it has a name.
    pub(super) by: Option<(std::sync::Arc<str>, Reached)>,
    state: State,
    /// It was sent, and may have been stored without our hearing of it.
    was_sent: bool,
}

impl Put {
    pub(super) fn new(ticket: Option<u64>, subject: String, id: String, payload: Bytes, items: u64) -> Put {
        Put { ticket, subject, id, payload, items, sequence: 0, by: None, state: State::Waiting, was_sent: false }
    }

    fn amount(&self) -> Amount {
        Amount { items: self.items, bytes: self.payload.len() as u64 + MESSAGE_BYTES }
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
    share: Amount,
    /// What may leave without waiting for those before.
    budget: Amount,
    /// What the last look found free, less what left since.
    room: Amount,
    /// The stream was empty when it was looked.
    is_empty: bool,
    /// A look is under way; what was flying when it was asked for, and has left since.
    asked: Option<Amount>,
    look_at: Duration,
    full_looks: u32,
}

impl Puts {
    pub(super) fn new(bounds: Amount) -> Puts {
        let share = Amount { items: bounds.items / JETSTREAM_SHARE, bytes: bounds.bytes / JETSTREAM_SHARE };
        Puts {
            line: VecDeque::new(),
            first: 0,
            waiting: 0,
            flying: 0,
            last: 0,
            flying_amount: Amount::default(),
            bounds,
            share: share.min(Amount { items: u64::MAX, bytes: JETSTREAM_FLIGHT_BYTES_MAX }),
            budget: Amount::default(),
            room: Amount::default(),
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
        if !overtakes_nobody || self.flying >= JETSTREAM_FLIGHT_MESSAGES_MAX {
            return None;
        }
        let alone = self.flying == 0 && (put.was_sent || self.room.covers(amount) || self.is_empty);
        if !self.budget.covers(amount) && !alone {
            return None;
        }
        self.budget = self.budget.less(amount);
        self.room = self.room.less(amount);
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
        let mut done = Vec::new();
        while self.line.front().is_some_and(|put| put.state == State::Stored) {
            done.extend(self.line.pop_front());
            self.first += 1;
            self.waiting = self.waiting.saturating_sub(1);
        }
        done
    }

    /// There was no room for a message. It leaves again before any other.
    pub(super) fn refused(&mut self, number: u64, now: Duration) {
        let Some(place) = self.landed(number, State::Waiting) else { return };
        self.line[place].was_sent = false;
        self.waiting = self.waiting.min(place);
        (self.budget, self.room) = (Amount::default(), Amount::default());
        self.full(now);
    }

    /// The connection is lost: what was flying leaves again, and the server drops what it has.
    pub(super) fn lost(&mut self) {
        for put in self.line.iter_mut().filter(|put| put.state == State::Flying) {
            put.state = State::Waiting;
        }
        (self.flying, self.flying_amount) = (0, Amount::default());
        (self.budget, self.room, self.asked) = (Amount::default(), Amount::default(), None);
        (self.look_at, self.full_looks) = (Duration::ZERO, 0);
        self.waiting = self.next_waiting(0);
    }

    /// When it has to be looked how full the stream is, if that is needed.
    pub(super) fn look_at(&self) -> Option<Duration> {
        let next = self.line.get(self.waiting)?.amount();
        let has_enough = self.budget.covers(next) && self.budget.times(2).covers(self.share);
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
        self.room = self.bounds.less(found).less(ours);
        self.budget = self.room.less(self.share.times(machines.saturating_sub(1))).min(self.share);
        let has_room = self.line.get(self.waiting).is_none_or(|put| self.room.covers(put.amount()));
        if has_room || self.is_empty {
            (self.full_looks, self.look_at) = (0, now);
        } else {
            self.full(now);
        }
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

    fn next_waiting(&self, from: usize) -> usize {
        let next = self.line.iter().skip(from).position(|put| put.state == State::Waiting);
        next.map_or(self.line.len(), |next| from + next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const NOW: Duration = Duration::ZERO;

    fn put(ticket: u64, items: u64) -> Put {
        Put::new(Some(ticket), String::new(), String::new(), Bytes::new(), items)
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
        let mut puts = puts(160, 30);
        assert_eq!(leave(&mut puts), [0; 0]);
        assert_eq!(puts.look_at(), Some(NOW));
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts).len(), 10, "a sixteenth");
        assert_eq!(puts.look_at(), Some(NOW));
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts).len(), 10, "what is flying may have been counted or not");
    }

    #[test]
    fn where_others_may_fill_up_what_is_left_one_leaves_at_a_time() {
        let mut puts = puts(160, 30);
        look(&mut puts, 142, 2);
        assert_eq!(leave(&mut puts), [0, 1, 2, 3, 4, 5, 6, 7], "18 are free, of which 10 may be the other's");
        look(&mut puts, 150, 2);
        assert_eq!(leave(&mut puts), [0; 0]);
        (0..8).for_each(|number| drop(puts.stored(number, 0)));
        look(&mut puts, 155, 2);
        assert_eq!(leave(&mut puts), [8]);
        assert_eq!(tickets(&mut puts, 8), [8]);
        assert_eq!(leave(&mut puts), [9]);
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
    fn a_message_larger_than_the_queue_passes_when_that_is_empty() {
        let mut puts = Puts::new(Amount { items: 5, bytes: 1 << 30 });
        puts.push(put(0, 9));
        look(&mut puts, 1, 1);
        assert_eq!(leave(&mut puts), [0; 0]);
        look(&mut puts, 0, 1);
        assert_eq!(leave(&mut puts), [0]);
    }

    proptest! {
        /// Machines that look and put in any order, at a stream that takes what fits and confirms when it likes.
        #[test]
        fn the_stream_refuses_nobody_and_keeps_each_machines_order(
            capacity in 1u64..100, machines in 1usize..4, steps in prop::collection::vec((0usize..4, 0u8..5), 1..300),
        ) {
            let mut puts: Vec<Puts> = (0..machines).map(|_| puts(capacity, 200)).collect();
            let (mut stream, mut flying) = (Vec::new(), vec![BTreeSet::new(); machines]);
            let mut looks = BTreeMap::new();
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
                    3 => if let Some(number) = flying[machine].pop_first() {
                        if (stream.len() as u64) < capacity {
                            stream.push((machine, number));
                            its.stored(number, 0);
                        } else {
                            its.refused(number, NOW);
                        }
                    }
                    _ if !stream.is_empty() => drop(stream.remove(0)),
                    _ => {}
                }
                for machine in 0..machines {
                    let order: Vec<u64> = stream.iter().filter(|(whose, _)| *whose == machine).map(|(_, number)| *number).collect();
                    prop_assert!(order.is_sorted(), "{order:?}");
                }
            }
        }
    }
}
