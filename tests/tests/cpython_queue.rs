//! The cases of CPython's tests of its queues, asked of ours: putting, getting, joining. `tests/CPYTHON.md` has the whole list.

mod cpython_case;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::{Consumer, Control, Decode, Delivery, Error, GetError, PutError};
use cpython_case::{consumer, done, producer, take, with_queue};
use tests::engine::{Engine, engine, soon};
use tests::{DEADLINE, Process, Queue};

const SHORT: Duration = Duration::from_millis(20);

fn is_full(put: Result<(), PutError>) -> bool {
    matches!(put, Err(PutError::Full))
}

fn is_empty<T: Decode + ?Sized>(got: Result<Option<Delivery<'_, T>>, GetError>) -> bool {
    matches!(got, Err(GetError::Empty))
}

/// Runs `call`, which must take `wait` at least.
fn lasting<R>(wait: Duration, call: impl FnOnce() -> R) -> R {
    let began = Instant::now();
    let result = call();
    assert!(began.elapsed() >= wait, "it waited for {:?} of {wait:?}", began.elapsed());
    result
}

/// Starts a producer process that puts these numbers as lines.
fn child_that_puts(queue: &Queue, numbers: std::ops::Range<u32>) -> Process {
    let mut child = queue.client("producer", &["--input", "-"]);
    let lines: String = numbers.map(|number| format!("{number}\n")).collect();
    child.write(lines.as_bytes());
    child.close_stdin();
    child
}

#[test]
fn test_put() {
    with_queue(&["--capacity", "6"], |queue| {
        let producer = producer::<u32>(&queue);
        assert!(producer.is_empty().unwrap());
        assert!(!producer.is_full().unwrap());
        producer.put(&1).unwrap();
        producer.put_timeout(&2, DEADLINE).unwrap();
        producer.put_timeout(&3, Duration::MAX).unwrap();
        producer.try_put(&4).unwrap();
        producer.try_put(&5).unwrap();
        producer.try_put(&6).unwrap();
        assert!(!producer.is_empty().unwrap());
        assert!(producer.is_full().unwrap());

        for _ in 0..2 {
            assert!(is_full(producer.try_put(&7)));
            assert!(is_full(producer.put_timeout(&7, Duration::ZERO)));
            assert!(is_full(lasting(SHORT, || producer.put_timeout(&7, SHORT))));
        }

        let child = consumer::<u32>(&queue);
        let held = child.get().unwrap().unwrap();
        assert!(producer.is_full().unwrap(), "what a consumer holds keeps its place");
        assert!(is_full(producer.try_put(&7)));
        held.ack().unwrap();
        assert_eq!([(); 5].map(|()| take(&child)), [2, 3, 4, 5, 6]);
        soon("an empty queue", || child.is_empty().unwrap() && !child.is_full().unwrap());
        assert_eq!(producer.stats().unwrap().accepted, 6, "a put that gave Full has put nothing");
    });
}

/// `put(x, True, 0)` is as `put_nowait(x)`: no time to wait is no reason to refuse what has a place.
#[test]
fn test_put_with_no_time() {
    with_queue(&["--capacity", "2"], |queue| {
        let producer = producer::<u8>(&queue);
        producer.put_timeout(&1, Duration::ZERO).unwrap();
        producer.put_timeout(&2, Duration::ZERO).unwrap();
        assert!(is_full(producer.put_timeout(&3, Duration::ZERO)));
    });
}

/// Whoever filled the queue, it is full for all: a refusal comes at once, and at the time given.
#[test]
fn test_put_where_another_has_filled_it() {
    with_queue(&["--capacity", "4"], |queue| {
        let (one, other) = (producer::<u8>(&queue), producer::<u8>(&queue));
        other.put_all(&[1, 2, 3, 4]).unwrap();
        assert!(other.is_full().unwrap());
        assert!(one.is_full().unwrap());
        assert!(is_full(one.try_put(&5)));
        assert!(is_full(lasting(SHORT, || one.put_timeout(&5, SHORT))));
    });
}

#[test]
fn test_get() {
    with_queue(&[], |queue| {
        let consumer = consumer::<[u8]>(&queue);
        assert!(consumer.is_empty().unwrap());
        let (code, _, _) = child_that_puts(&queue, 2..6).finish();
        assert_eq!(code, 0);
        assert!(!consumer.is_empty().unwrap());

        let expect = |delivery: Option<Delivery<'_, [u8]>>, item: &[u8]| {
            let delivery = delivery.unwrap();
            assert_eq!(delivery.item(), item);
            delivery.ack().unwrap();
        };
        expect(consumer.get_timeout(Duration::MAX).unwrap(), b"2");
        expect(consumer.get().unwrap(), b"3");
        expect(consumer.get_timeout(DEADLINE).unwrap(), b"4");
        expect(consumer.try_get().unwrap(), b"5");
        soon("an empty queue", || consumer.is_empty().unwrap());

        for _ in 0..2 {
            assert!(is_empty(consumer.try_get()));
            assert!(is_empty(consumer.get_timeout(Duration::ZERO)));
            assert!(is_empty(lasting(SHORT, || consumer.get_timeout(SHORT))));
        }
    });
}

