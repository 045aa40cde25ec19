//! `PROTOCOL.md` holds what it says: each of its examples is the encoding of the value that stands here, both ways, every variant has an
//! example, and its tables give the numbers and limits of the code.
//!
//! An example is a line `example NAME: HEX` in a fenced block, NAME beginning with the message's; bars are for the eye, and a line that
//! begins with a space goes on with the one before.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail it, too")]

use std::collections::BTreeMap;

use bytes::Bytes;
use common::batch::{Batch, BatchBuilder, BatchHeader, Layout};
use common::frame::FrameReader;
use common::limits;
use common::message::{CloseReason, DeadFate, ItemId, ItemRange, Message, Obstacle, Outcome, Position, Role};
use common::status::{AtHand, ClientStatus, Phase, Status, Work};

const DOCUMENT: &str = include_str!("../../PROTOCOL.md");

/// Names all variants of an enum, in the order of their numbers; a variant that is missing here does not compile.
macro_rules! variants {
    ($list:ident, $name_of:ident, $type:ident: $($variant:ident)*) => {
        const $list: &[&str] = &[$(stringify!($variant)),*];

        fn $name_of(value: &$type) -> &'static str {
            match value { $($type::$variant { .. } => stringify!($variant)),* }
        }
    };
}

variants!(MESSAGES, message_name, Message: Hello Welcome Close Stop Put Confirm Want Finish Finished Join Joined Demand Deliver Withdraw
    Withdrawn Ack Result Return StatusRequest Status Shutdown ShuttingDown Begin Recall Recalled Revoke Revoked
    Extend Extended ClientsRequest Clients SetPaused PausedSet DeadList DeadLetter DeadListed DeadRemove DeadRemoved Hurry);
variants!(ROLES, role_name, Role: Producer Consumer Control);
variants!(REASONS, reason_name, CloseReason: Version Goodbye Protocol Ended Replaced Forbidden Limit);
variants!(OUTCOMES, outcome_name, Outcome: Unstarted Released Failed Rejected RetryAfter);
variants!(FATES, fate_name, DeadFate: Requeue Drop);
variants!(OBSTACLES, obstacle_name, Obstacle: Full Ending);
variants!(PHASES, phase_name, Phase: Running Draining Stopping Done);

/// A value that the document shows, and its batch where it has one.
struct Sample {
    name: String,
    message: Message,
    batch: Option<Batch>,
}

fn sample(name: impl Into<String>, message: Message) -> Sample {
    Sample { name: name.into(), message, batch: None }
}

fn with_batch(name: &str, batch: Batch, message: impl FnOnce(BatchHeader) -> Message) -> Sample {
    Sample { name: name.into(), message: message(batch.header()), batch: Some(batch) }
}

fn batch(items: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default();
    items.iter().for_each(|item| builder.push_bytes(item.as_bytes()));
    builder.take_batch().unwrap()
}

fn body(batch: &Batch) -> Vec<u8> {
    batch.body().map(|piece| piece.to_vec()).concat()
}

fn hello(role: Role, name: &str) -> Sample {
    let message = Message::Hello { version: 1, role, name: name.into() };
    sample(format!("Hello.{}", role_name(&role).to_lowercase()), message)
}

fn close(reason: CloseReason, words: &str) -> Sample {
    sample(format!("Close.{}", reason_name(&reason)), Message::Close { reason, words: words.into() })
}

fn returned(first: u64, count: u32, outcome: Outcome) -> Sample {
    let range = ItemRange { first: ItemId(first), count };
    sample(format!("Return.{}", outcome_name(&outcome)), Message::Return { range, outcome })
}

