//! What is refused, what is just accepted, and how things are shown.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::limits::{
    ACK_RANGES_MAX, CAUSE_BYTES_MAX, CLIENTS_SHOWN_MAX, FRAME_PREFIX_BYTES, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, PROTOCOL_VERSION,
};

fn frame_of(message: &Message, body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    message.encode(body.len(), &mut out);
    out.extend_from_slice(body);
    assert_eq!(u32::from_le_bytes([out[0], out[1], out[2], out[3]]) as usize, out.len() - FRAME_PREFIX_BYTES);
    Bytes::from(out).slice(FRAME_PREFIX_BYTES..)
}

#[test]
fn another_version_is_told_apart_whatever_follows_it() {
    assert_eq!(Message::decode(Bytes::from_static(&[0, 99, 1, 2, 3, 4])).unwrap_err(), DecodeError::Version { came: 99 });
    assert_eq!(Message::decode(Bytes::from_static(&[1, 0xac, 0x02])).unwrap_err(), DecodeError::Version { came: 300 });
    let longer_than_need_be = Bytes::from_static(&[0x80, 0, 75, 2, 0]);
    assert_eq!(Message::decode(longer_than_need_be).unwrap_err(), DecodeError::Version { came: 75 });
}

#[test]
fn trailing_bytes_are_refused() {
    let frame = frame_of(&Message::Stop, b"xy");
    assert_eq!(Message::decode(frame).unwrap_err(), DecodeError::Trailing { bytes: 2 });
}

#[test]
fn fields_over_their_limit_are_refused() {
    let name = "n".repeat(NAME_BYTES_MAX + 1);
    let hello = Message::Hello { version: PROTOCOL_VERSION, role: Role::Producer, name };
    assert!(matches!(Message::decode(frame_of(&hello, b"")), Err(DecodeError::Limit { came: 256, max: 255, .. })));
}

#[test]
fn fields_may_be_exactly_as_long_as_their_limit() {
    let hello = |bytes| Message::Hello { version: PROTOCOL_VERSION, role: Role::Producer, name: "n".repeat(bytes) };
    let range = ItemRange { first: ItemId(u64::MAX), count: u32::MAX };
    let ack = |ranges| Message::Ack { ranges: vec![range; ranges] };
    let failed = |bytes| Message::Return { range, outcome: Outcome::Failed { cause: "c".repeat(bytes) } };
    let rejected = |bytes| Message::Return { range, outcome: Outcome::Rejected { cause: "c".repeat(bytes) } };
    let revoke = |ranges| Message::Revoke { ranges: vec![range; ranges] };
    let work =
        crate::status::Work::Producer { name: "n".repeat(NAME_BYTES_MAX), accepted: u64::MAX, parked: 0, waiting: true, finished: false };
    let client = ClientStatus { number: u64::MAX, pid: Some(u32::MAX), connected_ms: u64::MAX, work };
    let clients = |number| Message::Clients { clients: vec![client.clone(); number], more_from: Some(u64::MAX) };
    type Make<'a> = &'a dyn Fn(usize) -> Message;
    let cases: [(Make, usize); 6] = [
        (&hello, NAME_BYTES_MAX),
        (&ack, ACK_RANGES_MAX),
        (&revoke, ACK_RANGES_MAX),
        (&clients, CLIENTS_SHOWN_MAX),
        (&failed, CAUSE_BYTES_MAX),
        (&rejected, CAUSE_BYTES_MAX),
    ];
    for (message, limit) in cases {
        assert_eq!(Message::decode(frame_of(&message(limit), b"")).unwrap().message, message(limit));
        let refused = Message::decode(frame_of(&message(limit + 1), b"")).unwrap_err();
        assert!(matches!(refused, DecodeError::Limit { came, max, .. } if (came, max) == (limit + 1, limit)), "{refused}");
    }
}

#[test]
fn a_message_ends_within_its_limit_whatever_its_fields_say() {
    let close = |bytes| Message::Close { reason: CloseReason::Goodbye, words: "w".repeat(bytes) };
    // The numbers of message and reason, and a length of three bytes.
    let largest = MESSAGE_BYTES_MAX - 5;
    assert_eq!(Message::decode(frame_of(&close(largest), b"")).unwrap().message, close(largest));
    let refused = Message::decode(frame_of(&close(largest + 1), b"")).unwrap_err();
    assert!(matches!(refused, DecodeError::Invalid { bytes, .. } if bytes == MESSAGE_BYTES_MAX + 1), "{refused}");
    assert_eq!(Message::decode(frame_of(&close(largest), b"x")).unwrap_err(), DecodeError::Trailing { bytes: 1 });
}

#[test]
fn numbers_are_shown_as_such_and_roles_by_name() {
    assert_eq!([ItemId(7).to_string(), Position(8).to_string()], ["7", "8"]);
    assert_eq!(
        [Role::Producer, Role::Consumer, Role::Control].map(|role| role.to_string()),
        ["producer", "consumer", "control connection"]
    );
}

#[test]
fn a_cause_stays_as_long_as_is_allowed() {
    let longest = "c".repeat(CAUSE_BYTES_MAX);
    assert_eq!(cut_cause(longest.clone()), longest);
    let cut = cut_cause(longest + "c");
    assert_eq!((cut.len(), cut.strip_suffix('…').map(str::len)), (CAUSE_BYTES_MAX, Some(CAUSE_BYTES_MAX - 3)));
}

#[test]
fn a_long_cause_is_cut_at_a_character() {
    let cut = cut_cause("é".repeat(CAUSE_BYTES_MAX));
    assert!(cut.len() <= CAUSE_BYTES_MAX && cut.ends_with('…') && cut.starts_with("éé"));
    assert_eq!(cut_cause("short".into()), "short");
}

proptest! {
    #[test]
    fn no_frame_however_odd_makes_decode_panic(frame: Vec<u8>) {
        let _ = Message::decode(frame.into());
    }
}
