//! A run under a disk that remembers every write and sync, cut after each: what was reported as kept is there, and nothing in part.
//! `CRASH_SEEDS` plays more than one story.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::journal::{Answer, Journal};

/// What was done, and what should be there.
struct Run {
    start: [Vec<u8>; 2],
    steps: Vec<(usize, Step)>,
    groups: Vec<Vec<Entry>>,
    /// After each commit, by its number.
    models: Vec<Model>,
    /// How many steps were done when it was reported.
    kept_at: Vec<usize>,
}

/// Some groups, a close, compaction when it is opened again, some more, and a close.
fn run(seed: u64) -> Run {
    let shared = Shared::new();
    let mut run = Run { start: shared.files(), steps: Vec::new(), groups: Vec::new(), models: vec![Model::default()], kept_at: vec![0] };
    let mut story = Story { item_bytes_max: 400, ..Story::new(seed) };
    for sizes in [TIGHT, Sizes { slack_bytes: 0, ..TIGHT }] {
        let mut store = shared.open(sizes).unwrap();
        for _ in 0..6 {
            let group = story.group(10);
            let mut model = run.models.last().unwrap().clone();
            group.iter().for_each(|entry| model.keep(entry));
            store.commit(group.clone()).unwrap();
            run.groups.push(group);
            run.models.push(model);
            run.kept_at.push(shared.0.lock().unwrap().steps.len());
        }
        store.close().unwrap();
    }
    run.steps = std::mem::take(&mut shared.0.lock().unwrap().steps);
    run
}

fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("CRASH_SEEDS").map_or(1, |seeds| seeds.parse().unwrap())
}

/// What is there after a crash at step `at` goes on as if nothing had been.
fn check(run: &Run, files: [Vec<u8>; 2], at: usize, case: &str) {
    let kept = run.kept_at.iter().filter(|kept_at| **kept_at <= at).count() - 1;
    let shared = Shared::holding(files);
    let mut store = shared.open(TIGHT).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = store.totals().sequence as usize;
    assert!(found == kept || found == kept + 1, "{case}: {kept} commits were reported, {found} are there");
    assert_same(&mut store, &run.models[found], case);
    if let Some(group) = run.groups.get(found) {
        store.commit(group.clone()).unwrap();
        assert_same(&mut store, &run.models[found + 1], case);
    }
}

#[test]
fn a_process_that_dies_after_any_write_or_sync_has_lost_nothing_that_it_reported() {
    for seed in seeds() {
        let run = run(seed);
        let mut files = run.start.clone();
        for (at, (file, step)) in (1..).zip(&run.steps) {
            apply(&mut files[*file], step);
            check(&run, files.clone(), at, &format!("seed {seed}, killed after step {at} of {}", run.steps.len()));
        }
    }
}

#[test]
fn a_machine_that_loses_power_after_any_write_or_sync_has_lost_nothing_that_was_reported() {
    for seed in seeds() {
        let run = run(seed);
        let mut chance = Chance(seed);
        let mut synced = run.start.clone();
        let mut unsynced: [Vec<Step>; 2] = Default::default();
        for (at, (file, step)) in (1..).zip(&run.steps) {
            unsynced[*file].push(step.clone());
            if matches!(step, Step::Sync) {
                unsynced[*file].drain(..).for_each(|step| apply(&mut synced[*file], &step));
            }
            for draw in 0..3 {
                let mut files = synced.clone();
                for (file, steps) in files.iter_mut().zip(&unsynced) {
                    steps.iter().for_each(|step| apply_perhaps(&mut chance, file, step));
                }
                check(&run, files, at, &format!("seed {seed}, no power after step {at} of {}, draw {draw}", run.steps.len()));
            }
        }
    }
}

/// All of it, nothing, or some of its sectors.
fn apply_perhaps(chance: &mut Chance, file: &mut Vec<u8>, step: &Step) {
    let (Step::Write(offset, bytes), sort) = (step, chance.below(4)) else {
        return if chance.below(2) == 0 {
            apply(file, step)
        };
    };
    let sector_bytes = match sort {
        0 => return,
        1 => return apply(file, step),
        2 => 512,
        _ => 4096,
    };
    let end = offset + bytes.len() as u64;
    for sector in offset / sector_bytes..end.div_ceil(sector_bytes) {
        let (from, until) = ((sector * sector_bytes).max(*offset), ((sector + 1) * sector_bytes).min(end));
        if chance.below(2) == 0 {
            apply(file, &Step::Write(from, bytes[(from - offset) as usize..(until - offset) as usize].to_vec()));
        }
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn after_a_write_or_sync_that_failed_nothing_is_reported_and_all_that_was_is_there() {
    for seed in seeds() {
        let run = run(seed);
        let steps = run.kept_at[6] + 12;
        for at in 0..steps {
            for (error, times) in [(EIO, 1), (ENOSPC, usize::MAX)] {
                fail(&run, at, error, times, &format!("seed {seed}, error {error} at step {at}, {times} times"));
            }
        }
    }
}

fn fail(run: &Run, at: usize, error: i32, times: usize, case: &str) {
    let shared = Shared::holding(run.start.clone());
    shared.0.lock().unwrap().fault = Some((at, error, times));
    let mut kept = 0;
    if let Ok(store) = shared.open(TIGHT) {
        let (wake, woken) = channel();
        let mut journal = Journal::start(store, Path::new("dir"), (), move || _ = wake.send(())).unwrap();
        let mut failed = false;
        for group in &run.groups[..6] {
            group.iter().for_each(|entry| journal.keep(entry.clone()));
            journal.flush();
            // The thread may be gone after a failure, and wakes nobody any more.
            let _ = woken.recv_timeout(Duration::from_secs(20));
            match journal.collect() {
                Ok(answers) => {
                    assert!(!failed, "{case}: it goes on after a failure");
                    assert!(matches!(answers[..], [Answer::Kept(entries)] if entries == group.len()), "{case}: {answers:?}");
                    kept += 1;
                }
                Err(error) if failed => assert!(matches!(error, JournalError::Ended { .. }), "{case}: {error}"),
                Err(error) => {
                    failed = true;
                    let words = error.to_string();
                    assert!(words.contains("journal") || words.contains("witness"), "{case}: {words}");
                    assert!(matches!(&error, JournalError::Io { .. }), "{case}: {words}");
                }
            }
        }
        let closed = journal.close();
        assert!(!failed || closed.is_err(), "{case}");
    }
    let files = shared.files();
    shared.0.lock().unwrap().fault = None;
    let again = Shared::holding(files);
    let mut store = again.open(TIGHT).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = store.totals().sequence as usize;
    assert!(found == kept || found == kept + 1, "{case}: {kept} commits were reported, {found} are there");
    assert_same(&mut store, &run.models[found], case);
}

#[test]
fn a_crash_while_it_recovers_from_a_crash_does_no_harm_either() {
    for seed in seeds() {
        let run = run(seed);
        let mut files = run.start.clone();
        for (at, (file, step)) in (1..).zip(&run.steps) {
            apply(&mut files[*file], step);
            if at % 5 != 0 {
                continue;
            }
            let again = Shared::holding(files.clone());
            again.open(Sizes { slack_bytes: 0, ..TIGHT }).unwrap().close().unwrap();
            let steps = std::mem::take(&mut again.0.lock().unwrap().steps);
            let mut files = files.clone();
            for (later, (file, step)) in (1..).zip(&steps) {
                apply(&mut files[*file], step);
                check(&run, files.clone(), at, &format!("seed {seed}, killed after step {at}, and again after {later} of {}", steps.len()));
            }
        }
    }
}
