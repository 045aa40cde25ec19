//! Which engine the coordinators under test run on. Clients cannot tell, so neither can tests: all that say nothing of an engine are one
//! conformance suite, which runs on the engine that `PROCQ_TEST_ENGINE` names: `memory` (the default), `journal` or `nats`.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use crate::{eventually, nats};

/// Where items live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// In the coordinator's memory.
    Memory,
    /// In a journal, of each coordinator its own.
    Journal,
    /// At a NATS server that all tests of this process share, under a name of its own for each coordinator.
    Nats,
}

/// The engine under test.
pub fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    *ENGINE.get_or_init(|| match std::env::var("PROCQ_TEST_ENGINE").as_deref() {
        Err(_) | Ok("" | "memory") => Engine::Memory,
        Ok("journal") => Engine::Journal,
        Ok("nats") => Engine::Nats,
        Ok(other) => panic!("PROCQ_TEST_ENGINE is memory, journal or nats, not {other}"),
    })
}

/// True if a test is about one of these engines; otherwise says that it is skipped on the one under test, and why.
pub fn is_about(engines: &[Engine], why: &str) -> bool {
    let is_one = engines.contains(&engine());
    if !is_one {
        let name = std::thread::current().name().unwrap_or_default().to_string();
        eprintln!("skipped: {name} is not about the engine {:?}: {why}", engine());
    }
    is_one
}

/// The number of a queue's first item.
pub fn first_item() -> u64 {
    if engine() == Engine::Nats { coordinator::jetstream::item_id(1, 0).0 } else { 0 }
}

/// True if this may be the first attempt that anybody has made at an item: a message of a shared queue that came here when nobody asked any more goes
/// back, and the servers count that.
pub fn may_be_first(attempt: u32) -> bool {
    attempt == 1 || (engine() == Engine::Nats && attempt == 2)
}

/// True if `text` goes on so after the number of the item that was put as the `nth`, from 0 on. Numbers of a shared queue go by messages, and how
/// items are cut into these nobody knows: there it may be any item.
pub fn tells_of_item(text: &str, nth: u64, goes_on: &str) -> bool {
    if engine() != Engine::Nats {
        return text.contains(&format!("item {nth} {goes_on}"));
    }
    let is_number = |word: &str| word.parse::<u64>().is_ok_and(|number| number >= first_item());
    let is_told = |rest: &str| rest.split_once(' ').is_some_and(|(number, rest)| is_number(number) && rest.starts_with(goes_on));
    text.match_indices("item ").any(|(at, item)| is_told(&text[at + item.len()..]))
}

/// What a client sees once it has said something: at once, or when it is in the journal, or when the servers of a shared queue were looked at again.
pub fn soon(what: &str, check: impl Fn() -> bool) {
    match engine() {
        Engine::Memory => assert!(check(), "{what}"),
        Engine::Journal | Engine::Nats => eventually(what, || check().then_some(())),
    }
}

/// What a coordinator says of so many items that are left when it ends.
pub fn left(items: u64) -> String {
    let place = match engine() {
        Engine::Memory => "the queue",
        Engine::Journal => "the journal ",
        Engine::Nats => "nats://",
    };
    format!("{items} {} left in {place}", if items == 1 { "item was" } else { "items were" })
}

/// What a coordinator has on the engine under test; it ends with this value.
#[derive(Debug, Default)]
pub(crate) struct Place {
    _journal: Option<TempDir>,
}

/// Has the coordinator that this command is, or starts, run on the engine under test, unless it is told of an engine by its arguments.
pub(crate) fn apply(command: &mut Command) -> Place {
    let name = std::path::Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let chooses = |argument: &std::ffi::OsStr| ["--journal", "--engine"].iter().any(|flag| argument.to_string_lossy().contains(flag));
    if name == "producer" || name == "consumer" || command.get_args().any(chooses) {
        return Place::default();
    }
    match engine() {
        Engine::Memory => Place::default(),
        Engine::Journal => {
            let folder = tempfile::tempdir().expect("a folder");
            command.env("PROCQ_JOURNAL", folder.path().join("journal"));
            Place { _journal: Some(folder) }
        }
        Engine::Nats => {
            static QUEUES: AtomicU64 = AtomicU64::new(0);
            let queue = QUEUES.fetch_add(1, Ordering::Relaxed);
            command.env("PROCQ_ENGINE", format!("{}/q{queue}?storage=memory", nats::shared_url()));
            Place::default()
        }
    }
}
