//! The client side of the engine for many machines, against real NATS servers.

mod ends;
mod faults;
mod link;
mod machine;
mod speed;

use std::time::{Duration, Instant};

use common::batch::Batch;
use coordinator::jetstream::{Answer, ClusterError, Marks, Settings, item_id};
use coordinator::queue::{DeadLetter, Origin};
use machine::{Machine, batch, progress, settings, texts};
use tests::nats::NatsServer;

macro_rules! needs_server {
    () => {
        if !tests::nats::is_there(module_path!()) {
            return;
        }
    };
}
pub(crate) use needs_server;

#[test]
fn what_is_put_is_fetched_settled_and_gone() {
    needs_server!();
    let server = NatsServer::start();
    let (mut putter, mut getter) = (Machine::at(&server.url()), Machine::at(&server.url()));
    putter.cluster.put(1, batch(["a", "bc", ""]), Origin::Nameless);
    putter.put(2..4);
    putter.kept(1..4);
    let fetched = getter.fetch();
    assert_eq!((texts(&fetched), fetched.deliveries, &fetched.marks), (vec!["a".into(), "bc".into(), String::new()], 1, &Marks::default()));
    assert_eq!(item_id(fetched.sequence, 2).0, (fetched.sequence << 16) + 2);
    getter.settle(fetched.sequence);
    assert_eq!(getter.drain(2), ["2", "3"]);
    getter.sees("an empty queue", |view| view.messages == 0 && view.items == 0 && view.first_sequence == 4);
    assert!(putter.cluster.is_idle() && getter.cluster.is_idle());
}

#[test]
fn no_more_is_fetched_than_is_wanted_and_what_nobody_wants_any_more_goes_to_another() {
    needs_server!();
    let server = NatsServer::start();
    let (mut one, mut other) = (Machine::at(&server.url()), Machine::at(&server.url()));
    one.cluster.want(1);
    one.cluster.want(0);
    one.put(0..5);
    one.kept(0..5);
    assert_eq!(other.drain(5).len(), 5);
    one.put(5..10);
    one.kept(5..10);
    one.cluster.want(2);
    one.fetched();
    one.fetched();
    one.sees("the queue", |view| view.messages == 5);
    assert!(!one.look().iter().any(|answer| matches!(answer, Answer::Fetched(_))));
}

#[test]
fn a_message_that_is_given_back_comes_at_once_with_its_marks_and_after_a_delay_if_there_is_one() {
    needs_server!();
    let server = NatsServer::start();
    let (mut one, mut other) = (Machine::at(&server.url()), Machine::at(&server.url()));
    one.cluster.put(0, batch(["a", "b", "c"]), Origin::Nameless);
    let fetched = one.fetch();
    let marks = Marks { settled: vec![(0, 1)], failed: vec![(2, 1, 4)] };
    one.cluster.mark(fetched.sequence, marks.clone());
    one.cluster.release(fetched.sequence, Duration::ZERO);
    let again = other.fetch();
    assert_eq!((again.sequence, again.deliveries, &again.marks), (fetched.sequence, 2, &marks));
    let released = Instant::now();
    other.cluster.release(again.sequence, Duration::from_millis(600));
    let again = one.fetch();
    assert!(released.elapsed() > Duration::from_millis(500) && again.marks == marks, "{again:?}");
    one.settle(again.sequence);
    // What is marked of a message is forgotten with it.
    one.sees("an empty queue", |view| view.messages == 0);
}

