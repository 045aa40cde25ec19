//! Round trips of one item, and what share of them took how long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Trips before the first that counts.
const WARM_UP: u64 = 200;

/// Microseconds that 50, 99 and 99.9 % of the trips stayed within.
#[derive(Clone, Copy, Debug)]
pub struct Trips {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Trips {
    /// Sends each number on its way and takes the time until the same number is back.
    pub fn measure(count: u64, mut trip: impl FnMut(u64) -> Result<u64>) -> Result<Trips> {
        let mut took = Vec::new();
        for number in 0..WARM_UP + count {
            let started = Instant::now();
            let back = trip(number)?;
            let elapsed = started.elapsed();
            ensure!(back == number, "{back} came back instead of {number}");
            if number >= WARM_UP {
                took.push(elapsed);
            }
        }
        Trips::of(took)
    }

    /// How many trips `measure` makes in all.
    pub fn in_all(count: u64) -> u64 {
        WARM_UP + count
    }

    pub fn parse(said: &str) -> Result<Trips> {
        let numbers: Vec<f64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [p50, p99, p999] = numbers[..] else { anyhow::bail!("three percentiles expected, {said:?} came") };
        Ok(Trips { p50, p99, p999 })
    }

    /// An actor's side: the result, for `parse`.
    pub fn say(self) {
        println!("trips {} {} {}", self.p50, self.p99, self.p999);
    }

    pub fn of(mut took: Vec<Duration>) -> Result<Trips> {
        took.sort_unstable();
        let within = |share: f64| {
            let at = (took.len() as f64 * share) as usize;
            took.get(at.min(took.len().saturating_sub(1))).map(|took| took.as_secs_f64() * 1e6).context("no trips")
        };
        Ok(Trips { p50: within(0.5)?, p99: within(0.99)?, p999: within(0.999)? })
    }
}
