//! `--item-timeout`: attempts that take too long are ended, or taken back from whoever does not end them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use common::batch::Batch;
use common::message::{ItemId, ItemRange, Message, Outcome, Role};
use common::{Consumer, Delivery, Error, Producer};
use rustix::process::Signal;
use tests::engine::{first_item, tells_of_item};
use tests::raw::{Raw, frames, items, with_body};
use tests::{Process, Queue, is_alive};

const SOON: [&str; 4] = ["--item-timeout", "300ms", "--retry-delay", "10ms..10ms"];

fn put(queue: &Queue, items: &[&str]) {
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    items.iter().for_each(|item| producer.put(item.as_bytes()).unwrap());
    producer.flush().unwrap();
}

fn get(consumer: &Consumer<[u8]>) -> Delivery<'_, [u8]> {
    consumer.get_timeout(tests::DEADLINE).expect("an item").expect("no Stop")
}

/// Another consumer, who has done `a` and `b`, each in its second attempt.
fn another_gets_both(queue: &Queue) -> Consumer<[u8]> {
    let other = Consumer::<[u8]>::connect_with_prefetch(&queue.endpoint(), 0).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let delivery = get(&other);
        seen.push((delivery.item().to_vec(), delivery.attempt()));
        delivery.ack().unwrap();
    }
    seen.sort();
    assert_eq!(seen, [(b"a".to_vec(), 2), (b"b".to_vec(), 2)]);
    other
}

fn is_expired(settled: Result<(), Error>, id: ItemId) -> bool {
    matches!(settled, Err(Error::Expired { id: named, item_timeout }) if named == id && item_timeout == Duration::from_millis(300))
}

