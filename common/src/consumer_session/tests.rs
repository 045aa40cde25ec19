mod gathering;
mod leases;

use super::*;
use crate::message::Position;

const MS: Duration = Duration::from_millis(1);

fn session(item_bytes_max: u64, prefetch: Option<u32>) -> ConsumerSession {
    ConsumerSession::new(greeting(item_bytes_max), prefetch)
}

fn greeting(item_bytes_max: u64) -> Greeting {
    Greeting { pid: 1, item_bytes_max, position: Position(0), announce_from: 2, checksum: None, lease: None }
}

fn held(id: u64) -> Held {
    Held::new(ItemId(id), 1, 0)
}

fn deliver(session: &mut ConsumerSession, first: u64, items: &[&[u8]]) {
    deliver_again(session, first, items, 1);
}

fn deliver_again(session: &mut ConsumerSession, first: u64, items: &[&[u8]], attempt: u32) {
    let mut builder = BatchBuilder::default();
    for item in items {
        builder.push_bytes(item);
    }
    let batch = builder.take_batch().unwrap();
    let message = Message::Deliver { first: ItemId(first), attempt, batch: batch.header() };
    session.handle(Incoming { message, batch: Some(batch) }).unwrap();
}

fn take(session: &mut ConsumerSession) -> Option<(u64, Vec<u8>)> {
    session.look_ahead(MS);
    let taken = session.next_quick().map(|next| (next.held.id.0, next.batch.item(next.index).to_vec()));
    session.take_quick();
    taken
}

/// Takes an item as a client does: looks ahead only where that is due.
fn take_on(session: &mut ConsumerSession) {
    if session.next_quick().is_none() {
        session.look_ahead(MS);
    }
    assert!(session.next_quick().is_some());
    session.take_quick();
}

fn sent(session: &mut ConsumerSession) -> Vec<Message> {
    session.outbox().read_all().into_iter().map(|incoming| incoming.message).collect()
}

fn range(first: u64, count: u32) -> ItemRange {
    ItemRange { first: ItemId(first), count }
}

#[test]
fn asks_for_one_item_first_and_acknowledges_with_the_next_question() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX }]);
    deliver(&mut session, 5, &[b"five"]);
    assert_eq!(take(&mut session), Some((5, b"five".to_vec())));
    assert_eq!(session.ack(held(5), || 10 * MS).unwrap(), Settled::Gathering);
    session.refill(10 * MS, true);
    let one_more = Message::Demand { items: 1, bytes: "five".len() as u64 };
    assert_eq!(sent(&mut session), [Message::Ack { ranges: vec![range(5, 1)] }, one_more]);
}

#[test]
fn one_that_begins_by_hand_announces_what_it_begins_and_not_what_it_takes() {
    let mut session = session(1000, None);
    session.begin_by_hand();
    deliver_again(&mut session, 0, &[b"a", b"b", b"c"], 2);
    while take(&mut session).is_some() {}
    assert!(sent(&mut session).iter().all(|message| !matches!(message, Message::Begin { .. })));
    session.begin(Held::new(ItemId(1), 2, 0), MS).unwrap();
    // The first attempt is not asked for, nor anything that came on another connection.
    session.begin(held(2), MS).unwrap();
    session.begin(Held::new(ItemId(0), 2, 7), MS).unwrap();
    assert_eq!(sent(&mut session), [Message::Begin { id: ItemId(1) }]);
}

#[test]
fn what_is_behind_an_item_that_is_given_back_unstarted_goes_with_it() {
    let mut session = session(1000, None);
    deliver(&mut session, 4, &[b"a", b"b", b"c"]);
    take(&mut session);
    take(&mut session);
    session.give_back(held(5), Outcome::Unstarted).unwrap();
    let unstarted = |range| Message::Return { range, outcome: Outcome::Unstarted };
    assert_eq!(sent(&mut session), [unstarted(range(5, 1)), unstarted(range(6, 1))]);
    assert!(!session.has_local());
}

