//! Threads that share a client: each call gets its own answer, whatever the others ask and take back meanwhile.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{Consumer, GetError, Producer, PutError};
use tests::{DEADLINE, Queue, eventually};

/// A thread's word that it has got through, waited for with a deadline: a call that hangs fails the test instead of blocking it.
fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, receiver) = channel();
    thread::spawn(move || done.send(work()));
    receiver
}

fn consumer(queue: &Queue) -> &'static Consumer<u32> {
    // Left to threads that outlive a failed test.
    Box::leak(Box::new(Consumer::connect(&queue.endpoint()).unwrap()))
}

fn producer(queue: &Queue) -> &'static Producer<u32> {
    Box::leak(Box::new(Producer::connect(&queue.endpoint()).unwrap()))
}

fn done<T>(receiver: &Receiver<T>, what: &str) -> T {
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{what} hangs"))
}

#[test]
fn each_thread_gets_the_figures_that_it_asked_for() {
    let queue = Queue::serve(&[]);
    let producer = producer(&queue);
    let ask_often = || (0..1000).all(|_| producer.stats().unwrap().capacity_items > 0);
    let threads: Vec<_> = (0..3).map(|_| run(ask_often)).collect();
    threads.iter().for_each(|thread| assert!(done(thread, "stats")));
}

#[test]
fn a_get_is_not_forgotten_when_anothers_timeout_takes_the_demand_back() {
    let queue = Queue::serve(&[]);
    let shared = consumer(&queue);
    let getter = run(|| shared.get().unwrap().unwrap().ack().unwrap());
    queue.wait_until("a getter", |status| status.consumers_waiting == 1);
    assert!(matches!(shared.get_timeout(Duration::from_millis(20)), Err(GetError::Empty)));
    assert!(matches!(shared.try_get(), Err(GetError::Empty)));
    producer(&queue).put(&1).unwrap();
    done(&getter, "get");
}

#[test]
fn threads_of_one_consumer_work_on_long_items_at_the_same_time() {
    let queue = Queue::serve(&[]);
    let shared = consumer(&queue);
    let (begun, begins) = channel();
    for _ in 0..3 {
        let begun = begun.clone();
        thread::spawn(move || {
            let delivery = shared.get().unwrap().unwrap();
            begun.send(*delivery.item()).unwrap();
            // Held until the test is over.
            thread::park();
            drop(delivery);
        });
    }
    let producer = producer(&queue);
    (1..=3).for_each(|n| producer.put(&n).unwrap());
    let mut items: Vec<u32> = (0..3).map(|_| begins.recv_timeout(DEADLINE).expect("all three at work")).collect();
    items.sort_unstable();
    assert_eq!(items, [1, 2, 3]);
}

#[test]
fn no_put_is_forgotten_when_another_takes_the_credit_or_takes_the_wish_back() {
    let queue = Queue::serve(&["--capacity", "1"]);
    let shared = producer(&queue);
    shared.put(&0).unwrap();
    let putters: Vec<_> = (1..4).map(|n| run(move || (0..50).for_each(|_| shared.put(&n).unwrap()))).collect();
    let trier = run(|| (0..200).filter(|_| matches!(shared.try_put(&9), Err(PutError::Full))).count());
    let consumer = consumer(&queue);
    let getter = run(|| {
        while let Ok(Some(delivery)) = consumer.get() {
            delivery.ack().unwrap();
        }
    });
    putters.iter().for_each(|putter| done(putter, "put"));
    done(&trier, "try_put");
    shared.join().unwrap();
    assert_eq!(queue.client("coordinator", &["stop"]).finish().0, 0);
    done(&getter, "the last get");
}

#[test]
fn acknowledging_in_one_thread_does_not_swallow_what_another_waits_for() {
    let queue = Queue::serve(&[]);
    let shared = consumer(&queue);
    let producer = producer(&queue);
    // The acknowledgement is sent half a millisecond later by the background thread, while the getter waits for the next item.
    for n in 0..300 {
        producer.put(&n).unwrap();
        let delivery = shared.get().unwrap().unwrap();
        let getter = run(|| shared.get().unwrap().unwrap().ack().unwrap());
        delivery.ack().unwrap();
        producer.put(&n).unwrap();
        done(&getter, "get");
    }
    eventually("all done", || (queue.status().acknowledged == 600).then_some(()));
}

#[test]
fn flush_waits_for_what_was_put_before_it_and_not_for_more() {
    let queue = Queue::serve(&[]);
    let shared = producer(&queue);
    let consumer = consumer(&queue);
    thread::spawn(move || consumer.iter().for_each(|delivery| delivery.and_then(|delivery| delivery.ack()).unwrap_or(())));
    thread::spawn(move || while shared.put(&1).is_ok() {});
    queue.wait_until("items under way", |status| status.accepted > 1000);
    for _ in 0..5 {
        done(&run(|| shared.flush().unwrap()), "flush");
    }
}
