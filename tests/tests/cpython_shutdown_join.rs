//! The cases of CPython's tests of `Queue.shutdown` with somebody who joins, who waits for an item, or who is another process.
//! `tests/CPYTHON.md` has the whole list.

mod cpython_case;

use std::thread;

use common::message::CloseReason;
use common::{Consumer, Control, Error, Producer};
use cpython_case::{consumer, done, producer, take, with_queue};
use tests::Queue;

fn shut_down(queue: &Queue, now: bool) {
    Control::connect(&queue.endpoint()).unwrap().stop(now).unwrap();
}

fn put(producer: &Producer<u32>, item: u32) -> Result<(), Error> {
    producer.put(&item)?;
    producer.flush()
}

fn is_refused<R>(call: Result<R, Error>) -> bool {
    matches!(call, Err(Error::Closed { reason: CloseReason::Ended, .. }))
}

fn is_gone<R>(call: Result<R, Error>) -> bool {
    matches!(call, Err(Error::Gone(_)))
}

/// A consumer, connected by now, that joins in a thread of its own.
fn join<'s>(scope: &'s thread::Scope<'s, '_>, queue: &Queue) -> thread::ScopedJoinHandle<'s, Result<(), Error>> {
    let joiner = Consumer::<u32>::connect(&queue.endpoint()).unwrap();
    scope.spawn(move || joiner.join())
}

#[test]
fn test_shutdown_join() {
    with_queue(&[], |queue| {
        let producer = producer(&queue);
        put(&producer, 1).unwrap();
        let consumer = consumer::<u32>(&queue);
        thread::scope(|scope| {
            let joins = [(); 2].map(|()| join(scope, &queue));
            let producers_join = scope.spawn(|| producer.join());
            shut_down(&queue, false);
            assert!(is_refused(producers_join.join().unwrap()), "to a producer the queue has ended");
            assert_eq!(take(&consumer), 1);
            joins.into_iter().for_each(|join| join.join().unwrap().unwrap());
        });
        drop(consumer);
        assert_eq!(queue.finish().0, 0);
    });
}

#[test]
fn test_shutdown_immediate_join() {
    with_queue(&[], |queue| {
        let producer = producer(&queue);
        put(&producer, 1).unwrap();
        thread::scope(|scope| {
            let joins = [(); 2].map(|()| join(scope, &queue));
            let producers_join = scope.spawn(|| producer.join());
            shut_down(&queue, true);
            assert!(joins.map(|join| is_gone(join.join().unwrap())).iter().all(|gone| *gone));
            assert!(is_gone(producers_join.join().unwrap()));
        });
        assert_eq!(queue.finish().0, 0);
    });
}

#[test]
fn test_shutdown_put_join() {
    with_queue(&["--capacity", "2"], |queue| {
        let producer = producer(&queue);
        put(&producer, 1).unwrap();
        let consumer = consumer::<u32>(&queue);
        thread::scope(|scope| {
            let join = join(scope, &queue);
            assert_eq!(queue.status().stored(), 1);
            shut_down(&queue, false);
            let refused = scope.spawn(|| is_refused(put(&producer, 2)));
            assert_eq!(take(&consumer), 1);
            assert!(refused.join().unwrap());
            join.join().unwrap().unwrap();
        });
        assert!(consumer.get().unwrap().is_none());
    });
}

#[test]
fn test_shutdown_immediate_put_join() {
    with_queue(&["--capacity", "2"], |queue| {
        let producer = producer(&queue);
        put(&producer, 1).unwrap();
        let consumer = consumer::<u32>(&queue);
        thread::scope(|scope| {
            let join = join(scope, &queue);
            shut_down(&queue, true);
            let refused = scope.spawn(|| is_gone(put(&producer, 2)));
            assert!(consumer.try_get().is_err());
            assert!(refused.join().unwrap());
            assert!(is_gone(join.join().unwrap()));
        });
        assert_eq!(queue.finish().0, 0);
    });
}

#[test]
fn test_shutdown_get_task_done_join() {
    with_queue(&["--capacity", "2"], |queue| {
        let producer = producer(&queue);
        put(&producer, 1).unwrap();
        put(&producer, 2).unwrap();
        thread::scope(|scope| {
            let joins = [(); 2].map(|()| join(scope, &queue));
            let consumers = [(); 2].map(|()| consumer::<u32>(&queue));
            let getting = consumers.map(|consumer| scope.spawn(move || consumer.get().unwrap().map(|delivery| done(Some(delivery)))));
            shut_down(&queue, false);
            let mut got = getting.map(|getting| getting.join().unwrap());
            got.sort_unstable();
            assert_eq!(got, [Some(1), Some(2)]);
            joins.into_iter().for_each(|join| join.join().unwrap().unwrap());
        });
        assert_eq!(queue.finish().0, 0);
    });
}