#[test]
fn what_is_on_its_way_meanwhile_goes_back_as_well_so_that_items_keep_their_order() {
    let mut session = session(1000, Some(2));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"a"]);
    take(&mut session);
    sent(&mut session);
    session.give_back(held(0), Outcome::Unstarted).unwrap();
    let unstarted = Message::Return { range: range(0, 1), outcome: Outcome::Unstarted };
    assert_eq!(sent(&mut session), [Message::Withdraw, unstarted]);
    deliver(&mut session, 1, &[b"b"]);
    assert_eq!(sent(&mut session), [Message::Return { range: range(1, 1), outcome: Outcome::Unstarted }]);
    session.refill(MS, true);
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    deliver(&mut session, 0, &[b"a", b"b"]);
    assert_eq!(take(&mut session), Some((0, b"a".to_vec())));
}

#[test]
fn what_is_on_its_way_goes_back_as_well_when_its_demand_was_withdrawn_before() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"a"]);
    take(&mut session);
    session.refill(MS, true);
    session.withdraw();
    sent(&mut session);
    session.give_back(held(0), Outcome::Unstarted).unwrap();
    sent(&mut session);
    // It was sent before the coordinator heard of the withdrawal.
    deliver(&mut session, 1, &[b"b"]);
    assert_eq!(sent(&mut session), [Message::Return { range: range(1, 1), outcome: Outcome::Unstarted }]);
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    assert!(!session.is_giving_back());
}

#[test]
fn nothing_is_asked_for_until_all_that_goes_back_is_there_so_that_nothing_newer_comes_first() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"a"]);
    take(&mut session);
    session.begin_wait();
    session.keep_demanding();
    session.end_wait(MS, Duration::ZERO);
    sent(&mut session);
    session.handle_timeout(MS + PREFETCH_GIVE_BACK_AFTER);
    session.handle_timeout(MS + 2 * PREFETCH_GIVE_BACK_AFTER);
    assert_eq!(sent(&mut session), [Message::Withdraw]);
    // An item may be on its way, which a later one must not pass.
    session.refill(20 * MS, true);
    session.begin_wait();
    session.keep_demanding();
    assert_eq!(sent(&mut session), []);
    deliver(&mut session, 1, &[b"b"]);
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    session.keep_demanding();
    let back = Message::Return { range: range(1, 1), outcome: Outcome::Unstarted };
    let sent = sent(&mut session);
    assert!(matches!(&sent[..], [first, Message::Demand { items: 1, .. }] if *first == back), "{sent:?}");
}

#[test]
fn acknowledgements_of_neighbours_become_one_range_and_leave_after_the_delay() {
    let mut session = session(1000, None);
    deliver(&mut session, 0, &[b"a", b"b", b"c", b"d"]);
    while take(&mut session).is_some() {}
    for id in [0, 1, 3] {
        session.ack(held(id), || MS).unwrap();
    }
    assert_eq!(session.next_timeout(), Some(MS + FLUSH_DELAY));
    session.handle_timeout(MS + FLUSH_DELAY);
    assert_eq!(sent(&mut session), [Message::Ack { ranges: vec![range(0, 2), range(3, 1)] }]);
    assert_eq!(session.next_timeout(), None);
}

#[test]
fn what_is_not_begun_goes_back_while_the_application_takes_nothing() {
    let mut session = session(1000, None);
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
    let mut session = session(1000, None);
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
    let mut session = session(1000, Some(4));
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
    let mut session = session(u64::MAX, Some(100));
    session.refill(Duration::ZERO, true);
    sent(&mut session);
    deliver(&mut session, 0, &[&vec![0; PREFETCH_BYTES_MAX as usize + 10]]);
    assert_eq!(sent(&mut session), [], "one at a time is enough of this size");
    take(&mut session);
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX + 10 }]);
}

#[test]
fn a_caller_that_waits_keeps_its_demand() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    session.begin_wait();
    sent(&mut session);
    session.handle_timeout(PREFETCH_GIVE_BACK_AFTER);
    assert_eq!(sent(&mut session), []);
}

