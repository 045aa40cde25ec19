//! Dead letters that are read: which there are, from a list that the servers give some at a time, and each by its number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::ItemId;
use common::limits::DEAD_PAGE_BYTES_MAX;

use crate::limits::{JETSTREAM_LETTERS_FRESH, JETSTREAM_LETTERS_MAX};
use crate::queue::{DeadLetter, DeadPage, DeadRange};

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for what was asked.
    Wait,
    /// Ask which there are, from this place in the list on.
    List { offset: u64 },
    /// Ask for these.
    Get(Vec<ItemId>),
    /// This is what was wanted.
    Page(DeadPage),
}

/// Numbers of dead letters, in order.
#[derive(Debug, Default)]
struct List {
    /// What has a lower number is not wanted any more.
    from: u64,
    ids: VecDeque<u64>,
    /// The last subject that was listed.
    last: String,
    /// Where the servers' list goes on, if it does.
    rest: Option<u64>,
    /// For how long it serves those who go on where the last page has ended.
    fresh_until: Duration,
}

/// What is wanted, one range after the other.
#[derive(Debug, Default)]
pub(super) struct Letters {
    line: VecDeque<DeadRange>,
    list: List,
    is_listing: bool,
    asked: BTreeSet<u64>,
    came: BTreeMap<u64, DeadLetter>,
}

impl Letters {
    /// The letters of this range are wanted, as many as a page takes.
    pub(super) fn load(&mut self, range: DeadRange, now: Duration) -> Step {
        self.line.push_back(range);
        if self.line.len() == 1 { self.begin(now) } else { Step::Wait }
    }

    /// What comes after a page.
    pub(super) fn begin(&mut self, now: Duration) -> Step {
        let Some(range) = self.line.front() else { return Step::Wait };
        if self.list.from != range.from || self.list.fresh_until <= now {
            self.list = List { from: range.from, rest: Some(0), ..List::default() };
        }
        self.go_on(now)
    }

    /// The list has these subjects from a place on, in order, and so many in all.
    pub(super) fn listed(&mut self, offset: u64, subjects: &[(&str, Option<ItemId>)], total: u64, now: Duration) -> Step {
        let list = &mut self.list;
        // What is forgotten meanwhile moves the rest of the list: unless this page begins with what is known, something may have been skipped.
        let goes_on = offset == 0 || subjects.first().is_some_and(|(first, _)| *first <= list.last.as_str());
        self.is_listing = false;
        if goes_on {
            list.ids.extend(subjects.iter().filter_map(|(_, id)| id.map(|id| id.0)).filter(|id| *id >= list.from));
            list.last = subjects.last().map_or_else(String::new, |(last, _)| (*last).into());
            let until = offset + subjects.len() as u64;
            list.rest = (until < total).then_some(until);
        } else {
            list.rest = Some(0);
        }
        self.go_on(now)
    }

    /// A letter has come, or is there no more.
    pub(super) fn got(&mut self, id: ItemId, letter: Option<DeadLetter>, now: Duration) -> Step {
        if self.asked.remove(&id.0)
            && let Some(letter) = letter
        {
            self.came.insert(id.0, letter);
        }
        self.go_on(now)
    }

    fn go_on(&mut self, now: Duration) -> Step {
        let Some(range) = self.line.front().filter(|_| self.asked.is_empty() && !self.is_listing) else { return Step::Wait };
        let until = range.until;
        let page = DeadPage::of(self.came.values().cloned());
        if page.next.is_some() {
            return self.end(page, now);
        }
        let round = self.round();
        while self.asked.len() < round
            && let Some(id) = self.list.ids.pop_front_if(|id| *id < until)
        {
            self.list.from = id + 1;
            self.asked.insert(id);
        }
        if !self.asked.is_empty() {
            return Step::Get(self.asked.iter().copied().map(ItemId).collect());
        }
        match self.list.rest.filter(|_| self.list.ids.is_empty() && self.list.from < until) {
            Some(rest) => {
                self.is_listing = true;
                Step::List { offset: rest.saturating_sub(1) }
            }
            None => self.end(page, now),
        }
    }

