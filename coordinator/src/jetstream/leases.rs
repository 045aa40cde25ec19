//! The messages that this machine holds: whose lease is kept alive, what became of their items, and how each ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::message::{ItemsMessage, Marks};

/// A message that is held.
#[derive(Debug)]
struct Lease {
    /// Where it is acknowledged: the last delivery's.
    reply: String,
    message: ItemsMessage,
    /// There are marks of it at the servers.
    is_marked: bool,
    /// Marks that are on their way, or wait for those before.
    writing: bool,
    next: Option<Marks>,
    ending: Option<Ending>,
    /// The end was said.
    is_ending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Settle,
    Release { delay: Duration },
}

/// What is to be done about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Tell the servers that it is settled, and hear that they know.
    Settle { sequence: u64, reply: String },
    /// Give it to another, after a while.
    Release { reply: String, delay: Duration },
    /// Keep these marks, and hear that they are kept.
    Mark { sequence: u64, message_hash: u64, marks: Marks },
}

#[derive(Debug)]
pub(super) struct Leases {
    held: BTreeMap<u64, Lease>,
    /// Those that others are to have, in the order in which they are to come again.
    releasing: BTreeSet<u64>,
    renew_every: Duration,
    /// When all of them are renewed: one at a time would be a timer for each.
    renew_at: Duration,
}

impl Leases {
    pub(super) fn new(renew_every: Duration) -> Leases {
        Leases { held: BTreeMap::new(), releasing: BTreeSet::new(), renew_every, renew_at: renew_every }
    }

    /// A message has come. False if it is held already: its lease had run out, and goes on with this delivery.
    pub(super) fn delivered(&mut self, sequence: u64, reply: String, message: &ItemsMessage) -> bool {
        if let Some(lease) = self.held.get_mut(&sequence) {
            lease.reply = reply;
            // What was said of the delivery before may have come too late.
            lease.is_ending = false;
            return false;
        }
        let lease = Lease { reply, message: message.clone(), is_marked: false, writing: false, next: None, ending: None, is_ending: false };
        self.held.insert(sequence, lease);
        true
    }

    /// Somebody has marked it before.
    pub(super) fn was_marked(&mut self, sequence: u64) {
        if let Some(lease) = self.held.get_mut(&sequence) {
            lease.is_marked = true;
        }
    }

    pub(super) fn is_held(&self, sequence: u64) -> bool {
        self.held.contains_key(&sequence)
    }

    /// What marks of a message say which it is; worked out when there are some, which is seldom.
    pub(super) fn message_hash(&self, sequence: u64) -> Option<u64> {
        self.held.get(&sequence).map(|lease| lease.message.hash())
    }

    /// All of its items are settled.
    pub(super) fn settle(&mut self, sequence: u64) -> Option<Act> {
        self.held.get_mut(&sequence)?.ending.get_or_insert(Ending::Settle);
        self.go_on(sequence)
    }

    /// Another is to have it, after those before it that are released, too: [`Leases::next_release`] says when.
    pub(super) fn release(&mut self, sequence: u64, delay: Duration) {
        if let Some(lease) = self.held.get_mut(&sequence)
            && lease.ending.is_none()
        {
            lease.ending = Some(Ending::Release { delay });
            self.releasing.insert(sequence);
        }
    }

    /// True if something is to be given to another.
    pub(super) fn is_releasing(&self) -> bool {
        !self.releasing.is_empty()
    }

    /// The next that can be given to another: one that waits for its marks to be kept holds up those behind it, which would come before it.
    pub(super) fn next_release(&mut self) -> Option<Act> {
        let sequence = *self.releasing.first()?;
        let lease = self.held.get(&sequence)?;
        let Some(Ending::Release { delay }) = lease.ending.filter(|_| !lease.writing && lease.next.is_none()) else { return None };
        self.releasing.pop_first();
        self.held.remove(&sequence).map(|lease| Act::Release { reply: lease.reply, delay })
    }

    /// Some of its items are settled, or have failed.
    pub(super) fn mark(&mut self, sequence: u64, marks: Marks) -> Option<Act> {
        let lease = self.held.get_mut(&sequence)?;
        lease.next = Some(marks);
        self.go_on(sequence)
    }

    /// Its marks are kept.
    pub(super) fn marked(&mut self, sequence: u64) -> Option<Act> {
        let lease = self.held.get_mut(&sequence)?;
        lease.writing = false;
        self.go_on(sequence)
    }

    /// The servers know that it is settled. True if there are marks of it, which nobody needs any more.
    pub(super) fn settled(&mut self, sequence: u64) -> Option<bool> {
        self.held.remove(&sequence).map(|lease| lease.is_marked)
    }

    /// Those whose lease is to be renewed now.
    pub(super) fn renewals(&mut self, now: Duration) -> Vec<String> {
        if now < self.renew_at {
            return Vec::new();
        }
        self.renew_at = now + self.renew_every;
        self.held.values().map(|lease| lease.reply.clone()).collect()
    }

    /// When they are.
    pub(super) fn renew_at(&self) -> Option<Duration> {
        (!self.held.is_empty()).then_some(self.renew_at)
    }

    /// All leases are to be renewed as soon as can be.
    pub(super) fn renew_all(&mut self) {
        self.renew_at = Duration::ZERO;
    }

