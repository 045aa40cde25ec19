//! A queue that lies in a journal: what counts when, what is in memory, what is there after its coordinator has died.

use super::*;
use proptest::prelude::*;

const WINDOW: Window = Window { near_bytes: 100_000, unwritten_bytes: 100_000 };
const JOURNALED: Rules = Rules { journaled: Some(WINDOW), ..RULES };

fn named(client: u64, name: &str) -> Input {
    Input::ProducerJoined { client: ClientId(client), name: Some(name.into()) }
}

impl Bench {
    /// A bench whose journal answers only when told to.
    fn slow(rules: Rules) -> Bench {
        Bench { slow_journal: true, ..Bench::new(rules) }
    }

    /// What producers were told when they were welcomed: client, position and checksum.
    fn welcomed(&mut self) -> Vec<(u64, u64, Option<u64>)> {
        let mut seen = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Welcome { client, position, checksum } => {
                seen.push((client.0, position.0, *checksum));
                false
            }
            _ => true,
        });
        seen
    }

    /// How many items a producer was told are confirmed, and the bytes of credit, since the last call.
    fn confirmed(&mut self, client: u64) -> (u64, u64) {
        let (mut confirmed, mut bytes) = (0, 0);
        self.outputs.retain(|output| match output {
            Output::Send { client: to, message: Message::Confirm { position, credit_bytes, .. }, .. } if to.0 == client => {
                confirmed = position.0;
                bytes += credit_bytes;
                false
            }
            _ => true,
        });
        (confirmed, bytes)
    }

    fn put_with(&mut self, client: u64, items: &[&str], checksum: u64) {
        let batch = batch(items);
        let position = self.positions.entry(client).or_default();
        let message = Message::Put { position: Position(*position), checksum, batch: batch.header() };
        *position += items.len() as u64;
        self.handle(Input::Said { client: ClientId(client), message, batch: Some(batch) });
    }

    /// The coordinator dies and comes again: only the journal is left.
    fn again(self, rules: Rules) -> Bench {
        Bench::on(rules, self.journal)
    }
}

#[test]
fn a_put_is_neither_confirmed_nor_delivered_before_it_is_in_the_journal() {
    let mut bench = Bench::slow(JOURNALED);
    bench.producer(1);
    bench.consumer(2);
    bench.demand(2, 5);
    bench.put(1, &["a"]);
    assert_eq!((bench.confirmed(1).0, bench.delivered()), (0, vec![]));
    assert_eq!(bench.queue.status().stored(), 1);
    bench.journal_answers();
    assert_eq!((bench.confirmed(1).0, bench.delivered()), (1, vec![one(2, 1, "a")]));
}

#[test]
fn an_item_is_settled_once_that_is_in_the_journal() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..JOURNALED });
    bench.producer(1);
    bench.consumer(2);
    bench.demand(2, 5);
    let want = || Message::Want { bytes: batch_cost_bytes(5) };
    bench.say(1, want());
    bench.put(1, &["a"]);
    bench.say(1, Message::Join);
    bench.say(1, want());
    bench.confirmed(1);
    bench.slow_journal = true;
    bench.ack(2, 0, 1);
    let status = bench.queue.status();
    assert_eq!((bench.sent(1, "Joined"), bench.confirmed(1).1, status.acknowledged, status.held), (0, 0, 0, 1));
    bench.journal_answers();
    assert_eq!((bench.sent(1, "Joined"), bench.queue.status().acknowledged), (1, 1));
    assert!(bench.confirmed(1).1 > 0, "there is room again");
}

#[test]
fn the_end_is_not_told_before_the_journal_knows_of_it() {
    let mut bench = Bench::slow(Rules { producers_expected: Some(1), ..JOURNALED });
    bench.producer(1);
    bench.consumer(2);
    bench.say(1, Message::Finish);
    assert_eq!((bench.sent(1, "Finished"), bench.sent(2, "Stop")), (0, 0));
    bench.journal_answers();
    assert_eq!((bench.sent(1, "Finished"), bench.sent(2, "Stop")), (1, 1));
    assert_eq!(bench.journal.recovered().finished_unnamed, 1);
}