#[test]
fn stop_gives_back_what_is_not_begun_and_ends() {
    let mut session = session(1000, Some(10));
    deliver(&mut session, 7, &[b"a", b"b"]);
    take(&mut session);
    sent(&mut session);
    session.handle(Incoming { message: Message::Stop, batch: None }).unwrap();
    assert!(session.is_stopped());
    assert_eq!(sent(&mut session), [Message::Return { range: range(8, 1), outcome: Outcome::Unstarted }]);
}

#[test]
fn results_of_neighbours_share_a_batch_others_do_not() {
    let mut session = session(1000, None);
    for id in [3, 4, 9] {
        session.ack_with(held(id), b"r", || MS).unwrap();
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
    let mut session = session(4, None);
    assert!(session.ack_with(held(3), b"larger", || MS).is_err());
    assert!(matches!(&sent(&mut session)[..], [Message::Return { outcome: Outcome::Failed { cause }, .. }] if cause.contains("6 bytes")));
}

#[test]
fn more_is_asked_for_once_half_of_what_is_wanted_ahead_is_left_however_it_was_cut() {
    for cuts in [&[10][..], &[4, 6], &[5, 5], &[1, 1, 8], &[5, 2]] {
        let mut session = session(1000, Some(10));
        session.refill(Duration::ZERO, false);
        assert_eq!(sent(&mut session), [Message::Demand { items: 10, bytes: PREFETCH_BYTES_MAX }]);
        cuts.iter().for_each(|count| deliver(&mut session, 0, &vec![&b"x"[..]; *count]));
        for taken in 1..cuts.iter().sum() {
            take_on(&mut session);
            let asked: Vec<u32> =
                sent(&mut session).iter().map(|message| if let Message::Demand { items, .. } = message { *items } else { 0 }).collect();
            assert_eq!(asked, if taken == 5 { &[5][..] } else { &[] }, "the item in hand and five behind it; {cuts:?}, {taken}");
        }
    }
}

#[test]
fn what_is_on_its_way_counts_as_at_hand() {
    let mut session = session(1000, Some(10));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[&b"x"[..]; 4]);
    sent(&mut session);
    (0..4).for_each(|_| take_on(&mut session));
    assert_eq!(sent(&mut session), [], "six are on their way");
    session.refill(MS, true);
    assert_eq!(sent(&mut session), [Message::Demand { items: 4, bytes: 4 }]);
}

#[test]
fn large_items_are_asked_for_once_half_of_the_bytes_are_used_up() {
    let half = PREFETCH_BYTES_MAX as usize / 2;
    for (behind, asked) in [(half, vec![Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX / 2 }]), (half + 1, vec![])] {
        let mut session = session(u64::MAX, Some(100));
        session.refill(Duration::ZERO, true);
        deliver(&mut session, 0, &[&vec![0; half]]);
        deliver(&mut session, 1, &[&vec![0; behind]]);
        sent(&mut session);
        take_on(&mut session);
        assert_eq!(sent(&mut session), asked);
    }
}

#[test]
fn bytes_that_are_used_up_matter_only_while_items_are_to_come() {
    let mut session = session(u64::MAX, Some(10));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[&vec![0; PREFETCH_BYTES_MAX as usize - 1]]);
    deliver(&mut session, 1, &[&b"xy"[..]; 9]);
    sent(&mut session);
    take_on(&mut session);
    assert_eq!(sent(&mut session), [], "nine of ten are at hand");
}

#[test]
fn what_is_asked_for_is_not_asked_for_again_unless_its_bytes_are_used_up() {
    let asking = |item_bytes: usize| {
        let mut session = session(u64::MAX, None);
        (0..2).for_each(|_| session.begin_wait());
        session.keep_demanding();
        session.refill(Duration::ZERO, true);
        assert_eq!(sent(&mut session), [Message::Demand { items: 2, bytes: PREFETCH_BYTES_MAX }]);
        deliver(&mut session, 0, &[&vec![0; item_bytes]]);
        session.refill(Duration::ZERO, true);
        assert_eq!(sent(&mut session), [], "its bytes are still here");
        take(&mut session);
        session.refill(1000 * MS, true);
        sent(&mut session)
    };
    assert_eq!(asking(1), []);
    assert_eq!(asking(PREFETCH_BYTES_MAX as usize + 10), [Message::Demand { items: 0, bytes: PREFETCH_BYTES_MAX + 10 }]);
}