#[test]
fn test_fork() {
    with_queue(&[], |queue| {
        let producer = producer::<[u8]>(&queue);
        (0..10).for_each(|number| producer.put(number.to_string().as_bytes()).unwrap());
        producer.flush().unwrap();
        let child = child_that_puts(&queue, 10..20);
        let consumer = consumer::<[u8]>(&queue);
        for number in 0..20 {
            let delivery = consumer.get().unwrap().unwrap();
            assert_eq!(delivery.item(), number.to_string().as_bytes());
            delivery.ack().unwrap();
        }
        assert!(is_empty(consumer.try_get()));
        assert_eq!(child.finish().0, 0);
    });
}

#[test]
fn test_qsize() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer::<u8>(&queue), consumer::<u8>(&queue));
        let sizes = || (producer.len().unwrap(), consumer.len().unwrap());
        assert_eq!(sizes(), (0, 0));
        producer.put(&1).unwrap();
        assert_eq!(sizes(), (1, 1));
        producer.put(&5).unwrap();
        assert_eq!(sizes(), (2, 2));
        take(&consumer);
        assert_eq!(sizes(), (1, 1));
        take(&consumer);
        assert_eq!(sizes(), (0, 0));
    });
}

#[test]
fn test_task_done() {
    with_queue(&[], |queue| {
        let producer = producer::<[u8]>(&queue);
        let workers = [(); 4].map(|()| queue.client("consumer", &[]));
        queue.wait_until("four workers", |status| status.consumers == 4);
        (0..10).for_each(|number| producer.put(number.to_string().as_bytes()).unwrap());
        producer.join().unwrap();
        let status = producer.stats().unwrap();
        assert_eq!((status.acknowledged, status.stored()), (10, 0));

        Control::connect(&queue.endpoint()).unwrap().stop(false).unwrap();
        let mut printed = String::new();
        for worker in workers {
            let (code, stdout, stderr) = worker.finish();
            assert_eq!(code, 0, "{stderr}");
            printed += &stdout;
        }
        let mut numbers: Vec<u32> = printed.lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..10), "{printed}");
    });
}

#[test]
fn test_timeout() {
    with_queue(&[], |queue| {
        let consumer = consumer::<u8>(&queue);
        let wait = Duration::from_millis(200);
        assert!(is_empty(lasting(wait, || consumer.get_timeout(wait))));
    });
}

/// A value that serde refuses: a path that is no text.
fn not_serializable() -> PathBuf {
    OsString::from_vec(vec![0xff]).into()
}

#[test]
fn test_queue_feeder_donot_stop_onexc() {
    for arguments in [&[][..], &["--capacity", "1"]] {
        with_queue(arguments, |queue| {
            let (producer, consumer) = (producer::<PathBuf>(&queue), consumer::<PathBuf>(&queue));
            assert!(matches!(producer.put(&not_serializable()), Err(Error::Encode(_))));
            producer.put(&"good".into()).unwrap();
            assert_eq!(producer.len().unwrap(), 1, "what cannot be encoded takes no place");
            assert_eq!(done(consumer.get_timeout(DEADLINE).unwrap()), PathBuf::from("good"));
            assert!(consumer.is_empty().unwrap());
        });
    }
}

#[test]
fn test_queue_feeder_on_queue_feeder_error() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer::<PathBuf>(&queue), consumer::<PathBuf>(&queue));
        let error = producer.put(&not_serializable()).unwrap_err();
        assert!(error.to_string().starts_with("the item cannot be encoded: "), "the caller itself is told: {error}");
        producer.put(&"good".into()).unwrap();
        assert_eq!(done(consumer.get_timeout(DEADLINE).unwrap()), PathBuf::from("good"));
    });
}

#[test]
fn test_closed_queue_empty_exceptions() {
    with_queue(&[], |queue| {
        let (used, consumer) = (producer::<u8>(&queue), consumer::<u8>(&queue));
        producer::<u8>(&queue).finish().unwrap();
        assert!(consumer.is_empty().unwrap(), "one that put nothing has closed");
        used.put(&1).unwrap();
        used.finish().unwrap();
        assert!(!consumer.is_empty().unwrap(), "a closed producer's items stay");
        assert_eq!(take(&consumer), 1);
    });
}

