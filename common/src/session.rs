//! What both clients' sessions share: the driver's view of them, and the questions that either may ask.

use std::time::Duration;

use crate::error::Error;
use crate::message::{Incoming, ItemId, Message, Position};
use crate::outbox::Outbox;
use crate::status::Status;

/// What the coordinator said in its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The coordinator's process id.
    pub pid: u32,
    /// The largest item, in bytes.
    pub item_bytes_max: u64,
    /// How many of this producer's items are accepted.
    pub position: Position,
    /// From which attempt on a consumer says `Begin`.
    pub announce_from: u32,
    /// The checksum of what is accepted of this producer's, if the coordinator keeps one.
    pub checksum: Option<u64>,
    /// How long a consumer's attempt may take, if that is limited.
    pub lease: Option<Duration>,
}

impl TryFrom<Message> for Greeting {
    type Error = Error;

    fn try_from(answer: Message) -> Result<Greeting, Error> {
        match answer {
            Message::Welcome { pid, item_bytes_max, position, announce_from, checksum, lease_ms, .. } => {
                let lease = lease_ms.map(Duration::from_millis);
                Ok(Greeting { pid, item_bytes_max, position, announce_from, checksum, lease })
            }
            Message::Close { reason, words } => Err(Error::Closed { reason, words }),
            other => Err(Error::Unexpected(other.name())),
        }
    }
}

/// A client's state of one connection, without I/O or clock: messages and times come in, bytes to send pile up in the outbox.
/// Times count from the connection's beginning.
pub trait Session: Send {
    /// Takes in a message.
    fn handle(&mut self, incoming: Incoming) -> Result<(), Error>;

    /// Bytes to send.
    fn outbox(&mut self) -> &mut Outbox;

    /// When [`Session::handle_timeout`] is due, whatever the caller does.
    fn next_timeout(&self) -> Option<Duration>;

    /// Does what has become due by `now`.
    fn handle_timeout(&mut self, now: Duration);

    /// Puts all that is pending into the outbox, and the last message behind it.
    fn goodbye(&mut self);

    /// The connection is lost, and what was on its way with it. The outbox counts for nothing until [`Session::resume`].
    fn lose(&mut self);

    /// There is a new connection, with this greeting: goes on where the lost one was.
    fn resume(&mut self, greeting: Greeting) -> Result<(), Error>;

    /// True while the coordinator owes something although nobody calls: the loss of the connection must not go unnoticed.
    fn is_owed(&self) -> bool;
}

/// The questions that any client may ask, and their answers. Several threads may ask at once: each waits for its own answer, by number.
#[derive(Debug, Default)]
pub struct Questions {
    joins: Question,
    withdrawals: Question,
    extends: Question,
    statuses: Question,
    status: Status,
    is_lost: bool,
}

/// One kind of question: answers come in the order of asking.
#[derive(Debug, Default)]
pub(crate) struct Question {
    asked: u64,
    answered: u64,
}

impl Question {
    pub(crate) fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    pub(crate) fn is_answered(&self, number: u64) -> bool {
        self.answered >= number
    }

    /// Counts an answer, and says to which question; one that nobody asked for is an error.
    pub(crate) fn answer(&mut self, name: &'static str) -> Result<u64, Error> {
        if self.answered == self.asked {
            return Err(Error::Unexpected(name));
        }
        self.answered += 1;
        Ok(self.answered)
    }
}

impl Questions {
    /// The connection is lost, and with it whatever could be withdrawn; other questions are asked again.
    pub(crate) fn lose(&mut self) {
        self.is_lost = true;
        self.withdrawals.answered = self.withdrawals.asked;
        self.extends.answered = self.extends.asked;
    }

    /// Asks again, on a new connection, what has no answer yet.
    pub(crate) fn resume(&mut self, outbox: &mut Outbox) {
        self.is_lost = false;
        (self.joins.answered..self.joins.asked).for_each(|_| outbox.push(&Message::Join));
        (self.statuses.answered..self.statuses.asked).for_each(|_| outbox.push(&Message::StatusRequest));
    }

    pub(crate) fn join(&mut self, outbox: &mut Outbox) -> u64 {
        outbox.push(&Message::Join);
        self.joins.ask()
    }

    /// True once this question was answered.
    pub fn is_joined(&self, number: u64) -> bool {
        self.joins.is_answered(number)
    }