#[test]
fn a_batch_holds_its_bytes_until_its_last_item_is_taken() {
    let half = vec![0; PREFETCH_BYTES_MAX as usize / 2];
    let mut session = session(u64::MAX, Some(100));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[&half, &half]);
    sent(&mut session);
    take_on(&mut session);
    assert_eq!(sent(&mut session), []);
    session.look_ahead(MS);
    assert_eq!(sent(&mut session), [Message::Demand { items: 2, bytes: PREFETCH_BYTES_MAX }]);
}

#[test]
fn each_item_of_a_later_attempt_is_announced_before_it_is_begun() {
    for (attempt, announced) in [(1, false), (2, true), (3, true)] {
        let mut session = session(1000, None);
        deliver_again(&mut session, 7, &[&b"x"[..]; 3], attempt);
        for id in 7..10 {
            take_on(&mut session);
            assert_eq!(sent(&mut session), if announced { vec![Message::Begin { id: ItemId(id) }] } else { vec![] });
        }
    }
}

#[test]
fn from_which_attempt_on_items_are_announced_is_what_the_coordinator_says_that_is_there_now() {
    let mut session = session(1000, None);
    assert_eq!(session.announce_from(), 2);
    session.lose();
    session.resume(Greeting { announce_from: 3, ..greeting(1000) }).unwrap();
    assert_eq!(session.announce_from(), 3);
}

#[test]
fn as_many_items_are_asked_for_as_callers_wait() {
    let mut session = session(1000, None);
    for _ in 0..3 {
        session.begin_wait();
    }
    session.keep_demanding();
    session.keep_demanding();
    assert_eq!(sent(&mut session), [Message::Demand { items: 3, bytes: PREFETCH_BYTES_MAX }]);
    deliver(&mut session, 0, &[b"12", b"34"]);
    session.begin_wait();
    session.keep_demanding();
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: 0 }], "two are here, one is on its way");
    session.stop(Duration::ZERO);
    sent(&mut session);
    session.keep_demanding();
    assert_eq!(sent(&mut session), []);
}

#[test]
fn what_a_caller_waits_for_is_no_work() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    session.begin_wait();
    session.end_wait(1000 * MS, 1000 * MS);
    deliver(&mut session, 0, &[b"x"]);
    take(&mut session);
    sent(&mut session);
    session.refill(1000 * MS + MS / 10, false);
    assert!(matches!(sent(&mut session)[..], [Message::Demand { items: 8, .. }]));
}

#[test]
fn the_time_that_an_item_may_take_begins_when_its_caller_has_it() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    session.begin_wait();
    assert_eq!(session.next_timeout(), None);
    session.end_wait(100 * MS, 100 * MS);
    assert_eq!(session.next_timeout(), Some(100 * MS + PREFETCH_GIVE_BACK_AFTER));
}

#[test]
fn what_was_asked_for_ahead_by_wish_is_kept_however_long_an_item_takes() {
    for (wish, kept) in [(Some(4), true), (Some(0), false), (None, false)] {
        let mut session = session(1000, wish);
        session.refill(Duration::ZERO, true);
        deliver(&mut session, 0, &[&b"x"[..]; 4]);
        assert_eq!(session.next_timeout(), if kept { None } else { Some(PREFETCH_GIVE_BACK_AFTER) });
    }
}

#[test]
fn of_tiny_items_that_were_asked_for_ahead_the_rest_goes_back_when_one_takes_long() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"x"]);
    take(&mut session);
    session.refill(MS / 100, true);
    deliver(&mut session, 1, &[&b"x"[..]; 8]);
    take(&mut session);
    sent(&mut session);
    let mut due = session.next_timeout().unwrap();
    session.handle_timeout(due - Duration::from_nanos(1));
    assert_eq!(session.next_timeout(), Some(due), "not yet");
    session.handle_timeout(due);
    due += PREFETCH_GIVE_BACK_AFTER;
    assert_eq!((sent(&mut session), session.next_timeout()), (vec![], Some(due)));
    session.handle_timeout(due);
    let given_back = Message::Return { range: range(2, 7), outcome: Outcome::Unstarted };
    assert_eq!((sent(&mut session), session.next_timeout()), (vec![given_back], None));
    session.refill(due, true);
    assert!(matches!(sent(&mut session)[..], [Message::Demand { items: 1, .. }]), "one by one again");
}

