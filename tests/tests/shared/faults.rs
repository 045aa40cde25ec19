//! Machines and servers that die, hang, or come too late. Every item whose put was confirmed is accounted for.

use std::cell::RefCell;

use tests::DEADLINE;
use tests::nats::NatsServer;

use crate::machine::{ECHO, Machine, Place, account};
use crate::needs_server;

const OUTAGE: &str = "the servers cannot be reached";
const AGAIN: &str = "the servers can be reached again";

/// Two machines at work on three thousand lines, one of them the reader; a few are done.
fn at_work(place: &Place) -> (Vec<std::path::PathBuf>, [Machine; 2]) {
    let inputs = vec![place.input("a", 3000)];
    let slow = ["--worker", "--", "sh", "-c", "while read -r n; do sleep 0.002; echo \"$n\"; done"];
    let machines = [place.run("a", Some(&inputs[0]), &slow), place.run("b", None, &slow)];
    machines.iter().for_each(|machine| machine.wait_for_results(20));
    (inputs, machines)
}

/// Waits until all have noticed an outage, ends it, and sees that it was told once.
fn outage(machines: &[Machine; 2], end: impl FnOnce()) {
    machines.iter().for_each(|machine| machine.process.wait_for_stderr(OUTAGE));
    end();
    machines.iter().for_each(|machine| machine.process.wait_for_stderr(AGAIN));
    machines.iter().for_each(|machine| assert_eq!((machine.said(OUTAGE), machine.said(AGAIN)), (1, 1), "{}", machine.process.stderr()));
}

#[test]
fn a_server_that_is_restarted_is_one_warning() {
    needs_server!();
    let mut server = NatsServer::start();
    let place = Place::at(&server.url());
    let (inputs, machines) = at_work(&place);
    server.stop();
    outage(&machines, || server.run());
    account(&inputs, &machines.map(Machine::results));
}

#[test]
fn a_server_that_is_killed_and_started_again_loses_nothing() {
    needs_server!();
    let mut server = NatsServer::start();
    let place = Place::at(&server.url());
    let (inputs, machines) = at_work(&place);
    server.kill();
    outage(&machines, || server.run());
    account(&inputs, &machines.map(Machine::results));
}

#[test]
fn servers_that_hang_for_longer_than_leases_last_hold_everybody_up_and_lose_nothing() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let (inputs, machines) = at_work(&place);
    let mut producer = machines[1].client("producer", &["--input", "-"]);
    server.freeze(true);
    producer.write(b"a 2999\n");
    producer.close_stdin();
    // It takes several times ack_wait until a silent server is given up.
    outage(&machines, || {
        assert!(producer.is_alive(), "it waits");
        server.freeze(false);
    });
    let (code, _, stderr) = producer.finish();
    assert_eq!(code, 0, "{stderr}");
    let results = machines.map(Machine::results);
    let twice = results.iter().flat_map(|text| text.lines()).filter(|line| *line == "a 2999").count();
    assert!(twice >= 2, "put twice, it came {twice} times");
    account(&inputs, &results);
}

#[test]
fn a_coordinator_that_is_killed_with_a_thousand_items_in_flight_leaves_them_to_two_others() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let inputs = [place.input("a", 3000), place.input("b", 100)];
    let mut dying = place.serve("a", &[]);
    let holder = dying.client("consumer", &["--prefetch", "1000", "--", "sleep", "1000"]);
    assert_eq!(dying.client("producer", &["--input", inputs[0].to_str().unwrap()]).finish().0, 0);
    dying.wait_until("a thousand items in hand", |status| status.held >= 1000);
    let others = [place.run("b", Some(&inputs[1]), &ECHO), place.run("c", None, &ECHO)];
    // Who has never heard of producers waits for some.
    let knows = |status: &common::Status| status.shared.is_some_and(|shared| shared.producers_finished == 2);
    for machine in &others {
        machine.wait_until("the producer to be known", knows);
    }
    dying.process.kill();
    assert_eq!(account(&inputs, &others.map(Machine::results)), 0);
    drop(holder);
}

#[test]
fn a_cluster_of_three_whose_servers_are_killed_in_turn_goes_on() {
    needs_server!();
    let mut servers = NatsServer::start_cluster(3);
    let hosts: Vec<String> = servers.iter().map(|server| server.url().replace("nats://", "")).collect();
    let place = Place { address: format!("nats://{}/jobs?replicas=3&ack_wait=20s", hosts.join(",")), ..Place::at("nats://x") };
    let inputs = [place.input("a", 3000)];
    let slow = ["--worker", "--", "sh", "-c", "while read -r n; do sleep 0.02; echo \"$n\"; done"];
    // A cluster that has just begun has no leader yet.
    let last = RefCell::default();
    let what = || format!("a cluster with a leader, where a machine says {:?}", last.borrow());
    tests::within(2 * DEADLINE, what, || {
        let machine = place.start("first", &["serve"]);
        let ended = || (!machine.process.is_alive()).then_some(false);
        let listens = || machine.process.stderr().contains("ready at").then_some(true);
        let is_ready = tests::within(DEADLINE, || "a start or an end".into(), || listens().or_else(ended));
        last.replace(machine.process.stderr());
        is_ready.then_some(())
    });
    let machines = [place.run("a", Some(&inputs[0]), &slow), place.run("b", None, &slow)];
    for server in &mut servers {
        let before = machines[0].process.stdout().lines().count();
        machines[0].wait_for_results(before + 50);
        // One of them leads.
        server.kill();
        let before = machines.each_ref().map(|machine| machine.process.stdout().lines().count());
        machines.iter().zip(before).for_each(|(machine, before)| machine.wait_for_results(before + 100));
        server.run();
    }
    // What the leader had sent in the moments before it was killed its successor may not have heard of, and sends again.
    let again = account(&inputs, &machines.map(Machine::results));
    assert!(again <= 3 * 2 * 2 * 12, "{again} items came again: more than two messages for each machine and server killed");
}
