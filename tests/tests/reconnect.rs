//! Clients whose connection is lost: they come again, go on where they were, and say so when that cannot be.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail it, too")]

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::limits::PROTOCOL_VERSION;
use common::message::{CloseReason, Incoming, Message, Position};
use common::status::{ClientStatus, Work};
use common::{Consumer, Control, Endpoint, Error, GetError, Producer, PutError, checksum};
use tempfile::TempDir;
use tests::engine::{Engine, is_about};
use tests::raw::Raw;
use tests::{DEADLINE, Process, eventually};

/// A socket's place, and the coordinators that come and go there.
struct Place {
    _folder: TempDir,
    socket: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("q.sock");
        Place { _folder: folder, socket }
    }

    fn serve(&self) -> Process {
        let coordinator = Process::start("coordinator", &self.socket, &["serve"]);
        coordinator.wait_for_stderr("ready at");
        coordinator
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::at(&self.socket).with_reconnect(DEADLINE)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.socket.with_file_name(name)
    }
}

/// A coordinator by hand: it says what it likes, and goes when it likes.
struct Fake {
    listener: UnixListener,
    socket: PathBuf,
}

impl Fake {
    fn at(place: &Place) -> Fake {
        let listener = UnixListener::bind(&place.socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        Fake { listener, socket: place.socket.clone() }
    }

    /// The next client, welcomed: what it said its name was, and its connection.
    fn welcome(&self, position: u64, checksum: Option<u64>) -> (String, Raw) {
        let (name, mut raw) = self.greeted();
        raw.say(&[welcome(position, checksum)]);
        (name, raw)
    }

    /// The next client, which has said hello.
    fn greeted(&self) -> (String, Raw) {
        let (stream, _) = eventually("a client", || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut raw = Raw { stream };
        match raw.hear().unwrap().message {
            Message::Hello { name, .. } => (name, raw),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn welcome(position: u64, checksum: Option<u64>) -> Message {
    let position = Position(position);
    Message::Welcome { version: PROTOCOL_VERSION, pid: 4711, item_bytes_max: 1 << 20, position, announce_from: 2, checksum, lease_ms: None }
}

fn confirm(position: u64, credit_items: u64, credit_bytes: u64) -> Message {
    Message::Confirm { position: Position(position), credit_items, credit_bytes }
}

/// The next `Put`: its first item's position, its items, its checksum; what comes before it is passed over.
fn hear_put(raw: &mut Raw) -> (u64, Vec<String>, u64) {
    loop {
        if let Incoming { message: Message::Put { position, checksum, .. }, batch: Some(batch) } = raw.hear().unwrap() {
            return (position.0, batch.iter().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect(), checksum);
        }
    }
}

fn sum(items: &[&str]) -> u64 {
    items.iter().fold(checksum::START, |sum, item| checksum::add(sum, item.as_bytes()))
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| item.to_string()).collect()
}

/// A file's path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_consumer_goes_on_when_its_coordinator_was_killed_and_started_again() {
    let place = Place::new();
    let mut first = place.serve();
    let consumer = Process::start("consumer", &place.socket, &["--reconnect", "30s"]);
    consumer.wait_for_stderr("connected to the coordinator");
    Producer::<[u8]>::connect(&place.endpoint()).unwrap().put(b"one").unwrap();
    consumer.wait_for_stdout("one\n");
    first.kill();
    consumer.wait_for_stderr("consumer: connection to the coordinator lost; trying for 30s\n");
    let second = place.serve();
    consumer.wait_for_stderr(&format!("consumer: connected again (pid {})\n", second.pid()));
    Producer::<[u8]>::connect(&place.endpoint()).unwrap().put(b"two").unwrap();
    consumer.wait_for_stdout("one\ntwo\n");
    Control::connect(&place.endpoint()).unwrap().stop(false).unwrap();
    let (code, stdout, stderr) = consumer.finish();
    assert_eq!((code, &stdout[..], stderr.lines().count()), (0, "one\ntwo\n", 3), "{stderr}");
}

#[test]
fn a_producer_is_told_when_its_coordinator_came_back_without_what_it_had_confirmed() {
    let place = Place::new();
    let mut first = place.serve();
    let mut producer = Process::start("producer", &place.socket, &["--reconnect", "30s", "--name", "n", "--input", "-"]);
    producer.write(b"a\nb\n");
    let control = Control::connect(&place.endpoint()).unwrap();
    let is_told = |client: &ClientStatus| matches!(client.work, Work::Producer { accepted: 2, .. });
    eventually("two items accepted for good", || control.clients().unwrap().iter().any(is_told).then_some(()));
    // By the next answer it was said to the producer, too.
    control.status().unwrap();
    first.kill();
    let _second = place.serve();
    producer.write(b"c\n");
    producer.close_stdin();
    let end = producer.end();
    assert!(end.starts_with("exit 1: "), "{end}");
    assert!(end.contains("came back without its journal: it had confirmed 2 items of this producer's and knows of 0"), "{end}");
}

#[test]
fn with_a_journal_clients_go_on_over_kills_and_each_item_is_put_once() {
    const ITEMS: u64 = 20_000;
    let place = Place::new();
    let journal = place.path("journal");
    let serve = || {
        let coordinator = Process::start("coordinator", &place.socket, &["serve", "--journal", text(&journal)]);
        coordinator.wait_for_stderr("ready at");
        coordinator
    };
    let mut coordinator = serve();
    let endpoint = place.endpoint();
    // Before anything is killed: only a connection that was there is made again.
    let (consumer, producer) = (Consumer::<u64>::connect(&endpoint).unwrap(), Producer::<u64>::connect(&endpoint).unwrap());
    let seen = thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            let mut seen = std::collections::BTreeMap::new();
            while let Some(delivery) = consumer.get().unwrap() {
                seen.entry(delivery.id().0).or_insert(*delivery.item());
                delivery.ack().unwrap();
            }
            seen
        });
        let producer = scope.spawn(move || {
            for item in 0..ITEMS {
                producer.put(&item).unwrap();
                if item % 50 == 0 {
                    producer.flush().unwrap();
                }
            }
            producer.finish().unwrap();
        });
        for _ in 0..5 {
            let before = Control::connect(&endpoint).unwrap().status().unwrap().accepted;
            eventually("further items", || {
                let status = Control::connect(&endpoint).unwrap().status().unwrap();
                (status.accepted > before || producer.is_finished()).then_some(())
            });
            coordinator.kill();
            coordinator = serve();
        }
        producer.join().unwrap();
        Control::connect(&endpoint).unwrap().stop(false).unwrap();
        consumer.join().unwrap()
    });
    let items: Vec<u64> = seen.into_values().collect();
    assert!(items.iter().copied().eq(0..ITEMS), "{} items", items.len());
}

