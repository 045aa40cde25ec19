//! What consumers cost that are connected and do nothing: those that ask for nothing, and those that wait for an item.

use std::time::Duration;

use anyhow::{Context, Result};
use common::Endpoint;
use common::message::{Message, Role as Speaker};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::deep::{Deep, SHALLOW};
use super::grouped;
use super::raw::Raw;
use crate::Run;
use crate::actor::{self, Actor, Part, Role};
use crate::report::{Group, LeftOut, Row, Unit};
use crate::sample::Sample;
use crate::target::Target;

/// Consumers that wait for an item.
const WAITING: u64 = 1000;

/// For how long the coordinator's idleness is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// Descriptors that a process needs besides its connections.
const OTHER_FILES: u64 = 64;

pub fn measure(run: &Run, idle: u64, left_out: &mut Vec<LeftOut>) -> Result<Vec<Group>> {
    let allowed = raise_file_limit()?.saturating_sub(OTHER_FILES);
    if allowed < idle {
        let why = format!("the hard limit of open files allows for {}", grouped(allowed));
        left_out.push(LeftOut::new(&format!("{} idle consumers", grouped(idle)), &why));
    }
    let mut groups = idle_ones(run, idle.min(allowed))?;
    groups.push(waiting_ones(WAITING.min(allowed))?);
    Ok(groups)
}

/// Allows this process, and those that it starts, as many open files as it may, and returns how many.
fn raise_file_limit() -> Result<u64> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).context("cannot raise the limit of open files")?;
    Ok(hard.unwrap_or(u64::MAX))
}

fn idle_ones(run: &Run, idle: u64) -> Result<Vec<Group>> {
    eprintln!("idle consumers");
    let count = run.fit(|count| Deep::fill(SHALLOW)?.pass(count))?;
    let mut rates = vec![Sample::default(); 2];
    let mut connection_kib = Sample::default();
    for turn in 0..run.turns {
        for at in crate::in_turn(turn, rates.len()) {
            let deep = Deep::fill(SHALLOW)?;
            let crowd = if at == 0 { None } else { Some(Crowd::come(&deep.queue, Role::ProcqIdle, idle)?) };
            rates[at].push(count as f64 / deep.pass(count)?);
            if let Some(crowd) = crowd {
                connection_kib.push(crowd.connection_kib);
                crowd.go()?;
            }
        }
    }
    let targets = [None, Some(Target::AtMost(1.3))];
    let rows = [0, idle]
        .into_iter()
        .zip(rates)
        .zip(targets)
        .map(|((idle, rate), target)| Row::new(&format!("{} idle", grouped(idle)), rate, target));
    let memory = Row::new(&format!("{} idle", grouped(idle)), connection_kib, Some(Target::Within(16.0)));
    Ok(vec![
        Group::new("put, got and acknowledged beside idle consumers, 8 B", Unit::ItemsPerSecond, rows.collect()),
        Group::new("coordinator's resident memory per idle consumer", Unit::KiB, vec![memory]),
    ])
}

fn waiting_ones(waiting: u64) -> Result<Group> {
    eprintln!("waiting consumers");
    let queue = tests::Queue::serve(&[]);
    let crowd = Crowd::come(&queue, Role::ProcqWaiting, waiting)?;
    queue.wait_until("all wait", |status| status.consumers_waiting == waiting);
    // What that question itself has cost shall not count.
    std::thread::sleep(WATCHED / 10);
    let ticks = || tests::proc_cpu_ticks(queue.pid()).context("the coordinator's CPU time");
    // Once is enough: it either does something or it does not.
    let before = ticks()?;
    std::thread::sleep(WATCHED);
    let used = Sample::new(vec![(ticks()? - before) as f64]);
    crowd.go()?;
    let row = Row::new(&format!("{} waiting", grouped(waiting)), used, Some(Target::Within(0.0)));
    Ok(Group::new("coordinator's CPU time in 2 s while consumers wait", Unit::Ticks, vec![row]))
}

/// A process that holds many connections.
struct Crowd {
    actor: Actor,
    /// What the coordinator has grown by for each.
    connection_kib: f64,
}

impl Crowd {
    fn come(queue: &tests::Queue, role: Role, count: u64) -> Result<Crowd> {
        let kib = || tests::proc_status_kib(queue.pid(), "VmRSS").context("the coordinator's memory");
        let before = kib()?;
        let mut actor = Actor::start(&Part::new(role).at(queue.socket()).items(0, 0, count))?;
        actor.ready()?;
        queue.wait_until("all are connected", |status| status.consumers == count);
        Ok(Crowd { connection_kib: kib()?.saturating_sub(before) as f64 / count as f64, actor })
    }

    fn go(mut self) -> Result<()> {
        self.actor.go()?;
        self.actor.finish()
    }
}

/// Plays a part: `count` consumers that are there until it is told to go.
pub fn play(part: &Part) -> Result<()> {
    let endpoint = Endpoint::at(&part.place);
    let mut demand = Vec::new();
    if matches!(part.role, Role::ProcqWaiting) {
        Message::Demand { items: 1, bytes: 1 }.encode(0, &mut demand);
    }
    let mut crowd = Vec::new();
    for _ in 0..part.count {
        let mut consumer = Raw::connect(&endpoint, Speaker::Consumer)?;
        consumer.say(&demand)?;
        crowd.push(consumer);
    }
    actor::wait_for_go()
}
