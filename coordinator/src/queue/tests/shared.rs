//! A queue that is shared with other machines. What the servers say is said by hand.

use super::*;
use crate::limits::{JOINS_MAX, NAMES_MAX, SHARED_DEAD_LOOK, SHARED_IDLE};
use common::message::DeadFate;
use common::status::SharedStatus;

const SHARED: Rules = Rules { journaled: Some(Window { near_bytes: 1 << 20, unwritten_bytes: 100_000 }), shared: true, ..RULES };

const NS: Duration = Duration::from_nanos(1);

impl Bench {
    /// A machine with a producer, 1, and a consumer, 2.
    fn machine(rules: Rules) -> Bench {
        let mut bench = Bench::new(rules);
        bench.producer(1);
        bench.consumer(2);
        bench.outputs.clear();
        bench
    }

    /// What the servers were asked and told since the last look.
    fn asked(&mut self) -> Vec<String> {
        let mut asked = Vec::new();
        self.outputs.retain(|output| {
            asked.push(match output {
                Output::Publish { batch, .. } => format!("publish {}", batch.count()),
                Output::Want { batches } => format!("want {batches}"),
                Output::WantNothing => "want nothing".into(),
                Output::Release { first, delay } => format!("release {first} for {delay:?}"),
                Output::Claim { name } => format!("claim {name}"),
                Output::Announce { expected, finished } => format!("announce {finished} of {expected}"),
                Output::Look => "look".into(),
                Output::Journal(Entry::Dropped { id, item_bytes }) => format!("drop {id} of {item_bytes} bytes"),
                _ => return true,
            });
            false
        });
        asked
    }

    fn arrive(&mut self, first: u64, items: &[&str]) {
        let loaded = Loaded { first, batch: batch(items), settled: Vec::new(), failed: Vec::new(), attempts: 0 };
        self.handle(Input::Arrived { batches: vec![loaded] });
    }

    fn see(&mut self, whole: Whole) {
        self.handle(Input::Whole(whole));
    }

    fn published(&mut self, until: u64) {
        self.handle(Input::Published { until });
    }

    fn withdraw(&mut self, client: u64) {
        self.say(client, Message::Withdraw);
    }

    /// A consumer with nothing to do takes all that is here.
    fn take_and_ack(&mut self, first: u64, count: u32) {
        self.demand(2, count);
        self.ack(2, first, count);
        self.delivered();
    }
}

/// Items at the servers, and one machine.
fn items(items: u64) -> Whole {
    Whole { items, bytes: 100 * items, machines: 1, ..Whole::default() }
}

fn cost(items: u64) -> u64 {
    batch_cost_bytes(batch(&vec!["x"; items as usize]).body_bytes())
}

#[test]
fn before_a_batch_has_come_one_is_taken_to_hold_512_items_and_64_kib() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 513);
    assert_eq!(bench.asked(), ["want 2"]);
    bench.demand(2, 100_000);
    assert_eq!(bench.asked(), ["want 14"], "as many as memory is for");
}

#[test]
fn how_many_batches_are_asked_for_follows_from_what_they_lately_held() {
    let mut bench = Bench::machine(Rules { journaled: Some(Window { near_bytes: 5 * cost(3), unwritten_bytes: 1 }), ..SHARED });
    for first in (0..600).step_by(10) {
        bench.arrive(first, &["x"; 3]);
        bench.take_and_ack(first, 3);
    }
    bench.asked();
    bench.demand(2, 7);
    assert_eq!(bench.asked(), ["want 3"]);
    bench.demand(2, 100);
    assert_eq!(bench.asked(), ["want 2"], "as many as there is memory for");
}

#[test]
fn as_many_more_are_asked_for_as_are_lacking_beyond_those_that_are_to_come() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 512);
    assert_eq!(bench.asked(), ["want 1"]);
    bench.demand(2, 1024);
    assert_eq!(bench.asked(), ["want 2"]);
    bench.arrive(0, &["a"]);
    assert_eq!(bench.asked(), ["want 254"], "one has come, and batches are smaller than it was thought");
    bench.demand(2, 1);
    assert_eq!(bench.asked(), Vec::<String>::new());
}

