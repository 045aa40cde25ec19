//! Processes killed and stopped for real: G1, G2, G4, G6.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::{Consumer, Producer};
use rustix::process::Signal;
use tempfile::TempDir;
use tests::engine::{Engine, engine, tells_of_item};
use tests::{Process, Queue, children_of, eventually, is_alive, name_of, proc_state, proc_status_kib, signal};

fn named(coordinator: u32, name: &str) -> Vec<u32> {
    children_of(coordinator).into_iter().filter(|pid| name_of(*pid) == name).collect()
}

/// Puts these items and returns once they are accepted.
fn put(queue: &Queue, items: &[&str]) {
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    items.iter().for_each(|item| producer.put(item.as_bytes()).unwrap());
    producer.flush().unwrap();
}

fn numbered_file(count: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input");
    let mut lines = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    (0..count).for_each(|n| writeln!(lines, "item {n:08}").unwrap());
    drop(lines);
    (folder, file)
}

#[test]
fn items_of_a_killed_consumer_come_back_at_once_to_the_head_with_their_attempts_raised() {
    let queue = Queue::serve(&[]);
    put(&queue, &["a", "b", "c"]);
    let mut doomed = queue.client("consumer", &["--prefetch", "1", "--", "sh", "-c", "echo begun >&2; exec sleep 1000"]);
    doomed.wait_for_stderr("begun");
    queue.wait_until("two items held", |status| status.held == 2);
    doomed.kill();
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let delivery = consumer.get().unwrap().unwrap();
        seen.push((delivery.item().to_vec(), delivery.attempt(), delivery.id()));
        delivery.ack().unwrap();
    }
    assert!(seen.is_sorted_by_key(|(.., id)| *id), "{seen:?}");
    let seen: Vec<(&[u8], u32)> = seen.iter().map(|(item, attempt, _)| (&item[..], *attempt)).collect();
    // The servers of a shared queue count the deliveries of whole messages, and the last item may lie in the one before.
    let last = if engine() == Engine::Nats { seen[2].1.clamp(1, 2) } else { 1 };
    assert_eq!(seen, [(&b"a"[..], 2), (b"b", 2), (b"c", last)]);
}

#[test]
fn results_are_each_items_exactly_once_while_consumers_are_killed() {
    let (_folder, file) = numbered_file(600);
    let home = tempfile::tempdir().unwrap();
    let arguments = ["--input", file.to_str().unwrap(), "--consumers", "2", "--", "sh", "-c", "echo {}"];
    let coordinator = Process::start("coordinator", &home.path().join("q.sock"), &arguments);
    let mut killed = 0;
    while killed < 12 && coordinator.is_alive() {
        let results = coordinator.stdout().lines().count();
        eventually("another result, or the end", || {
            (coordinator.stdout().lines().count() > results + 10 || !coordinator.is_alive()).then_some(())
        });
        if let Some(victim) = named(coordinator.pid(), "consumer").get(killed % 2) {
            // It may have ended since the look; what counts is that some are hit.
            let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(*victim as i32).unwrap(), Signal::KILL);
            killed += 1;
        }
    }
    assert!(killed >= 3, "only {killed} were killed");
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!(code, 0, "{stderr}");
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, std::fs::read_to_string(&file).unwrap().lines().collect::<Vec<_>>());
}

#[test]
fn a_killed_producer_goes_on_where_it_was() {
    let (_folder, file) = numbered_file(300_000);
    let home = tempfile::tempdir().unwrap();
    // A small queue and one consumer, so that the producer is in the middle of its work when it is hit.
    let arguments = ["--input", file.to_str().unwrap(), "--consumers", "1", "--capacity", "2000"];
    let coordinator = Process::start("coordinator", &home.path().join("q.sock"), &arguments);
    for _ in 0..3 {
        let so_far = coordinator.stdout().len();
        eventually("more results", || (coordinator.stdout().len() > so_far + 100_000).then_some(()));
        named(coordinator.pid(), "producer").into_iter().for_each(|pid| signal(pid, Signal::KILL));
        eventually("another producer", || (!named(coordinator.pid(), "producer").is_empty() || !coordinator.is_alive()).then_some(()));
    }
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("starting another"), "{stderr}");
    assert!(stdout == std::fs::read_to_string(&file).unwrap(), "lost, doubled or out of order");
}