    fn end(&mut self, page: DeadPage, now: Duration) -> Step {
        self.line.pop_front();
        let mut came = std::mem::take(&mut self.came);
        match page.next {
            Some(next) => {
                came.split_off(&next).into_keys().rev().for_each(|id| self.list.ids.push_front(id));
                (self.list.from, self.list.fresh_until) = (next, now + JETSTREAM_LETTERS_FRESH);
            }
            None => self.list = List::default(),
        }
        Step::Page(page)
    }

    /// How many to ask for at once: as many as the rest of a page may take, to judge by those that have come.
    fn round(&self) -> usize {
        let bytes: usize = self.came.values().map(|letter| letter.item.len() + letter.cause.len()).sum();
        match self.came.len() {
            0 => JETSTREAM_LETTERS_MAX / 8,
            count => (DEAD_PAGE_BYTES_MAX as usize / (bytes / count + 1)).clamp(1, JETSTREAM_LETTERS_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::limits::DEAD_PAGE_LETTERS_MAX;

    const NOW: Duration = Duration::ZERO;
    const ALL: DeadRange = DeadRange { from: 0, until: u64::MAX };

    fn letter(id: u64, bytes: usize) -> DeadLetter {
        DeadLetter { id: ItemId(id), attempts: 1, cause: "x".into(), item: vec![0; bytes].into() }
    }

    fn subject(id: u64) -> String {
        format!("{id:020}")
    }

    /// Servers that list so many subjects at a time.
    struct Servers {
        letters: BTreeMap<u64, DeadLetter>,
        strange: Vec<String>,
        page: usize,
        lists: u64,
        most_asked: usize,
    }

    impl Servers {
        fn new(ids: impl IntoIterator<Item = u64>, page: usize) -> Servers {
            let letters = ids.into_iter().map(|id| (id, letter(id, 10))).collect();
            Servers { letters, strange: Vec::new(), page, lists: 0, most_asked: 0 }
        }

        /// Answers until there is a page; `meanwhile` something happens there after each list.
        fn serve(&mut self, letters: &mut Letters, range: DeadRange, now: Duration, meanwhile: impl Fn(&mut Servers)) -> DeadPage {
            let mut step = letters.load(range, now);
            loop {
                step = match step {
                    Step::Wait => panic!("waits for nothing"),
                    Step::Page(page) => return page,
                    Step::List { offset } => {
                        self.lists += 1;
                        let mut all: Vec<String> = self.letters.keys().map(|id| subject(*id)).chain(self.strange.clone()).collect();
                        all.sort();
                        let part: Vec<_> =
                            all.iter().skip(offset as usize).take(self.page).map(|s| (s.as_str(), s.parse().ok().map(ItemId))).collect();
                        let step = letters.listed(offset, &part, all.len() as u64, now);
                        meanwhile(self);
                        step
                    }
                    Step::Get(ids) => {
                        self.most_asked = self.most_asked.max(ids.len());
                        // In any order.
                        let got = ids.into_iter().rev().map(|id| letters.got(id, self.letters.get(&id.0).cloned(), now));
                        let mut steps: Vec<Step> = got.collect();
                        let last = steps.pop().expect("an id");
                        assert!(steps.iter().all(|step| *step == Step::Wait));
                        last
                    }
                };
            }
        }
    }

    fn ids(page: &DeadPage) -> Vec<u64> {
        page.letters.iter().map(|letter| letter.id.0).collect()
    }

    #[test]
    fn a_range_comes_in_order_and_nothing_beyond_it() {
        let mut servers = Servers::new([9, 3, 70_000, 5, 4], 100);
        let page = servers.serve(&mut Letters::default(), DeadRange { from: 4, until: 70_000 }, NOW, |_| {});
        assert_eq!((ids(&page), page.next), (vec![4, 5, 9], None));
        let page = Servers::new([], 100).serve(&mut Letters::default(), ALL, NOW, |_| {});
        assert_eq!(page, DeadPage::default());
    }

    #[test]
    fn pages_follow_each_other_and_share_a_list_as_long_as_it_is_fresh() {
        let count = 3 * DEAD_PAGE_LETTERS_MAX as u64 + 7;
        let mut servers = Servers::new(0..count, 1_000_000);
        let (mut letters, mut from, mut seen) = (Letters::default(), Some(0), Vec::new());
        while let Some(next) = from {
            let page = servers.serve(&mut letters, DeadRange { from: next, until: u64::MAX }, NOW, |_| {});
            seen.extend(ids(&page));
            from = page.next;
        }
        assert_eq!((seen, servers.lists), ((0..count).collect::<Vec<_>>(), 1));
        assert_eq!(servers.most_asked, JETSTREAM_LETTERS_MAX);
        // Who begins anew, or comes too late, sees what is new.
        let page = servers.serve(&mut letters, ALL, NOW, |_| {});
        let from = page.next.unwrap();
        servers.letters.insert(count, letter(count, 1));
        let late = servers.serve(&mut letters, DeadRange { from, until: u64::MAX }, JETSTREAM_LETTERS_FRESH, |_| {});
        assert_eq!((servers.lists, late.letters[0].id.0), (3, from));
    }

    #[test]
    fn large_ones_are_not_asked_for_all_at_once() {
        let mut servers = Servers::new([], 100);
        servers.letters.extend((0..90).map(|id| (id, letter(id, 300_000))));
        let page = servers.serve(&mut Letters::default(), ALL, NOW, |_| {});
        assert_eq!((ids(&page), page.next), (vec![0, 1, 2, 3], Some(4)));
        assert!(servers.most_asked <= JETSTREAM_LETTERS_MAX / 8);
    }

    #[test]
    fn a_list_of_many_parts_has_no_gap_whatever_is_forgotten_and_added_meanwhile() {
        let mut servers = Servers::new((0..1000).map(|number| number * 10), 100);
        // What others have published there is no letter, and no hindrance.
        servers.strange = vec!["".into(), "00000000000000001".into(), "x".into()];
        // As many as are forgotten are added, so that the total says nothing.
        let meanwhile = |servers: &mut Servers| {
            let round = servers.lists;
            (0..30).for_each(|number| drop(servers.letters.remove(&((round * 50 + number) * 10))));
            servers.letters.extend((0..20).map(|number| (20_000 + round * 20 + number, letter(20_000 + round * 20 + number, 1))));
        };
        let until = DeadRange { from: 0, until: 10_000 };
        let page = servers.serve(&mut Letters::default(), until, NOW, meanwhile);
        let kept: Vec<u64> = servers.letters.range(..10_000).map(|(id, _)| *id).collect();
        assert!(kept.iter().all(|id| ids(&page).contains(id)), "something was skipped");
        assert!(page.letters.is_sorted_by_key(|letter| letter.id));
    }

    #[test]
    fn what_was_forgotten_meanwhile_is_skipped() {
        let mut servers = Servers::new(0..20, 100);
        let page = servers.serve(&mut Letters::default(), ALL, NOW, |servers| servers.letters.retain(|id, _| id % 2 == 0));
        assert_eq!(ids(&page), (0..20).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn questions_are_answered_one_after_the_other() {
        let mut letters = Letters::default();
        assert_eq!(letters.load(ALL, NOW), Step::List { offset: 0 });
        assert_eq!(letters.load(DeadRange { from: 7, until: 9 }, NOW), Step::Wait);
        assert_eq!(letters.listed(0, &[], 0, NOW), Step::Page(DeadPage::default()));
        assert_eq!(letters.begin(NOW), Step::List { offset: 0 });
        assert_eq!(letters.listed(0, &[], 0, NOW), Step::Page(DeadPage::default()));
        assert_eq!(letters.begin(NOW), Step::Wait);
    }
}
