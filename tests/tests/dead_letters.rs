//! Dead letters of a coordinator that runs: looked at, sent again, dropped; and what of that survives its death.

use std::path::Path;
use std::time::Duration;

use common::message::{ItemId, Message, Obstacle, Role};
use common::{Consumer, Control, Producer};
use tests::engine::{Engine, first_item, is_about, may_be_first};
use tests::random::Random;
use tests::raw::Raw;
use tests::{Process, Queue, eventually};

const EVERY: std::ops::Range<ItemId> = ItemId(0)..ItemId(u64::MAX);

/// Puts these items, and rejects each.
fn bury(queue: &Queue, items: &[&str]) {
    let before = queue.status().dead;
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    for item in items {
        producer.put(item.as_bytes()).unwrap();
        consumer.get().unwrap().unwrap().reject("no good").unwrap();
    }
    drop((producer, consumer));
    queue.wait_until("the dead letters", |status| status.dead == before + items.len() as u64);
}

fn dead(queue: &Queue, arguments: &[&str]) -> (i32, String, String) {
    queue.client("coordinator", &[&["dead"], arguments].concat()).finish()
}

#[test]
fn dead_letters_are_listed_sent_again_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal").display().to_string();
    for more in [&[][..], &["--journal", &journal]] {
        let queue = Queue::serve(more);
        let (code, stdout, stderr) = dead(&queue, &["list"]);
        assert_eq!((code, &stdout[..]), (0, ""), "{stderr}");
        assert!(stderr.contains("there are no dead letters"), "{stderr}");
        bury(&queue, &["a", "b", "c"]);
        let (_, stdout, _) = dead(&queue, &["list", "--json"]);
        let ids = Control::connect(&queue.endpoint()).unwrap().dead_letters(EVERY).unwrap().letters;
        let ids: Vec<u64> = ids.iter().map(|letter| letter.id.0).collect();
        assert_eq!((ids.len(), ids[0]), (3, if more.is_empty() { first_item() } else { 0 }));
        let expected = [(ids[0], "a"), (ids[1], "b"), (ids[2], "c")]
            .map(|(id, item)| format!("{{\"id\":{id},\"attempts\":1,\"cause\":\"no good\",\"item\":\"{item}\"}}\n"));
        assert_eq!(stdout, expected.concat());
        let first = format!("dead letter: item {} after 1 attempt: no good: \"a\"\n", ids[0]);
        assert!(dead(&queue, &["list"]).1.starts_with(&first));

        let (code, _, stderr) = dead(&queue, &["requeue", &ids[1].to_string(), "7"]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("1 of 2 dead letters put again") && stderr.contains("no dead letter: 7"), "{stderr}");
        let (code, _, stderr) = dead(&queue, &["drop", &ids[0].to_string()]);
        assert_eq!((code, stderr.contains("1 of 1 dead letter dropped")), (0, true), "{stderr}");
        let (code, _, stderr) = dead(&queue, &["requeue", "--all"]);
        assert_eq!((code, stderr.contains("1 of 1 dead letter put again")), (0, true), "{stderr}");
        let status = queue.status();
        assert_eq!((status.dead, status.dead_removed, status.ready, status.accepted), (0, 3, 2, 5));

        let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
        for item in ["b", "c"] {
            let delivery = consumer.get().unwrap().unwrap();
            assert!(delivery.id().0 > ids[2], "a number of its own, behind all others");
            assert_eq!(delivery.item(), item.as_bytes());
            assert!(may_be_first(delivery.attempt()), "{delivery:?}");
            delivery.ack().unwrap();
        }
        drop(consumer);
        assert_eq!(queue.client("coordinator", &["stop"]).finish().0, 0);
        assert_eq!(queue.finish().0, 0, "no dead letters are left");
    }
}

#[test]
fn without_a_coordinator_there_is_nothing_to_steer() {
    let folder = tempfile::tempdir().unwrap();
    let lines: [&[&str]; 5] = [&["dead", "list"], &["dead", "requeue", "--all"], &["dead", "drop", "3"], &["pause"], &["resume"]];
    for line in lines {
        assert_eq!(Process::start("coordinator", &folder.path().join("q.sock"), line).finish().0, 69, "{line:?}");
    }
    let lines: [&[&str]; 3] = [&["dead", "requeue"], &["dead", "drop", "--all", "3"], &["dead", "drop", "x"]];
    for line in lines {
        assert_eq!(Process::start("coordinator", &folder.path().join("q.sock"), line).finish().0, 2, "{line:?}");
    }
}

