//! The consumer program: connects to a coordinator and prints its items, runs a command for each, or has a worker work
//! on them.
//!
//! A library, too, so that the coordinator can run as it where the program itself was not built.
//!
//! # Layout
//! [`cli`]: the command line; [`sink`]: what is done with an item; [`command`]: running a command for one; [`worker`]: a command
//! that stays up; [`joblog`]: what is noted of attempts; [`shell`]: what would be run; [`signals`]: an orderly end; [`limits`]: every limit with its reason.

pub mod cli;
pub mod command;
pub mod joblog;
pub mod limits;
pub mod shell;
pub mod signals;
pub mod sink;
pub mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use common::program::{
    EXIT_DONE, EXIT_ERROR, EXIT_HOPELESS, EXIT_SIGNAL_BASE, connect_within, die_with_parent, fail, is_gone, set_process_name, tell,
};
use common::{Consumer, Endpoint, Error, log};

use cli::Cli;
use command::{Command, Running};
use joblog::JobLog;
use sink::{OneByOne, Settled};
use worker::{Hopeless, Worker};

/// What this program calls itself in messages.
pub(crate) const PROGRAM: &str = "consumer";

/// Runs the program with these arguments, the first being its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_checked(arguments);
    log::start(PROGRAM);
    let signals = match signals::Signals::catch(cli.child_of.is_some()) {
        Ok(signals) => signals,
        Err(error) => return fail(PROGRAM, &error, format_args!("cannot catch signals: {error}")),
    };
    if let Some(parent) = cli.child_of {
        set_process_name("consumer");
        if !die_with_parent(parent, true) {
            return ExitCode::from(EXIT_ERROR);
        }
    }
    match run(&cli, signals) {
        Ok(code) => ExitCode::from(code),
        // Its coordinator knows.
        Err(error) if cli.child_of.is_some() && is_gone(&error) => ExitCode::from(EXIT_ERROR),
        Err(error) if cli.child_of.is_some() && error.is::<Hopeless>() => {
            tell(PROGRAM, format_args!("{error:#}"));
            ExitCode::from(EXIT_HOPELESS)
        }
        Err(error) => fail(PROGRAM, &*error, format_args!("{error:#}")),
    }
}

fn run(cli: &Cli, signals: signals::Signals) -> Result<u8> {
    let endpoint = Endpoint::named(cli.socket.as_deref()).with_spin(cli.spin).with_reconnect(cli.reconnect).with_narrator(PROGRAM);
    // A coordinator that is our parent ends what we leave behind.
    let dies_with_us = cli.child_of.is_none();
    let joblog = cli.joblog.as_deref().map(JobLog::append_to).transpose()?;
    let running = Running::default();
    let mut task = if cli.worker {
        let worker = Worker::find(&cli.command, endpoint.path(), dies_with_us, cli.format.separator(), cli.prefetch)?;
        Task::Worker(worker.with_reconnect(!cli.reconnect.is_zero()).with_joblog(joblog))
    } else {
        let command = if cli.command.is_empty() { None } else { Some(Command::find(&cli.command, endpoint.path(), dies_with_us)?) };
        Task::OneByOne(OneByOne::new(cli, command, joblog, &running))
    };
    let consumer = connect_within(cli.wait, || match cli.prefetch {
        Some(items) => Consumer::<[u8]>::connect_with_prefetch(&endpoint, items),
        None => Consumer::connect(&endpoint),
    })?;
    let consumer = if cli.worker { consumer.begin_by_hand() } else { consumer };
    if cli.child_of.is_none() {
        let pid = consumer.coordinator_pid();
        tell(PROGRAM, format_args!("connected to the coordinator (pid {pid}) at {}", endpoint.path().display()));
    }
    let received = std::thread::scope(|scope| {
        let watch = signals.watch(scope, &consumer, &running, cli.child_of.is_some());
        let worked = match &mut task {
            Task::OneByOne(one_by_one) => work(&consumer, one_by_one),
            Task::Worker(worker) => worker.work(&consumer, &running),
        };
        watch.end().map_or(worked, |signal| Ok(EXIT_SIGNAL_BASE + signal))
    })?;
    if let Task::OneByOne(one_by_one) = &mut task
        && received == EXIT_DONE
    {
        one_by_one.stopped()?;
    }
    Ok(received)
}

/// What came of it, unless an item was taken back meanwhile, since it took too long: then it is nobody's concern here any more.
pub(crate) fn unless_expired<T: Default, E: Into<anyhow::Error>>(done: Result<T, E>) -> Result<T> {
    done.or_else(|error| {
        let error = error.into();
        match error.downcast_ref() {
            Some(expired @ Error::Expired { .. }) => {
                tell(PROGRAM, format_args!("{expired}"));
                Ok(T::default())
            }
            _ => Err(error),
        }
    })
}

/// What is done with items.
enum Task<'a> {
    OneByOne(OneByOne<'a>),
    Worker(Worker),
}

/// Works until Stop; the exit code.
fn work(consumer: &Consumer<[u8]>, one_by_one: &mut OneByOne<'_>) -> Result<u8> {
    loop {
        let delivery = match consumer.get() {
            Ok(Some(delivery)) => delivery,
            Ok(None) => return Ok(EXIT_DONE),
            // The coordinator said why it ends, or was killed: nothing to be done here either way.
            Err(error @ Error::Closed { .. }) => return Err(error).context("the queue has ended"),
            Err(error) => return Err(error.into()),
        };
        if let Settled::AndEnd(code) = one_by_one.work_on(delivery, consumer)? {
            return Ok(code);
        }
    }
}