/// Runs a command for one item, twice at most: exit code, dead letters and stderr.
fn run_one(folder: &Path, script: &str) -> (i32, String, String) {
    let letters = folder.join("dead.jsonl");
    let arguments = ["--input", "-", "--consumers", "1", "--max-attempts", "2", "--dead-letters", letters.to_str().unwrap()];
    let command = ["--", "sh", "-c", script, folder.to_str().unwrap()];
    let mut run = Process::start("coordinator", &folder.join("q.sock"), &[&arguments[..], &SOON, &command].concat());
    run.write(b"item\n");
    let (code, stdout, stderr) = run.finish();
    assert_eq!(stdout, "", "{stderr}");
    (code, std::fs::read_to_string(letters).unwrap(), stderr)
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_that_it_has_started_and_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let (code, letters, stderr) = run_one(folder.path(), "echo $$ >>$0/pids; sleep 1000 & echo $! >>$0/pids; echo result; wait");
    assert_eq!(code, 3, "{stderr}");
    assert!(letters.contains(r#""attempts":2,"cause":"sh: took longer than 300ms","item":"item""#), "{letters}");
    let pids = std::fs::read_to_string(folder.path().join("pids")).unwrap();
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4, "two attempts of two processes");
    assert_eq!(pids.iter().find(|pid| is_alive(**pid)), None);
}

#[test]
fn a_command_has_a_moment_to_clear_up_and_is_killed_if_it_takes_no_notice() {
    let folder = tempfile::tempdir().unwrap();
    let (_, letters, _) = run_one(folder.path(), "trap 'echo cleared >>$0/words; exit 0' TERM; sleep 1000 & wait");
    assert_eq!(std::fs::read_to_string(folder.path().join("words")).unwrap(), "cleared\ncleared\n");
    assert!(letters.contains("sh: took longer than 300ms"), "exit status 0 comes too late: {letters}");
    let stubborn = tempfile::tempdir().unwrap();
    let (code, letters, _) = run_one(stubborn.path(), "trap '' TERM; echo $$ >>$0/pids; while :; do sleep 1000; done");
    assert_eq!((code, letters.lines().count()), (3, 1));
    let pids = std::fs::read_to_string(stubborn.path().join("pids")).unwrap();
    assert!(pids.lines().all(|pid| !is_alive(pid.parse().unwrap())), "{pids}");
}

/// Runs a worker over these lines, one consumer and two attempts at most: exit code, stdout, dead letters, job log and stderr.
fn run_worker(folder: &Path, script: &str, lines: &str) -> (i32, String, String, Vec<serde_json::Value>, String) {
    let [letters, joblog] = ["dead.jsonl", "jobs.jsonl"].map(|name| folder.join(name));
    let options = ["--input", "-", "--worker", "--consumers", "1", "--max-attempts", "2"];
    let files = ["--dead-letters", letters.to_str().unwrap(), "--joblog", joblog.to_str().unwrap()];
    let command = ["--", "sh", "-c", script, folder.to_str().unwrap()];
    let mut run = Process::start("coordinator", &folder.join("q.sock"), &[&options[..], &files, &SOON, &command].concat());
    run.write(lines.as_bytes());
    let (code, stdout, stderr) = run.finish();
    let attempts = std::fs::read_to_string(joblog).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (code, stdout, std::fs::read_to_string(letters).unwrap(), attempts, stderr)
}

#[test]
fn a_worker_that_takes_too_long_is_ended_with_all_that_it_has_started_and_another_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    // What it has started takes no notice of TERM, but is killed when the worker has ended.
    let slow = "echo $$ >>$0/pids; sh -c \"trap '' TERM; while :; do sleep 0.1; done\" & echo $! >>$0/pids; wait";
    let script = format!("while read -r item; do case $item in slow) {slow};; esac; echo did $item; done");
    let (code, stdout, letters, attempts, stderr) = run_worker(folder.path(), &script, "a\nslow\nb\nc\n");
    assert_eq!((code, &stdout[..]), (3, "did a\ndid b\ndid c\n"), "{stderr}");
    assert_eq!(letters.lines().count(), 1);
    assert!(letters.contains(r#""attempts":2,"cause":"sh: took longer than 300ms","item":"slow""#), "{letters}");
    assert!(stderr.contains(": took longer than 300ms; starting another"), "{stderr}");
    let pids = std::fs::read_to_string(folder.path().join("pids")).unwrap();
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4, "two attempts of two processes");
    tests::eventually("all have ended", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
    // Numbers grow in the order of the input, whatever they are.
    let ids: BTreeSet<u64> = attempts.iter().map(|attempt| attempt["id"].as_u64().unwrap()).collect();
    let ids: Vec<u64> = ids.into_iter().collect();
    let of = |line: usize| {
        let id = ids[line];
        attempts.iter().filter(move |attempt| attempt["id"] == id)
    };
    for (index, attempt) in of(1).enumerate() {
        assert_eq!((&attempt["outcome"], &attempt["cause"]), (&"failed".into(), &"sh: took longer than 300ms".into()), "{attempt}");
        assert_eq!((&attempt["attempt"], &attempt["pid"]), (&(index + 1).into(), &pids[2 * index].into()), "{attempt}");
        assert!(attempt["duration"].as_f64().unwrap() >= 0.3, "{attempt}");
    }
    assert_eq!(of(1).count(), 2);
    // Those behind it were not begun.
    for line in [0, 2, 3] {
        let all: Vec<_> = of(line).map(|attempt| (attempt["outcome"].as_str().unwrap(), attempt["attempt"].as_u64().unwrap())).collect();
        assert_eq!(all, [("done", 1)], "line {line}");
    }
}

#[test]
fn a_worker_has_a_moment_to_clear_up_in_which_an_answer_comes_too_late_and_is_killed_if_it_takes_no_notice() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'echo late; echo cleared >>$0/words; exit 0' TERM; read -r item || exit; sleep 1000 & wait";
    let (code, stdout, letters, ..) = run_worker(folder.path(), script, "item\n");
    assert_eq!((code, &stdout[..]), (3, ""));
    assert_eq!(std::fs::read_to_string(folder.path().join("words")).unwrap(), "cleared\ncleared\n");
    assert!(letters.contains("sh: took longer than 300ms"), "{letters}");
    let stubborn = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; echo $$ >>$0/pids; read -r item || exit; while :; do sleep 1000; done";
    let (code, _, letters, attempts, stderr) = run_worker(stubborn.path(), script, "item\n");
    assert_eq!((code, letters.lines().count(), attempts.len()), (3, 1, 2));
    assert!(stderr.contains("took longer than 300ms, its start included; starting another"), "{stderr}");
    let pids = std::fs::read_to_string(stubborn.path().join("pids")).unwrap();
    assert!(pids.lines().all(|pid| !is_alive(pid.parse().unwrap())), "{pids}");
}

#[test]
fn items_that_take_too_long_one_after_the_other_are_not_taken_for_a_broken_worker() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..7).map(|n| format!("slow {n}\n")).collect();
    let (code, _, letters, attempts, stderr) = run_worker(folder.path(), "read -r item || exit; sleep 1000", &lines);
    assert_eq!((code, letters.lines().count(), attempts.len()), (3, 7, 14), "{stderr}");
    assert!(!stderr.contains("this was the last"), "{stderr}");
}

#[test]
fn what_a_stopped_consumer_has_for_its_worker_goes_to_others_and_it_goes_on_once_it_is_continued() {
    let queue = Queue::serve(&SOON);
    put(&queue, &["a", "b"]);
    let script = r#"while read -r item; do echo begun "$item" >&2; [ "$item" = a ] && sleep 1000; echo; done"#;
    let consumer = queue.client("consumer", &["--prefetch", "1", "--worker", "--", "sh", "-c", script]);
    consumer.wait_for_stderr("begun a");
    queue.wait_until("two items held", |status| status.held == 2);
    consumer.signal(Signal::STOP);
    drop(another_gets_both(&queue));
    put(&queue, &["c"]);
    consumer.signal(Signal::CONT);
    consumer.wait_for_stderr("begun c");
    let status = queue.wait_until("all settled", |status| status.acknowledged == 3);
    assert_eq!((status.dead, status.consumers), (0, 1));
    assert!(!consumer.stderr().contains("begun b"), "{}", consumer.stderr());
    assert!(consumer.is_alive());
}

