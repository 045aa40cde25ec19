//! Who takes part, and when a run is over everywhere.

use std::sync::Arc;

use coordinator::jetstream::{Answer, Settings};
use coordinator::queue::Origin;
use tests::nats::NatsServer;

use crate::link::Link;
use crate::machine::{Machine, batch, progress, settings};
use crate::needs_server;

#[test]
fn a_run_ends_everywhere_once_all_producers_have_finished_and_all_is_settled() {
    needs_server!();
    let server = NatsServer::start();
    let (mut one, mut two) = (Machine::at(&server.url()), Machine::at(&server.url()));
    let mut idle = Machine::at(&server.url());
    one.cluster.announce(1, 0);
    two.cluster.announce(2, 0);
    one.put(0..3);
    one.kept(0..3);
    one.cluster.announce(1, 1);
    idle.sees("all three", |view| (view.machines, view.producers_expected, view.producers_finished) == (3, 3, 1));
    two.cluster.announce(2, 2);
    idle.sees("the end of all producers", |view| view.producers_finished == 3 && !view.is_done);
    assert_eq!(two.drain(3).len(), 3);
    for machine in [&mut one, &mut two, &mut idle] {
        machine.sees("the end", |view| view.is_done);
    }
    one.cluster.close();
    idle.sees("that one has gone", |view| view.machines == 2 && view.is_done);
    // Who comes after the end takes part in no run, and waits for the next.
    two.cluster.close();
    idle.cluster.close();
    let mut late = Machine::at(&server.url());
    late.sees("itself alone", |view| view.machines == 1 && !view.is_done);
}

#[test]
fn a_machine_that_dies_neither_ends_a_run_early_nor_holds_it_up_for_ever() {
    needs_server!();
    let server = NatsServer::start();
    let link = Link::to(&server.url());
    let mut dying = Machine::at(&link.url());
    let mut other = Machine::at(&server.url());
    dying.cluster.announce(2, 1);
    dying.put(0..1);
    dying.fetch();
    other.cluster.announce(1, 1);
    other.sees("both", |view| view.producers_expected == 3 && !view.is_done);
    link.cut();
    match other.wait("its loss", |answer| matches!(answer, Answer::Lost(_))) {
        Answer::Lost(lost) => assert_eq!((lost.machine.as_str(), lost.producers_unfinished), ("here:1", 1)),
        other => panic!("{other:?}"),
    }
    let fetched = other.fetch();
    assert_eq!(fetched.deliveries, 2, "what it held comes back when its lease runs out");
    assert!(!other.look().iter().any(|answer| matches!(answer, Answer::Cluster(view) if view.is_done)));
    other.settle(fetched.sequence);
    other.sees("the end", |view| view.is_done);
    // It was out of touch only, and is one of them again.
    link.mend();
    other.sees("both again", |view| view.machines == 2 && view.producers_expected == 3 && !view.is_done);
    dying.wait("its own trouble", |answer| matches!(answer, Answer::Outage(_)));
    dying.wait("the end of that", |answer| matches!(answer, Answer::Restored { .. }));
}

#[test]
fn a_producer_goes_on_where_it_was_at_another_machine() {
    needs_server!();
    let server = NatsServer::start();
    let mut one = Machine::at(&server.url());
    assert_eq!(one.claim("jobs.txt *>"), (0, false));
    one.cluster.put(0, batch(["a", "b"]), progress("jobs.txt *>", 2));
    one.cluster.put(1, batch(["c"]), progress("jobs.txt *>", 3));
    one.kept(0..2);
    one.cluster.close();
    let mut two = Machine::at(&server.url());
    assert_eq!(two.claim("jobs.txt *>"), (3, false));
    assert_eq!(two.claim("another"), (0, false));
    assert_eq!(two.drain(3).len(), 3);
    two.cluster.finish(Arc::from("jobs.txt *>"));
    two.wait("its end", |answer| matches!(answer, Answer::Finished(_)));
    two.cluster.close();
    let mut three = Machine::at(&server.url());
    assert_eq!(three.claim("jobs.txt *>"), (3, true));
    three.cluster.finish(Arc::from("jobs.txt *>"));
    three.wait("its end again", |answer| matches!(answer, Answer::Finished(_)));
}

