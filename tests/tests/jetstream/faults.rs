//! Servers that die, hang, refuse, or lose what they had.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use common::batch::Batch;
use coordinator::jetstream::{Answer, ClusterError, Marks, Settings, item_id};
use coordinator::queue::{DeadLetter, DeadRange, Origin};
use tests::eventually;
use tests::nats::NatsServer;

use crate::link::Link;
use crate::machine::{Machine, batch, progress, settings, texts};
use crate::needs_server;

fn outages(machine: &mut Machine) -> usize {
    machine.look().iter().filter(|answer| matches!(answer, Answer::Outage(_))).count()
}

#[test]
fn a_server_that_is_killed_and_comes_again_has_all_that_was_confirmed_and_nothing_twice() {
    needs_server!();
    let mut server = NatsServer::start();
    let (mut putter, mut getter) = (Machine::at(&server.url()), Machine::at(&server.url()));
    let held = {
        putter.put(0..10);
        getter.fetch()
    };
    putter.kept(0..10);
    let mut next = 10;
    for _ in 0..3 {
        putter.put(next..next + 200);
        next += 200;
        eventually("something on its way", || (outages(&mut putter) == 0).then_some(()));
        server.kill();
        putter.put(next..next + 20);
        next += 20;
        putter.wait("a warning", |answer| matches!(answer, Answer::Outage(_)));
        server.run();
        putter.wait("its end", |answer| matches!(answer, Answer::Restored { .. }));
        assert_eq!(outages(&mut putter), 0, "one warning for each outage");
    }
    putter.kept(10..next);
    // What was held all the time is ours still.
    getter.settle(held.sequence);
    let mut items: Vec<u64> = getter.drain(next as usize - 1).iter().map(|item| item.parse().expect("a number")).collect();
    items.sort_unstable();
    assert_eq!(items, (1..next).collect::<Vec<_>>());
    getter.sees("an empty queue", |view| view.messages == 0);
}

#[test]
fn a_server_that_hangs_holds_everything_up_and_loses_nothing() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.put(0..1);
    machine.kept(0..1);
    server.freeze(true);
    // More than sockets and library take.
    for ticket in 1..200 {
        machine.cluster.put(ticket, Batch::one(vec![0; 100_000].into()), Origin::Nameless);
    }
    machine.wait("a warning", |answer| matches!(answer, Answer::Outage(_)));
    server.freeze(false);
    machine.wait("its end", |answer| matches!(answer, Answer::Restored { .. }));
    machine.cluster.want(0);
    machine.kept(1..200);
    assert_eq!(machine.drain(200).len(), 200);
    machine.sees("an empty queue", |view| view.messages == 0);
}

#[test]
fn a_stream_that_is_deleted_is_told_and_not_made_anew() {
    needs_server!();
    for (stream, idle) in [("jobs", true), ("jobs", false), ("jobs_dead", false), ("jobs_state", true)] {
        let server = NatsServer::start();
        let mut machine = Machine::at(&server.url());
        machine.put(0..1);
        let fetched = machine.fetch();
        delete(&server.url(), stream);
        if !idle {
            machine.put(1..3);
            let item = fetched.batch.item_shared(0);
            let id = item_id(fetched.sequence, 0);
            machine.cluster.bury(DeadLetter { id, attempts: 1, cause: "x".into(), item });
        }
        let error = machine.fail();
        assert!(matches!(&error, ClusterError::Gone { .. }) && error.to_string().contains("jobs is gone"), "{error}");
        assert!(matches!(machine.cluster.collect(), Err(ClusterError::Ended { .. })));
    }
}

#[test]
fn a_stream_that_was_deleted_and_made_anew_is_another() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.sees("the queue", |_| true);
    delete(&server.url(), "jobs");
    let other = Machine::try_open(settings(&server.url()));
    assert!(matches!(machine.fail(), ClusterError::Gone { .. }));
    drop(other);
}