#[test]
fn a_consumer_that_was_started_by_hand_knows_the_timeout_from_the_coordinator() {
    let queue = Queue::serve(&[&SOON[..], &["--max-attempts", "1"]].concat());
    put(&queue, &["slow", "quick"]);
    let script = r#"[ "$0" = quick ] || sleep 1000; echo done "$0" >&2"#;
    let consumer = queue.client("consumer", &["--", "sh", "-c", script, "{}"]);
    consumer.wait_for_stderr("done quick");
    queue.wait_until("both settled", |status| status.dead == 1 && status.acknowledged == 1);
    assert!(consumer.is_alive());
}

#[test]
fn what_a_stopped_consumer_holds_goes_to_others_and_it_goes_on_once_it_is_continued() {
    let queue = Queue::serve(&SOON);
    put(&queue, &["a", "b"]);
    let script = r#"[ "$0$PROCQ_ATTEMPT" = a1 ] && echo begun >&2 && sleep 1000; echo done "$0" >&2"#;
    let consumer = queue.client("consumer", &["--prefetch", "1", "--", "sh", "-c", script, "{}"]);
    consumer.wait_for_stderr("begun");
    queue.wait_until("two items held", |status| status.held == 2);
    consumer.signal(Signal::STOP);
    let _other = another_gets_both(&queue);
    put(&queue, &["c"]);
    consumer.signal(Signal::CONT);
    consumer.wait_for_stderr("done c");
    let status = queue.wait_until("all settled", |status| status.acknowledged == 3);
    assert_eq!((status.dead, status.consumers), (0, 2));
    assert!(!consumer.stderr().contains("done a"), "{}", consumer.stderr());
}

#[test]
fn a_late_acknowledgement_is_refused_by_name_and_the_connection_is_as_good_as_before() {
    let queue = Queue::serve(&SOON);
    put(&queue, &["a", "b", "c", "d", "e"]);
    let slow = Consumer::<[u8]>::connect_with_prefetch(&queue.endpoint(), 0).unwrap();
    assert_eq!(slow.item_timeout(), Some(Duration::from_millis(300)));
    let held: Vec<Delivery<'_, [u8]>> = (0..4).map(|_| get(&slow)).collect();
    let other = Consumer::<[u8]>::connect_with_prefetch(&queue.endpoint(), 0).unwrap();
    get(&other).ack().unwrap();
    (0..4).for_each(|_| get(&other).ack().unwrap());
    queue.wait_until("all settled", |status| status.acknowledged == 5);
    let mut held = held.into_iter();
    let mut next = || held.next().unwrap();
    let (first, second, third) = (next(), next(), next());
    let ids = [first.id(), second.id(), third.id()];
    assert!(is_expired(first.ack(), ids[0]) && is_expired(second.ack_with(b"result"), ids[1]) && is_expired(third.fail("late"), ids[2]));
    let last = next();
    assert!(!last.is_held());
    assert!(is_expired(last.extend(Duration::from_secs(60)), last.id()));
    let words = last.release().unwrap_err().to_string();
    assert!(tells_of_item(&words, 3, "was taken back") && words.contains("300ms"), "{words}");
    put(&queue, &["f"]);
    let delivery = get(&slow);
    assert_eq!((delivery.item(), delivery.attempt()), (&b"f"[..], 1));
    delivery.ack().unwrap();
    queue.wait_until("the last", |status| status.acknowledged == 6 && status.dead == 0);
}