#[test]
fn a_producer_of_stdin_that_is_killed_ends_the_run_with_its_cause_and_loses_nothing_accepted() {
    let home = tempfile::tempdir().unwrap();
    let mut coordinator = Process::start("coordinator", &home.path().join("q.sock"), &["--input", "-"]);
    coordinator.write(b"a\nb\n");
    coordinator.wait_for_stdout("b\n");
    named(coordinator.pid(), "producer").into_iter().for_each(|pid| signal(pid, Signal::KILL));
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, stdout.lines().count()), (1, 2), "{stderr}");
    assert!(stderr.contains("ended by signal 9"), "{stderr}");
}

#[test]
fn a_killed_coordinator_takes_all_its_children_and_their_commands_along_stopped_ones_too() {
    let home = tempfile::tempdir().unwrap();
    let arguments = ["--input", "-", "--consumers", "2", "--", "sh", "-c", "echo $$ >&2; exec sleep 1000"];
    let mut coordinator = Process::start("coordinator", &home.path().join("q.sock"), &arguments);
    coordinator.write(b"a\nb\n");
    let commands: Vec<u32> = eventually("two commands", || {
        let pids: Vec<u32> = coordinator.stderr().lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == 2).then_some(pids)
    });
    let children = children_of(coordinator.pid());
    assert_eq!(children.len(), 3);
    let stopped = named(coordinator.pid(), "consumer")[0];
    signal(stopped, Signal::STOP);
    eventually("a stopped consumer", || (proc_state(stopped) == Some('T')).then_some(()));
    coordinator.kill();
    for pid in children.into_iter().chain(commands) {
        eventually(&format!("the end of {pid} ({})", name_of(pid)), || (!is_alive(pid)).then_some(()));
    }
}

#[test]
fn a_killed_consumers_command_ends_with_all_that_it_has_started_and_the_item_comes_again() {
    let home = tempfile::tempdir().unwrap();
    let script = "sleep 1000 & echo $! $$ >&2; test $PROCQ_ATTEMPT = 2 && kill $! && exit 0; wait";
    let mut coordinator = Process::start(
        "coordinator",
        &home.path().join("q.sock"),
        &["--input", "-", "--consumers", "1", "--max-attempts", "5", "--", "sh", "-c", script],
    );
    coordinator.write(b"a\n");
    let pids: Vec<u32> = eventually("a command", || {
        let said = coordinator.stderr();
        let pids = said.lines().find_map(|line| line.split(' ').map(|pid| pid.parse().ok()).collect::<Option<Vec<u32>>>());
        pids.filter(|pids| pids.len() == 2)
    });
    signal(named(coordinator.pid(), "consumer")[0], Signal::KILL);
    for pid in pids {
        eventually(&format!("the end of {pid}"), || (!is_alive(pid)).then_some(()));
    }
    coordinator.close_stdin();
    let (code, _, stderr) = coordinator.finish();
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn clients_of_a_killed_coordinator_end_with_an_error_that_says_so() {
    let mut queue = Queue::serve(&[]);
    let mut producer = queue.client("producer", &["--input", "-"]);
    producer.write(b"a\n");
    let consumer = queue.client("consumer", &[]);
    consumer.wait_for_stdout("a\n");
    queue.coordinator().kill();
    for client in [producer, consumer] {
        let (code, _, stderr) = client.finish();
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("the coordinator is gone"), "{stderr}");
    }
}

#[test]
fn a_stopped_consumer_keeps_what_it_holds_and_nothing_else() {
    let queue = Queue::serve(&[]);
    let stopped = queue.client("consumer", &["--", "sh", "-c", "echo begun >&2; exec sleep 1000"]);
    put(&queue, &["held"]);
    stopped.wait_for_stderr("begun");
    stopped.signal(Signal::STOP);
    let items: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    put(&queue, &items.iter().map(String::as_str).collect::<Vec<_>>());
    let other = queue.client("consumer", &[]);
    eventually("all items but the held one", || (other.stdout().lines().count() == 10_000).then_some(()));
    // What is printed is acknowledged a moment later.
    queue.wait_until("the held one alone", |status| (status.acknowledged, status.held) == (10_000, 1));
    stopped.signal(Signal::CONT);
}

#[test]
fn a_stopped_producer_does_not_keep_others_from_the_last_place() {
    let queue = Queue::serve(&["--capacity", "1"]);
    let mut stopped = queue.client("producer", &["--input", "-"]);
    stopped.wait_for_stderr("connected");
    queue.wait_until("a producer", |status| status.producers == 1);
    stopped.signal(Signal::STOP);
    put(&queue, &["from another"]);
    stopped.write(b"late\n");
    stopped.signal(Signal::CONT);
    let consumer = queue.client("consumer", &[]);
    consumer.wait_for_stdout("from another\nlate\n");
}