#[test]
fn a_producer_without_a_name_gets_one_and_an_empty_queue_that_comes_back_is_as_good() {
    let place = Place::new();
    let mut first = place.serve();
    let producer = Producer::<[u8]>::connect(&place.endpoint()).unwrap();
    first.kill();
    let second = place.serve();
    producer.put(b"item").unwrap();
    producer.flush().unwrap();
    assert_eq!((producer.confirmed(), producer.coordinator_pid()), (Position(1), second.pid()));
    let consumer = Consumer::<[u8]>::connect(&place.endpoint()).unwrap();
    let delivery = consumer.try_get().unwrap().unwrap();
    assert_eq!(delivery.item(), b"item");
    delivery.ack().unwrap();
}

#[test]
fn without_reconnect_a_lost_connection_is_an_error_as_before() {
    let place = Place::new();
    let mut first = place.serve();
    let consumer = Consumer::<[u8]>::connect(&Endpoint::at(&place.socket)).unwrap();
    first.kill();
    let _second = place.serve();
    assert!(matches!(consumer.get(), Err(Error::Gone(_))));
}

#[test]
fn whoever_waits_long_enough_is_told_that_nobody_came_back() {
    let place = Place::new();
    let mut first = place.serve();
    let endpoint = Endpoint::at(&place.socket).with_reconnect(Duration::from_millis(200));
    let (producer, consumer) = (Producer::<[u8]>::connect(&endpoint).unwrap(), Consumer::<[u8]>::connect(&endpoint).unwrap());
    producer.put(b"item").unwrap();
    producer.flush().unwrap();
    first.kill();
    let error = consumer.get().err().unwrap().to_string();
    assert!(error.contains("did not come back within 200ms"), "{error}");
    producer.put(b"item").unwrap();
    let error = producer.flush().unwrap_err().to_string();
    assert!(error.contains("did not come back within 200ms"), "{error}");
}

