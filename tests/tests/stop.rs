//! How it ends: Stop for every consumer, signals, `stop`. G5.

use common::message::CloseReason;
use common::{Consumer, Control, Endpoint, Error, Producer};
use rustix::process::Signal;
use tests::engine::left;
use tests::{Process, Queue, eventually};

#[test]
fn stop_reaches_every_consumer_and_one_that_comes_late() {
    let queue = Queue::serve(&["--expect-producers", "1"]);
    let consumers: Vec<Process> = (0..3).map(|_| queue.client("consumer", &[])).collect();
    // It holds the end open until the late one has come.
    let last = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    queue.wait_until("all consumers", |status| status.consumers == 4);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put(b"x").unwrap();
    producer.finish().unwrap();
    let mut outputs = String::new();
    for consumer in consumers {
        let (code, stdout, stderr) = consumer.finish();
        assert_eq!(code, 0, "{stderr}");
        outputs += &stdout;
    }
    assert_eq!(outputs, "x\n");
    let late = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    assert!(late.get().unwrap().is_none());
    assert!(last.get().unwrap().is_none());
    assert!(last.get().unwrap().is_none(), "and again");
    drop((late, last));
    assert_eq!(queue.finish().0, 0);
}

#[test]
fn a_consumer_that_dies_before_stop_does_not_take_the_end_with_it() {
    let queue = Queue::serve(&["--expect-producers", "1"]);
    let mut doomed = queue.client("consumer", &["--", "sh", "-c", "echo begun >&2; exec sleep 1000"]);
    let mut producer = queue.client("producer", &["--input", "-"]);
    producer.write(b"a\n");
    assert_eq!(producer.finish().0, 0);
    doomed.wait_for_stderr("begun");
    doomed.kill();
    let (code, stdout, _) = queue.client("consumer", &[]).finish();
    assert_eq!((code, &stdout[..]), (0, "a\n"));
    assert_eq!(queue.finish().0, 0);
}

/// A run whose consumer is in the middle of an item.
fn run_in_hand(folder: &tempfile::TempDir, grace: &str, shell: &str) -> Process {
    let arguments = ["--input", "-", "--consumers", "1", "--grace", grace, "--", "sh", "-c", shell];
    let socket = folder.path().join("q.sock");
    let mut coordinator = Process::start("coordinator", &socket, &arguments);
    coordinator.write(b"first\nsecond\nthird\n");
    coordinator.wait_for_stderr("begun");
    let control = Control::connect(&Endpoint::at(socket)).expect("a coordinator that answers");
    eventually("all three in the queue", || (control.status().expect("figures").accepted == 3).then_some(()));
    coordinator
}

#[test]
fn the_first_signal_finishes_what_is_in_hand_and_gives_back_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let shell = format!("echo begun >&2; until test -e {}; do sleep 0.01; done; echo {{}} done", gate.display());
    let coordinator = run_in_hand(&folder, "30s", &shell);
    coordinator.signal(Signal::TERM);
    coordinator.wait_for_stderr("stopping; waiting up to 30s");
    std::fs::write(&gate, "").unwrap();
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, &stdout[..]), (128 + 15, "first done\n"), "{stderr}");
    assert!(stderr.contains(&left(2)), "{stderr}");
}

#[test]
fn the_grace_ends_what_does_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = run_in_hand(&folder, "100ms", "echo begun >&2; exec sleep 1000");
    coordinator.signal(Signal::INT);
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, &stdout[..]), (128 + 2, ""), "{stderr}");
    assert!(stderr.contains(&left(3)), "{stderr}");
}

#[test]
fn the_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = run_in_hand(&folder, "1h", "echo begun >&2; exec sleep 1000");
    coordinator.signal(Signal::INT);
    coordinator.wait_for_stderr("stopping; waiting up to 1h");
    coordinator.signal(Signal::TERM);
    assert_eq!(coordinator.finish().0, 128 + 15);
}

#[test]
fn a_consumer_by_hand_finishes_its_item_on_the_first_signal_and_gives_the_rest_back() {
    let queue = Queue::serve(&[]);
    let gate = queue.folder().join("gate");
    let shell = format!("echo begun >&2; until test -e {}; do sleep 0.01; done; echo {{}} done", gate.display());
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put_all([&b"a"[..], b"b"]).unwrap();
    producer.flush().unwrap();
    let consumer = queue.client("consumer", &["--prefetch", "5", "--", "sh", "-c", &shell]);
    consumer.wait_for_stderr("begun");
    queue.wait_until("both held", |status| status.held == 2);
    consumer.signal(Signal::TERM);
    queue.wait_until("one given back", |status| status.held == 1 && status.ready == 1);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(consumer.finish().0, 128 + 15);
    let status = queue.wait_until("one done", |status| status.acknowledged == 1);
    assert_eq!((status.ready, status.held), (1, 0));
}

#[test]
fn an_idle_consumer_ends_on_a_signal() {
    let queue = Queue::serve(&[]);
    let consumer = queue.client("consumer", &[]);
    queue.wait_until("a consumer that waits", |status| status.consumers_waiting == 1);
    consumer.signal(Signal::INT);
    assert_eq!(consumer.finish().0, 128 + 2);
}

#[test]
fn stop_takes_nothing_more_and_ends_once_all_is_settled() {
    let mut queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put(b"in time").unwrap();
    producer.flush().unwrap();
    let stop = queue.client("coordinator", &["stop"]);
    queue.wait_until("no more producers", |status| status.producers == 0);
    let refused = producer.put(b"late").and_then(|()| producer.flush()).unwrap_err();
    assert!(matches!(refused, Error::Closed { reason: CloseReason::Ended, .. }), "{refused}");
    assert!(stop.is_alive(), "it waits for the end");
    let (code, stdout, _) = queue.client("consumer", &[]).finish();
    assert_eq!((code, &stdout[..]), (0, "in time\n"));
    assert_eq!(stop.finish().0, 0);
    assert_eq!(queue.coordinator().wait(), 0);
}