#[test]
fn what_is_withdrawn_is_not_counted_on() {
    let mut session = session(1000, Some(4));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"abc"]);
    session.look_ahead(MS);
    let number = session.withdraw();
    assert!(session.next_quick().is_none(), "the next item is looked at closely: more may be needed behind it");
    assert!(!session.questions.is_withdrawn(number));
    sent(&mut session);
    session.refill(MS, true);
    assert_eq!(sent(&mut session), [Message::Demand { items: 3, bytes: PREFETCH_BYTES_MAX - 3 }]);
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    assert!(session.questions.is_withdrawn(number));
}

#[test]
fn who_waits_again_and_again_with_little_patience_does_not_pile_up_withdrawals() {
    let mut session = session(1000, None);
    let mut withdrawals = Vec::new();
    for _ in 0..3 * WITHDRAWALS_MAX {
        session.refill_to_wait(Duration::ZERO);
        session.begin_wait();
        session.keep_demanding();
        session.end_wait(Duration::ZERO, Duration::ZERO);
        withdrawals.push(session.withdraw());
    }
    let pair = || [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX }, Message::Withdraw];
    assert!(sent(&mut session).into_iter().eq((0..WITHDRAWALS_MAX).flat_map(|_| pair())));
    assert_eq!(withdrawals.last(), Some(&WITHDRAWALS_MAX), "it is answered with the last that was sent");
    assert!(!session.may_demand());
    // One answer makes room for one more.
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    session.begin_wait();
    session.keep_demanding();
    session.withdraw();
    session.keep_demanding();
    assert_eq!(sent(&mut session), pair());
}

#[test]
fn bytes_beyond_the_demand_are_made_up_for_by_the_next() {
    let mut session = session(u64::MAX, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[&vec![0; PREFETCH_BYTES_MAX as usize + 10]]);
    take(&mut session);
    sent(&mut session);
    session.refill(1000 * MS, true);
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX + 10 }]);
}

#[test]
fn settled_items_gather_until_their_frame_is_full() {
    let mut session = session(1 << 20, None);
    assert_eq!([0, 1, 4].map(|id| session.ack(held(id), || MS).unwrap()), [Settled::Gathering, Settled::Gathered, Settled::Gathered]);
    for n in 3..ACK_RANGES_MAX as u64 {
        assert_eq!(session.ack(held(2 * n), || MS).unwrap(), Settled::Gathered);
    }
    assert_eq!((session.ack(held(1 << 40), || MS).unwrap(), session.next_timeout()), (Settled::Ready, None));
    assert!(matches!(&sent(&mut session)[..], [Message::Ack { ranges }] if ranges.len() == ACK_RANGES_MAX));
    let large = [b'x'; crate::limits::BATCH_BYTES_TARGET];
    let settled = [&b"small"[..], b"another", &large].map(|result| session.ack_with(held(9), result, || MS).unwrap());
    assert_eq!((settled, session.next_timeout()), ([Settled::Gathering, Settled::Gathered, Settled::Ready], None));
}

#[test]
fn a_range_ends_where_its_count_does() {
    let mut session = session(1000, None);
    session.last_acks = range(0, u32::MAX - 1);
    assert!(session.ack_quick(held(u64::from(u32::MAX) - 1)));
    assert!(!session.ack_quick(held(u64::from(u32::MAX))));
    assert_eq!(session.last_acks, range(0, u32::MAX));
}

#[test]
fn what_is_settled_does_not_leave_before_its_delay_unless_it_is_sent() {
    let mut session = session(1000, None);
    session.ack(held(0), || MS).unwrap();
    session.handle_timeout(MS + FLUSH_DELAY - Duration::from_nanos(1));
    assert_eq!(sent(&mut session), []);
    session.send_settled();
    assert_eq!(sent(&mut session).len(), 1);
    session.send_settled();
    assert_eq!((sent(&mut session), session.next_timeout()), (vec![], None));
}

