//! The benchmark starts itself in parts. An actor says `ready`, waits for `go`, does its part, and says what came of it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::item::Tally;
use crate::servers::{batched, beanstalkd, nats, redis};
use crate::trips::Trips;
use crate::{crossbeam, growth, ipc_channel, limit, procq};

/// How long a part may take to say its next word: far beyond any turn, unless somebody asked for very many items.
const DEADLINE: Timespec = Timespec { tv_sec: 600, tv_nsec: 0 };

/// Which part, and how much of what.
#[derive(Args, Clone, Debug)]
pub struct Part {
    #[arg(value_enum)]
    pub role: Role,
    /// Bytes per item
    #[arg(long, default_value_t = 8)]
    pub size: usize,
    /// The number of the first item to put
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// How many items
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// Where the queue is
    #[arg(long, default_value = ".")]
    pub place: PathBuf,
    /// Where the queue for the way back is
    #[arg(long, default_value = ".")]
    pub back: PathBuf,
    /// What is put is to survive the machine
    #[arg(long)]
    pub durable: bool,
    /// Sockets have buffers as large as procq's
    #[arg(long)]
    pub wide: bool,
    /// How long to look for news before sleeping
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    pub spin: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    ProcqProducer,
    ProcqConsumer,
    ProcqCircuit,
    ProcqIdle,
    ProcqWaiting,
    ProcqPing,
    ProcqEcho,
    LimitProducer,
    LimitRelay,
    LimitConsumer,
    LimitPing,
    LimitEcho,
    Crossbeam,
    IpcProducer,
    IpcConsumer,
    BeanstalkdProducer,
    BeanstalkdConsumer,
    BeanstalkdPing,
    BeanstalkdEcho,
    RedisProducer,
    RedisConsumer,
    RedisPing,
    RedisEcho,
    NatsProducer,
    NatsConsumer,
    NatsPing,
    NatsEcho,
    NatsBatchProducer,
    NatsBatchConsumer,
}

impl Part {
    pub fn new(role: Role) -> Part {
        Part { role, size: 8, first: 0, count: 0, place: ".".into(), back: ".".into(), durable: false, wide: false, spin: Duration::ZERO }
    }

    pub fn items(self, size: usize, first: u64, count: u64) -> Part {
        Part { size, first, count, ..self }
    }

    pub fn at(self, place: &Path) -> Part {
        Part { place: place.to_path_buf(), ..self }
    }

    pub fn back(self, back: &Path) -> Part {
        Part { back: back.to_path_buf(), ..self }
    }

    /// Plays the part, in a process of its own.
    pub fn play(&self) -> Result<()> {
        ensure!(common::program::die_with_parent(parent_id(), false), "the benchmark is gone");
        match self.role {
            Role::ProcqProducer => procq::produce(self),
            Role::ProcqConsumer => procq::consume(self),
            Role::ProcqCircuit => growth::circuit::play(self),
            Role::ProcqIdle | Role::ProcqWaiting => growth::crowd::play(self),
            Role::ProcqPing => procq::ping(self),
            Role::ProcqEcho => procq::echo(self),
            Role::LimitProducer => limit::produce(self),
            Role::LimitRelay => limit::relay(self),
            Role::LimitConsumer => limit::consume(self),
            Role::LimitPing => limit::ping(self),
            Role::LimitEcho => limit::echo(self),
            Role::Crossbeam => crossbeam::play(self),
            Role::IpcProducer => ipc_channel::produce(self),
            Role::IpcConsumer => ipc_channel::consume(self),
            Role::BeanstalkdProducer => beanstalkd::produce(self),
            Role::BeanstalkdConsumer => beanstalkd::consume(self),
            Role::BeanstalkdPing => beanstalkd::ping(self),
            Role::BeanstalkdEcho => beanstalkd::echo(self),
            Role::RedisProducer => redis::produce(self),
            Role::RedisConsumer => redis::consume(self),
            Role::RedisPing => redis::ping(self),
            Role::RedisEcho => redis::echo(self),
            Role::NatsProducer => nats::produce(self),
            Role::NatsConsumer => nats::consume(self),
            Role::NatsPing => nats::ping(self),
            Role::NatsEcho => nats::echo(self),
            Role::NatsBatchProducer => batched::produce(self),
            Role::NatsBatchConsumer => batched::consume(self),
        }
    }
}

/// An actor's side: everything is set up.
pub fn say_ready() {
    println!("ready");
}

/// An actor's side: everything is set up; returns when the clock has started.
pub fn wait_for_go() -> Result<()> {
    say_ready();
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// An actor's side: what it has put, or verified.
pub fn say_done(tally: Tally) {
    println!("done {} {}", tally.count, tally.sum);
}

/// A part that plays; killed when dropped.
pub struct Actor {
    role: Role,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Actor {
    pub fn start(part: &Part) -> Result<Actor> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = part.role.to_possible_value().context("a role without a name")?;
        command.arg("play").arg(name.get_name());
        command.arg("--place").arg(&part.place).arg("--back").arg(&part.back);
        command.arg("--spin").arg(format!("{}ns", part.spin.as_nanos()));
        command.args(part.durable.then_some("--durable"));
        command.args(part.wide.then_some("--wide"));
        for (flag, number) in [("--size", part.size as u64), ("--first", part.first), ("--count", part.count)] {
            command.arg(flag).arg(number.to_string());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the benchmark itself")?;
        let stdin = child.stdin.take().context("no pipe to an actor")?;
        let stdout = BufReader::new(child.stdout.take().context("no pipe from an actor")?);
        Ok(Actor { role: part.role, child, stdin, stdout })
    }

    /// What stands behind `word` in the next line that it says.
    pub fn said(&mut self, word: &str) -> Result<String> {
        if self.stdout.buffer().is_empty() {
            let waited = poll(&mut [PollFd::new(self.stdout.get_ref(), PollFlags::IN)], Some(&DEADLINE))?;
            ensure!(waited > 0, "{:?} says no {word:?} within {} s", self.role, DEADLINE.tv_sec);
        }
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        match line.trim_end().strip_prefix(word) {
            Some(rest) => Ok(rest.trim_start().to_string()),
            None => bail!("{:?} said {line:?} instead of {word:?}", self.role),
        }
    }

    pub fn ready(&mut self) -> Result<()> {
        self.said("ready").map(|_| ())
    }

    pub fn go(&mut self) -> Result<()> {
        Ok(self.stdin.write_all(b"go\n")?)
    }

    pub fn done(&mut self) -> Result<Tally> {
        let said = self.said("done")?;
        let (count, sum) = said.split_once(' ').context("a tally of two numbers")?;
        Ok(Tally { count: count.parse()?, sum: sum.parse()? })
    }

    pub fn trips(&mut self) -> Result<Trips> {
        Trips::parse(&self.said("trips")?)
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self) -> Result<()> {
        let status = tests::eventually("the end of an actor", || self.child.try_wait().transpose())?;
        ensure!(status.success(), "{:?} failed: {status}", self.role);
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
