//! What is got is what was put.

use std::collections::BTreeSet;

use common::{Consumer, Delivery, Producer};
use tests::Queue;

/// The item with this number: of many lengths.
fn item(number: usize) -> String {
    format!("{number}:{:.<width$}", "", width = number % 97)
}

/// Its number, if it is as it was put.
fn number(delivery: &Delivery<'_, [u8]>) -> usize {
    let came = std::str::from_utf8(delivery.item()).expect("text");
    let number = came.split(':').next().and_then(|number| number.parse().ok()).expect("a number");
    assert_eq!(came, item(number));
    number
}

#[test]
fn items_of_bytes_are_what_was_put_in_whatever_order_they_are_settled() {
    const ITEMS: usize = 5000;
    let queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    (0..ITEMS).for_each(|number| producer.put(item(number).as_bytes()).unwrap());
    producer.flush().unwrap();
    let consumer = Consumer::<[u8]>::connect(&queue.endpoint()).unwrap();
    let (mut in_hand, mut done) = (Vec::new(), BTreeSet::new());
    for turn in 0..ITEMS {
        let delivery = consumer.get().unwrap().expect("an item");
        in_hand.push((number(&delivery), delivery));
        // None, one or two of those in hand, here and there.
        for _ in 0..(turn % 3).min(in_hand.len()) {
            let (known, delivery) = in_hand.swap_remove(turn * 7 % in_hand.len());
            assert_eq!(number(&delivery), known, "while others were got");
            assert!(done.insert(known), "{known} came twice");
            delivery.ack().unwrap();
        }
    }
    for (known, delivery) in in_hand {
        assert!(number(&delivery) == known && done.insert(known));
        delivery.ack().unwrap();
    }
    assert_eq!(done.len(), ITEMS);
    producer.join().unwrap();
}
