//! The cases of CPython's tests of `Queue.shutdown`, asked of `Control::stop`. `tests/CPYTHON.md` has the whole list.

mod cpython_case;

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::thread;

use common::message::CloseReason;
use common::status::Phase;
use common::{Consumer, Control, Error, GetError, Producer, PutError};
use cpython_case::{consumer, done, producer, take, with_queue};
use tests::engine::{Engine, engine};
use tests::{DEADLINE, Queue};

/// `shutdown()`: what is queued is still handed out.
const DRAIN: bool = false;
/// `shutdown(immediate=True)`: the coordinator ends.
const NOW: bool = true;

fn shut_down(queue: &Queue, how: bool) {
    Control::connect(&queue.endpoint()).unwrap().stop(how).unwrap();
}

/// Puts an item and waits for its confirmation: a refusal may come with that only.
fn put(producer: &Producer<u32>, item: u32) -> Result<(), Error> {
    producer.put(&item)?;
    producer.flush()
}

/// The same without waiting for room.
fn try_put(producer: &Producer<u32>, item: u32) -> Result<(), Error> {
    match producer.try_put(&item) {
        Ok(()) => producer.flush(),
        Err(PutError::Other(error)) => Err(error),
        Err(full) => panic!("{full}"),
    }
}

/// The queue refuses, for it ends.
fn is_refused<R>(call: Result<R, Error>) -> bool {
    matches!(call, Err(Error::Closed { reason: CloseReason::Ended, .. }))
}

/// There is no coordinator any more.
fn is_gone<R>(call: Result<R, Error>) -> bool {
    matches!(call, Err(Error::Gone(_)))
}

fn was_shut<R>(how: bool, call: Result<R, Error>) -> bool {
    if how == NOW { is_gone(call) } else { is_refused(call) }
}

/// Gets as `get_nowait` does. `Ok(None)`: Stop.
fn try_take(consumer: &Consumer<u32>) -> Result<Option<u32>, Error> {
    match consumer.try_get() {
        Ok(None) => Ok(None),
        Ok(delivery) => Ok(Some(done(delivery))),
        Err(GetError::Other(error)) => Err(error),
        Err(empty) => panic!("{empty}"),
    }
}

/// The coordinator ends in peace, saying how many items it left.
fn ends_with(queue: Queue, left: u64) {
    let (code, _, stderr, _folder) = queue.finish();
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stderr.contains(" left in "), left > 0, "{stderr}");
    assert!(left == 0 || stderr.contains(&tests::engine::left(left)), "{stderr}");
}

#[test]
fn test_shutdown_empty() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer(&queue), consumer::<u32>(&queue));
        shut_down(&queue, DRAIN);
        assert!(is_refused(put(&producer, 1)));
        assert!(is_refused(try_put(&producer, 1)));
        assert!(consumer.get().unwrap().is_none());
        assert!(consumer.try_get().unwrap().is_none());
        drop(consumer);
        ends_with(queue, 0);
    });
}

#[test]
fn test_shutdown_nonempty() {
    with_queue(&["--capacity", "1"], |queue| {
        let (producer, consumer) = (producer(&queue), consumer::<u32>(&queue));
        put(&producer, 1).unwrap();
        thread::scope(|scope| {
            let joiner = Consumer::<u32>::connect(&queue.endpoint()).unwrap();
            let join = scope.spawn(move || joiner.join());
            shut_down(&queue, DRAIN);
            assert_eq!(consumer.len().unwrap(), 1);
            let held = consumer.get().unwrap().unwrap();
            assert_eq!(*held.item(), 1);
            assert!(is_refused(put(&producer, 2)));
            assert!(is_refused(try_put(&producer, 2)));
            assert!(matches!(consumer.try_get(), Err(GetError::Empty)), "what is held may come back: this is not the end");
            assert!(!join.is_finished());
            held.ack().unwrap();
            assert!(consumer.get().unwrap().is_none());
            join.join().unwrap().unwrap();
        });
        drop(consumer);
        ends_with(queue, 0);
    });
}

#[test]
fn test_shutdown_immediate() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer(&queue), consumer::<u32>(&queue));
        put(&producer, 1).unwrap();
        shut_down(&queue, NOW);
        assert!(is_gone(consumer.get()));
        assert!(is_gone(try_take(&consumer)));
        assert!(is_gone(put(&producer, 2)));
        assert!(is_gone(producer.join()));
        assert!(is_gone(consumer.join()));
        ends_with(queue, 1);
    });
}

