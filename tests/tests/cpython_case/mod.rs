//! What the cases from CPython's tests share.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use common::{Consumer, Decode, Delivery, Encode, Producer};
use rustix::process::Signal;
use tests::{DEADLINE, Queue};

/// Runs a case on a queue of its own. One that hangs loses its coordinator, so that its calls come back, and fails.
pub fn with_queue(arguments: &[&str], case: impl FnOnce(Queue) + Send) {
    let queue = Queue::serve(arguments);
    let pid = queue.pid();
    thread::scope(|scope| {
        let (running, over) = channel::<()>();
        let case = scope.spawn(move || {
            let _running = running;
            case(queue);
        });
        let hung = over.recv_timeout(2 * DEADLINE) == Err(RecvTimeoutError::Timeout);
        if hung {
            tests::signal(pid, Signal::KILL);
        }
        case.join().unwrap_or_else(|panic| resume_unwind(panic));
        assert!(!hung, "the case hung until its coordinator was killed");
    });
}

pub fn producer<T: Encode + ?Sized>(queue: &Queue) -> Producer<T> {
    Producer::connect(&queue.endpoint()).expect("a producer")
}

/// A consumer that holds nothing but what it was given: what it does not ask for stays in the queue's figures.
pub fn consumer<T: Decode + ?Sized>(queue: &Queue) -> Consumer<T> {
    Consumer::connect_with_prefetch(&queue.endpoint(), 0).expect("a consumer")
}

pub fn done<T: Decode + Clone>(delivery: Option<Delivery<'_, T>>) -> T {
    let delivery = delivery.expect("an item, not Stop");
    let item = delivery.item().clone();
    delivery.ack().expect("an acknowledgement");
    item
}

pub fn take<T: Decode + Clone>(consumer: &Consumer<T>) -> T {
    done(consumer.get().expect("an item"))
}
