//! The queue, the coordinator's connections and the clients' sessions under simulated bad luck: see `tests::simulator`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tests::simulator;

/// Enough for every kind of trouble to meet every other, few enough for a minute of a slow machine.
const SEEDS: u64 = 2_000;

/// Seeds that have found something, and what that was. They stay, though a change of the simulator makes other stories of them.
const FOUND: [(u64, &str); 0] = [];

/// Plays the stories of these seeds on all CPUs; returns what went wrong.
fn play_all(seeds: &[u64]) -> Vec<String> {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if let Err(words) = simulator::play(*seed, false) {
                        failures.lock().unwrap().push(words);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_or_invented_and_all_comes_to_an_end() {
    let found = FOUND.iter().map(|(seed, _)| *seed);
    let seeds: Vec<u64> = found.chain(0..SEEDS).collect();
    let failures = play_all(&seeds);
    assert!(failures.is_empty(), "{} of {} seeds fail. The first:\n{}", failures.len(), seeds.len(), failures[0]);
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    for seed in 0..20 {
        let facts = || format!("{:?}", simulator::play(seed, false));
        assert_eq!(facts(), facts(), "seed {seed}");
    }
}
