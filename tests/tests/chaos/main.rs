//! Everything but the coordinator is killed and stopped at random instants, for as long as it is told; every item is accounted for.
//!
//! `CHAOS_SECONDS` says how long (10 by default), `SEED` which schedule; a run that fails says with which it did.

mod account;
mod clients;
mod runs;

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::program;
use tests::random::Random;

/// What is done to whom and when, by a seed.
struct Schedule {
    random: Random,
    until: Instant,
    kills: u64,
    stops: u64,
}

/// A coordinator. Killed when dropped.
struct Coordinator(Child);

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is done to a process.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// `kill -9`.
    Kill,
    /// Stopped for so long.
    Stop(Duration),
    /// Stopped for so long, then killed.
    StopAndKill(Duration),
}

impl Schedule {
    /// The schedule of this test, told by the environment or made up; said, so that it can be had again.
    fn begin(test: &str) -> Schedule {
        // Built before the clock runs.
        program("coordinator");
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let seconds = number("CHAOS_SECONDS").unwrap_or(10);
        let seed = number("SEED").unwrap_or_else(|| {
            use std::hash::{BuildHasher, Hasher};
            std::hash::RandomState::new().build_hasher().finish() >> 32
        });
        eprintln!("again: CHAOS_SECONDS={seconds} SEED={seed} cargo test --release -p tests --test chaos {test} -- --nocapture");
        Schedule { random: Random::new(seed), until: Instant::now() + Duration::from_secs(seconds), kills: 0, stops: 0 }
    }

    /// What was done, once it is over.
    fn faults(&self) -> String {
        assert!(self.kills > 0 && self.stops > 0, "nobody was harmed");
        format!("{} processes killed, {} stopped", self.kills, self.stops)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Lets some time pass, and says what is to be done then to which of `count` processes.
    fn next(&mut self, count: usize) -> (usize, Fault) {
        std::thread::sleep(Duration::from_millis(self.random.below(40)));
        let victim = self.random.below(count as u64) as usize;
        let pause = Duration::from_millis(self.random.below(300));
        let fault = match self.random.below(10) {
            0..5 => Fault::Kill,
            5..9 => Fault::Stop(pause),
            _ => Fault::StopAndKill(pause),
        };
        (victim, fault)
    }
}

/// Children of one process that are stopped, and what is to become of each when.
struct Stopped {
    parent: u32,
    until: Vec<(Instant, u32, Signal)>,
}

impl Stopped {
    fn children_of(parent: u32) -> Stopped {
        Stopped { parent, until: Vec::new() }
    }

    fn do_to(&mut self, pid: u32, fault: Fault, schedule: &mut Schedule) {
        match fault {
            Fault::Kill => schedule.kills += u64::from(self.send(pid, Signal::KILL)),
            Fault::Stop(pause) | Fault::StopAndKill(pause) => {
                let then = if matches!(fault, Fault::Stop(_)) { Signal::CONT } else { Signal::KILL };
                schedule.stops += u64::from(self.send(pid, Signal::STOP));
                schedule.kills += u64::from(then == Signal::KILL);
                self.until.push((Instant::now() + pause, pid, then));
            }
        }
    }

    /// Goes on with those whose time has come, or with all.
    fn go_on(&mut self, all: bool) {
        let now = Instant::now();
        let due = self.until.extract_if(.., |(at, ..)| all || *at <= now).collect::<Vec<_>>();
        for (_, pid, then) in due {
            self.send(pid, then);
        }
    }

    /// It may have ended since it was last looked at, and its number be another's.
    fn send(&self, pid: u32, signal: Signal) -> bool {
        let is_child = tests::parent_of(pid) == Some(self.parent);
        is_child && Pid::from_raw(pid as i32).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }
}
