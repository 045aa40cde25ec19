//! The queue's rules, each by itself; [`model`]: all of them together, in any order.

mod credit;
mod edges;
mod hurry;
mod journaled;
mod leases;
mod looks;
mod model;
mod order;
mod shared;
mod shown;
mod steering;

use super::*;
use crate::journal::model::Model;
use common::backoff::Backoff;
use common::batch::BatchBuilder;
use std::collections::BTreeMap;

const RULES: Rules = Rules {
    capacity_items: 100,
    capacity_bytes: 100_000,
    item_bytes_max: 1000,
    attempts_max: 3,
    retry_delay: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(3) },
    lease: None,
    early_bytes_max: None,
    producers_expected: None,
    dead_letters_max: 20,
    dead_bytes_max: 20_000,
    journaled: None,
    shared: false,
};

fn batch(items: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default();
    items.iter().for_each(|item| builder.push_bytes(item.as_bytes()));
    builder.take_batch().unwrap()
}

/// A queue and a clock, and short words for what clients say.
struct Bench {
    queue: Queue,
    now: Duration,
    outputs: Vec<Output>,
    positions: BTreeMap<u64, u64>,
    /// What comes of an input is not looked at before the next.
    hurried: bool,
    journal: Model,
    /// Entries that are in the journal and not reported.
    kept: usize,
    loads: Vec<Load>,
    dead_loads: Vec<DeadRange>,
    /// The journal answers only when it is told to.
    slow_journal: bool,
}

impl Bench {
    fn new(rules: Rules) -> Bench {
        Bench::on(rules, Model::default())
    }

    /// A queue that goes on where a journal says.
    fn on(rules: Rules, journal: Model) -> Bench {
        Bench {
            queue: Queue::recover(rules, &journal.recovered()),
            now: Duration::ZERO,
            outputs: Vec::new(),
            positions: BTreeMap::new(),
            hurried: false,
            journal,
            kept: 0,
            loads: Vec::new(),
            dead_loads: Vec::new(),
            slow_journal: false,
        }
    }

    fn handle(&mut self, input: Input) {
        self.queue.handle(input, self.now);
        if !self.hurried {
            self.look();
        }
    }

    fn look(&mut self) {
        while let Some(output) = self.queue.poll() {
            match output {
                Output::Journal(entry) => {
                    // The servers of a shared queue are played by its tests.
                    if self.queue.rules.shared {
                        self.outputs.push(Output::Journal(entry));
                    } else {
                        self.journal.keep(&entry);
                    }
                    self.kept += 1;
                }
                Output::Load(load) => self.loads.push(load),
                Output::LoadDead(range) => self.dead_loads.push(range),
                output => self.outputs.push(output),
            }
        }
        if !self.slow_journal {
            self.journal_answers();
        }
    }

    /// The journal reports what it has done.
    fn journal_answers(&mut self) {
        let entries = std::mem::take(&mut self.kept);
        if entries > 0 {
            self.handle(Input::Journaled { entries });
        }
        for load in std::mem::take(&mut self.loads) {
            let batches = self.journal.load(load);
            self.handle(Input::Loaded { batches });
        }
        for range in std::mem::take(&mut self.dead_loads) {
            let page = self.journal.load_dead(range);
            self.handle(Input::DeadLoaded(page));
        }
    }

    fn say(&mut self, client: u64, message: Message) {
        self.handle(Input::Said { client: ClientId(client), message, batch: None });
    }

    fn steer(&mut self, client: u64, message: Message) {
        self.handle(Input::Steered { client: ClientId(client), message });
    }

    fn producer(&mut self, client: u64) {
        self.handle(Input::ProducerJoined { client: ClientId(client), name: None });
    }

    fn consumer(&mut self, client: u64) {
        self.handle(Input::ConsumerJoined { client: ClientId(client) });
    }

    fn put(&mut self, client: u64, items: &[&str]) {
        let batch = batch(items);
        let position = self.positions.entry(client).or_default();
        let message = Message::Put { position: Position(*position), checksum: 0, batch: batch.header() };
        *position += items.len() as u64;
        self.handle(Input::Said { client: ClientId(client), message, batch: Some(batch) });
    }

    fn demand(&mut self, client: u64, items: u32) {
        self.say(client, Message::Demand { items, bytes: 100_000 });
    }

