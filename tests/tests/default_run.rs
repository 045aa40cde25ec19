//! The default run, word for word.

use std::path::Path;
use std::process::Command;

use tests::{Process, program};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    Process::start("coordinator", &folder.path().join("q.sock"), arguments).finish()
}

fn numbers(stdout: &str, before: &str, after: &str) -> Vec<u32> {
    let number = |line: &str| line.strip_prefix(before)?.strip_suffix(after)?.parse().ok();
    stdout.lines().filter_map(number).collect()
}

#[test]
fn the_default_run_says_what_it_does_in_the_words_of_the_contract() {
    let (code, stdout, stderr) = run(&["--pause", "10ms"]);
    assert_eq!((code, &stderr[..]), (0, ""));
    let put = numbers(&stdout, "Producer: Put ", " into the queue.");
    let got = numbers(&stdout, "Consumer: Got ", " from the queue.");
    assert_eq!(put.len(), 5);
    assert_eq!(put, got);
    assert!(put.iter().all(|number| (1..=100).contains(number)));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[10..], ["Consumer: Received termination signal.", "Done!"]);
    for number in put {
        let at = |text: String| lines.iter().position(|line| *line == text).unwrap();
        assert!(at(format!("Producer: Put {number} into the queue.")) < at(format!("Consumer: Got {number} from the queue.")));
    }
}

#[test]
fn several_producers_and_consumers_share_the_default_run() {
    let (code, stdout, stderr) = run(&["--pause", "none", "--producers", "3", "--consumers", "2", "--count", "40"]);
    assert_eq!((code, &stderr[..]), (0, ""));
    let mut put = numbers(&stdout, "Producer: Put ", " into the queue.");
    let mut got = numbers(&stdout, "Consumer: Got ", " from the queue.");
    put.sort_unstable();
    got.sort_unstable();
    assert_eq!(put.len(), 120);
    assert_eq!(put, got);
    assert_eq!(stdout.matches("Consumer: Received termination signal.").count(), 2);
    assert!(stdout.ends_with("Done!\n"));
}

#[test]
fn the_coordinator_alone_is_enough_as_after_building_only_its_package() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("coordinator");
    std::fs::copy(program("coordinator"), &alone).unwrap();
    let mut command = Command::new(&alone);
    command.args(["--pause", "none"]).env("PATH", Path::new("/nowhere"));
    let (code, stdout, _) = Process::spawn(command, &folder.path().join("q.sock")).finish();
    assert_eq!(code, 0);
    assert!(stdout.ends_with("Done!\n"));
}