#[test]
fn who_has_gone_before_its_end_is_in_the_journal_is_told_nothing() {
    let mut bench = Bench::slow(Rules { producers_expected: Some(2), ..JOURNALED });
    bench.producer(1);
    bench.say(1, Message::Finish);
    bench.leave(1);
    bench.journal_answers();
    assert_eq!((bench.sent(1, "Finished"), bench.queue.status().producers_finished), (0, 1));
}

#[test]
fn who_is_closed_before_it_was_welcomed_hears_no_answer_behind_that() {
    let mut bench = Bench::slow(JOURNALED);
    bench.consumer(9);
    bench.handle(named(1, "n"));
    bench.put_with(1, &["a"], 77);
    bench.leave(1);
    bench.handle(named(2, "n"));
    bench.say(2, Message::Join);
    bench.handle(Input::Drain);
    bench.journal_answers();
    assert_eq!(bench.closed().iter().map(|(client, reason, _)| (*client, *reason)).collect::<Vec<_>>(), [(2, CloseReason::Ended)]);
    bench.demand(9, 1);
    bench.ack(9, 0, 1);
    bench.journal_answers();
    assert_eq!((bench.queue.status().acknowledged, bench.sent(2, "Joined")), (1, 0));
}

#[test]
fn one_who_comes_again_is_welcomed_once_it_is_certain_how_far_it_has_come() {
    let mut bench = Bench::slow(JOURNALED);
    bench.handle(named(1, "n"));
    assert_eq!(bench.welcomed(), [(1, 0, Some(0))]);
    bench.put_with(1, &["a", "b"], 77);
    bench.leave(1);
    bench.handle(named(2, "n"));
    bench.handle(named(3, "n"));
    assert_eq!(bench.welcomed(), []);
    assert_eq!(bench.closed().iter().map(|(client, ..)| *client).collect::<Vec<_>>(), [2], "the third has replaced the second");
    bench.journal_answers();
    assert_eq!(bench.welcomed(), [(3, 2, Some(77))]);
    bench.positions.insert(3, 2);
    bench.put_with(3, &["c"], 78);
    bench.journal_answers();
    assert_eq!(bench.queue.position("n"), Position(3));
}

#[test]
fn one_who_waits_to_be_welcomed_may_go_or_hear_that_it_is_too_late() {
    let mut bench = Bench::slow(JOURNALED);
    bench.handle(named(1, "n"));
    bench.put(1, &["a"]);
    bench.leave(1);
    bench.handle(named(2, "n"));
    bench.leave(2);
    bench.handle(named(3, "n"));
    bench.welcomed();
    bench.handle(Input::Drain);
    assert_eq!((bench.closed(), bench.welcomed()), (vec![], vec![]), "what it is told must be certain");
    bench.journal_answers();
    assert_eq!(bench.welcomed(), [(3, 1, Some(0))]);
    assert_eq!(bench.closed().iter().map(|(client, reason, _)| (*client, *reason)).collect::<Vec<_>>(), [(3, CloseReason::Ended)]);
}

#[test]
fn what_is_on_its_way_to_the_journal_has_a_bound_of_its_own() {
    let item = "x".repeat(1000);
    let window = Window { near_bytes: 100_000, unwritten_bytes: 3000 };
    let mut bench = Bench::slow(Rules { journaled: Some(window), ..RULES });
    bench.producer(1);
    let cost = batch_cost_bytes(1000);
    let (mut put, mut credit) = (0, 0);
    loop {
        bench.say(1, Message::Want { bytes: cost });
        credit += bench.confirmed(1).1;
        assert!(put * cost + credit <= 3000, "{put} items on their way, and credit for {credit} bytes more");
        if credit < cost {
            break;
        }
        bench.put(1, &[&item]);
        (put, credit) = (put + 1, credit - cost);
    }
    assert_eq!(put, 2);
    bench.journal_answers();
    assert!(bench.confirmed(1).1 > 0);
}