    /// All that is held, in order.
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.held.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// What is to be done about a message now, if anything is. Marks first: who gets the message next is to find them.
    pub(super) fn go_on(&mut self, sequence: u64) -> Option<Act> {
        let lease = self.held.get_mut(&sequence)?;
        if lease.writing || lease.is_ending {
            return None;
        }
        if let Some(marks) = lease.next.take_if(|_| lease.ending != Some(Ending::Settle)) {
            (lease.writing, lease.is_marked) = (true, true);
            return Some(Act::Mark { sequence, message_hash: lease.message.hash(), marks });
        }
        if lease.ending != Some(Ending::Settle) {
            return None;
        }
        lease.is_ending = true;
        Some(Act::Settle { sequence, reply: lease.reply.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn message(body: &'static str) -> ItemsMessage {
        ItemsMessage { head: String::new(), body: body.into() }
    }

    fn held() -> Leases {
        let mut leases = Leases::new(SECOND);
        assert!(leases.delivered(7, "one".into(), &message("first")));
        leases
    }

    fn marks(index: u32) -> Marks {
        Marks { settled: vec![(index, 1)], failed: Vec::new() }
    }

    #[test]
    fn a_lease_is_renewed_until_its_message_is_settled_for_good() {
        let mut leases = held();
        assert_eq!(leases.renewals(SECOND / 2), [""; 0]);
        assert_eq!(leases.renewals(SECOND), ["one"]);
        assert_eq!(leases.settle(7), Some(Act::Settle { sequence: 7, reply: "one".into() }));
        assert_eq!(leases.settle(7), None, "it was said");
        assert_eq!(leases.renewals(2 * SECOND), ["one"], "it may have been lost on its way");
        assert_eq!(leases.settled(7), Some(false));
        assert_eq!((leases.renewals(9 * SECOND), leases.settled(7)), (vec![], None));
    }

    #[test]
    fn all_leases_are_renewed_together_from_time_to_time_or_as_soon_as_they_have_to_be() {
        let mut leases = Leases::new(SECOND);
        assert_eq!(leases.renew_at(), None);
        assert!(leases.delivered(8, "two".into(), &message("second")) && leases.delivered(7, "one".into(), &message("first")));
        assert_eq!((leases.sequences(), leases.len(), leases.renew_at()), (vec![7, 8], 2, Some(SECOND)));
        assert_eq!((leases.renewals(SECOND), leases.renew_at()), (vec!["one".into(), "two".into()], Some(2 * SECOND)));
        leases.renew_all();
        let now = SECOND + SECOND / 2;
        assert_eq!((leases.renewals(now).len(), leases.renew_at()), (2, Some(now + SECOND)));
    }

    #[test]
    fn a_message_that_comes_again_while_it_is_held_is_settled_under_its_last_delivery() {
        let mut leases = held();
        leases.settle(7);
        assert!(!leases.delivered(7, "two".into(), &message("first")));
        assert_eq!(leases.go_on(7), Some(Act::Settle { sequence: 7, reply: "two".into() }));
    }

    #[test]
    fn marks_are_kept_before_another_gets_the_message() {
        let mut leases = held();
        let message_hash = message("first").hash();
        assert_eq!(leases.mark(7, marks(1)), Some(Act::Mark { sequence: 7, message_hash, marks: marks(1) }));
        assert_eq!(leases.mark(7, marks(2)), None, "one after the other");
        assert_eq!(leases.mark(7, marks(3)), None);
        leases.release(7, SECOND);
        assert_eq!(leases.next_release(), None);
        assert_eq!(leases.marked(7), Some(Act::Mark { sequence: 7, message_hash, marks: marks(3) }));
        assert_eq!(leases.next_release(), None);
        assert_eq!(leases.marked(7), None);
        assert_eq!(leases.next_release(), Some(Act::Release { reply: "one".into(), delay: SECOND }));
        assert_eq!((leases.len(), leases.next_release()), (0, None));
    }

    #[test]
    fn messages_are_given_back_in_order_though_one_waits_for_its_marks() {
        let mut leases = held();
        assert!(leases.delivered(8, "two".into(), &message("second")) && !leases.is_releasing());
        leases.mark(7, marks(1));
        leases.release(7, Duration::ZERO);
        leases.release(8, Duration::ZERO);
        assert_eq!(leases.next_release(), None, "it would come before the other");
        assert!(leases.is_releasing());
        leases.marked(7);
        let replies = std::iter::from_fn(|| leases.next_release()).map(|act| match act {
            Act::Release { reply, .. } => reply,
            other => panic!("{other:?}"),
        });
        assert_eq!(replies.collect::<Vec<_>>(), ["one", "two"]);
        assert!(!leases.is_releasing());
    }

    #[test]
    fn marks_that_a_settled_message_has_are_to_be_forgotten() {
        let mut leases = held();
        leases.mark(7, marks(1));
        leases.mark(7, marks(2));
        assert_eq!(leases.settle(7), None, "what is on its way must not come behind");
        assert_eq!(leases.marked(7), Some(Act::Settle { sequence: 7, reply: "one".into() }));
        assert_eq!(leases.settled(7), Some(true));
        let mut leases = held();
        leases.was_marked(7);
        assert_eq!(leases.settled(7), Some(true), "whoever held it before has left some");
    }

    #[test]
    fn what_is_not_held_takes_nothing() {
        let mut leases = Leases::new(SECOND);
        leases.release(1, SECOND);
        assert_eq!((leases.message_hash(1), held().message_hash(7)), (None, Some(message("first").hash())));
        assert!(!leases.is_held(1) && held().is_held(7));
        assert_eq!((leases.settle(1), leases.next_release(), leases.mark(1, marks(0))), (None, None, None));
    }
}
