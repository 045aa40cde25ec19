//! Many seeds, or one with all that happens: `cargo run --release -p tests --bin simulate -- --help`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tests::simulator;
use tests::simulator::network::Tally;

/// Plays the stories of many seeds, and tells which do not come to a good end
#[derive(Parser)]
struct Cli {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// This seed alone, told step by step
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Go on after this many have failed
    #[arg(long, value_name = "N", default_value_t = 1)]
    failures: u64,
    /// At once
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(seed) = cli.seed {
        return match simulator::play(seed, true) {
            Ok(facts) => {
                println!("{facts:?}");
                ExitCode::SUCCESS
            }
            Err(words) => {
                println!("{words}");
                ExitCode::FAILURE
            }
        };
    }
    let started = Instant::now();
    let next = AtomicU64::new(cli.from);
    let failed = AtomicU64::new(0);
    let totals: [AtomicU64; 6] = Default::default();
    let tally: Mutex<Tally> = Mutex::default();
    let longest: Mutex<(u64, Duration)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..cli.threads.max(1) {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) < cli.failures {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cli.from.saturating_add(cli.seeds) {
                        return;
                    }
                    match simulator::play(seed, false) {
                        Ok(facts) => {
                            let numbers = [1, facts.events, facts.troubles, facts.accepted, facts.redelivered, facts.dead];
                            let mut longest = longest.lock().expect("nothing panics here");
                            *longest = (longest.0.max(facts.tail_events), longest.1.max(facts.tail));
                            let mut tally = tally.lock().expect("nothing panics here");
                            facts.tally.iter().for_each(|(what, times)| *tally.entry(what).or_default() += times);
                            totals.iter().zip(numbers).for_each(|(total, number)| _ = total.fetch_add(number, Ordering::Relaxed));
                        }
                        Err(words) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("{words}\n");
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let [good, events, troubles, accepted, redelivered, dead] = totals.map(AtomicU64::into_inner);
    let seconds = started.elapsed().as_secs_f64();
    println!("{good} seeds came to a good end, {failed} did not; {:.0} seeds a second", (good + failed) as f64 / seconds);
    println!("{events} events, {troubles} troubles, {accepted} items, {redelivered} deliveries again, {dead} dead letters");
    println!("{:?}", tally.into_inner().expect("nothing panics here"));
    let (tail_events, tail) = longest.into_inner().expect("nothing panics here");
    println!("at most {tail_events} events and {tail:?} to the end once nothing went wrong any more");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
