//! Steering a coordinator that runs: pause and resume, halting, the terminal's end.

use common::{Consumer, Control, GetError, Producer, PutError};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use tests::engine::left;
use tests::{Process, Queue};

fn say(queue: &Queue, word: &str) -> (i32, String) {
    let (code, stdout, stderr) = queue.client("coordinator", &[word]).finish();
    assert_eq!(stdout, "");
    (code, stderr)
}

#[test]
fn a_paused_queue_takes_items_until_it_is_full_and_hands_out_none_until_it_goes_on() {
    let queue = Queue::serve(&["--capacity", "4"]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put(b"in hand").unwrap();
    let held = consumer.get().unwrap().unwrap();
    let (code, stderr) = say(&queue, "pause");
    assert!(code == 0 && stderr.contains("paused: nothing is handed out") && stderr.contains("(1 in all)"), "{stderr}");
    let (code, stderr) = say(&queue, "pause");
    assert!(code == 0 && stderr.contains("paused already"), "{stderr}");
    held.ack().unwrap();
    queue.wait_until("what was held to be settled", |status| status.acknowledged == 1);
    (0..4).for_each(|_| producer.put(b"later").unwrap());
    assert!(matches!(producer.put_timeout(b"too much", Duration::from_millis(20)), Err(PutError::Full)));
    assert!(matches!(consumer.try_get(), Err(GetError::Empty)));
    let (_, stdout, _) = queue.client("coordinator", &["status"]).finish();
    assert!(stdout.contains("paused: hands out nothing"), "{stdout}");
    assert!(queue.client("coordinator", &["status", "--json"]).finish().1.contains("\"paused\":true"));
    let (code, stderr) = say(&queue, "resume");
    assert!(code == 0 && stderr.contains("it goes on"), "{stderr}");
    let (code, stderr) = say(&queue, "resume");
    assert!(code == 0 && stderr.contains("it is not paused"), "{stderr}");
    for _ in 0..4 {
        consumer.get().unwrap().unwrap().ack().unwrap();
    }
}

#[test]
fn a_paused_queue_that_is_told_to_stop_goes_on_to_its_end() {
    let mut queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put(b"x").unwrap();
    producer.flush().unwrap();
    assert_eq!(say(&queue, "pause").0, 0);
    let stop = queue.client("coordinator", &["stop"]);
    stop.wait_for_stderr("it was paused; it goes on");
    stop.wait_for_stderr("1 item is not settled, and no consumer is connected");
    let (code, stdout, _) = queue.client("consumer", &[]).finish();
    assert_eq!((code, &stdout[..]), (0, "x\n"));
    assert_eq!((stop.finish().0, queue.coordinator().wait()), (0, 0));
}

#[test]
fn a_paused_queue_with_nothing_left_ends_and_one_that_ends_cannot_be_paused() {
    let queue = Queue::serve(&["--expect-producers", "1"]);
    assert_eq!(say(&queue, "pause").0, 0);
    let late = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let control = Control::connect(&queue.endpoint()).unwrap();
    Producer::<[u8]>::connect(&queue.endpoint()).unwrap().finish().unwrap();
    assert!(late.get().unwrap().is_none());
    let state = control.pause().unwrap();
    assert!(!state.paused && !state.changed);
    let (code, stderr) = say(&queue, "pause");
    assert!(code == 1 && stderr.contains("about to end"), "{stderr}");
    drop((late, control));
    assert_eq!(queue.finish().0, 0);
}

/// A run over these lines whose command fails for `bad…`, and waits for a file `gate` for `slow…`.
fn run(folder: &Path, lines: &str, more: &[&str]) -> Process {
    let input = folder.join("input");
    std::fs::write(&input, lines).unwrap();
    let gate = folder.join("gate").display().to_string();
    let shell = format!("case $1 in bad*) exit 65;; slow*) echo begun >&2; until test -e {gate}; do sleep 0.01; done;; esac; echo $1");
    let input = input.display().to_string();
    let line = [&["--input", &input, "--prefetch", "0"], more, &["--", "sh", "-c", &shell, "sh", "{}"]].concat();
    Process::start("coordinator", &folder.join("q.sock"), &line)
}

#[test]
fn halting_soon_brings_to_its_end_what_runs_and_begins_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let lines = format!("slow\nbad 1\nbad 2\n{}", "good\n".repeat(2000));
    let run = run(folder.path(), &lines, &["--consumers", "2", "--halt", "soon,fail=2"]);
    run.wait_for_stderr("begun");
    run.wait_for_stderr("halted by --halt soon,fail=2: 2 items have gone to the dead letters; waiting for what consumers hold");
    std::fs::write(folder.path().join("gate"), "").unwrap();
    let (code, stdout, stderr) = run.finish();
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.contains("slow\n") && stdout.lines().count() < 100, "{stdout}");
    // How many were read by then nobody knows.
    let place = left(2).replacen("2 ", "", 1);
    assert!(stderr.contains(&place), "{stderr}");
}

