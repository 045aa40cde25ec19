//! The cases of CPython's tests of queues and pools whose items, workers or callers fail. `tests/CPYTHON.md` has the whole list.

mod cpython_case;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Consumer, Control, Error, GetError, Producer, PutError};
use cpython_case::{consumer, producer, take, with_queue};
use rustix::process::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use tests::engine::{may_be_first, soon};
use tests::{DEADLINE, Process, Queue, eventually, proc_state};

/// A worker's last words and deed.
const CRASH: &str = "kill -9 $PPID";

/// A number, or what cannot be put.
#[derive(Clone, Debug, PartialEq)]
enum Job {
    Good(u8),
    Bad,
}

static FAIL_NEXT_GET: AtomicBool = AtomicBool::new(false);

impl Serialize for Job {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Job::Good(number) => serializer.serialize_u8(*number),
            Job::Bad => Err(ser::Error::custom("you lose")),
        }
    }
}

impl<'de> Deserialize<'de> for Job {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Job, D::Error> {
        if FAIL_NEXT_GET.swap(false, Ordering::Relaxed) {
            return Err(de::Error::custom("you lose"));
        }
        u8::deserialize(deserializer).map(Job::Good)
    }
}

/// Runs a call that has to wait for room until `release`.
fn blocked(queue: &Queue, call: impl FnOnce() + Send, release: impl FnOnce()) {
    thread::scope(|scope| {
        let blocked = scope.spawn(call);
        queue.wait_until("a put that waits", |status| status.producers_waiting == 1);
        assert!(!blocked.is_finished());
        release();
    });
}

#[test]
fn test_failing_queue() {
    with_queue(&["--capacity", "5", "--retry-delay", "1ms"], |queue| {
        let (producer, consumer) = (producer::<Job>(&queue), consumer::<Job>(&queue));
        let refuses_bad = || {
            assert!(matches!(producer.put(&Job::Bad), Err(Error::Encode(_))));
            assert!(matches!(producer.try_put(&Job::Bad), Err(PutError::Other(Error::Encode(_)))));
            assert!(matches!(producer.put_timeout(&Job::Bad, DEADLINE), Err(PutError::Other(Error::Encode(_)))));
        };
        for _ in 0..2 {
            (0..4).for_each(|number| producer.put(&Job::Good(number)).unwrap());
            refuses_bad();
            producer.put(&Job::Good(4)).unwrap();
            soon("a full queue", || producer.is_full().unwrap());
            refuses_bad();
            blocked(&queue, || producer.put(&Job::Good(5)).unwrap(), || assert_eq!(take(&consumer), Job::Good(0)));
            assert_eq!([(); 5].map(|()| take(&consumer)), [1, 2, 3, 4, 5].map(Job::Good));
            soon("an empty queue", || consumer.is_empty().unwrap());

            producer.put(&Job::Good(6)).unwrap();
            FAIL_NEXT_GET.store(true, Ordering::Relaxed);
            assert!(matches!(consumer.get(), Err(Error::Item { .. })));
            soon("what could not be decoded comes again", || !consumer.is_empty().unwrap());
            FAIL_NEXT_GET.store(true, Ordering::Relaxed);
            assert!(matches!(consumer.get_timeout(DEADLINE), Err(GetError::Other(Error::Item { .. }))));
            let again = consumer.get().unwrap().unwrap();
            assert_eq!((again.item(), again.attempt()), (&Job::Good(6), 3));
            again.ack().unwrap();
            soon("an empty queue", || consumer.is_empty().unwrap());
        }
    });
}

/// A queue where a failed item comes again at once, and twice is enough.
const TWICE: [&str; 4] = ["--max-attempts", "2", "--retry-delay", "1ms"];

/// Starts a consumer process that runs this script for each item.
fn worker(queue: &Queue, script: &str) -> Process {
    queue.client("consumer", &["--retry-delay", "1ms", "--", "sh", "-c", script])
}