#[test]
fn a_queue_whose_items_were_deleted_begins_anew_and_its_dead_letters_stay() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.claim("p");
    machine.cluster.put(0, batch(["a", "b"]), progress("p", 2));
    machine.kept(0..1);
    let fetched = machine.fetch();
    let letter = DeadLetter { id: item_id(fetched.sequence, 0), attempts: 1, cause: "x".into(), item: fetched.batch.item_shared(0) };
    machine.cluster.bury(letter.clone());
    machine.wait("a confirmation", |answer| matches!(answer, Answer::Buried(_)));
    machine.cluster.mark(fetched.sequence, Marks { settled: vec![(0, 2)], failed: Vec::new() });
    machine.cluster.close();
    delete(&server.url(), "jobs");
    let mut machine = Machine::at(&server.url());
    // The same is put once more, and done once more.
    assert_eq!(machine.claim("p"), (0, false));
    machine.cluster.put(0, batch(["a", "b"]), progress("p", 2));
    machine.kept(0..1);
    let anew = machine.fetch();
    machine.cluster.release(anew.sequence, Duration::ZERO);
    let anew = machine.fetch();
    assert_eq!((anew.deliveries, &anew.marks), (2, &Marks::default()));
    let again = DeadLetter { id: item_id(anew.sequence, 0), ..letter.clone() };
    machine.cluster.bury(again.clone());
    machine.wait("a confirmation", |answer| matches!(answer, Answer::Buried(_)));
    machine.cluster.load_dead(DeadRange { from: 0, until: u64::MAX });
    let both = machine.wait("dead letters", |answer| matches!(answer, Answer::DeadLoaded(_)));
    assert!(matches!(&both, Answer::DeadLoaded(page) if page.letters == [letter, again]), "{both:?}");
}

#[test]
fn a_consumer_that_is_deleted_is_told() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.cluster.want(1);
    machine.put(0..1);
    machine.fetched();
    delete_consumer(&server.url());
    machine.cluster.want(1);
    let error = machine.fail();
    assert!(error.to_string().starts_with("the consumer of the queue jobs is gone"), "{error}");
}

#[test]
fn who_may_not_and_where_there_is_nothing_is_said_at_once() {
    needs_server!();
    let refused = |url: &str| Machine::try_open(settings(url)).err().expect("an error");
    let error = refused("nats://127.0.0.1:1");
    assert!(matches!(error, ClusterError::Unreachable { .. }), "{error}");
    let error = refused(&NatsServer::start_plain().url());
    assert!(matches!(error, ClusterError::NoJetStream { .. }) && error.to_string().contains("--jetstream"), "{error}");
    let server = NatsServer::start_with("authorization { user: us, password: secret }");
    let error = refused(&server.url());
    assert!(matches!(error, ClusterError::Unauthorized { .. }) && error.to_string().contains("creds"), "{error}");
    let error = refused(&server.url().replace("//", "//us:wrong@"));
    assert!(matches!(error, ClusterError::Unauthorized { .. }) && !error.to_string().contains("wrong@"), "{error}");
    Machine::at(&server.url().replace("//", "//us:secret@"));
    let mut lost = settings(&server.url());
    lost.address.credentials = Some("/no/such/file".into());
    let error = Machine::try_open(lost).err().expect("an error");
    assert!(matches!(error, ClusterError::Credentials { .. }), "{error}");
}

#[test]
fn a_message_that_another_program_wrote_is_told_and_stays() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    publish(&server.url(), "procq.jobs.items.1.x", ("Procq-Items", "9 1 striped 3"), b"abc");
    machine.cluster.want(1);
    let error = machine.fail();
    assert!(error.to_string().contains("format version 9") && error.to_string().contains("nats stream rmm jobs 1"), "{error}");
    assert_eq!(crate::stored(&server.url(), "jobs").len(), 1);
}

