//! What an item costs, in time and memory, by how many others wait.

use anyhow::{Context, Result};

use super::deep::{Deep, SHALLOW};
use super::grouped;
use crate::Run;
use crate::report::{Group, Row, Unit};
use crate::sample::Sample;
use crate::target::Target;

pub fn measure(run: &Run, deepest: u64) -> Result<Vec<Group>> {
    let depths: Vec<u64> = std::iter::successors(Some(SHALLOW), |depth| Some(depth * 10)).take_while(|depth| *depth <= deepest).collect();
    eprintln!("beside waiting items");
    let count = run.fit(|count| Deep::fill(SHALLOW)?.pass(count))?;
    let mut rates = vec![Sample::default(); depths.len()];
    let mut item_bytes = Sample::default();
    for turn in 0..run.turns {
        for at in crate::in_turn(turn, depths.len()) {
            let deep = Deep::fill(depths[at]).with_context(|| format!("{} waiting items", grouped(depths[at])))?;
            rates[at].push(count as f64 / deep.pass(count)?);
            if at + 1 == depths.len() {
                item_bytes.push(deep.item_bytes);
            }
        }
    }
    let medians = || rates.iter().map(Sample::median);
    let (slowest, fastest) = (medians().fold(f64::INFINITY, f64::min), medians().fold(0.0, f64::max));
    let spread = Row::new("fastest median by slowest", Sample::new(vec![fastest / slowest]), Some(Target::Within(1.2)));
    let rows = depths.iter().zip(rates).map(|(depth, rate)| Row::new(&format!("{} waiting", grouped(*depth)), rate, None)).collect();
    let memory = Row::new(&format!("{} waiting", grouped(deepest)), item_bytes, Some(Target::Within(12.0)));
    Ok(vec![
        Group::new("put, got and acknowledged beside waiting items, 8 B", Unit::ItemsPerSecond, rows),
        Group::new("the same at any depth", Unit::Times, vec![spread]),
        Group::new("coordinator's resident memory per waiting item, 8 B", Unit::Bytes, vec![memory]),
    ])
}
