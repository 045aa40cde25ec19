//! What is settled gathers while enough is on its way, unless somebody waits for it.

use super::*;

/// One that asks for four ahead has got one, and settled it at 1 ms.
fn settled() -> ConsumerSession {
    let mut session = session(1000, Some(4));
    session.refill_to_wait(Duration::ZERO);
    assert_eq!(sent(&mut session), [Message::Demand { items: 4, bytes: PREFETCH_BYTES_MAX }]);
    settle_more(&mut session, 0, &[b"a"]);
    session
}

fn settle_more(session: &mut ConsumerSession, first: u64, items: &[&[u8]]) {
    deliver(session, first, items);
    for id in first..first + items.len() as u64 {
        take_on(session);
        session.ack(held(id), || MS).unwrap();
    }
}

fn acked(first: u64, count: u32) -> Message {
    Message::Ack { ranges: vec![range(first, count)] }
}

#[test]
fn who_waits_for_what_is_on_its_way_says_what_is_settled_once_that_is_due() {
    let mut session = settled();
    session.refill_to_wait(MS);
    session.refill_to_wait(MS + FLUSH_DELAY - Duration::from_nanos(1));
    assert_eq!((sent(&mut session), session.next_timeout()), (vec![], Some(MS + FLUSH_DELAY)));
    session.refill_to_wait(MS + FLUSH_DELAY);
    assert_eq!(sent(&mut session), [acked(0, 1), Message::Demand { items: 1, bytes: 1 }]);
}

#[test]
fn what_is_on_its_way_is_not_enough_if_no_bytes_are_left_to_send_it() {
    let mut session = session(1 << 30, Some(100));
    session.refill_to_wait(Duration::ZERO);
    sent(&mut session);
    settle_more(&mut session, 0, &[&vec![0; PREFETCH_BYTES_MAX as usize - 1], b"b"]);
    assert_eq!(sent(&mut session), [], "98 are on their way");
    session.refill_to_wait(MS);
    // What came has a table of eight bytes.
    assert_eq!(sent(&mut session), [acked(0, 2), Message::Demand { items: 2, bytes: PREFETCH_BYTES_MAX + 8 }]);
}

#[test]
fn who_is_told_to_hurry_gathers_nothing_for_some_waits() {
    let mut session = settled();
    session.handle(Incoming { message: Message::Hurry, batch: None }).unwrap();
    assert_eq!(sent(&mut session), [acked(0, 1)]);
    for first in 1.. {
        // To wait without having settled anything does not count.
        session.refill_to_wait(MS);
        session.refill_to_wait(MS);
        sent(&mut session);
        settle_more(&mut session, first, &[b"b"]);
        sent(&mut session);
        session.refill_to_wait(MS);
        let said = sent(&mut session);
        if first > u64::from(HURRIED_WAITS) {
            return assert_eq!(said, []);
        }
        assert_eq!(said[0], acked(first, 1));
    }
}

#[test]
fn who_asks_for_one_at_a_time_says_what_is_settled_as_it_asks() {
    let mut session = session(1000, None);
    session.refill_to_wait(Duration::ZERO);
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX }]);
    settle_more(&mut session, 0, &[b"a"]);
    session.refill_to_wait(10 * MS);
    assert_eq!(sent(&mut session), [acked(0, 1), Message::Demand { items: 1, bytes: 1 }]);
}
