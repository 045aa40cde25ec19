//! What each client is shown to do.

use super::*;
use common::status::AtHand;

/// Items held; the one at hand, its attempt and for how many milliseconds; whether it waits; how many it has done, and failed.
type Shown = (u64, Option<(u64, u32, u64)>, bool, u64, u64);

fn consumer(bench: &Bench, client: u64) -> Shown {
    let Some(Work::Consumer { held, at_hand, waiting, done, failed }) = bench.queue.work(ClientId(client), bench.now) else {
        panic!("{client} is no consumer");
    };
    (held, at_hand.map(|AtHand { id, attempt, for_ms }| (id.0, attempt, for_ms)), waiting, done, failed)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_consumer_has_at_hand_the_first_item_that_it_holds_since_it_last_settled_one() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    assert_eq!(consumer(&bench, 2), (0, None, false, 0, 0));
    bench.demand(2, 3);
    assert_eq!(consumer(&bench, 2), (0, None, true, 0, 0));
    bench.put(1, &["a"]);
    bench.pass(2 * SECOND);
    bench.put(1, &["b"]);
    assert_eq!(consumer(&bench, 2), (2, Some((0, 1, 2000)), true, 0, 0), "what comes behind it changes nothing");
    bench.ack(2, 0, 1);
    bench.pass(SECOND);
    assert_eq!(consumer(&bench, 2), (1, Some((1, 1, 1000)), true, 1, 0));
    bench.give_back(2, 1, 1, Outcome::Failed { cause: "no".into() });
    assert_eq!(consumer(&bench, 2), (0, None, true, 1, 1));
    bench.pass(SECOND);
    bench.pass(SECOND);
    assert_eq!(consumer(&bench, 2), (1, Some((1, 2, 1000)), false, 1, 1), "again, in empty hands");
}

#[test]
fn what_is_settled_together_counts_item_by_item_and_is_one_record_whatever_its_past() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b", "c", "d", "e", "f", "g"]);
    bench.demand(2, 8);
    bench.give_back(2, 1, 1, Outcome::Released);
    assert_eq!(bench.delivered().last(), Some(&one(2, 2, "b")));
    let results = batch(&["B", "C", "D"]);
    let message = Message::Result { first: ItemId(1), batch: results.header() };
    bench.handle(Input::Said { client: ClientId(2), message, batch: Some(results) });
    assert_eq!(bench.written(), [["B", "C", "D"]]);
    assert_eq!(consumer(&bench, 2), (4, Some((0, 1, 0)), false, 3, 1));
    bench.give_back(2, 4, 3, Outcome::Rejected { cause: "no".into() });
    assert_eq!(consumer(&bench, 2), (1, Some((0, 1, 0)), false, 3, 4));
}

#[test]
fn an_item_that_is_announced_is_at_hand_before_those_that_are_not() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b", "c"]);
    bench.demand(2, 3);
    bench.pass(5 * SECOND);
    bench.say(2, Message::Begin { id: ItemId(1) });
    bench.pass(SECOND);
    assert_eq!(consumer(&bench, 2).1, Some((1, 1, 1000)));
    bench.give_back(2, 1, 1, Outcome::RetryAfter { delay_ms: 9 });
    assert_eq!(consumer(&bench, 2), (2, Some((0, 1, 0)), false, 0, 0), "to come again later is no failure");
}

#[test]
fn a_producer_shows_what_is_accepted_of_it_and_what_waits_for_room() {
    let mut bench = Bench::new(Rules { capacity_items: 2, ..RULES });
    let work = |bench: &Bench| bench.queue.work(ClientId(1), bench.now);
    let producer = |accepted, parked, waiting, finished| Some(Work::Producer { name: "in".into(), accepted, parked, waiting, finished });
    assert_eq!(work(&bench), None);
    bench.handle(Input::ProducerJoined { client: ClientId(1), name: Some("in".into()) });
    assert_eq!(work(&bench), producer(0, 0, false, false));
    // Another wants room until the first one's unused credit is taken back, and its place with it.
    bench.producer(2);
    for item in ["a", "b"] {
        bench.say(2, Message::Want { bytes: 500 });
        bench.put(2, &[item]);
    }
    bench.put(1, &["c"]);
    assert_eq!(work(&bench), producer(0, 1, true, false));
    bench.consumer(3);
    bench.demand(3, 2);
    bench.ack(3, 0, 2);
    assert_eq!(work(&bench), producer(1, 0, false, false));
    bench.say(1, Message::Finish);
    assert_eq!(work(&bench), producer(1, 0, false, true));
}