    fn ack(&mut self, client: u64, first: u64, count: u32) {
        self.say(client, Message::Ack { ranges: vec![ItemRange { first: ItemId(first), count }] });
    }

    fn give_back(&mut self, client: u64, first: u64, count: u32, outcome: Outcome) {
        self.say(client, Message::Return { range: ItemRange { first: ItemId(first), count }, outcome });
    }

    fn leave(&mut self, client: u64) {
        self.handle(Input::Left { client: ClientId(client), orderly: false });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.handle(Input::Tick);
    }

    /// What was delivered since the last look: client, attempt, items.
    fn delivered(&mut self) -> Vec<(u64, u32, Vec<String>)> {
        let mut seen = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Send { client, message: Message::Deliver { attempt, .. }, batch: Some(batch) } => {
                let items = batch.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect();
                seen.push((client.0, *attempt, items));
                false
            }
            _ => true,
        });
        seen
    }

    /// The words of closed connections since the last look.
    fn closed(&mut self) -> Vec<(u64, CloseReason, String)> {
        let mut seen = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Close { client, reason, words } => {
                seen.push((client.0, *reason, words.clone()));
                false
            }
            _ => true,
        });
        seen
    }

    fn sent(&mut self, client: u64, name: &str) -> usize {
        let before = self.outputs.len();
        let is = |output: &Output| matches!(output, Output::Send { client: to, message, .. } if to.0 == client && message.name() == name);
        self.outputs.retain(|output| !is(output));
        before - self.outputs.len()
    }

    /// Reports all that is to be written as written; returns the dead letters among it.
    fn write_all(&mut self) -> Vec<(u64, u32, String)> {
        let mut dead = Vec::new();
        let mut tickets = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Write { ticket, record } => {
                tickets.push(*ticket);
                if let Record::DeadLetter(letter) = record {
                    dead.push((letter.id.0, letter.attempts, letter.cause.to_string()));
                }
                false
            }
            _ => true,
        });
        tickets.into_iter().for_each(|ticket| self.handle(Input::Written { ticket, output_bytes: None }));
        dead
    }
}

fn one(client: u64, attempt: u32, item: &str) -> (u64, u32, Vec<String>) {
    (client, attempt, vec![item.to_string()])
}

#[test]
fn items_leave_in_the_order_in_which_they_came() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b", "c"]);
    bench.demand(2, 2);
    bench.demand(2, 2);
    assert_eq!(bench.delivered(), [(2, 1, vec!["a".into(), "b".into()]), one(2, 1, "c")]);
    bench.put(1, &["d"]);
    assert_eq!(bench.delivered(), [one(2, 1, "d")]);
}

#[test]
fn what_a_closed_connection_held_goes_to_the_head_at_once_with_its_attempts_raised() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b", "c", "d"]);
    bench.demand(2, 3);
    bench.ack(2, 1, 1);
    bench.consumer(3);
    bench.delivered();
    bench.leave(2);
    bench.demand(3, 9);
    assert_eq!(bench.delivered(), [one(3, 2, "a"), one(3, 2, "c"), one(3, 1, "d")]);
}

#[test]
fn an_item_that_kills_its_consumers_is_dead_lettered_and_does_not_take_its_neighbours_along() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.put(1, &["good", "poison", "fine"]);
    for client in 2..6 {
        bench.consumer(client);
        bench.demand(client, 3);
        bench.say(client, Message::Begin { id: ItemId(1) });
        bench.leave(client);
    }
    assert_eq!(bench.write_all(), [(1, 3, "its consumer's connection closed during attempt 3".into())]);
    bench.consumer(9);
    bench.delivered();
    bench.demand(9, 9);
    assert_eq!(bench.delivered(), [(9, 5, vec!["good".into()]), (9, 5, vec!["fine".into()])]);
}

#[test]
fn a_consumer_that_dies_with_a_single_item_has_failed_it() {
    let mut bench = Bench::new(Rules { attempts_max: 1, ..RULES });
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.demand(2, 1);
    bench.leave(2);
    assert_eq!(bench.write_all().len(), 1);
    assert_eq!(bench.queue.status().dead, 1);
}