#[test]
fn where_memory_is_full_of_what_is_in_hand_one_at_a_time_is_asked_for_and_none_if_something_is_ready() {
    let mut bench = Bench::machine(Rules { journaled: Some(Window { near_bytes: cost(3), unwritten_bytes: 1 }), ..SHARED });
    bench.demand(2, 1_000);
    assert_eq!(bench.asked(), ["want 1"]);
    bench.arrive(0, &["x"; 3]);
    assert_eq!(bench.asked(), ["want 1"]);
    bench.arrive(10, &["x"; 3]);
    assert_eq!(bench.asked(), ["want 1"]);
    bench.give_back(2, 0, 6, Outcome::Unstarted);
    let mut bench = Bench::machine(Rules { journaled: Some(Window { near_bytes: cost(3), unwritten_bytes: 1 }), ..SHARED });
    bench.say(2, Message::Demand { items: 1_000, bytes: 1 });
    assert_eq!(bench.asked(), ["want 1"]);
    bench.arrive(0, &["x"; 3]);
    assert_eq!((bench.asked(), bench.queue.status().ready), (vec![], 2), "it has got as many bytes as it asked for");
}

#[test]
fn never_more_than_256_batches_are_on_their_way() {
    let mut bench = Bench::machine(SHARED);
    for first in (0..600).step_by(10) {
        bench.arrive(first, &["x"]);
        bench.take_and_ack(first, 1);
    }
    bench.asked();
    bench.demand(2, 10_000);
    assert_eq!(bench.asked(), ["want 256"]);
}

#[test]
fn figures_are_what_a_look_has_shown_and_what_was_done_here_since() {
    let mut bench = Bench::machine(SHARED);
    bench.see(Whole { next_id: 700, machines: 2, producers_expected: 4, producers_finished: 3, ..items(10) });
    bench.put(1, &["a", "b", "c"]);
    let status = bench.queue.status();
    let shared = SharedStatus { items: 13, next_id: 700, machines: 2, producers_expected: 4, producers_finished: 3 };
    assert_eq!((status.ready, status.accepted, status.bytes, status.shared), (13, 0, 1000 + cost(3), Some(shared)));
    bench.published(803);
    bench.arrive(100, &["x", "y"]);
    let status = bench.queue.status();
    assert_eq!((status.ready, status.accepted), (13, 3), "two of them are here");
    assert_eq!(status.shared.map(|shared| (shared.items, shared.next_id)), Some((13, 803)));
    bench.take_and_ack(100, 2);
    let status = bench.queue.status();
    assert_eq!((status.ready, status.bytes), (11, 1000 + cost(3) - cost(2)));
    bench.put(1, &["d"]);
    bench.published(802);
    bench.put(1, &["e"]);
    let status = bench.queue.status();
    assert_eq!((status.ready, status.accepted), (13, 4));
    assert_eq!(status.shared.map(|shared| (shared.items, shared.next_id)), Some((13, 803)));
    assert_eq!(status.bytes, 1000 + cost(3) - cost(2) + 2 * cost(1));
}

#[test]
fn a_look_shows_how_much_room_there_is_beside_what_is_on_its_way() {
    let mut bench = Bench::machine(Rules { capacity_items: 10, ..SHARED });
    bench.put(1, &["a"]);
    bench.see(items(9));
    bench.say(1, Message::Withdraw);
    bench.sent(1, "Confirm");
    bench.producer(3);
    bench.say(3, Message::Want { bytes: batch_cost_bytes(5) });
    assert_eq!((bench.sent(3, "Confirm"), bench.queue.status().producers_waiting), (0, 1));
    assert_eq!(bench.asked(), ["publish 1", "announce 0 of 2", "look"], "others may have made room");
    bench.see(items(8));
    assert_eq!((bench.sent(3, "Confirm"), bench.queue.status().producers_waiting), (1, 0));
}

