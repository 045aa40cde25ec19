//! Clients that mean no good, or merely come and go: what they can cost is bounded, and nobody else's items suffer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use common::message::{CloseReason, ItemId, ItemRange, Message, Outcome, Role};
use common::{Consumer, Producer, Status};
use tests::engine::{Engine, engine, is_about};
use tests::raw::{Raw, items};
use tests::{Queue, proc_status_kib};

fn returned(ranges: &[ItemRange], outcome: &Outcome) -> Vec<Message> {
    ranges.iter().map(|range| Message::Return { range: *range, outcome: outcome.clone() }).collect()
}

#[test]
fn one_that_demands_without_end_is_refused() {
    let queue = Queue::serve(&[]);
    let mut greedy = Raw::connect(queue.socket(), Role::Consumer, "");
    greedy.say(&[Message::Demand { items: u32::MAX, bytes: u64::MAX }]);
    let (reason, words) = greedy.hear_close().unwrap();
    assert!(reason == CloseReason::Protocol && words.contains("demands more than"), "{words}");
}

#[test]
fn one_that_takes_and_returns_without_reading_does_not_fill_the_coordinators_memory() {
    if !is_about(&[Engine::Memory, Engine::Journal], "which items come of a shared queue only who reads knows") {
        return;
    }
    let queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    for _ in 0..1000 {
        producer.put(&[7; 1500]).unwrap();
        producer.flush().unwrap();
    }
    let before_kib = proc_status_kib(queue.pid(), "VmRSS").unwrap();
    let mut raw = Raw::connect(queue.socket(), Role::Consumer, "");
    let range = ItemRange { first: ItemId(0), count: 1000 };
    let round = [Message::Demand { items: 1000, bytes: 2_000_000 }, Message::Return { range, outcome: Outcome::Unstarted }];
    raw.say(&round.iter().cycle().take(2000).cloned().collect::<Vec<_>>());
    // It is read from only as far as it reads; another gets served, and sees the coordinator's memory after many rounds.
    queue.wait_until("another client's answer", |status| status.accepted == 1000);
    let peak_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    assert!(peak_kib < before_kib + 16 * 1024, "{before_kib} KiB before, {peak_kib} KiB at most");
    drop(raw);
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    (0..1000).for_each(|_| consumer.get().unwrap().unwrap().ack().unwrap());
}

#[test]
fn one_cause_for_many_items_is_kept_once() {
    if !is_about(&[Engine::Memory], "what keeps dead letters keeps each with its cause") {
        return;
    }
    // 64 MiB of causes, were each kept by itself. Writing them takes a debug program seconds.
    let (queue, _producer, mut raw, held) = all_held(&["--dead-letters", "/dev/null"], 16_384);
    let before_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    raw.say(&returned(&held, &Outcome::Rejected { cause: "c".repeat(4096) }));
    queue.wait_until("all dead", |status| status.dead == 16_384);
    let peak_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    assert!(peak_kib - before_kib < 32 * 1024, "{before_kib} KiB before, {peak_kib} KiB at most");
}

/// A queue of so many empty items, all of them held by one client by hand.
fn all_held(arguments: &[&str], items: u32) -> (Queue, Producer<[u8]>, Raw, Vec<ItemRange>) {
    let queue = Queue::serve(arguments);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    (0..items).for_each(|_| producer.put(b"").unwrap());
    producer.flush().unwrap();
    let mut raw = Raw::connect(queue.socket(), Role::Consumer, "");
    raw.say(&[Message::Demand { items, bytes: 1 << 20 }]);
    let held = raw.take(items.into());
    (queue, producer, raw, held)
}

#[test]
fn one_that_acknowledges_twice_is_closed_and_its_item_counts_once() {
    let (queue, _producer, mut raw, held) = all_held(&[], 3);
    let held = items(&held);
    let second = Message::Ack { ranges: vec![ItemRange { first: held[1], count: 1 }] };
    raw.say(&[second.clone(), second]);
    let (reason, words) = raw.hear_close().unwrap();
    let refused = format!("acknowledged items {0} to {0}, not all of which it holds", held[1]);
    assert!(reason == CloseReason::Protocol && words.contains(&refused), "{words}");
    let is_back = |status: &Status| (status.ready, status.held, status.acknowledged, status.dead) == (2, 0, 1, 0);
    queue.wait_until("the others to come back, and the one to count", is_back);
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let ids = [(); 2].map(|()| {
        let delivery = consumer.get().unwrap().unwrap();
        let id = delivery.id();
        delivery.ack().unwrap();
        id
    });
    assert_eq!(ids, [held[0], held[2]]);
}