/// All that the document has an example of.
fn samples() -> Vec<Sample> {
    let uniform = batch(&["ab", "cd", "ef"]);
    let table = batch(&["a", "", "bcd"]);
    let part = table.slice(1, 2);
    assert_eq!(part.header().layout, Layout::Table { base: 1 }, "a part whose numbers do not count from 0");
    let deliver = |first, attempt| move |batch| Message::Deliver { first: ItemId(first), attempt, batch };
    let range = |first, count| ItemRange { first: ItemId(first), count };
    vec![
        hello(Role::Producer, "in.txt"),
        hello(Role::Consumer, ""),
        hello(Role::Control, ""),
        sample(
            "Welcome",
            Message::Welcome {
                version: 1,
                pid: 4711,
                item_bytes_max: 16 << 20,
                position: Position(300),
                announce_from: 2,
                checksum: Some(77_777),
                lease_ms: Some(30_000),
            },
        ),
        close(CloseReason::Version, "use one release"),
        close(CloseReason::Goodbye, ""),
        close(CloseReason::Protocol, "Stop has no place here"),
        close(CloseReason::Ended, "the queue takes no more items"),
        close(CloseReason::Replaced, "another came"),
        close(CloseReason::Forbidden, "not yours"),
        close(CloseReason::Limit, "no Hello within 5 s"),
        sample("Stop", Message::Stop),
        with_batch("Put.uniform", uniform.clone(), |batch| Message::Put { position: Position(300), checksum: 0, batch }),
        with_batch("Put.table", table.clone(), |batch| Message::Put { position: Position(303), checksum: 77_777, batch }),
        sample("Confirm", Message::Confirm { position: Position(306), credit_items: 6, credit_bytes: 1000 }),
        sample("Want", Message::Want { bytes: limits::batch_cost_bytes(1012 + 4) }),
        sample("Finish", Message::Finish),
        sample("Finished", Message::Finished),
        sample("Join", Message::Join),
        sample("Joined", Message::Joined),
        sample("Demand", Message::Demand { items: 100, bytes: 4 << 20 }),
        with_batch("Deliver.uniform", uniform, deliver(5000, 1)),
        with_batch("Deliver.table", table, deliver(5003, 1)),
        with_batch("Deliver.part", part, deliver(5004, 2)),
        sample("Withdraw", Message::Withdraw),
        sample("Withdrawn", Message::Withdrawn),
        sample("Ack", Message::Ack { ranges: vec![range(5000, 3), range(5004, 1)] }),
        with_batch("Result.uniform", batch(&["ok\n", "no\n"]), |batch| Message::Result { first: ItemId(5000), batch }),
        with_batch("Result.table", batch(&["1\n", "22\n"]), |batch| Message::Result { first: ItemId(5004), batch }),
        returned(5001, 2, Outcome::Unstarted),
        returned(5000, 1, Outcome::Released),
        returned(5000, 1, Outcome::Failed { cause: "exit status 1".into() }),
        returned(5000, 1, Outcome::Rejected { cause: "no such file".into() }),
        returned(5000, 1, Outcome::RetryAfter { delay_ms: 1500 }),
        sample("StatusRequest", Message::StatusRequest),
        sample("Status", Message::Status(Box::new(status()))),
        sample("Shutdown.drain", Message::Shutdown { now: false }),
        sample("Shutdown.now", Message::Shutdown { now: true }),
        sample("ShuttingDown", Message::ShuttingDown),
        sample("Begin", Message::Begin { id: ItemId(5000) }),
        sample("Recall", Message::Recall { position: Position(306) }),
        sample("Recalled", Message::Recalled),
        sample("Revoke", Message::Revoke { ranges: vec![range(5000, 1), range(5001, 2)] }),
        sample("Revoked", Message::Revoked),
        sample("Extend", Message::Extend { id: ItemId(5000), by_ms: 60_000 }),
        sample("Extended", Message::Extended),
        sample("ClientsRequest", Message::ClientsRequest { from: 300 }),
        sample("Clients", Message::Clients { clients: clients(), more_from: Some(812) }),
        sample("SetPaused", Message::SetPaused { paused: true }),
        sample("PausedSet", Message::PausedSet { paused: true, changed: true }),
        sample("DeadList", Message::DeadList { from: ItemId(0), until: ItemId(1000) }),
        with_batch("DeadLetter", Batch::one(b"bad url"[..].into()), |batch| Message::DeadLetter {
            id: ItemId(300),
            attempts: 5,
            cause: "exit status 1".into(),
            batch,
        }),
        sample("DeadListed.all", Message::DeadListed { next: None, unkept: 0 }),
        sample("DeadListed.more", Message::DeadListed { next: Some(ItemId(400)), unkept: 7 }),
        removal(DeadFate::Requeue),
        removal(DeadFate::Drop),
        removed("all", 3, None, None),
        removed("Full", 2, Some(ItemId(400)), Some(Obstacle::Full)),
        removed("Ending", 0, Some(ItemId(300)), Some(Obstacle::Ending)),
        sample("Hurry", Message::Hurry),
    ]
}

