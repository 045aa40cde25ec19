//! What looks at a shared queue show and when they are made: what the servers say, the test says.

use super::*;

const SHARED: Rules = Rules { journaled: Some(Window { near_bytes: 2_000, unwritten_bytes: 10_000 }), shared: true, ..RULES };

fn looks(bench: &mut Bench) -> usize {
    let looks = bench.outputs.iter().filter(|output| matches!(output, Output::Look)).count();
    bench.outputs.retain(|output| !matches!(output, Output::Look));
    looks
}

#[test]
fn nobody_is_told_that_there_is_no_item_while_what_was_put_before_is_on_its_way() {
    let mut bench = Bench::new(SHARED);
    bench.handle(Input::Whole(Whole { machines: 2, ..Whole::default() }));
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.say(2, Message::Demand { items: 1, bytes: 1000 });
    bench.say(2, Message::Withdraw);
    assert_eq!(looks(&mut bench), 0, "it would not show what is on its way");
    // One that others made necessary.
    bench.handle(Input::Whole(Whole { machines: 2, ..Whole::default() }));
    assert_eq!((bench.sent(2, "Withdrawn"), looks(&mut bench)), (0, 0));
    bench.put(1, &["b"]);
    bench.handle(Input::Published { until: 1 });
    assert_eq!((bench.sent(2, "Withdrawn"), looks(&mut bench)), (0, 1), "what is put later, it does not wait for");
    bench.handle(Input::Whole(Whole { items: 1, machines: 2, ..Whole::default() }));
    assert_eq!(bench.sent(2, "Withdrawn"), 1, "another machine has it");
}

#[test]
fn nor_is_who_asks_again_before_it_was_answered() {
    let mut bench = Bench::new(SHARED);
    bench.handle(Input::Whole(Whole { machines: 2, ..Whole::default() }));
    bench.producer(1);
    bench.consumer(2);
    for item in ["a", "b"] {
        bench.put(1, &[item]);
        bench.say(2, Message::Demand { items: 1, bytes: 1000 });
        bench.say(2, Message::Withdraw);
    }
    for until in [1, 2] {
        bench.handle(Input::Published { until });
        assert_eq!((bench.sent(2, "Withdrawn"), looks(&mut bench)), (0, 1));
        bench.handle(Input::Whole(Whole { items: until, machines: 2, ..Whole::default() }));
        assert_eq!((bench.sent(2, "Withdrawn"), looks(&mut bench)), (1, 0), "a look shows what was put before it");
    }
}

#[test]
fn what_a_look_has_seen_before_its_put_was_confirmed_counts_once() {
    let mut bench = Bench::new(SHARED);
    bench.producer(1);
    bench.put(1, &["a", "b"]);
    bench.handle(Input::Whole(Whole { items: 2, bytes: 200, next_id: 10, machines: 1, ..Whole::default() }));
    bench.handle(Input::Published { until: 10 });
    assert_eq!(bench.queue.status().stored(), 2);
    bench.put(1, &["c"]);
    bench.handle(Input::Published { until: 20 });
    assert_eq!(bench.queue.status().stored(), 3);
}

#[test]
fn dead_letters_that_a_look_counted_too_early_are_looked_for_again() {
    let mut queue = Queue::new(SHARED);
    // How many looks it asks for, and entries to be kept.
    let mut handle = |input: Input, now: Duration| {
        queue.handle(input, now);
        let outputs: Vec<Output> = std::iter::from_fn(|| queue.poll()).collect();
        let entries = outputs.iter().filter(|output| matches!(output, Output::Journal(_))).count();
        let looks = outputs.iter().filter(|output| matches!(output, Output::Look)).count();
        (looks, entries, queue.status().dead, queue.next_timeout())
    };
    let client = ClientId(2);
    let say = |message| Input::Said { client, message, batch: None };
    let none_left = || Input::Whole(Whole { machines: 2, ..Whole::default() });
    handle(Input::ConsumerJoined { client }, Duration::ZERO);
    handle(say(Message::Demand { items: 1, bytes: 1000 }), Duration::ZERO);
    let came = Loaded { first: 0, batch: batch(&["a"]), settled: Vec::new(), failed: Vec::new(), attempts: 0 };
    handle(Input::Arrived { batches: vec![came] }, Duration::ZERO);
    let outcome = Outcome::Rejected { cause: "no good".into() };
    handle(say(Message::Return { range: ItemRange { first: ItemId(0), count: 1 }, outcome }), Duration::ZERO);
    let (_, entries, ..) = handle(Input::Written { ticket: Ticket(0), output_bytes: None }, Duration::ZERO);
    let (.., dead, _) = handle(Input::Journaled { entries }, Duration::ZERO);
    assert_eq!(dead, 1);
    let (looks, _, dead, due) = handle(none_left(), Duration::ZERO);
    assert_eq!((looks, dead), (0, 1), "it may not have seen it");
    let due = due.expect("a time to look again");
    assert_eq!(handle(Input::Tick, due).0, 1);
    let (looks, _, dead, due) = handle(none_left(), due);
    assert_eq!((looks, dead, due), (0, 0, None), "another machine has put it again");
}