#[test]
fn timeouts_bound_calls_while_there_is_no_connection() {
    let place = Place::new();
    let mut first = place.serve();
    let (producer, consumer) =
        (Producer::<[u8]>::connect(&place.endpoint()).unwrap(), Consumer::<[u8]>::connect(&place.endpoint()).unwrap());
    first.kill();
    let begun = Instant::now();
    let wait = Duration::from_millis(50);
    assert!(matches!(consumer.get_timeout(wait), Err(GetError::Empty)));
    assert!(matches!(consumer.try_get(), Err(GetError::Empty)));
    // What fits the credit is taken until the loss is noticed.
    while producer.put_timeout(b"item", wait).is_ok() {}
    assert!(matches!(producer.put_timeout(b"item", wait), Err(PutError::Full)));
    assert!(matches!(producer.try_put(b"item"), Err(PutError::Full)));
    assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| consumer.get().unwrap().is_none());
        thread::sleep(wait);
        consumer.stop().unwrap();
        assert!(waiting.join().unwrap(), "to stop ends the wait");
    });
}

#[test]
fn what_was_put_and_not_confirmed_is_put_again_and_what_was_accepted_is_not() {
    let place = Place::new();
    let fake = Fake::at(&place);
    let endpoint = place.endpoint();
    let items = ["a", "bb", "ccc", "d"];
    thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let producer = Producer::<[u8]>::connect_named(&endpoint, "n").unwrap();
            assert_eq!(producer.resumed_checksum(), Some(sum(&[])));
            producer.put_all(items.iter().map(|item| item.as_bytes())).unwrap();
            producer.finish().unwrap();
        });
        let (name, mut raw) = fake.welcome(0, Some(sum(&[])));
        assert_eq!(name, "n");
        raw.say(&[confirm(0, 1000, 100_000)]);
        assert_eq!(hear_put(&mut raw), (0, strings(&["a"]), sum(&["a"])));
        assert_eq!(hear_put(&mut raw).0, 1);
        // Both are accepted, as far as the first two items; nothing of it is said.
        drop(raw);
        let (name, mut raw) = fake.welcome(2, Some(sum(&["a", "bb"])));
        assert_eq!(name, "n");
        raw.say(&[confirm(2, 1, 100_000)]);
        assert_eq!(hear_put(&mut raw), (2, strings(&["ccc"]), sum(&["a", "bb", "ccc"])));
        // Gone between the confirmation and the rest; then in the middle of the greeting.
        drop(raw);
        drop(fake.greeted());
        let (_, mut raw) = fake.welcome(3, Some(sum(&["a", "bb", "ccc"])));
        raw.say(&[confirm(3, 1000, 100_000)]);
        assert_eq!(hear_put(&mut raw), (3, strings(&["d"]), sum(&items)));
        raw.say(&[confirm(4, 0, 0)]);
        assert!(matches!(raw.hear().unwrap().message, Message::Finish));
        drop(raw);
        let (_, mut raw) = fake.welcome(4, Some(sum(&items)));
        loop {
            match raw.hear().unwrap().message {
                Message::Finish => break,
                other => assert!(matches!(other, Message::Want { .. }), "{other:?}"),
            }
        }
        raw.say(&[Message::Finished]);
        producer.join().unwrap();
    });
}

