//! Who waits, and who gets what when: what the simulator has found.

use super::*;

#[test]
fn who_waits_in_line_keeps_what_it_is_granted_for_a_moment_and_the_next_gets_it_then() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
    let want = || Message::Want { bytes: 300 };
    bench.consumer(10);
    bench.producer(1);
    bench.say(1, want());
    bench.put(1, &["a"]);
    for producer in [2, 3] {
        bench.producer(producer);
        bench.say(producer, want());
    }
    bench.outputs.clear();
    bench.demand(10, 5);
    bench.ack(10, 0, 1);
    assert_eq!((bench.sent(2, "Confirm"), bench.sent(3, "Confirm")), (1, 0), "the one place goes to the first in line alone");
    bench.pass(CREDIT_SPARED / 2);
    assert_eq!(bench.sent(2, "Recall"), 0);
    assert!(bench.queue.next_timeout().is_some(), "the next in line is not forgotten");
    bench.pass(CREDIT_SPARED);
    assert_eq!((bench.sent(2, "Recall"), bench.sent(3, "Confirm")), (1, 1), "who does not put holds up nobody");
}

#[test]
fn who_asks_whether_there_is_room_gets_what_another_has_and_does_not_use() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
    for producer in [1, 2] {
        bench.producer(producer);
        bench.say(producer, Message::Want { bytes: 300 });
        bench.say(producer, Message::Withdraw);
        assert_eq!((bench.sent(producer, "Confirm"), bench.sent(producer, "Withdrawn")), (1, 1));
    }
}

#[test]
fn a_put_that_comes_before_a_recall_is_said_makes_it_void() {
    let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
    bench.producer(1);
    bench.say(1, Message::Want { bytes: 300 });
    bench.producer(2);
    bench.say(2, Message::Want { bytes: 300 });
    bench.outputs.clear();
    // The loop does not always fetch what the queue has to say before it tells it more.
    bench.now += 2 * CREDIT_SPARED;
    bench.queue.handle(Input::Tick, bench.now);
    bench.put(1, &["a"]);
    assert_eq!(bench.sent(1, "Recall"), 0);
    bench.say(1, Message::Want { bytes: 300 });
    assert_eq!(bench.closed(), []);
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
