//! The journal against its model.

use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::journal::{Answer, Fsync, Journal};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_holds_what_the_model_holds(seed in any::<u64>(), groups in 1_usize..25) {
        let mut shared = Shared::new();
        let mut store = shared.open(TIGHT).unwrap();
        let (mut story, mut model) = (Story::new(seed), Model::default());
        for _ in 0..groups {
            let group = story.group(12);
            group.iter().for_each(|entry| model.keep(entry));
            store.commit(group).unwrap();
            let load = some_load(&mut story.chance, &model);
            if let Some(load) = load {
                prop_assert_eq!(plain(&store.load(load).unwrap()), plain(&model.load(load)));
            }
            match story.chance.below(6) {
                0 => {
                    store.close().unwrap();
                    store = shared.open(TIGHT).unwrap();
                }
                1 => {
                    // Killed: what was written is there, and nothing was closed.
                    let left = Shared::holding(shared.files());
                    drop(store);
                    shared = left;
                    store = shared.open(TIGHT).unwrap();
                }
                _ => {}
            }
            assert_same(&mut store, &model, "after a group");
        }
    }
}

proptest! {
    // Each works with a thread and files.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_journal_answers_as_the_model_does(seed in any::<u64>(), turns in 1_usize..40) {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("journal");
        let (mut story, mut model) = (Story::new(seed), Model::default());
        let mut handed = std::collections::VecDeque::new();
        let (mut journal, mut woken) = open(&dir);
        for _ in 0..turns {
            for entry in story.group(8) {
                handed.push_back(entry.clone());
                journal.keep(entry);
            }
            let load = some_load(&mut story.chance, &model).filter(|_| journal.waiting_entries == 0);
            journal.flush();
            load.into_iter().for_each(|load| journal.load(load));
            journal.flush();
            let mut wanted = load;
            let all = story.chance.below(3) == 0 || load.is_some();
            while all && !journal.is_idle() {
                woken.recv_timeout(Duration::from_secs(20)).unwrap();
                for answer in journal.collect().unwrap() {
                    match answer {
                        Answer::Kept(entries) => handed.drain(..entries).for_each(|entry| model.keep(&entry)),
                        Answer::DeadLoaded(_) => panic!("nothing was asked for"),
                        Answer::Loaded(loaded) => prop_assert_eq!(plain(&loaded), plain(&model.load(wanted.take().unwrap()))),
                    }
                }
            }
            if story.chance.below(8) == 0 {
                journal.close().unwrap();
                handed.drain(..).for_each(|entry| model.keep(&entry));
                let (again, recovered, waker) = reopen(&dir);
                prop_assert_eq!(recovered, model.recovered());
                (journal, woken) = (again, waker);
            }
        }
        journal.close().unwrap();
        handed.drain(..).for_each(|entry| model.keep(&entry));
        prop_assert_eq!(reopen(&dir).1, model.recovered());
    }
}

#[test]
fn a_commit_takes_only_so_much_and_all_is_kept_in_order() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("journal");
    let (mut journal, woken) = open(&dir);
    let mut model = Model::default();
    for first in 0..40 {
        let entry = Entry::Put { first, batch: Batch::one(vec![first as u8; 1 << 20].into()), by: None };
        model.keep(&entry);
        journal.keep(entry);
    }
    journal.flush();
    let mut kept = Vec::new();
    while !journal.is_idle() {
        woken.recv_timeout(Duration::from_secs(20)).unwrap();
        kept.extend(journal.collect().unwrap().into_iter().map(|answer| match answer {
            Answer::Kept(entries) => entries,
            Answer::Loaded(_) | Answer::DeadLoaded(_) => panic!("nothing was asked for"),
        }));
    }
    assert_eq!(kept, [7, 7, 7, 7, 7, 5], "8 MiB each, with what an entry costs");
    journal.load(Load { from: 0, until: u64::MAX, bytes_min: 3 << 20 });
    journal.flush();
    woken.recv_timeout(Duration::from_secs(20)).unwrap();
    let answers = journal.collect().unwrap();
    let [Answer::Loaded(loaded)] = &answers[..] else { panic!("not what was asked for") };
    assert_eq!(loaded.iter().map(|loaded| loaded.first).collect::<Vec<_>>(), [0, 1, 2]);
    journal.close().unwrap();
    assert_eq!(reopen(&dir).1, model.recovered());
}