/// Puts one item and sees it into the dead letters with `cause`, by workers of which a new one is started when one dies; a healthy
/// worker has the next item after that.
fn check_crash(script: &str, dies: bool, cause: &str) {
    with_queue(&TWICE, |mut queue| {
        let producer = producer::<[u8]>(&queue);
        producer.put(b"ill-fated").unwrap();
        let attempts = if dies { 2 } else { 1 };
        let workers: Vec<Process> = (0..attempts)
            .map(|_| {
                let mut worker = worker(&queue, script);
                if dies {
                    assert_eq!(worker.wait(), 128 + Signal::KILL.as_raw());
                }
                worker
            })
            .collect();
        producer.join().unwrap();
        soon("a dead letter", || producer.stats().unwrap().dead == 1);
        queue.coordinator().wait_for_stderr(cause);
        drop(workers);

        let healthy = consumer::<[u8]>(&queue);
        producer.put(b"well").unwrap();
        let delivery = healthy.get().unwrap().unwrap();
        assert!(delivery.item() == b"well" && may_be_first(delivery.attempt()), "{delivery:?}");
        delivery.ack().unwrap();
        producer.join().unwrap();
        assert!(!queue.coordinator().stdout().contains("half"), "a failed attempt has no result");
    });
}

#[test]
fn test_error_at_task_unpickle() {
    with_queue(&TWICE, |mut queue| {
        let (producer, consumer) = (producer::<[u8]>(&queue), consumer::<String>(&queue));
        producer.put(b"\xff").unwrap();
        producer.put(b"\x02ok").unwrap();
        let (mut errors, mut items) = (0, Vec::new());
        while errors + items.len() < 3 {
            match consumer.get() {
                Ok(delivery) => {
                    let delivery = delivery.unwrap();
                    items.push(delivery.item().clone());
                    delivery.ack().unwrap();
                }
                Err(Error::Item { .. }) => errors += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((errors, &items[..]), (2, &["ok".to_string()][..]));
        producer.join().unwrap();
        soon("a dead letter", || producer.stats().unwrap().dead == 1);
        queue.coordinator().wait_for_stderr("a consumer could not decode it");
    });
}

/// Killed between an item's arrival and its decoding.
#[test]
fn test_crash_at_task_unpickle() {
    with_queue(&[], |queue| {
        let mut worker = queue.client("consumer", &[]);
        queue.wait_until("a worker that waits", |status| status.consumers_waiting == 1);
        worker.signal(Signal::STOP);
        eventually("a worker that stands still", || (proc_state(worker.pid()) == Some('T')).then_some(()));
        let producer = producer::<[u8]>(&queue);
        producer.put(b"x").unwrap();
        queue.wait_until("an item on its way", |status| status.held == 1);
        worker.kill();
        let consumer = consumer::<[u8]>(&queue);
        let delivery = consumer.get().unwrap().unwrap();
        assert_eq!((delivery.item(), delivery.attempt()), (&b"x"[..], 2));
        delivery.ack().unwrap();
        producer.join().unwrap();
    });
}

#[test]
fn test_crash_during_func_exec_on_worker() {
    check_crash(CRASH, true, "connection closed during attempt 2");
}

#[test]
fn test_exit_during_func_exec_on_worker() {
    check_crash("exit 1", false, "exit");
}

#[test]
fn test_error_during_func_exec_on_worker() {
    check_crash("echo it is broken >&2; exit 65", false, "65");
}

#[test]
fn test_crash_during_result_pickle_on_worker() {
    check_crash(&format!("echo half; {CRASH}"), true, "connection closed during attempt 2");
}

#[test]
fn test_exit_during_result_pickle_on_worker() {
    check_crash("echo half; exit 1", false, "exit");
}

#[test]
fn test_error_during_result_pickle_on_worker() {
    let arguments = [&TWICE[..], &["--max-item", "1000"]].concat();
    with_queue(&arguments, |mut queue| {
        let (producer, consumer) = (producer::<u8>(&queue), consumer::<u8>(&queue));
        producer.put(&1).unwrap();
        for attempt in 1..=2 {
            let delivery = consumer.get().unwrap().unwrap();
            assert_eq!(delivery.attempt(), attempt);
            assert!(matches!(delivery.ack_with(&[b'x'; 1002]), Err(Error::ItemTooLarge { .. })));
        }
        producer.join().unwrap();
        soon("a dead letter", || producer.stats().unwrap().dead == 1);
        queue.coordinator().wait_for_stderr("a result of 1002 bytes");
        producer.put(&2).unwrap();
        assert_eq!(take(&consumer), 2);
    });
}

#[test]
fn test_shutdown_deadlock() {
    with_queue(&[], |queue| {
        let producer = producer::<[u8]>(&queue);
        producer.put(b"x").unwrap();
        producer.flush().unwrap();
        let mut doomed = worker(&queue, "echo begun >&2; exec sleep 1000");
        doomed.wait_for_stderr("begun");
        let other = queue.client("consumer", &[]);
        queue.wait_until("another worker", |status| status.consumers == 2);
        Control::connect(&queue.endpoint()).unwrap().stop(false).unwrap();
        doomed.kill();
        let (code, stdout, stderr) = other.finish();
        assert_eq!((code, &stdout[..]), (0, "x\n"), "{stderr}");
        let (code, _, stderr, _folder) = queue.finish();
        assert_eq!(code, 0, "{stderr}");
    });
}

#[test]
fn test_shutdown_deadlock_pickle() {
    with_queue(&[], |queue| {
        let (producer, consumer) = (producer::<Job>(&queue), consumer::<u8>(&queue));
        producer.put(&Job::Good(42)).unwrap();
        assert!(matches!(producer.put(&Job::Bad), Err(Error::Encode(_))));
        producer.flush().unwrap();
        Control::connect(&queue.endpoint()).unwrap().stop(false).unwrap();
        assert_eq!(take(&consumer), 42);
        assert!(consumer.get().unwrap().is_none());
        drop(consumer);
        assert_eq!(queue.finish().0, 0);
    });
}

#[test]
fn test_crash_big_data() {
    with_queue(&[], |queue| {
        const BYTES: usize = 4 << 20;
        let consumer = thread::scope(|scope| {
            let putting = scope.spawn(|| {
                let producer = producer::<[u8]>(&queue);
                (0..10).for_each(|number| producer.put(&vec![number; BYTES]).unwrap());
                producer.finish().unwrap();
            });
            let mut workers = [(); 2].map(|()| worker(&queue, CRASH));
            workers.iter_mut().for_each(|worker| assert_eq!(worker.wait(), 128 + Signal::KILL.as_raw()));
            putting.join().unwrap();
            consumer::<[u8]>(&queue)
        });
        let mut numbers: Vec<u8> = (0..10)
            .map(|_| {
                let delivery = consumer.get().unwrap().unwrap();
                let number = delivery.item()[0];
                assert!(delivery.item().len() == BYTES && delivery.item().iter().all(|byte| *byte == number));
                delivery.ack().unwrap();
                number
            })
            .collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..10));
    });
}

#[test]
fn test_gh105829_should_not_deadlock_if_wakeup_pipe_full() {
    with_queue(&["--capacity", "10"], |queue| {
        let producer = Producer::<u32>::connect(&queue.endpoint()).unwrap();
        let consumer = Consumer::<u32>::connect(&queue.endpoint()).unwrap();
        tests::signal(queue.pid(), Signal::STOP);
        eventually("a coordinator that stands still", || (proc_state(queue.pid()) == Some('T')).then_some(()));
        thread::scope(|scope| {
            scope.spawn(|| (0..100).for_each(|number| producer.put(&number).unwrap()));
            let getting = scope.spawn(|| (0..100).for_each(|number| assert_eq!(take(&consumer), number)));
            tests::signal(queue.pid(), Signal::CONT);
            getting.join().unwrap();
        });
        producer.join().unwrap();
    });
}