fn removal(fate: DeadFate) -> Sample {
    let message = Message::DeadRemove { from: ItemId(300), until: ItemId(500), fate };
    sample(format!("DeadRemove.{}", fate_name(&fate)), message)
}

fn removed(name: &str, count: u64, next: Option<ItemId>, obstacle: Option<Obstacle>) -> Sample {
    assert!(obstacle.is_none_or(|obstacle| obstacle_name(&obstacle) == name));
    sample(format!("DeadRemoved.{name}"), Message::DeadRemoved { count, next, obstacle })
}

fn status() -> Status {
    Status {
        pid: 4711,
        uptime_ms: 60_000,
        phase: Phase::Running,
        ready: 10,
        delayed: 2,
        held: 3,
        dead: 1,
        acknowledged: 983,
        accepted: 1000,
        redelivered: 4,
        bytes: 5000,
        capacity_items: 15,
        capacity_bytes: 64 << 20,
        producers: 2,
        producers_finished: 1,
        producers_waiting: 1,
        consumers: 4,
        consumers_waiting: 0,
        paused: false,
        dead_removed: 1,
        shared: None,
    }
}

fn clients() -> Vec<ClientStatus> {
    let at_hand = Some(AtHand { id: ItemId(5003), attempt: 2, for_ms: 1500 });
    let producer = Work::Producer { name: "in.txt".into(), accepted: 5010, parked: 6, waiting: true, finished: false };
    let consumer = Work::Consumer { held: 3, at_hand, waiting: false, done: 984, failed: 5 };
    let client = |number, pid, connected_ms, work| ClientStatus { number, pid, connected_ms, work };
    vec![client(300, Some(4712), 60_000, producer), client(301, Some(4713), 60_000, consumer), client(302, None, 1, Work::Control)]
}

/// The document's examples by name.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let mut examples = BTreeMap::new();
    let mut fenced = false;
    let mut current = None;
    for line in DOCUMENT.lines() {
        if line.starts_with("```") {
            fenced = line != "```";
            current = None;
            continue;
        }
        let hex = if let Some(example) = line.strip_prefix("example ") {
            assert!(fenced, "{line:?} stands outside a fenced block");
            let (name, hex) = example.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no example"));
            assert!(examples.insert(name, Vec::new()).is_none(), "two examples are called {name}");
            current = Some(name);
            hex
        } else if current.is_some() && line.starts_with(' ') {
            line
        } else {
            current = None;
            continue;
        };
        let bytes = hex.split_whitespace().filter(|word| *word != "|");
        let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{byte:?} in {line:?} is no byte")));
        current.and_then(|name| examples.get_mut(name)).unwrap().extend(bytes);
    }
    examples
}

