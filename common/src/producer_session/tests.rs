use super::*;
use crate::payload::Encode;

fn greeting(position: u64, checksum: Option<u64>) -> Greeting {
    Greeting { pid: 1, item_bytes_max: 1000, position: Position(position), announce_from: 2, checksum, lease: None }
}

fn session(credit_items: u64, credit_bytes: u64) -> ProducerSession {
    let mut session = ProducerSession::new(greeting(0, None));
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

/// A batch: the first item's position, the items, the checksum.
type Said = (u64, Vec<String>, u64);

/// What it has put, batch by batch, and what else it has said.
fn batches_and_more(session: &mut ProducerSession) -> (Vec<Said>, Vec<Message>) {
    let (mut batches, mut more) = (Vec::new(), Vec::new());
    for incoming in session.outbox().read_all() {
        match incoming {
            Incoming { message: Message::Put { position, checksum, .. }, batch: Some(batch) } => {
                let items = batch.iter().map(|item| String::from_utf8(item.to_vec()).unwrap());
                batches.push((position.0, items.collect(), checksum));
            }
            Incoming { message, .. } => more.push(message),
        }
    }
    (batches, more)
}

fn batches(session: &mut ProducerSession) -> Vec<Said> {
    batches_and_more(session).0
}

fn sum(items: &[&str]) -> u64 {
    items.iter().fold(checksum::START, |sum, item| checksum::add(sum, item.as_bytes()))
}

#[test]
fn each_batch_carries_the_checksum_of_all_up_to_its_end_however_they_are_cut() {
    let mut session = ProducerSession::new(greeting(2, Some(sum(&["a", "b"]))));
    confirm(&mut session, 2, 100, 100_000);
    for item in ["c", "dd", "", "ee", "x"] {
        put(&mut session, item.as_bytes());
    }
    session.send_gathered();
    put(&mut session, b"ff");
    session.send_gathered();
    let items = ["a", "b", "c", "dd", "", "ee", "x", "ff"];
    let expected = [(2, 3), (3, 4), (4, 7), (7, 8)].map(|(from, to)| {
        let strings = items[from..to].iter().map(|item| item.to_string()).collect::<Vec<_>>();
        (from as u64, strings, sum(&items[..to]))
    });
    assert_eq!(batches(&mut session), expected);
}

#[test]
fn no_checksum_is_computed_for_a_coordinator_that_keeps_none() {
    let mut session = session(100, 100_000);
    put(&mut session, b"a");
    assert_eq!(batches(&mut session), [(0, vec!["a".to_string()], 0)]);
}

#[test]
fn no_checksum_is_computed_for_a_producer_as_which_nobody_comes_again() {
    let mut session = ProducerSession::nameless(greeting(0, Some(checksum::START)));
    confirm(&mut session, 0, 100, 100_000);
    put(&mut session, b"a");
    assert_eq!(batches(&mut session), [(0, vec!["a".to_string()], 0)]);
}

#[test]
fn an_item_leaves_at_once_while_one_is_unconfirmed_and_more_gather_until_no_more_than_one_is() {
    let mut session = session(100, 100_000);
    assert_eq!(put(&mut session, b"one"), Put::Ready);
    assert_eq!(put(&mut session, b"two"), Put::Ready);
    assert_eq!(put(&mut session, b"three"), Put::Gathering);
    assert_eq!(put(&mut session, b"four"), Put::Taken);
    let sizes = |session: &mut ProducerSession| batches(session).iter().map(|batch| batch.1.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&mut session), [1, 1]);
    confirm(&mut session, 0, 1, 0);
    assert_eq!(sizes(&mut session), [0; 0]);
    confirm(&mut session, 1, 0, 0);
    assert_eq!(sizes(&mut session), [2]);
    confirm(&mut session, 2, 0, 0);
    assert_eq!([put(&mut session, b"five"), put(&mut session, b"six")], [Put::Gathering, Put::Taken], "two came in one batch");
    assert!(!session.is_confirmed());
    confirm(&mut session, 4, 0, 0);
    assert_eq!(sizes(&mut session), [2]);
    confirm(&mut session, 6, 0, 0);
    assert!(session.is_confirmed());
}

