//! What `--spin` gains: one process puts an item and gets it back through one queue, so that it and the coordinator have a core each.

use anyhow::Result;

use crate::actor::{Actor, Part, Role};
use crate::report::{Group, Row, Unit};
use crate::sample::Sample;
use crate::target::Target;
use crate::trips::Trips;

const SPINS: [&str; 2] = ["50us", "0s"];

/// Microseconds of such trips, spinning and not.
pub fn measure(turns: usize, trips: u64) -> Result<Group> {
    eprintln!("spinning");
    let mut samples = SPINS.map(|_| Sample::default());
    for turn in 0..turns {
        for at in crate::in_turn(turn, SPINS.len()) {
            samples[at].push(there_and_back(SPINS[at], trips)?.p50);
        }
    }
    let rows = SPINS.iter().zip(samples).map(|(spin, sample)| {
        let target = (*spin == "0s").then_some(Target::AtMost(0.5));
        Row::new(&format!("procq --spin {spin}"), sample, target)
    });
    Ok(Group::new("put, got and acknowledged by one process, 8 B, p50", Unit::Microseconds, rows.collect()))
}

fn there_and_back(spin: &str, count: u64) -> Result<Trips> {
    let queue = tests::Queue::serve(&["--spin", spin]);
    let part = Part::new(Role::ProcqPing).at(queue.socket()).back(queue.socket()).items(8, 0, count);
    let mut ping = Actor::start(&Part { spin: humantime::parse_duration(spin)?, ..part })?;
    ping.ready()?;
    ping.go()?;
    let trips = ping.trips()?;
    ping.finish()?;
    Ok(trips)
}