#[test]
fn failed_attempts_wait_longer_each_time_and_end_in_the_dead_letters() {
    let mut bench = Bench::new(Rules { attempts_max: 4, ..RULES });
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.demand(2, 10);
    for (attempt, most) in [(1, 1), (2, 2), (3, 3)] {
        assert_eq!(bench.delivered(), [one(2, attempt, "a")]);
        bench.give_back(2, 0, 1, Outcome::Failed { cause: "no".into() });
        let delay = bench.queue.next_timeout().unwrap() - bench.now;
        assert!(delay <= Duration::from_secs(most) && delay >= Duration::from_secs(most) * 3 / 4, "{delay:?}");
        bench.pass(delay - Duration::from_nanos(1));
        assert_eq!(bench.delivered(), []);
        bench.pass(Duration::from_nanos(1));
    }
    bench.give_back(2, 0, 1, Outcome::Failed { cause: "never".into() });
    assert_eq!(bench.write_all(), [(0, 4, "never".into())]);
    assert_eq!(bench.queue.status().stored(), 0);
}

#[test]
fn items_that_fail_together_come_again_one_by_one() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b", "c", "d", "e", "f"]);
    bench.demand(2, 6);
    bench.give_back(2, 0, 6, Outcome::Failed { cause: "the server is away".into() });
    let mut times = std::collections::BTreeSet::new();
    while let Some(due) = bench.queue.next_timeout() {
        times.insert(due);
        bench.pass(due - bench.now);
    }
    assert_eq!((times.len(), bench.queue.status().ready), (6, 6), "{times:?}");
    let spread = *times.last().unwrap() - *times.first().unwrap();
    assert!(spread > Duration::from_millis(50) && bench.now <= Duration::from_secs(1), "{times:?}");
}

#[test]
fn a_later_retry_is_no_failure_and_what_was_not_begun_no_attempt() {
    let mut bench = Bench::new(Rules { attempts_max: 1, ..RULES });
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.demand(2, 1);
    bench.give_back(2, 0, 1, Outcome::Unstarted);
    bench.demand(2, 1);
    assert_eq!(bench.delivered(), [one(2, 1, "a"), one(2, 1, "a")]);
    assert_eq!(bench.queue.status().redelivered, 0);
    bench.give_back(2, 0, 1, Outcome::RetryAfter { delay_ms: 500 });
    bench.demand(2, 1);
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.delivered(), [one(2, 2, "a")]);
    bench.handle(Input::Left { client: ClientId(2), orderly: true });
    bench.consumer(3);
    bench.demand(3, 1);
    assert_eq!(bench.delivered(), [one(3, 2, "a")], "a goodbye that crossed the delivery");
    bench.give_back(3, 0, 1, Outcome::Rejected { cause: "bad".into() });
    assert_eq!(bench.write_all(), [(0, 2, "bad".into())]);
}

#[test]
fn an_item_counts_as_done_only_once_its_result_is_written_even_if_its_consumer_dies() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.demand(2, 1);
    let results = batch(&["result"]);
    let message = Message::Result { first: ItemId(0), batch: results.header() };
    bench.handle(Input::Said { client: ClientId(2), message, batch: Some(results) });
    bench.leave(2);
    assert_eq!((bench.queue.status().held, bench.queue.status().acknowledged), (1, 0));
    bench.write_all();
    assert_eq!((bench.queue.status().held, bench.queue.status().acknowledged), (0, 1));
}

#[test]
fn stop_comes_to_every_consumer_once_the_expected_producers_have_finished_and_all_is_settled() {
    let mut bench = Bench::new(Rules { producers_expected: Some(2), ..RULES });
    bench.producer(1);
    bench.producer(2);
    bench.consumer(3);
    bench.consumer(4);
    bench.put(1, &["a"]);
    bench.demand(3, 1);
    bench.say(1, Message::Finish);
    bench.say(2, Message::Finish);
    assert_eq!((bench.sent(1, "Finished"), bench.sent(3, "Stop"), bench.queue.phase()), (1, 0, Phase::Running));
    bench.leave(3);
    bench.demand(4, 1);
    bench.ack(4, 0, 1);
    assert_eq!((bench.sent(4, "Stop"), bench.queue.phase()), (1, Phase::Done));
    bench.consumer(5);
    assert_eq!(bench.sent(5, "Stop"), 1, "one that connects later gets it, too");
    bench.closed();
    bench.producer(6);
    assert_eq!(bench.closed()[0].1, CloseReason::Ended);
}

