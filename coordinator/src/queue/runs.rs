//! Sets of items as runs of consecutive numbers: ten million fresh items in a row are one entry.

use std::collections::BTreeMap;

/// What is known of items besides their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Deliveries so far.
    pub(super) attempts: u32,
    /// Attempts that are known to have failed.
    pub(super) failures: u32,
}

/// Consecutive items with one past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) past: Past,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    pub(super) fn one(first: u64, past: Past) -> Run {
        Run { first, count: 1, past }
    }
}

/// Runs in the order of their items, neighbours with one past joined.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: BTreeMap<u64, Run>,
    items: u64,
}

impl Runs {
    /// Adds a run; none of its items may be in.
    pub(super) fn insert(&mut self, mut run: Run) {
        self.items += run.count;
        if let Some((_, before)) = self.runs.range_mut(..run.first).next_back() {
            assert!(before.end() <= run.first, "item {} is in twice", run.first);
            if before.end() == run.first && before.past == run.past {
                run = Run { first: before.first, count: before.count + run.count, ..run };
            }
        }
        if let Some((&first, after)) = self.runs.range(run.first + 1..).next() {
            assert!(run.end() <= after.first, "item {first} is in twice");
            if run.end() == after.first && after.past == run.past {
                run.count += after.count;
                self.runs.remove(&first);
            }
        }
        self.runs.insert(run.first, run);
    }

    /// The first run.
    pub(super) fn first(&self) -> Option<Run> {
        self.runs.first_key_value().map(|(_, run)| *run)
    }

    /// The run in which an item is.
    pub(super) fn covering(&self, id: u64) -> Option<Run> {
        self.runs.range(..=id).next_back().map(|(_, run)| *run).filter(|run| id < run.end())
    }

    /// Removes the first `count` items of the first run.
    pub(super) fn remove_first(&mut self, count: u64) {
        let Some((_, run)) = self.runs.pop_first() else { panic!("there is no first run to cut") };
        assert!(count > 0 && count <= run.count, "a run of {} cut by {count}", run.count);
        self.items -= count;
        if count < run.count {
            let rest = Run { first: run.first + count, count: run.count - count, past: run.past };
            self.runs.insert(rest.first, rest);
        }
    }

    /// Takes items `first .. first + count` out, cutting runs; gives them back in order. None, and nothing is changed, unless all are in.
    pub(super) fn take(&mut self, first: u64, count: u64) -> Option<Vec<Run>> {
        let end = first.checked_add(count)?;
        let mut parts = Vec::new();
        let mut at = first;
        while at < end {
            let run = self.covering(at)?;
            let part_end = run.end().min(end);
            parts.push(Run { first: at, count: part_end - at, past: run.past });
            at = part_end;
        }
        for part in &parts {
            // The loop above has found it.
            let Some(run) = self.covering(part.first) else { continue };
            self.runs.remove(&run.first);
            if run.first < part.first {
                self.runs.insert(run.first, Run { count: part.first - run.first, ..run });
            }
            if part.end() < run.end() {
                self.runs.insert(part.end(), Run { first: part.end(), count: run.end() - part.end(), ..run });
            }
        }
        self.items -= count;
        Some(parts)
    }

    /// Takes out whatever there is of items `first .. until`.
    pub(super) fn remove_all(&mut self, first: u64, until: u64) {
        let mut at = first;
        while let Some(run) = self.covering(at).or_else(|| self.runs.range(at..until).next().map(|(_, run)| *run)) {
            let from = run.first.max(at);
            at = run.end().min(until);
            self.take(from, at - from);
            if at == until {
                return;
            }
        }
    }

    /// All runs in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Run> {
        self.runs.values().copied()
    }

    pub(super) fn items(&self) -> u64 {
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap as Naive;

    const FRESH: Past = Past { attempts: 0, failures: 0 };

    #[test]
    fn neighbours_with_one_past_become_one_run() {
        let mut runs = Runs::default();
        runs.insert(Run { first: 0, count: 5, past: FRESH });
        runs.insert(Run { first: 10, count: 5, past: FRESH });
        runs.insert(Run { first: 5, count: 5, past: FRESH });
        assert_eq!(runs.first(), Some(Run { first: 0, count: 15, past: FRESH }));
    }

    #[test]
    fn all_that_there_is_of_a_span_is_taken_out_and_nothing_else() {
        let mut runs = Runs::default();
        for first in [0, 10, 20, 30] {
            runs.insert(Run { first, count: 5, past: FRESH });
        }
        runs.remove_all(2, 29);
        runs.remove_all(32, 34);
        let left: Vec<_> = runs.iter().map(|run| (run.first, run.count)).collect();
        assert_eq!((left, runs.items()), (vec![(0, 2), (30, 2), (34, 1)], 5));
    }

    proptest! {
        #[test]
        fn runs_hold_what_a_plain_map_of_items_holds(steps in prop::collection::vec((0u64..60, 1u64..12, 0u32..2, 0u8..4), 0..60)) {
            let mut runs = Runs::default();
            let mut naive: Naive<u64, Past> = Naive::new();
            for (first, count, attempts, what) in steps {
                let past = Past { attempts, failures: 0 };
                let span = first..first + count;
                match what {
                    0 if span.clone().all(|id| !naive.contains_key(&id)) => {
                        runs.insert(Run { first, count, past });
                        naive.extend(span.map(|id| (id, past)));
                    }
                    1 => {
                        let all_in = span.clone().all(|id| naive.contains_key(&id));
                        let taken = runs.take(first, count);
                        prop_assert_eq!(taken.is_some(), all_in);
                        for run in taken.into_iter().flatten() {
                            for id in run.first..run.end() { prop_assert_eq!(naive.remove(&id), Some(run.past)); }
                        }
                    }
                    2 => {
                        runs.remove_all(span.start, span.end);
                        naive.retain(|id, _| !span.contains(id));
                    }
                    _ => if let Some(run) = runs.first() {
                        let count = count.min(run.count);
                        runs.remove_first(count);
                        for id in run.first..run.first + count { prop_assert_eq!(naive.pop_first(), Some((id, run.past))); }
                    }
                }
                prop_assert_eq!(runs.items(), naive.len() as u64);
            }
            let all: Vec<_> = runs.iter().flat_map(|run| (run.first..run.end()).map(move |id| (id, run.past))).collect();
            prop_assert_eq!(all, naive.into_iter().collect::<Vec<_>>());
        }
    }
}