#[test]
fn a_look_counts_the_dead_letters_unless_one_has_come_or_gone_here_lately() {
    let look = |dead| Whole { dead, ..items(1) };
    let mut bench = Bench::machine(SHARED);
    bench.see(look(7));
    assert_eq!(bench.queue.status().dead, 7);
    bench.arrive(0, &["a"]);
    bench.demand(2, 1);
    bench.give_back(2, 0, 1, Outcome::Rejected { cause: "no".into() });
    bench.write_all();
    assert_eq!(bench.queue.status().dead, 8);
    bench.pass(SHARED_DEAD_LOOK - NS);
    bench.see(look(7));
    assert_eq!(bench.queue.status().dead, 8, "it has looked elsewhere");
    bench.see(Whole { is_done: true, ..look(9) });
    assert_eq!(bench.queue.status().dead, 9, "all of them are counted at the end");
    bench.pass(NS);
    bench.see(look(7));
    assert_eq!(bench.queue.status().dead, 7);
    let letter = DeadLetter { id: ItemId(3), attempts: 1, cause: "no".into(), item: Bytes::from_static(b"abc") };
    bench.journal.dead.insert(3, letter);
    bench.steer(5, Message::DeadRemove { from: ItemId(0), until: ItemId(9), fate: DeadFate::Drop });
    bench.see(look(7));
    assert_eq!(bench.queue.status().dead, 6);
}

#[test]
fn a_dead_letter_that_is_put_again_is_forgotten_once_its_item_is_at_the_servers() {
    let mut bench = Bench::machine(SHARED);
    bench.see(Whole { dead: 1, ..items(0) });
    let letter = DeadLetter { id: ItemId(3), attempts: 1, cause: "no".into(), item: Bytes::from_static(b"abc") };
    bench.journal.dead.insert(3, letter);
    bench.steer(5, Message::DeadRemove { from: ItemId(0), until: ItemId(9), fate: DeadFate::Requeue });
    assert_eq!((bench.asked(), bench.queue.status().dead, bench.sent(5, "DeadRemoved")), (vec!["publish 1".into()], 1, 0));
    bench.published(100);
    assert_eq!(bench.asked(), ["drop 3 of 3 bytes"]);
    assert_eq!((bench.queue.status().dead, bench.sent(5, "DeadRemoved")), (0, 1));
}

#[test]
fn an_end_that_is_seen_while_something_is_on_its_way_is_looked_at_again_once_it_is_there() {
    let mut bench = Bench::machine(Rules { producers_expected: Some(1), ..SHARED });
    let letter = DeadLetter { id: ItemId(3), attempts: 1, cause: "no".into(), item: Bytes::from_static(b"abc") };
    bench.journal.dead.insert(3, letter);
    bench.steer(5, Message::DeadRemove { from: ItemId(0), until: ItemId(9), fate: DeadFate::Requeue });
    bench.see(Whole { is_done: true, ..items(0) });
    assert_eq!((bench.asked(), bench.queue.phase), (vec!["publish 1".into()], Phase::Running));
    bench.published(100);
    assert_eq!((bench.asked(), bench.queue.phase), (vec!["drop 3 of 3 bytes".into(), "look".into()], Phase::Running));
    bench.see(items(1));
    assert_eq!((bench.asked(), bench.queue.phase), (vec![], Phase::Running));
    bench.see(Whole { is_done: true, ..items(0) });
    assert_eq!(bench.queue.phase, Phase::Done);
}

#[test]
fn no_look_follows_one_that_found_no_end_while_something_was_on_its_way() {
    let mut bench = Bench::machine(SHARED);
    bench.put(1, &["a"]);
    bench.see(items(1));
    assert_eq!(bench.asked(), ["publish 1"]);
    bench.published(100);
    assert!(bench.asked().is_empty());
}

