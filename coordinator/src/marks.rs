//! What became of a batch's items, as long as some are open: runs of those that are settled or have failed before.

use serde::{Deserialize, Serialize};

/// The fate of items that are not simply open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Done with.
    Settled,
    /// To be tried again after so many failures.
    Failed(u32),
}

/// Runs of items by their index in the batch, in order, as long as they can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    runs: Vec<Run>,
    settled: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    from: u32,
    until: u32,
    fate: Fate,
}

/// As it is stored: how many items lie between, how many there are, and 0 if they are settled, else their failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored(Vec<(u32, u32, u32)>);

impl Marks {
    /// Items that are settled.
    pub(crate) fn settled(&self) -> u32 {
        self.settled
    }

    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// All runs: from, until, fate.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, Fate)> {
        self.runs.iter().map(|run| (run.from, run.until, run.fate))
    }

    /// Notes the fate of items `from..until`; not if one of them is settled already.
    #[must_use]
    pub(crate) fn set(&mut self, from: u32, until: u32, fate: Fate) -> bool {
        // Those that overlap or touch.
        let mut first = self.runs.partition_point(|run| run.until < from);
        let mut end = first + self.runs[first..].partition_point(|run| run.from <= until);
        let overlaps = |run: &&Run| run.from < until && from < run.until;
        if self.runs[first..end].iter().filter(overlaps).any(|run| run.fate == Fate::Settled) {
            return false;
        }
        self.settled += if fate == Fate::Settled { until - from } else { 0 };
        // No failures is as good as new.
        let mut middle = Run { from, until, fate };
        let (mut before, mut after) = (None, None);
        if let Some(run) = self.runs[first..end].first() {
            if run.fate == fate {
                middle.from = run.from.min(from);
            } else if run.until == from {
                first += 1;
            } else if run.from < from {
                before = Some(Run { until: from, ..*run });
            }
        }
        if let Some(run) = self.runs[first..end].last() {
            if run.fate == fate {
                middle.until = run.until.max(until);
            } else if run.from == until {
                end -= 1;
            } else if run.until > until {
                after = Some(Run { from: until, ..*run });
            }
        }
        let middle = (fate != Fate::Failed(0)).then_some(middle);
        self.runs.splice(first..end, before.into_iter().chain(middle).chain(after));
        true
    }

    /// As it is stored.
    pub(crate) fn to_stored(&self) -> Stored {
        let mut at = 0;
        let run = |run: &Run| {
            let gap = run.from - std::mem::replace(&mut at, run.until);
            let failures = if let Fate::Failed(failures) = run.fate { failures } else { 0 };
            (gap, run.until - run.from, failures)
        };
        Stored(self.runs.iter().map(run).collect())
    }

    /// From what was stored of a batch with `count` items; none if that cannot be.
    pub(crate) fn from_stored(Stored(stored): Stored, count: u32) -> Option<Marks> {
        let mut marks = Marks::default();
        let mut at = 0_u32;
        for (gap, len, failures) in stored {
            let from = at.checked_add(gap)?;
            let until = from.checked_add(len).filter(|until| *until > from && *until <= count)?;
            let fate = if failures == 0 { Fate::Settled } else { Fate::Failed(failures) };
            marks.settled += if fate == Fate::Settled { len } else { 0 };
            marks.runs.push(Run { from, until, fate });
            at = until;
        }
        (marks.settled < count).then_some(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_say_what_an_item_by_item_list_says(steps in prop::collection::vec((0_u32..20, 1_u32..6, 0_u32..4), 0..40)) {
            let (mut marks, mut items) = (Marks::default(), [None; 26]);
            for (from, count, sort) in steps {
                let until = from + count;
                let fate = if sort == 3 { Fate::Settled } else { Fate::Failed(sort) };
                let part = &mut items[from as usize..until as usize];
                let allowed = !part.contains(&Some(Fate::Settled));
                if allowed {
                    part.fill((fate != Fate::Failed(0)).then_some(fate));
                }
                prop_assert_eq!(marks.set(from, until, fate), allowed);
                let mut expected: Vec<(u32, u32, Fate)> = Vec::new();
                for (at, fate) in (0..).zip(items).filter_map(|(at, fate)| fate.map(|fate| (at, fate))) {
                    match expected.last_mut() {
                        Some(last) if last.1 == at && last.2 == fate => last.1 += 1,
                        _ => expected.push((at, at + 1, fate)),
                    }
                }
                prop_assert_eq!(marks.len(), expected.len());
                prop_assert_eq!(marks.iter().collect::<Vec<_>>(), expected);
                prop_assert_eq!(marks.settled() as usize, items.iter().filter(|fate| **fate == Some(Fate::Settled)).count());
                prop_assert_eq!(Marks::from_stored(marks.to_stored(), 26), Some(marks.clone()));
            }
        }
    }

    #[test]
    fn marks_that_cannot_be_are_refused() {
        let refused = |runs: &[(u32, u32, u32)], count| Marks::from_stored(Stored(runs.to_vec()), count).is_none();
        assert!(refused(&[(0, 5, 0)], 4) && refused(&[(0, 4, 0)], 4) && refused(&[(0, 0, 1)], 4) && refused(&[(u32::MAX, 2, 0)], 4));
        assert!(!refused(&[(0, 3, 0)], 4));
    }
}