#[test]
fn what_a_producer_left_behind_at_a_full_queue_is_not_put_twice_when_it_goes_to_another_machine() {
    needs_server!();
    let server = NatsServer::start();
    let small = || Settings { capacity_items: 20, ..settings(&server.url()) };
    let (mut one, mut two) = (Machine::open(small()), Machine::open(small()));
    assert_eq!(one.claim("p"), (0, false));
    for position in 1..=100 {
        one.cluster.put(position, batch([position.to_string()]), progress("p", position));
    }
    // Of others it keeps what it has.
    one.cluster.put(101, batch(["another's"]), Origin::Nameless);
    two.sees("a full queue", |view| view.items == 20);
    one.kept(1..21);
    let (position, _) = two.claim("p");
    assert_eq!(position, 20);
    one.wait("its end at the first machine", |answer| matches!(answer, Answer::Replaced(_)));
    one.cluster.put(102, batch(["too late"]), progress("p", 101));
    // Its batches are others now, so that servers do not know them by their ids.
    let rest: Vec<u64> = (21..=100).collect();
    for (ticket, part) in rest.chunks(3).enumerate() {
        two.cluster.put(ticket as u64, batch(part.iter().map(u64::to_string)), progress("p", part[part.len() - 1]));
    }
    let mut items = two.drain(101);
    one.kept(21..103);
    assert!(one.cluster.is_idle());
    items.retain(|item| item != "another's");
    assert_eq!(items, (1..=100).map(|number| number.to_string()).collect::<Vec<_>>());
    two.cluster.look();
    two.sees("an empty queue", |view| view.messages == 0);
}

#[test]
fn what_a_machine_had_put_but_not_noted_before_it_died_is_found_in_the_stream() {
    needs_server!();
    let server = NatsServer::start();
    let mut one = Machine::at(&server.url());
    // Without a claim nothing is noted.
    one.cluster.put(0, batch(["a", "b"]), progress("p", 2));
    one.cluster.put(1, batch(["a", "b", "c"]), progress("p", 5));
    one.cluster.put(2, batch(["x"]), progress("q", 9));
    one.kept(0..3);
    assert_eq!(Machine::at(&server.url()).claim("p"), (5, false));
}

#[test]
fn two_machines_that_claim_a_name_at_once_agree_on_whose_it_is() {
    needs_server!();
    let server = NatsServer::start();
    let mut machines = [Machine::at(&server.url()), Machine::at(&server.url())];
    for position in 1..40 {
        machines.iter_mut().for_each(|machine| machine.cluster.claim(Arc::from("p")));
        // The last word counts.
        let is_word = |answer: &&Answer| matches!(answer, Answer::Claimed { .. } | Answer::Replaced(_));
        let is_claim = |answer: &Answer| matches!(answer, Answer::Claimed { .. });
        let owner = tests::eventually("one that has it, and one that has not", || {
            let owns = |machine: &mut Machine| {
                let seen = machine.look();
                seen.iter().any(is_claim).then(|| seen.iter().rfind(is_word).is_some_and(is_claim))
            };
            match machines.each_mut().map(owns) {
                [Some(true), Some(false)] => Some(0),
                [Some(false), Some(true)] => Some(1),
                _ => None,
            }
        });
        machines.iter_mut().for_each(|machine| machine.look().clear());
        // Whoever has it can note how far it is.
        machines[owner].cluster.put(0, batch(["a"]), progress("p", position));
        machines[owner].kept(0..1);
        assert_eq!(machines[owner].drain(1).len(), 1);
    }
}