#[test]
fn a_full_queue_takes_only_as_many_as_it_has_room_for_and_the_command_says_so() {
    let queue = Queue::serve(&["--capacity", "2"]);
    bury(&queue, &["a", "b", "c"]);
    let third = Control::connect(&queue.endpoint()).unwrap().dead_letters(EVERY).unwrap().letters[2].id;
    let (code, _, stderr) = dead(&queue, &["requeue", "--all"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("2 of 3 dead letters put again: the queue is full"), "{stderr}");
    let status = queue.status();
    assert_eq!((status.ready, status.dead), (2, 1));
    let removal = Control::connect(&queue.endpoint()).unwrap().requeue_dead(EVERY).unwrap();
    assert_eq!((removal.count, removal.next, removal.obstacle), (0, Some(third), Some(Obstacle::Full)));
}

#[test]
fn a_run_whose_dead_letters_were_dealt_with_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("q.sock");
    let flag = folder.path().join("mended");
    let shell = format!("test $1 != bad || test -e {} || exit 65; test $1 != last || sleep 0.01; echo $1", flag.display());
    let mut run = Process::start("coordinator", &socket, &["--input", "-", "--consumers", "1", "--", "sh", "-c", &shell, "sh", "{}"]);
    run.write(b"bad\ngood\n");
    run.wait_for_stdout("good\n");
    eventually("a dead letter", || run.stderr().contains("dead letter: item ").then_some(()));
    std::fs::write(flag, "").unwrap();
    let requeue = Process::start("coordinator", &socket, &["dead", "requeue", &first_item().to_string()]);
    assert_eq!(requeue.finish().0, 0);
    let (code, stdout, stderr) = run.finish();
    assert_eq!((code, &stdout[..]), (0, "good\nbad\n"), "{stderr}");
}

#[test]
fn many_dead_letters_are_listed_and_moved_in_pages_and_memory_keeps_so_many() {
    if !is_about(&[Engine::Memory], "only memory does not keep all of them") {
        return;
    }
    let queue = Queue::serve(&[]);
    let endpoint = queue.endpoint();
    let total = 70_000_u64;
    let consumer = Consumer::<[u8]>::connect(&endpoint).unwrap();
    let producer = Producer::<[u8]>::connect(&endpoint).unwrap();
    let putting = std::thread::spawn(move || {
        (0..total).for_each(|n| producer.put(format!("{n}").as_bytes()).unwrap());
        producer.finish().unwrap();
    });
    (0..total).for_each(|_| consumer.get().unwrap().unwrap().reject("no good").unwrap());
    putting.join().unwrap();
    queue.wait_until("all dead", |status| status.dead == total);
    let control = Control::connect(&endpoint).unwrap();
    let first = control.dead_letters(EVERY).unwrap();
    let unkept = first.unkept;
    assert!(unkept >= total - 65_536 && first.letters.len() == 1024, "{unkept}");
    let (code, stdout, stderr) = dead(&queue, &["list", "--json"]);
    assert_eq!((code, stdout.lines().count() as u64), (0, total - unkept));
    assert!(stderr.contains(&format!("{unkept} more dead letters are not kept")), "{stderr}");
    let (code, _, stderr) = dead(&queue, &["requeue", "--all"]);
    assert!(code == 0 && stderr.contains(&format!("{} of {total} dead letters put again", total - unkept)), "{stderr}");
    let status = queue.status();
    assert_eq!((status.ready, status.dead), (total - unkept, unkept));
    let (code, _, stderr) = dead(&queue, &["drop", "--all"]);
    assert!(code == 0 && stderr.contains(&format!("{unkept} of {unkept} dead letters dropped")), "{stderr}");
    assert_eq!(queue.status().dead, 0);
}

#[test]
fn only_a_control_connection_steers() {
    let queue = Queue::serve(&[]);
    let (from, until) = (ItemId(0), ItemId(9));
    let words = [
        Message::SetPaused { paused: true },
        Message::DeadList { from, until },
        Message::DeadRemove { from, until, fate: common::message::DeadFate::Drop },
    ];
    for role in [Role::Producer, Role::Consumer] {
        for message in &words {
            let mut client = Raw::connect(queue.socket(), role, "");
            client.say(std::slice::from_ref(message));
            let (reason, words) = client.hear_close().unwrap();
            assert_eq!((reason, words.contains(message.name())), (common::message::CloseReason::Protocol, true), "{words}");
        }
    }
    assert!(!queue.status().paused);
}

/// A coordinator with its journal in `folder`.
fn serve(folder: &Path, more: &[&str]) -> Process {
    let journal = folder.join("journal").display().to_string();
    let line = [&["serve", "--journal", &journal], more].concat();
    let coordinator = Process::start("coordinator", &folder.join("q.sock"), &line);
    coordinator.wait_for_stderr("ready at");
    coordinator
}