#[test]
fn what_the_journal_has_leaves_its_room_to_others() {
    const UNWRITTEN: u64 = 10_000;
    let rules = || Rules { journaled: Some(Window { near_bytes: 100_000, unwritten_bytes: UNWRITTEN }), ..RULES };
    let each = batch_cost_bytes(batch(&["a"]).body_bytes());
    let mut bench = Bench::slow(rules());
    bench.producer(1);
    bench.put(1, &["a"]);
    bench.put(1, &["b"]);
    bench.leave(1);
    let room_beside_one_of_two = |bench: &mut Bench| {
        assert_eq!(std::mem::replace(&mut bench.kept, 1), 2);
        bench.handle(Input::Journaled { entries: 1 });
        bench.producer(9);
        let (_, credit_bytes) = bench.confirmed(9);
        bench.leave(9);
        credit_bytes
    };
    assert_eq!(room_beside_one_of_two(&mut bench), (UNWRITTEN - each) / 2, "half of it is for others");
    bench.journal_answers();
    bench.consumer(2);
    bench.demand(2, 2);
    bench.give_back(2, 0, 2, Outcome::Rejected { cause: "no".into() });
    bench.write_all();
    bench.journal_answers();
    bench.steer(5, Message::DeadRemove { from: ItemId(0), until: ItemId(9), fate: common::message::DeadFate::Requeue });
    bench.journal_answers();
    assert_eq!(room_beside_one_of_two(&mut bench), (UNWRITTEN - each) / 2, "dead letters that are put again take room, too");
}

#[test]
fn nobody_is_given_credit_for_more_than_may_be_on_its_way_at_once() {
    let window = Window { near_bytes: 1, unwritten_bytes: 1 };
    let mut bench = Bench::new(Rules { journaled: Some(window), ..RULES });
    let most = batch_cost_bytes(RULES.item_bytes_max + 4);
    bench.producer(1);
    let (_, first) = bench.confirmed(1);
    bench.producer(2);
    bench.say(2, Message::Want { bytes: most });
    assert_eq!(bench.sent(1, "Recall"), 1);
    // Its Put has crossed the Recall: the credit stays good, though the place is another's.
    bench.put(1, &["a"]);
    bench.say(1, Message::Want { bytes: most });
    bench.leave(2);
    let (_, more) = bench.confirmed(1);
    assert!(first - batch_cost_bytes(1) + more <= most, "{first} and {more}");
}

#[test]
fn a_queue_much_larger_than_its_window_comes_out_whole_and_in_order() {
    let window = Window { near_bytes: 1000, unwritten_bytes: 100_000 };
    let mut bench = Bench::new(Rules { capacity_items: 1000, journaled: Some(window), ..RULES });
    bench.producer(1);
    let items: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    items.iter().for_each(|item| bench.put(1, &[item]));
    assert_eq!(bench.queue.status().ready, 100);
    let in_memory = || bench.queue.bytes_in_memory();
    assert!(in_memory() <= 1000, "{} bytes are in memory", in_memory());
    bench.consumer(2);
    let mut came = Vec::new();
    while came.len() < 100 {
        bench.demand(2, 1);
        let delivered = bench.delivered();
        assert_eq!(delivered.len(), 1);
        came.extend(delivered.into_iter().flat_map(|(.., items)| items));
        bench.ack(2, came.len() as u64 - 1, 1);
        assert!(bench.queue.bytes_in_memory() <= 1000 + batch_cost_bytes(2));
    }
    assert_eq!(came, items);
    assert_eq!(bench.queue.status().bytes, 0);
}

#[test]
fn what_waits_for_its_time_leaves_a_memory_that_is_full_and_what_is_ready_does_not() {
    let one = batch_cost_bytes(batch(&["a"]).body_bytes());
    for (outcome, kept) in [(Outcome::RetryAfter { delay_ms: 1 }, one), (Outcome::Unstarted, 2 * one)] {
        let mut bench = Bench::new(Rules { journaled: Some(Window { near_bytes: one, unwritten_bytes: 100_000 }), ..RULES });
        bench.producer(1);
        bench.consumer(2);
        bench.put(1, &["a"]);
        bench.put(1, &["b"]);
        assert_eq!(bench.queue.bytes_in_memory(), one);
        bench.demand(2, 2);
        assert_eq!((bench.delivered().len(), bench.queue.bytes_in_memory()), (2, 2 * one));
        bench.give_back(2, 1, 1, outcome);
        assert_eq!(bench.queue.bytes_in_memory(), kept);
    }
}