#[test]
fn all_that_comes_before_garbage_counts_however_much_it_is() {
    let (queue, _producer, mut raw, held) = all_held(&[], 5000);
    let acks = items(&held).into_iter().map(|first| Message::Ack { ranges: vec![ItemRange { first, count: 1 }] });
    raw.send(&[tests::raw::frames(&acks.collect::<Vec<_>>()), vec![0; 4]].concat());
    assert_eq!(raw.hear_close().unwrap().0, CloseReason::Protocol);
    queue.wait_until("all that came before", |status| status.acknowledged == 5000);
}

#[test]
fn what_one_that_reads_nothing_holds_comes_back_when_it_dies() {
    let queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    (0..3000).for_each(|_| producer.put(&[7; 1500]).unwrap());
    producer.flush().unwrap();
    let mut raw = Raw::connect(queue.socket(), Role::Consumer, "");
    // Far more than its socket takes, and more than it may leave unread.
    raw.say(&[Message::Demand { items: 3000, bytes: 64 << 20 }]);
    queue.wait_until("all to be held", |status| status.held == 3000);
    drop(raw);
    queue.wait_until("all to be back", |status| status.ready == 3000);
}

#[test]
fn one_that_reads_late_gets_all_that_its_socket_had_no_room_for() {
    let queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let mut late = Raw::connect(queue.socket(), Role::Consumer, "");
    // More than once: after the first time the coordinator watches it already.
    for number in 1..=3 {
        let item = vec![number; 512 * 1024];
        late.say(&[Message::Demand { items: 1, bytes: 1 << 20 }]);
        producer.put(&item).unwrap();
        let held = queue.wait_until("it to be given the item", |status| status.held == u64::from(number));
        // Whatever was to be written when that was asked has been when it is asked again.
        assert_eq!(queue.status().held, held.held);
        let batch = loop {
            if let Some(batch) = late.hear().unwrap().batch {
                break batch;
            }
        };
        assert!(batch.iter().eq([&item]), "item {number} as it was put");
    }
}

#[test]
fn items_cut_apart_by_every_other_acknowledgement_cost_a_bounded_amount_each() {
    if !is_about(
        &[Engine::Memory, Engine::Journal],
        "of a shared queue no more than some messages' items are here, and no figure says how many are settled",
    ) {
        return;
    }
    let (queue, _producer, mut raw, held) = all_held(&[], 400_000);
    let before_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    let every_other: Vec<ItemRange> = items(&held).into_iter().step_by(2).map(|first| ItemRange { first, count: 1 }).collect();
    raw.say(&every_other.chunks(4096).map(|ranges| Message::Ack { ranges: ranges.into() }).collect::<Vec<_>>());
    queue.wait_until("half of them done", |status| status.acknowledged == 200_000);
    drop(raw);
    queue.wait_until("the others to be back", |status| status.ready == 200_000);
    let peak_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    assert!(peak_kib - before_kib < 200_000 * 200 / 1024, "{before_kib} KiB before, {peak_kib} KiB at most");
}

#[test]
fn dead_letters_that_nobody_reads_cost_a_bounded_amount_each() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let (queue, _producer, mut raw, held) = all_held(&["--dead-letters", pipe.to_str().unwrap()], 200_000);
    let before_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    raw.say(&returned(&held, &Outcome::Rejected { cause: "c".into() }));
    drop(raw);
    let status = queue.wait_until("the consumer's end", |status| status.consumers == 0);
    // One look for both: the pipe may still be filling.
    assert_eq!(status.held, 200_000 - status.dead);
    let peak_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    assert!(peak_kib - before_kib < 200_000 * 500 / 1024, "{before_kib} KiB before, {peak_kib} KiB at most");
}

