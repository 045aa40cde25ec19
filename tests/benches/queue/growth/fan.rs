//! What one producer's items cost, by how many consumers there are.

use anyhow::{Context, Result};

use crate::Run;
use crate::procq::{Team, pass};
use crate::report::{Group, Row, Unit};
use crate::sample::Sample;
use crate::target::Target;

const CONSUMERS: [u64; 4] = [1, 4, 16, 64];

pub fn measure(run: &Run) -> Result<Group> {
    eprintln!("more consumers");
    let pass = |consumers, count| {
        let team = Team { producers: 1, consumers, size: 8 };
        pass(team, &[], count, |_| Ok(())).with_context(|| format!("{consumers} consumers"))
    };
    let count = run.fit(|count| pass(CONSUMERS[0], count))?;
    let mut rates = vec![Sample::default(); CONSUMERS.len()];
    for turn in 0..run.turns {
        for at in crate::in_turn(turn, CONSUMERS.len()) {
            rates[at].push(count as f64 / pass(CONSUMERS[at], count)?);
        }
    }
    let rows = CONSUMERS.iter().zip(rates).map(|(consumers, rate)| {
        let target = (*consumers > 1).then_some(Target::AtMost(1.3));
        Row::new(&format!("1→{consumers}"), rate, target)
    });
    Ok(Group::new("one producer, by the number of consumers, 8 B", Unit::ItemsPerSecond, rows.collect()))
}