#[test]
fn nothing_is_loaded_into_a_memory_that_holds_enough_unless_somebody_waits_for_it() {
    let one = batch_cost_bytes(batch(&["a"]).body_bytes());
    let mut bench = Bench::new(Rules { journaled: Some(Window { near_bytes: one, unwritten_bytes: 100_000 }), ..RULES });
    bench.producer(1);
    bench.consumer(2);
    ["a", "b"].into_iter().for_each(|item| bench.put(1, &[item]));
    bench.demand(2, 1);
    assert_eq!((bench.queue.ready.items(), bench.queue.bytes_in_memory()), (0, one));
    bench.demand(2, 1);
    assert_eq!(bench.queue.bytes_in_memory(), 2 * one);
}

#[test]
fn of_a_batch_that_is_loaded_all_is_ready_but_what_is_settled_wherever_in_it_that_lies() {
    let mut bench = Bench::new(JOURNALED);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b", "c", "d", "e", "f", "g", "h"]);
    bench.demand(2, 8);
    bench.ack(2, 1, 2);
    bench.ack(2, 7, 1);
    bench.give_back(2, 5, 1, Outcome::Released);
    let mut bench = bench.again(JOURNALED);
    bench.consumer(2);
    bench.demand(2, 8);
    let delivered = [one(2, 1, "a"), (2, 1, vec!["d".into(), "e".into()]), one(2, 2, "f"), one(2, 1, "g")];
    assert_eq!(bench.delivered(), delivered);
}

#[test]
fn what_comes_back_without_a_failure_is_nothing_for_the_journal() {
    let mut bench = Bench::slow(JOURNALED);
    bench.producer(1);
    bench.put(1, &["a", "b"]);
    bench.journal_answers();
    bench.consumer(2);
    bench.demand(2, 2);
    bench.leave(2);
    assert_eq!((bench.kept, bench.queue.status().ready), (0, 2));
}

#[test]
fn what_earlier_coordinators_have_acknowledged_is_counted_apart() {
    let mut bench = Bench::new(JOURNALED);
    bench.producer(1);
    bench.put(1, &["a", "b", "c", "d", "e"]);
    bench.consumer(2);
    bench.demand(2, 5);
    bench.ack(2, 0, 3);
    assert_eq!(bench.queue.acknowledged_here(), 3);
    let mut bench = bench.again(JOURNALED);
    bench.consumer(2);
    bench.demand(2, 5);
    bench.ack(2, 3, 2);
    assert_eq!((bench.queue.acknowledged_here(), bench.queue.status().acknowledged), (2, 5));
}

#[test]
fn who_has_finished_has_done_so_for_later_coordinators_too() {
    let mut bench = Bench::new(JOURNALED);
    bench.handle(named(1, "one"));
    bench.handle(named(2, "two"));
    bench.producer(3);
    for client in 1..=3 {
        bench.put(client, &["a"]);
    }
    bench.say(1, Message::Finish);
    bench.say(3, Message::Finish);
    let mut bench = bench.again(JOURNALED);
    let finished = |bench: &Bench| (bench.queue.status().producers_finished, ["one", "two"].map(|name| bench.queue.has_finished(name)));
    assert_eq!(finished(&bench), (2, [true, false]));
    bench.handle(Input::ProducerLost { name: "one".into() });
    assert_eq!(finished(&bench), (2, [true, false]), "once");
}

#[test]
fn failed_attempts_count_on_after_the_coordinator_has_died() {
    let mut bench = Bench::new(JOURNALED);
    bench.producer(1);
    bench.consumer(2);
    bench.demand(2, 9);
    bench.put(1, &["good", "bad", "good too"]);
    bench.give_back(2, 1, 1, Outcome::Failed { cause: "bad".into() });
    bench.pass(Duration::from_secs(9));
    bench.ack(2, 0, 1);
    let mut bench = bench.again(JOURNALED);
    assert_eq!((bench.queue.status().ready, bench.queue.status().acknowledged, bench.queue.status().accepted), (2, 1, 3));
    bench.consumer(3);
    bench.demand(3, 9);
    assert_eq!(bench.delivered(), [one(3, 2, "bad"), one(3, 1, "good too")]);
    bench.give_back(3, 1, 1, Outcome::Failed { cause: "bad".into() });
    bench.pass(Duration::from_secs(9));
    bench.demand(3, 9);
    bench.give_back(3, 1, 1, Outcome::Failed { cause: "bad again".into() });
    assert_eq!(bench.write_all(), [(1, 3, "bad again".into())]);
    let bench = bench.again(JOURNALED);
    assert_eq!((bench.queue.status().dead, bench.queue.status().ready), (1, 1));
    assert_eq!(bench.journal.dead[&1].item, "bad");
}