fn encode(sample: &Sample) -> Vec<u8> {
    let body = sample.batch.as_ref().map(body).unwrap_or_default();
    let mut frame = Vec::new();
    sample.message.encode(body.len(), &mut frame);
    frame.extend(body);
    frame
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// The numbers in the first column of the rows whose second column, the name, is one of `names`, in the order of `names`.
fn numbers_in_document(names: &[&str], heading: &str) -> Vec<Option<usize>> {
    let table: Vec<&str> =
        DOCUMENT.lines().skip_while(|line| !line.starts_with(heading)).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(table.len(), names.len() + 2, "the rows of the table {heading:?}");
    let number_of = |name: &&str| {
        let row = table.iter().find(|row| row.split('|').nth(2).is_some_and(|cell| cell.trim() == format!("`{name}`")))?;
        row.split('|').nth(1)?.trim().parse().ok()
    };
    names.iter().map(number_of).collect()
}

fn all_numbers(names: &[&str]) -> Vec<Option<usize>> {
    (0..names.len()).map(Some).collect()
}

#[test]
fn every_example_is_the_encoding_of_its_value() {
    let mut examples = examples();
    for sample in samples() {
        let name = &sample.name[..];
        let example = examples.remove(name).unwrap_or_else(|| panic!("PROTOCOL.md has no example {name}"));
        let encoded = encode(&sample);
        assert_eq!(hex(&example), hex(&encoded), "the example {name}, and what the code makes of its value");
    }
    assert!(examples.is_empty(), "examples that no value here belongs to: {:?}", examples.keys());
}

#[test]
fn every_example_is_read_as_its_value() {
    let examples = examples();
    for sample in samples() {
        let name = &sample.name[..];
        let mut stream = &examples[name][..];
        let mut reader = FrameReader::new(limits::frame_bytes_max(0));
        let frame = reader.next(&mut stream).unwrap().unwrap_or_else(|| panic!("{name} is not a whole frame"));
        assert!(stream.is_empty(), "{name} has bytes behind its frame");
        let incoming = Message::decode(frame).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(incoming.message, sample.message, "{name}");
        let items = |batch: &Option<Batch>| batch.as_ref().map(|batch| batch.iter().map(Bytes::copy_from_slice).collect::<Vec<_>>());
        assert_eq!(items(&incoming.batch), items(&sample.batch), "the items of {name}");
    }
}

#[test]
fn every_variant_has_an_example_under_its_name_and_number() {
    let samples = samples();
    for (number, name) in MESSAGES.iter().enumerate() {
        let of_variant: Vec<_> = samples.iter().filter(|sample| message_name(&sample.message) == *name).collect();
        assert!(!of_variant.is_empty(), "{name} has no example");
        for sample in of_variant {
            assert_eq!(sample.name.split('.').next(), Some(*name), "the example's name");
            assert_eq!(sample.message.name(), *name);
            assert_eq!(encode(sample)[limits::FRAME_PREFIX_BYTES], number as u8, "the number of {name}");
        }
    }
    for (name, layout) in ["Put", "Deliver", "Result"].into_iter().flat_map(|name| [(name, "Uniform"), (name, "Table")]) {
        let shows = |sample: &Sample| {
            let header = sample.batch.as_ref().map(Batch::header);
            message_name(&sample.message) == name && header.is_some_and(|header| format!("{:?}", header.layout).starts_with(layout))
        };
        assert!(samples.iter().any(shows), "{name} has no example with the layout {layout}");
    }
    let names: Vec<&str> = samples.iter().map(|sample| &sample.name[..]).collect();
    let shown = |message: &str, variant: &str| names.contains(&&format!("{message}.{variant}")[..]);
    assert!(ROLES.iter().all(|role| shown("Hello", &role.to_lowercase())));
    assert!(REASONS.iter().all(|reason| shown("Close", reason)));
    assert!(FATES.iter().all(|fate| shown("DeadRemove", fate)));
    assert!(OBSTACLES.iter().all(|obstacle| shown("DeadRemoved", obstacle)));
    assert!(OUTCOMES.iter().all(|outcome| shown("Return", outcome)));
}

#[test]
fn the_tables_give_every_variant_its_number() {
    assert_eq!(numbers_in_document(MESSAGES, "| number | message "), all_numbers(MESSAGES));
    assert_eq!(numbers_in_document(ROLES, "| number | role "), all_numbers(ROLES));
    assert_eq!(numbers_in_document(REASONS, "| number | reason "), all_numbers(REASONS));
    assert_eq!(numbers_in_document(OUTCOMES, "| number | outcome "), all_numbers(OUTCOMES));
    assert_eq!(numbers_in_document(FATES, "| number | fate "), all_numbers(FATES));
    assert_eq!(numbers_in_document(OBSTACLES, "| number | obstacle "), all_numbers(OBSTACLES));
    assert_eq!(numbers_in_document(PHASES, "| number | phase "), all_numbers(PHASES));
    // What the lists here say of the numbers is what the encoding says; for messages and the others' examples, see above.
    for (number, phase) in [Phase::Running, Phase::Draining, Phase::Stopping, Phase::Done].into_iter().enumerate() {
        assert_eq!((phase_name(&phase), phase as usize), (PHASES[number], number));
    }
    for sample in samples() {
        let encoded = encode(&sample);
        match &sample.message {
            Message::Hello { role, .. } => assert_eq!(ROLES[usize::from(encoded[6])], role_name(role)),
            Message::Close { reason, .. } => assert_eq!(REASONS[usize::from(encoded[5])], reason_name(reason)),
            // Behind the number come a first item of two bytes, and a count.
            Message::DeadRemove { fate, .. } => assert_eq!(FATES[usize::from(encoded[9])], fate_name(fate)),
            Message::Return { outcome, .. } => assert_eq!(OUTCOMES[usize::from(encoded[8])], outcome_name(outcome)),
            _ => {}
        }
    }
    for (number, heading) in MESSAGES.iter().enumerate().map(|(number, name)| (number, format!("\n### {name} ({number}), "))) {
        assert!(DOCUMENT.contains(&heading), "message {number} has no section {heading:?}");
    }
}

#[test]
fn the_checksum_of_the_worked_example_is_what_the_code_computes() {
    let mut checksum = common::checksum::START;
    let steps = DOCUMENT.lines().filter_map(|line| line.strip_prefix("checksum "));
    let mut count = 0;
    for step in steps {
        let (what, said) = step.split_once(": ").unwrap();
        if let Some(item) = what.trim_end().strip_prefix("with ") {
            checksum = common::checksum::add(checksum, item.trim_matches('"').as_bytes());
        }
        assert_eq!(said.trim(), format!("{checksum:016x}"), "{step}");
        count += 1;
    }
    assert_eq!(count, 4, "the steps of the worked example");
}

#[test]
fn the_table_of_limits_gives_their_values() {
    let limits: [(&str, u64); 21] = [
        ("PROTOCOL_VERSION", limits::PROTOCOL_VERSION.into()),
        ("FRAME_PREFIX_BYTES", limits::FRAME_PREFIX_BYTES as u64),
        ("HELLO_FRAME_BYTES_MAX", limits::HELLO_FRAME_BYTES_MAX as u64),
        ("MESSAGE_BYTES_MAX", limits::MESSAGE_BYTES_MAX as u64),
        ("BATCH_ITEMS_MAX", limits::BATCH_ITEMS_MAX.into()),
        ("BATCH_OVERHEAD_BYTES", limits::BATCH_OVERHEAD_BYTES),
        ("BATCH_BYTES_TARGET", limits::BATCH_BYTES_TARGET as u64),
        ("ACK_RANGES_MAX", limits::ACK_RANGES_MAX as u64),
        ("CLIENTS_SHOWN_MAX", limits::CLIENTS_SHOWN_MAX as u64),
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u64),
        ("CAUSE_BYTES_MAX", limits::CAUSE_BYTES_MAX as u64),
        ("ITEM_BYTES_MAX_DEFAULT", limits::ITEM_BYTES_MAX_DEFAULT),
        ("ITEM_BYTES_MAX_CEILING", limits::ITEM_BYTES_MAX_CEILING),
        ("CAPACITY_ITEMS_DEFAULT", limits::CAPACITY_ITEMS_DEFAULT),
        ("CAPACITY_BYTES_DEFAULT", limits::CAPACITY_BYTES_DEFAULT),
        ("CREDIT_ITEMS_MAX", limits::CREDIT_ITEMS_MAX),
        ("CREDIT_BYTES_MAX", limits::CREDIT_BYTES_MAX),
        ("DEAD_PAGE_LETTERS_MAX", limits::DEAD_PAGE_LETTERS_MAX as u64),
        ("DEAD_PAGE_BYTES_MAX", limits::DEAD_PAGE_BYTES_MAX),
        ("PREFETCH_BYTES_MAX", limits::PREFETCH_BYTES_MAX),
        ("PREFETCH_ITEMS_MAX", limits::PREFETCH_ITEMS_MAX.into()),
    ];
    for (name, value) in limits {
        let row = DOCUMENT.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` | ")[..]));
        let said = row.and_then(|row| row.split(" |").next()).map(|value| value.replace(',', ""));
        assert_eq!(said, Some(value.to_string()), "{name} in PROTOCOL.md");
    }
    assert_eq!(limits::batch_cost_bytes(0), 192, "said in words");
    assert_eq!(limits::frame_bytes_max(0), 589_825, "said in words");
    assert_eq!(limits::frame_bytes_max(1 << 20), (1 << 20) + 589_825, "said in words");
}
