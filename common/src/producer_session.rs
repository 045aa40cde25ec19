//! A producer's side of a connection, without I/O: collects items into batches, keeps to the credit, counts confirmations.
//!
//! A lone item leaves at once. While an earlier batch is unconfirmed, items gather until the batch is full, the confirmation
//! comes, or [`FLUSH_DELAY`] has passed (Nagle's rule, RFC 896, with an end).

use std::time::Duration;

use crate::batch::BatchBuilder;
use crate::checksum;
use crate::error::Error;
use crate::limits::{BATCH_BYTES_TARGET, CREDIT_BYTES_MAX, CREDIT_ITEMS_MAX, FLUSH_DELAY, batch_cost_bytes};
use crate::message::{CloseReason, Incoming, Message, Position};
use crate::outbox::Outbox;
use crate::session::{Greeting, Questions, Session};

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
pub enum Put {
    /// It is in; nothing needs to be done.
    Taken,
    /// It is in, the first of a batch that waits for an earlier one's confirmation.
    Gathering,
    /// It is in, and a batch is in the outbox.
    Ready,
    /// It is not in: [`ProducerSession::want`] says what lacks.
    NoCredit,
}

/// A producer's state of one connection.
#[derive(Debug)]
pub struct ProducerSession {
    item_bytes_max: u64,
    credit_items: u64,
    credit_bytes: u64,
    gathered: BatchBuilder,
    gathering_since: Option<Duration>,
    sent: Position,
    /// That of all items sent, if the coordinator keeps one.
    checksum: Option<u64>,
    confirmed: Position,
    lacking_bytes: u64,
    wanted_bytes: Option<u64>,
    finish: Finish,
    /// The questions that it has asked.
    pub questions: Questions,
    outbox: Outbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    No,
    Asked,
    Done,
}

impl ProducerSession {
    /// A producer that was greeted so.
    pub fn new(greeting: Greeting) -> ProducerSession {
        let Greeting { item_bytes_max, position, checksum, .. } = greeting;
        ProducerSession {
            item_bytes_max,
            credit_items: 0,
            credit_bytes: 0,
            gathered: BatchBuilder::default(),
            gathering_since: None,
            sent: position,
            checksum,
            confirmed: position,
            lacking_bytes: 0,
            wanted_bytes: None,
            finish: Finish::No,
            questions: Questions::default(),
            outbox: Outbox::default(),
        }
    }

