//! Messages that have come, and are handed on in that order: one that was held before only when it is known what became of its items.

use std::collections::VecDeque;

use super::message::{ItemsMessage, Marks};

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) sequence: u64,
    pub(super) message: ItemsMessage,
    /// How often it was delivered, this time included.
    pub(super) delivered: u64,
    /// What became of its items, once that is known.
    marks: Option<Marks>,
}

#[derive(Debug, Default)]
pub(super) struct Arrivals {
    line: VecDeque<Arrival>,
}

impl Arrivals {
    /// A message has come. True if its marks are to be asked for: whoever held it before may have left some.
    pub(super) fn came(&mut self, sequence: u64, message: ItemsMessage, delivered: u64) -> bool {
        let is_fresh = delivered <= 1;
        self.line.push_back(Arrival { sequence, message, delivered, marks: is_fresh.then(Marks::default) });
        !is_fresh
    }

    /// A message's marks have come.
    pub(super) fn marked(&mut self, sequence: u64, marks: Marks) {
        // It may have come twice meanwhile; the first is the one that waits longest.
        if let Some(arrival) = self.line.iter_mut().find(|arrival| arrival.sequence == sequence && arrival.marks.is_none()) {
            arrival.marks = Some(marks);
        }
    }

    /// The next that all is known of.
    pub(super) fn next(&mut self) -> Option<(Arrival, Marks)> {
        let marks = self.line.front_mut()?.marks.take()?;
        self.line.pop_front().map(|arrival| (arrival, marks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(arrivals: &mut Arrivals) -> Vec<(u64, usize)> {
        std::iter::from_fn(|| arrivals.next()).map(|(arrival, marks)| (arrival.sequence, marks.settled.len())).collect()
    }

    #[test]
    fn what_has_come_for_the_first_time_does_not_pass_what_came_again_before_it() {
        let mut arrivals = Arrivals::default();
        assert!(!arrivals.came(1, ItemsMessage::default(), 1));
        assert_eq!(next(&mut arrivals), [(1, 0)]);
        assert!(
            arrivals.came(2, ItemsMessage::default(), 2)
                && arrivals.came(3, ItemsMessage::default(), 7)
                && !arrivals.came(4, ItemsMessage::default(), 1)
        );
        arrivals.marked(3, Marks { settled: vec![(0, 1)], ..Marks::default() });
        assert_eq!(next(&mut arrivals), []);
        arrivals.marked(2, Marks::default());
        assert_eq!(next(&mut arrivals), [(2, 0), (3, 1), (4, 0)]);
        arrivals.marked(9, Marks::default());
        assert_eq!(next(&mut arrivals), []);
    }
}
