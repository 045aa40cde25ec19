//! The cases of CPython's tests of its simple queues: order, many threads, another process. `tests/CPYTHON.md` has the whole list.

mod cpython_case;

use std::thread;
use std::time::Duration;

use common::{Consumer, Control, Delivery, GetError, Producer};
use cpython_case::{consumer, done, producer, take, with_queue};
use tests::engine::soon;
use tests::{DEADLINE, Queue};

#[test]
fn test_basic() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer::<u8>(&queue), consumer::<u8>(&queue));
        let check = |len: u64| {
            soon("as many as there are", || (producer.len().unwrap(), producer.is_empty().unwrap()) == (len, len == 0));
            soon("as many as there are", || (consumer.len().unwrap(), consumer.is_empty().unwrap()) == (len, len == 0));
        };
        check(0);
        producer.put(&1).unwrap();
        check(1);
        producer.put(&2).unwrap();
        producer.try_put(&3).unwrap();
        producer.put(&4).unwrap();
        // What is on its way to a journal counts, but is not there to be got.
        producer.flush().unwrap();
        check(4);
        assert_eq!(take(&consumer), 1);
        check(3);
        assert_eq!(done(consumer.try_get().unwrap()), 2);
        check(2);
        assert_eq!(done(consumer.try_get().unwrap()), 3);
        check(1);
        assert_eq!(done(consumer.get_timeout(DEADLINE).unwrap()), 4);
        check(0);
        assert!(matches!(consumer.try_get(), Err(GetError::Empty)));
        assert!(matches!(consumer.get_timeout(Duration::from_millis(1)), Err(GetError::Empty)));
        check(0);
    });
}

type Got<'c> = Option<Delivery<'c, u32>>;

/// What `threads` consumers get of what as many producers put: all numbers below `items`, dealt out between them.
fn run_threads(threads: u32, items: u32, get: impl Fn(&Consumer<u32>) -> Got<'_> + Sync) -> Vec<u32> {
    let mut results = Vec::new();
    with_queue(&["--expect-producers", &threads.to_string()], |queue| {
        results = thread::scope(|scope| {
            let (queue, get) = (&queue, &get);
            let consume = move || {
                let consumer = Consumer::<u32>::connect(&queue.endpoint()).unwrap();
                let mut results = Vec::new();
                while let Some(delivery) = get(&consumer) {
                    results.push(*delivery.item());
                    delivery.ack().unwrap();
                }
                results
            };
            let consumers: Vec<_> = (0..threads).map(|_| scope.spawn(consume)).collect();
            // Whoever came after the end would find nobody.
            queue.wait_until("all consumers", |status| status.consumers == u64::from(threads));
            for thread in 0..threads {
                scope.spawn(move || {
                    let producer = Producer::<u32>::connect(&queue.endpoint()).unwrap();
                    (thread..items).step_by(threads as usize).for_each(|number| producer.put(&number).unwrap());
                    producer.finish().unwrap();
                });
            }
            consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
        });
        ends_empty(queue);
    });
    results
}

fn ends_empty(queue: Queue) {
    let (code, _, stderr, _folder) = queue.finish();
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains("left in the queue"), "{stderr}");
}

fn all_below(items: u32, mut results: Vec<u32>) {
    results.sort_unstable();
    assert!(results.iter().copied().eq(0..items), "{results:?}");
}

#[test]
fn test_order() {
    let results = run_threads(1, 100, |consumer| consumer.get().unwrap());
    assert!(results.iter().copied().eq(0..100), "{results:?}");
}

#[test]
fn test_many_threads() {
    all_below(10_000, run_threads(16, 10_000, |consumer| consumer.get().unwrap()));
}

/// Asks until there is an item, or Stop.
fn insist<'c>(get: impl Fn() -> Result<Got<'c>, GetError>) -> Got<'c> {
    loop {
        match get() {
            Err(GetError::Empty) => thread::yield_now(),
            got => return got.unwrap(),
        }
    }
}

#[test]
fn test_many_threads_nonblock() {
    all_below(10_000, run_threads(16, 10_000, |consumer| insist(|| consumer.try_get())));
}

#[test]
fn test_many_threads_timeout() {
    all_below(1000, run_threads(16, 1000, |consumer| insist(|| consumer.get_timeout(Duration::from_micros(10)))));
}

/// As theirs: all threads of a side put into, or get from, one and the same object.
#[test]
fn test_many_threads_share_their_clients() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer::<u32>(&queue), Consumer::<u32>::connect(&queue.endpoint()).unwrap());
        let results = thread::scope(|scope| {
            let consume = || consumer.iter().map(|delivery| done(Some(delivery.unwrap()))).collect::<Vec<u32>>();
            let consumers = [(); 4].map(|()| scope.spawn(consume));
            let feed = |thread: u32| {
                for number in (thread..4000).step_by(4) {
                    producer.put(&number).unwrap();
                    if number % 8 == thread {
                        producer.flush().unwrap();
                    }
                }
            };
            let feeders = [0, 1, 2, 3].map(|thread| scope.spawn(move || feed(thread)));
            feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
            producer.join().unwrap();
            Control::connect(&queue.endpoint()).unwrap().stop(false).unwrap();
            consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
        });
        all_below(4000, results);
    });
}

#[test]
fn test_references() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer::<Vec<u8>>(&queue), consumer::<Vec<u8>>(&queue));
        for _ in 0..20 {
            producer.put(&vec![0; 1000]).unwrap();
            producer.flush().unwrap();
        }
        let mut bytes = producer.stats().unwrap().bytes;
        assert!(bytes >= 20 * 1000);
        for _ in 0..20 {
            take(&consumer);
            soon("fewer bytes", || consumer.stats().unwrap().bytes + 1000 <= bytes);
            bytes = consumer.stats().unwrap().bytes;
        }
        soon("no bytes", || consumer.stats().unwrap().bytes == 0);
    });
}

#[test]
fn test_empty() {
    with_queue(&[], |queue| {
        let consumer = consumer::<[u8]>(&queue);
        assert!(consumer.is_empty().unwrap());
        let mut child = queue.client("producer", &["--input", "-"]);
        child.write(b"yes\nno\n");
        assert_eq!(child.finish().0, 0);
        assert!(!consumer.is_empty().unwrap());
        for item in ["yes", "no"] {
            let delivery = consumer.get().unwrap().unwrap();
            assert_eq!(delivery.item(), item.as_bytes());
            delivery.ack().unwrap();
        }
        assert!(consumer.is_empty().unwrap());
    });
}