    /// Adds the item whose bytes `encode` appends, if the credit reaches.
    #[inline]
    pub fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), String>, now: impl FnOnce() -> Duration) -> Result<Put, Error> {
        let before = self.gathered.body_bytes();
        let encoded = encode(self.gathered.open_item());
        let after = self.gathered.body_bytes();
        let count = self.gathered.count();
        let fits = after - before <= self.item_bytes_max
            && u64::from(count) < self.credit_items
            && batch_cost_bytes(after + 4 * (u64::from(count) + 1)) <= self.credit_bytes;
        if encoded.is_err() || !fits || self.finish != Finish::No {
            return self.refuse(encoded, after - before);
        }
        self.gathered.end_item();
        if count > 0 && !self.gathered.is_full() {
            return Ok(Put::Taken);
        }
        Ok(self.begin_or_end_batch(now))
    }

    #[cold]
    fn refuse(&mut self, encoded: Result<(), String>, bytes: u64) -> Result<Put, Error> {
        self.gathered.drop_item();
        encoded.map_err(Error::Encode)?;
        if self.finish != Finish::No {
            return Err(Error::Finished);
        }
        let bytes_max = self.item_bytes_max;
        if bytes > bytes_max {
            return Err(Error::ItemTooLarge { bytes, bytes_max });
        }
        self.send_gathered();
        self.lacking_bytes = batch_cost_bytes(bytes + 4);
        Ok(Put::NoCredit)
    }

    #[inline(never)]
    fn begin_or_end_batch(&mut self, now: impl FnOnce() -> Duration) -> Put {
        if self.gathered.is_full() || self.confirmed == self.sent {
            self.send_gathered();
            return Put::Ready;
        }
        self.gathering_since = Some(now());
        Put::Gathering
    }

    /// Asks for the credit that the last put lacked, once.
    pub fn want(&mut self) {
        if self.wanted_bytes != Some(self.lacking_bytes) {
            self.wanted_bytes = Some(self.lacking_bytes);
            self.outbox.push(&Message::Want { bytes: self.lacking_bytes });
        }
    }

    /// True when the last put that lacked credit may be tried again.
    pub fn has_wanted(&self) -> bool {
        self.credit_items > 0 && self.credit_bytes >= self.lacking_bytes
    }

    /// True when it is time to look for a confirmation that brings more credit.
    pub fn is_short_of_credit(&self) -> bool {
        self.credit_items < CREDIT_ITEMS_MAX / 4 || self.credit_bytes < CREDIT_BYTES_MAX / 4
    }

    /// True when the socket is slower than the caller: what would be encoded now would only lie in memory.
    pub fn has_much_unsent(&self) -> bool {
        self.outbox.bytes() > BATCH_BYTES_TARGET
    }

    /// Takes the question for credit back.
    pub fn withdraw(&mut self) -> u64 {
        self.wanted_bytes = None;
        self.questions.withdraw(&mut self.outbox)
    }

    /// Sends what has gathered, full or not. True when there was something.
    pub fn send_gathered(&mut self) -> bool {
        self.gathering_since = None;
        if let Some(checksum) = &mut self.checksum {
            *checksum = self.gathered.items().fold(*checksum, checksum::add);
        }
        let Some((header, buffer)) = self.gathered.take(self.outbox.take_spare()) else { return false };
        let body_bytes = (buffer.len() - crate::batch::HEADROOM_BYTES) as u64;
        // put() has let nothing in that the credit does not cover.
        self.credit_items -= u64::from(header.count);
        self.credit_bytes -= batch_cost_bytes(body_bytes);
        let (position, checksum) = (self.sent, self.checksum.unwrap_or_default());
        self.sent.0 += u64::from(header.count);
        self.outbox.push_built(|batch| Message::Put { position, checksum, batch }, header, buffer);
        true
    }

    /// True when all that was put is confirmed.
    pub fn is_confirmed(&self) -> bool {
        self.gathered.count() == 0 && self.confirmed == self.sent
    }

    /// Sends what has gathered; what is put by now is confirmed once [`ProducerSession::confirmed`] has come to this.
    pub fn flush(&mut self) -> Position {
        self.send_gathered();
        self.sent
    }

    /// Says that no more comes. Only once all is confirmed.
    pub fn finish(&mut self) {
        debug_assert!(self.is_confirmed(), "finish comes after flush");
        if self.finish == Finish::No {
            self.finish = Finish::Asked;
            self.outbox.push(&Message::Finish);
        }
    }

    /// True once the coordinator knows that no more comes.
    pub fn is_finished(&self) -> bool {
        self.finish == Finish::Done
    }

    /// Asks when all that is accepted is settled.
    pub fn join(&mut self) -> u64 {
        self.questions.join(&mut self.outbox)
    }

    /// Asks for the queue's state.
    pub fn ask_status(&mut self) -> u64 {
        self.questions.ask_status(&mut self.outbox)
    }

    /// How many of this producer's items the coordinator has confirmed, those of earlier connections under its name among them.
    pub fn confirmed(&self) -> Position {
        self.confirmed
    }
}