#[test]
fn what_one_says_that_is_closed_already_is_not_heard() {
    let mut bench = Bench::new(Rules { producers_expected: Some(1), ..RULES });
    bench.producer(1);
    bench.producer(2);
    let said = |message| Input::Said { client: ClientId(2), message, batch: None };
    bench.queue.handle(Input::Said { client: ClientId(1), message: Message::Finish, batch: None }, Duration::ZERO);
    // Its owner has not asked yet what is to be done.
    bench.queue.handle(said(Message::Want { bytes: 1 }), Duration::ZERO);
    bench.queue.handle(said(Message::Finish), Duration::ZERO);
    bench.look();
    let closed = bench.closed();
    assert!(closed.iter().all(|(_, reason, _)| *reason == CloseReason::Ended) && closed.len() == 2, "{closed:?}");
}

#[test]
fn a_name_too_many_is_refused_and_known_ones_may_come_again() {
    let mut bench = Bench::new(RULES);
    let names = || (0..crate::limits::NAMES_MAX).map(|n| n.to_string());
    names().for_each(|name| bench.handle(Input::ProducerLost { name }));
    let named = |client, name: &str| Input::ProducerJoined { client: ClientId(client), name: Some(name.into()) };
    bench.handle(named(1, "7"));
    assert_eq!(bench.closed(), []);
    bench.handle(named(2, "one too many"));
    assert_eq!(bench.closed(), [(2, CloseReason::Limit, "65536 producers have names already; connect without one".into())]);
}

#[test]
fn a_name_finishes_once_and_goes_on_where_it_was() {
    let mut bench = Bench::new(Rules { producers_expected: Some(2), ..RULES });
    let named = |client| Input::ProducerJoined { client: ClientId(client), name: Some("in".into()) };
    bench.handle(named(1));
    bench.put(1, &["a", "b"]);
    bench.handle(named(2));
    assert_eq!(bench.closed(), [(1, CloseReason::Replaced, "another producer has connected under the same name".into())]);
    assert_eq!(bench.queue.position("in"), Position(2));
    bench.positions.insert(2, 2);
    bench.put(2, &["c"]);
    bench.say(2, Message::Finish);
    bench.leave(2);
    bench.handle(Input::ProducerLost { name: "in".into() });
    assert_eq!(bench.queue.status().producers_finished, 1);
    bench.handle(Input::ProducerLost { name: "never came".into() });
    assert_eq!(bench.queue.status().producers_finished, 2);
}

#[test]
fn a_full_queue_gives_credit_only_as_items_are_settled() {
    let mut bench = Bench::new(Rules { capacity_items: 2, ..RULES });
    bench.producer(1);
    bench.consumer(2);
    bench.say(1, Message::Want { bytes: batch_cost_bytes(5) });
    bench.put(1, &["a"]);
    bench.say(1, Message::Want { bytes: batch_cost_bytes(5) });
    bench.put(1, &["b"]);
    bench.sent(1, "Confirm");
    bench.say(1, Message::Want { bytes: batch_cost_bytes(5) });
    assert_eq!(bench.sent(1, "Confirm"), 0);
    assert!(bench.queue.status().is_full());
    bench.say(1, Message::Withdraw);
    assert_eq!(bench.sent(1, "Withdrawn"), 1);
    bench.say(1, Message::Want { bytes: batch_cost_bytes(5) });
    bench.demand(2, 1);
    bench.ack(2, 0, 1);
    assert_eq!(bench.sent(1, "Confirm"), 1);
}

#[test]
fn a_producer_that_does_not_use_its_place_does_not_keep_others_from_it() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
    bench.producer(1);
    bench.say(1, Message::Want { bytes: batch_cost_bytes(5) });
    assert_eq!(bench.sent(1, "Confirm"), 1);
    bench.producer(2);
    bench.say(2, Message::Want { bytes: batch_cost_bytes(5) });
    assert_eq!(bench.sent(2, "Confirm"), 1, "the first is stopped, say");
    bench.put(2, &["second"]);
    bench.put(1, &["first"]);
    assert_eq!(bench.queue.status().stored(), 1, "the bound holds; the late one waits");
    bench.sent(1, "Confirm");
    bench.consumer(3);
    bench.demand(3, 2);
    bench.ack(3, 0, 1);
    assert_eq!(bench.delivered(), [one(3, 1, "second"), one(3, 1, "first")]);
    assert_eq!(bench.sent(1, "Confirm"), 1);
}

