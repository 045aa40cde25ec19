//! A queue that lies at a NATS server, as machines share it: the same process to process, beside programs that use the server themselves.

use std::path::Path;

use anyhow::{Context, Result};

use crate::Run;
use crate::durable::disk::Disk;
use crate::peer::{Case, Peer};
use crate::procq::{self, Team};
use crate::report::{Group, LeftOut, Row, Unit};
use crate::servers::batched::NATS_BATCHED;
use crate::servers::nats::NATS_UNSYNCED;
use crate::servers::{Served, Server};
use crate::target::Target;

/// How much of what the same batches do without procq is to be left, and what is to be gained over a message per item.
const BATCHED: Target = Target::AtLeast(0.8);
const ONE_BY_ONE: Target = Target::AtLeast(20.0);

/// Turns are so much longer than others: the first messages of a run are small ones, so that machines can share little work evenly, and what is
/// compared is how fast it is after that.
const TURN_SECONDS: f64 = 2.4;
const TURN_SECONDS_QUICK: f64 = 1.2;

/// One item a message, both by us and without.
const LARGE: Case = Case { size: 64 * 1024, fan: 1 };

/// procq, whose coordinator keeps the queue at a server that is new in each pass.
struct Shared<'a> {
    disk: Option<&'a Path>,
}

impl Peer for Shared<'_> {
    fn name(&self) -> &'static str {
        "procq --engine nats://…"
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        let server = Server::start(&NATS_UNSYNCED, self.disk)?;
        let storage = if self.disk.is_some() { "file" } else { "memory" };
        let address = server.address().to_str().context("an address in UTF-8")?;
        let engine = format!("{address}/bench?storage={storage}");
        procq::pass(Team { producers: 1, consumers: 1, size: case.size }, &["--engine", &engine], count, |_| Ok(()))
    }
}

/// Programs without procq.
struct Bare<'a> {
    name: &'static str,
    served: &'static Served,
    disk: Option<&'a Path>,
}

impl Peer for Bare<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        self.served.pass_at(self.disk, case, count)
    }
}

pub fn measure(run: &Run, left_out: &mut Vec<LeftOut>) -> Result<Vec<Group>> {
    if !NATS_UNSYNCED.is_there() {
        left_out.push(LeftOut::new("a shared queue", "nats-server not found"));
        return Ok(Vec::new());
    }
    let run = &Run { seconds: if run.quick { TURN_SECONDS_QUICK } else { TURN_SECONDS }, ..*run };
    let disk = Disk::find()?;
    let on_disk = format!("in files, {}", disk.file_system());
    let mut groups = Vec::new();
    for (disk, place) in [(None, "in memory"), (Some(disk.path()), &on_disk)] {
        for case in [Case::ONE_TO_ONE, LARGE] {
            eprintln!("shared, {}, {place}", case.name());
            let shared = Shared { disk };
            let batched = Bare { name: "async-nats, the same batches", served: &NATS_BATCHED, disk };
            let one_by_one = Bare { name: "async-nats, a message per item", served: &NATS_UNSYNCED, disk };
            let mut peers: Vec<(&dyn Peer, Option<Target>)> = vec![(&shared, None), (&batched, Some(BATCHED))];
            if case != LARGE {
                peers.push((&one_by_one, Some(ONE_BY_ONE)));
            }
            let samples = run.turns_of(case, &peers.iter().map(|(peer, _)| *peer).collect::<Vec<_>>())?;
            let rows = peers.iter().zip(samples).map(|((peer, target), sample)| Row::new(peer.name(), sample, *target));
            groups.push(Group::new(&format!("{} through a NATS server, {place}", case.name()), Unit::ItemsPerSecond, rows.collect()));
        }
    }
    Ok(groups)
}