#[test]
fn names_that_never_put_anything_are_not_kept() {
    if !is_about(&[Engine::Memory, Engine::Journal], "of a shared queue a name is noted with the machine that it is at") {
        return;
    }
    let queue = Queue::serve(&[]);
    let come_and_go = |names: std::ops::Range<u32>| {
        for n in names {
            Raw::connect(queue.socket(), Role::Producer, &format!("{n:0>250}"));
        }
        queue.wait_until("all gone", |status| status.producers == 0);
        proc_status_kib(queue.pid(), "VmRSS").unwrap()
    };
    // The first ones bring in what any client needs: some 2 MiB, once.
    let before_kib = come_and_go(0..2_000);
    let after_kib = come_and_go(2_000..12_000);
    assert!(after_kib < before_kib + 2 * 1024, "{before_kib} KiB before, {after_kib} KiB after");
}

#[test]
fn one_that_joins_without_end_does_not_fill_the_coordinators_memory() {
    let queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put(b"x").unwrap();
    producer.flush().unwrap();
    let before_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    // None of these is answered before the item is done: nothing to read holds it up.
    let mut raw = Raw::connect(queue.socket(), Role::Control, "");
    raw.send(&tests::raw::frames(&vec![Message::Join; 500_000]));
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    consumer.get().unwrap().unwrap().ack().unwrap();
    queue.wait_until("the item to be done", |status| status.acknowledged == 1);
    let peak_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
    assert!(peak_kib < before_kib + 8 * 1024, "{before_kib} KiB before, {peak_kib} KiB at most");
    let (reason, words) = raw.hear_close().unwrap();
    assert!(reason == CloseReason::Limit && words.contains("Join"), "{words}");
}

#[test]
fn consumers_that_come_and_go_in_order_leave_no_item_to_be_done_twice() {
    const ITEMS: u64 = 20_000;
    let queue = Queue::serve(&[]);
    let endpoint = queue.endpoint();
    let done = Mutex::new(BTreeMap::<ItemId, u32>::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            // One at a time, each confirmed: deliveries go out while consumers say goodbye.
            scope.spawn(|| {
                let producer = Producer::<[u8]>::connect(&endpoint).unwrap();
                for _ in 0..ITEMS / 2 {
                    producer.put(b"x").unwrap();
                    producer.flush().unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let consumer = Consumer::<[u8]>::connect_with_prefetch(&endpoint, 64).unwrap();
                    for _ in 0..20 {
                        let Ok(Some(delivery)) = consumer.get_timeout(Duration::from_millis(100)) else { break };
                        let id = delivery.id();
                        delivery.ack().unwrap();
                        *done.lock().unwrap().entry(id).or_default() += 1;
                    }
                    if done.lock().unwrap().len() as u64 == ITEMS {
                        return;
                    }
                }
            });
        }
    });
    assert_eq!(done.into_inner().unwrap().values().filter(|times| **times != 1).count(), 0);
    let status = queue.wait_until("all acknowledged", |status| status.acknowledged == ITEMS);
    // Messages of a shared queue that came when nobody asked any more have gone back, and come a second time.
    assert!(status.dead == 0 && (status.redelivered == 0 || engine() == Engine::Nats), "{status:?}");
}

#[test]
fn results_that_nobody_reads_hold_back_only_those_who_send_some() {
    // Started by hand: the harness would read its output.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("q.sock");
    let mut command = std::process::Command::new(tests::program("coordinator"));
    command.arg("serve").arg("--socket").arg(&socket).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut coordinator = command.spawn().unwrap();
    let endpoint = common::Endpoint::at(&socket);
    let connect = || Producer::<[u8]>::connect(&endpoint);
    let producer = common::program::connect_within(tests::DEADLINE, connect).unwrap();
    (0..3).for_each(|_| producer.put(b"x").unwrap());
    producer.flush().unwrap();
    let chatty = Consumer::<[u8]>::connect_with_prefetch(&endpoint, 0).unwrap();
    chatty.get().unwrap().unwrap().ack_with(&vec![b'r'; 5 << 20]).unwrap();
    let quiet = Consumer::<[u8]>::connect(&endpoint).unwrap();
    quiet.get_timeout(tests::DEADLINE).unwrap().unwrap().ack().unwrap();
    drop(quiet);
    let after = Consumer::<[u8]>::connect(&endpoint).unwrap();
    after.get_timeout(tests::DEADLINE).unwrap().unwrap().ack().unwrap();
    coordinator.kill().unwrap();
    coordinator.wait().unwrap();
}
