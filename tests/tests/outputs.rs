//! Outputs that take no more: a full disk, a pipe that nobody reads any more. What could not be written is not done.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Consumer, Producer};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;
use tests::engine::{Engine, engine, left};
use tests::{Process, Queue};

/// A pipe with a name, and the end of it that reads.
fn pipe(folder: &TempDir) -> (PathBuf, File) {
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()));
    let reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (path, reader.into())
}

/// Three items are put; one is acknowledged, what becomes of another cannot be written, the third is untouched.
fn assert_ends_undone(mut queue: Queue, settle: impl FnOnce(common::Delivery<'_, [u8]>), code: i32, words: &[&str]) {
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put_all([&b"a"[..], b"b", b"c"]).unwrap();
    producer.flush().unwrap();
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    consumer.get().unwrap().unwrap().ack().unwrap();
    queue.wait_until("one to be done", |status| status.acknowledged == 1);
    settle(consumer.get().unwrap().unwrap());
    assert_eq!(queue.coordinator().wait(), code);
    let said = queue.coordinator().end();
    for words in words {
        assert!(said.contains(words), "{words:?} is missing in {said:?}");
    }
}

#[test]
fn a_full_disk_behind_stdout_is_an_error_that_says_so_and_its_item_is_not_done() {
    let left = left(2);
    let words = ["cannot write to stdout; nothing is done whose result was not written: No space left", &left[..]];
    let queue = Queue::serve_after("exec >/dev/full", &[]);
    assert_ends_undone(queue, |delivery| delivery.ack_with(b"a result\n").unwrap(), 1, &words);
}

#[test]
fn a_stdout_that_nobody_reads_any_more_is_a_quiet_end_and_its_item_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let (path, reader) = pipe(&folder);
    let queue = Queue::serve_after(&format!("exec >{}", path.display()), &[]);
    drop(reader);
    assert_ends_undone(queue, |delivery| delivery.ack_with(b"a result\n").unwrap(), 141, &[]);
}

#[test]
fn a_full_disk_behind_the_dead_letters_is_an_error_that_names_the_file_and_the_item_is_not_gone() {
    let left = left(2);
    let words = ["cannot write to /dev/full; ", "No space left", &left[..]];
    let queue = Queue::serve(&["--dead-letters", "/dev/full"]);
    assert_ends_undone(queue, |delivery| delivery.reject("bad").unwrap(), 1, &words);
}

#[test]
fn dead_letters_that_nobody_reads_any_more_are_an_error_and_the_item_is_not_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, reader) = pipe(&folder);
    let queue = Queue::serve(&["--dead-letters", path.to_str().unwrap()]);
    drop(reader);
    let left = left(2);
    let words = ["pipe; nothing is done whose result was not written: Broken pipe", &left[..]];
    assert_ends_undone(queue, |delivery| delivery.reject("bad").unwrap(), 1, &words);
}

/// A disk of 256 KiB, until it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn when_a_disk_fills_up_no_more_is_done_than_was_written() {
    const ITEMS: usize = 20_000;
    let Some(disk) = SmallDisk::mount() else { return eprintln!("skipped: only root can mount a small disk") };
    let results = disk.0.path().join("results");
    let mut queue = Queue::serve_after(&format!("exec >{}", results.display()), &[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    (0..ITEMS).for_each(|n| producer.put(format!("{n:0>50}").as_bytes()).unwrap());
    producer.flush().unwrap();
    let _consumers = [(); 2].map(|()| queue.client("consumer", &["--sink=lines"]));
    assert_eq!(queue.coordinator().wait(), 1);
    let said = queue.coordinator().end();
    assert!(said.contains("cannot write to stdout") && said.contains("No space left"), "{said}");
    let left = said.lines().find_map(|line| Some(line.strip_prefix("coordinator: ")?.split_once(" items were left in ")?.0));
    let done = ITEMS - left.and_then(|left| left.parse::<usize>().ok()).expect("how many are left");
    let written = std::fs::read_to_string(&results).unwrap();
    let whole: BTreeSet<&str> = written.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
    assert_eq!(whole.len(), written.matches('\n').count(), "a result was written twice");
    assert!(whole.iter().all(|result| result.len() == 50), "a result is torn, and not the last");
    // A slow journal may not have noted any of them by then.
    assert!(0 < done || engine() != Engine::Memory, "none is done, {} are written", whole.len());
    assert!(done <= whole.len(), "{done} are said to be done, {} are written", whole.len());
}

fn letters(path: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(path).unwrap();
    let whole = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
    (whole, text.lines().count() - whole)
}

#[test]
fn a_letter_that_was_torn_by_a_full_disk_does_not_tear_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dead");
    std::fs::write(&file, "{\"id\":0,\"attempts\":1,\"cause\":\"c\",\"item\":\"a\"}\n{\"id\":1,\"att").unwrap();
    for letters_before in [1, 2] {
        let mut run = Process::start(
            "coordinator",
            &folder.path().join("q.sock"),
            &["--input", "-", "--dead-letters", file.to_str().unwrap(), "--", "sh", "-c", "exit 65"],
        );
        run.write(b"x\n");
        assert_eq!(run.finish().0, 3);
        assert_eq!(letters(&file), (letters_before + 1, 1));
    }
}
