//! What was asked of the servers and is not answered, and when it is asked again; and the requests for messages that lie there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::ItemId;

use super::client::Outgoing;
use super::message::ProducerRecord;
use crate::limits::{JETSTREAM_OVERDUE, JETSTREAM_PULL, JETSTREAM_RETRY};

/// What an answer is to.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A message of items, by its place in line.
    Put(u64),
    /// A message is settled.
    Settle(u64),
    /// A message is another's.
    Release,
    /// Marks of a message are to be kept.
    Mark(u64),
    /// What marks there are of a message.
    Marks(u64),
    /// A dead letter is to be kept.
    Bury(ItemId),
    /// Which dead letters there are, from this place in the list on.
    Letters { offset: u64 },
    /// A dead letter is wanted.
    Letter(ItemId),
    /// A dead letter is to be forgotten.
    ForgetLetter(ItemId),
    /// How many dead letters there are; and how often the queue had come to its end or gone on by then.
    CountLetters { ends: u64 },
    /// That this machine is there.
    Beat,
    /// How full the queue is; how often the machines' records had changed by then; whether somebody has asked for it.
    Look { changes: u64, settled: u64, is_wanted: bool },
    /// Whether a part of the queue is still there.
    Check(&'static str),
    /// The consumer, once an inlet is closed: servers forget what was asked for through it when they look at that, or try to serve it.
    Consumer { inlet: u64 },
    /// Which machines are registered.
    Machines,
    /// What one of them says.
    Machine(String),
    /// The record of a producer's name.
    Name { name: Arc<str>, why: Why },
    /// The last message in the stream of a producer's name, and what the record says.
    Last { name: Arc<str>, kept: Option<(ProducerRecord, u64)> },
    /// A new record for it.
    Write { name: Arc<str>, claim: u64 },
    /// Something is to be forgotten.
    Forget,
}

/// Why a name's record is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    /// It is to be claimed.
    Claim,
    /// A record of ours for it, of this claim, is not the next.
    Refused { claim: u64 },
    /// Another has come for it since this claim.
    Contested { claim: u64 },
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) out: Outgoing,
    /// When it was asked first.
    pub(super) since: Duration,
    due: Duration,
}

/// The requests by number.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<u64, Request>,
    next: u64,
}

impl Requests {
    pub(super) fn add(&mut self, kind: Kind, out: Outgoing, now: Duration) -> u64 {
        self.next += 1;
        self.open.insert(self.next, Request { kind, out, since: now, due: now + JETSTREAM_OVERDUE });
        self.next
    }

    /// The request that an answer is to, unless it was answered before.
    pub(super) fn take(&mut self, number: u64) -> Option<Request> {
        self.open.remove(&number)
    }

    /// It could not be done now.
    pub(super) fn again(&mut self, number: u64, request: Request, now: Duration) {
        self.open.insert(number, Request { due: now + JETSTREAM_RETRY, ..request });
    }

    /// Those that are to be asked again now. What was given back is not: another may have it by now, and if not, its lease runs out.
    pub(super) fn due(&mut self, now: Duration) -> Vec<(u64, Outgoing)> {
        self.open.retain(|_, request| request.due > now || !matches!(request.kind, Kind::Release));
        let due = self.open.iter_mut().filter(|(_, request)| request.due <= now);
        due.map(|(number, request)| {
            request.due = now + JETSTREAM_OVERDUE;
            (*number, request.out.clone())
        })
        .collect()
    }

    /// All of them are to be asked again at once, but for those that are another's concern, as the order of messages of items is.
    pub(super) fn lost(&mut self, now: Duration) {
        let is_others_concern = |kind: &Kind| {
            use Kind::{Check, Consumer, Look, Machines, Put, Release};
            matches!(kind, Put(_) | Release | Look { .. } | Check(_) | Consumer { .. } | Machines)
        };
        self.open.retain(|_, request| !is_others_concern(&request.kind));
        self.open.values_mut().for_each(|request| request.due = now);
    }

    /// When the oldest was asked first.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.open.values().map(|request| request.since).min()
    }

    /// Messages whose settlement was told long ago, and the servers say nothing to it.
    pub(super) fn unheard_settlements(&self, now: Duration) -> u32 {
        let is_unheard = |request: &&Request| matches!(request.kind, Kind::Settle(_)) && request.since + JETSTREAM_OVERDUE <= now;
        self.open.values().filter(is_unheard).count() as u32
    }

    pub(super) fn any(&self, is_it: impl Fn(&Kind) -> bool) -> bool {
        self.open.values().any(|request| is_it(&request.kind))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[derive(Debug)]
struct Pull {
    left: u32,
    until: Duration,
}

/// The requests for messages that lie at the servers, and how many messages are wanted.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    wanted: u32,
    /// Messages to come again because the server has forgotten that they were delivered: one that is killed forgets the last moments.
    forgotten: u32,
    open: BTreeMap<u64, Pull>,
    next: u64,
    not_before: Duration,
}

impl Pulls {
    /// So many more messages are wanted, in all.
    pub(super) fn want(&mut self, messages: u32) {
        self.wanted = messages;
    }

    /// So many more are wanted than were before.
    pub(super) fn want_more(&mut self, messages: u32) {
        self.wanted = self.wanted.saturating_add(messages);
    }

    /// So many messages that are held have to come again.
    pub(super) fn want_again(&mut self, messages: u32) {
        self.forgotten = messages;
    }

    /// True if there is something to ask for.
    pub(super) fn is_lacking(&self) -> bool {
        self.wanted + self.forgotten > self.open.values().map(|pull| pull.left).sum()
    }

