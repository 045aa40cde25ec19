//! Clients that say what may be said, but not by them, not now, or not so often.

use std::path::Path;

use common::batch::{BatchHeader, Layout};
use common::limits::{CREDIT_BYTES_MAX, ITEM_BYTES_MAX_DEFAULT};
use common::message::{CloseReason, ItemId, ItemRange, Message, Outcome, Position, Role};
use tests::raw::{Raw, with_body};

use crate::begun;

fn put(position: u64, bytes: u64) -> Vec<u8> {
    let batch = BatchHeader { count: 1, layout: Layout::Uniform { len: bytes as u32 } };
    with_body(&Message::Put { position: Position(position), checksum: 0, batch }, &vec![b'x'; bytes as usize])
}

fn expect_words(raw: &mut Raw, expected: &str) {
    let (reason, words) = raw.hear_close().expect("a reason");
    assert!(reason == CloseReason::Protocol && words.contains(expected), "{reason:?}: {words:?} instead of {expected:?}");
}

/// More than its credit, at a place that is not its next, or too large.
pub fn puts_without_credit(socket: &Path) {
    let bad = [
        (put(0, CREDIT_BYTES_MAX + 1), "on credit for"),
        (put(1, 1), "a Put of position 1; the next is 0"),
        (put(u64::MAX, 1), "the next is 0"),
        (put(0, ITEM_BYTES_MAX_DEFAULT + 1), "one item has 16777217 bytes; at most 16777216 are accepted"),
    ];
    for round in 0u64.. {
        let (frame, words) = &bad[round as usize % bad.len()];
        let mut raw = Raw::connect(socket, Role::Producer, "");
        raw.send(frame);
        expect_words(&mut raw, words);
        if round == 10 {
            begun();
        }
    }
}

/// Items that others hold, that nobody holds, that there are not yet; in each way to settle.
pub fn settles_what_it_does_not_hold(socket: &Path) {
    for round in 0u64.. {
        for first in [0, 1000 + round, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            for count in [0, 1, u32::MAX] {
                let range = ItemRange { first: ItemId(first), count };
                let batch = BatchHeader { count: 1, layout: Layout::Uniform { len: 1 } };
                let says = [
                    with_body(&Message::Ack { ranges: vec![range] }, &[]),
                    with_body(&Message::Return { range, outcome: Outcome::Unstarted }, &[]),
                    with_body(&Message::Result { first: ItemId(first), batch }, b"x"),
                ];
                for frame in says {
                    let mut raw = Raw::connect(socket, Role::Consumer, "");
                    // What it begins without holding it is passed over in silence.
                    raw.say(&[Message::Begin { id: ItemId(first) }]);
                    raw.send(&frame);
                    expect_words(&mut raw, "not all of which it holds");
                }
            }
        }
        if round == 0 {
            begun();
        }
    }
}

/// `Join` after `Join`, in the hope that all are kept in mind until they can be answered: not before an item is settled that it holds.
pub fn asks_to_be_told_without_end(socket: &Path) {
    let mut holder = Raw::connect(socket, Role::Consumer, "");
    holder.say(&[Message::Demand { items: 1, bytes: 1 }]);
    holder.hear().expect("an item");
    let joins = tests::raw::frames(&vec![Message::Join; 100_000]);
    for round in 0u64.. {
        let mut raw = Raw::connect(socket, Role::Control, "");
        raw.send(&joins);
        let (reason, words) = raw.hear_close().expect("a reason");
        assert!(reason == CloseReason::Limit && words.contains("more than 4096 Joins wait"), "{reason:?}: {words}");
        if round == 10 {
            begun();
        }
    }
}

/// One question after the other, so many in one piece, all answers read.
pub fn asks_without_end(socket: &Path, question: Message, at_once: usize) {
    let questions = vec![question; at_once];
    let mut raw = Raw::connect(socket, Role::Control, "");
    for round in 0u64.. {
        raw.say(&questions);
        for _ in 0..questions.len() {
            raw.hear().expect("an answer");
        }
        if round == 0 {
            begun();
        }
    }
}