impl Session for ProducerSession {
    fn handle(&mut self, incoming: Incoming) -> Result<(), Error> {
        let Some(incoming) = self.questions.handle(incoming)? else { return Ok(()) };
        match incoming.message {
            Message::Confirm { position, credit_items, credit_bytes } => {
                if position < self.confirmed || position > self.sent {
                    return Err(Error::Unexpected("Confirm of items that were not put"));
                }
                self.confirmed = position;
                self.credit_items = self.credit_items.saturating_add(credit_items);
                self.credit_bytes = self.credit_bytes.saturating_add(credit_bytes);
                if credit_items > 0 || credit_bytes > 0 {
                    self.wanted_bytes = None;
                }
                if self.confirmed == self.sent {
                    self.send_gathered();
                }
                Ok(())
            }
            Message::Recall { position } => {
                // Items that put() has taken on this credit must go out on it: their batch crosses the recall, which makes it void.
                if position == self.sent && !self.send_gathered() {
                    self.credit_items = 0;
                    self.credit_bytes = 0;
                    self.outbox.push(&Message::Recalled);
                }
                Ok(())
            }
            Message::Finished if self.finish == Finish::Asked => {
                self.finish = Finish::Done;
                Ok(())
            }
            other => Err(Error::Unexpected(other.name())),
        }
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn next_timeout(&self) -> Option<Duration> {
        self.gathering_since.map(|since| since + FLUSH_DELAY)
    }

    fn handle_timeout(&mut self, now: Duration) {
        if self.next_timeout().is_some_and(|due| due <= now) {
            self.send_gathered();
        }
    }

    fn goodbye(&mut self) {
        self.send_gathered();
        self.outbox.push(&Message::Close { reason: CloseReason::Goodbye, words: String::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameReader;
    use crate::payload::Encode;

    fn greeting(position: u64, checksum: Option<u64>) -> Greeting {
        Greeting { pid: 1, item_bytes_max: 1000, position: Position(position), announce_from: 2, checksum }
    }

    fn session(credit_items: u64, credit_bytes: u64) -> ProducerSession {
        let mut session = ProducerSession::new(greeting(0, None));
        confirm(&mut session, 0, credit_items, credit_bytes);
        session
    }

    fn confirm(session: &mut ProducerSession, position: u64, credit_items: u64, credit_bytes: u64) {
        let message = Message::Confirm { position: Position(position), credit_items, credit_bytes };
        session.handle(Incoming { message, batch: None }).unwrap();
    }

    fn put(session: &mut ProducerSession, item: &[u8]) -> Put {
        session.put(|out| item.encode(out), || Duration::ZERO).unwrap()
    }

    /// What it has put, batch by batch: the first item's position, the items, the checksum.
    fn batches(session: &mut ProducerSession) -> Vec<(u64, Vec<String>, u64)> {
        let mut stream = Vec::new();
        let write = |slices: &[std::io::IoSlice<'_>]| {
            slices.iter().for_each(|slice| stream.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        session.outbox().write_to(write).unwrap();
        let (mut reader, mut input, mut batches) = (FrameReader::new(1 << 20), &stream[..], Vec::new());
        while let Some(frame) = reader.next(&mut input).unwrap() {
            if let Incoming { message: Message::Put { position, checksum, .. }, batch: Some(batch) } = Message::decode(frame).unwrap() {
                let items = batch.iter().map(|item| String::from_utf8(item.to_vec()).unwrap());
                batches.push((position.0, items.collect(), checksum));
            }
        }
        batches
    }

    fn sum(items: &[&str]) -> u64 {
        items.iter().fold(checksum::START, |sum, item| checksum::add(sum, item.as_bytes()))
    }

    #[test]
    fn each_batch_carries_the_checksum_of_all_up_to_its_end_however_they_are_cut() {
        let mut session = ProducerSession::new(greeting(2, Some(sum(&["a", "b"]))));
        confirm(&mut session, 2, 100, 100_000);
        for item in ["c", "dd", "", "ee"] {
            put(&mut session, item.as_bytes());
        }
        session.send_gathered();
        put(&mut session, b"ff");
        session.send_gathered();
        let items = ["a", "b", "c", "dd", "", "ee", "ff"];
        let expected = [(2, 3), (3, 6), (6, 7)].map(|(from, to)| {
            let strings = items[from..to].iter().map(|item| item.to_string()).collect::<Vec<_>>();
            (from as u64, strings, sum(&items[..to]))
        });
        assert_eq!(batches(&mut session), expected);
    }

    #[test]
    fn no_checksum_is_computed_for_a_coordinator_that_keeps_none() {
        let mut session = session(100, 100_000);
        put(&mut session, b"a");
        assert_eq!(batches(&mut session), [(0, vec!["a".to_string()], 0)]);
    }

    #[test]
    fn a_lone_item_leaves_at_once_and_the_next_gather_until_it_is_confirmed() {
        let mut session = session(100, 100_000);
        assert_eq!(put(&mut session, b"one"), Put::Ready);
        assert_eq!(put(&mut session, b"two"), Put::Gathering);
        assert_eq!(put(&mut session, b"three"), Put::Taken);
        let before = session.outbox().bytes();
        confirm(&mut session, 1, 0, 0);
        assert!(session.outbox().bytes() > before);
        assert!(!session.is_confirmed());
        confirm(&mut session, 3, 0, 0);
        assert!(session.is_confirmed());
    }

    #[test]
    fn what_gathers_leaves_after_the_delay() {
        let mut session = session(100, 100_000);
        put(&mut session, b"one");
        put(&mut session, b"two");
        assert_eq!(session.next_timeout(), Some(FLUSH_DELAY));
        let before = session.outbox().bytes();
        session.handle_timeout(FLUSH_DELAY);
        assert!(session.outbox().bytes() > before);
        assert_eq!(session.next_timeout(), None);
    }

    #[test]
    fn no_item_goes_beyond_the_credit_in_items_or_bytes() {
        let mut few = session(1, 100_000);
        assert_eq!(put(&mut few, b"one"), Put::Ready);
        assert_eq!(put(&mut few, b"two"), Put::NoCredit);
        assert!(!few.has_wanted());
        confirm(&mut few, 0, 1, 0);
        assert!(few.has_wanted());
        let mut small = session(100, batch_cost_bytes(13));
        assert_eq!(put(&mut small, b"ten bytes."), Put::NoCredit);
        assert_eq!(put(&mut small, b"nine byte"), Put::Ready);
    }

    #[test]
    fn a_recall_takes_unused_credit_but_comes_too_late_for_what_is_put() {
        let recall = |position| Incoming { message: Message::Recall { position: Position(position) }, batch: None };
        let mut unused = session(10, 100_000);
        unused.handle(recall(0)).unwrap();
        assert_eq!(put(&mut unused, b"one"), Put::NoCredit);
        let mut crossed = session(10, 100_000);
        put(&mut crossed, b"one");
        crossed.handle(recall(0)).unwrap();
        assert_eq!(put(&mut crossed, b"two"), Put::Gathering);
        crossed.handle(recall(1)).unwrap();
        assert_eq!(crossed.gathered.count(), 0, "what was taken goes out at once");
        assert_eq!(put(&mut crossed, b"three"), Put::Gathering);
    }

    #[test]
    fn an_item_over_the_limit_is_refused_and_the_others_stay() {
        let mut session = session(100, 1_000_000);
        put(&mut session, b"one");
        put(&mut session, b"two");
        let refused = session.put(|out| [0; 1001][..].encode(out), || Duration::ZERO);
        assert!(matches!(refused, Err(Error::ItemTooLarge { bytes: 1001, bytes_max: 1000 })));
        assert_eq!(session.gathered.count(), 1);
    }

    #[test]
    fn a_confirmation_of_what_was_not_put_is_an_error() {
        let mut session = session(100, 100_000);
        let message = Message::Confirm { position: Position(1), credit_items: 0, credit_bytes: 0 };
        assert!(session.handle(Incoming { message, batch: None }).is_err());
    }
}
