//! Who wants to be told when all items accepted before its question are settled.

use std::collections::{BTreeMap, BTreeSet};

use common::message::CloseReason;

use super::{ClientId, Refusal};
use crate::limits::JOINS_MAX;

#[derive(Debug, Default)]
pub(super) struct Joins {
    /// The first item that need not be settled, and who waits for those before it.
    waiting: BTreeSet<(u64, ClientId)>,
    /// The same by who, and how often it has asked there.
    asked: BTreeMap<ClientId, Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    times: BTreeMap<u64, u32>,
    open: u32,
}

impl Joins {
    /// Whether a client may ask once more, when `others` of its questions are noted elsewhere.
    pub(super) fn check(&self, client: ClientId, others: usize) -> Result<(), Refusal> {
        let open = self.asked.get(&client).map_or(0, |asked| asked.open) as usize + others;
        if open >= JOINS_MAX as usize {
            return Err((CloseReason::Limit, format!("more than {JOINS_MAX} Joins wait for their answer")));
        }
        Ok(())
    }

    /// Notes a question about all items before `end`.
    pub(super) fn ask(&mut self, client: ClientId, end: u64) -> Result<(), Refusal> {
        self.check(client, 0)?;
        let asked = self.asked.entry(client).or_default();
        asked.open += 1;
        *asked.times.entry(end).or_default() += 1;
        self.waiting.insert((end, client));
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets a client's questions.
    pub(super) fn leave(&mut self, client: ClientId) {
        for end in self.asked.remove(&client).into_iter().flat_map(|asked| asked.times.into_keys()) {
            self.waiting.remove(&(end, client));
        }
    }

    /// The next client with an answer, all items before `unsettled` being settled, and how many times it has asked.
    pub(super) fn next_answer(&mut self, unsettled: u64) -> Option<(ClientId, u32)> {
        let (end, client) = *self.waiting.first().filter(|(end, _)| *end <= unsettled)?;
        self.waiting.pop_first();
        let asked = self.asked.get_mut(&client)?;
        let times = asked.times.remove(&end)?;
        asked.open -= times;
        if asked.open == 0 {
            self.asked.remove(&client);
        }
        Some((client, times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);

    #[test]
    fn each_question_is_answered_once_all_before_it_is_settled() {
        let mut joins = Joins::default();
        for (client, end) in [(A, 5), (A, 5), (B, 3), (A, 7)] {
            joins.ask(client, end).unwrap();
        }
        assert_eq!(joins.next_answer(2), None);
        assert_eq!([joins.next_answer(5), joins.next_answer(5), joins.next_answer(5)], [Some((B, 1)), Some((A, 2)), None]);
        joins.leave(A);
        assert_eq!(joins.next_answer(u64::MAX), None);
        assert!(joins.asked.is_empty());
    }

    #[test]
    fn one_that_asks_without_end_is_refused_and_may_ask_again_once_it_is_answered() {
        let mut joins = Joins::default();
        (0..JOINS_MAX).for_each(|n| joins.ask(A, u64::from(n)).unwrap());
        assert_eq!(joins.ask(A, 9).unwrap_err().0, CloseReason::Limit);
        joins.ask(B, 9).unwrap();
        joins.next_answer(0).unwrap();
        joins.ask(A, 9).unwrap();
    }
}