#[test]
fn the_lease_of_what_is_held_is_kept_alive_beyond_its_time_and_ends_with_its_machine() {
    needs_server!();
    let server = NatsServer::start();
    let (mut one, mut other) = (Machine::at(&server.url()), Machine::at(&server.url()));
    one.put(0..1);
    let held = one.fetch();
    other.cluster.want(1);
    let until = Instant::now() + 2 * settings("nats://a").timing.ack_wait;
    while Instant::now() < until {
        assert!(!other.look().iter().any(|answer| matches!(answer, Answer::Fetched(_))), "it is held");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Gone without a word would be no other: its lease runs out. This one says goodbye.
    one.cluster.close();
    let fetched = other.fetched();
    assert_eq!((fetched.sequence, fetched.deliveries), (held.sequence, 2));
    other.settle(fetched.sequence);
}

#[test]
fn a_full_queue_holds_puts_back_in_order_and_lets_them_in_when_there_is_room() {
    needs_server!();
    let server = NatsServer::start();
    let small = || Settings { capacity_items: 20, ..settings(&server.url()) };
    let (mut putter, mut getter) = (Machine::open(small()), Machine::open(small()));
    putter.put(0..200);
    getter.sees("a full queue", |view| view.messages == 20);
    putter.kept(0..20);
    assert!(!putter.cluster.is_idle());
    let items = getter.drain(200);
    assert_eq!(items, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    putter.kept(20..200);
}

#[test]
fn a_queue_whose_bytes_are_full_holds_puts_back_as_well() {
    needs_server!();
    let server = NatsServer::start();
    let small = || Settings { capacity_bytes: 1 << 20, ..settings(&server.url()) };
    let (mut putter, mut getter) = (Machine::open(small()), Machine::open(small()));
    for ticket in 0..40 {
        putter.cluster.put(ticket, Batch::one(vec![ticket as u8; 100_000].into()), Origin::Nameless);
    }
    getter.sees("a full queue", |view| view.messages >= 9 && view.bytes <= 1 << 20);
    getter.cluster.want(1);
    for ticket in 0..40 {
        let fetched = getter.fetched();
        assert_eq!(fetched.batch.item(0)[0], ticket);
        getter.settle(fetched.sequence);
        getter.cluster.want(1);
    }
    putter.kept(0..40);
}

#[test]
fn items_count_not_messages() {
    needs_server!();
    let server = NatsServer::start();
    let small = || Settings { capacity_items: 20, ..settings(&server.url()) };
    let (mut putter, mut getter) = (Machine::open(small()), Machine::open(small()));
    for ticket in 0..10 {
        putter.cluster.put(ticket, batch(["a", "b", "c", "d", "e", "f"]), Origin::Nameless);
    }
    getter.sees("a full queue", |view| view.items == 18);
    putter.kept(0..3);
    assert_eq!(getter.drain(60).len(), 60);
    putter.kept(3..10);
}

#[test]
fn several_machines_that_fill_a_queue_keep_within_its_bounds_and_each_its_order() {
    needs_server!();
    let server = NatsServer::start();
    let small = || Settings { capacity_items: 100, ..settings(&server.url()) };
    let mut putters = [Machine::open(small()), Machine::open(small()), Machine::open(small())];
    let mut getter = Machine::open(small());
    for (index, putter) in putters.iter_mut().enumerate() {
        for ticket in 0..200_u64 {
            putter.cluster.put(ticket, Batch::one(format!("{index} {ticket}").into()), Origin::Nameless);
        }
    }
    getter.sees("a full queue", |view| view.items > 80);
    let items = getter.drain(600);
    for (index, putter) in putters.iter_mut().enumerate() {
        let prefix = format!("{index} ");
        let its: Vec<u64> = items.iter().filter_map(|item| item.strip_prefix(&prefix)?.parse().ok()).collect();
        assert_eq!(its, (0..200).collect::<Vec<_>>());
        putter.kept(0..200);
    }
}

#[test]
fn a_batch_that_does_not_fit_into_a_message_is_put_in_several_and_confirmed_once() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    let items: Vec<Vec<u8>> = (0..5_u8).map(|number| vec![number; 400_000 + usize::from(number)]).collect();
    machine.cluster.put(0, batch(&items), progress("p", 5));
    machine.kept(0..1);
    machine.cluster.want(5);
    let mut came = Vec::new();
    while came.len() < 5 {
        let fetched = machine.fetched();
        came.extend(fetched.batch.iter().map(<[u8]>::to_vec));
        machine.settle(fetched.sequence);
    }
    assert_eq!(came, items);
    assert!(!machine.look().iter().any(|answer| matches!(answer, Answer::Kept { .. })));
}

#[test]
fn what_a_named_producer_puts_again_is_dropped() {
    needs_server!();
    let server = NatsServer::start();
    let mut one = Machine::at(&server.url());
    assert_eq!(one.claim("p"), (0, false));
    one.cluster.put(0, batch(["a", "b"]), progress("p", 2));
    one.kept(0..1);
    let mut other = Machine::at(&server.url());
    assert_eq!(other.claim("p"), (2, false));
    one.wait("its end at the first machine", |answer| matches!(answer, Answer::Replaced(name) if &**name == "p"));
    other.cluster.put(7, batch(["a", "b"]), progress("p", 2));
    other.kept(7..8);
    other.put(8..9);
    other.kept(8..9);
    // The first look that shows the last shows all.
    other.look().clear();
    other.sees("what was put after it", |view| view.messages > 1);
    let sees_two = |answer: &Answer| matches!(answer, Answer::Cluster(view) if view.messages != 2);
    assert!(!other.look().iter().any(sees_two));
    assert_eq!(other.drain(3), ["a", "b", "8"]);
    other.sees("an empty queue", |view| view.messages == 0);
}

#[test]
fn a_dead_letter_is_kept_with_what_is_known_of_it() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.put(0..1);
    let fetched = machine.fetch();
    let id = item_id(fetched.sequence, 0);
    let letter = DeadLetter { id, attempts: 5, cause: "it broke\r\nin two".into(), item: fetched.batch.item_shared(0) };
    for _ in 0..2 {
        machine.cluster.bury(letter.clone());
        machine.wait("a confirmation", |answer| matches!(answer, Answer::Buried(buried) if *buried == id));
    }
    machine.settle(fetched.sequence);
    let letters = stored(&server.url(), "jobs_dead");
    assert_eq!(letters.len(), 1, "buried twice");
    let (headers, item) = &letters[0];
    assert_eq!(item, b"0");
    assert!(headers.contains(&("Procq-Cause".into(), "it broke  in two".into())), "{headers:?}");
    assert!(headers.contains(&("Procq-Attempts".into(), "5".into())) && headers.contains(&("Procq-Item".into(), id.0.to_string())));
}

