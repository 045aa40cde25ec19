use super::*;
use crate::frame::FrameReader;

const MS: Duration = Duration::from_millis(1);

fn deliver(session: &mut ConsumerSession, first: u64, items: &[&'static [u8]]) {
    let mut builder = BatchBuilder::default();
    for item in items {
        builder.push_bytes(item);
    }
    let batch = builder.take_batch().unwrap();
    let message = Message::Deliver { first: ItemId(first), attempt: 1, batch: batch.header() };
    session.handle(Incoming { message, batch: Some(batch) }).unwrap();
}

fn take(session: &mut ConsumerSession) -> Option<(u64, Vec<u8>)> {
    session.look_ahead(MS);
    let taken = session.next_quick().map(|next| (next.id.0, next.batch.item(next.index).to_vec()));
    session.take_quick();
    taken
}

fn sent(session: &mut ConsumerSession) -> Vec<Message> {
    let mut stream = Vec::new();
    let write = |slices: &[std::io::IoSlice<'_>]| {
        slices.iter().for_each(|slice| stream.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    };
    session.outbox().write_to(write).unwrap();
    let mut reader = FrameReader::new(1 << 20);
    let mut input = &stream[..];
    let mut messages = Vec::new();
    while let Some(frame) = reader.next(&mut input).unwrap() {
        messages.push(Message::decode(frame).unwrap().message);
    }
    messages
}

fn range(first: u64, count: u32) -> ItemRange {
    ItemRange { first: ItemId(first), count }
}

#[test]
fn asks_for_one_item_first_and_acknowledges_with_the_next_question() {
    let mut session = ConsumerSession::new(1000, 2, None);
    session.refill(Duration::ZERO, true);
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX }]);
    deliver(&mut session, 5, &[b"five"]);
    assert_eq!(take(&mut session), Some((5, b"five".to_vec())));
    assert_eq!(session.ack(ItemId(5), || 10 * MS), Settled::Gathering);
    session.refill(10 * MS, true);
    let one_more = Message::Demand { items: 1, bytes: "five".len() as u64 };
    assert_eq!(sent(&mut session), [Message::Ack { ranges: vec![range(5, 1)] }, one_more]);
}

#[test]
fn acknowledgements_of_neighbours_become_one_range_and_leave_after_the_delay() {
    let mut session = ConsumerSession::new(1000, 2, None);
    deliver(&mut session, 0, &[b"a", b"b", b"c", b"d"]);
    while take(&mut session).is_some() {}
    for id in [0, 1, 3] {
        session.ack(ItemId(id), || MS);
    }
    assert_eq!(session.next_timeout(), Some(MS + FLUSH_DELAY));
    session.handle_timeout(MS + FLUSH_DELAY);
    assert_eq!(sent(&mut session), [Message::Ack { ranges: vec![range(0, 2), range(3, 1)] }]);
    assert_eq!(session.next_timeout(), None);
}

#[test]
fn what_is_not_begun_goes_back_while_the_application_takes_nothing() {
    let mut session = ConsumerSession::new(1000, 2, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"long", b"b", b"c"]);
    take(&mut session);
    sent(&mut session);
    let due = session.next_timeout().unwrap();
    session.handle_timeout(due);
    assert_eq!(sent(&mut session), [], "one item was taken since the watch began");
    let due = session.next_timeout().unwrap();
    session.handle_timeout(due);
    assert_eq!(sent(&mut session), [Message::Return { range: range(1, 2), outcome: Outcome::Unstarted }]);
    assert_eq!(session.next_timeout(), None);
}

#[test]
fn demand_that_is_still_open_is_withdrawn_while_the_application_takes_nothing() {
    let mut session = ConsumerSession::new(1000, 2, None);
    session.refill(Duration::ZERO, true);
    sent(&mut session);
    session.handle_timeout(PREFETCH_GIVE_BACK_AFTER);
    assert_eq!(sent(&mut session), [Message::Withdraw]);
    deliver(&mut session, 0, &[b"crossed the withdrawal"]);
    session.handle_timeout(2 * PREFETCH_GIVE_BACK_AFTER);
    assert_eq!(sent(&mut session), [Message::Return { range: range(0, 1), outcome: Outcome::Unstarted }]);
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    session.handle_timeout(3 * PREFETCH_GIVE_BACK_AFTER);
    assert_eq!(session.next_timeout(), None);
}

#[test]
fn demand_counts_on_whatever_crosses_it_on_the_way() {
    let mut session = ConsumerSession::new(1000, 2, Some(4));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"a", b"b", b"c"]);
    (0..2).for_each(|_| assert!(take(&mut session).is_some()));
    deliver(&mut session, 3, &[b"sent before the second demand came"]);
    assert_eq!(session.demanded_items, 2);
    session.withdraw();
    session.refill(MS, true);
    deliver(&mut session, 4, &[b"sent on the withdrawn demand"]);
    let demanded = session.demanded_items;
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    deliver(&mut session, 5, &[b"sent on the new one"]);
    assert_eq!(session.demanded_items, demanded - 1);
}

#[test]
fn items_that_use_up_the_bytes_are_followed_by_a_demand_for_bytes() {
    let mut session = ConsumerSession::new(u64::MAX, 2, Some(100));
    session.refill(Duration::ZERO, true);
    sent(&mut session);
    let large: &'static [u8] = Box::leak(vec![0; PREFETCH_BYTES_MAX as usize + 10].into_boxed_slice());
    deliver(&mut session, 0, &[large]);
    assert_eq!(sent(&mut session), [], "one at a time is enough of this size");
    take(&mut session);
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX + 10 }]);
}

#[test]
fn a_caller_that_waits_keeps_its_demand() {
    let mut session = ConsumerSession::new(1000, 2, None);
    session.refill(Duration::ZERO, true);
    session.begin_wait();
    sent(&mut session);
    session.handle_timeout(PREFETCH_GIVE_BACK_AFTER);
    assert_eq!(sent(&mut session), []);
}

#[test]
fn stop_gives_back_what_is_not_begun_and_ends() {
    let mut session = ConsumerSession::new(1000, 2, Some(10));
    deliver(&mut session, 7, &[b"a", b"b"]);
    take(&mut session);
    sent(&mut session);
    session.handle(Incoming { message: Message::Stop, batch: None }).unwrap();
    assert!(session.is_stopped());
    assert_eq!(sent(&mut session), [Message::Return { range: range(8, 1), outcome: Outcome::Unstarted }]);
}

#[test]
fn results_of_neighbours_share_a_batch_others_do_not() {
    let mut session = ConsumerSession::new(1000, 2, None);
    for id in [3, 4, 9] {
        session.ack_with(ItemId(id), b"r", || MS).unwrap();
    }
    session.send_settled();
    let ids: Vec<_> = sent(&mut session)
        .into_iter()
        .map(|message| match message {
            Message::Result { first, batch } => (first.0, batch.count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [(3, 2), (9, 1)]);
}

#[test]
fn a_result_over_the_limit_fails_its_item() {
    let mut session = ConsumerSession::new(4, 2, None);
    assert!(session.ack_with(ItemId(3), b"larger", || MS).is_err());
    assert!(matches!(&sent(&mut session)[..], [Message::Return { outcome: Outcome::Failed { cause }, .. }] if cause.contains("6 bytes")));
}
