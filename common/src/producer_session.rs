//! A producer's side of a connection, without I/O: collects items into batches, keeps to the credit, counts confirmations.
//!
//! An item leaves at once while no more than one before it is unconfirmed. Else items gather until the batch is full, the confirmations
//! come, or [`FLUSH_DELAY`] has passed (Nagle's rule, RFC 896, with an end). Soon after a batch that filled up they gather in any case: what comes
//! then is the next batch's beginning, and by itself it would wake a consumer for nothing.

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
    /// When a batch that had gathered left because it was full, if none was asked for since: what follows soon is likely to be the next one.
    filled_at: Option<Duration>,
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
            filled_at: None,
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

    /// The same, one without a name: nobody comes again as it, and needs to know what it has put.
    pub fn nameless(greeting: Greeting) -> ProducerSession {
        ProducerSession::new(Greeting { checksum: None, ..greeting })
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
        if self.gathered.is_full() {
            self.filled_at = self.gathering_since.map(|_| now());
            self.send_gathered();
            return Put::Ready;
        }
        let now = now();
        self.filled_at = self.filled_at.filter(|at| now < *at + FLUSH_DELAY);
        if self.leaves_at_once() {
            self.send_gathered();
            return Put::Ready;
        }
        self.gathering_since = Some(now);
        Put::Gathering
    }

    /// True while one item at most is unconfirmed: the answer to an item may be here before its confirmation, which nobody waits for.
    fn leaves_at_once(&self) -> bool {
        self.filled_at.is_none() && self.sent.0 <= self.confirmed.0 + 1
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
        self.filled_at = None;
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
                if self.leaves_at_once() {
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
mod tests;
