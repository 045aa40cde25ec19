//! Queues that many machines share, as people use them: real coordinators, producers, consumers, and real NATS servers.

mod access;
mod faults;
mod keys;
mod machine;
mod refusals;

use std::path::Path;

use common::{Consumer, Producer};
use machine::{ECHO, Machine, Place, account};
use tests::nats::NatsServer;
use tests::{Process, eventually};

macro_rules! needs_server {
    () => {
        if !tests::nats::is_there(module_path!()) {
            return;
        }
    };
}
pub(crate) use needs_server;

#[test]
fn several_machines_with_inputs_and_one_without_do_all_of_it_once_and_end_together() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let inputs = [place.input("a", 3000), place.input("b", 2000)];
    let machines = [place.run("a", Some(&inputs[0]), &ECHO), place.run("b", Some(&inputs[1]), &ECHO), place.run("c", None, &ECHO)];
    let results = machines.map(|machine| machine.results());
    assert_eq!(account(&inputs, &results), 0);
}

#[test]
fn an_input_that_was_put_by_an_earlier_run_is_not_put_again_and_that_is_said() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let input = place.input("a", 30);
    let run = || {
        let (code, stdout, stderr) = place.run("one", Some(&input), &["--", "echo", "{}"]).process.finish();
        (code, stdout.lines().count(), stderr)
    };
    let (code, results, stderr) = run();
    assert_eq!((code, results, stderr.contains("put already")), (0, 30, false), "{stderr}");
    let (code, results, stderr) = run();
    let says = format!("producer: 30 items of {} are put already; going on behind them (another queue begins anew)", input.display());
    assert_eq!((code, results, stderr.contains(&says)), (0, 0, true), "{stderr}");
}

#[test]
fn a_full_queue_holds_producers_back_on_all_machines() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let inputs = [place.input("a", 600), place.input("b", 600)];
    let [a, b] = ["a", "b"].map(|name| place.serve(name, &["--capacity", "20", "--expect-producers", "1"]));
    let producers =
        [a.client("producer", &["--input", inputs[0].to_str().unwrap()]), b.client("producer", &["--input", inputs[1].to_str().unwrap()])];
    for machine in [&a, &b] {
        let status = machine.wait_until("a producer that waits", |status| status.producers_waiting == 1 && status.is_full());
        // Each machine may be over the bound by one message.
        assert!(status.accepted < 3 * 20, "{status:?}");
    }
    let consumers = [a.client("consumer", &[]), b.client("consumer", &[])];
    producers.into_iter().for_each(|producer| assert_eq!(producer.finish().0, 0));
    let results = consumers.map(|consumer| consumer.finish().1);
    assert_eq!(account(&inputs, &results), 0);
    assert_eq!((a.results(), b.results()), (String::new(), String::new()));
}

#[test]
fn a_producer_that_moves_to_another_machine_goes_on_where_it_was() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let [a, b] = ["a", "b"].map(|name| place.serve(name, &["--expect-producers", "0"]));
    let input = place.input("x", 1000);
    let lines = std::fs::read_to_string(&input).unwrap();
    let mut position = 0;
    for (count, machine) in [(300, &a), (600, &b), (700, &a)] {
        let part: String = lines.lines().take(count).map(|line| format!("{line}\n")).collect();
        let before = machine.wait_until("figures", |_| true).accepted;
        let mut producer = machine.client("producer", &["--name", "x", "--input", "-"]);
        producer.write(part.as_bytes());
        let rest = (count - position) as u64;
        machine.wait_until("its part", |status| status.accepted == before + rest);
        position = count;
        // It is still there when the next comes under its name, and is told, or dies.
        producer.kill();
    }
    let producer = b.client("producer", &["--name", "x", "--input", input.to_str().unwrap()]);
    let (code, _, stderr) = producer.finish();
    assert_eq!(code, 0, "{stderr}");
    // The same is there once, and in order.
    let consumer = Consumer::<[u8]>::connect(&a.endpoint()).unwrap();
    let came: Vec<String> = (0..1000)
        .map(|_| {
            let delivery = consumer.get().unwrap().unwrap();
            let item = String::from_utf8_lossy(delivery.item()).into_owned();
            delivery.ack().unwrap();
            item
        })
        .collect();
    assert_eq!(came, lines.lines().collect::<Vec<_>>());
    assert!(consumer.get().unwrap().is_none(), "every producer has finished");
}

#[test]
fn who_comes_under_the_name_of_a_producer_elsewhere_takes_its_place() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let [a, b] = ["a", "b"].map(|name| place.serve(name, &[]));
    let mut first = a.client("producer", &["--name", "x", "--input", "-"]);
    first.write(b"one\n");
    a.wait_until("an item", |status| status.accepted == 1);
    let mut second = b.client("producer", &["--name", "x", "--input", "-"]);
    a.wait_until("its end", |status| status.producers == 0);
    first.write(b"late\n");
    let (code, stderr) = end(first);
    assert!(code == 1 && stderr.contains("under the same name"), "{code}: {stderr}");
    second.write(b"one\ntwo\n");
    b.wait_until("the second item", |status| status.accepted == 1);
    assert_eq!(second.finish().0, 0);
}

