use super::*;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_millis(100);

fn leased(prefetch: Option<u32>) -> ConsumerSession {
    ConsumerSession::new(Greeting { announce_from: 1, lease: Some(LEASE), ..greeting(1000) }, prefetch)
}

fn revoke(session: &mut ConsumerSession, ranges: &[ItemRange]) {
    session.handle(Incoming { message: Message::Revoke { ranges: ranges.to_vec() }, batch: None }).unwrap();
}

fn is_expired<T>(settled: Result<T, Error>, id: u64) -> bool {
    matches!(settled, Err(Error::Expired { id: named, item_timeout: LEASE }) if named == ItemId(id))
}

#[test]
fn what_was_taken_back_is_refused_by_name_once_and_what_is_settled_before_leaves_before_the_answer() {
    let mut session = leased(Some(5));
    deliver(&mut session, 0, &[b"a", b"b", b"c", b"d"]);
    (0..3).for_each(|_| _ = take(&mut session));
    session.ack(held(0), || MS).unwrap();
    sent(&mut session);
    revoke(&mut session, &[range(0, 2), range(3, 1)]);
    assert_eq!(sent(&mut session), [Message::Ack { ranges: vec![range(0, 1)] }, Message::Revoked]);
    assert!(is_expired(session.extend(held(1), MS, MS), 1));
    assert!(is_expired(session.ack(held(1), || MS), 1));
    assert!(session.ack(held(2), || MS).is_ok(), "that one has its time still");
    session.send_settled();
    assert_eq!((sent(&mut session), session.has_local()), (vec![Message::Ack { ranges: vec![range(2, 1)] }], false));
    assert!(session.leased.is_empty(), "{:?}", session.leased);
}

#[test]
fn every_way_of_settling_is_refused_and_leaves_nothing_behind() {
    let mut session = leased(Some(5));
    deliver(&mut session, 0, &[b"a", b"b", b"c"]);
    (0..3).for_each(|_| _ = take(&mut session));
    revoke(&mut session, &[range(0, 3)]);
    assert!(is_expired(session.ack_with(held(0), b"result", || MS), 0));
    assert!(is_expired(session.ack_with(held(1), &[0; 2000], || MS), 1));
    assert!(is_expired(session.give_back(held(2), Outcome::Released), 2));
    session.send_settled();
    assert!(
        session.leased.is_empty()
            && !sent(&mut session).iter().any(|message| matches!(message, Message::Result { .. } | Message::Return { .. }))
    );
}

#[test]
fn what_is_begun_by_hand_has_its_time_from_then_on_and_is_known_from_when_it_was_taken() {
    let mut session = leased(Some(5));
    session.begin_by_hand();
    deliver(&mut session, 0, &[b"a", b"b", b"c"]);
    (0..3).for_each(|_| _ = take(&mut session));
    sent(&mut session);
    session.begin(held(0), 40 * MS).unwrap();
    assert_eq!(sent(&mut session), [Message::Begin { id: ItemId(0) }]);
    assert!(!session.is_overdue(held(0), || 139 * MS) && session.is_overdue(held(0), || 140 * MS));
    revoke(&mut session, &[range(1, 2)]);
    sent(&mut session);
    assert!(is_expired(session.begin(held(1), 50 * MS), 1), "it is another's");
    assert!(is_expired(session.give_back(held(1), Outcome::Unstarted), 1));
    assert!(is_expired(session.give_back(held(2), Outcome::Unstarted), 2));
    assert_eq!(sent(&mut session), []);
    session.ack(held(0), || 60 * MS).unwrap();
    assert!(session.leased.is_empty());
}

#[test]
fn an_item_that_comes_again_to_the_same_consumer_is_another_delivery() {
    let mut session = leased(None);
    deliver(&mut session, 7, &[b"a"]);
    take(&mut session);
    revoke(&mut session, &[range(7, 1)]);
    deliver_again(&mut session, 7, &[b"a"], 2);
    take(&mut session);
    let second = Held::new(ItemId(7), 2, 0);
    assert!(is_expired(session.ack(held(7), || MS), 7));
    assert!(session.ack(second, || MS).is_ok());
    session.send_settled();
    assert_eq!(sent(&mut session).last(), Some(&Message::Ack { ranges: vec![range(7, 1)] }));
}