#[test]
fn a_result_may_be_exactly_as_long_as_the_largest_item_and_a_line_end() {
    let mut session = session(4, None);
    session.ack_with(held(3), b"four\n", || MS).unwrap();
    session.goodbye();
    assert!(matches!(sent(&mut session)[..], [Message::Result { .. }, Message::Close { reason: CloseReason::Goodbye, .. }]));
}

#[test]
fn who_stops_by_itself_takes_back_its_demand_and_gives_back_what_still_comes() {
    let mut session = session(1000, Some(10));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[&b"a"[..]; 3]);
    take(&mut session);
    deliver(&mut session, 3, &[b"b"]);
    sent(&mut session);
    assert!(!session.is_stopped());
    session.stop(Duration::ZERO);
    let given_back = |first, count| Message::Return { range: range(first, count), outcome: Outcome::Unstarted };
    assert_eq!(sent(&mut session), [Message::Withdraw, given_back(1, 2), given_back(3, 1)]);
    assert!(session.is_stopped());
    deliver(&mut session, 4, &[&b"crossed"[..]; 2]);
    session.refill(MS, true);
    assert_eq!(sent(&mut session), [given_back(4, 2)]);
    assert!(session.is_stopped() && !session.has_local());
}

#[test]
fn what_comes_to_one_that_was_stopped_at_an_item_is_looked_for_and_goes_back() {
    // By wish it asks ahead, so that nothing is given back as long as it runs.
    let mut session = session(1000, Some(5));
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"begun"]);
    take(&mut session);
    assert_eq!(session.next_timeout(), None);
    session.stop(MS);
    let due = session.next_timeout().expect("somebody who looks for what has come");
    session.handle_timeout(due);
    assert!(session.next_timeout().is_some_and(|next| next > due), "again, until there is an answer");
    session.handle(Incoming { message: Message::Withdrawn, batch: None }).unwrap();
    assert_eq!(session.next_timeout(), None);
}

#[test]
fn a_goodbye_settles_what_is_done_and_gives_back_the_rest() {
    let mut session = session(1000, None);
    deliver(&mut session, 0, &[&b"a"[..]; 3]);
    take(&mut session);
    session.ack(held(0), || MS).unwrap();
    session.goodbye();
    let close = Message::Close { reason: CloseReason::Goodbye, words: String::new() };
    let rest = Message::Return { range: range(1, 2), outcome: Outcome::Unstarted };
    assert_eq!(sent(&mut session), [Message::Ack { ranges: vec![range(0, 1)] }, rest, close]);
}

#[test]
fn a_consumer_may_ask_when_all_is_settled_and_how_things_stand() {
    let mut session = session(1000, None);
    assert_eq!([session.join(), session.ask_status(), session.join()], [1, 1, 2]);
    assert_eq!(sent(&mut session), [Message::Join, Message::StatusRequest, Message::Join]);
    assert!(session.handle(Incoming { message: Message::Finished, batch: None }).is_err());
}

#[test]
fn what_comes_after_a_long_wait_is_watched_again() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    session.begin_wait();
    session.handle_timeout(PREFETCH_GIVE_BACK_AFTER);
    deliver(&mut session, 0, &[b"long", b"behind it"]);
    session.end_wait(10 * MS, 10 * MS);
    take(&mut session);
    assert_eq!(session.next_timeout(), Some(10 * MS + PREFETCH_GIVE_BACK_AFTER));
}

#[test]
fn what_is_asked_for_after_a_pause_is_watched_from_then_on() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"x"]);
    take(&mut session);
    assert_eq!(session.next_timeout(), None);
    session.handle_timeout(PREFETCH_GIVE_BACK_AFTER);
    session.refill(1000 * MS, true);
    assert_eq!(session.next_timeout(), Some(1000 * MS + PREFETCH_GIVE_BACK_AFTER));
}

