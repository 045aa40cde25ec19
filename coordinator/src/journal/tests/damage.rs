//! Files that are not what was written. `FLIPS` flips more bits.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// A journal with something of everything, closed in order or not.
fn journal(seed: u64, closed: bool) -> (Shared, Model) {
    let shared = Shared::new();
    let (mut story, mut model) = (Story { item_bytes_max: 400, ..Story::new(seed) }, Model::default());
    let mut store = shared.open(TIGHT).unwrap();
    for _ in 0..12 {
        let group = story.group(10);
        group.iter().for_each(|entry| model.keep(entry));
        store.commit(group).unwrap();
    }
    assert!(!model.load(ALL).is_empty());
    let left = Shared::holding(shared.files());
    store.close().unwrap();
    (if closed { Shared::holding(shared.files()) } else { left }, model)
}

/// It is refused, or all is there.
fn check(files: [Vec<u8>; 2], model: &Model, case: &str) -> bool {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut store = match Shared::holding(files).open(TIGHT) {
            Ok(store) => store,
            Err(error) => return Some(error),
        };
        assert_eq!(store.recovered(), model.recovered(), "{case}");
        let expected = model.load(ALL);
        match store.load(ALL) {
            Ok(loaded) => assert_eq!(plain(&loaded), plain(&expected), "{case}"),
            Err(error) => return Some(error),
        }
        None
    }));
    let Ok(refused) = opened else { panic!("{case}: see above") };
    let Some(error) = refused else { return false };
    let words = error.to_string();
    assert!(words.starts_with("journal") || words.starts_with("witness"), "{case}: {words}");
    true
}

/// A file that is trusted as it is opened, since it is large, may hold what nobody notices, but makes nobody panic.
fn check_trusted(files: [Vec<u8>; 2], case: &str) {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let open = || Shared::holding(files.clone()).open(Sizes { check_bytes_max: 0, ..TIGHT });
        let Ok(mut store) = open() else { return };
        let _ = store.load(ALL);
        drop(store);
        let Ok(mut store) = open() else { return };
        let _ = store.commit([Entry::Finished { name: None }]);
        let _ = store.check_integrity();
    }));
    assert!(opened.is_ok(), "{case}: see above");
}

fn flips() -> u64 {
    std::env::var("FLIPS").map_or(500, |flips| flips.parse().unwrap())
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_does_no_harm() {
    for closed in [true, false] {
        let (shared, model) = journal(5, closed);
        let files = shared.files();
        assert!(!check(files.clone(), &model, "unharmed"));
        let mut chance = Chance(7);
        let mut noticed = 0;
        let len = files[JOURNAL].len() as u64;
        // The file's head, the first page, and anything.
        let places: Vec<u64> = (0..320).chain(8192..8448).chain((0..flips()).map(|_| chance.below(len))).collect();
        for at in places {
            let mut files = files.clone();
            files[JOURNAL][at as usize] ^= 1 << chance.below(8);
            let case = format!("closed {closed}, byte {at} of {len}");
            check_trusted(files.clone(), &case);
            noticed += u32::from(check(files, &model, &case));
        }
        assert!(noticed > 20, "{noticed}");
        for at in 0..files[WITNESS].len() {
            let mut files = files.clone();
            files[WITNESS][at] ^= 1;
            assert!(check(files, &model, &format!("closed {closed}, byte {at} of the witness")));
        }
    }
}

#[test]
fn a_key_with_a_flipped_bit_hides_nothing() {
    let (shared, model) = journal(5, true);
    let files = shared.files();
    let mut noticed = 0;
    for loaded in model.load(ALL) {
        let key = loaded.first.to_le_bytes();
        for at in files[JOURNAL].windows(8).enumerate().filter(|(_, window)| *window == key).map(|(at, _)| at) {
            let mut files = files.clone();
            files[JOURNAL][at] ^= 1;
            noticed += u32::from(check(files, &model, &format!("key {} at byte {at}", loaded.first)));
        }
    }
    assert!(noticed > 0);
}

#[test]
fn a_file_that_was_cut_or_lost_its_end_is_noticed() {
    for closed in [true, false] {
        let (shared, model) = journal(6, closed);
        let files = shared.files();
        for part in 0..20 {
            let mut files = files.clone();
            let len = files[JOURNAL].len() * part / 20;
            files[JOURNAL].truncate(len);
            assert!(check(files, &model, &format!("closed {closed}, cut to {part}/20")), "cut to {part}/20");
        }
    }
}

#[test]
fn a_journal_behind_its_witness_is_damage_and_an_older_witness_is_not() {
    let (shared, model) = journal(8, true);
    let mut files = shared.files();
    let witness = |sequence| {
        let shared = Shared::default();
        Witness::new(Box::new(shared.disk(WITNESS)), Path::new("witness")).write(sequence).unwrap();
        shared.files()[WITNESS].clone()
    };
    files[WITNESS] = witness(13);
    let error = Shared::holding(files.clone()).open(TIGHT).unwrap_err();
    assert!(matches!(error, JournalError::Behind { found: 12, confirmed: 13, .. }), "{error}");
    for older in [witness(3), Vec::new()] {
        files[WITNESS] = older;
        let shared = Shared::holding(files.clone());
        assert_same(&mut shared.open(TIGHT).unwrap(), &model, "an older witness");
        assert_eq!(shared.files()[WITNESS], witness(12));
    }
}

#[test]
fn what_is_no_journal_is_refused() {
    let refused = |journal: Vec<u8>| Shared::holding([journal, Vec::new()]).open(TIGHT).unwrap_err();
    assert!(matches!(refused(Vec::new()), JournalError::Damaged { .. }));
    assert!(matches!(refused(b"hello world\n".repeat(1000)), JournalError::Foreign { .. }));
    assert!(matches!(refused(vec![0; 100_000]), JournalError::Foreign { .. }));
}

#[test]
fn a_load_that_finds_nothing_is_damage() {
    let (shared, model) = journal(9, true);
    let from = model.recovered().next_id;
    let error = shared.open(TIGHT).unwrap().load(Load { from, until: u64::MAX, bytes_min: 1 }).unwrap_err();
    assert!(error.to_string().contains("there is nothing where items"), "{error}");
}

#[test]
fn entries_that_make_no_sense_are_an_error_and_change_nothing() {
    let put = |first| Entry::Put { first, batch: Batch::one(b"a"[..].into()), by: None };
    let settled = |first, count| Entry::Settled { first, count, output_bytes: None };
    let shared = Shared::new();
    shared.open(TIGHT).unwrap().commit([put(0), put(1), settled(0, 1)]).unwrap();
    for odd in [put(1), settled(0, 1), settled(1, 2), settled(9, 1), Entry::Failed { first: 0, count: 1, failures: 1 }] {
        let mut store = Shared::holding(shared.files()).open(TIGHT).unwrap();
        assert!(store.commit([settled(1, 1), odd.clone()]).is_err(), "{odd:?}");
        let mut store = Shared::holding(shared.files()).open(TIGHT).unwrap();
        assert!(store.commit([odd.clone()]).is_err(), "{odd:?}");
    }
}