#[test]
fn behind_a_batch_that_filled_up_the_next_gathers_though_all_is_confirmed() {
    let put_at = |session: &mut ProducerSession, item: &[u8], at: Duration| session.put(|out| item.encode(out), || at).unwrap();
    // Two leave at once, the third begins a batch that is full some 65 items later.
    let filled = |at: Duration| {
        let mut session = session(1000, 1_000_000);
        let mut puts = 0;
        while put_at(&mut session, &[b'x'; 1000], at) != Put::Ready || puts < 2 {
            puts += 1;
        }
        confirm(&mut session, puts + 1, 0, 0);
        assert!(session.is_confirmed() && puts > 60);
        batches(&mut session);
        session
    };
    let (begin, soon, late) = (Duration::from_secs(1), FLUSH_DELAY - Duration::from_nanos(1), FLUSH_DELAY);
    let mut session = filled(begin);
    assert_eq!(put_at(&mut session, b"a", begin + soon), Put::Gathering);
    let position = session.confirmed().0;
    confirm(&mut session, position, 0, 0);
    assert_eq!(put_at(&mut session, b"b", begin + soon), Put::Taken);
    assert!(batches(&mut session).is_empty(), "nor does a confirmation make it leave");
    session.handle_timeout(begin + soon + FLUSH_DELAY);
    assert_eq!(batches(&mut session)[0].1, ["a", "b"], "but it is not kept for long");
    assert_eq!(put_at(&mut filled(begin), b"a", begin + late), Put::Ready, "no stream any more");
    let mut session = filled(begin);
    session.flush();
    assert_eq!(put_at(&mut session, b"a", begin + soon), Put::Ready, "who flushes waits for something");
}

#[test]
fn behind_an_item_that_fills_a_batch_by_itself_the_next_leaves_at_once() {
    let mut session = ProducerSession::new(Greeting { item_bytes_max: 100_000, ..greeting(0, None) });
    confirm(&mut session, 0, 100, 1_000_000);
    assert_eq!(put(&mut session, &[b'x'; 80_000]), Put::Ready);
    confirm(&mut session, 1, 0, 0);
    assert_eq!(put(&mut session, b"a"), Put::Ready);
}

#[test]
fn what_gathers_leaves_after_the_delay() {
    let mut session = session(100, 100_000);
    ["one", "two", "three"].iter().for_each(|item| assert_ne!(put(&mut session, item.as_bytes()), Put::NoCredit));
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
    ["one", "two"].iter().for_each(|item| assert_ne!(put(&mut crossed, item.as_bytes()), Put::NoCredit));
    crossed.handle(recall(0)).unwrap();
    assert_eq!(put(&mut crossed, b"three"), Put::Gathering);
    crossed.handle(recall(2)).unwrap();
    assert_eq!(crossed.gathered.count(), 0, "what was taken goes out at once");
    assert_eq!(put(&mut crossed, b"four"), Put::Gathering);
}