#[test]
fn one_that_is_cut_off_in_the_middle_of_a_put_puts_it_again() {
    let place = Place::new();
    let fake = Fake::at(&place);
    let endpoint = place.endpoint();
    let large = vec![7; 900_000];
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let producer = Producer::<[u8]>::connect(&endpoint).unwrap();
            producer.put(&large).unwrap();
            producer.flush().unwrap();
        });
        let (name, mut raw) = fake.welcome(0, None);
        assert!(!name.is_empty(), "without a name nothing could be told apart");
        raw.say(&[confirm(0, 1000, 1_000_000)]);
        eventually("a frame that is begun", || (rustix::io::ioctl_fionread(&raw.stream).unwrap() > 100_000).then_some(()));
        drop(raw);
        let (again, mut raw) = fake.welcome(0, None);
        assert_eq!(again, name);
        raw.say(&[confirm(0, 1000, 1_000_000)]);
        let (position, items, _) = hear_put(&mut raw);
        assert_eq!((position, items.len(), items[0].len()), (0, 1, large.len()));
        raw.say(&[confirm(1, 0, 0)]);
        producer.join().unwrap();
    });
}

#[test]
fn an_idle_producer_whose_items_are_unconfirmed_notices_the_loss_by_itself() {
    let place = Place::new();
    let fake = Fake::at(&place);
    let endpoint = place.endpoint();
    thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let producer = Producer::<[u8]>::connect(&endpoint).unwrap();
            producer.put(b"a").unwrap();
            producer
        });
        let (_, mut raw) = fake.welcome(0, None);
        raw.say(&[confirm(0, 10, 10_000)]);
        hear_put(&mut raw);
        let producer = producer.join().unwrap();
        drop(raw);
        let (_, mut raw) = fake.welcome(0, None);
        raw.say(&[confirm(0, 10, 10_000)]);
        assert_eq!(hear_put(&mut raw).1, strings(&["a"]));
        raw.say(&[confirm(1, 0, 0)]);
        eventually("a confirmation", || (producer.confirmed() == Position(1)).then_some(()));
        producer.put(b"b").unwrap();
    });
}

#[test]
fn what_the_coordinator_says_before_it_closes_is_final() {
    let place = Place::new();
    let fake = Fake::at(&place);
    let endpoint = place.endpoint();
    for reason in [CloseReason::Ended, CloseReason::Replaced] {
        thread::scope(|scope| {
            let producer = scope.spawn(|| Producer::<[u8]>::connect(&endpoint).and_then(|producer| producer.flush().and(producer.join())));
            let (_, mut raw) = fake.welcome(0, None);
            raw.say(&[Message::Close { reason, words: "enough".into() }]);
            let error = producer.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Closed { reason: came, .. } if came == reason), "{error}");
        });
    }
}

#[test]
fn a_delivery_of_a_lost_connection_is_settled_without_effect() {
    let place = Place::new();
    let fake = Fake::at(&place);
    let endpoint = place.endpoint();
    let deliver = |raw: &mut Raw, attempt| {
        while !matches!(raw.hear().unwrap().message, Message::Demand { .. }) {}
        let batch = common::batch::Batch::one(bytes::Bytes::from_static(b"item"));
        let message = Message::Deliver { first: common::ItemId(0), attempt, batch: batch.header() };
        raw.send(&tests::raw::with_body(&message, batch.item(0)));
    };
    thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            let consumer = Consumer::<[u8]>::connect(&endpoint).unwrap();
            let first = consumer.get().unwrap().unwrap();
            let second = consumer.get().unwrap().unwrap();
            assert_eq!((first.attempt(), second.attempt()), (1, 2));
            assert!(!first.is_held() && second.is_held());
            first.ack().unwrap();
            second.ack().unwrap();
            consumer.stats().unwrap();
        });
        let (_, mut raw) = fake.welcome(0, None);
        deliver(&mut raw, 1);
        while !matches!(raw.hear().unwrap().message, Message::Demand { .. }) {}
        drop(raw);
        let (_, mut raw) = fake.welcome(0, None);
        deliver(&mut raw, 2);
        let mut acks = Vec::new();
        loop {
            match raw.hear().unwrap().message {
                Message::Ack { ranges } => acks.extend(ranges),
                Message::StatusRequest => break,
                _ => {}
            }
        }
        assert_eq!(acks.iter().map(|range| (range.first.0, range.count)).collect::<Vec<_>>(), [(0, 1)]);
        raw.say(&[Message::Status(Default::default())]);
        consumer.join().unwrap();
    });
}

