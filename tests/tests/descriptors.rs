//! A coordinator that has few descriptors, and more who want one each: it goes on, and so does who is connected.

use rustix::process::Signal;
use tests::raw::{Raw, frames, hello};
use tests::{Load, Pace, Process, Queue, children_of, eventually, name_of, signal};

use common::message::{Message, Role};

#[test]
fn clients_that_are_connected_go_on_and_new_ones_get_in_once_there_is_room() {
    let mut queue = Queue::serve_after("ulimit -n 48", &[]);
    let load = Load::start(queue.socket(), Pace::Steady);
    let rate = load.rate();
    let mut kept = Vec::new();
    // They connect, but nobody answers all of them.
    for _ in 0..40 {
        let mut raw = Raw::silent(queue.socket());
        raw.send(&frames(&[hello(Role::Consumer, "")]));
        kept.push(raw);
    }
    let mut late = queue.client("coordinator", &["status"]);
    kept.iter_mut().take(10).for_each(|raw| assert!(matches!(raw.hear().unwrap().message, Message::Welcome { .. })));
    queue.coordinator().wait_for_stderr("cannot accept more connections for now");
    load.wait_for_half_of(rate);
    assert!(late.is_alive(), "{}", late.end());
    drop(kept);
    let (code, _, said) = late.finish();
    assert_eq!(code, 0, "{said}");
    load.finish();
}

#[test]
fn a_child_that_dies_is_started_again_though_silent_connections_take_all_that_there_are() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("q.sock");
    let mut run = Process::start_after("ulimit -n 56", "coordinator", &socket, &["--input", "-", "--consumers", "1"]);
    run.write(b"a\n");
    run.wait_for_stdout("a\n");
    let silent: Vec<Raw> = (0..100).map(|_| Raw::silent(&socket)).collect();
    let consumer = |()| children_of(run.pid()).into_iter().find(|pid| name_of(*pid) == "consumer");
    for _ in 0..3 {
        let victim = eventually("a consumer", || consumer(()));
        signal(victim, Signal::KILL);
        eventually("another consumer", || consumer(()).filter(|another| *another != victim));
    }
    run.write(b"b\nc\n");
    run.wait_for_stdout("c\n");
    drop(silent);
    let (code, results, said) = run.finish();
    assert_eq!((code, &results[..]), (0, "a\nb\nc\n"), "{said}");
}
