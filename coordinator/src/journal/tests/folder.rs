//! Directories and what is in them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::program::tell;
use tempfile::TempDir;

use super::*;
use crate::journal::inspect::{self, State};
use crate::journal::{Fsync, Journal};
use crate::queue::Recovered;

fn new_dir() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("journal");
    (home, dir)
}

fn open(dir: &Path) -> Result<(Journal, Recovered), JournalError> {
    Journal::open(dir, Fsync::Always, 1000, || {})
}

/// The error's words, which name the path.
fn refused(dir: &Path, file: &str) -> String {
    let words = open(dir).map(drop).unwrap_err().to_string();
    let path = if file.is_empty() { dir.to_path_buf() } else { dir.join(file) };
    assert!(words.contains(&*path.to_string_lossy()), "{words} does not name {}", path.display());
    words
}

/// A journal of some items in a new directory.
fn journal() -> (TempDir, PathBuf, Model) {
    let (home, dir) = new_dir();
    let (mut journal, recovered) = open(&dir).unwrap();
    assert_eq!(recovered, Recovered::default());
    let (mut story, mut model) = (Story::new(3), Model::default());
    for entry in story.group(60).into_iter().chain([story.put()]) {
        model.keep(&entry);
        journal.keep(entry);
    }
    journal.close().unwrap();
    (home, dir, model)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    names(dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

#[test]
fn a_new_journal_is_private_and_is_found_again() {
    let (_home, dir, model) = journal();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(names(&dir), ["journal.redb", "lock", "witness"]);
    for name in names(&dir) {
        assert_eq!(fs::metadata(dir.join(&name)).unwrap().permissions().mode() & 0o7777, 0o600, "{name}");
    }
    assert_eq!(open(&dir).unwrap().1, model.recovered());
}

#[test]
fn only_the_last_part_of_the_path_is_made() {
    let (home, _) = new_dir();
    assert!(refused(&home.path().join("a/b"), "").starts_with("cannot make the directory"));
}

#[test]
fn a_second_coordinator_is_told_the_pid_of_the_first() {
    let (_home, dir, _) = journal();
    let first = open(&dir).unwrap();
    let words = refused(&dir, "");
    assert!(words.contains(&format!("in use by another coordinator (pid {})", std::process::id())), "{words}");
    assert!(words.ends_with("; end that one, or give this one another --journal"), "{words}");
    let looked = inspect::inspect(&dir).unwrap_err();
    assert!(matches!(looked, JournalError::InUse { .. }) && looked.to_string().contains("ask it: `coordinator status`"), "{looked}");
    first.0.close().unwrap();
    open(&dir).unwrap();
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let (_home, dir, _) = journal();
    fs::set_permissions(&dir, Permissions::from_mode(0o750)).unwrap();
    assert!(refused(&dir, "").contains("open to others (mode 0750); give a directory of its own"));
}

#[test]
fn what_is_no_directory_or_no_file_is_refused() {
    let (home, dir, _) = journal();
    let link = home.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(refused(&link, "").contains("symbolic link or no directory"));
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file, "").contains("no directory"));
    for name in ["journal.redb", "witness", "lock"] {
        let moved = home.path().join(name);
        fs::rename(dir.join(name), &moved).unwrap();
        symlink(&moved, dir.join(name)).unwrap();
        assert!(refused(&dir, name).contains("is a symbolic link"));
        fs::remove_file(dir.join(name)).unwrap();
        fs::create_dir(dir.join(name)).unwrap();
        assert!(refused(&dir, name).contains("is no regular file"));
        fs::remove_dir(dir.join(name)).unwrap();
        fs::rename(moved, dir.join(name)).unwrap();
    }
    open(&dir).unwrap();
}

#[test]
fn a_journal_that_is_missing_is_not_begun_anew() {
    let (_home, dir, _) = journal();
    fs::remove_file(dir.join("journal.redb")).unwrap();
    assert!(refused(&dir, "journal.redb").contains("is missing, but its directory is not empty (it has witness)"));
    fs::remove_file(dir.join("witness")).unwrap();
    fs::write(dir.join("letter.txt"), "dear").unwrap();
    assert!(refused(&dir, "journal.redb").contains("letter.txt"));
    assert_eq!(fs::read(dir.join("letter.txt")).unwrap(), b"dear");
    fs::remove_file(dir.join("letter.txt")).unwrap();
    open(&dir).unwrap();
}

#[test]
fn what_a_crash_while_it_was_made_has_left_is_cleaned_up() {
    let (_home, dir) = new_dir();
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.join("journal.new"), "half a jour").unwrap();
    open(&dir).unwrap().0.close().unwrap();
    assert_eq!(names(&dir), ["journal.redb", "lock", "witness"]);
    // After the rename, before the witness.
    fs::remove_file(dir.join("witness")).unwrap();
    open(&dir).unwrap();
}