#[test]
fn stop_now_ends_at_once_and_says_what_is_left() {
    let queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put_all([&b"a"[..], b"b"]).unwrap();
    producer.flush().unwrap();
    assert_eq!(queue.client("coordinator", &["stop", "--now"]).finish().0, 0);
    let (code, _, stderr, folder) = queue.finish();
    assert_eq!(code, 0);
    assert!(stderr.contains(&left(2)), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "neither socket nor lock file is left");
}

#[test]
fn a_run_that_is_told_to_stop_before_its_end_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let control = || Control::connect(&Endpoint::at(folder.path().join("q.sock"))).expect("a coordinator that answers");
    let coordinator = run_in_hand(&folder, "10s", "echo begun >&2; exec sleep 1000");
    control().stop(true).unwrap();
    let (code, _, stderr) = coordinator.finish();
    assert!(code == 1 && stderr.contains(&left(3)), "{code}: {stderr}");
    // Its stdin is still open: there might be more.
    let gate = folder.path().join("gate");
    let coordinator = run_in_hand(&folder, "10s", &format!("echo begun >&2; until test -e {}; do sleep 0.01; done", gate.display()));
    control().stop(false).unwrap();
    std::fs::write(&gate, "").unwrap();
    let (code, _, stderr) = coordinator.finish();
    assert!(code == 1 && stderr.contains("coordinator: not all inputs were read to their end"), "{code}: {stderr}");
}

#[test]
fn a_run_that_is_told_to_stop_when_it_is_about_to_end_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let shell = format!("echo begun >&2; until test -e {}; do sleep 0.01; done", gate.display());
    let mut coordinator = run_in_hand(&folder, "10s", &shell);
    coordinator.close_stdin();
    let control = Control::connect(&Endpoint::at(folder.path().join("q.sock"))).unwrap();
    eventually("the end of the input", || (control.status().unwrap().producers_finished == 1).then_some(()));
    control.stop(false).unwrap();
    std::fs::write(&gate, "").unwrap();
    let (code, _, stderr) = coordinator.finish();
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn no_consumer_outlives_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = run_in_hand(&folder, "100ms", "echo begun >&2; exec sleep 1000");
    let children = tests::children_of(coordinator.pid());
    coordinator.signal(Signal::INT);
    coordinator.finish();
    for pid in children {
        eventually("the end of a child", || (!tests::is_alive(pid)).then_some(()));
    }
}

#[test]
fn what_a_command_has_started_ends_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    // The shell waits for its own child: killing the shell alone would leave that behind.
    let coordinator = run_in_hand(&folder, "10ms", "sleep 1000 & echo $! >&2; echo begun >&2; wait");
    let grandchild = eventually("its pid", || coordinator.stderr().lines().find_map(|line| line.parse::<u32>().ok()));
    coordinator.signal(Signal::TERM);
    coordinator.finish();
    eventually("the end of the command's child", || (!tests::is_alive(grandchild)).then_some(()));
}

#[test]
fn a_stopped_child_does_not_keep_a_run_that_is_done_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = Process::start("coordinator", &folder.path().join("q.sock"), &["--input", "-", "--consumers", "2"]);
    coordinator.write(b"a\n");
    coordinator.wait_for_stdout("a\n");
    let consumers: Vec<u32> = tests::children_of(coordinator.pid()).into_iter().filter(|pid| tests::name_of(*pid) == "consumer").collect();
    tests::signal(consumers[0], Signal::STOP);
    let (code, stdout, _) = coordinator.finish();
    assert_eq!((code, &stdout[..]), (0, "a\n"));
    assert!(!tests::is_alive(consumers[0]));
}

#[test]
fn a_stderr_that_takes_nothing_does_not_keep_a_run_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    let coordinator = tests::program("coordinator");
    command.args(["-c", &format!("echo x | {} --input - -- sh -c 'exit 65' 2>/dev/full", coordinator.display())]);
    assert_eq!(Process::spawn(command, &folder.path().join("q.sock")).finish().0, 3);
}

#[test]
fn a_stderr_that_takes_nothing_changes_no_exit_code_wherever_something_is_to_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = tests::program("coordinator").display().to_string();
    // A producer that fails, a consumer that is killed by its item, and a signal while something is held: each has its word to say.
    let cases = [
        ("echo '{' | COORDINATOR --input - --format json", 1),
        ("echo x | COORDINATOR --input - --max-attempts 1 -- sh -c 'kill -9 $PPID'", 3),
        ("echo x | COORDINATOR --input - --grace 1h -- sh -c 'kill -TERM $(cut -d\" \" -f4 /proc/$PPID/stat); sleep 0.1'", 143),
    ];
    for (line, code) in cases {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("{} 2>/dev/full", line.replace("COORDINATOR", &coordinator))]);
        assert_eq!(Process::spawn(command, &folder.path().join("q.sock")).finish().0, code, "{line}");
    }
}

#[test]
fn a_grace_beyond_all_bounds_is_merely_long() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = run_in_hand(&folder, "18446744073709551615s", "echo begun >&2; exec sleep 1000");
    coordinator.signal(Signal::TERM);
    coordinator.wait_for_stderr("stopping; waiting up to");
    coordinator.signal(Signal::TERM);
    assert_eq!(coordinator.finish().0, 128 + 15);
}