#[test]
fn a_machine_that_is_cut_off_with_items_in_its_hands_settles_them_if_it_comes_back_in_time() {
    needs_server!();
    let mut server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.put(0..50);
    machine.kept(0..50);
    machine.cluster.want(50);
    let sequences: Vec<u64> = (0..50).map(|_| machine.fetched().sequence).collect();
    server.kill();
    sequences.iter().for_each(|sequence| machine.cluster.settle(*sequence));
    machine.wait("a warning", |answer| matches!(answer, Answer::Outage(_)));
    server.run();
    sequences.into_iter().for_each(|sequence| machine.settled(sequence));
    machine.sees("an empty queue", |view| view.messages == 0);
}

#[test]
fn a_machine_that_is_out_of_reach_for_longer_than_its_leases_last_loses_nothing_and_is_told_what_others_did() {
    needs_server!();
    let server = NatsServer::start();
    let link = Link::to(&server.url());
    let (mut far, mut near) = (Machine::at(&link.url()), Machine::at(&server.url()));
    far.put(0..3);
    far.kept(0..3);
    far.cluster.want(2);
    let (one, two) = (far.fetched(), far.fetched());
    assert_eq!(near.fetch().sequence, 3);
    link.cut();
    far.put(3..100);
    far.wait("a warning", |answer| matches!(answer, Answer::Outage(_)));
    far.cluster.settle(one.sequence);
    // What it held goes to another, who settles one of both.
    assert_eq!((near.fetch().sequence, near.fetch().sequence), (one.sequence, two.sequence));
    near.settle(one.sequence);
    link.mend();
    far.wait("its end", |answer| matches!(answer, Answer::Restored { .. }));
    assert_eq!(outages(&mut far), 0);
    far.settled(one.sequence);
    far.settle(two.sequence);
    near.settle(two.sequence);
    near.settle(3);
    far.kept(3..100);
    assert_eq!(near.drain(97).len(), 97);
    near.sees("an empty queue", |view| view.messages == 0);
}

#[test]
fn a_server_that_hears_of_the_end_of_what_it_has_not_delivered_passes_nothing_over() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.put(0..3);
    machine.kept(0..3);
    // As from a machine that has the second from a server that was killed, while nobody has the first.
    let forgotten = "$JS.ACK.jobs.procq.1.2.2.1700000000000000000.1";
    run(async {
        let client = async_nats::connect(server.url()).await.expect("a connection");
        client.publish(forgotten, "+ACK".into()).await.expect("something to publish");
        client.flush().await.expect("a server that has it");
    });
    assert_eq!(machine.fetch().sequence, 1, "the oldest server that is supported is too old");
}

#[test]
fn that_a_server_is_too_old_is_told_once_and_nothing_of_one_that_is_not() {
    needs_server!();
    let server = NatsServer::start();
    let told = |machine: &mut Machine| {
        machine.sees("the queue", |_| true);
        machine.look().iter().filter(|answer| matches!(answer, Answer::OldServer(_))).count()
    };
    assert_eq!(told(&mut Machine::at(&server.url())), 0);
    let link = Link::to_version(&server.url(), "2.10.25");
    let mut machine = Machine::at(&link.url());
    machine.wait("a warning", |answer| matches!(answer, Answer::OldServer(version) if version == "2.10.25"));
    link.cut();
    machine.wait("an outage", |answer| matches!(answer, Answer::Outage(_)));
    link.mend();
    machine.wait("its end", |answer| matches!(answer, Answer::Restored { .. }));
    assert_eq!(told(&mut machine), 0, "it was told");
}

