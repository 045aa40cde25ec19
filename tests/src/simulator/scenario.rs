//! What a seed makes of a story: bounds, rules, who takes part, what the weather is like, what goes wrong.

use std::time::Duration;

use common::backoff::Backoff;
use common::limits::batch_cost_bytes;
use coordinator::queue::{Lease, Rules, Window};

use super::item::{ITEM_BYTES_MIN, Lengths};
use super::link::Weather;
use super::{consumer, journal, producer, writer};
use crate::random::Random;

/// How a story ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With the last of the producers that are expected.
    Expected,
    /// It is told to drain, some time.
    Drain,
    /// It is told to stop, some time.
    Stop,
}

/// All that is settled before a story begins.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The queue's bounds and rules.
    pub rules: Rules,
    /// How long items are.
    pub lengths: Lengths,
    /// Nothing goes wrong.
    pub faultless: bool,
    /// How it ends.
    pub ending: Ending,
    /// Microseconds for which things go wrong.
    pub trouble_us: u64,
    /// Microseconds from one trouble to the next.
    pub trouble_every_us: (u64, u64),
    /// Microseconds from one time that somebody steers the queue to the next, if anybody does.
    pub steer_every_us: Option<(u64, u64)>,
    /// Who puts.
    pub producers: Vec<producer::Plan>,
    /// Who gets.
    pub consumers: Vec<consumer::Plan>,
    /// The connection of somebody who looks who is connected, if anybody does.
    pub looker: Option<Weather>,
    /// How quick results and dead letters are written.
    pub writing: writer::Pace,
    /// How quick the journal is, if there is one.
    pub journal: journal::Pace,
    /// Results go to a file.
    pub has_output: bool,
    /// Results that wait before no more are read.
    pub results_bytes_max: usize,
    /// Microseconds from news to the coordinator's next turn.
    pub turn_us: (u64, u64),
}

/// Tags of one producer's connections lie this far from the next one's.
pub const TAGS_EACH: u32 = 1000;

impl Scenario {
    /// The story of a seed.
    pub fn new(random: &mut Random) -> Scenario {
        let faultless = random.chance(15);
        let heavy = random.chance(2);
        let lengths = lengths(random, heavy);
        let item_bytes_max = lengths.max as u64 + random.below(3);
        let ending = match random.below(100) {
            _ if faultless => Ending::Expected,
            0..60 => Ending::Expected,
            60..90 => Ending::Drain,
            _ => Ending::Stop,
        };
        let producers = random.between(1, 4);
        let window = Window { near_bytes: random.scale(1, 20_000), unwritten_bytes: random.scale(1, 20_000) };
        let journaled = random.chance(50).then_some(window);
        let retry_min = Duration::from_micros(random.scale(1, 20_000));
        // Without faults, time enough for every item.
        let (timeout_ms, grace_us) = if faultless { (10_000, 0) } else { (random.scale(1, 60), random.below(5_000)) };
        let lease = Lease { item_timeout: Duration::from_millis(timeout_ms), grace: Duration::from_micros(grace_us) };
        let mut rules = Rules {
            lease: random.chance(40).then_some(lease),
            early_bytes_max: random.chance(40).then(|| random.scale(1, 20_000) - 1),
            capacity_items: random.scale(1, 300),
            capacity_bytes: batch_cost_bytes(item_bytes_max + 4) + random.scale(1, 60_000),
            item_bytes_max,
            attempts_max: random.between(1, 5) as u32,
            retry_delay: Backoff { min: retry_min, max: retry_min * random.between(1, 8) as u32 },
            producers_expected: (ending == Ending::Expected).then_some(producers),
            dead_letters_max: random.scale(1, 40),
            dead_bytes_max: random.scale(1, 40_000),
            journaled,
            shared: false,
        };
        let net = Net { slow: random.chance(30), room_min: (lengths.max as u64 / 8).max(16) };
        if net.slow
            && let Some(lease) = &mut rules.lease
        {
            // An attempt has to last longer than its item and its acknowledgement are on their way, in nine pieces each of up to 10 ms.
            lease.item_timeout += Duration::from_millis(200);
        }
        let consumers = random.between(1, 4);
        let items_max = if heavy { 8 } else { 120 };
        let consumers: Vec<consumer::Plan> = (0..consumers).map(|_| consumer_plan(faultless, consumers == 1, net, random)).collect();
        // And what is asked for ahead must not be taken back before it can have come, again and again.
        let on_the_way = consumers.iter().map(|plan| on_the_way(plan, &rules, lengths)).max().unwrap_or_default();
        rules.lease.iter_mut().for_each(|lease| lease.grace += on_the_way);
        Scenario {
            rules,
            lengths,
            faultless,
            ending,
            trouble_us: random.between(2_000, 120_000),
            steer_every_us: random.chance(60).then(|| (100, random.scale(500, 20_000))),
            trouble_every_us: (200, random.between(1_000, 40_000)),
            producers: (0..producers).map(|number| producer_plan(number, faultless, ending, items_max, net, random)).collect(),
            consumers,
            looker: random.chance(30).then(|| weather(net, random)),
            writing: writer::Pace { writing_us: (1, random.scale(10, 5_000)), report_us: (1, random.scale(10, 2_000)) },
            journal: journal::Pace {
                // A slow disk: whoever comes again finds what it has put before on its way.
                commit_us: if random.chance(40) { (10_000, 40_000) } else { (1, random.scale(10, 10_000)) },
                load_us: (1, random.scale(10, 2_000)),
                report_us: (1, random.scale(10, 2_000)),
            },
            has_output: journaled.is_some() && random.chance(70),
            results_bytes_max: random.scale(1, 2_000) as usize,
            turn_us: (1, random.scale(2, 2_000)),
        }
    }
}