/// Whoever waits for an item when the end comes is told.
fn pending_get(now: bool) {
    with_queue(&[], |queue| {
        thread::scope(|scope| {
            let getting = [(); 2].map(|()| {
                let consumer = consumer::<u32>(&queue);
                scope.spawn(move || consumer.get().map(|delivery| delivery.is_none()))
            });
            queue.wait_until("two who wait for an item", |status| status.consumers_waiting == 2);
            shut_down(&queue, now);
            for got in getting.map(|getting| getting.join().unwrap()) {
                assert!(if now { is_gone(got) } else { got.unwrap() });
            }
        });
        assert_eq!(queue.finish().0, 0);
    });
}

#[test]
fn test_shutdown_pending_get() {
    pending_get(false);
}

#[test]
fn test_shutdown_immediate_pending_get() {
    pending_get(true);
}

/// The cases that CPython has in processes.
mod multiprocessing {
    use super::*;
    use tests::Process;

    fn putter(queue: &Queue) -> Process {
        let mut putter = queue.client("producer", &["--input", "-"]);
        putter.write(b"data\n");
        putter.close_stdin();
        putter
    }

    fn puts(queue: &Queue) {
        let (code, _, stderr) = putter(queue).finish();
        assert_eq!(code, 0, "{stderr}");
    }

    /// A consumer process whose command does not end.
    fn busy_worker(queue: &Queue) -> Process {
        let worker = queue.client("consumer", &["--", "sh", "-c", "echo begun >&2; exec sleep 1000"]);
        worker.wait_for_stderr("begun");
        worker
    }

    #[test]
    fn test_shutdown_empty() {
        with_queue(&[], |queue| {
            let getter = queue.client("consumer", &[]);
            queue.wait_until("who waits for an item", |status| status.consumers_waiting == 1);
            Consumer::<u32>::connect(&queue.endpoint()).unwrap().join().unwrap();
            shut_down(&queue, false);
            let (code, stdout, stderr) = getter.finish();
            assert_eq!((code, &stdout[..]), (0, ""), "{stderr}");
        });
    }

    #[test]
    fn test_shutdown_nonempty() {
        with_queue(&["--capacity", "1"], |queue| {
            puts(&queue);
            thread::scope(|scope| {
                let join = join(scope, &queue);
                shut_down(&queue, false);
                assert_eq!(queue.status().ready, 1);
                let (code, _, stderr) = putter(&queue).finish();
                assert_eq!(code, 1);
                assert!(stderr.contains("takes no more items"), "{stderr}");
                assert!(!join.is_finished());
                let (code, stdout, stderr) = queue.client("consumer", &[]).finish();
                assert_eq!((code, &stdout[..]), (0, "data\n"), "{stderr}");
                join.join().unwrap().unwrap();
            });
            let socket = queue.socket().to_path_buf();
            let (code, _, stderr, _folder) = queue.finish();
            assert_eq!(code, 0, "{stderr}");
            let (code, _, _) = Process::start("consumer", &socket, &[]).finish();
            assert_eq!(code, 69, "there is no coordinator any more");
        });
    }

    #[test]
    fn test_shutdown_immediate() {
        with_queue(&[], |queue| {
            puts(&queue);
            thread::scope(|scope| {
                let join = join(scope, &queue);
                shut_down(&queue, true);
                assert!(is_gone(join.join().unwrap()));
            });
            let socket = queue.socket().to_path_buf();
            let (code, _, stderr, _folder) = queue.finish();
            assert_eq!(code, 0, "{stderr}");
            assert!(stderr.contains("1 item was left"), "{stderr}");
            for name in ["producer", "consumer"] {
                assert_eq!(Process::start(name, &socket, &[]).finish().0, 69);
            }
        });
    }

    #[test]
    fn test_shutdown_immediate_with_unfinished() {
        with_queue(&[], |queue| {
            puts(&queue);
            puts(&queue);
            let workers = [(); 2].map(|()| busy_worker(&queue));
            thread::scope(|scope| {
                let join = join(scope, &queue);
                shut_down(&queue, true);
                assert!(is_gone(join.join().unwrap()), "it does not wait for what is left unsettled");
            });
            workers.into_iter().for_each(|worker| assert_eq!(worker.finish().0, 1));
            let (code, _, stderr, _folder) = queue.finish();
            assert_eq!(code, 0, "{stderr}");
            assert!(stderr.contains("2 items were left"), "{stderr}");
        });
    }
}
