//! Honest clients at work while others mean no good: a producer and a consumer program, the items counted, and each checked to come once.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{eventually, program, signal};

/// How long the rate is looked at.
const WINDOW: Duration = Duration::from_millis(200);

/// Between two writes of a paced load.
const TICK: Duration = Duration::from_millis(5);

/// How much is put.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Ten thousand items a second: far from what the machine can do, so that the rate does not depend on who else needs its CPUs.
    Steady,
    /// As fast as it goes.
    Full,
}

/// A stream of numbers from one honest producer to one honest consumer.
pub struct Load {
    producer: Child,
    consumer: Child,
    passed: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
    writer: Option<JoinHandle<u64>>,
    reader: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts both, and returns once items pass.
    pub fn start(socket: &Path, pace: Pace) -> Load {
        let start = |name: &str, arguments: &[&str]| {
            let mut command = Command::new(program(name));
            command.args(arguments).env("PROCQ_SOCKET", socket).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            command.spawn().expect("a program to start")
        };
        let mut producer = start("producer", &["--input", "-"]);
        let mut consumer = start("consumer", &[]);
        let passed = Arc::new(AtomicU64::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let mut stdin = producer.stdin.take().expect("a pipe");
        let until = Arc::clone(&enough);
        let writer = std::thread::spawn(move || {
            let mut next = 0u64;
            while !until.load(Ordering::Relaxed) {
                let lines: String = (next..next + 50).map(|n| format!("{n}\n")).collect();
                stdin.write_all(lines.as_bytes()).expect("a producer that goes on");
                next += 50;
                if let Pace::Steady = pace {
                    std::thread::sleep(TICK);
                }
            }
            next
        });
        let stdout = BufReader::new(consumer.stdout.take().expect("a pipe"));
        let counter = Arc::clone(&passed);
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            for line in stdout.lines() {
                let number = line.ok().and_then(|line| line.parse::<usize>().ok()).expect("a number, as they were put");
                seen.resize(seen.len().max(number + 1), false);
                assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let load = Load { producer, consumer, passed, enough, writer: Some(writer), reader: Some(reader) };
        eventually("honest items to pass", || (load.passed() > 1000).then_some(()));
        load
    }

    /// Items that have passed.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Items a second, just now.
    pub fn rate(&self) -> f64 {
        let (since, before) = (Instant::now(), self.passed());
        std::thread::sleep(WINDOW);
        (self.passed() - before) as f64 / since.elapsed().as_secs_f64()
    }

    /// Waits until the rate is at least half of what it was, for a while: items that come in heaps, with nothing between, will not do.
    /// Coarse on purpose: others use this machine, too.
    pub fn wait_for_half_of(&self, rate_before: f64) {
        let mut good = 0;
        eventually("honest clients to get at least half their rate", || {
            good = if self.rate() >= rate_before / 2.0 { good + 1 } else { 0 };
            (good == 3).then_some(())
        });
    }

    /// Puts no more, and waits until all that was put has passed, and its consumer has said so and ended: what it is killed with comes again.
    pub fn finish(mut self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        let put = self.writer.take().expect("a writer").join().expect("all lines to be written");
        let ended = eventually("the producer's end", || self.producer.try_wait().expect("a child"));
        assert!(ended.success(), "the honest producer: {ended}");
        eventually("all items to pass", || {
            let reader_ended = self.reader.as_ref().is_some_and(JoinHandle::is_finished);
            assert!(!reader_ended, "the honest consumer has ended, or got what it should not, after {} of {put}", self.passed());
            (self.passed() == put).then_some(())
        });
        signal(self.consumer.id(), Signal::TERM);
        eventually("the consumer's end", || self.consumer.try_wait().expect("a child"));
        put
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        for child in [&mut self.producer, &mut self.consumer] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