#[test]
fn a_join_waits_for_what_is_on_its_way_to_have_its_numbers_and_then_for_all_below_them() {
    let mut bench = Bench::machine(SHARED);
    let settled_until = |until| Whole { settled_until: until, ..items(1) };
    for items in [&["a", "b"][..], &["c"]] {
        bench.put(1, items);
    }
    bench.say(1, Message::Join);
    bench.put(1, &["d"]);
    bench.published(102);
    bench.see(settled_until(202));
    assert_eq!(bench.sent(1, "Joined"), 0, "the second is not there yet");
    bench.published(203);
    bench.see(settled_until(202));
    assert_eq!(bench.sent(1, "Joined"), 0);
    bench.published(301);
    bench.see(settled_until(203));
    assert_eq!(bench.sent(1, "Joined"), 1, "the last was put later");
    bench.say(1, Message::Join);
    assert_eq!(bench.sent(1, "Joined"), 0);
    bench.see(settled_until(301));
    assert_eq!(bench.sent(1, "Joined"), 1);
}

#[test]
fn joins_behind_what_is_on_its_way_are_bounded_for_each_client_and_forgotten_with_it() {
    let mut bench = Bench::machine(SHARED);
    bench.put(1, &["a"]);
    (0..JOINS_MAX).for_each(|_| bench.say(2, Message::Join));
    bench.say(1, Message::Join);
    assert_eq!(bench.closed(), []);
    bench.say(2, Message::Join);
    assert!(matches!(&bench.closed()[..], [(2, CloseReason::Limit, _)]));
    bench.published(101);
    bench.see(Whole { settled_until: 101, ..items(0) });
    assert_eq!((bench.sent(1, "Joined"), bench.sent(2, "Joined")), (1, 0));
}

#[test]
fn who_asks_whether_there_is_an_item_is_answered_by_a_look_that_begins_after_that() {
    let mut bench = Bench::machine(SHARED);
    bench.withdraw(2);
    assert_eq!((bench.sent(2, "Withdrawn"), bench.asked()), (1, vec![]), "it has asked for nothing");
    // Another has one under way.
    bench.put(1, &["a"]);
    bench.published(101);
    bench.say(1, Message::Join);
    assert_eq!(bench.asked(), ["publish 1", "look"]);
    bench.demand(2, 1);
    bench.withdraw(2);
    assert_eq!(bench.asked(), ["want 1"]);
    bench.see(items(1));
    assert_eq!((bench.sent(2, "Withdrawn"), bench.asked()), (0, vec!["look".into()]));
    bench.see(items(1));
    assert_eq!((bench.sent(2, "Withdrawn"), bench.queue.status().consumers_waiting), (1, 0));
}

#[test]
fn who_asks_whether_there_is_an_item_is_answered_when_it_gets_one_or_nobody_gets_any() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 2);
    bench.withdraw(2);
    bench.consumer(3);
    bench.demand(3, 1);
    bench.withdraw(3);
    bench.arrive(0, &["a"]);
    assert_eq!((bench.sent(2, "Withdrawn"), bench.sent(3, "Withdrawn")), (1, 0));
    bench.steer(5, Message::SetPaused { paused: true });
    assert_eq!(bench.sent(3, "Withdrawn"), 1);
    bench.demand(3, 1);
    bench.withdraw(3);
    assert_eq!(bench.sent(3, "Withdrawn"), 1, "there is no use in looking");
    bench.steer(5, Message::SetPaused { paused: false });
    bench.demand(3, 1);
    bench.withdraw(3);
    assert_eq!(bench.sent(3, "Withdrawn"), 0);
    bench.leave(3);
    bench.see(items(0));
    bench.see(items(0));
    assert_eq!(bench.sent(3, "Withdrawn"), 0, "it is not there any more");
}

#[test]
fn one_look_answers_all_that_was_asked_before_it_began() {
    let mut bench = Bench::machine(SHARED);
    bench.put(1, &["a"]);
    bench.published(101);
    bench.say(1, Message::Join);
    for _ in 0..2 {
        bench.demand(2, 1);
        bench.withdraw(2);
    }
    bench.see(items(1));
    assert_eq!(bench.sent(2, "Withdrawn"), 0);
    bench.demand(2, 1);
    bench.withdraw(2);
    bench.see(items(1));
    assert_eq!(bench.sent(2, "Withdrawn"), 2, "the third question came after");
    bench.see(items(1));
    assert_eq!(bench.sent(2, "Withdrawn"), 1);
}

