//! `cargo bench -p tests`: procq beside its peers and beside the machine's own limit, in one run and in turn; see `--help`.
//!
//! Each contestant runs in processes of its own. In every turn each passes the same number of items as in the others, and the turns
//! begin with another contestant each, so that what slows the machine for a while slows none in particular.

mod actor;
mod chart;
mod commands;
mod crossbeam;
mod durable;
mod growth;
mod ipc_channel;
mod item;
mod limit;
mod multiprocessing;
mod peer;
mod procq;
mod report;
mod sample;
mod servers;
mod shared;
mod spin;
mod target;
mod trips;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::actor::Part;
use crate::durable::Durable;
use crate::growth::Growth;
use crate::multiprocessing::{Multiprocessing, Python};
use crate::peer::{Case, Peer};
use crate::report::{Group, LeftOut, Report, Row, Unit};
use crate::sample::Sample;
use crate::servers::Guard;
use crate::servers::beanstalkd::BEANSTALKD;
use crate::servers::nats::NATS;
use crate::servers::redis::REDIS;
use crate::target::{OWN_ONE_TO_ONE, Target};
use crate::trips::Trips;

/// Compares procq with its peers and with the machine's own limit; every item is verified.
#[derive(Parser)]
#[command(name = "cargo bench -p tests --", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,

    /// Fewer and shorter turns, without beanstalkd, Redis and NATS beside the rates: less than two minutes
    #[arg(long)]
    quick: bool,

    /// How often each contestant has its turn [default: 9, quick: 3]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    turns: Option<usize>,

    /// Items that each passes in a turn [default: as many as take 0.6 s, quick: 0.2 s]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(4..))]
    items: Option<u64>,

    /// Bytes per item, multiples of 8
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "8,128,1024,65536,1048576", value_parser = size)]
    sizes: Vec<usize>,

    /// Only the rates in memory: no round trips, no commands, no journal, no servers, nothing of how cost grows
    #[arg(long)]
    rates: bool,

    /// Only round trips, and what it costs to look for news instead of sleeping
    #[arg(long, conflicts_with_all = ["rates", "sizes", "svg"])]
    trips: bool,

    /// Only how procq's cost grows with waiting items and with consumers
    #[arg(long, conflicts_with_all = ["rates", "trips", "sizes", "svg"])]
    growth: bool,

    /// Only with a journal: rates beside servers that sync, one lone put, a queue deeper than memory
    #[arg(long, conflicts_with_all = ["rates", "trips", "growth", "sizes", "svg"])]
    durable: bool,

    /// Only with the queue at a NATS server, where machines share it: beside programs that use the server themselves
    #[arg(long, conflicts_with_all = ["rates", "trips", "growth", "durable", "sizes", "svg"])]
    shared: bool,

    /// Write all figures to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the rates to FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// What cargo tells every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// A part of the benchmark that runs as a process of its own
    #[command(hide = true)]
    Play(Part),
    /// A server that ends with the benchmark
    #[command(hide = true)]
    Guard(Guard),
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (8..=8 << 20).contains(&size) && size % 8 == 0 { Ok(size) } else { Err("sizes are multiples of 8, from 8 to 8388608".into()) }
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.command {
        Some(Command::Play(part)) => part.play(),
        Some(Command::Guard(guard)) => guard.become_it(),
        None => Run::new(&options).all(&options),
    }
}

/// What each contestant does, and how often.
struct Run {
    quick: bool,
    turns: usize,
    items: Option<u64>,
    seconds: f64,
    trips: u64,
    jobs: u64,
    growth: Growth,
    durable: Durable,
}

impl Run {
    fn new(options: &Options) -> Run {
        let run = if options.quick {
            Run { quick: true, turns: 3, items: None, seconds: 0.2, trips: 3000, jobs: 300, growth: Growth::QUICK, durable: Durable::QUICK }
        } else {
            Run {
                quick: false,
                turns: 9,
                items: None,
                seconds: 0.6,
                trips: 10_000,
                jobs: 1500,
                growth: Growth::FULL,
                durable: Durable::FULL,
            }
        };
        Run { turns: options.turns.unwrap_or(run.turns), items: options.items, ..run }
    }

