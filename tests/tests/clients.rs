//! Who is connected, and what each does, as a control connection hears it.

use std::time::{Duration, Instant};

use common::limits::CLIENTS_SHOWN_MAX;
use common::message::{CloseReason, Message, Role};
use common::status::{AtHand, ClientStatus, Work};
use common::{Consumer, Control, Producer};
use tests::raw::Raw;
use tests::{Queue, eventually};

fn clients(queue: &Queue) -> Vec<ClientStatus> {
    Control::connect(&queue.endpoint()).unwrap().clients().unwrap()
}

#[test]
fn each_client_is_known_by_its_process_and_by_what_it_does() {
    let queue = Queue::serve(&["--max-attempts", "9"]);
    let producer = Producer::<[u8]>::connect_named(&queue.endpoint(), "by hand").unwrap();
    producer.put_all([&b"a"[..], b"b", b"c"]).unwrap();
    producer.flush().unwrap();
    let consumer = Consumer::<[u8]>::connect_with_prefetch(&queue.endpoint(), 0).unwrap();
    consumer.get().unwrap().unwrap().ack().unwrap();
    consumer.get().unwrap().unwrap().fail("no").unwrap();
    let held = consumer.get().unwrap().unwrap();
    let all = eventually("what was settled to be seen", || {
        let all = clients(&queue);
        all.iter().any(|client| matches!(client.work, Work::Consumer { done: 1, failed: 1, .. })).then_some(all)
    });
    assert!(all.windows(2).all(|pair| pair[0].number < pair[1].number));
    assert!(all.iter().all(|client| client.pid == Some(std::process::id())));
    let work: Vec<&Work> = all.iter().map(|client| &client.work).collect();
    let Work::Consumer { held: 1, at_hand: Some(AtHand { id, attempt: 1, .. }), .. } = work[1] else {
        panic!("{work:?}");
    };
    assert_eq!(*id, held.id());
    let producing = Work::Producer { name: "by hand".into(), accepted: 3, parked: 0, waiting: false, finished: false };
    assert_eq!((work.len(), work[0], work[2].role()), (3, &producing, Role::Control));
    eventually("time to pass", || (clients(&queue)[0].connected_ms > all[0].connected_ms).then_some(()));
    drop(producer);
    eventually("one that has gone to be left out", || (clients(&queue).len() == 2).then_some(()));
}

#[test]
fn more_clients_than_an_answer_holds_come_in_several() {
    let queue = Queue::serve(&[]);
    let count = 2 * CLIENTS_SHOWN_MAX;
    let name = "n".repeat(250);
    let names = (0..count).map(|n| format!("{name}{n}"));
    let crowd: Vec<Raw> = names.map(|name| Raw::connect(queue.socket(), Role::Producer, &name)).collect();
    let began = Instant::now();
    let all = clients(&queue);
    assert_eq!(all.len(), count + 1);
    assert!(all.windows(2).all(|pair| pair[0].number < pair[1].number), "none twice, and in order");
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(crowd);
}

#[test]
fn only_a_control_connection_may_ask() {
    let queue = Queue::serve(&[]);
    for role in [Role::Producer, Role::Consumer] {
        let mut raw = Raw::connect(queue.socket(), role, "");
        raw.say(&[Message::ClientsRequest { from: 0 }]);
        let (reason, words) = raw.hear_close().unwrap();
        assert_eq!((reason, &words[..]), (CloseReason::Protocol, "ClientsRequest has no place here"));
    }
}