#[test]
fn what_is_asked_for_behind_a_question_adds_up_and_is_bounded_as_ever() {
    let mut bench = Bench::machine(SHARED);
    let ask = |bench: &mut Bench, items, bytes| bench.say(2, Message::Demand { items, bytes });
    ask(&mut bench, 1, 1);
    bench.withdraw(2);
    ask(&mut bench, 3, 10);
    ask(&mut bench, 4, 100_000);
    assert_eq!(bench.queue.consumers.demand_items(), 1);
    bench.see(items(0));
    assert_eq!(bench.queue.consumers.demand_items(), 7);
    bench.withdraw(2);
    (0..=2 * JOINS_MAX).for_each(|_| ask(&mut bench, 1, 1));
    assert_eq!(bench.closed(), [], "however often it is said, it is one wish");
    bench.see(items(0));
    bench.withdraw(2);
    ask(&mut bench, u32::MAX, 1);
    ask(&mut bench, 1, u64::MAX);
    bench.see(items(0));
    assert!(matches!(&bench.closed()[..], [(2, CloseReason::Protocol, words)] if words.starts_with("demands more than")));
}

#[test]
fn questions_behind_a_question_are_bounded() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 1);
    bench.withdraw(2);
    for _ in 0..JOINS_MAX {
        bench.demand(2, 1);
        bench.withdraw(2);
    }
    assert_eq!(bench.closed(), []);
    bench.demand(2, 1);
    assert!(matches!(&bench.closed()[..], [(2, CloseReason::Limit, _)]));
}

#[test]
fn what_nobody_wants_is_given_back_after_a_while() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 1);
    bench.arrive(0, &["a", "b"]);
    bench.arrive(10, &["c", "d"]);
    bench.asked();
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + SHARED_IDLE));
    bench.pass(SHARED_IDLE - NS);
    assert_eq!(bench.asked(), Vec::<String>::new());
    bench.pass(NS);
    assert_eq!(bench.asked(), ["release 10 for 0ns"], "the other is begun");
    assert_eq!((bench.queue.ready.items(), bench.queue.next_timeout()), (1, Some(bench.now + SHARED_IDLE)));
    bench.demand(2, 1);
    assert_eq!((bench.delivered().len(), bench.queue.ready.items(), bench.queue.next_timeout()), (2, 0, None));
}

#[test]
fn what_somebody_waits_for_stays_asked_for_and_what_is_delayed_meanwhile_here() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 2);
    assert_eq!((bench.asked(), bench.queue.next_timeout()), (vec!["want 1".into()], None));
    bench.arrive(0, &["a"]);
    bench.give_back(2, 0, 1, Outcome::RetryAfter { delay_ms: 9_000 });
    assert_eq!((bench.asked(), bench.queue.next_timeout()), (vec!["want 1".into()], Some(Duration::from_secs(9))));
    bench.pass(3 * SHARED_IDLE);
    assert_eq!(bench.asked(), Vec::<String>::new());
}

#[test]
fn what_one_that_has_gone_held_is_given_back_at_once_and_all_the_rest_if_it_was_the_last() {
    let mut bench = Bench::machine(SHARED);
    bench.consumer(3);
    bench.demand(3, 1);
    bench.arrive(0, &["a"]);
    bench.leave(3);
    assert_eq!(bench.asked(), ["want 1", "release 0 for 0ns"], "the other has asked for nothing");
    bench.demand(2, 600);
    bench.arrive(10, &["b", "c"]);
    assert_eq!(bench.asked(), ["want 256", "want 1"]);
    bench.ack(2, 10, 2);
    bench.leave(2);
    assert_eq!(bench.asked(), ["want nothing"]);
    bench.arrive(20, &["d"]);
    assert_eq!(bench.asked(), ["release 20 for 0ns"], "it was on its way");
}

