//! Credit: who waits for room, who is given it, and from whom it is taken back.

use super::*;

const ONE: u64 = batch_cost_bytes(5);

impl Bench {
    fn want(&mut self, client: u64) {
        self.say(client, Message::Want { bytes: ONE });
    }

    /// The credit granted to a producer since the last look: items and bytes.
    fn granted(&mut self, producer: u64) -> (u64, u64) {
        let mut granted = (0, 0);
        self.outputs.retain(|output| match output {
            Output::Send { client, message: Message::Confirm { credit_items, credit_bytes, .. }, .. } if client.0 == producer => {
                granted = (granted.0 + credit_items, granted.1 + credit_bytes);
                false
            }
            _ => true,
        });
        granted
    }

    /// Puts items of these sizes.
    fn put_sized(&mut self, client: u64, sizes: &[usize]) {
        let items: Vec<String> = sizes.iter().map(|bytes| "x".repeat(*bytes)).collect();
        self.put(client, &items.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// A queue for one item that is full, and a consumer, 9, that holds it.
    fn full() -> Bench {
        let mut bench = Bench::new(Rules { capacity_items: 1, ..RULES });
        bench.producer(8);
        bench.want(8);
        bench.put(8, &["first"]);
        bench.leave(8);
        bench.consumer(9);
        bench.demand(9, 100);
        bench
    }
}

/// 900 of 2000 bytes are stored, in two items of nobody's.
fn nearly_half_full() -> Bench {
    let mut bench = Bench::new(Rules { capacity_bytes: 2000, ..RULES });
    bench.producer(8);
    bench.put_sized(8, &[258]);
    bench.put_sized(8, &[258]);
    bench.leave(8);
    bench
}

#[test]
fn of_two_that_wait_for_one_place_both_hear_and_neither_waits_in_vain() {
    let mut bench = Bench::full();
    bench.producer(1);
    bench.producer(2);
    bench.want(1);
    bench.want(2);
    bench.ack(9, 0, 1);
    assert_eq!((bench.granted(1).0, bench.sent(1, "Recall")), (1, 1), "taken back at once, and both is said");
    assert_eq!((bench.granted(2).0, bench.sent(2, "Recall")), (1, 0));
    bench.say(1, Message::Recalled);
    bench.put(2, &["second"]);
    bench.want(1);
    bench.ack(9, 1, 1);
    assert_eq!(bench.granted(1).0, 1);
}

#[test]
fn those_who_wait_share_what_room_there_is() {
    let mut bench = Bench::new(Rules { capacity_items: 10, ..RULES });
    bench.producer(8);
    bench.want(8);
    bench.put(8, &["x"; 5]);
    bench.put(8, &["x"; 2]);
    bench.put(8, &["x"; 1]);
    bench.want(8);
    bench.put(8, &["x"; 1]);
    bench.want(8);
    bench.put(8, &["x"; 1]);
    bench.leave(8);
    assert_eq!(bench.queue.status().stored(), 10);
    bench.producer(1);
    bench.producer(2);
    bench.want(1);
    bench.want(2);
    bench.consumer(9);
    bench.demand(9, 10);
    bench.ack(9, 0, 10);
    assert_eq!((bench.granted(1).0, bench.granted(2).0), (3, 3), "a third of ten, then half of seven");
}

#[test]
fn who_leaves_the_line_or_the_queue_makes_way_for_the_next() {
    type Case = fn(&mut Bench);
    let cases: [Case; 2] = [|bench| bench.leave(1), |bench| bench.say(1, Message::Withdraw)];
    for act in cases {
        let mut bench = Bench::full();
        bench.producer(1);
        bench.producer(2);
        bench.want(1);
        bench.want(2);
        act(&mut bench);
        assert_eq!(bench.queue.status().producers_waiting, 1);
        bench.ack(9, 0, 1);
        assert_eq!((bench.granted(1).0, bench.granted(2).0), (0, 1));
    }
}

#[test]
fn a_place_can_be_taken_back_after_another_has_left() {
    let mut bench = Bench::new(Rules { capacity_items: 2, ..RULES });
    (1..4).for_each(|client| bench.producer(client));
    bench.want(2);
    bench.leave(2);
    bench.want(1);
    bench.want(3);
    bench.put(3, &["a"]);
    bench.sent(3, "Confirm");
    bench.want(3);
    assert_eq!((bench.granted(3).0, bench.sent(1, "Recall")), (1, 1));
}

#[test]
fn whoever_waits_stands_in_line_once() {
    let mut bench = nearly_half_full();
    bench.producer(1);
    // 900 bytes are stored: no room for a largest item.
    bench.say(1, Message::Want { bytes: 1196 });
    bench.say(1, Message::Want { bytes: 1195 });
    assert_eq!(bench.queue.status().producers_waiting, 1, "asked twice");
    bench.put(1, &["within its credit"]);
    assert_eq!((bench.queue.status().accepted, bench.queue.status().producers_waiting), (3, 1), "waits still");
    bench.say(1, Message::Want { bytes: 1197 });
    assert!(bench.closed()[0].2.contains("the largest item needs 1196"));
}

#[test]
fn what_is_put_on_credit_that_was_taken_back_waits_in_one_place_in_line() {
    let mut bench = Bench::new(Rules { capacity_items: 4, ..RULES });
    bench.producer(1);
    bench.producer(2);
    bench.put(2, &["a"]);
    for item in ["b", "c", "d"] {
        bench.want(2);
        bench.put(2, &[item]);
    }
    assert_eq!((bench.sent(1, "Recall"), bench.queue.status().stored()), (1, 4));
    bench.put(1, &["crossed"]);
    bench.put(1, &["too"]);
    assert_eq!((bench.queue.status().accepted, bench.queue.status().producers_waiting), (4, 1));
    bench.consumer(9);
    bench.demand(9, 9);
    bench.ack(9, 0, 4);
    assert_eq!((bench.queue.status().accepted, bench.queue.status().producers_waiting), (6, 0));
}

/// Producer 1 waits with an item in line and a wish, behind producer 2, who is given what was reserved for producer 1.
#[test]
fn a_wish_that_stands_behind_a_recall_is_granted_once_the_recall_is_answered() {
    let mut bench = nearly_half_full();
    bench.producer(1);
    bench.producer(2);
    assert_eq!((bench.granted(1).1, bench.granted(2).1), (550, 275));
    bench.say(2, Message::Want { bytes: 1196 });
    bench.say(1, Message::Want { bytes: 700 });
    bench.put(1, &["x"]);
    assert_eq!((bench.queue.status().producers_waiting, bench.queue.status().accepted), (2, 2));
    bench.consumer(9);
    bench.demand(9, 1);
    bench.ack(9, 0, 1);
    assert_eq!((bench.granted(2).1, bench.sent(1, "Recall")), (921, 1));
    assert_eq!((bench.granted(1).1, bench.queue.status().producers_waiting), (0, 0), "its item is in, its wish stands back");
    bench.say(1, Message::Recalled);
    assert_eq!(bench.granted(1).1, 700);
    bench.put_sized(1, &[500]);
    assert_eq!((bench.closed(), bench.queue.status().accepted), (vec![], 4));
}

#[test]
fn one_that_is_recalled_steps_out_of_the_line_and_who_stands_behind_it_keeps_its_place() {
    let mut bench = nearly_half_full();
    (1..4).for_each(|client| bench.producer(client));
    bench.say(2, Message::Want { bytes: 1196 });
    bench.say(1, Message::Want { bytes: 700 });
    bench.want(3);
    assert_eq!((bench.granted(3), bench.queue.status().producers_waiting), ((0, 0), 3));
    bench.consumer(9);
    bench.demand(9, 1);
    bench.ack(9, 0, 1);
    assert_eq!((bench.sent(1, "Recall"), bench.queue.status().producers_waiting), (1, 0));
    assert!(bench.granted(3).1 >= ONE);
}

#[test]
fn credit_is_topped_up_once_half_of_it_is_used_in_items_or_in_bytes() {
    use common::limits::{BATCH_OVERHEAD_BYTES, CREDIT_BYTES_MAX, CREDIT_ITEMS_MAX};
    let rules = Rules { capacity_items: 1 << 24, capacity_bytes: 1 << 30, item_bytes_max: 1 << 20, ..RULES };
    let (half_items, half_bytes) = (CREDIT_ITEMS_MAX as usize / 2, (CREDIT_BYTES_MAX / 2 - BATCH_OVERHEAD_BYTES) as usize);
    for missing in [0, 1] {
        let mut items = Bench::new(rules.clone());
        items.producer(1);
        assert_eq!(items.granted(1), (CREDIT_ITEMS_MAX, CREDIT_BYTES_MAX));
        items.put(1, &vec![""; half_items / 2]);
        assert_eq!(items.granted(1), (0, 0));
        items.put(1, &vec![""; half_items / 2 - missing]);
        assert_eq!(items.granted(1).0, if missing == 0 { CREDIT_ITEMS_MAX / 2 } else { 0 });
        let mut bytes = Bench::new(rules.clone());
        bytes.producer(1);
        bytes.granted(1);
        bytes.put_sized(1, &[half_bytes - missing]);
        assert_eq!(bytes.granted(1).1, if missing == 0 { CREDIT_BYTES_MAX / 2 } else { 0 });
    }
}

#[test]
fn credit_that_is_too_little_for_any_item_is_not_granted() {
    for (capacity_bytes, granted) in [(384, 0), (386, 193)] {
        let mut bench = Bench::new(Rules { capacity_bytes, item_bytes_max: 100, ..RULES });
        bench.producer(1);
        assert_eq!(bench.granted(1).1, granted);
    }
}

#[test]
fn nobody_is_given_credit_ahead_while_another_waits() {
    let mut bench = nearly_half_full();
    bench.producer(1);
    assert_eq!(bench.granted(1).1, 550);
    bench.say(1, Message::Want { bytes: 1196 });
    bench.producer(2);
    assert_eq!(
        (bench.granted(2), bench.queue.status().producers_waiting),
        ((0, 0), 1),
        "what is left is not enough for the first, but not for others"
    );
}

#[test]
fn nothing_is_granted_between_a_recall_and_its_answer() {
    let mut bench = nearly_half_full();
    bench.producer(1);
    bench.producer(2);
    bench.say(2, Message::Want { bytes: 1196 });
    bench.say(1, Message::Want { bytes: 700 });
    bench.put(1, &["behind its wish"]);
    bench.say(1, Message::Withdraw);
    bench.outputs.clear();
    bench.consumer(9);
    bench.demand(9, 1);
    bench.ack(9, 0, 1);
    assert_eq!((bench.sent(1, "Recall"), bench.granted(1)), (1, (0, 0)), "though there is room, and nobody waits for it");
    assert_eq!((bench.queue.status().producers_waiting, bench.queue.status().accepted), (0, 3));
    bench.say(1, Message::Recalled);
    bench.want(1);
    assert!(bench.granted(1).1 >= ONE);
}

#[test]
fn one_that_has_finished_waits_for_nothing() {
    let mut bench = Bench::full();
    bench.producer(1);
    bench.producer(2);
    bench.want(1);
    bench.want(2);
    bench.say(1, Message::Finish);
    assert_eq!(bench.queue.status().producers_waiting, 1);
    bench.ack(9, 0, 1);
    assert_eq!((bench.granted(1).0, bench.granted(2).0), (0, 1));
}

#[test]
fn who_has_no_credit_left_is_not_asked_to_give_it_back() {
    let mut bench = Bench::new(Rules { capacity_items: 4, capacity_bytes: 4000, ..RULES });
    (1..5).for_each(|client| bench.producer(client));
    assert_eq!((bench.granted(1), bench.granted(2)), ((2, 2000), (1, 1000)));
    bench.put_sized(1, &[904, 904]);
    bench.want(3);
    bench.want(4);
    assert_eq!((bench.sent(1, "Recall"), bench.sent(2, "Recall")), (0, 1));
}

#[test]
fn who_gives_its_credit_back_waits_only_if_it_wants_some() {
    let mut bench = Bench::new(Rules { capacity_items: 4, ..RULES });
    bench.producer(1);
    bench.producer(2);
    bench.put(2, &["a"]);
    for item in ["b", "c", "d"] {
        bench.want(2);
        bench.put(2, &[item]);
    }
    bench.want(2);
    assert_eq!((bench.sent(1, "Recall"), bench.queue.status().producers_waiting), (1, 1));
    bench.say(1, Message::Recalled);
    assert_eq!(bench.queue.status().producers_waiting, 1);
    bench.want(1);
    assert_eq!(bench.queue.status().producers_waiting, 2);
}