#[test]
fn an_item_over_the_limit_is_refused_and_the_others_stay() {
    let mut session = session(100, 1_000_000);
    ["one", "two", "three"].iter().for_each(|item| assert_ne!(put(&mut session, item.as_bytes()), Put::NoCredit));
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

fn sent(session: &mut ProducerSession) -> Vec<Message> {
    session.outbox().read_all().into_iter().map(|incoming| incoming.message).collect()
}

fn hear(session: &mut ProducerSession, message: Message) -> Result<(), Error> {
    session.handle(Incoming { message, batch: None })
}

#[test]
fn batches_are_numbered_by_the_items_before_them_and_use_up_the_credit() {
    let mut session = ProducerSession::new(greeting(7, None));
    confirm(&mut session, 7, 6, 100_000);
    ["a", "b", "c", "d"].iter().for_each(|item| assert_ne!(put(&mut session, item.as_bytes()), Put::NoCredit));
    assert_eq!(session.flush(), Position(11));
    let positions: Vec<_> = sent(&mut session)
        .into_iter()
        .map(|message| match message {
            Message::Put { position, batch, .. } => (position.0, batch.count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(positions, [(7, 1), (8, 1), (9, 2)]);
    assert_eq!((session.credit_items, session.credit_bytes), (2, 100_000 - 2 * batch_cost_bytes(1) - batch_cost_bytes(2)));
    assert_eq!((session.confirmed(), session.is_confirmed()), (Position(7), false));
    confirm(&mut session, 11, 0, 0);
    assert_eq!((session.confirmed(), session.is_confirmed()), (Position(11), true));
}

#[test]
fn the_credit_covers_the_table_that_a_batch_may_need() {
    let first = 2 * batch_cost_bytes(1);
    for (credit, is_in) in [(first + batch_cost_bytes(1 + 2 + 8), true), (first + batch_cost_bytes(1 + 2 + 8) - 1, false)] {
        let mut session = session(100, credit);
        assert_eq!(["a", "a", "b"].map(|item| put(&mut session, item.as_bytes())), [Put::Ready, Put::Ready, Put::Gathering]);
        assert_eq!(put(&mut session, b"cd"), if is_in { Put::Taken } else { Put::NoCredit });
        session.flush();
        assert_eq!(session.credit_bytes, if is_in { 0 } else { credit - first - batch_cost_bytes(1) });
    }
}

#[test]
fn the_limit_holds_for_each_item_not_for_all_that_gather() {
    let mut session = session(100, 100_000);
    let largest = [0; 1000];
    assert_eq!([(); 4].map(|()| put(&mut session, &largest)), [Put::Ready, Put::Ready, Put::Gathering, Put::Taken]);
}

#[test]
fn what_one_item_lacks_is_asked_for_once_and_again_after_credit_that_is_too_little_or_a_withdrawal() {
    let mut session = session(0, 0);
    assert_eq!(put(&mut session, &[0; 1000]), Put::NoCredit);
    let want = || Message::Want { bytes: batch_cost_bytes(1004) };
    session.want();
    session.want();
    assert_eq!(sent(&mut session), [want()]);
    confirm(&mut session, 0, 0, 0);
    session.want();
    assert_eq!(sent(&mut session), [], "that brought none");
    for (items, bytes) in [(1, 0), (0, batch_cost_bytes(1004) - 1)] {
        confirm(&mut session, 0, items, bytes);
        assert!(!session.has_wanted());
        session.want();
        assert_eq!(sent(&mut session), [want()]);
    }
    assert_eq!([session.withdraw(), session.withdraw()], [1, 2]);
    session.want();
    assert_eq!(sent(&mut session), [Message::Withdraw, Message::Withdraw, want()]);
    confirm(&mut session, 0, 0, 1);
    assert!(session.has_wanted());
    assert_eq!(put(&mut session, &[0; 1000]), Put::Ready);
}

#[test]
fn the_credit_is_short_below_a_quarter_of_the_most_in_items_or_in_bytes() {
    let (items, bytes) = (CREDIT_ITEMS_MAX / 4, CREDIT_BYTES_MAX / 4);
    assert!(!session(items, bytes).is_short_of_credit());
    assert!(session(items - 1, bytes).is_short_of_credit() && session(items, bytes - 1).is_short_of_credit());
}

#[test]
fn much_is_unsent_when_more_than_a_batch_waits_for_the_socket() {
    let waiting = |item_bytes: usize| {
        let mut session = ProducerSession::new(Greeting { item_bytes_max: u64::MAX, ..greeting(0, None) });
        confirm(&mut session, 0, 1, 1 << 30);
        put(&mut session, &vec![0; item_bytes]);
        (session.outbox().bytes(), session.has_much_unsent())
    };
    let head_bytes = waiting(60_000).0 - 60_000;
    assert_eq!(waiting(BATCH_BYTES_TARGET - head_bytes), (BATCH_BYTES_TARGET, false));
    assert_eq!(waiting(BATCH_BYTES_TARGET - head_bytes + 1), (BATCH_BYTES_TARGET + 1, true));
}

#[test]
fn nothing_is_put_behind_a_finish_which_is_said_once_and_answered_once() {
    let mut session = session(100, 100_000);
    assert!(hear(&mut session, Message::Finished).is_err(), "nobody has asked");
    session.finish();
    session.finish();
    assert_eq!((sent(&mut session), session.is_finished()), (vec![Message::Finish], false));
    assert!(matches!(session.put(|out| b"late"[..].encode(out), || Duration::ZERO), Err(Error::Finished)));
    hear(&mut session, Message::Finished).unwrap();
    assert!(session.is_finished() && session.is_confirmed());
    assert!(hear(&mut session, Message::Finished).is_err());
}

#[test]
fn a_goodbye_comes_behind_what_has_gathered() {
    let mut session = session(100, 100_000);
    ["a", "b", "c"].iter().for_each(|item| assert_ne!(put(&mut session, item.as_bytes()), Put::NoCredit));
    sent(&mut session);
    session.goodbye();
    let messages = sent(&mut session);
    assert!(matches!(messages[..], [Message::Put { .. }, Message::Close { reason: CloseReason::Goodbye, .. }]));
}

#[test]
fn what_gathers_does_not_leave_before_its_delay() {
    let mut session = session(100, 100_000);
    ["a", "b", "c"].iter().for_each(|item| assert_ne!(put(&mut session, item.as_bytes()), Put::NoCredit));
    sent(&mut session);
    session.handle_timeout(FLUSH_DELAY - Duration::from_nanos(1));
    assert_eq!(sent(&mut session), []);
}

#[test]
fn a_confirmation_that_takes_one_back_or_an_answer_to_nothing_is_an_error() {
    let mut session = session(100, 100_000);
    ["a", "b"].iter().for_each(|item| assert_ne!(put(&mut session, item.as_bytes()), Put::NoCredit));
    session.flush();
    confirm(&mut session, 2, 0, 0);
    confirm(&mut session, 2, 0, 0);
    let back = Message::Confirm { position: Position(1), credit_items: 0, credit_bytes: 0 };
    assert!(hear(&mut session, back).is_err());
    assert!(hear(&mut session, Message::Joined).is_err());
}

#[test]
fn a_recall_is_answered_once_and_the_credit_is_nothing_then() {
    let mut session = session(10, 100_000);
    hear(&mut session, Message::Recall { position: Position(0) }).unwrap();
    assert_eq!(sent(&mut session), [Message::Recalled]);
    assert_eq!((session.credit_items, session.credit_bytes), (0, 0));
}

#[test]
fn a_producer_may_ask_when_all_is_settled_and_how_things_stand() {
    let mut session = session(0, 0);
    assert_eq!([session.join(), session.ask_status(), session.join()], [1, 1, 2]);
    assert_eq!(sent(&mut session), [Message::Join, Message::StatusRequest, Message::Join]);
}

#[test]
fn what_is_unconfirmed_when_the_connection_is_lost_is_put_again_before_anything_new() {
    let mut session = ProducerSession::resumable(greeting(0, Some(0)));
    confirm(&mut session, 0, 100, 100_000);
    for item in ["a", "b", "c", "d"] {
        put(&mut session, item.as_bytes());
    }
    confirm(&mut session, 1, 0, 0);
    assert_eq!(put(&mut session, b"e"), Put::Gathering);
    assert_eq!(batches(&mut session).iter().map(|batch| batch.0).collect::<Vec<_>>(), [0, 1, 2]);
    session.lose();
    assert_eq!(put(&mut session, b"f"), Put::NoCredit);
    session.want();
    session.resume(greeting(3, Some(sum(&["a", "b", "c"])))).unwrap();
    let (_, more) = batches_and_more(&mut session);
    assert_eq!(more, [Message::Want { bytes: batch_cost_bytes(5) }], "what is kept asks for itself");
    session.want();
    confirm(&mut session, 3, 1, 100_000);
    assert_eq!(batches(&mut session), [(3, vec!["d".into()], sum(&["a", "b", "c", "d"]))]);
    assert_eq!(put(&mut session, b"f"), Put::NoCredit);
    confirm(&mut session, 4, 10, 0);
    assert_eq!(batches(&mut session), [(4, vec!["e".into()], sum(&["a", "b", "c", "d", "e"]))]);
    assert_eq!(put(&mut session, b"f"), Put::Ready, "what is left of the credit is for new items");
    session.flush();
    assert_eq!(batches(&mut session), [(5, vec!["f".into()], sum(&["a", "b", "c", "d", "e", "f"]))]);
    assert!(!session.is_confirmed());
    confirm(&mut session, 6, 0, 0);
    assert!(session.is_confirmed());
}

#[test]
fn one_that_can_come_again_keeps_to_its_credit_too() {
    let enough = batch_cost_bytes(1) + batch_cost_bytes(5);
    for (items, bytes, puts) in [(2, 100_000, 2), (100, enough, 2), (100, enough - 1, 1)] {
        let mut session = ProducerSession::resumable(greeting(0, None));
        confirm(&mut session, 0, items, bytes);
        let mut taken = 0;
        while put(&mut session, b"a") != Put::NoCredit {
            session.send_gathered();
            taken += 1;
        }
        assert_eq!(taken, puts, "{items} items, {bytes} bytes");
    }
}

#[test]
fn what_is_put_again_asks_for_its_credit_once() {
    let mut session = ProducerSession::resumable(greeting(0, None));
    confirm(&mut session, 0, 100, 100_000);
    put(&mut session, b"a");
    put(&mut session, b"b");
    session.lose();
    session.resume(greeting(0, None)).unwrap();
    let want = || Message::Want { bytes: batch_cost_bytes(5) };
    assert_eq!(batches_and_more(&mut session).1, [want()]);
    confirm(&mut session, 0, 0, 0);
    assert_eq!(batches_and_more(&mut session).1, []);
    confirm(&mut session, 0, 1, 0);
    assert_eq!(batches_and_more(&mut session).1, [want()], "that was not enough");
}

#[test]
fn who_does_not_call_has_to_know_of_a_loss_while_something_is_not_confirmed() {
    let mut session = session(100, 100_000);
    assert!(!session.is_owed());
    put(&mut session, b"a");
    assert!(session.is_owed());
    confirm(&mut session, 1, 0, 0);
    assert!(!session.is_owed());
}

#[test]
fn what_was_asked_is_asked_again_on_the_next_connection() {
    let mut session = ProducerSession::resumable(greeting(0, None));
    confirm(&mut session, 0, 100, 100_000);
    put(&mut session, b"a");
    confirm(&mut session, 1, 0, 0);
    session.join();
    session.ask_status();
    session.finish();
    sent(&mut session);
    session.lose();
    session.resume(greeting(1, None)).unwrap();
    assert_eq!(batches_and_more(&mut session), (vec![], vec![Message::Finish, Message::Join, Message::StatusRequest]));
}

#[test]
fn whoever_asks_for_room_now_is_told_no_while_there_is_no_connection() {
    let mut session = ProducerSession::resumable(greeting(0, None));
    session.lose();
    assert_eq!(put(&mut session, b"a"), Put::NoCredit);
    session.want();
    let withdrawal = session.withdraw();
    assert!(session.questions.is_withdrawn(withdrawal) && !session.has_wanted());
}

#[test]
fn to_withdraw_takes_back_no_wish_of_what_is_put_again() {
    let mut session = ProducerSession::resumable(greeting(0, None));
    confirm(&mut session, 0, 100, 100_000);
    put(&mut session, b"a");
    session.lose();
    session.resume(greeting(0, None)).unwrap();
    session.withdraw();
    let want = || Message::Want { bytes: batch_cost_bytes(5) };
    assert_eq!(batches_and_more(&mut session).1, [want(), Message::Withdraw, want()]);
}

#[test]
fn a_recall_takes_credit_that_does_not_reach_for_what_is_put_again() {
    let mut session = ProducerSession::resumable(greeting(0, None));
    confirm(&mut session, 0, 100, 100_000);
    put(&mut session, b"ten bytes.");
    session.lose();
    session.resume(greeting(0, None)).unwrap();
    confirm(&mut session, 0, 10, 10);
    session.handle(Incoming { message: Message::Recall { position: Position(0) }, batch: None }).unwrap();
    let (batches, more) = batches_and_more(&mut session);
    let want = || Message::Want { bytes: batch_cost_bytes(14) };
    assert_eq!((batches, more), (vec![], vec![want(), want(), Message::Recalled]));
    confirm(&mut session, 0, 1, batch_cost_bytes(10) - 1);
    assert_eq!(batches_and_more(&mut session).0, [], "the credit of before the recall is gone");
}
