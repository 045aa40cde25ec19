//! Results in the order of their items.

use super::*;

const ORDERED: Rules = Rules { early_bytes_max: Some(2000), ..RULES };

impl Bench {
    fn done(&mut self, client: u64, id: u64) {
        let results = batch(&[&format!("of {id}")]);
        let message = Message::Result { first: ItemId(id), batch: results.header() };
        self.handle(Input::Said { client: ClientId(client), message, batch: Some(results) });
    }
}

/// A queue of so many items, with two consumers.
fn ordered(rules: Rules, items: u64) -> Bench {
    let mut bench = Bench::new(rules);
    bench.producer(1);
    bench.consumer(2);
    bench.consumer(3);
    let items: Vec<String> = (0..items).map(|n| n.to_string()).collect();
    bench.put(1, &items.iter().map(String::as_str).collect::<Vec<_>>());
    bench
}

#[test]
fn a_result_waits_for_those_before_it_and_its_item_is_held_until_it_is_written() {
    let mut bench = ordered(ORDERED, 4);
    bench.demand(2, 4);
    bench.done(2, 2);
    bench.done(2, 1);
    assert_eq!((bench.written(), bench.queue.status().held), (vec![], 4));
    bench.leave(2);
    assert_eq!((bench.queue.status().ready, bench.queue.status().held), (2, 2), "who did them need not be there any more");
    bench.demand(3, 1);
    bench.done(3, 0);
    assert_eq!(bench.written(), [["of 0"], ["of 1"], ["of 2"]]);
    assert_eq!(bench.queue.status().acknowledged, 3);
}

#[test]
fn items_without_a_result_and_dead_letters_leave_no_gap() {
    let mut bench = ordered(ORDERED, 6);
    bench.demand(2, 6);
    bench.done(2, 5);
    bench.ack(2, 3, 2);
    bench.done(2, 1);
    bench.give_back(2, 2, 1, Outcome::Rejected { cause: "bad".into() });
    assert_eq!(bench.written(), Vec::<Vec<String>>::new());
    bench.ack(2, 0, 1);
    assert_eq!(bench.written(), [["of 1"], ["of 5"]]);
    assert_eq!(bench.queue.status().stored(), 0);
}

#[test]
fn once_enough_waits_only_the_item_that_it_waits_for_is_handed_out() {
    let mut bench = ordered(ORDERED, 40);
    bench.demand(2, 1);
    bench.demand(3, 39);
    bench.delivered();
    bench.leave(3);
    bench.consumer(4);
    for id in 1..40 {
        bench.demand(4, 1);
        if bench.delivered().is_empty() {
            break;
        }
        bench.done(4, id);
    }
    let status = bench.queue.status();
    assert!((5..12).contains(&status.held) && status.ready > 25, "some 200 bytes each: {status:?}");
    // The straggler fails, and comes again after its delay: to whoever asks.
    bench.give_back(2, 0, 1, Outcome::Failed { cause: "slow".into() });
    assert_eq!(bench.delivered(), []);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.delivered(), [one(4, 2, "0")]);
    bench.demand(4, 1);
    assert_eq!(bench.delivered(), []);
    bench.done(4, 0);
    assert_eq!(bench.written().len() as u64, status.held);
    assert_eq!(bench.delivered().len(), 1, "and on");
}

#[test]
fn where_the_way_on_is_a_returned_item_behind_another_it_is_found_whoever_asks() {
    let mut bench = ordered(Rules { early_bytes_max: Some(1), ..ORDERED }, 5);
    bench.demand(2, 3);
    bench.demand(3, 2);
    bench.done(3, 3);
    bench.delivered();
    bench.give_back(2, 1, 2, Outcome::Unstarted);
    bench.demand(3, 9);
    assert_eq!(bench.delivered(), [], "items 1 and 2 are ready, but the first is not through");
    bench.ack(2, 0, 1);
    assert_eq!(bench.delivered(), [one(3, 1, "1")]);
    bench.ack(3, 1, 1);
    assert_eq!(bench.delivered(), [one(3, 1, "2")]);
    bench.ack(3, 2, 1);
    assert_eq!(bench.written(), [["of 3"]]);
}

#[test]
fn when_the_queue_stops_what_waits_in_vain_is_not_done() {
    let mut bench = ordered(ORDERED, 4);
    bench.demand(2, 2);
    bench.demand(3, 2);
    bench.done(3, 2);
    bench.done(3, 3);
    bench.handle(Input::Stop);
    assert_eq!((bench.queue.status().held, bench.queue.status().ready), (4, 0));
    bench.done(2, 0);
    bench.give_back(2, 1, 1, Outcome::Unstarted);
    assert_eq!(bench.written(), [["of 0"]]);
    assert_eq!((bench.queue.status().held, bench.queue.status().ready), (0, 3));
}

#[test]
fn with_a_journal_what_waited_is_done_again_and_what_was_settled_is_not_waited_for() {
    let rules = Rules { journaled: Some(Window { near_bytes: 300, unwritten_bytes: 100_000 }), ..ORDERED };
    let mut bench = ordered(rules.clone(), 3);
    bench.put(1, &["3", "4", "5"]);
    bench.put(1, &["6"]);
    bench.demand(2, 6);
    bench.done(2, 0);
    bench.ack(2, 3, 3);
    bench.done(2, 2);
    assert_eq!(bench.written(), [["of 0"]]);
    let mut again = Bench::on(rules, bench.journal);
    again.consumer(2);
    again.demand(2, 9);
    let came: Vec<String> = again.delivered().into_iter().flat_map(|(.., items)| items).collect();
    assert_eq!(came, ["1", "2", "6"]);
    again.done(2, 6);
    again.done(2, 2);
    again.done(2, 1);
    assert_eq!(again.written(), [["of 1"], ["of 2"], ["of 6"]]);
    assert_eq!(again.queue.status().stored(), 0);
}
