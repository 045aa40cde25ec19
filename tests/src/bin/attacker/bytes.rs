//! Bytes that are no frames, frames that are no messages, messages that make no sense.

use std::net::Shutdown;
use std::path::Path;

use common::batch::{BatchHeader, Layout};
use common::limits::{ITEM_BYTES_MAX_DEFAULT, frame_bytes_max};
use common::message::{CloseReason, ItemId, ItemRange, Message, Outcome, Position, Role};
use tests::random::Random;
use tests::raw::{Raw, framed, frames, hello, with_body};

use crate::{begun, stay};

const ROLES: [Role; 3] = [Role::Producer, Role::Consumer, Role::Control];

/// Random bytes, with a greeting before them or without.
pub fn noise(socket: &Path, seed: u64) {
    let mut random = Random::new(seed);
    for round in 0u64.. {
        let mut raw = Raw::silent(socket);
        if random.below(2) == 0 {
            raw.say(&[hello(ROLES[random.below(3) as usize], "")]);
        }
        let count = 1 + random.below(5000) as usize;
        raw.send(&random.bytes(count));
        let _ = raw.stream.shutdown(Shutdown::Write);
        expect_refusal(&mut raw);
        if round == 20 {
            begun();
        }
    }
}

/// Whole messages, with numbers at the edges of what their fields can hold.
pub fn messages(socket: &Path, seed: u64) {
    let mut random = Random::new(seed);
    for round in 0u64.. {
        let role = ROLES[random.below(3) as usize];
        let name = ["", "x", &"n".repeat(255)][random.below(3) as usize].to_string();
        let mut raw = Raw::connect(socket, role, &name);
        for _ in 0..random.below(10) {
            raw.send(&message(&mut random));
        }
        let _ = raw.stream.shutdown(Shutdown::Write);
        expect_refusal(&mut raw);
        if round == 100 {
            begun();
        }
    }
}

/// The connection ends in one of the ways in which it may.
fn expect_refusal(raw: &mut Raw) {
    // Without a word where the bytes are the beginning of something longer, or where all of them made sense.
    if let Ok((reason, words)) = raw.hear_close() {
        assert!(matches!(reason, CloseReason::Protocol | CloseReason::Version | CloseReason::Replaced), "{reason:?}: {words}");
    }
}

/// Never one that puts an item, takes one from others or ends the coordinator: all of that is allowed.
fn message(random: &mut Random) -> Vec<u8> {
    let number = |random: &mut Random| {
        let edges = [0, 1, 127, 128, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        edges[random.below(edges.len() as u64) as usize]
    };
    let (a, b) = (number(random), number(random));
    let range = ItemRange { first: ItemId(a), count: b as u32 };
    let layout = if random.below(2) == 0 { Layout::Uniform { len: b as u32 } } else { Layout::Table { base: b as u32 } };
    let batch = BatchHeader { count: number(random) as u32, layout };
    let body_bytes = [0, 4, 128, 1000][random.below(4) as usize];
    let body = random.bytes(body_bytes);
    let cause = "c".repeat([0, 4096, 4097][random.below(3) as usize]);
    let returned = |outcome| Message::Return { range, outcome };
    let said = match random.below(16) {
        0 => return with_body(&Message::Put { position: Position(a.max(1)), checksum: 0, batch }, &body),
        1 => return with_body(&Message::Result { first: ItemId(a), batch }, &body),
        2 => Message::Want { bytes: a },
        3 => Message::Finish,
        4 => Message::Join,
        5 => Message::Withdraw,
        6 => Message::Ack { ranges: vec![range; random.below(5000) as usize] },
        7 => returned(Outcome::Unstarted),
        8 => returned(Outcome::Failed { cause }),
        9 => returned(Outcome::Rejected { cause }),
        10 => returned(Outcome::RetryAfter { delay_ms: b }),
        11 => Message::StatusRequest,
        12 => Message::Begin { id: ItemId(a) },
        13 => Message::Recalled,
        14 => Message::ClientsRequest { from: a },
        _ => Message::Confirm { position: Position(a), credit_items: b, credit_bytes: b },
    };
    frames(&[said])
}

/// Lengths over the limit, before a greeting and after.
pub fn lengths(socket: &Path) {
    let most = frame_bytes_max(ITEM_BYTES_MAX_DEFAULT) as u32;
    for round in 0u64.. {
        for (greeting, length) in [(None, 1025), (None, u32::MAX), (Some(()), most + 1), (Some(()), u32::MAX)] {
            for role in ROLES {
                let mut raw = greeting.map_or_else(|| Raw::silent(socket), |()| Raw::connect(socket, role, ""));
                raw.send(&length.to_le_bytes());
                let (reason, words) = raw.hear_close().expect("a reason");
                assert!(reason == CloseReason::Protocol && words.contains(&format!("a frame of {length} bytes")), "{words}");
            }
        }
        if round == 0 {
            begun();
        }
    }
}

/// Frames cut at each of their bytes: one goes away then, one says that it says no more, one keeps still.
pub fn cuts(socket: &Path) {
    let batch = BatchHeader { count: 3, layout: Layout::Uniform { len: 10 } };
    let ranges = vec![ItemRange { first: ItemId(0), count: 300 }; 3];
    let outcome = Outcome::Failed { cause: "a cause".into() };
    let whole = [
        (None, frames(&[hello(Role::Producer, "a name")])),
        (Some(Role::Producer), with_body(&Message::Put { position: Position(0), checksum: 0, batch }, &[7; 30])),
        (Some(Role::Producer), frames(&[Message::Want { bytes: 1 << 40 }])),
        (Some(Role::Consumer), with_body(&Message::Result { first: ItemId(5), batch }, &[7; 30])),
        (Some(Role::Consumer), frames(&[Message::Ack { ranges: ranges.clone() }])),
        (Some(Role::Consumer), frames(&[Message::Return { range: ranges[0], outcome }])),
        (Some(Role::Control), framed(&[18; 20])),
    ];
    let mut kept = Vec::new();
    for (role, frame) in &whole {
        for cut in 1..frame.len() {
            for end in 0..3 {
                let mut raw = role.map_or_else(|| Raw::silent(socket), |role| Raw::connect(socket, role, ""));
                raw.send(&frame[..cut]);
                match end {
                    0 => drop(raw),
                    1 => {
                        raw.stream.shutdown(Shutdown::Write).expect("a connection");
                        let heard = raw.hear_close();
                        assert!(heard.is_err(), "half a frame is no reason to say {heard:?}");
                    }
                    _ => kept.push(raw),
                }
            }
        }
    }
    stay()
}

/// This many connections that each send all of a largest item but its last byte.
pub fn halves(socket: &Path, count: u64) {
    let bytes = ITEM_BYTES_MAX_DEFAULT as usize;
    let batch = BatchHeader { count: 1, layout: Layout::Uniform { len: bytes as u32 } };
    let frame = with_body(&Message::Put { position: Position(0), checksum: 0, batch }, &vec![7; bytes]);
    let mut kept: Vec<Raw> = (0..count).map(|_| Raw::connect(socket, Role::Producer, "")).collect();
    kept.iter_mut().for_each(|raw| raw.send(&frame[..frame.len() - 1]));
    stay()
}