#[test]
fn files_that_are_empty_foreign_or_of_another_version_are_refused_by_name() {
    let (_home, dir, _) = journal();
    let file = dir.join("journal.redb");
    let good = fs::read(&file).unwrap();
    for (bytes, expected) in [(&b""[..], "is damaged: it is empty"), (&[b'x'; 9000], "is no journal of procq")] {
        fs::write(&file, bytes).unwrap();
        assert!(refused(&dir, "journal.redb").contains(expected));
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    for (version, advice) in [(0_u32, "let the program that wrote it finish"), (2, "use the newer program")] {
        fs::write(&file, &good).unwrap();
        store::spoil::set_format(&file, &[b"procq journal", &version.to_le_bytes()[..]].concat());
        let words = refused(&dir, "journal.redb");
        assert!(words.contains(&format!("format version {version}, this program knows 1; {advice}")), "{words}");
    }
    fs::write(&file, &good).unwrap();
    store::spoil::set_format(&file, b"another program");
    assert!(refused(&dir, "journal.redb").contains("a database of something else"));
    fs::write(&file, &good).unwrap();
    open(&dir).unwrap();
}

#[test]
fn items_that_were_allowed_to_be_larger_are_refused_until_there_are_none() {
    let (_home, dir) = new_dir();
    let put = Entry::Put { first: 0, batch: Batch::one(b"abc"[..].into()), by: None };
    let with = |item_bytes_max| Journal::open(&dir, Fsync::Never, item_bytes_max, || {}).map(|opened| opened.0);
    let mut journal = with(1000).unwrap();
    journal.keep(put);
    journal.close().unwrap();
    let words = with(999).unwrap_err().to_string();
    assert!(words.contains("give --max-item 1000 or more"), "{words}");
    let mut journal = with(1001).unwrap();
    journal.keep(Entry::Settled { first: 0, count: 1, output_bytes: None });
    journal.close().unwrap();
    with(1).unwrap();
}

#[test]
fn looking_at_a_journal_changes_nothing_even_if_its_coordinator_was_killed() {
    let (home, dir, model) = journal();
    let killed = home.path().join("killed");
    let (mut live, _) = open(&dir).unwrap();
    live.keep(Entry::Finished { name: Some("last".into()) });
    live.flush();
    while live.collect().unwrap().is_empty() {
        std::thread::yield_now();
    }
    // What a kill would leave.
    fs::create_dir(&killed).unwrap();
    fs::set_permissions(&killed, Permissions::from_mode(0o700)).unwrap();
    contents(&dir).into_iter().for_each(|(name, bytes)| fs::write(killed.join(name), bytes).unwrap());
    live.close().unwrap();
    for (dir, state) in [(&dir, State::Closed), (&killed, State::Killed)] {
        let before = contents(dir);
        let summary = inspect::inspect(dir).unwrap();
        let recovered = model.recovered();
        assert_eq!(summary.state, state);
        assert_eq!((summary.items, summary.batches, summary.next_id), (recovered.items, recovered.batches, recovered.next_id));
        assert_eq!((summary.commits, summary.commits_confirmed), (2, Some(2)));
        assert!(summary.producers.iter().any(|producer| producer.name == "last" && producer.finished));
        assert!(inspect::as_json(&summary).starts_with(r#"{"version":1,"format_version":1,"state":""#));
        assert!(inspect::in_words(&summary).contains(r#"producer     "last": 0 items (checksum 0000000000000000), finished"#));
        let verdict = inspect::verify(dir).unwrap();
        assert!(verdict.problems.is_empty(), "{verdict:?}");
        assert_eq!((verdict.items, verdict.batches), (recovered.items, recovered.batches));
        assert!(contents(dir) == before, "looking at it has changed it");
    }
    assert_eq!(open(&killed).unwrap().1, open(&dir).unwrap().1);
}

#[test]
fn verify_finds_a_flipped_bit_in_each_stored_record() {
    let (_home, dir, model) = journal();
    let file = dir.join("journal.redb");
    let good = fs::read(&file).unwrap();
    let mut found = 0;
    for loaded in model.load(ALL) {
        let Some(body) = loaded.batch.body().into_iter().find(|part| part.len() > 20) else { continue };
        for at in good.windows(body.len()).enumerate().filter(|(_, window)| window == body).map(|(at, _)| at) {
            let mut bad = good.clone();
            bad[at + 7] ^= 4;
            fs::write(&file, &bad).unwrap();
            found += usize::from(!inspect::verify(&dir).unwrap().problems.is_empty());
            assert!(fs::read(&file).unwrap() == bad);
        }
    }
    // A copy of an earlier commit may lie about, in which a flipped bit does no harm.
    assert!(found as u64 >= model.recovered().batches / 2 && found > 0, "{found}");
}

#[test]
fn verify_finds_totals_that_are_wrong() {
    let (_home, dir, _) = journal();
    store::spoil::add_to_totals(&dir.join("journal.redb"), 1);
    let problems = inspect::verify(&dir).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("by the totals")), "{problems:?}");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return tell("test", format_args!("skipped: only root can give a directory away"));
    }
    let (_home, dir, _) = journal();
    std::os::unix::fs::chown(&dir, Some(4242), Some(4242)).unwrap();
    assert!(refused(&dir, "").contains("belongs to user 4242, not to you; use a directory of your own"));
}

#[test]
fn a_disk_that_is_full_or_read_only_is_said_to_be() {
    let (home, dir) = new_dir();
    fs::create_dir(&dir).unwrap();
    let mount = |arguments: &[&str]| {
        Command::new("mount").args(arguments).arg(&dir).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=1m,mode=700", "none"]) {
        return tell("test", format_args!("skipped: only root can mount a small disk"));
    }
    let result = std::panic::catch_unwind(|| {
        let (mut journal, _) = open(&dir).unwrap();
        let mut kept = 0;
        let error = loop {
            let batch = Batch::one(vec![b'x'; 60_000].into());
            journal.keep(Entry::Put { first: kept, batch, by: None });
            journal.flush();
            match journal.collect() {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 100_000);
        };
        assert!(common::program::advice(&error).is_some_and(|advice| advice.contains("free some space")), "{error}");
        // Its thread has files open until it has ended, and would keep the disk from becoming read-only.
        journal.close().unwrap_err();
        error
    });
    assert!(mount(&["-o", "remount,ro"]));
    let read_only = open(&dir).map(drop);
    let unmounted = Command::new("umount").arg(&dir).status();
    let advice = common::program::advice(&read_only.unwrap_err()).unwrap_or_default();
    assert!(advice.contains("place that can be written"), "{advice}");
    assert!(result.is_ok() && unmounted.is_ok());
    drop(home);
}
