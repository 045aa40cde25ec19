//! Python's `multiprocessing.Queue`, by the script beside this file, when there is a `python3`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::item::Tally;
use crate::peer::{Case, Peer};
use crate::trips::Trips;

const SCRIPT: &str = include_str!("multiprocessing.py");

/// Items made beforehand where they are large, see the script.
const LARGE: usize = 65536;
const LARGE_ITEMS: u64 = 8;

/// A Python that can run the script.
#[derive(Clone)]
pub struct Python {
    program: String,
}

impl Python {
    /// The interpreter itself, not what may stand before it in the path to choose one.
    pub fn find() -> Option<Python> {
        let found = Command::new("python3").args(["-c", "import sys, multiprocessing; print(sys.executable)"]).output().ok()?;
        let program = String::from_utf8(found.stdout).ok()?.trim().to_string();
        (found.status.success() && !program.is_empty()).then_some(Python { program })
    }

    /// The default run without pauses, as a command.
    pub fn default_run(&self) -> Command {
        self.script(["default"])
    }

    fn script<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-c", SCRIPT]).args(arguments).stdin(Stdio::null());
        command
    }

    fn output(mut command: Command) -> Result<String> {
        let output = command.output().context("cannot start python3")?;
        ensure!(output.status.success(), "python3 failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_string())
    }
}

/// A queue of at most `capacity` items, or without a bound.
pub struct Multiprocessing {
    pub python: Python,
    pub capacity: Option<u32>,
}

impl Multiprocessing {
    fn capacity(&self) -> String {
        self.capacity.unwrap_or(0).to_string()
    }
}

impl Peer for Multiprocessing {
    fn name(&self) -> &'static str {
        if self.capacity.is_some() { "multiprocessing.Queue(1000)" } else { "multiprocessing.Queue()" }
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        let (capacity, size, fan) = (self.capacity(), case.size.to_string(), case.fan.to_string());
        let output = Python::output(self.python.script(["rate", &capacity, &size, &fan, &count.to_string()]))?;
        let [seconds, items, sum] = output.split(' ').collect::<Vec<_>>()[..] else { anyhow::bail!("{output:?} instead of three numbers") };
        let tally = Tally { count: items.parse()?, sum: sum.parse()? };
        let is_large = case.size >= LARGE;
        tally.verify_against(Tally::of((0..count).map(|number| if is_large { number % LARGE_ITEMS } else { number })))?;
        Ok(seconds.parse()?)
    }

    fn takes(&self, _case: Case) -> bool {
        true
    }

    fn trips(&self, count: u64) -> Option<Result<Trips>> {
        let output = Python::output(self.python.script(["trips", &self.capacity(), &count.to_string()]));
        Some(output.and_then(|output| Trips::parse(&output)))
    }
}
