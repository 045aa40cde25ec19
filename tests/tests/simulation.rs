//! The queue, the coordinator's connections and the clients' sessions under simulated bad luck: see `tests::simulator`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tests::simulator;

/// Enough for every kind of trouble to meet every other, few enough for a minute of a slow machine.
const SEEDS: u64 = 2_000;

/// Seeds that have found something, and what that was. They stay, though a change of the simulator makes other stories of them.
const FOUND: [(u64, &str); 8] = [
    (37, "an item that was taken back and came again to the same consumer: two deliveries of it in hand, told apart by nothing"),
    (77, "what came after a long wait lay at hand, and nobody looked whether it should go back"),
    (343, "a confirmation that waited for the rest of a frame was never said, for the connection was closed meanwhile"),
    (1919, "a batch on its way to the journal hid those that were far: Join was answered though they were not settled"),
    (34_975, "what was on its way on a demand withdrawn before stayed, while an older item went back: it was passed"),
    (306_758, "what was on its way from a producer that is closed already closed it again, as one that broke the rules"),
    (1_068_075, "a producer that came too late was told a position that was not certain yet"),
    (2_064_679, "credit for more than may be on its way to the journal at once: a batch that could never be let in"),
];

/// What has to go wrong in these stories at least so often, together.
const TROUBLES: [&str; 17] = [
    "coordinator deaths",
    "cuts",
    "deaths",
    "dead letters dropped",
    "dead letters put again",
    "extensions",
    "full links",
    "hangs",
    "hangs for good",
    "lists",
    "lost producers",
    "pauses",
    "refused acknowledgements",
    "resumes",
    "rogues",
    "stalls",
    "torn pieces",
];
const TROUBLES_MIN: u64 = 100;

/// Plays the stories of these seeds on all CPUs; returns how often what has happened, and where that was not dealt with.
fn play_all(seeds: &[u64]) -> (BTreeMap<&'static str, u64>, Vec<String>) {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let tally = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match simulator::play(*seed, false) {
                        Ok(facts) => {
                            let mut tally = tally.lock().unwrap();
                            facts.tally.into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times);
                        }
                        Err(words) => failures.lock().unwrap().push(words),
                    }
                }
            });
        }
    });
    (tally.into_inner().unwrap(), failures.into_inner().unwrap())
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_or_invented_and_all_comes_to_an_end() {
    let found = FOUND.iter().map(|(seed, _)| *seed);
    let seeds: Vec<u64> = found.chain(0..SEEDS).collect();
    let (tally, failures) = play_all(&seeds);
    assert!(failures.is_empty(), "{} of {} seeds fail. The first:\n{}", failures.len(), seeds.len(), failures[0]);
    for what in TROUBLES {
        assert!(tally.get(what).is_some_and(|times| *times >= TROUBLES_MIN), "{what} hardly ever happen: {tally:?}");
    }
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    for seed in 0..20 {
        let facts = || format!("{:?}", simulator::play(seed, false));
        assert_eq!(facts(), facts(), "seed {seed}");
    }
}