#[test]
#[ignore = "takes a minute: by hand"]
fn a_million_dead_letters_in_a_journal_are_listed_and_put_again_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = common::Endpoint::at(folder.path().join("q.sock"));
    let more = ["--fsync", "never", "--capacity", "2000000", "--capacity-bytes", "1GiB", "--dead-letters", "/dev/null"];
    let mut coordinator = serve(folder.path(), &more);
    let total = 1_000_000_u64;
    let consumer = Consumer::<[u8]>::connect(&endpoint).unwrap();
    let producer = Producer::<[u8]>::connect(&endpoint).unwrap();
    let putting = std::thread::spawn(move || {
        (0..total).for_each(|n| producer.put(format!("{n:0>100}").as_bytes()).unwrap());
        producer.finish().unwrap();
    });
    (0..total).for_each(|_| consumer.get().unwrap().unwrap().reject("no good").unwrap());
    putting.join().unwrap();
    let all_dead = || (Control::connect(&endpoint).unwrap().status().unwrap().dead == total).then_some(());
    tests::within(Duration::from_secs(300), || "all dead".into(), all_dead);
    drop(consumer);
    coordinator.kill();
    let coordinator = serve(folder.path(), &more);
    let peak_mib = || tests::proc_status_kib(coordinator.pid(), "VmHWM").unwrap() / 1024;
    let at_first = peak_mib();
    let started = std::time::Instant::now();
    let list = Process::start("coordinator", &folder.path().join("q.sock"), &["dead", "list", "--json"]);
    let (code, stdout, _) = list.finish_within(Duration::from_secs(300));
    assert_eq!((code, stdout.lines().count() as u64), (0, total));
    let (listed, listed_peak) = (started.elapsed(), peak_mib());
    let requeue = Process::start("coordinator", &folder.path().join("q.sock"), &["dead", "requeue", "--all"]);
    let (code, _, stderr) = requeue.finish_within(Duration::from_secs(300));
    assert_eq!(code, 0, "{stderr}");
    eprintln!("listed after {listed:.1?}, put again after {:.1?}; peaks {at_first}, {listed_peak}, {} MiB", started.elapsed(), peak_mib());
    // The store's cache, what is near the head and on its way to the journal, and what that costs around it.
    assert!(peak_mib() < 400, "{} MiB", peak_mib());
}

#[test]
fn a_coordinator_that_is_killed_while_letters_are_moved_has_each_once_and_keeps_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = common::Endpoint::at(folder.path().join("q.sock"));
    let mut coordinator = serve(folder.path(), &[]);
    let total = 3_000_u64;
    let producer = Producer::<[u8]>::connect(&endpoint).unwrap();
    let consumer = Consumer::<[u8]>::connect(&endpoint).unwrap();
    (0..total).for_each(|n| producer.put(format!("{n}").as_bytes()).unwrap());
    (0..total).for_each(|_| consumer.get().unwrap().unwrap().reject("no good").unwrap());
    eventually("all dead", || (Control::connect(&endpoint).unwrap().status().unwrap().dead == total).then_some(()));
    drop((producer, consumer));
    let mut random = Random::new(1);
    let (mut moved, mut dropped) = (0, 0);
    for round in 0..12 {
        let control = Control::connect(&endpoint).unwrap();
        let from = ItemId(random.below(total));
        let mover = std::thread::spawn(move || {
            let range = from..ItemId(from.0 + 200);
            if round % 4 == 3 {
                control.drop_dead(range).map(|done| (0, done.count))
            } else {
                control.requeue_dead(range).map(|done| (done.count, 0))
            }
        });
        std::thread::sleep(Duration::from_micros(random.below(4_000)));
        coordinator.kill();
        if let Ok((more_moved, more_dropped)) = mover.join().unwrap() {
            moved += more_moved;
            dropped += more_dropped;
        }
        coordinator = serve(folder.path(), &[]);
        let status = Control::connect(&endpoint).unwrap().status().unwrap();
        assert_eq!(status.dead + status.dead_removed, total, "round {round}");
        assert!(status.ready >= moved && status.dead_removed >= moved + dropped, "what was answered counts: {status:?}");
        // An answer may have been lost with the coordinator, and what it would have said counts, too.
        (moved, dropped) = (status.ready, status.dead_removed - status.ready);
    }
    let control = Control::connect(&endpoint).unwrap();
    let mut seen: Vec<String> = Vec::new();
    let mut range = EVERY;
    loop {
        let page = control.dead_letters(range.clone()).unwrap();
        seen.extend(page.letters.iter().map(|letter| String::from_utf8(letter.item.to_vec()).unwrap()));
        let Some(next) = page.next else { break };
        range.start = next;
    }
    let consumer = Consumer::<[u8]>::connect(&endpoint).unwrap();
    for _ in 0..moved {
        let delivery = consumer.get().unwrap().unwrap();
        seen.push(String::from_utf8(delivery.item().to_vec()).unwrap());
        delivery.ack().unwrap();
    }
    seen.sort();
    let before = seen.len();
    seen.dedup();
    assert_eq!((seen.len(), seen.len() as u64), (before, total - dropped), "each is there once");
    drop(consumer);
    coordinator.kill();
}