#[test]
fn of_two_that_wait_for_room_neither_is_forgotten_when_it_comes() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
    let want = Message::Want { bytes: batch_cost_bytes(5) };
    bench.consumer(4);
    bench.demand(4, 10);
    bench.producer(3);
    bench.say(3, want.clone());
    bench.put(3, &["a"]);
    // Neither has ever had any credit, so that none of it can be recalled.
    for client in [1, 2] {
        bench.producer(client);
        bench.say(client, want.clone());
    }
    bench.outputs.clear();
    bench.ack(4, 0, 1);
    assert_eq!((bench.sent(1, "Confirm"), bench.sent(1, "Recall")), (1, 1), "it hears of both, and knows that it has to ask again");
    assert_eq!((bench.sent(2, "Confirm"), bench.sent(2, "Recall")), (1, 0));
    bench.put(2, &["b"]);
    bench.say(1, Message::Recalled);
    bench.say(1, want);
    bench.ack(4, 1, 1);
    assert_eq!(bench.sent(1, "Confirm"), 1);
    bench.put(1, &["c"]);
    assert_eq!(bench.closed(), []);
}

#[test]
fn a_recall_that_is_void_before_it_is_said_is_not_said() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
    let want = Message::Want { bytes: batch_cost_bytes(5) };
    bench.producer(1);
    bench.producer(2);
    bench.say(1, want.clone());
    bench.outputs.clear();
    // Both happen before anybody is told anything.
    bench.hurried = true;
    bench.say(2, want);
    bench.hurried = false;
    bench.put(1, &["a"]);
    assert_eq!((bench.sent(1, "Recall"), bench.closed()), (0, vec![]), "it would be taken for one that was heard in time");
}

#[test]
fn recalled_credit_is_void_unless_it_was_used_before_the_recall_was_heard() {
    let rules = Rules { capacity_items: 4, ..RULES };
    let want = Message::Want { bytes: batch_cost_bytes(5) };
    let mut heard = Bench::new(rules.clone());
    heard.producer(1);
    heard.producer(2);
    heard.put(2, &["a"]);
    for item in ["b", "c", "d"] {
        heard.say(2, want.clone());
        heard.put(2, &[item]);
    }
    assert_eq!((heard.sent(1, "Recall"), heard.queue.status().stored()), (1, 4));
    heard.sent(1, "Confirm");
    heard.say(1, Message::Recalled);
    heard.say(1, want.clone());
    heard.say(1, Message::Withdraw);
    assert_eq!((heard.sent(1, "Confirm"), heard.sent(1, "Withdrawn")), (0, 1), "full is full");
    heard.put(1, &["on void credit"]);
    assert!(heard.closed()[0].2.contains("on credit for 0"));
    let mut crossed = Bench::new(rules);
    crossed.producer(1);
    crossed.producer(2);
    for _ in 0..3 {
        crossed.say(2, want.clone());
        crossed.put(2, &["x"]);
    }
    crossed.say(1, want);
    assert_eq!(crossed.queue.status().producers_waiting, 0, "what may never answer does not wait in line");
    crossed.put(1, &["crossed the recall"]);
    assert_eq!(crossed.closed(), []);
    assert_eq!(crossed.queue.status().stored(), 4);
    crossed.say(1, Message::Recalled);
    assert!(crossed.closed()[0].2.contains("Recalled without a Recall"));
}

#[test]
fn nobody_can_wait_for_more_room_than_there_is_and_hold_others_up() {
    let mut bench = Bench::new(Rules { capacity_items: 4, capacity_bytes: 2000, ..RULES });
    bench.producer(1);
    bench.producer(2);
    bench.say(1, Message::Want { bytes: 1 << 20 });
    assert!(matches!(&bench.closed()[..], [(1, CloseReason::Protocol, words)] if words.contains("the largest item needs")));
    // Reservations are taken back from each in turn, and their credit stays: it must not add up to more than fits.
    bench.producer(3);
    let mut credit = BTreeMap::from([(2, 0), (3, 0)]);
    let mut recalled = Vec::new();
    for _ in 0..20 {
        for client in [2, 3] {
            bench.say(client, Message::Want { bytes: 1196 });
            bench.outputs.drain(..).for_each(|output| match output {
                Output::Send { client, message: Message::Confirm { credit_items, .. }, .. } => {
                    *credit.entry(client.0).or_insert(0) += credit_items
                }
                Output::Send { client, message: Message::Recall { .. }, .. } => {
                    credit.insert(client.0, 0);
                    recalled.push(client.0);
                }
                _ => {}
            });
            recalled.drain(..).for_each(|client| bench.say(client, Message::Recalled));
        }
    }
    assert!(credit.values().all(|items| *items <= 4), "{credit:?}");
}