#[test]
fn what_is_taken_back_on_one_connection_says_nothing_of_a_delivery_on_the_last() {
    let mut session = leased(Some(5));
    deliver(&mut session, 0, &[b"a"]);
    take(&mut session);
    session.lose();
    session.resume(Greeting { announce_from: 1, lease: Some(LEASE), ..greeting(1000) }).unwrap();
    deliver(&mut session, 0, &[b"a"]);
    take(&mut session);
    revoke(&mut session, &[range(0, 1)]);
    assert!(session.check_lease(held(0)).is_ok());
    assert!(is_expired(session.check_lease(Held::new(ItemId(0), 1, 1)), 0));
}

#[test]
fn what_was_announced_and_not_taken_is_let_go_of_with_the_rest() {
    let mut session = leased(Some(5));
    deliver(&mut session, 0, &[b"a", b"b"]);
    session.look_ahead(MS);
    revoke(&mut session, &[range(0, 2)]);
    assert!(!session.has_local() && session.leased.is_empty());
    deliver(&mut session, 5, &[b"c"]);
    session.look_ahead(MS);
    session.stop(Duration::ZERO);
    assert!(session.leased.is_empty());
}

#[test]
fn more_time_counts_from_now_and_the_answer_is_its_own() {
    let mut session = leased(None);
    deliver(&mut session, 0, &[b"a"]);
    take(&mut session);
    assert!(!session.is_overdue(held(0), || LEASE) && session.is_overdue(held(0), || LEASE + MS));
    let number = session.extend(held(0), 2 * LEASE, LEASE).unwrap().unwrap();
    assert_eq!(sent(&mut session).last(), Some(&Message::Extend { id: ItemId(0), by_ms: 200 }));
    assert!(!session.is_overdue(held(0), || 3 * LEASE - MS) && !session.questions.is_extended(number));
    session.handle(Incoming { message: Message::Extended, batch: None }).unwrap();
    assert!(session.questions.is_extended(number));
    assert!(session.handle(Incoming { message: Message::Extended, batch: None }).is_err(), "nobody has asked");
    let lost = session.extend(held(0), LEASE, LEASE).unwrap().unwrap();
    session.lose();
    assert!(session.questions.is_extended(lost) && session.leased.is_empty());
    assert!(matches!(session.extend(held(0), LEASE, LEASE), Err(Error::Gone(_))));
}

#[test]
fn without_a_limit_there_is_nothing_to_ask() {
    let mut session = session(1000, None);
    deliver(&mut session, 0, &[b"a"]);
    take(&mut session);
    assert!(matches!(session.extend(held(0), LEASE, LEASE), Ok(None)));
    assert!(!session.is_overdue(held(0), || Duration::MAX) && session.leased.is_empty());
}

proptest! {
    #[test]
    fn of_what_lies_at_hand_just_what_was_taken_back_goes(taken in 0u64..12, ranges in prop::collection::vec((0u64..14, 0u32..4), 0..5)) {
        let mut session = leased(Some(20));
        for first in [0, 4, 8] {
            deliver(&mut session, first, &[b"a", b"bb", b"ccc", b""]);
        }
        (0..taken).for_each(|_| take_on(&mut session));
        let ranges: Vec<ItemRange> = ranges.into_iter().map(|(first, count)| range(first, count)).collect();
        revoke(&mut session, &ranges);
        let within = |id: u64| ranges.iter().any(|range| (range.first.0..range.first.0 + u64::from(range.count)).contains(&id));
        prop_assert_eq!(session.local_items() as usize, (taken..12).filter(|id| !within(*id)).count());
        for id in (taken..12).filter(|id| !within(*id)) {
            prop_assert_eq!(take(&mut session), Some((id, [&b"a"[..], b"bb", b"ccc", b""][id as usize % 4].to_vec())));
        }
        prop_assert!(!session.has_local());
        prop_assert_eq!((session.behind_items, session.behind_bytes), (0, 0));
        for id in 0..taken {
            prop_assert_eq!(is_expired(session.ack(held(id), || MS), id), within(id));
        }
    }
}