/// How long all that a consumer may have asked for is on its way, in pieces that are torn now and then.
fn on_the_way(plan: &consumer::Plan, rules: &Rules, lengths: Lengths) -> Duration {
    let items = plan.prefetch.map_or(u64::MAX, |items| u64::from(items) + plan.threads as u64).min(rules.capacity_items);
    let pieces = items * (lengths.max as u64 + 4) / plan.weather.room as u64;
    Duration::from_micros(2 * pieces * plan.weather.delay_us.1).min(Duration::from_secs(1))
}

#[derive(Clone, Copy)]
struct Net {
    slow: bool,
    room_min: u64,
}

fn lengths(random: &mut Random, heavy: bool) -> Lengths {
    if heavy {
        return Lengths { min: 100_000, max: 700_000 };
    }
    let min = random.scale(ITEM_BYTES_MIN as u64, 200) as usize;
    let max = if random.chance(40) { min } else { min + random.scale(1, 3_000) as usize };
    Lengths { min, max }
}

fn weather(net: Net, random: &mut Random) -> Weather {
    let slowest = if net.slow { random.scale(500, 20_000) } else { random.scale(20, 500) };
    Weather { delay_us: (1, slowest), room: random.scale(net.room_min, 262_144) as usize, torn_percent: random.pick(&[0, 5, 40]) }
}

fn producer_plan(number: u64, faultless: bool, ending: Ending, items_max: u64, net: Net, random: &mut Random) -> producer::Plan {
    // Only a name tells who has finished once connections may break.
    let named = (!faultless && ending == Ending::Expected) || random.chance(50);
    let finishes = ending == Ending::Expected || random.chance(70);
    producer::Plan {
        name: if named { format!("producer {number}") } else { String::new() },
        tag: (number as u32 + 1) * TAGS_EACH,
        items: random.scale(0, items_max),
        threads: random.pick(&[1, 1, 1, 2, 3]),
        pause_us: random.pick(&[(0, 1), (0, 50), (10, 3_000)]),
        impatient_percent: random.pick(&[0, 0, 30, 100]),
        joins: random.chance(20),
        finishes,
        hasty: !finishes && random.chance(50),
        resumes: named && random.chance(50),
        weather: weather(net, random),
    }
}

fn consumer_plan(faultless: bool, alone: bool, net: Net, random: &mut Random) -> consumer::Plan {
    consumer::Plan {
        prefetch: random.pick(&[None, None, Some(0), Some(1), Some(5), Some(100)]),
        threads: random.pick(&[1, 1, 1, 2, 4]),
        work_us: random.pick(&[(0, 1), (1, 100), (1, 3_000), (1_000, 30_000)]),
        slow_permille: random.pick(&[0, 0, 30]),
        in_hand_max: random.pick(&[1, 1, 3]),
        impatient_percent: random.pick(&[0, 0, 30, 100]),
        fails_percent: if faultless { 0 } else { random.pick(&[0, 10, 50]) },
        extends_percent: random.pick(&[0, 0, 30]),
        results_percent: random.pick(&[0, 50, 100]),
        stops_permille: if faultless { 0 } else { random.pick(&[0, 0, 50]) },
        resumes: random.chance(50),
        alone,
        weather: weather(net, random),
    }
}