#[test]
fn a_result_counts_with_the_length_that_the_output_has_with_it() {
    let mut bench = Bench::new(JOURNALED);
    bench.producer(1);
    bench.consumer(2);
    bench.demand(2, 1);
    bench.put(1, &["a"]);
    let results = batch(&["result"]);
    let message = Message::Result { first: ItemId(0), batch: results.header() };
    bench.handle(Input::Said { client: ClientId(2), message, batch: Some(results) });
    let Some(Output::Write { ticket, .. }) = bench.outputs.iter().find(|output| matches!(output, Output::Write { .. })) else { panic!() };
    bench.handle(Input::Written { ticket: *ticket, output_bytes: Some(6) });
    let recovered = bench.journal.recovered();
    assert_eq!((recovered.output_bytes, recovered.items), (Some(6), 0));
}

proptest! {
    /// Rounds of putting, working and dying. What was confirmed is never lost, what the journal knows as settled never comes again, and
    /// producers that go on where they are told put everything exactly once.
    #[test]
    fn nothing_is_lost_or_doubled_however_often_the_coordinator_dies(
        rounds in prop::collection::vec(prop::collection::vec((0u8..6, 1u64..5), 0..25), 1..6),
        near_bytes in 1u64..2000,
    ) {
        let window = Window { near_bytes, unwritten_bytes: 100_000 };
        let rules = Rules { capacity_items: 50, attempts_max: 100, journaled: Some(window), ..RULES };
        let mut journal = Model::default();
        let mut settled: BTreeMap<String, u32> = BTreeMap::new();
        let mut put = 0;
        let last = rounds.len();
        for (round, steps) in rounds.into_iter().chain([Vec::new()]).enumerate() {
            let mut bench = Bench { slow_journal: true, ..Bench::on(rules.clone(), journal) };
            bench.handle(named(1, "n"));
            bench.journal_answers();
            let [(_, position, Some(checksum))] = bench.welcomed()[..] else { panic!("one welcome") };
            prop_assert!(position <= put && checksum == position * 3, "the checksum is that of what was accepted");
            // It goes on where it is told.
            put = position;
            bench.positions.insert(1, position);
            bench.consumer(2);
            let mut held: Vec<(u64, String)> = Vec::new();
            let mut credit = 0i64;
            let ending = (0..400).map(|n| (n % 4, 5u64)).take(if round == last { 400 } else { 0 });
            for (what, count) in steps.into_iter().chain(ending.map(|(what, count)| ([5, 1, 2, 5][what], count))) {
                match what {
                    0 => for _ in 0..count.min(credit.max(0) as u64) {
                        put += 1;
                        credit -= 1;
                        bench.put_with(1, &[&format!("{}", put - 1)], put * 3);
                    },
                    1 => bench.demand(2, count as u32),
                    2 | 3 => for _ in 0..count.min(held.len() as u64) {
                        let (id, item) = held.remove(0);
                        if what == 2 {
                            bench.ack(2, id, 1);
                            *settled.entry(item).or_default() += 1;
                        } else {
                            bench.give_back(2, id, 1, Outcome::Failed { cause: "no".into() });
                        }
                    },
                    4 => bench.pass(Duration::from_secs(1)),
                    _ => { bench.pass(Duration::from_secs(3)); bench.journal_answers(); }
                }
                for output in std::mem::take(&mut bench.outputs) {
                    match output {
                        Output::Send { message: Message::Confirm { credit_items, .. }, .. } => credit += credit_items as i64,
                        Output::Send { message: Message::Deliver { first, .. }, batch: Some(batch), .. } => {
                            for (id, item) in (first.0..).zip(batch.iter()) {
                                held.push((id, String::from_utf8(item.to_vec()).unwrap()));
                            }
                        }
                        _ => {}
                    }
                }
            }
            if round == last {
                prop_assert_eq!(bench.queue.status().stored(), 0);
            }
            journal = bench.journal;
        }
        // The journal of this bench keeps at once and only reports late, so that nothing which it settled comes again.
        prop_assert!(settled.values().all(|times| *times == 1), "{:?}", settled);
        prop_assert_eq!(settled.len() as u64, put);
    }
}