#[test]
fn batches_items_and_results_over_their_limit_are_refused() {
    let large = "x".repeat(1001);
    let mut bench = Bench::new(Rules { capacity_items: 1 << 20, capacity_bytes: 1 << 30, ..RULES });
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["ok"]);
    bench.demand(2, 1);
    let results = batch(&[&(large.clone() + "x")]);
    let message = Message::Result { first: ItemId(0), batch: results.header() };
    bench.handle(Input::Said { client: ClientId(2), message, batch: Some(results) });
    assert!(bench.closed()[0].2.contains("one result has 1002 bytes; at most 1001"));
    bench.put(1, &[&large]);
    assert!(bench.closed()[0].2.contains("one item has 1001 bytes; at most 1000"));
    bench.producer(3);
    bench.put(3, &vec!["ten bytes."; 60_000]);
    assert!(bench.closed()[0].2.contains("a batch of 600000 bytes"));
}

#[test]
fn what_is_against_the_rules_closes_the_connection_and_says_why() {
    type Case = (&'static str, fn(&mut Bench));
    let cases: [Case; 8] = [
        ("on credit for", |bench| bench.put(1, &["x"; 101])),
        ("the next is 0", |bench| {
            bench.positions.insert(1, 7);
            bench.put(1, &["x"]);
        }),
        ("not all of which it holds", |bench| bench.ack(2, 0, 1)),
        ("not all of which it holds", |bench| bench.ack(2, u64::MAX, 2)),
        ("not all of which it holds", |bench| bench.give_back(2, 0, 0, Outcome::Released)),
        ("Demand is for consumers", |bench| bench.demand(1, 1)),
        ("Finish is for producers", |bench| bench.say(2, Message::Finish)),
        ("Stop has no place here", |bench| bench.say(2, Message::Stop)),
    ];
    for (words, act) in cases {
        let mut bench = Bench::new(RULES);
        bench.producer(1);
        bench.consumer(2);
        act(&mut bench);
        let closed = bench.closed();
        assert!(matches!(&closed[..], [(_, CloseReason::Protocol, said)] if said.contains(words)), "{words}: {closed:?}");
    }
}

#[test]
fn acknowledging_twice_or_for_another_is_refused_and_settles_nothing() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.consumer(3);
    bench.put(1, &["a", "b"]);
    bench.demand(2, 1);
    bench.demand(3, 1);
    bench.ack(3, 0, 1);
    assert_eq!((bench.closed().len(), bench.queue.status().acknowledged), (1, 0));
    bench.ack(2, 0, 1);
    bench.ack(2, 0, 1);
    assert_eq!((bench.closed().len(), bench.queue.status().acknowledged), (1, 1));
}

#[test]
fn join_is_answered_once_all_that_was_there_is_settled() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.say(1, Message::Join);
    assert_eq!(bench.sent(1, "Joined"), 1);
    bench.put(1, &["a", "b"]);
    bench.say(1, Message::Join);
    bench.put(1, &["later"]);
    bench.demand(2, 3);
    bench.ack(2, 1, 1);
    assert_eq!(bench.sent(1, "Joined"), 0);
    bench.ack(2, 0, 1);
    assert_eq!(bench.sent(1, "Joined"), 1);
}

#[test]
fn drain_takes_nothing_more_and_stop_hands_out_nothing_more() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b"]);
    bench.demand(2, 1);
    bench.handle(Input::Drain);
    assert_eq!(bench.closed()[0].1, CloseReason::Ended);
    bench.demand(2, 1);
    assert_eq!(bench.delivered().len(), 2);
    bench.give_back(2, 1, 1, Outcome::Unstarted);
    bench.handle(Input::Stop);
    assert_eq!((bench.sent(2, "Stop"), bench.queue.phase()), (1, Phase::Stopping));
    bench.demand(2, 5);
    assert_eq!(bench.delivered(), []);
    bench.ack(2, 0, 1);
    assert_eq!((bench.queue.status().ready, bench.queue.status().held), (1, 0));
}
