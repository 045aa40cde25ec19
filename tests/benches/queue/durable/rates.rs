//! Acknowledged items per second, each kept before its put is confirmed.

use std::path::Path;

use anyhow::{Context, Result};

use super::disk::Disk;
use crate::Run;
use crate::peer::{Case, Peer};
use crate::procq::{self, Procq, Team};
use crate::report::{Group, LeftOut, Row, Unit};
use crate::servers::Served;
use crate::servers::beanstalkd::BEANSTALKD;
use crate::servers::nats::{self, NATS};
use crate::servers::redis::REDIS;
use crate::target::Target;

const CASE: Case = Case::ONE_TO_ONE;

/// procq with a journal, a new one in each pass.
struct Journaled<'a> {
    name: &'static str,
    fsync: &'static str,
    disk: &'a Disk,
}

impl Peer for Journaled<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        let folder = self.disk.folder()?;
        let journal = folder.path().join("journal");
        let arguments = ["--journal", journal.to_str().context("a path in UTF-8")?, "--fsync", self.fsync];
        procq::pass(Team { producers: 1, consumers: 1, size: case.size }, &arguments, count, |_| Ok(()))
    }
}

/// A server that keeps what it has on the disk.
struct OnDisk<'a> {
    name: &'static str,
    served: &'static Served,
    disk: &'a Path,
}

impl Peer for OnDisk<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        self.served.pass_at(Some(self.disk), case, count)
    }
}

pub fn measure(run: &Run, disk: &Disk, left_out: &mut Vec<LeftOut>) -> Result<Vec<Group>> {
    eprintln!("durable, {}", CASE.name());
    let journaled = |name, fsync| Journaled { name, fsync, disk };
    let (always, never) = (journaled("procq --fsync always", "always"), journaled("procq --fsync never", "never"));
    let memory = Procq::default();
    let jetstream = if nats::syncs_always() { "JetStream, sync always" } else { "JetStream, not synced" };
    let mut servers = Vec::new();
    for (served, name) in [(&BEANSTALKD, "beanstalkd -f0"), (&REDIS, "Redis, appendfsync always"), (&NATS, jetstream)] {
        match served.is_there() {
            true => servers.push(OnDisk { name, served, disk: disk.path() }),
            false => left_out.push(LeftOut::new(name, "not found")),
        }
    }

    let mut peers: Vec<&dyn Peer> = vec![&never, &memory, &always];
    peers.extend(servers.iter().map(|server| server as &dyn Peer));
    let mut samples = run.turns_of(CASE, &peers)?;
    let by_always = samples.split_off(2);
    let rows = |peers: &[&dyn Peer], samples, target: fn(usize) -> Option<Target>| {
        let rows = peers.iter().zip(samples).enumerate().map(|(at, (peer, sample))| Row::new(peer.name(), sample, target(at)));
        rows.collect()
    };
    // Ten times each of them is ten times the best of them.
    let of_always = |at| Some(if at == 0 { Target::Reached(1e6) } else { Target::AtLeast(10.0) });
    let of_never = |at| (at == 1).then_some(Target::AtLeast(0.5));
    let title = |what: &str| format!("{}, {what}, {}", CASE.name(), disk.file_system());
    Ok(vec![
        Group::new(&title("on disk before it is confirmed"), Unit::ItemsPerSecond, rows(&peers[2..], by_always, of_always)),
        Group::new(&title("written before it is confirmed"), Unit::ItemsPerSecond, rows(&peers[..2], samples, of_never)),
    ])
}