#[test]
fn a_command_is_ended_with_the_connection_and_its_consumer_goes_on() {
    let place = Place::new();
    let mut first = place.serve();
    let started = place.path("started");
    let script = format!("echo $$ >> {}; case $(cat) in one) sleep 1000;; esac; echo done", text(&started));
    let consumer = Process::start("consumer", &place.socket, &["--reconnect", "30s", "--", "sh", "-c", &script]);
    consumer.wait_for_stderr("connected to the coordinator");
    Producer::<[u8]>::connect(&place.endpoint()).unwrap().put(b"one").unwrap();
    let pids = || std::fs::read_to_string(&started).unwrap_or_default();
    let pid = eventually("a command", || pids().trim().parse::<u32>().ok());
    first.kill();
    eventually("the command's end", || (!tests::is_alive(pid)).then_some(()));
    let mut second = place.serve();
    consumer.wait_for_stderr("connected again");
    Producer::<[u8]>::connect(&place.endpoint()).unwrap().put(b"two").unwrap();
    second.wait_for_stdout("done\n");
    assert!(consumer.is_alive());
    second.kill();
}

#[test]
fn an_input_is_gone_on_with_only_behind_what_is_put_already() {
    let place = Place::new();
    let fake = Fake::at(&place);
    let input = place.path("jobs.txt");
    std::fs::write(&input, "a\nb\nc\n").unwrap();
    let run = |position, checksum| {
        let producer = Process::start("producer", &place.socket, &["--input", text(&input)]);
        let (name, raw) = fake.welcome(0, Some(0));
        assert_eq!(name, "");
        drop(raw);
        let (name, raw) = fake.welcome(position, Some(checksum));
        assert_eq!(name, format!("input:{}", text(&input)));
        (producer, raw)
    };
    let (producer, mut raw) = run(2, sum(&["a", "b"]));
    raw.say(&[confirm(2, 10, 10_000)]);
    assert_eq!(hear_put(&mut raw), (2, strings(&["c"]), sum(&["a", "b", "c"])));
    raw.say(&[confirm(3, 0, 0)]);
    while !matches!(raw.hear().unwrap().message, Message::Finish) {}
    raw.say(&[Message::Finished]);
    let (code, _, stderr) = producer.finish();
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("2 items are put already; going on behind them"), "{stderr}");

    let (producer, raw) = run(2, sum(&["a", "x"]));
    let (code, _, stderr) = producer.finish();
    assert!(stderr.contains(&format!("the first 2 items of {} are not those that were put before", text(&input))), "{stderr}");
    assert_eq!(code, 1);
    let (producer, _) = (run(4, sum(&["a", "b", "c", "d"])), raw);
    let (code, _, stderr) = producer.0.finish();
    assert!(stderr.contains(&format!("{} ends after 3 of the 4 items that were put from it before", text(&input))), "{stderr}");
    assert_eq!(code, 1);
}

#[test]
fn without_a_journal_an_input_that_is_put_again_is_put_twice() {
    if !is_about(&[Engine::Memory], "what keeps an input's items knows how far it has come") {
        return;
    }
    let place = Place::new();
    let _coordinator = place.serve();
    let input = place.path("jobs.txt");
    std::fs::write(&input, "a\n").unwrap();
    for _ in 0..2 {
        let (code, _, stderr) = Process::start("producer", &place.socket, &["--input", text(&input)]).finish();
        assert_eq!(code, 0, "{stderr}");
    }
    assert_eq!(Control::connect(&place.endpoint()).unwrap().status().unwrap().accepted, 2);
}

#[test]
fn a_client_that_is_dropped_without_a_connection_does_not_come_again() {
    let place = Place::new();
    let fake = Fake::at(&place);
    let endpoint = place.endpoint();
    let consumer = thread::scope(|scope| {
        let consumer = scope.spawn(|| Consumer::<[u8]>::connect(&endpoint).unwrap());
        drop(fake.welcome(0, None));
        consumer.join().unwrap()
    });
    assert!(matches!(consumer.try_get(), Err(GetError::Empty)));
    let (_, mut raw) = fake.greeted();
    let begun = Instant::now();
    drop(consumer);
    assert_eq!(raw.hear().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof, "it hangs up");
    assert!(begun.elapsed() < DEADLINE / 6, "{:?}", begun.elapsed());
    assert!(fake.listener.accept().is_err(), "and does not come again");
}