#[test]
fn who_asks_for_more_time_has_it() {
    let queue = Queue::serve(&SOON);
    put(&queue, &["a"]);
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let delivery = get(&consumer);
    let from = Instant::now();
    while from.elapsed() < Duration::from_millis(300) + 2 * coordinator::limits::LEASE_GRACE {
        delivery.extend(Duration::from_millis(200)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    delivery.ack().unwrap();
    let status = queue.wait_until("settled", |status| status.stored() == 0);
    assert_eq!((status.acknowledged, status.redelivered), (1, 0));
    // Where nothing is limited, nothing needs to be asked.
    let queue = Queue::serve(&[]);
    put(&queue, &["a"]);
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    assert_eq!(consumer.item_timeout(), None);
    get(&consumer).extend(Duration::from_secs(1)).unwrap();
}

#[test]
fn one_that_never_answers_gets_nothing_more_and_holds_up_nobody() {
    let queue = Queue::serve(&SOON);
    // One by one, so that the numbers are known on every engine.
    ["a", "b", "c"].iter().for_each(|item| put(&queue, &[item]));
    let item = |nth: u64| ItemId((first_item().max(1)) * nth + first_item());
    let mut raw = Raw::connect(queue.socket(), Role::Consumer, "");
    raw.say(&[Message::Demand { items: 2, bytes: 1000 }]);
    let mut held = 0;
    while held < 2 {
        let Message::Deliver { batch, .. } = raw.hear().unwrap().message else { panic!("no items") };
        held += batch.count;
    }
    raw.say(&[Message::Begin { id: item(0) }, Message::Demand { items: 9, bytes: 1000 }]);
    let Message::Deliver { first, .. } = raw.hear().unwrap().message else { panic!("nothing") };
    assert_eq!(first, item(2));
    let Message::Revoke { ranges } = raw.hear().unwrap().message else { panic!("nothing is taken back") };
    let ids: Vec<u64> = ranges.iter().flat_map(|range| range.first.0..range.first.0 + u64::from(range.count)).collect();
    assert_eq!(ids, [0, 1, 2].map(|nth| item(nth).0));
    // What it says of them is passed over.
    let all = [0, 1, 2].map(|nth| ItemRange { first: item(nth), count: 1 }).to_vec();
    raw.say(&[Message::Ack { ranges: all }, Message::StatusRequest]);
    let Message::Status(status) = raw.hear().unwrap().message else { panic!("it gets something") };
    assert_eq!((status.acknowledged, status.consumers, status.consumers_waiting), (0, 1, 0));
    queue.wait_until("all ready", |status| status.ready == 3);
    raw.say(&[Message::Revoked]);
    let Message::Deliver { first, attempt: 2, .. } = raw.hear().unwrap().message else { panic!("no second attempt") };
    assert_eq!(first, item(0));
    raw.say(&[Message::Ack { ranges: vec![ItemRange { first: item(0), count: 1 }] }]);
    queue.wait_until("one settled", |status| status.acknowledged == 1);
}

#[test]
fn one_that_begins_nothing_does_not_keep_what_it_holds() {
    let queue = Queue::serve(&SOON);
    put(&queue, &["a", "b"]);
    let mut raw = Raw::connect(queue.socket(), Role::Consumer, "");
    raw.say(&[Message::Demand { items: 2, bytes: 1000 }]);
    queue.wait_until("both held", |status| status.held == 2);
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    (0..2).for_each(|_| get(&consumer).ack().unwrap());
    queue.wait_until("both settled, neither as failed", |status| status.acknowledged == 2 && status.dead == 0);
}

#[test]
fn what_a_consumer_has_said_in_time_counts_though_results_that_nobody_reads_keep_it_from_being_heard() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let queue = Queue::serve(&["--item-timeout", "100ms", "--dead-letters", pipe.to_str().unwrap()]);
    put(&queue, &["bad"; 2048]);
    let mut rejecting = Raw::connect(queue.socket(), Role::Consumer, "");
    rejecting.say(&[Message::Demand { items: 2048, bytes: 1 << 20 }]);
    let reject = |range| Message::Return { range, outcome: Outcome::Rejected { cause: "c".repeat(4096) } };
    let rejected: Vec<Message> = rejecting.take(2048).into_iter().map(reject).collect();
    rejecting.say(&rejected);
    drop(rejecting);
    queue.wait_until("all on their way into the pipe", |status| status.consumers == 0);
    put(&queue, &["one", "two", "three"]);
    let mut timely = Raw::connect(queue.socket(), Role::Consumer, "");
    timely.say(&[Message::Demand { items: 2, bytes: 1 << 20 }]);
    queue.wait_until("two more held", |status| status.held + status.dead == 2050);
    let held = items(&timely.take(2));
    let result = |first| with_body(&Message::Result { first, batch: Batch::one("done".into()).header() }, b"done");
    // In one piece, for one turn: who has given a result is not listened to in the next.
    let begun = frames(&[Message::Begin { id: held[1] }]);
    timely.send(&[begun, result(held[0]), frames(&[Message::StatusRequest])].concat());
    while !matches!(timely.hear().unwrap().message, Message::Status(_)) {}
    timely.send(&result(held[1]));
    let mut late = Raw::connect(queue.socket(), Role::Consumer, "");
    late.say(&[Message::Demand { items: 1, bytes: 1 << 20 }]);
    let id = items(&late.take(1))[0];
    late.say(&[Message::Begin { id }]);
    // Its time was over after the other's.
    while !matches!(late.hear().unwrap().message, Message::Revoke { .. }) {}
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let status = queue.wait_until("the results written", |status| status.held == 0 && status.dead == 2048);
    assert_eq!((status.acknowledged, status.redelivered), (2, 0));
}