#[test]
fn a_file_that_was_large_is_made_smaller_when_it_is_opened() {
    let shared = Shared::new();
    let mut store = shared.open(TIGHT).unwrap();
    for first in 0..100 {
        store.commit([Entry::Put { first, batch: Batch::one(vec![1; 60_000].into()), by: None }]).unwrap();
    }
    store.commit([Entry::Settled { first: 0, count: 97, output_bytes: None }]).unwrap();
    store.close().unwrap();
    let before = shared.files()[JOURNAL].len();
    let mut store = shared.open(Sizes { slack_bytes: 1 << 20, ..TIGHT }).unwrap();
    assert_eq!(store.load(ALL).unwrap().len(), 3);
    store.close().unwrap();
    let after = shared.files()[JOURNAL].len();
    assert!(before > 6_000_000 && after < before / 6, "{before} bytes before, {after} after");
}

type Woken = std::sync::mpsc::Receiver<()>;

fn open(dir: &Path) -> (Journal, Woken) {
    let (journal, _, woken) = reopen(dir);
    (journal, woken)
}

fn reopen(dir: &Path) -> (Journal, crate::queue::Recovered, Woken) {
    let (wake, woken) = channel();
    let (journal, recovered) = Journal::open(dir, Fsync::Never, 1000, move || _ = wake.send(())).unwrap();
    (journal, recovered, woken)
}

/// A load that finds something, if there is anything.
fn some_load(chance: &mut Chance, model: &Model) -> Option<Load> {
    let all = model.load(ALL);
    let from = all.get(chance.below(all.len() as u64) as usize)?.first;
    let until = if chance.below(3) == 0 { from + 1 } else { u64::MAX };
    Some(Load { from: from - chance.below(from + 1).min(3), until, bytes_min: 1 + chance.below(600) })
}

#[test]
fn dead_letters_come_a_page_at_a_time_with_all_that_was_kept_before() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("journal");
    let (mut journal, woken) = open(&dir);
    let letter = |id| DeadLetter { id: ItemId(id), attempts: 2, cause: "no good".into(), item: vec![b'x'; 9].into() };
    let uniform = Batch::check(BatchHeader { count: 1500, layout: Layout::Uniform { len: 9 } }, vec![b'x'; 1500 * 9].into()).unwrap();
    journal.keep(Entry::Put { first: 0, batch: uniform, by: None });
    (0..1500).for_each(|id| journal.keep(Entry::Dead(letter(id))));
    journal.keep(Entry::Requeued { id: 3, first: 1500, batch: Batch::one(letter(3).item) });
    journal.keep(Entry::Dropped { id: 1499, item_bytes: 9 });
    let mut pages = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        journal.flush();
        while !journal.is_idle() {
            woken.recv_timeout(Duration::from_secs(20)).unwrap();
            let answers = journal.collect().unwrap();
            pages.extend(answers.into_iter().filter_map(|answer| if let Answer::DeadLoaded(page) = answer { Some(page) } else { None }));
        }
        from = pages.last().map_or(Some(at), |page: &DeadPage| page.next);
        from.into_iter().for_each(|from| journal.load_dead(DeadRange { from, until: u64::MAX }));
    }
    let ids: Vec<u64> = pages.iter().flat_map(|page| page.letters.iter().map(|letter| letter.id.0)).collect();
    assert_eq!(ids, (0..1499).filter(|id| *id != 3).collect::<Vec<_>>());
    assert_eq!(pages.iter().map(|page| page.letters.len()).collect::<Vec<_>>(), [1024, 474]);
    assert_eq!(pages[0].letters[0], letter(0));
    journal.close().unwrap();
    let (_, recovered, _) = reopen(&dir);
    assert_eq!((recovered.dead, recovered.items, recovered.next_id), (1498, 1, 1501));
}

#[test]
fn a_dead_letter_that_is_not_there_cannot_go() {
    for entry in [Entry::Dropped { id: 1, item_bytes: 0 }, Entry::Requeued { id: 1, first: 2, batch: Batch::one(Bytes::new()) }] {
        let shared = Shared::new();
        let mut store = shared.open(TIGHT).unwrap();
        let letter = DeadLetter { id: ItemId(0), attempts: 1, cause: "no good".into(), item: Bytes::new() };
        store.commit([Entry::Put { first: 0, batch: Batch::one(Bytes::new()), by: None }, Entry::Dead(letter)]).unwrap();
        let error = store.commit([entry]).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("the dead letter of item 1"), "{error}");
    }
}