#[test]
fn what_one_that_hangs_held_is_given_back_at_once() {
    let lease = Lease { item_timeout: Duration::from_secs(5), grace: Duration::from_secs(1) };
    let mut bench = Bench::machine(Rules { lease: Some(lease), ..SHARED });
    bench.demand(2, 2);
    bench.arrive(0, &["a", "b"]);
    bench.say(2, Message::Begin { id: ItemId(0) });
    bench.asked();
    bench.pass(Duration::from_secs(6));
    assert_eq!(bench.asked(), Vec::<String>::new(), "one of them waits for its next attempt here");
    assert_eq!((bench.queue.status().delayed, bench.queue.ready.items()), (1, 1));
}

#[test]
fn what_waits_for_its_next_attempt_does_so_here_while_somebody_is_here_and_else_at_the_servers() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 4);
    bench.arrive(0, &["a", "b", "c", "d"]);
    bench.arrive(10, &["e"]);
    bench.asked();
    let later = |ms| Outcome::RetryAfter { delay_ms: ms };
    for (id, ms) in [(0, 9_000), (1, 7_000), (2, 8_000)] {
        bench.give_back(2, id, 1, later(ms));
    }
    bench.ack(2, 3, 1);
    bench.pass(SHARED_IDLE);
    assert_eq!(bench.asked(), ["release 10 for 0ns"]);
    bench.pass(SHARED_IDLE);
    assert_eq!((bench.asked(), bench.queue.status().delayed), (vec![], 3));
    bench.leave(2);
    assert_eq!(bench.asked(), ["release 0 for 5s"], "the first of them is due then");
    assert_eq!((bench.queue.status().delayed, bench.queue.next_timeout()), (0, None));
}

#[test]
fn a_machine_that_is_paused_keeps_nothing_but_what_is_in_hand_and_asks_for_nothing() {
    let mut bench = Bench::machine(SHARED);
    bench.demand(2, 2);
    bench.arrive(0, &["a", "b"]);
    bench.arrive(10, &["c"]);
    bench.give_back(2, 1, 1, Outcome::RetryAfter { delay_ms: 9_000 });
    bench.demand(2, 513);
    bench.asked();
    bench.steer(5, Message::SetPaused { paused: true });
    assert_eq!(bench.asked(), ["want nothing"]);
    bench.ack(2, 0, 1);
    bench.ack(2, 10, 1);
    assert_eq!(bench.asked(), ["release 0 for 9s"]);
    bench.steer(5, Message::SetPaused { paused: false });
    assert_eq!(bench.asked(), ["want 256"]);
}

#[test]
fn a_name_is_asked_for_once_and_its_producer_let_in_when_it_is_this_machines() {
    let mut bench = Bench::new(SHARED);
    let named = |client| Input::ProducerJoined { client: ClientId(client), name: Some("one".into()) };
    let claimed = |position, name: &str| Input::Claimed { by: Progress { name: name.into(), position, checksum: 5 } };
    bench.handle(named(1));
    assert_eq!(bench.asked(), ["claim one", "announce 0 of 1"]);
    bench.handle(named(3));
    assert_eq!((bench.asked(), bench.closed().len()), (vec![], 1), "another under the same name, at this machine");
    bench.handle(claimed(9, "other"));
    assert!(!bench.outputs.iter().any(|output| matches!(output, Output::Welcome { .. })));
    bench.handle(claimed(7, "one"));
    let welcome = |output: &Output| matches!(output, Output::Welcome { client: ClientId(3), position: Position(7), checksum: Some(5) });
    assert!(bench.outputs.first().is_some_and(welcome), "{:?}", bench.outputs);
    bench.outputs.clear();
    bench.handle(Input::Replaced { name: "one".into() });
    let words = "another producer has connected under the same name, at another machine".into();
    assert_eq!(bench.closed(), [(3, CloseReason::Replaced, words)]);
    assert_eq!(bench.asked(), ["announce 0 of 0"]);
    bench.handle(named(4));
    assert_eq!((bench.asked(), bench.outputs.len()), (vec!["claim one".into(), "announce 0 of 1".into()], 0), "it is not ours any more");
    bench.handle(claimed(8, "one"));
    assert!(matches!(&bench.outputs[..], [Output::Welcome { client: ClientId(4), position: Position(8), .. }, ..]));
}

