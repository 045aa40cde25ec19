//! Programs as a whole: a command per item, and the default run.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::multiprocessing::Python;
use crate::report::{Group, LeftOut, Row, Unit};
use crate::sample::Sample;
use crate::servers::says;
use crate::target::Target;

/// Something that runs a command for each line, two at once.
struct Runner {
    name: &'static str,
    /// Its command line, up to the command to run.
    words: Vec<String>,
    /// What stands for the line in that command, unless the line is put at its end.
    line: Option<&'static str>,
}

impl Runner {
    fn run(&self, command: &str, jobs: &Path) -> Result<String> {
        let mut process = Command::new(&self.words[0]);
        process.args(&self.words[1..]).arg(command).args(self.line).stdin(File::open(jobs)?).stderr(Stdio::inherit());
        let output = process.output().with_context(|| format!("cannot start {}", self.name))?;
        ensure!(output.status.success(), "{} failed: {}", self.name, output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Each line once.
    fn verify(&self, jobs: &Path, count: u64) -> Result<()> {
        let output = self.run("echo", jobs)?;
        let mut numbers: Vec<u64> = output.lines().map(str::parse).collect::<Result<_, _>>()?;
        numbers.sort_unstable();
        ensure!(numbers.into_iter().eq(0..count), "{} did not run all jobs once", self.name);
        Ok(())
    }
}

fn runners(left_out: &mut Vec<LeftOut>) -> Result<Vec<Runner>> {
    let words = |line: &str| line.split(' ').map(str::to_string).collect::<Vec<_>>();
    let coordinator = tests::program("coordinator").to_str().context("a path in UTF-8")?.to_string();
    let procq = [vec![coordinator], words("--input - --consumers 2 --")].concat();
    let mut runners = vec![Runner { name: "procq", words: procq, line: Some("{}") }];
    let mut add_if = |found: bool, name, line: &str, end| match found {
        true => runners.push(Runner { name, words: words(line), line: end }),
        false => left_out.push(LeftOut::new(name, "not found")),
    };
    add_if(says("xargs", "--version", ""), "xargs -P2 -n1", "xargs -P2 -n1", None);
    add_if(says("parallel", "--version", "GNU parallel"), "GNU parallel -j2", "parallel -j2", Some("{}"));
    Ok(runners)
}

/// Jobs per second with a command that does nothing.
pub fn jobs(turns: usize, count: u64, left_out: &mut Vec<LeftOut>) -> Result<Group> {
    let folder = tempfile::tempdir()?;
    let jobs = folder.path().join("jobs");
    std::fs::write(&jobs, (0..count).map(|number| format!("{number}\n")).collect::<String>())?;
    let runners = runners(left_out)?;
    for runner in &runners {
        runner.verify(&jobs, count)?;
    }
    let mut samples = vec![Sample::default(); runners.len()];
    for turn in 0..turns {
        for at in crate::in_turn(turn, runners.len()) {
            let started = Instant::now();
            runners[at].run("true", &jobs)?;
            samples[at].push(count as f64 / started.elapsed().as_secs_f64());
        }
    }
    let rows = runners.iter().zip(samples).map(|(runner, sample)| Row::new(runner.name, sample, Target::of_commands(runner.name)));
    Ok(Group::new("`true` per item, two at once", Unit::JobsPerSecond, rows.collect()))
}

/// Milliseconds of the default run without pauses, as a whole process.
pub fn default_run(turns: usize, python: Option<&Python>) -> Result<Group> {
    let mut names = vec!["procq"];
    names.extend(python.map(|_| "the same in Python"));
    let folder = tempfile::tempdir()?;
    let command = |at: usize| match (at, python) {
        (1, Some(python)) => python.default_run(),
        _ => {
            let mut command = Command::new(tests::program("coordinator"));
            command.args(["--pause", "none", "--socket"]).arg(folder.path().join("q.sock"));
            command
        }
    };
    let mut samples = vec![Sample::default(); names.len()];
    // One such run is short: many make up for what else happens meanwhile.
    for turn in 0..turns * 5 {
        for at in crate::in_turn(turn, names.len()) {
            let mut command = command(at);
            let started = Instant::now();
            let output = command.stdin(Stdio::null()).output().context("cannot start the default run")?;
            let took = started.elapsed();
            let lines = String::from_utf8(output.stdout)?;
            ensure!(output.status.success() && lines.matches("Consumer: Got").count() == 5, "the default run of {} failed", names[at]);
            samples[at].push(took.as_secs_f64() * 1e3);
        }
    }
    let rows = names.into_iter().zip(samples).map(|(name, sample)| Row::new(name, sample, Target::of_default_run(name)));
    Ok(Group::new("default run, --pause none", Unit::Milliseconds, rows.collect()))
}
