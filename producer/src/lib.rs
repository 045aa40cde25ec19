//! The producer program: connects to a coordinator and puts items: random numbers, or what it reads.
//!
//! A library, too, so that the coordinator can run as it where the program itself was not built.
//!
//! # Layout
//! [`cli`]: the command line; [`source`]: where items come from.

pub mod cli;
pub mod source;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use common::error::Error;
use common::program::{EXIT_DONE, EXIT_ERROR, connect_within, die_with_parent, fail, is_gone, set_process_name, tell};
use common::{Endpoint, Producer, log};
use rand::RngExt;

use cli::Cli;
use source::Source;

/// What this program calls itself in messages.
const PROGRAM: &str = "producer";

/// Runs the program with these arguments, the first being its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_checked(arguments);
    log::start(PROGRAM);
    if let Some(parent) = cli.child_of {
        set_process_name("producer");
        if !die_with_parent(parent, false) {
            return ExitCode::from(EXIT_ERROR);
        }
    }
    match run(&cli) {
        Ok(()) => ExitCode::from(EXIT_DONE),
        // Its coordinator knows.
        Err(error) if cli.child_of.is_some() && is_gone(&error) => ExitCode::from(EXIT_ERROR),
        Err(error) => fail(PROGRAM, &*error, format_args!("{error:#}")),
    }
}

fn run(cli: &Cli) -> Result<()> {
    let mut source = match &cli.input {
        Some(input) => Some(Source::open(input, cli.format)?.shown_as(cli.shown_as.as_deref())),
        None => None,
    };
    let endpoint = Endpoint::named(cli.socket.as_deref()).with_spin(cli.spin).with_reconnect(cli.reconnect).with_narrator(PROGRAM);
    let producer = connect(&endpoint, cli, source.as_ref())?;
    if cli.child_of.is_none() {
        let pid = producer.coordinator_pid();
        tell(PROGRAM, format_args!("connected to the coordinator (pid {pid}) at {}", endpoint.path().display()));
    }
    let resumed_at = producer.resumed_at().0;
    if resumed_at > 0 {
        let (of, other) = match &source {
            Some(source) if cli.child_of.is_some() => (format!(" of {}", source.name()), "queue"),
            _ => (String::new(), "--name"),
        };
        tell(PROGRAM, format_args!("{resumed_at} items{of} are put already; going on behind them (another {other} begins anew)"));
    }
    match &mut source {
        Some(source) => put_all(&producer, source)?,
        None => put_random_numbers(&producer, cli)?,
    }
    producer.finish().context("cannot finish")
}

fn connect(endpoint: &Endpoint, cli: &Cli, source: Option<&Source>) -> Result<Producer<[u8]>> {
    let name = cli.name.as_deref().unwrap_or_default();
    let producer = connect_within(cli.wait, || Producer::connect_named(endpoint, name))?;
    let own_name = || source?.producer_name(cli.input.as_deref()?);
    match own_name() {
        // A journal keeps what an input has given, so that one that is put again after a crash is not put twice. Without one, to put
        // an input again means just that.
        Some(name) if cli.name.is_none() && producer.resumed_checksum().is_some() => Ok(Producer::connect_named(endpoint, &name)?),
        _ => Ok(producer),
    }
}

/// Puts all of a source's items. What is put before an error stays put.
fn put_all(producer: &Producer<[u8]>, source: &mut Source) -> Result<()> {
    let resumed_at = producer.resumed_at().0;
    if resumed_at > 0 {
        source.skip(resumed_at, producer.resumed_checksum()).context("cannot go on where an earlier producer of this name was")?;
    }
    let item_bytes_max = producer.item_bytes_max();
    loop {
        let read = source.next(item_bytes_max);
        let stopped = match read {
            Ok(Some(item)) => match producer.put(item) {
                Ok(()) => continue,
                Err(error) => anyhow::Error::from(error),
            },
            Ok(None) => return Ok(()),
            Err(error) => error,
        };
        // What was read before the trouble is to arrive; if the coordinator is the trouble, this fails likewise.
        let _ = producer.flush();
        let confirmed = producer.confirmed();
        let items = match confirmed.0 {
            0 => "before its first item".into(),
            1 => "after 1 item, which is accepted".into(),
            items => format!("after {items} items, all of them accepted"),
        };
        return Err(stopped.context(format!("stopped {items}")));
    }
}

/// Puts `--count` random numbers, with a random pause after each.
fn put_random_numbers(producer: &Producer<[u8]>, cli: &Cli) -> Result<()> {
    let mut rng = rand::rng();
    for _ in producer.resumed_at().0..cli.count {
        let number: u8 = rng.random_range(1..=100);
        // Said before it is put, so that no consumer's line about it can come first.
        say(&format!("Producer: Put {number} into the queue."))?;
        match producer.put(number.to_string().as_bytes()) {
            Err(Error::Closed { words, .. }) => bail!("the coordinator refuses: {words}; start another to put more"),
            put => put?,
        }
        pause(&mut rng, cli.pause.0);
    }
    Ok(())
}

/// Writes a line to stdout in one piece, so that the lines of several programs do not mix.
fn say(line: &str) -> Result<()> {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).context("cannot write to stdout")
}

fn pause(rng: &mut impl rand::Rng, longest: Duration) {
    if longest.is_zero() {
        return;
    }
    let until = Instant::now() + longest.mul_f64(rng.random_range(0.0..1.0));
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}