#[test]
fn test_closed_queue_put_get_exceptions() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer::<u8>(&queue), consumer::<u8>(&queue));
        producer.put_all(&[1, 2]).unwrap();
        producer.flush().unwrap();
        let held = consumer.get().unwrap().unwrap();
        consumer.stop().unwrap();
        assert!(consumer.get().unwrap().is_none());
        assert!(consumer.try_get().unwrap().is_none());
        assert!(consumer.get_timeout(DEADLINE).unwrap().is_none());
        held.ack().unwrap();
        soon("one done, one left", || {
            let status = consumer.stats().unwrap();
            (status.acknowledged, status.ready) == (1, 1)
        });
    });
}

#[test]
fn test_queue_join() {
    with_queue(&[], |queue| {
        let producer = producer::<u64>(&queue);
        thread::scope(|scope| {
            let worker = || {
                let consumer = Consumer::<u64>::connect(&queue.endpoint()).unwrap();
                let mut sum = 0;
                while let Some(delivery) = consumer.get().unwrap() {
                    sum += *delivery.item();
                    delivery.ack().unwrap();
                }
                sum
            };
            let workers = [scope.spawn(worker), scope.spawn(worker)];
            for rounds in 1..=2 {
                (0..100).for_each(|number| producer.put(&number).unwrap());
                producer.join().unwrap();
                assert_eq!(queue.status().acknowledged, rounds * 100);
            }
            producer.join().unwrap();
            queue.wait_until("two workers", |status| status.consumers == 2);
            Control::connect(&queue.endpoint()).unwrap().stop(false).unwrap();
            let sum: u64 = workers.map(|worker| worker.join().unwrap()).iter().sum();
            assert_eq!(sum, 2 * (0..100).sum::<u64>());
        });
    });
}

/// Runs a call that has to wait for room or for an item until `release`.
fn blocked(queue: &Queue, call: impl FnOnce() + Send, release: impl FnOnce()) {
    thread::scope(|scope| {
        let blocked = scope.spawn(call);
        queue.wait_until("somebody who waits", |status| status.producers_waiting + status.consumers_waiting == 1);
        assert!(!blocked.is_finished());
        release();
    });
}

#[test]
fn test_basic() {
    with_queue(&["--capacity", "5"], |queue| {
        let (producer, consumer) = (producer::<u32>(&queue), consumer::<u32>(&queue));
        for _ in 0..2 {
            soon("an empty queue", || producer.is_empty().unwrap() && !producer.is_full().unwrap());
            producer.put_all(&[111, 333, 222]).unwrap();
            assert_eq!([(); 3].map(|()| take(&consumer)), [111, 333, 222]);
            soon("an empty queue", || consumer.is_empty().unwrap());
            for number in 0..4 {
                producer.put(&number).unwrap();
                soon("a queue with room", || !producer.is_empty().unwrap() && !producer.is_full().unwrap());
            }
            producer.put(&10).unwrap();
            soon("a full queue", || producer.is_full().unwrap() && !producer.is_empty().unwrap());
            assert!(is_full(producer.try_put(&30)));
            assert!(is_full(producer.put_timeout(&30, SHORT)));
            blocked(&queue, || producer.put(&30).unwrap(), || assert_eq!(take(&consumer), 0));
            blocked(&queue, || producer.put_timeout(&30, DEADLINE).unwrap(), || assert_eq!(take(&consumer), 1));
            assert_eq!([(); 5].map(|()| take(&consumer)), [2, 3, 10, 30, 30]);
            soon("an empty queue", || consumer.is_empty().unwrap());
            assert!(is_empty(consumer.try_get()));
            assert!(is_empty(consumer.get_timeout(SHORT)));
            blocked(&queue, || assert_eq!(take(&consumer), 7), || producer.put(&7).unwrap());
            blocked(&queue, || assert_eq!(done(consumer.get_timeout(DEADLINE).unwrap()), 8), || producer.put(&8).unwrap());
            consumer.join().unwrap();
        }
    });
}

#[test]
fn test_nowait() {
    with_queue(&["--capacity", "5"], |queue| {
        let (producer, consumer) = (producer::<u8>(&queue), consumer::<u8>(&queue));
        (0..5).for_each(|number| producer.try_put(&number).unwrap());
        assert!(is_full(producer.try_put(&5)));
        if engine() == Engine::Journal {
            // What is not confirmed need not be there yet.
            producer.flush().unwrap();
        }
        assert_eq!([(); 5].map(|()| done(consumer.try_get().unwrap())), [0, 1, 2, 3, 4]);
        assert!(is_empty(consumer.try_get()));
    });
}