    fn all(self, options: &Options) -> Result<()> {
        // Builds the programs, before anything is timed.
        tests::program("coordinator");
        let mut left_out = Vec::new();
        let all = !(options.rates || options.trips || options.growth || options.durable || options.shared);
        let peers = if all || options.rates || options.trips { self.beside_peers(options, &mut left_out)? } else { Vec::new() };
        let durable = if all || options.durable { self.durable.measure(&self, &mut left_out)? } else { Vec::new() };
        let shared = if all || options.shared { shared::measure(&self, &mut left_out)? } else { Vec::new() };
        let growth = if all || options.growth { self.growth.measure(&self, &mut left_out)? } else { Vec::new() };
        let report = Report { machine: machine(), turns: self.turns, peers, durable, shared, growth, left_out };
        print!("{report}");
        if let Some(file) = &options.json {
            std::fs::write(file, format!("{:#}\n", report.json())).with_context(|| format!("cannot write {}", file.display()))?;
        }
        if let Some(file) = &options.svg {
            std::fs::write(file, chart::draw(&report)).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    fn beside_peers(&self, options: &Options, left_out: &mut Vec<LeftOut>) -> Result<Vec<Group>> {
        let python = Python::find();
        let procq = procq::Procq::default();
        if python.is_none() {
            left_out.push(LeftOut::new("multiprocessing.Queue", "python3 not found"));
        }
        let bounds =
            python.iter().flat_map(|python| [Some(1000), None].map(|capacity| Multiprocessing { python: python.clone(), capacity }));
        let bounds: Vec<_> = bounds.collect();
        let mut peers: Vec<&dyn Peer> = vec![&procq, &limit::Limit { wide: false }, &crossbeam::Crossbeam, &ipc_channel::IpcChannel];
        peers.extend(bounds.iter().map(|queue| queue as &dyn Peer));
        if !self.quick {
            peers.push(&limit::Limit { wide: true });
        }
        for server in [&BEANSTALKD, &REDIS, &NATS] {
            match server.is_there() {
                true if self.quick => left_out.push(LeftOut::new(server.name(), "only without --quick")),
                true => peers.push(server),
                false => left_out.push(LeftOut::new(server.name(), "not found")),
            }
        }

        let mut groups = if options.trips { Vec::new() } else { self.rates(&peers, &options.sizes)? };
        let peaks_kib = procq.peaks_kib.borrow().clone();
        if !peaks_kib.is_empty() {
            let row = Row::new("procq", Sample::new(peaks_kib), None);
            groups.push(Group::new("coordinator's resident memory at its largest, 8 B", Unit::KiB, vec![row]));
        }
        if !options.rates {
            groups.extend(self.round_trips(&peers)?);
            groups.push(spin::measure(self.turns, self.trips)?);
        }
        if !(options.rates || options.trips) {
            eprintln!("commands");
            groups.push(commands::jobs(self.turns, self.jobs, left_out)?);
            groups.push(commands::default_run(self.turns, python.as_ref())?);
        }
        Ok(groups)
    }

    fn rates(&self, peers: &[&dyn Peer], sizes: &[usize]) -> Result<Vec<Group>> {
        let mut cases: Vec<Case> = sizes.iter().map(|size| Case { size: *size, fan: 1 }).collect();
        cases.extend(cases.contains(&Case::ONE_TO_ONE).then_some(Case::FANNED));
        let mut groups = Vec::new();
        let mut one_to_one = None;
        for case in cases {
            eprintln!("{}", case.name());
            let takers: Vec<&dyn Peer> = peers.iter().copied().filter(|peer| peer.takes(case)).collect();
            let samples = self.turns_of(case, &takers)?;
            if case == Case::ONE_TO_ONE {
                one_to_one = samples.first().cloned();
            }
            let mut rows: Vec<Row> = takers
                .iter()
                .zip(samples)
                .map(|(peer, sample)| Row::new(peer.name(), sample, Target::of_rate(case, peer.name())))
                .collect();
            if case == Case::FANNED
                && let Some(sample) = &one_to_one
            {
                rows.push(Row::new(OWN_ONE_TO_ONE, sample.clone(), Target::of_rate(case, OWN_ONE_TO_ONE)));
            }
            groups.push(Group::new(&case.name(), Unit::ItemsPerSecond, rows));
        }
        Ok(groups)
    }

    fn turns_of(&self, case: Case, peers: &[&dyn Peer]) -> Result<Vec<Sample>> {
        let pass = |peer: &dyn Peer, count| {
            let seconds = peer.pass(case, count).with_context(|| format!("{}, {}", peer.name(), case.name()))?;
            ensure!(seconds > 0.0, "{} took no time", peer.name());
            Ok(seconds)
        };
        let counts = peers.iter().map(|peer| self.fit(|count| pass(*peer, count))).collect::<Result<Vec<_>>>()?;
        let mut samples = vec![Sample::default(); peers.len()];
        for turn in 0..self.turns {
            for at in in_turn(turn, peers.len()) {
                samples[at].push(counts[at] as f64 / pass(peers[at], counts[at])?);
            }
        }
        Ok(samples)
    }

    /// How many items take as long as a turn shall: reckoned from a pass of some length, for what begins slowly is underrated by a short one.
    fn fit(&self, pass: impl Fn(u64) -> Result<f64>) -> Result<u64> {
        if let Some(items) = self.items {
            return Ok(items);
        }
        let long_enough = self.seconds / 4.0;
        let mut count = 64;
        loop {
            let seconds = pass(count)?;
            if seconds >= long_enough {
                return Ok((count as f64 / seconds * self.seconds) as u64);
            }
            count = (count as f64 * (1.5 * long_enough / seconds).min(64.0)) as u64;
        }
    }

    fn round_trips(&self, peers: &[&dyn Peer]) -> Result<Vec<Group>> {
        eprintln!("round trips");
        let mut took: Vec<(&str, Vec<Trips>)> = peers.iter().map(|peer| (peer.name(), Vec::new())).collect();
        for turn in 0..self.turns {
            for at in in_turn(turn, peers.len()) {
                if let Some(trips) = peers[at].trips(self.trips) {
                    took[at].1.push(trips.with_context(|| format!("{}, round trips", peers[at].name()))?);
                }
            }
        }
        took.retain(|(_, trips)| !trips.is_empty());
        let group = |percentile: &str, figure: fn(&Trips) -> f64| {
            let rows = took.iter().map(|(name, trips)| {
                let sample = Sample::new(trips.iter().map(figure).collect());
                Row::new(name, sample, Target::of_trip(percentile, name))
            });
            Group::new(&format!("round trip over two queues, 8 B, {percentile}"), Unit::Microseconds, rows.collect())
        };
        Ok(vec![group("p50", |trips| trips.p50), group("p99", |trips| trips.p99), group("p99.9", |trips| trips.p999)])
    }
}

/// The order of a turn: each turn begins with another.
fn in_turn(turn: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |at| (turn + at) % count)
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {}, Linux {}", model.unwrap_or("unknown processor"), kernel.trim())
}
