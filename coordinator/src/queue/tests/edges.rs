//! The rules at their edges: exactly as much as is allowed, the first and the last of several, what comes twice.

use super::*;
use crate::limits::{DEMAND_BYTES_MAX, DEMAND_ITEMS_MAX, NAMES_MAX};

impl Bench {
    fn named(&mut self, client: u64, name: &str) {
        self.handle(Input::ProducerJoined { client: ClientId(client), name: Some(name.into()) });
    }

    fn lose(&mut self, name: &str) {
        self.handle(Input::ProducerLost { name: name.into() });
    }

    fn result(&mut self, client: u64, first: u64) {
        let results = batch(&["done"]);
        let message = Message::Result { first: ItemId(first), batch: results.header() };
        self.handle(Input::Said { client: ClientId(client), message, batch: Some(results) });
    }
}

fn many(client: u64, attempt: u32, items: &[&str]) -> (u64, u32, Vec<String>) {
    (client, attempt, items.iter().map(|item| item.to_string()).collect())
}

#[test]
fn a_name_has_finished_once_its_producer_says_so_or_is_lost() {
    let mut bench = Bench::new(RULES);
    bench.named(1, "in");
    assert!(!bench.queue.has_finished("in") && !bench.queue.has_finished("lost"));
    bench.say(1, Message::Finish);
    bench.lose("lost");
    assert!(bench.queue.has_finished("in") && bench.queue.has_finished("lost"));
}

#[test]
fn a_name_that_has_finished_without_an_item_is_remembered() {
    let mut bench = Bench::new(RULES);
    bench.named(1, "in");
    bench.say(1, Message::Finish);
    bench.leave(1);
    bench.lose("in");
    assert_eq!(bench.queue.status().producers_finished, 1);
}

#[test]
fn when_there_are_too_many_names_only_a_known_one_may_come_again() {
    let mut bench = Bench::new(RULES);
    (0..NAMES_MAX).for_each(|number| bench.lose(&number.to_string()));
    bench.named(1, "0");
    assert_eq!(bench.closed(), []);
    bench.named(2, "one more");
    assert!(matches!(&bench.closed()[..], [(2, CloseReason::Limit, _)]));
}

#[test]
fn consumers_announce_what_may_be_to_blame_which_is_every_item_if_one_failure_is_too_many() {
    assert_eq!(Queue::new(RULES).announce_from(), 2);
    assert_eq!(Queue::new(Rules { attempts_max: 1, ..RULES }).announce_from(), 1);
}

#[test]
fn the_figures_tell_who_is_connected_and_who_waits() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
    (1..4).for_each(|client| bench.producer(client));
    (4..8).for_each(|client| bench.consumer(client));
    bench.demand(4, 1);
    bench.demand(5, 1);
    let status = bench.queue.status();
    assert_eq!((status.producers, status.producers_waiting, status.consumers, status.consumers_waiting), (3, 0, 4, 2));
    bench.leave(4);
    bench.say(5, Message::Withdraw);
    bench.say(1, Message::Want { bytes: batch_cost_bytes(5) });
    bench.put(1, &["a"]);
    bench.say(2, Message::Want { bytes: batch_cost_bytes(5) });
    bench.say(3, Message::Want { bytes: batch_cost_bytes(5) });
    bench.leave(1);
    let status = bench.queue.status();
    assert_eq!((status.producers, status.producers_waiting, status.consumers, status.consumers_waiting), (2, 2, 3, 0));
}

#[test]
fn only_who_is_still_there_is_told_that_all_is_settled() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.demand(2, 1);
    bench.say(8, Message::Join);
    bench.say(9, Message::Join);
    bench.leave(8);
    bench.ack(2, 0, 1);
    assert_eq!((bench.sent(8, "Joined"), bench.sent(9, "Joined")), (0, 1));
}

#[test]
fn what_is_let_go_comes_again_at_once_and_is_a_failed_attempt() {
    let mut bench = Bench::new(Rules { attempts_max: 2, ..RULES });
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.demand(2, 3);
    bench.give_back(2, 0, 1, Outcome::Released);
    assert_eq!(bench.delivered(), [one(2, 1, "a"), one(2, 2, "a")]);
    bench.give_back(2, 0, 1, Outcome::Released);
    assert_eq!(bench.write_all(), [(0, 2, "its consumer let it go unsettled".into())]);
}

#[test]
fn what_was_delivered_again_and_not_begun_was_not_delivered_again() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.demand(2, 2);
    bench.give_back(2, 0, 1, Outcome::Released);
    assert_eq!(bench.queue.status().redelivered, 1);
    bench.give_back(2, 0, 1, Outcome::Unstarted);
    assert_eq!(bench.queue.status().redelivered, 0);
}

#[test]
fn several_results_can_be_on_their_way_out() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b"]);
    bench.demand(2, 2);
    bench.result(2, 0);
    bench.result(2, 1);
    assert_eq!(bench.queue.status().held, 2);
    bench.write_all();
    assert_eq!((bench.queue.status().held, bench.queue.status().acknowledged), (0, 2));
}