#[test]
fn test_shutdown_allowed_transitions() {
    with_queue(&[], |queue| {
        let (producer, control) = (producer(&queue), Control::connect(&queue.endpoint()).unwrap());
        // Without it, the first shutdown would be the end.
        put(&producer, 1).unwrap();
        assert_eq!(control.status().unwrap().phase, Phase::Running);
        for _ in 0..2 {
            control.stop(DRAIN).unwrap();
            assert_eq!(control.status().unwrap().phase, Phase::Draining);
        }
        control.stop(NOW).unwrap();
        control.wait_for_end();
        ends_with(queue, 1);
    });
}

/// A shutdown is answered each time it is asked for: never by an earlier answer.
#[test]
fn test_shutdown_transition_from_the_end() {
    with_queue(&[], |queue| {
        let control = Control::connect(&queue.endpoint()).unwrap();
        control.stop(NOW).unwrap();
        control.wait_for_end();
        assert!(is_gone(control.stop(NOW)));
        assert!(is_gone(control.stop(DRAIN)));
    });
}

#[test]
fn test_shutdown_all_methods_in_one_thread() {
    with_queue(&["--capacity", "2"], |queue| {
        let (producer, consumer) = (producer(&queue), consumer::<u32>(&queue));
        put(&producer, 1).unwrap();
        try_put(&producer, 2).unwrap();
        shut_down(&queue, DRAIN);
        assert!(is_refused(put(&producer, 3)));
        assert!(is_refused(try_put(&producer, 4)));
        assert_eq!([(); 2].map(|()| take(&consumer)), [1, 2]);
        assert!(consumer.get().unwrap().is_none());
        assert!(consumer.try_get().unwrap().is_none());
        assert!(consumer.get_timeout(DEADLINE).unwrap().is_none());
    });
}

#[test]
fn test_shutdown_immediate_all_methods_in_one_thread() {
    with_queue(&["--capacity", "2"], |queue| {
        let (producer, consumer) = (producer(&queue), consumer::<u32>(&queue));
        put(&producer, 1).unwrap();
        try_put(&producer, 2).unwrap();
        shut_down(&queue, NOW);
        assert!(is_gone(put(&producer, 3)));
        assert!(is_gone(try_put(&producer, 4)));
        assert!(is_gone(consumer.get()));
        assert!(is_gone(try_take(&consumer)));
        assert!(matches!(consumer.get_timeout(DEADLINE), Err(GetError::Other(Error::Gone(_)))));
        assert!(is_gone(consumer.join()));
        ends_with(queue, 2);
    });
}

