use super::*;
use crate::payload::Encode;

fn session(credit_items: u64, credit_bytes: u64) -> ProducerSession {
    let mut session = ProducerSession::new(1000, Position(0));
    confirm(&mut session, 0, credit_items, credit_bytes);
    session
}

fn confirm(session: &mut ProducerSession, position: u64, credit_items: u64, credit_bytes: u64) {
    let message = Message::Confirm { position: Position(position), credit_items, credit_bytes };
    session.handle(Incoming { message, batch: None }).unwrap();
}

fn put(session: &mut ProducerSession, item: &[u8]) -> Put {
    session.put(|out| item.encode(out), || Duration::ZERO).unwrap()
}

#[test]
fn a_lone_item_leaves_at_once_and_the_next_gather_until_it_is_confirmed() {
    let mut session = session(100, 100_000);
    assert_eq!(put(&mut session, b"one"), Put::Ready);
    assert_eq!(put(&mut session, b"two"), Put::Gathering);
    assert_eq!(put(&mut session, b"three"), Put::Taken);
    let before = session.outbox().bytes();
    confirm(&mut session, 1, 0, 0);
    assert!(session.outbox().bytes() > before);
    assert!(!session.is_confirmed());
    confirm(&mut session, 3, 0, 0);
    assert!(session.is_confirmed());
}

#[test]
fn what_gathers_leaves_after_the_delay() {
    let mut session = session(100, 100_000);
    put(&mut session, b"one");
    put(&mut session, b"two");
    assert_eq!(session.next_timeout(), Some(FLUSH_DELAY));
    let before = session.outbox().bytes();
    session.handle_timeout(FLUSH_DELAY);
    assert!(session.outbox().bytes() > before);
    assert_eq!(session.next_timeout(), None);
}

#[test]
fn no_item_goes_beyond_the_credit_in_items_or_bytes() {
    let mut few = session(1, 100_000);
    assert_eq!(put(&mut few, b"one"), Put::Ready);
    assert_eq!(put(&mut few, b"two"), Put::NoCredit);
    assert!(!few.has_wanted());
    confirm(&mut few, 0, 1, 0);
    assert!(few.has_wanted());
    let mut small = session(100, batch_cost_bytes(13));
    assert_eq!(put(&mut small, b"ten bytes."), Put::NoCredit);
    assert_eq!(put(&mut small, b"nine byte"), Put::Ready);
}

#[test]
fn a_recall_takes_unused_credit_but_comes_too_late_for_what_is_put() {
    let recall = |position| Incoming { message: Message::Recall { position: Position(position) }, batch: None };
    let mut unused = session(10, 100_000);
    unused.handle(recall(0)).unwrap();
    assert_eq!(put(&mut unused, b"one"), Put::NoCredit);
    let mut crossed = session(10, 100_000);
    put(&mut crossed, b"one");
    crossed.handle(recall(0)).unwrap();
    assert_eq!(put(&mut crossed, b"two"), Put::Gathering);
    crossed.handle(recall(1)).unwrap();
    assert_eq!(crossed.gathered.count(), 0, "what was taken goes out at once");
    assert_eq!(put(&mut crossed, b"three"), Put::Gathering);
}

#[test]
fn an_item_over_the_limit_is_refused_and_the_others_stay() {
    let mut session = session(100, 1_000_000);
    put(&mut session, b"one");
    put(&mut session, b"two");
    let refused = session.put(|out| [0; 1001][..].encode(out), || Duration::ZERO);
    assert!(matches!(refused, Err(Error::ItemTooLarge { bytes: 1001, bytes_max: 1000 })));
    assert_eq!(session.gathered.count(), 1);
}

#[test]
fn a_confirmation_of_what_was_not_put_is_an_error() {
    let mut session = session(100, 100_000);
    let message = Message::Confirm { position: Position(1), credit_items: 0, credit_bytes: 0 };
    assert!(session.handle(Incoming { message, batch: None }).is_err());
}
