//! `--keep-order`: results come in the order of their items, and what waits for one that takes long is bounded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Consumer, GetError, Producer};
use coordinator::limits::EARLY_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::random::Random;
use tests::{Process, Queue, children_of, eventually, name_of, proc_status_kib};

/// Prints its item after a moment that tells nothing of its place.
const SLEEP: &str = "sleep 0.0$(($1 * 7 % 10)); echo $1";

fn numbers(count: u64) -> String {
    (1..=count).map(|n| format!("{n}\n")).collect()
}

fn numbered_file(count: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, numbers(count)).unwrap();
    (folder, file)
}

fn start(folder: &Path, input: &Path, arguments: &[&str], script: &str) -> Process {
    let fixed = ["--input", input.to_str().unwrap(), "--keep-order", "--consumers", "4"];
    let command = ["--", "sh", "-c", script, "sh", "{}"];
    Process::start("coordinator", &folder.join("q.sock"), &[&fixed, arguments, &command].concat())
}

fn kill_one_consumer(coordinator: u32, random: &mut Random) {
    let consumers: Vec<u32> = children_of(coordinator).into_iter().filter(|pid| name_of(*pid) == "consumer").collect();
    if !consumers.is_empty() {
        // It may have ended since the look.
        let _ = kill_process(Pid::from_raw(random.pick(&consumers) as i32).unwrap(), Signal::KILL);
    }
}

#[test]
fn results_come_in_the_order_of_the_input_however_long_each_takes() {
    let (folder, input) = numbered_file(100);
    let (code, stdout, stderr) = start(folder.path(), &input, &[], SLEEP).finish();
    assert_eq!((code, stdout), (0, numbers(100)), "{stderr}");
}

#[test]
fn items_themselves_come_in_order_from_many_consumers() {
    let (folder, input) = numbered_file(200_000);
    let arguments = ["--input", input.to_str().unwrap(), "--keep-order", "--consumers", "4"];
    let (code, stdout, stderr) = Process::start("coordinator", &folder.path().join("q.sock"), &arguments).finish();
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout == numbers(200_000), "lost, doubled or out of order");
}

#[test]
fn those_that_fail_at_first_keep_their_place_and_dead_letters_leave_no_gap() {
    let (folder, input) = numbered_file(60);
    let script = "[ $(($1 % 7)) = 0 ] && exit 65; [ $(($1 % 5))$PROCQ_ATTEMPT = 01 ] && exit 1; echo $1";
    let letters = folder.path().join("dead.jsonl");
    let arguments = ["--retry-delay", "50ms..50ms", "--dead-letters", letters.to_str().unwrap()];
    let (code, stdout, stderr) = start(folder.path(), &input, &arguments, script).finish();
    let expected: String = (1..=60).filter(|n| n % 7 > 0).map(|n| format!("{n}\n")).collect();
    assert_eq!((code, stdout), (3, expected), "{stderr}");
    assert_eq!(std::fs::read_to_string(letters).unwrap().lines().count(), 8);
}

#[test]
fn results_are_in_order_and_once_while_consumers_are_killed() {
    let (folder, input) = numbered_file(300);
    let run = start(folder.path(), &input, &["--max-attempts", "50", "--retry-delay", "10ms..10ms"], SLEEP);
    let mut random = Random::new(1);
    for kill in 1..=10 {
        eventually("more results, or the end", || (run.stdout().lines().count() > 15 * kill || !run.is_alive()).then_some(()));
        kill_one_consumer(run.pid(), &mut random);
    }
    let (code, stdout, stderr) = run.finish();
    assert_eq!((code, stdout), (0, numbers(300)), "{stderr}");
    assert!(stderr.contains("starting another"), "{stderr}");
}

#[test]
fn with_a_journal_the_output_is_in_order_and_once_however_often_the_coordinator_dies() {
    let (folder, input) = numbered_file(200);
    let (journal, output) = (folder.path().join("journal"), folder.path().join("output"));
    let arguments = ["--journal", journal.to_str().unwrap(), "--output", output.to_str().unwrap(), "--retry-delay", "10ms..10ms"];
    let script = format!("[ $(($1 % 9))$PROCQ_ATTEMPT = 01 ] && exit 1; {SLEEP}");
    let lines = || std::fs::read_to_string(&output).unwrap_or_default().lines().count();
    let mut random = Random::new(2);
    for kill in 1..=6 {
        let mut run = start(folder.path(), &input, &arguments, &script);
        eventually("more results", || (lines() > 25 * kill).then_some(()));
        kill_one_consumer(run.pid(), &mut random);
        run.kill();
        let so_far = std::fs::read_to_string(&output).unwrap();
        assert!(numbers(200).starts_with(&so_far), "in order at any time: {so_far}");
    }
    let (code, _, stderr) = start(folder.path(), &input, &arguments, &script).finish();
    assert_eq!((code, std::fs::read_to_string(&output).unwrap()), (0, numbers(200)), "{stderr}");
}

#[test]
fn what_waits_for_a_straggler_is_bounded_and_nothing_is_stuck_behind_it() {
    const RESULT_BYTES: usize = 100_000;
    let output = tempfile::NamedTempFile::new().unwrap();
    let queue = Queue::serve(&["--keep-order", "--output", output.path().to_str().unwrap()]);
    let producer = Producer::<u32>::connect(&queue.endpoint()).unwrap();
    (0..3000).for_each(|n| producer.put(&n).unwrap());
    producer.finish().unwrap();
    let straggler = Consumer::<u32>::connect_with_prefetch(&queue.endpoint(), 0).unwrap();
    let first = straggler.get().unwrap().unwrap();
    assert_eq!(first.id().0, 0);
    let consumer = Consumer::<u32>::connect_with_prefetch(&queue.endpoint(), 0).unwrap();
    let mut done = 0u64;
    let mut work_off = |until_empty: Duration| loop {
        match consumer.get_timeout(until_empty) {
            Ok(Some(delivery)) => {
                let mut result = format!("{:07}", delivery.item()).into_bytes();
                result.resize(RESULT_BYTES - 1, b'.');
                result.push(b'\n');
                delivery.ack_with(&result).unwrap();
                done += 1;
            }
            Err(GetError::Empty) => return done,
            other => panic!("{other:?}"),
        }
    };
    let waiting = work_off(Duration::from_secs(1));
    let bound = EARLY_BYTES_MAX / RESULT_BYTES as u64;
    assert!((bound - 20..=bound + 2).contains(&waiting), "{waiting} results wait; {bound} may");
    let status = queue.status();
    assert_eq!((status.held, status.ready, status.acknowledged), (waiting + 1, 3000 - waiting - 1, 0));
    assert_eq!(std::fs::metadata(output.path()).unwrap().len(), 0);
    let peak_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    eprintln!("{waiting} results of {RESULT_BYTES} bytes wait: {peak_kib} KiB at most");
    assert!(peak_kib < (EARLY_BYTES_MAX / 1024) * 3 / 2, "{peak_kib} KiB");
    let mut result = vec![b'.'; RESULT_BYTES - 1];
    result[..7].copy_from_slice(b"0000000");
    result.push(b'\n');
    first.ack_with(&result).unwrap();
    let all = work_off(Duration::from_secs(2));
    assert_eq!(all, 2999);
    queue.wait_until("all written", |status| status.acknowledged == 3000);
    let written = std::fs::read(output.path()).unwrap();
    let order = written.chunks(RESULT_BYTES).map(|line| String::from_utf8_lossy(&line[..7]).parse::<u32>().unwrap());
    assert!(order.eq(0..3000u32), "lost, doubled or out of order");
}
