//! Queues that need a server: measured when its program is there, each pass with a server of its own that keeps everything in memory, or
//! on disk when that is what is compared.
//! Clients put, get and acknowledge without waiting for each answer, as far as server and client library allow.

pub mod batched;
pub mod beanstalkd;
pub mod nats;
pub mod redis;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::actor::{Actor, Part, Role};
use crate::item::Tally;
use crate::peer::{self, Case, Peer};
use crate::trips::Trips;

/// Items to be put, got or acknowledged in one go.
const GO_ITEMS: usize = 1000;

/// Bytes to be put or got in one go.
const GO_BYTES: usize = 1024 * 1024;

/// How many items of this size go together.
fn items_per_go(size: usize) -> usize {
    (GO_BYTES / size).clamp(1, GO_ITEMS)
}

/// A kind of server, and who plays its clients.
pub struct Served {
    name: &'static str,
    program: &'static str,
    version: &'static str,
    /// Its arguments, for a folder of its own; and whether what it confirms is to be on disk.
    arguments: fn(&Path, bool) -> Result<Vec<OsString>>,
    /// Where its clients find it, once it is there.
    address: fn(&Path) -> Option<PathBuf>,
    producer: Role,
    consumer: Role,
    ping: Role,
    echo: Role,
}

impl Served {
    /// True when its program can be run.
    pub fn is_there(&self) -> bool {
        says(self.program, self.version, "")
    }
}

impl Peer for Served {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        self.pass_at(None, case, count)
    }

    fn takes(&self, _case: Case) -> bool {
        true
    }

    fn trips(&self, count: u64) -> Option<Result<Trips>> {
        Some(self.measure_trips(count))
    }
}

impl Served {
    /// The same; what is put and what is acknowledged reaches a disk, if one is given, before it is confirmed.
    pub fn pass_at(&self, disk: Option<&Path>, case: Case, count: u64) -> Result<f64> {
        let server = Server::start(self, disk)?;
        let fan = case.fan as u64;
        let start = |role, index| {
            let share = peer::share(count, index, fan);
            let part = Part::new(role).at(&server.address).items(case.size, share.start, share.end - share.start);
            Actor::start(&Part { durable: disk.is_some(), ..part })
        };
        let mut consumers = (0..fan).map(|index| start(self.consumer, index)).collect::<Result<Vec<_>>>()?;
        consumers.iter_mut().try_for_each(Actor::ready)?;
        let mut producers = (0..fan).map(|index| start(self.producer, index)).collect::<Result<Vec<_>>>()?;
        producers.iter_mut().try_for_each(Actor::ready)?;

        let started = Instant::now();
        producers.iter_mut().try_for_each(Actor::go)?;
        for producer in &mut producers {
            producer.done()?;
        }
        let mut tally = Tally::default();
        for consumer in &mut consumers {
            tally.add(consumer.done()?);
        }
        let seconds = started.elapsed().as_secs_f64();

        tally.verify(count)?;
        consumers.into_iter().chain(producers).try_for_each(Actor::finish)?;
        Ok(seconds)
    }

    fn measure_trips(&self, count: u64) -> Result<Trips> {
        let server = Server::start(self, None)?;
        let start = |role| Actor::start(&Part::new(role).at(&server.address).items(8, 0, count));
        let mut echo = start(self.echo)?;
        echo.ready()?;
        let mut ping = start(self.ping)?;
        ping.ready()?;
        ping.go()?;
        let trips = ping.trips()?;
        [echo, ping].into_iter().try_for_each(Actor::finish)?;
        Ok(trips)
    }
}

/// A server that runs; killed when dropped.
pub struct Server {
    process: Child,
    address: PathBuf,
    _folder: TempDir,
}

impl Server {
    pub fn start(served: &Served, disk: Option<&Path>) -> Result<Server> {
        let folder = disk.map_or_else(tempfile::tempdir, tempfile::tempdir_in)?;
        let log_path = folder.path().join("log");
        let log = File::create(&log_path)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("guard").arg(std::process::id().to_string()).arg("--").arg(served.program);
        command.args((served.arguments)(folder.path(), disk.is_some())?).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("cannot start {}", served.program))?;
        let mut server = Server { process, address: PathBuf::new(), _folder: folder };
        let folder = server._folder.path();
        let address = tests::eventually("a server that answers", || match server.process.try_wait() {
            Ok(None) => (served.address)(folder).map(Some),
            _ => Some(None),
        });
        server.address = address.with_context(|| {
            let said = std::fs::read_to_string(&log_path).unwrap_or_default();
            format!("{} has ended at once: {said}", served.program)
        })?;
        Ok(server)
    }

    pub fn address(&self) -> &Path {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is just as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process that becomes another program, and is killed when the benchmark ends, however it does.
#[derive(Args, Clone, Debug)]
pub struct Guard {
    /// The benchmark's process id
    benchmark: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    words: Vec<OsString>,
}

impl Guard {
    pub fn become_it(&self) -> Result<()> {
        ensure!(common::program::die_with_parent(self.benchmark, false), "the benchmark is gone");
        let error = Command::new(&self.words[0]).args(&self.words[1..]).exec();
        Err(error).with_context(|| format!("cannot start {}", self.words[0].display()))
    }
}

/// True when this program can be run with this argument, and prints the text.
pub fn says(program: &str, argument: &str, text: &str) -> bool {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success() && String::from_utf8_lossy(&output.stdout).contains(text))
}