fn all_methods_in_many_threads(how: bool) {
    const WRITERS: u32 = 4;
    const READERS: u32 = 6;
    const JOINERS: u32 = 2;
    /// What each writer has put when it asks for the end; half of it before anyone goes on.
    const ITEMS: u32 = 4000;
    let start = Barrier::new((WRITERS + READERS + JOINERS) as usize);
    with_queue(&[], |queue| {
        let (ask, asked) = channel();
        let (queue_of_all, start) = (&queue, &start);
        let (confirmed, got) = thread::scope(|scope| {
            let write = |writer: u32| {
                let ask = ask.clone();
                scope.spawn(move || {
                    let producer = Producer::<(u32, u32)>::connect(&queue_of_all.endpoint()).unwrap();
                    for number in 0.. {
                        if number == ITEMS / 2 {
                            start.wait();
                        }
                        if number == ITEMS {
                            ask.send(()).unwrap();
                        }
                        let put = producer.put(&(writer, number));
                        if put.is_err() {
                            assert!(number >= ITEMS / 2 && was_shut(how, put));
                            break;
                        }
                    }
                    (writer, producer.confirmed().0)
                })
            };
            let read = || {
                let consumer = Consumer::<(u32, u32)>::connect(&queue_of_all.endpoint()).unwrap();
                let mut got = vec![take(&consumer)];
                start.wait();
                loop {
                    match consumer.try_get() {
                        Ok(Some(delivery)) => {
                            got.push(*delivery.item());
                            let ack = delivery.ack();
                            assert!(ack.is_ok() || (how == NOW && is_gone(ack)));
                        }
                        Err(GetError::Empty) => thread::yield_now(),
                        Err(error) => break assert!(how == NOW && matches!(error, GetError::Other(Error::Gone(_)))),
                        Ok(None) => break assert!(how == DRAIN),
                    }
                }
                got
            };
            let join = || {
                let joiner = Producer::<u32>::connect(&queue_of_all.endpoint()).unwrap();
                start.wait();
                // It may find all settled at a moment before the end, and asks again.
                while joiner.join().is_ok() {}
                assert!(was_shut(how, joiner.join()));
            };
            let writers: Vec<_> = (0..WRITERS).map(write).collect();
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            (0..JOINERS).for_each(|_| drop(scope.spawn(join)));
            asked.recv().unwrap();
            shut_down(queue_of_all, how);
            let confirmed: BTreeMap<u32, u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            let got: Vec<(u32, u32)> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
            (confirmed, got)
        });
        let mut numbers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        got.into_iter().for_each(|(writer, number)| numbers.entry(writer).or_default().push(number));
        for (writer, mut numbers) in numbers {
            numbers.sort_unstable();
            if how == DRAIN {
                // Beyond what was confirmed, what was just being kept: of that its producer hears no more.
                let (got, confirmed) = (numbers.len() as u64, confirmed[&writer]);
                assert!(
                    got >= confirmed && (got == confirmed || engine() != Engine::Memory),
                    "{got} were handed out, {confirmed} confirmed"
                );
                assert!(numbers.into_iter().map(u64::from).eq(0..got), "each item once, none left out");
            } else {
                assert!(numbers.is_sorted_by(|one, next| one < next), "no item was handed out twice");
            }
        }
        assert_eq!(queue.finish().0, 0);
    });
}

#[test]
fn test_shutdown_all_methods_in_many_threads() {
    all_methods_in_many_threads(DRAIN);
}

#[test]
fn test_shutdown_immediate_all_methods_in_many_threads() {
    all_methods_in_many_threads(NOW);
}

#[test]
fn test_shutdown_get() {
    with_queue(&["--capacity", "2"], |queue| {
        let producer = producer(&queue);
        put(&producer, 1).unwrap();
        put(&producer, 2).unwrap();
        let consumers = [(); 3].map(|()| consumer::<u32>(&queue));
        shut_down(&queue, DRAIN);
        let mut got = thread::scope(|scope| {
            let get = |consumer| scope.spawn(move || Consumer::get(consumer).unwrap().map(|delivery| done(Some(delivery))));
            consumers.each_ref().map(get).map(|getting| getting.join().unwrap())
        });
        got.sort_unstable();
        assert_eq!(got, [None, Some(1), Some(2)]);
    });
}

#[test]
fn test_shutdown_immediate_get() {
    with_queue(&["--capacity", "2"], |queue| {
        let producer = producer(&queue);
        put(&producer, 1).unwrap();
        put(&producer, 2).unwrap();
        let consumers = [(); 2].map(|()| consumer::<u32>(&queue));
        shut_down(&queue, NOW);
        thread::scope(|scope| consumers.iter().for_each(|consumer| drop(scope.spawn(|| assert!(is_gone(consumer.get()))))));
        ends_with(queue, 2);
    });
}

fn putters_that_wait(how: bool) {
    with_queue(&["--capacity", "2"], |queue| {
        let filler = producer(&queue);
        put(&filler, 1).unwrap();
        put(&filler, 2).unwrap();
        thread::scope(|scope| {
            for item in [3, 4] {
                let putter = producer(&queue);
                scope.spawn(move || assert!(was_shut(how, put(&putter, item))));
            }
            queue.wait_until("two who wait for room", |status| status.producers_waiting == 2);
            shut_down(&queue, how);
        });
        if how == DRAIN {
            let consumer = consumer::<u32>(&queue);
            assert_eq!([(); 2].map(|()| take(&consumer)), [1, 2]);
            assert!(consumer.get().unwrap().is_none());
        }
        ends_with(queue, if how == DRAIN { 0 } else { 2 });
    });
}

#[test]
fn test_shutdown_put() {
    putters_that_wait(DRAIN);
}

#[test]
fn test_shutdown_immediate_put() {
    putters_that_wait(NOW);
}