#[test]
fn what_a_machine_with_a_thousand_items_in_its_hands_leaves_behind_is_done_by_two_others_meanwhile_at_work() {
    needs_server!();
    let server = NatsServer::start();
    let large = |url: &str| Settings { capacity_items: 10_000, ..settings(url) };
    let link = Link::to(&server.url());
    let mut dying = Machine::open(large(&link.url()));
    let mut others = [Machine::open(large(&server.url())), Machine::open(large(&server.url()))];
    dying.put(0..3000);
    dying.kept(0..3000);
    dying.cluster.want(1000);
    (0..1000).for_each(|_| drop(dying.fetched()));
    link.cut();
    let mut seen = std::collections::BTreeSet::new();
    others.iter_mut().for_each(|machine| machine.cluster.want(64));
    eventually("all items", || {
        for machine in &mut others {
            let fetched: Vec<Answer> = machine.look().drain(..).collect();
            for answer in fetched {
                let Answer::Fetched(fetched) = answer else { continue };
                assert!(texts(&fetched).into_iter().all(|item| seen.insert(item)), "delivered twice");
                machine.cluster.settle(fetched.sequence);
            }
            machine.cluster.want(64);
        }
        (seen.len() == 3000).then_some(())
    });
    eventually("all to be settled", || {
        let is_idle = others.iter_mut().all(|machine| {
            machine.look();
            machine.cluster.is_idle()
        });
        is_idle.then_some(())
    });
}

#[test]
fn three_servers_whose_leader_is_killed_lose_nothing_and_deliver_nothing_twice() {
    needs_server!();
    let mut servers = NatsServer::start_cluster(3);
    let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
    let hosts = urls.join(",").replace("nats://", "");
    let there = || {
        let mut settings = settings("nats://a");
        settings.address = format!("nats://{hosts}/jobs?replicas=3").parse().expect("an address");
        settings.timing.ack_wait = Duration::from_secs(20);
        settings.timing.machine_lost = Duration::from_secs(20);
        Settings { capacity_items: 100_000, ..settings }
    };
    // A cluster that has just begun has no leader yet.
    let mut putter = eventually("a cluster with a leader", || Machine::try_open(there()).ok());
    let mut getter = Machine::open(there());
    putter.put(0..500);
    putter.kept(0..500);
    getter.cluster.want(200);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut take = |getter: &mut Machine| {
        let fetched = getter.fetched();
        texts(&fetched).into_iter().for_each(|item| *seen.entry(item).or_default() += 1);
        getter.cluster.settle(fetched.sequence);
        getter.cluster.want(200);
        seen.len()
    };
    while take(&mut getter) < 200 {}
    let leader = leader(&urls, "jobs");
    putter.put(500..1500);
    servers[leader].kill();
    putter.put(1500..2000);
    putter.kept(500..2000);
    while take(&mut getter) < 2000 {}
    getter.sees("an empty queue", |view| view.messages == 0);
    let again: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.is_empty(), "{again:?}");
    servers[leader].run();
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

async fn context(url: &str) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(url).await.expect("a connection"))
}

fn delete(url: &str, stream: &str) {
    run(async { context(url).await.delete_stream(stream).await.expect("a stream to delete") });
}

fn delete_consumer(url: &str) {
    run(async { context(url).await.delete_consumer_from_stream("procq", "jobs").await.expect("a consumer to delete") });
}

fn publish(url: &str, subject: &'static str, header: (&str, &str), payload: &'static [u8]) {
    run(async {
        let context = context(url).await;
        let headers = HeaderMap::from_iter([(header.0.parse().expect("a name"), header.1.into())]);
        let published = context.publish_with_headers(subject, headers, payload.into()).await.expect("a message");
        published.await.expect("a stream that takes it");
    });
}

/// Which of the servers leads a stream.
fn leader(urls: &[String], stream: &str) -> usize {
    run(async {
        let stream = context(&urls[0]).await.get_stream(stream).await.expect("a stream");
        let cluster = stream.cached_info().cluster.as_ref().expect("a cluster");
        let name = cluster.leader.as_ref().expect("a leader");
        name.strip_prefix("server").and_then(|number| number.parse().ok()).expect("one of ours")
    })
}