#[test]
fn stop_ends_one_machines_part_and_the_others_go_on() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let inputs = [place.input("a", 2000)];
    let slow = ["--", "sh", "-c", "sleep 0.02; echo \"$1\"", "sh", "{}"];
    let (b, c) = (place.run("b", None, &slow), place.run("c", None, &ECHO));
    let a = place.run("a", Some(&inputs[0]), &slow);
    b.wait_for_results(1);
    let stop = b.client("coordinator", &["stop"]);
    let of_b = b.results();
    assert_eq!(stop.finish().0, 0);
    assert_eq!(account(&inputs, &[a.results(), of_b, c.results()]), 0);
}

#[test]
fn a_paused_machine_hands_out_nothing_and_the_others_do_it_all() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let [a, b] = ["a", "b"].map(|name| place.serve(name, &["--expect-producers", "1"]));
    let idle = a.client("consumer", &[]);
    a.wait_until("a consumer", |status| status.consumers_waiting == 1);
    assert_eq!(a.client("coordinator", &["pause"]).finish().0, 0);
    let inputs = [place.input("x", 500), place.input("y", 500)];
    let produce = |machine: &Machine, input: &Path| machine.client("producer", &["--input", input.to_str().unwrap()]).finish().0;
    assert_eq!(produce(&a, &inputs[0]), 0, "puts are taken");
    let busy = b.client("consumer", &[]);
    busy.wait_for_stdout("x 499\n");
    assert_eq!(idle.stdout(), "");
    assert_eq!(a.client("coordinator", &["resume"]).finish().0, 0);
    assert_eq!(produce(&b, &inputs[1]), 0);
    let results = [idle.finish().1, busy.finish().1];
    assert_eq!(account(&inputs, &results), 0);
}

#[test]
fn dead_letters_are_dealt_with_from_another_machine_than_the_one_that_buried_them() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let [a, b] = ["a", "b"].map(|name| place.serve(name, &[]));
    let producer = Producer::<[u8]>::connect(&a.endpoint()).unwrap();
    producer.put_all([&b"one"[..], b"two", b"three"]).unwrap();
    producer.flush().unwrap();
    let consumer = Consumer::<[u8]>::connect(&a.endpoint()).unwrap();
    (0..3).for_each(|_| consumer.get().unwrap().unwrap().reject("no good").unwrap());
    drop(consumer);
    b.wait_until("the dead letters", |status| status.dead == 3);
    let dead = |arguments: &[&str]| b.client("coordinator", &[&["dead"], arguments].concat()).finish();
    let (code, listed, stderr) = dead(&["list", "--json"]);
    assert_eq!((code, listed.lines().count()), (0, 3), "{stderr}");
    let letters: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(letters.iter().all(|letter| letter["cause"] == "no good" && letter["attempts"] == 1), "{listed}");
    let (code, _, stderr) = dead(&["drop", &letters[0]["id"].to_string()]);
    assert!(code == 0 && stderr.contains("1 of 1 dead letter dropped"), "{stderr}");
    let (code, _, stderr) = dead(&["requeue", "--all"]);
    assert!(code == 0 && stderr.contains("2 of 2 dead letters put again"), "{stderr}");
    let consumer = Consumer::<[u8]>::connect(&b.endpoint()).unwrap();
    for item in [b"two".as_slice(), b"three"] {
        let delivery = consumer.get().unwrap().unwrap();
        // The other machine may have had it for a moment, and given it back.
        assert!(delivery.item() == item && delivery.attempt() <= 2, "{delivery:?}");
        delivery.ack().unwrap();
    }
    a.wait_until("no dead letters", |status| status.dead == 0);
    assert!(dead(&["list"]).2.contains("there are no dead letters"));
}

/// What a process says once it has ended, with its exit code.
fn end(process: Process) -> (i32, String) {
    let (code, _, stderr) = process.finish();
    (code, stderr)
}

#[test]
fn a_machine_that_is_gone_without_a_word_is_not_waited_for() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let (mut gone, stays) = (place.serve("gone", &["--expect-producers", "2"]), place.serve("stays", &["--expect-producers", "1"]));
    let producer = stays.client("producer", &["--count", "3", "--pause", "none"]);
    assert_eq!(producer.finish().0, 0);
    let consumer = stays.client("consumer", &[]);
    eventually("three items", || (consumer.stdout().lines().count() == 3).then_some(()));
    gone.process.kill();
    let (code, stderr) = end(stays.process);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("is gone, with 2 of its producers"), "{stderr}");
    assert_eq!(consumer.finish().0, 0);
}