#[test]
fn done_is_done() {
    let mut bench = Bench::new(Rules { producers_expected: Some(0), ..RULES });
    bench.pass(Duration::ZERO);
    bench.handle(Input::Stop);
    bench.handle(Input::Drain);
    assert_eq!(bench.queue.phase(), Phase::Done);
}

#[test]
fn a_batch_and_its_items_may_be_exactly_as_large_as_is_allowed() {
    // 328 items and their table: 65,536 bytes, a largest result and a full table; see `body_bytes_max`.
    let rules = Rules { capacity_items: 1 << 20, capacity_bytes: 1 << 30, ..RULES };
    let largest = "x".repeat(1000);
    for (last, is_accepted) in [(369, true), (370, false)] {
        let mut items = vec![&largest[..]; 327];
        items.push(&largest[..last]);
        let mut bench = Bench::new(rules.clone());
        bench.producer(1);
        bench.put(1, &items);
        assert_eq!(bench.queue.status().accepted, if is_accepted { 328 } else { 0 });
        assert_eq!(bench.closed().is_empty(), is_accepted);
    }
}

#[test]
fn a_consumer_that_asks_for_no_bytes_gets_nothing() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.say(2, Message::Demand { items: 1, bytes: 0 });
    assert_eq!(bench.delivered(), []);
    bench.say(2, Message::Demand { items: 0, bytes: 1 });
    assert_eq!(bench.delivered(), [one(2, 1, "a")]);
}

#[test]
fn a_consumer_that_takes_its_demand_back_gets_nothing() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.demand(2, 1);
    bench.say(2, Message::Withdraw);
    assert_eq!(bench.sent(2, "Withdrawn"), 1);
    bench.put(1, &["a"]);
    assert_eq!(bench.delivered(), []);
}

#[test]
fn a_consumer_may_ask_for_exactly_as_much_as_is_allowed() {
    for (items, bytes) in [(1, 0), (0, 1)] {
        let mut bench = Bench::new(RULES);
        bench.consumer(2);
        bench.say(2, Message::Demand { items: DEMAND_ITEMS_MAX, bytes: DEMAND_BYTES_MAX as u64 });
        assert_eq!(bench.closed(), []);
        bench.say(2, Message::Demand { items, bytes });
        assert!(bench.closed()[0].2.contains("demands more than"));
    }
}

#[test]
fn who_asks_twice_does_not_get_two_turns_in_a_row() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.consumer(3);
    bench.demand(2, 1);
    bench.demand(2, 1);
    bench.demand(3, 1);
    ["a", "b", "c"].into_iter().for_each(|item| bench.put(1, &[item]));
    assert_eq!(bench.delivered(), [one(2, 1, "a"), one(3, 1, "b"), one(2, 1, "c")]);
}

#[test]
fn only_what_was_begun_has_failed_wherever_in_the_consumers_hands_it_lies() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.consumer(3);
    bench.put(1, &["a", "b", "c", "d", "e"]);
    bench.demand(2, 5);
    bench.ack(2, 0, 2);
    bench.say(2, Message::Begin { id: ItemId(4) });
    bench.delivered();
    bench.leave(2);
    bench.demand(3, 9);
    assert_eq!(bench.delivered(), [many(3, 2, &["c", "d"]), many(3, 2, &["e"])], "the last has another past than its neighbours");
}

#[test]
fn what_was_begun_and_given_back_is_not_to_blame_the_next_time() {
    let mut bench = Bench::new(Rules { attempts_max: 1, ..RULES });
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b", "c"]);
    bench.demand(2, 4);
    bench.say(2, Message::Begin { id: ItemId(1) });
    bench.give_back(2, 1, 1, Outcome::Unstarted);
    assert_eq!(bench.delivered(), [many(2, 1, &["a", "b", "c"]), one(2, 1, "b")]);
    bench.leave(2);
    assert_eq!(bench.write_all(), []);
    assert_eq!(bench.queue.status().ready, 3);
}

#[test]
fn who_asks_at_the_moment_when_a_delay_has_passed_gets_the_item() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.put(1, &["a"]);
    bench.consumer(2);
    bench.demand(2, 1);
    bench.give_back(2, 0, 1, Outcome::RetryAfter { delay_ms: 700 });
    bench.demand(2, 1);
    bench.now += Duration::from_millis(700);
    bench.delivered();
    bench.say(2, Message::Withdraw);
    assert_eq!(bench.delivered(), [one(2, 2, "a")]);
}

#[test]
fn who_was_closed_is_not_answered_any_more() {
    for replaced in [true, false] {
        let mut bench = Bench::new(RULES);
        let join = |client| Input::ProducerJoined { client: ClientId(client), name: Some("same".into()) };
        bench.handle(join(3));
        bench.put(3, &["a"]);
        bench.say(3, Message::Join);
        bench.handle(if replaced { join(4) } else { Input::Drain });
        assert_eq!(bench.closed().len(), 1);
        bench.consumer(9);
        bench.demand(9, 1);
        bench.ack(9, 0, 1);
        assert_eq!(bench.sent(3, "Joined"), 0);
    }
}
