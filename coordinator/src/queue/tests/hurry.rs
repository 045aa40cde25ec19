//! Who is told that somebody waits for what it holds to be settled.

use super::*;
use common::limits::HURRIED_WAITS;

/// Consumer 2 has asked for more than the items that it holds, of which there are two. Consumer 3 holds nothing.
fn two_held(rules: Rules) -> Bench {
    let mut bench = Bench::new(rules);
    bench.producer(1);
    bench.consumer(2);
    bench.consumer(3);
    bench.demand(2, 5);
    bench.put(1, &["a"]);
    bench.put(1, &["b"]);
    bench.demand(3, 5);
    assert_eq!((bench.delivered().len(), bench.hurried()), (2, [0, 0]), "nobody waits");
    bench
}

impl Bench {
    fn hurried(&mut self) -> [usize; 2] {
        [self.sent(2, "Hurry"), self.sent(3, "Hurry")]
    }
}

#[test]
fn who_holds_something_hurries_while_somebody_joins_and_is_told_so_now_and_then() {
    let mut bench = two_held(RULES);
    bench.say(1, Message::Join);
    assert_eq!(bench.hurried(), [1, 0]);
    bench.ack(2, 0, 1);
    assert_eq!(bench.hurried(), [0, 0], "it knows");
    bench.say(3, Message::Withdraw);
    bench.demand(2, 1000);
    // Item 1 is held all along.
    for deliveries in 1..=2 * (HURRIED_WAITS / 2 + 1) {
        let id = 1 + u64::from(deliveries);
        bench.say(1, Message::Want { bytes: batch_cost_bytes(1) });
        bench.put(1, &["c"]);
        assert_eq!(bench.delivered(), [one(2, 1, "c")]);
        let again = deliveries.is_multiple_of(HURRIED_WAITS / 2 + 1);
        assert_eq!(bench.hurried(), [usize::from(again), 0], "delivery {deliveries}, and somebody waits still");
        bench.ack(2, id, 1);
    }
    bench.ack(2, 1, 1);
    assert_eq!(bench.sent(1, "Joined"), 1);
    for id in 0..100 {
        bench.say(1, Message::Want { bytes: batch_cost_bytes(1) });
        bench.put(1, &["d"]);
        bench.ack(2, 2 + u64::from(2 * (HURRIED_WAITS / 2 + 1)) + id, 1);
        assert_eq!(bench.hurried(), [0, 0], "nobody waits");
    }
}

#[test]
fn what_is_settled_or_gone_with_its_consumer_is_not_waited_for() {
    let mut bench = two_held(RULES);
    bench.ack(2, 0, 2);
    bench.put(1, &["c"]);
    bench.leave(2);
    assert_eq!(bench.delivered(), [one(2, 1, "c"), one(3, 2, "c")]);
    bench.say(1, Message::Join);
    assert_eq!(bench.hurried(), [0, 1]);
    let mut bench = two_held(RULES);
    bench.ack(2, 0, 2);
    bench.say(2, Message::Withdraw);
    bench.put(1, &["c"]);
    bench.say(1, Message::Join);
    assert_eq!((bench.delivered(), bench.hurried()), (vec![one(3, 1, "c")], [0, 1]));
}

#[test]
fn who_waits_for_room_waits_for_what_is_held() {
    let want = || Message::Want { bytes: batch_cost_bytes(1) };
    let mut bench = two_held(Rules { capacity_items: 4, ..RULES });
    for item in ["c", "d"] {
        bench.say(1, want());
        assert_eq!(bench.hurried(), [0, 0], "there is room");
        bench.put(1, &[item]);
    }
    bench.say(1, want());
    assert_eq!((bench.hurried(), bench.queue.status().producers_waiting), ([1, 1], 1), "each has one of them");
}

#[test]
fn nobody_hurries_as_long_as_no_consumer_waits() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b"]);
    bench.demand(2, 1);
    bench.say(1, Message::Join);
    assert_eq!(bench.sent(2, "Hurry"), 0, "it will ask, and say what is settled");
    bench.demand(2, 5);
    assert_eq!(bench.sent(2, "Hurry"), 1);
}

#[test]
fn the_end_waits_for_what_is_held() {
    let mut bench = two_held(RULES);
    bench.handle(Input::Drain);
    assert_eq!(bench.hurried(), [1, 0]);
    let mut bench = two_held(Rules { producers_expected: Some(1), ..RULES });
    bench.say(1, Message::Finish);
    assert_eq!(bench.hurried(), [1, 0]);
    let mut bench = two_held(Rules { producers_expected: Some(2), ..RULES });
    bench.say(1, Message::Finish);
    assert_eq!(bench.hurried(), [0, 0], "another has not finished");
}
