//! Results in the order of their items: one that comes early waits until all before it are through.
//!
//! What waits is bounded by holding back items: once it costs enough, only the item that everything waits for is handed out. That
//! one always is, so that there is always a way on:
//!
//! ```text
//!     through          next        wait for it             may be handed out while little waits
//!    |----------------|----|------------------------------|--------------------------------------|
//! ```

use std::collections::BTreeMap;

use common::batch::Batch;
use common::limits::batch_cost_bytes;

use super::runs::{Past, Run, Runs};

/// Results that wait, of consecutive items.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) results: Batch,
    /// Their items, for the case that nothing comes of it.
    pub(super) items: Vec<Run>,
    cost_bytes: u64,
}

/// What is through, and what waits.
#[derive(Debug)]
pub(super) struct Order {
    /// All items before this one are through: they have been given out to be written, or need not be.
    next: u64,
    /// Items behind it that are through, having nothing to be written.
    passed: Runs,
    /// What there is to know of items before this one is known.
    known_until: u64,
    early: BTreeMap<u64, Early>,
    early_items: u64,
    early_bytes: u64,
    early_bytes_max: u64,
}

impl Order {
    /// Holds items back once results that wait cost so much, together with their items.
    pub(super) fn new(early_bytes_max: u64) -> Order {
        Order { next: 0, passed: Runs::default(), known_until: 0, early: BTreeMap::new(), early_items: 0, early_bytes: 0, early_bytes_max }
    }

    /// Items become known, those of them that are settled already, and those before them that were never heard of, being through.
    pub(super) fn arrive(&mut self, first: u64, count: u64, settled: &[(u64, u64)]) {
        assert!(self.known_until <= first, "item {first} comes behind item {}", self.known_until);
        self.pass(self.known_until, first - self.known_until);
        settled.iter().for_each(|&(first, count)| self.pass(first, count));
        self.known_until = first + count;
    }

    /// Items are through, and have nothing to be written in order.
    pub(super) fn pass(&mut self, first: u64, count: u64) {
        if first == self.next {
            self.next += count;
        } else if count > 0 {
            self.passed.insert(Run { first, count, past: Past::default() });
        }
    }

    /// Takes in results of consecutive items, which take so many bytes of memory.
    pub(super) fn insert(&mut self, first: u64, results: Batch, items: Vec<Run>, item_bytes: u64) {
        let cost_bytes = batch_cost_bytes(results.body_bytes()).saturating_add(item_bytes);
        self.early_items += u64::from(results.count());
        self.early_bytes += cost_bytes;
        let before = self.early.insert(first, Early { results, items, cost_bytes });
        assert!(before.is_none(), "item {first} has two results");
    }

    /// The next results whose turn it is.
    pub(super) fn next_in_turn(&mut self) -> Option<(u64, Batch)> {
        while let Some(run) = self.passed.first().filter(|run| run.first == self.next) {
            self.passed.remove_first(run.count);
            self.next = run.end();
        }
        let first = self.next;
        let early = self.early.remove(&first)?;
        self.next += u64::from(early.results.count());
        self.forget(&early);
        Some((first, early.results))
    }

    /// How many of a run of ready items may be handed out: none, unless it is what the others wait for, once enough waits.
    pub(super) fn most(&self, ready: Run) -> u64 {
        match self.early.is_empty() || self.early_bytes < self.early_bytes_max {
            true => ready.count,
            false => u64::from(ready.first == self.next),
        }
    }

    /// Gives up waiting: the items whose results waited. They are not through.
    pub(super) fn give_up(&mut self) -> Vec<Run> {
        let early = std::mem::take(&mut self.early);
        early.values().for_each(|early| self.forget(early));
        early.into_values().flat_map(|early| early.items).collect()
    }

    /// Items whose results wait.
    pub(super) fn early_items(&self) -> u64 {
        self.early_items
    }

    fn forget(&mut self, early: &Early) {
        self.early_items -= u64::from(early.results.count());
        self.early_bytes -= early.cost_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::batch::BatchBuilder;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn results(count: u64) -> Batch {
        let mut builder = BatchBuilder::default();
        (0..count).for_each(|_| builder.push_bytes(b"result"));
        builder.take_batch().unwrap()
    }

    fn run(first: u64, count: u64) -> Run {
        Run { first, count, past: Past::default() }
    }

    #[test]
    fn while_enough_waits_only_what_it_waits_for_is_handed_out() {
        let mut order = Order::new(500);
        order.arrive(0, 10, &[]);
        order.insert(2, results(1), vec![run(2, 1)], 100);
        assert_eq!(order.most(run(3, 7)), 7);
        order.insert(3, results(1), vec![run(3, 1)], 100);
        assert_eq!((order.most(run(4, 6)), order.most(run(0, 2)), order.most(run(1, 1))), (0, 1, 0));
        order.pass(0, 1);
        assert_eq!((order.next_in_turn().is_none(), order.most(run(1, 1))), (true, 1));
        order.pass(1, 1);
        assert_eq!(order.next_in_turn().map(|(first, _)| first), Some(2));
        assert_eq!(order.most(run(4, 6)), 6);
    }

    #[test]
    fn as_much_as_the_bound_is_enough() {
        let mut order = Order::new(batch_cost_bytes(results(1).body_bytes()) + 100);
        order.arrive(0, 10, &[]);
        order.insert(2, results(1), vec![run(2, 1)], 100);
        assert_eq!((order.most(run(3, 7)), order.most(run(0, 2))), (0, 1));
    }

    #[test]
    fn what_a_journal_knows_to_be_settled_is_not_waited_for() {
        let mut order = Order::new(500);
        order.arrive(10, 5, &[(11, 2)]);
        order.insert(13, results(2), vec![run(13, 2)], 0);
        assert!(order.next_in_turn().is_none());
        order.pass(10, 1);
        assert_eq!(order.next_in_turn().map(|(first, _)| first), Some(13));
        order.arrive(20, 1, &[]);
        order.insert(20, results(1), vec![run(20, 1)], 0);
        assert_eq!(order.next_in_turn().map(|(first, _)| first), Some(20));
        assert_eq!((order.early_items, order.early_bytes), (0, 0));
    }

    proptest! {
        #[test]
        fn whatever_comes_when_all_come_out_in_order_and_each_as_soon_as_all_before_it_are_through(
            order_of_coming in Just((0..30u64).collect::<Vec<_>>()).prop_shuffle(), passes in prop::collection::vec(any::<bool>(), 30),
        ) {
            let mut order = Order::new(u64::MAX);
            order.arrive(0, 30, &[]);
            let (mut came, mut out) = (BTreeSet::new(), Vec::new());
            for id in order_of_coming {
                came.insert(id);
                if passes[id as usize] { order.pass(id, 1) } else { order.insert(id, results(1), vec![run(id, 1)], 7) }
                while let Some((first, _)) = order.next_in_turn() { out.push(first) }
                let through = (0..30).take_while(|id| came.contains(id)).filter(|id| !passes[*id as usize]).collect::<Vec<_>>();
                prop_assert_eq!(&out, &through);
            }
        }
    }
}