#[test]
fn an_item_that_no_message_can_hold_is_refused_with_the_limit() {
    needs_server!();
    let server = NatsServer::start();
    let error = Machine::try_open(Settings { item_bytes_max: Some(1 << 20), ..settings(&server.url()) }).err();
    assert!(matches!(error, Some(ClusterError::ItemLimit { item_bytes_max: 1_032_192, .. })), "{error:?}");
    let error = Machine::try_open(Settings { capacity_bytes: 1 << 10, ..settings(&server.url()) }).err();
    assert!(matches!(error, Some(ClusterError::Capacity { .. })), "{error:?}");
    // The largest that is allowed does fit.
    let mut machine = Machine::open(Settings { item_bytes_max: Some(1_032_192), ..settings(&server.url()) });
    machine.cluster.put(0, Batch::one(vec![1; 1_032_192].into()), progress(&"n".repeat(255), 1));
    machine.kept(0..1);
    let fetched = machine.fetch();
    let (id, item) = (item_id(fetched.sequence, 0), fetched.batch.item_shared(0));
    machine.cluster.bury(DeadLetter { id, attempts: 1, cause: "x".repeat(4096).into(), item });
    machine.wait("a confirmation", |answer| matches!(answer, Answer::Buried(_)));
}

#[test]
fn a_queue_with_other_settings_is_refused_and_the_same_settings_find_it() {
    needs_server!();
    let server = NatsServer::start();
    let same = settings(&server.url());
    Machine::open(same.clone()).cluster.close();
    Machine::open(same.clone()).cluster.close();
    let refused = |settings: Settings| match Machine::try_open(settings).err() {
        Some(error @ ClusterError::Settings { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let told = refused(Settings { capacity_items: 7, ..same.clone() });
    assert!(told.contains("1000 items") && told.contains("7 items") && told.contains("nats stream rm jobs"), "{told}");
    refused(Settings { capacity_bytes: 32 << 20, ..same.clone() });
    refused(Settings { address: format!("{}/jobs?storage=memory", server.url()).parse().expect("an address"), ..same.clone() });
    let mut other = same.clone();
    other.timing.ack_wait = Duration::from_secs(9);
    assert!(refused(other).contains("ack_wait"));
}

/// Headers and payload.
pub(crate) type Stored = (Vec<(String, String)>, Vec<u8>);

/// All messages of a stream, by a client of its own.
pub(crate) fn stored(url: &str, stream: &str) -> Vec<Stored> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(url).await.expect("a connection"));
        let stream = context.get_stream(stream).await.expect("a stream");
        let state = &stream.cached_info().state;
        let mut messages = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let headers = message
                .headers
                .iter()
                .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_string())));
            messages.push((headers.collect(), message.payload.to_vec()));
        }
        messages
    })
}
