//! The first and the last of a connection: those that do not say who they are, and those that do not hear why they are closed.

use std::io::Write;

use common::message::{CloseReason, Message, Role};
use tests::raw::{Raw, hello};
use tests::{Queue, eventually};

#[test]
fn one_that_says_nothing_is_told_so_and_closed_after_five_seconds() {
    let queue = Queue::serve(&[]);
    let mut nothing = Raw::silent(queue.socket());
    let mut half = Raw::silent(queue.socket());
    half.send(&[4, 0, 0]);
    for raw in [&mut nothing, &mut half] {
        let (reason, words) = raw.hear_close().unwrap();
        assert_eq!((reason, &words[..]), (CloseReason::Limit, "no Hello within 5 s"));
    }
}

#[test]
fn one_that_says_something_else_first_is_told_so() {
    let queue = Queue::serve(&[]);
    let mut raw = Raw::silent(queue.socket());
    raw.say(&[Message::StatusRequest, hello(Role::Control, "")]);
    assert_eq!(raw.hear_close().unwrap(), (CloseReason::Protocol, "you said StatusRequest before Hello".into()));
}

#[test]
fn of_too_many_that_say_nothing_the_oldest_gives_way_to_the_newest() {
    let queue = Queue::serve(&[]);
    let mut silent: Vec<Raw> = (0..1030).map(|_| Raw::silent(queue.socket())).collect();
    for oldest in &mut silent[..6] {
        let (reason, words) = oldest.hear_close().unwrap();
        assert!(reason == CloseReason::Limit && words.contains("as many connections as it takes"), "{words}");
    }
    // All others have their place, and may still say who they are.
    for raw in &mut silent[6..] {
        raw.say(&[hello(Role::Control, "")]);
        assert!(matches!(raw.hear().unwrap().message, Message::Welcome { .. }));
    }
}

#[test]
fn one_that_does_not_hear_why_it_is_closed_is_dropped_after_a_second() {
    let queue = Queue::serve(&[]);
    let mut raw = Raw::connect(queue.socket(), Role::Control, "");
    raw.say(&[Message::Stop]);
    // As long as it lingers, what it sends is read, and thrown away.
    eventually("the connection's end", || raw.stream.write_all(&[0; 100]).is_err().then_some(()));
    let (reason, words) = raw.hear_close().unwrap();
    assert!(reason == CloseReason::Protocol && words.contains("Stop has no place here"), "{words}");
}
