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
use crate::unconfirmed::{Sealed, Unconfirmed};

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
    /// What it has put and may have to put again; one that does not come again keeps nothing.
    unconfirmed: Option<Unconfirmed>,
    /// Credit that goes to what is put again, before anything new is put.
    credit_again: (u64, u64),
    is_lost: bool,
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
            unconfirmed: None,
            credit_again: (0, 0),
            is_lost: false,
            questions: Questions::default(),
            outbox: Outbox::default(),
        }
    }

    /// The same, one that can go on after its connection was lost.
    pub fn resumable(greeting: Greeting) -> ProducerSession {
        ProducerSession { unconfirmed: Some(Unconfirmed::new(&greeting)), ..ProducerSession::new(greeting) }
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
        // What is put again comes first, and asks for itself.
        if self.wanted_bytes != Some(self.lacking_bytes) && self.is_all_put() && !self.is_lost {
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
        let number = self.questions.withdraw(&mut self.outbox);
        if !self.is_lost {
            self.put_again();
        }
        number
    }

    /// Sends what has gathered, full or not. True when there was something.
    pub fn send_gathered(&mut self) -> bool {
        self.gathering_since = None;
        if self.unconfirmed.is_some() {
            return self.send_and_keep();
        }
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

    #[cold]
    fn send_and_keep(&mut self) -> bool {
        if !self.keep() {
            return false;
        }
        let credit = (std::mem::take(&mut self.credit_items), std::mem::take(&mut self.credit_bytes));
        self.credit_again = credit;
        self.put_again();
        true
    }

    /// Seals what has gathered, and keeps it to be put. False when there is nothing.
    fn keep(&mut self) -> bool {
        let (Some(unconfirmed), Some(batch)) = (&mut self.unconfirmed, self.gathered.take_batch()) else { return false };
        self.sent.0 += u64::from(batch.count());
        let sealed = Sealed::after(self.checksum, batch);
        self.checksum = sealed.checksum;
        unconfirmed.keep(sealed);
        true
    }

    /// Puts what is kept and not put on this connection, as far as the credit goes; what is left of that is for new items.
    fn put_again(&mut self) {
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        while let Some((position, Sealed { batch, checksum })) = unconfirmed.put_next(self.credit_again.0, self.credit_again.1) {
            self.credit_again.0 -= u64::from(batch.count());
            self.credit_again.1 -= batch_cost_bytes(batch.body_bytes());
            let message = Message::Put { position, checksum: checksum.unwrap_or_default(), batch: batch.header() };
            self.outbox.push_batch(&message, &batch);
        }
        match unconfirmed.needed_bytes() {
            Some(bytes) if self.wanted_bytes != Some(bytes) => {
                self.wanted_bytes = Some(bytes);
                self.outbox.push(&Message::Want { bytes });
            }
            Some(_) => {}
            None => {
                self.credit_items += std::mem::take(&mut self.credit_again.0);
                self.credit_bytes += std::mem::take(&mut self.credit_again.1);
            }
        }
    }

    fn is_all_put(&self) -> bool {
        self.unconfirmed.as_ref().is_none_or(Unconfirmed::is_all_put)
    }

    /// The position behind all that has been put on this connection.
    fn put_position(&self) -> Position {
        self.unconfirmed.as_ref().map_or(self.sent, Unconfirmed::next_position)
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
                if position < self.confirmed || position > self.put_position() {
                    return Err(Error::Unexpected("Confirm of items that were not put"));
                }
                self.confirmed = position;
                if credit_items > 0 || credit_bytes > 0 {
                    self.wanted_bytes = None;
                }
                if let Some(unconfirmed) = &mut self.unconfirmed {
                    unconfirmed.confirm(position);
                }
                if self.is_all_put() {
                    self.credit_items = self.credit_items.saturating_add(credit_items);
                    self.credit_bytes = self.credit_bytes.saturating_add(credit_bytes);
                } else {
                    self.credit_again.0 = self.credit_again.0.saturating_add(credit_items);
                    self.credit_again.1 = self.credit_again.1.saturating_add(credit_bytes);
                    self.put_again();
                }
                if self.confirmed == self.sent {
                    self.send_gathered();
                }
                Ok(())
            }
            Message::Recall { position } => {
                // Items that put() has taken on this credit must go out on it: their batch crosses the recall, which makes it void.
                if position == self.put_position() && !self.send_gathered() {
                    (self.credit_items, self.credit_bytes, self.credit_again) = (0, 0, (0, 0));
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

    fn lose(&mut self) {
        self.is_lost = true;
        self.keep();
        self.gathering_since = None;
        (self.credit_items, self.credit_bytes, self.credit_again) = (0, 0, (0, 0));
        self.wanted_bytes = None;
        self.questions.lose();
        self.outbox = Outbox::default();
    }

    fn resume(&mut self, greeting: Greeting) -> Result<(), Error> {
        let Some(unconfirmed) = &mut self.unconfirmed else { return Err(Error::Unexpected("greeting")) };
        self.checksum = unconfirmed.rewind(&greeting)?;
        self.confirmed = greeting.position;
        self.item_bytes_max = greeting.item_bytes_max;
        self.is_lost = false;
        self.outbox = Outbox::default();
        if self.finish == Finish::Asked {
            self.outbox.push(&Message::Finish);
        }
        self.questions.resume(&mut self.outbox);
        self.put_again();
        Ok(())
    }

    fn is_owed(&self) -> bool {
        !self.is_confirmed()
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

    /// What it has said.
    fn said(session: &mut ProducerSession) -> Vec<Incoming> {
        let mut stream = Vec::new();
        let write = |slices: &[std::io::IoSlice<'_>]| {
            slices.iter().for_each(|slice| stream.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        session.outbox().write_to(write).unwrap();
        let (mut reader, mut input) = (FrameReader::new(1 << 20), &stream[..]);
        std::iter::from_fn(|| Some(Message::decode(reader.next(&mut input).unwrap()?).unwrap())).collect()
    }

    /// A batch: the first item's position, the items, the checksum.
    type Said = (u64, Vec<String>, u64);

    /// What it has put, batch by batch, and what else it has said.
    fn batches_and_more(session: &mut ProducerSession) -> (Vec<Said>, Vec<Message>) {
        let (mut batches, mut more) = (Vec::new(), Vec::new());
        for incoming in said(session) {
            match incoming {
                Incoming { message: Message::Put { position, checksum, .. }, batch: Some(batch) } => {
                    let items = batch.iter().map(|item| String::from_utf8(item.to_vec()).unwrap());
                    batches.push((position.0, items.collect(), checksum));
                }
                Incoming { message, .. } => more.push(message),
            }
        }
        (batches, more)
    }

    fn batches(session: &mut ProducerSession) -> Vec<Said> {
        batches_and_more(session).0
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
    fn what_is_unconfirmed_when_the_connection_is_lost_is_put_again_before_anything_new() {
        let mut session = ProducerSession::resumable(greeting(0, Some(0)));
        confirm(&mut session, 0, 100, 100_000);
        for item in ["a", "b", "c", "d"] {
            put(&mut session, item.as_bytes());
        }
        confirm(&mut session, 1, 0, 0);
        assert_eq!(put(&mut session, b"e"), Put::Gathering);
        assert_eq!(batches(&mut session).iter().map(|batch| batch.0).collect::<Vec<_>>(), [0, 1]);
        session.lose();
        assert_eq!(put(&mut session, b"f"), Put::NoCredit);
        session.want();
        session.resume(greeting(3, Some(sum(&["a", "b", "c"])))).unwrap();
        let (_, more) = batches_and_more(&mut session);
        assert_eq!(more, [Message::Want { bytes: batch_cost_bytes(5) }], "what is kept asks for itself");
        session.want();
        confirm(&mut session, 3, 1, 100_000);
        assert_eq!(batches(&mut session), [(3, vec!["d".into()], sum(&["a", "b", "c", "d"]))]);
        assert_eq!(put(&mut session, b"f"), Put::NoCredit);
        confirm(&mut session, 4, 10, 0);
        assert_eq!(batches(&mut session), [(4, vec!["e".into()], sum(&["a", "b", "c", "d", "e"]))]);
        assert_eq!(put(&mut session, b"f"), Put::Gathering, "what is left of the credit is for new items");
        session.flush();
        assert_eq!(batches(&mut session), [(5, vec!["f".into()], sum(&["a", "b", "c", "d", "e", "f"]))]);
        assert!(!session.is_confirmed());
        confirm(&mut session, 6, 0, 0);
        assert!(session.is_confirmed());
    }

    #[test]
    fn what_was_asked_is_asked_again_on_the_next_connection() {
        let mut session = ProducerSession::resumable(greeting(0, None));
        confirm(&mut session, 0, 100, 100_000);
        put(&mut session, b"a");
        confirm(&mut session, 1, 0, 0);
        session.join();
        session.ask_status();
        session.finish();
        said(&mut session);
        session.lose();
        session.resume(greeting(1, None)).unwrap();
        assert_eq!(batches_and_more(&mut session), (vec![], vec![Message::Finish, Message::Join, Message::StatusRequest]));
    }

    #[test]
    fn whoever_asks_for_room_now_is_told_no_while_there_is_no_connection() {
        let mut session = ProducerSession::resumable(greeting(0, None));
        session.lose();
        assert_eq!(put(&mut session, b"a"), Put::NoCredit);
        session.want();
        let withdrawal = session.withdraw();
        assert!(session.questions.is_withdrawn(withdrawal) && !session.has_wanted());
    }

    #[test]
    fn to_withdraw_takes_back_no_wish_of_what_is_put_again() {
        let mut session = ProducerSession::resumable(greeting(0, None));
        confirm(&mut session, 0, 100, 100_000);
        put(&mut session, b"a");
        session.lose();
        session.resume(greeting(0, None)).unwrap();
        session.withdraw();
        let want = || Message::Want { bytes: batch_cost_bytes(5) };
        assert_eq!(batches_and_more(&mut session).1, [want(), Message::Withdraw, want()]);
    }

    #[test]
    fn a_recall_takes_credit_that_does_not_reach_for_what_is_put_again() {
        let mut session = ProducerSession::resumable(greeting(0, None));
        confirm(&mut session, 0, 100, 100_000);
        put(&mut session, b"ten bytes.");
        session.lose();
        session.resume(greeting(0, None)).unwrap();
        confirm(&mut session, 0, 10, 10);
        session.handle(Incoming { message: Message::Recall { position: Position(0) }, batch: None }).unwrap();
        let (batches, more) = batches_and_more(&mut session);
        let want = || Message::Want { bytes: batch_cost_bytes(14) };
        assert_eq!((batches, more), (vec![], vec![want(), want(), Message::Recalled]));
        confirm(&mut session, 0, 1, batch_cost_bytes(10) - 1);
        assert_eq!(batches_and_more(&mut session).0, [], "the credit of before the recall is gone");
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