#[test]
fn a_full_queue_holds_the_producer_back_and_its_memory_stays_within_the_bound() {
    let queue = Queue::serve(&["--capacity", "100000", "--capacity-bytes", "4MiB"]);
    // The program itself, which is large where it is not optimized.
    let empty_kib = proc_status_kib(queue.pid(), "VmRSS").unwrap();
    let mut generator = Command::new("sh");
    let producer = tests::program("producer");
    generator.args([
        "-c",
        &format!("yes 'an item of some fifty bytes, more than fit by far' | head -n 400000 | {} --input -", producer.display()),
    ]);
    let producer = Process::spawn(generator, queue.socket());
    let full = queue.wait_until("a producer that waits", |status| status.producers_waiting == 1);
    assert!(full.stored() <= full.capacity_items && full.bytes <= full.capacity_bytes, "{full:?}");
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    for n in 0..400_000 {
        consumer.get().unwrap().unwrap().ack().unwrap();
        if n % 50_000 == 0 {
            let status = queue.status();
            assert!(status.stored() <= status.capacity_items && status.bytes <= status.capacity_bytes, "{status:?}");
        }
    }
    assert_eq!(producer.finish().0, 0);
    let peak_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    assert!(peak_kib - empty_kib < 4 * 1024 + 12 * 1024, "{peak_kib} KiB, {empty_kib} of them before anybody came");
}

#[test]
fn an_item_that_kills_its_consumers_ends_in_the_dead_letters_and_the_others_get_done() {
    let home = tempfile::tempdir().unwrap();
    // The command kills its parent, the consumer: what a native library's crash does to the process around it.
    let shell = "test {} = poison && kill -9 $PPID; echo {} done";
    let arguments = ["--input", "-", "--consumers", "2", "--max-attempts", "3", "--", "sh", "-c", shell];
    let mut coordinator = Process::start("coordinator", &home.path().join("q.sock"), &arguments);
    let items: String = (0..30).map(|n| if n == 7 { "poison\n".into() } else { format!("{n}\n") }).collect();
    coordinator.write(items.as_bytes());
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, stdout.lines().count()), (3, 29), "{stderr}");
    assert!(tells_of_item(&stderr, 7, "after ") && stderr.contains("connection closed during attempt"), "{stderr}");
}

#[test]
fn an_item_that_is_given_many_attempts_may_use_them_all_up_before_anything_else_gets_done() {
    let home = tempfile::tempdir().unwrap();
    let shell = "test {} = poison && kill -9 $PPID; echo {} done";
    let arguments = ["--input", "-", "--consumers", "1", "--max-attempts", "6", "--", "sh", "-c", shell];
    let mut coordinator = Process::start("coordinator", &home.path().join("q.sock"), &arguments);
    coordinator.write(b"poison\na\nb\n");
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, stdout.lines().count()), (3, 2), "{stderr}");
}

#[test]
fn consumers_that_die_without_doing_anything_end_the_run_with_their_cause() {
    let home = tempfile::tempdir().unwrap();
    let arguments = ["--input", "-", "--consumers", "1", "--max-attempts", "1"];
    let mut coordinator = Process::start("coordinator", &home.path().join("q.sock"), &arguments);
    eventually("the end of it", || {
        named(coordinator.pid(), "consumer").into_iter().for_each(|pid| signal(pid, Signal::KILL));
        (!coordinator.is_alive()).then_some(())
    });
    coordinator.close_stdin();
    let (code, _, stderr) = coordinator.finish();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("consumers keep failing") && stderr.contains("signal 9"), "{stderr}");
}

#[test]
fn long_items_are_spread_over_consumers_even_after_tiny_ones() {
    let queue = Queue::serve(&[]);
    let busy = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    // So many tiny ones that the consumer asks for thousands ahead; then it keeps one in hand while all others wait behind it.
    for n in 0..100_000u32 {
        producer.put(&n.to_le_bytes()).unwrap();
    }
    producer.flush().unwrap();
    let mut in_hand = None;
    for n in 0..50_000 {
        let delivery = busy.get().unwrap().unwrap();
        if n < 49_999 { delivery.ack().unwrap() } else { in_hand = Some(delivery) }
    }
    let idle = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    for _ in 0..50_000 {
        idle.get_timeout(Duration::from_secs(30)).unwrap().unwrap().ack().unwrap();
    }
    in_hand.take().unwrap().ack().unwrap();
    assert_eq!(queue.wait_until("all done", |status| status.stored() == 0).redelivered, 0, "given back is not delivered twice");
}
