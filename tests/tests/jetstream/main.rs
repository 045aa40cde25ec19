//! The client side of the engine for many machines, against real NATS servers.

mod dead;
mod ends;
mod faults;
mod link;
mod machine;

use std::time::{Duration, Instant};

use common::batch::Batch;
use coordinator::jetstream::{Answer, ClusterError, Marks, Settings, item_id};
use coordinator::queue::{DeadLetter, Origin};
use machine::{Machine, batch, progress, settings, texts};
use tests::eventually;
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
    // A look that shows the last shows all.
    other.sees("what was put after it", |view| view.messages > 1);
    let sees_more = |answer: &Answer| matches!(answer, Answer::Cluster(view) if view.messages > 2);
    assert!(!other.look().iter().any(sees_more));
    assert_eq!(other.drain(3), ["a", "b", "8"]);
    other.sees("an empty queue", |view| view.messages == 0);
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
fn the_largest_item_is_what_servers_and_capacity_allow_unless_it_is_given() {
    needs_server!();
    let server = NatsServer::start();
    let opened = |settings: Settings| {
        let mut machine = Machine::open(settings);
        let largest = machine.cluster.item_bytes_max();
        // It does fit.
        machine.cluster.put(0, Batch::one(vec![1; largest as usize].into()), progress("p", 1));
        machine.kept(0..1);
        largest
    };
    let open = || Settings { item_bytes_max: None, ..settings(&server.url()) };
    assert_eq!(opened(open()), (1 << 20) - 16 * 1024);
    let address = format!("{}/small", server.url()).parse().expect("an address");
    assert_eq!(opened(Settings { capacity_bytes: 100_000, address, ..open() }), 100_000 - 8 * 1024);
    let address = format!("{}/given", server.url()).parse().expect("an address");
    assert_eq!(opened(Settings { item_bytes_max: Some(7), address, ..open() }), 7);
    let error = Machine::try_open(Settings { capacity_bytes: 1 << 10, ..open() }).err();
    assert!(matches!(error, Some(ClusterError::Capacity { .. })), "{error:?}");
}

#[test]
fn a_message_has_so_few_items_that_machines_share_a_queue_evenly() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::open(Settings { capacity_items: 10_000, ..settings(&server.url()) });
    machine.cluster.put(0, batch((0..1300).map(|number| number.to_string())), progress("p", 1300));
    machine.kept(0..1);
    machine.sees("three messages", |view| (view.messages, view.items) == (3, 1300));
    assert_eq!(machine.drain(1300), (0..1300).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_batch_larger_than_the_whole_queue_passes_in_parts() {
    needs_server!();
    let server = NatsServer::start();
    let tight = Settings { capacity_bytes: 20_000, item_bytes_max: Some(1000), ..settings(&server.url()) };
    let mut machine = Machine::open(tight);
    machine.cluster.put(0, batch((0..60).map(|_| [7; 1000])), Origin::Nameless);
    assert_eq!(machine.drain(60).len(), 60);
    machine.kept(0..1);
}

#[test]
fn a_look_is_answered_though_nothing_has_changed_and_counts_what_was_put_before() {
    needs_server!();
    let server = NatsServer::start();
    let rarely = || {
        let mut settings = settings(&server.url());
        settings.timing.look = Duration::from_secs(30);
        settings
    };
    let (mut one, mut other) = (Machine::open(rarely()), Machine::open(rarely()));
    other.sees("an empty queue", |view| (view.messages, view.first_sequence, view.last_sequence) == (0, 1, 0));
    // Whatever becomes known of the other machine has become known by then. It may have come after the first look.
    eventually("both machines", || {
        other.cluster.look();
        let view = other.wait("a view", |answer| matches!(answer, Answer::Cluster(_)));
        matches!(view, Answer::Cluster(view) if view.machines == 2).then_some(())
    });
    for last in 1..20 {
        one.put(last..last + 1);
        one.kept(last..last + 1);
        for _ in 0..2 {
            other.cluster.look();
            match other.wait("a view", |answer| matches!(answer, Answer::Cluster(_))) {
                Answer::Cluster(view) => assert_eq!((view.messages, view.last_sequence), (last, last)),
                other => panic!("{other:?}"),
            }
        }
    }
    // However often it is asked, looks are rare while nothing happens.
    let asked = Instant::now();
    let mut looks = 0;
    while asked.elapsed() < Duration::from_millis(600) {
        other.cluster.look();
        other.wait("a view", |answer| matches!(answer, Answer::Cluster(_)));
        looks += 1;
    }
    assert!(looks < 15, "{looks}");
}

#[test]
fn what_is_said_of_a_message_that_is_not_held_any_more_does_no_harm() {
    needs_server!();
    let server = NatsServer::start();
    let (mut one, mut other) = (Machine::at(&server.url()), Machine::at(&server.url()));
    one.put(0..2);
    let (first, second) = (one.fetch().sequence, one.fetch().sequence);
    let marks = |count| Marks { settled: Vec::new(), failed: vec![(0, 1, count)] };
    one.cluster.mark(first, marks(1));
    one.cluster.release(first, Duration::ZERO);
    one.cluster.mark(first, marks(2));
    one.cluster.settle(second);
    one.cluster.mark(second, marks(2));
    one.settled(second);
    let again = other.fetch();
    assert_eq!(again.sequence, first);
    // Said before the message was given back, it counts; said after, it does not.
    for sequence in [first, second] {
        one.cluster.mark(sequence, marks(3));
        one.cluster.release(sequence, Duration::ZERO);
    }
    assert!([marks(1), marks(2)].contains(&again.marks), "{again:?}");
    other.cluster.release(first, Duration::ZERO);
    let once_more = other.fetch();
    assert_eq!((once_more.sequence, once_more.deliveries, once_more.marks), (first, 3, again.marks));
    other.settle(first);
    other.sees("an empty queue", |view| view.messages == 0);
    eventually("no marks to be left", || {
        let left = stored(&server.url(), "jobs_state");
        // A machine each.
        (left.len() == 2).then_some(())
    });
}

#[test]
fn all_that_a_machine_holds_or_is_about_to_get_is_anothers_at_once_when_it_closes() {
    needs_server!();
    let server = NatsServer::start();
    let patient = || {
        let mut settings = settings(&server.url());
        // What was not given back would come after this only.
        settings.timing.ack_wait = Duration::from_secs(60);
        settings
    };
    let mut other = Machine::open(patient());
    // So much that most of it is on its way when the first has come.
    for number in 0..600_u64 {
        other.cluster.put(number, Batch::one([&number.to_le_bytes()[..], &[0; 20_000]].concat().into()), Origin::Nameless);
    }
    other.kept(0..600);
    for _ in 0..3 {
        let mut one = Machine::open(patient());
        one.cluster.want(500);
        drop(one.fetched());
        let closed = Instant::now();
        one.cluster.close();
        assert!(closed.elapsed() < Duration::from_secs(2), "{:?}", closed.elapsed());
    }
    assert_eq!(other.drain(600).len(), 600);
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