    /// A request to make: its number, and for how many messages.
    pub(super) fn next(&mut self, now: Duration) -> Option<(u64, u32)> {
        let open: u32 = self.open.values().map(|pull| pull.left).sum();
        let left = (self.wanted + self.forgotten).saturating_sub(open);
        if left == 0 || now < self.not_before {
            return None;
        }
        self.next += 1;
        // The server says when it is over; what is said may be lost.
        self.open.insert(self.next, Pull { left, until: now + JETSTREAM_PULL + JETSTREAM_OVERDUE });
        Some((self.next, left))
    }

    /// Forgets requests whose end the servers should have told. True if there were any.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let before = self.open.len();
        self.open.retain(|_, pull| pull.until > now);
        self.open.len() < before
    }

    /// When there may be a request to make again.
    pub(super) fn next_at(&self) -> Option<Duration> {
        let expiry = self.open.values().map(|pull| pull.until).min();
        (self.wanted + self.forgotten > 0)
            .then(|| expiry.unwrap_or(Duration::MAX).min(if self.open.is_empty() { self.not_before } else { Duration::MAX }))
    }

    /// A message has come, which is held already or not. False if it is not wanted any more.
    pub(super) fn delivered(&mut self, is_held: bool) -> bool {
        // Servers serve the oldest first; should it have been another, it shows when that ends.
        if let Some(mut oldest) = self.open.first_entry() {
            oldest.get_mut().left -= 1;
            if oldest.get().left == 0 {
                oldest.remove();
            }
        }
        if is_held {
            self.forgotten = self.forgotten.saturating_sub(1);
            return true;
        }
        let is_wanted = self.wanted > 0;
        self.wanted = self.wanted.saturating_sub(1);
        is_wanted
    }

    /// A request is over; the next is to wait a while if the servers cannot serve it.
    pub(super) fn ended(&mut self, number: u64, in_trouble: bool, now: Duration) {
        self.open.remove(&number);
        if in_trouble {
            self.not_before = now + JETSTREAM_RETRY;
        }
    }

    /// How many messages may come at most for those that lie there, and word of their ends.
    pub(super) fn rest(&self) -> u64 {
        self.open.values().map(|pull| u64::from(pull.left) + 1).sum()
    }

    /// True if somebody waits for a message.
    pub(super) fn is_wanting(&self) -> bool {
        self.wanted > 0
    }

    /// Messages may come that nobody wants any more.
    pub(super) fn is_in_vain(&self) -> bool {
        self.wanted + self.forgotten == 0 && !self.open.is_empty()
    }

    /// The connection is lost, or the inlet closed, and they with it.
    pub(super) fn lost(&mut self) {
        self.open.clear();
        self.not_before = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn what_is_not_answered_is_asked_again_and_an_answer_counts_once() {
        let mut requests = Requests::default();
        let number = requests.add(Kind::Settle(7), Outgoing::default(), NOW);
        assert_eq!(requests.due(JETSTREAM_OVERDUE / 2).len(), 0);
        assert_eq!(requests.due(JETSTREAM_OVERDUE).len(), 1);
        assert_eq!(requests.due(JETSTREAM_OVERDUE).len(), 0);
        let request = requests.take(number).unwrap();
        requests.again(number, request, NOW);
        assert_eq!(requests.due(JETSTREAM_RETRY).len(), 1);
        assert!(requests.take(number).is_some() && requests.take(number).is_none());
    }

    #[test]
    fn after_a_loss_all_but_messages_of_items_is_asked_at_once() {
        let mut requests = Requests::default();
        requests.add(Kind::Put(0), Outgoing::default(), NOW);
        let number = requests.add(Kind::Settle(7), Outgoing::default(), NOW);
        requests.lost(NOW);
        assert_eq!(requests.due(NOW).into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [number]);
    }

    #[test]
    fn no_more_is_asked_for_than_is_wanted() {
        let mut pulls = Pulls::default();
        assert_eq!(pulls.next(NOW), None);
        pulls.want(3);
        assert_eq!(pulls.next(NOW), Some((1, 3)));
        assert_eq!(pulls.next(NOW), None);
        assert!(pulls.delivered(false));
        pulls.want(5);
        assert_eq!(pulls.next(NOW), Some((2, 3)), "two lie there");
        pulls.ended(1, true, NOW);
        assert_eq!(pulls.next(NOW), None, "it has to wait");
        assert_eq!(pulls.next(JETSTREAM_RETRY), Some((3, 2)));
        assert!(!pulls.expire(JETSTREAM_PULL) && pulls.expire(2 * JETSTREAM_PULL), "the servers say nothing");
        assert_eq!(pulls.next(2 * JETSTREAM_PULL), Some((4, 5)));
        pulls.want(0);
        assert!(!pulls.delivered(false), "nobody wants it any more");
    }

    #[test]
    fn what_a_server_has_forgotten_is_asked_for_again() {
        let mut requests = Requests::default();
        requests.add(Kind::Settle(7), Outgoing::default(), NOW);
        requests.add(Kind::Mark(7), Outgoing::default(), NOW);
        assert_eq!((requests.unheard_settlements(NOW), requests.unheard_settlements(JETSTREAM_OVERDUE)), (0, 1));
        let mut pulls = Pulls::default();
        pulls.want_again(1);
        assert_eq!(pulls.next(NOW), Some((1, 1)));
        assert!(!pulls.delivered(false), "another has come");
        assert_eq!(pulls.next(NOW), Some((2, 1)));
        assert!(pulls.delivered(true));
        assert_eq!(pulls.next(NOW), None);
    }
}