#[test]
fn one_that_works_and_does_not_call_need_not_know_whether_its_connection_is_lost() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 0, &[b"x"]);
    take(&mut session);
    assert!(!session.is_owed());
}

#[test]
fn nothing_of_a_lost_connection_is_said_or_given_on_the_next() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    deliver(&mut session, 5, &[b"a", b"b", b"c", b"d", b"e"]);
    let held = |epoch| move |id| Held::new(ItemId(id), 1, epoch);
    let (before, after) = (held(0), held(1));
    (0..4).for_each(|_| assert!(take(&mut session).is_some()));
    session.ack(before(5), || MS).unwrap();
    session.ack_with(before(6), b"result", || MS).unwrap();
    session.lose();
    assert!(!session.has_local() && !session.is_stopped());
    session.resume(greeting(1000)).unwrap();
    assert_eq!(sent(&mut session), []);
    session.refill(MS, true);
    assert!(matches!(sent(&mut session)[..], [Message::Demand { bytes: PREFETCH_BYTES_MAX, .. }]), "all of it is asked for anew");
    deliver(&mut session, 5, &[b"a", b"b", b"c"]);
    take(&mut session);
    assert_eq!(session.ack(after(5), || MS).unwrap(), Settled::Gathering);
    assert!(!session.ack_quick(before(6)), "it follows upon an item of the new connection");
    assert_eq!(session.ack(before(6), || MS).unwrap(), Settled::Gathered);
    session.give_back(before(7), Outcome::Released).unwrap();
    session.ack_with(before(8), b"result", || MS).unwrap();
    session.send_settled();
    assert_eq!(sent(&mut session), [Message::Ack { ranges: vec![range(5, 1)] }]);
    assert!(session.is_held(after(6)) && !session.is_held(before(6)));
}

#[test]
fn a_lost_connection_answers_what_was_withdrawn_and_asks_the_rest_again() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    let (withdrawal, join, status) = (session.withdraw(), session.join(), session.ask_status());
    session.lose();
    assert!(session.questions.is_withdrawn(withdrawal), "no item can come any more");
    let later = session.withdraw();
    assert!(session.questions.is_withdrawn(later), "nor now");
    let also_later = session.join();
    session.begin_wait();
    session.resume(greeting(1000)).unwrap();
    assert_eq!(sent(&mut session), [Message::Join, Message::Join, Message::StatusRequest]);
    session.keep_demanding();
    assert_eq!(sent(&mut session), [Message::Demand { items: 1, bytes: PREFETCH_BYTES_MAX }]);
    let joined = || Incoming { message: Message::Joined, batch: None };
    session.handle(joined()).unwrap();
    assert!(session.questions.is_joined(join) && !session.questions.is_joined(also_later));
    assert!(session.questions.status(status).is_none());
}

#[test]
fn what_is_asked_for_on_a_new_connection_is_watched_once_nobody_waits_for_it() {
    let mut session = session(1000, None);
    session.refill(Duration::ZERO, true);
    session.begin_wait();
    session.lose();
    session.resume(greeting(1000)).unwrap();
    session.keep_demanding();
    session.end_wait(10 * MS, 10 * MS);
    deliver(&mut session, 0, &[b"late"]);
    assert_eq!(session.next_timeout(), Some(10 * MS + PREFETCH_GIVE_BACK_AFTER));
}

#[test]
fn a_share_that_comes_back_is_there_for_the_next_item_of_its_batch_alone() {
    let mut session = session(1000, Some(4));
    deliver(&mut session, 0, &[b"ab", b"cd"]);
    deliver(&mut session, 2, &[b"ef"]);
    let take = |session: &mut ConsumerSession| {
        session.look_ahead(MS);
        let next = session.next_quick().unwrap();
        let (found, part) = (next.share.is_some(), next.batch.part(next.index, next.share.take()));
        session.take_quick();
        (found, part.into_share())
    };
    let (found, share) = take(&mut session);
    assert!(!found);
    session.keep_share(Some(share));
    session.keep_share(None);
    let (found, share) = take(&mut session);
    assert!(found, "the second goes on with it");
    session.keep_share(Some(share));
    assert!(!take(&mut session).0, "it was no share of this batch");
}