    pub(crate) fn withdraw(&mut self, outbox: &mut Outbox) -> u64 {
        let number = self.withdrawals.ask();
        if self.is_lost {
            self.withdrawals.answered = number;
        } else {
            outbox.push(&Message::Withdraw);
        }
        number
    }

    /// True once this withdrawal was answered.
    pub fn is_withdrawn(&self, number: u64) -> bool {
        self.withdrawals.is_answered(number)
    }

    /// The latest withdrawal.
    pub(crate) fn last_withdrawal(&self) -> u64 {
        self.withdrawals.asked
    }

    /// True when no withdrawal waits for its answer.
    pub(crate) fn all_withdrawn(&self) -> bool {
        self.open_withdrawals() == 0
    }

    /// Withdrawals that wait for their answer.
    pub(crate) fn open_withdrawals(&self) -> u64 {
        self.withdrawals.asked - self.withdrawals.answered
    }

    pub(crate) fn extend(&mut self, id: ItemId, by: Duration, outbox: &mut Outbox) -> u64 {
        outbox.push(&Message::Extend { id, by_ms: u64::try_from(by.as_millis()).unwrap_or(u64::MAX) });
        self.extends.ask()
    }

    /// True once this extension was answered, or cannot be any more.
    pub fn is_extended(&self, number: u64) -> bool {
        self.extends.is_answered(number)
    }

    pub(crate) fn ask_status(&mut self, outbox: &mut Outbox) -> u64 {
        outbox.push(&Message::StatusRequest);
        self.statuses.ask()
    }

    /// The answer to this question, or a later one.
    pub fn status(&self, number: u64) -> Option<Status> {
        self.statuses.is_answered(number).then(|| self.status.clone())
    }

    /// Takes in an answer; gives back a message that is none, and errors on an answer nobody asked for.
    pub(crate) fn handle(&mut self, incoming: Incoming) -> Result<Option<Incoming>, Error> {
        let name = incoming.message.name();
        let open = match &incoming.message {
            Message::Joined => &mut self.joins,
            Message::Withdrawn => &mut self.withdrawals,
            Message::Extended => &mut self.extends,
            Message::Status(_) => &mut self.statuses,
            Message::Close { reason, words } => return Err(Error::Closed { reason: *reason, words: words.clone() }),
            _ => return Ok(Some(incoming)),
        };
        open.answer(name)?;
        if let Message::Status(status) = incoming.message {
            self.status = *status;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(questions: &mut Questions, message: Message) -> Result<Option<Incoming>, Error> {
        questions.handle(Incoming { message, batch: None })
    }

    #[test]
    fn of_several_who_ask_each_hears_its_own_answer_in_the_order_of_asking() {
        type Ask = fn(&mut Questions, &mut Outbox) -> u64;
        type IsAnswered = fn(&Questions, u64) -> bool;
        let kinds: [(Message, Ask, IsAnswered); 3] = [
            (Message::Joined, Questions::join, Questions::is_joined),
            (Message::Withdrawn, Questions::withdraw, Questions::is_withdrawn),
            (Message::Status(Box::default()), Questions::ask_status, |questions, number| questions.status(number).is_some()),
        ];
        for (answer, ask, is_answered) in kinds {
            let (mut questions, mut outbox) = (Questions::default(), Outbox::default());
            let numbers = [ask(&mut questions, &mut outbox), ask(&mut questions, &mut outbox)];
            for answered in [[false, false], [true, false], [true, true]] {
                assert_eq!(numbers.map(|number| is_answered(&questions, number)), answered);
                assert_eq!(hear(&mut questions, answer.clone()).is_err(), answered[1], "two have asked");
            }
        }
    }

    #[test]
    fn a_status_is_the_latest_that_came() {
        let (mut questions, mut outbox) = (Questions::default(), Outbox::default());
        let first = questions.ask_status(&mut outbox);
        questions.ask_status(&mut outbox);
        for ready in [7, 8] {
            hear(&mut questions, Message::Status(Box::new(Status { ready, ..Status::default() }))).unwrap();
        }
        assert_eq!(questions.status(first).unwrap().ready, 8);
    }

    #[test]
    fn what_is_no_answer_is_given_back_and_a_close_ends_all() {
        let mut questions = Questions::default();
        assert_eq!(hear(&mut questions, Message::Stop).unwrap().unwrap().message, Message::Stop);
        let close = Message::Close { reason: crate::message::CloseReason::Limit, words: "too many".into() };
        assert!(hear(&mut questions, close).unwrap_err().to_string().contains("too many"));
    }
}