#[test]
fn halting_now_ends_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), "slow\nbad\ngood\n", &["--consumers", "2", "--halt", "now,fail=1"]);
    let (code, stdout, stderr) = run.finish();
    assert!(code == 1 && !stdout.contains("slow"), "{stderr}");
    assert!(stderr.contains("halted by --halt now,fail=1: 1 item has gone"), "{stderr}");
}

#[test]
fn a_run_with_a_journal_that_was_halted_goes_on_by_the_same_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (journal, output) = (path("journal"), path("output"));
    let more = ["--consumers", "1", "--journal", &journal, "--output", &output, "--halt", "soon,fail=1"];
    let good = |from: u32| (from..from + 200).map(|n| format!("good {n}\n")).collect::<String>();
    let lines = &format!("{}bad 1\n{}bad 2\n{}", good(0), good(200), good(400));
    for dead in 1..=2 {
        let (code, _, stderr) = run(folder.path(), lines, &more).finish();
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("halted by") && stderr.contains("start again with the same line to go on"), "{dead}: {stderr}");
    }
    let (code, _, stderr) = run(folder.path(), lines, &more).finish();
    assert_eq!(code, 3, "{stderr}");
    assert_eq!(std::fs::read_to_string(output).unwrap(), good(0) + &good(200) + &good(400));
}

#[test]
fn a_signal_ends_the_wait_of_a_run_that_is_halted() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), "slow\nbad\n", &["--consumers", "2", "--halt", "soon,fail=1", "--grace", "10ms"]);
    run.wait_for_stderr("halted by");
    run.signal(Signal::TERM);
    assert_eq!(run.finish().0, 128 + 15);
}

#[test]
fn a_share_of_failures_halts_from_the_third_on_and_never_is_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "bad 1\nbad 2\ngood 1\ngood 2\ngood 3\ngood 4\nbad 3\nslow 5\n";
    let run_it = |halt: &[&str]| run(folder.path(), lines, &[&["--consumers", "1"], halt].concat()).finish();
    let (code, stdout, stderr) = run_it(&["--halt", "now,fail=40%"]);
    assert!(code == 1 && !stdout.contains("slow 5") && stderr.contains("fail=40%: 3 items"), "{stdout} {stderr}");
    std::fs::write(folder.path().join("gate"), "").unwrap();
    assert_eq!(run_it(&["--halt", "now,fail=50%"]).0, 3);
    assert_eq!(run_it(&[]).0, 3);
    let (code, _, stderr) = run_it(&["--halt", "now,success=1"]);
    assert!(code == 2 && stderr.contains("only `fail` can halt a run"), "{stderr}");
}

#[test]
fn serving_is_halted_likewise() {
    let queue = Queue::serve(&["--halt", "soon,fail=1"]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put_all([&b"bad"[..], b"other"]).unwrap();
    consumer.get().unwrap().unwrap().reject("no good").unwrap();
    assert!(consumer.get().unwrap().is_none_or(|other| other.ack().is_ok()));
    drop(consumer);
    let (code, _, stderr, _folder) = queue.finish();
    assert!(code == 1 && stderr.contains("halted by --halt soon,fail=1"), "{stderr}");
}

#[test]
fn the_end_of_its_terminal_ends_a_coordinator_like_a_signal_to_end() {
    let queue = Queue::serve(&[]);
    tests::signal(queue.pid(), Signal::HUP);
    let (code, _, stderr, folder) = queue.finish();
    assert_eq!(code, 128 + 1, "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "neither socket nor lock file is left");
}

#[test]
fn a_coordinator_under_nohup_outlives_its_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("q.sock");
    let coordinator = Process::start_after("trap '' HUP", "coordinator", &socket, &["serve"]);
    coordinator.wait_for_stderr("ready at");
    coordinator.signal(Signal::HUP);
    assert_eq!(Process::start("coordinator", &socket, &["status"]).finish().0, 0, "it serves on");
    coordinator.signal(Signal::TERM);
    assert_eq!(coordinator.finish().0, 128 + 15);
}
