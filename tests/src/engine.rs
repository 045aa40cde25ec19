//! Which engine the coordinators under test run on. Clients cannot tell, so neither can tests: all that say nothing of an engine are one
//! conformance suite, which runs on the engine that `PROCQ_TEST_ENGINE` names: `memory` (the default), `journal` or `nats`.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use crate::nats;

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