#[test]
fn a_name_too_many_is_refused_at_a_shared_queue_and_known_ones_may_come_again() {
    let mut bench = Bench::new(SHARED);
    let named = |name: String| Input::ProducerJoined { client: ClientId(1), name: Some(name) };
    for name in (0..NAMES_MAX).map(|n| n.to_string()) {
        bench.handle(named(name.clone()));
        bench.handle(Input::Claimed { by: Progress { name: name.into(), position: 0, checksum: 0 } });
        bench.leave(1);
        bench.outputs.clear();
    }
    bench.handle(named("7".into()));
    assert_eq!((bench.closed(), bench.asked()), (vec![], vec!["announce 0 of 1".into()]));
    bench.leave(1);
    bench.handle(named("one too many".into()));
    assert!(matches!(&bench.closed()[..], [(1, CloseReason::Limit, _)]));
}

#[test]
fn all_machines_hear_how_many_producers_are_waited_for_here_and_have_finished() {
    let mut bench = Bench { slow_journal: true, ..Bench::new(Rules { producers_expected: Some(2), ..SHARED }) };
    bench.producer(1);
    assert_eq!(bench.asked(), ["announce 0 of 2"]);
    bench.producer(2);
    bench.producer(3);
    assert_eq!(bench.asked(), ["announce 0 of 3"]);
    bench.say(1, Message::Finish);
    bench.leave(1);
    assert_eq!(bench.asked(), Vec::<String>::new(), "its end is on its way to the servers");
    bench.journal_answers();
    assert_eq!(bench.asked(), ["announce 1 of 3"]);
    bench.leave(2);
    assert_eq!(bench.asked(), ["announce 1 of 2"]);
}

#[test]
fn a_machine_alone_has_drained_when_a_look_that_began_after_its_last_work_finds_nothing() {
    let mut bench = Bench::machine(SHARED);
    bench.put(1, &["a"]);
    bench.published(101);
    bench.say(1, Message::Join);
    bench.handle(Input::Drain);
    assert_eq!(bench.asked(), ["publish 1", "look", "announce 0 of 0"]);
    bench.see(items(0));
    assert_eq!((bench.queue.phase(), bench.asked()), (Phase::Draining, vec!["look".into()]), "that one began before");
    bench.see(items(1));
    assert_eq!((bench.queue.phase(), bench.asked()), (Phase::Draining, vec!["look".into()]));
    bench.demand(2, 1);
    assert_eq!(bench.asked(), ["want 1"]);
    bench.arrive(100, &["a"]);
    bench.see(items(0));
    assert_eq!(bench.queue.phase(), Phase::Draining);
    bench.ack(2, 100, 1);
    assert_eq!((bench.queue.phase(), bench.asked()), (Phase::Draining, vec!["look".into()]));
    bench.see(items(0));
    assert_eq!((bench.queue.phase(), bench.sent(2, "Stop")), (Phase::Done, 1));
}

#[test]
fn a_machine_that_is_not_alone_has_drained_when_nothing_is_here_or_on_its_way() {
    let mut bench = Bench::machine(SHARED);
    bench.see(Whole { machines: 2, ..items(5) });
    bench.put(1, &["a"]);
    bench.handle(Input::Drain);
    assert_eq!(bench.asked(), ["publish 1", "announce 0 of 0"]);
    bench.demand(2, 1);
    bench.withdraw(2);
    assert_eq!((bench.asked(), bench.sent(2, "Withdrawn")), (vec![], 1), "the others do the rest");
    assert_eq!(bench.queue.phase(), Phase::Draining);
    bench.published(101);
    assert_eq!(bench.queue.phase(), Phase::Done);
}

#[test]
fn a_look_that_began_while_something_was_on_its_way_does_not_show_that_all_is_drained() {
    let mut bench = Bench::machine(SHARED);
    bench.see(items(0));
    bench.put(1, &["a"]);
    bench.handle(Input::Drain);
    bench.demand(2, 1);
    bench.withdraw(2);
    bench.see(items(0));
    bench.published(101);
    assert_eq!(bench.queue.phase(), Phase::Draining, "an item lies at the servers, and nobody else is there");
}
