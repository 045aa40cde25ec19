//! What is done with an item, and how it is settled by what came of that.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use common::backoff::Backoff;
use common::program::{COMMAND_ASKS_RETRY, COMMAND_REJECTS, EXIT_DONE, EXIT_OUTPUT_CLOSED};
use common::{Consumer, Delivery};
use rand::RngExt;

use crate::cli::{Cli, Sink};
use crate::command::{Command, Ending, Running, took_too_long};
use crate::joblog::{Attempt, Began, JobLog, Outcome};
use crate::unless_expired;

/// What working on an item came to.
#[derive(Default)]
pub enum Settled {
    /// On to the next.
    #[default]
    AndOn,
    /// This was the last one; the program's exit code.
    AndEnd(u8),
}

/// Works on items, one at a time.
pub struct OneByOne<'a> {
    sink: Sink,
    command: Option<(Command, &'a Running)>,
    retry_delay: Backoff,
    pause: Duration,
    connects_again: bool,
    separator: u8,
    joblog: Option<JobLog>,
    record: Vec<u8>,
}

impl<'a> OneByOne<'a> {
    /// As the command line says.
    pub fn new(cli: &Cli, command: Option<Command>, joblog: Option<JobLog>, running: &'a Running) -> OneByOne<'a> {
        OneByOne {
            sink: cli.sink,
            command: command.map(|command| (command, running)),
            retry_delay: cli.retry_delay,
            pause: Duration::from_millis(cli.pause_ms),
            connects_again: !cli.reconnect.is_zero(),
            separator: cli.format.separator(),
            joblog,
            record: Vec::new(),
        }
    }

    /// Works on one item and settles it. One that was taken back meanwhile, since it took too long, is nobody's concern here any more.
    pub fn work_on(&mut self, delivery: Delivery<'_, [u8]>, consumer: &Consumer<[u8]>) -> Result<Settled> {
        unless_expired(self.work(delivery, consumer))
    }

    fn work(&mut self, delivery: Delivery<'_, [u8]>, consumer: &Consumer<[u8]>) -> Result<Settled> {
        if self.command.is_some() {
            return self.run_command(delivery, consumer);
        }
        match self.sink {
            Sink::Lines => self.echo(delivery, b'\n'),
            Sink::Nul => self.echo(delivery, 0),
            Sink::Print => {
                self.record.clear();
                self.record.extend_from_slice(delivery.item());
                self.record.push(self.separator);
                print(&self.record, delivery)
            }
            Sink::Narrate => {
                let item = String::from_utf8_lossy(delivery.item());
                let line = format!("Consumer: Got {item} from the queue.\n");
                let settled = print(line.as_bytes(), delivery)?;
                self.take_a_pause();
                Ok(settled)
            }
        }
    }

    /// Stop has come.
    pub fn stopped(&mut self) -> Result<()> {
        if self.sink == Sink::Narrate && self.command.is_none() {
            let line = b"Consumer: Received termination signal.\n";
            io::stdout().lock().write_all(line).context("cannot write to stdout")?;
        }
        Ok(())
    }

    fn echo(&mut self, delivery: Delivery<'_, [u8]>, end: u8) -> Result<Settled> {
        self.record.clear();
        self.record.extend_from_slice(delivery.item());
        self.record.push(end);
        delivery.ack_with(&self.record)?;
        Ok(Settled::AndOn)
    }

    fn run_command(&mut self, delivery: Delivery<'_, [u8]>, consumer: &Consumer<[u8]>) -> Result<Settled> {
        let Some((command, running)) = &mut self.command else { return Ok(Settled::AndOn) };
        let began = Began::now();
        let ending = command.run(&delivery, consumer, running)?;
        let (pid, mut bytes, mut exit, mut signal) = (command.pid(), 0, None, None);
        let (outcome, cause) = match &ending {
            Ending::Exited { code, output } => {
                exit = Some(*code);
                match *code {
                    0 => {
                        bytes = output.len();
                        (Outcome::Done, String::new())
                    }
                    COMMAND_ASKS_RETRY => (Outcome::Retry, format!("{command} asked for a later retry (exit status {code})")),
                    COMMAND_REJECTS => (Outcome::Rejected, format!("{command} rejected it (exit status {code})")),
                    _ => (Outcome::Failed, format!("{command}: exit status {code}")),
                }
            }
            Ending::Signalled { signal: by } => {
                signal = Some(*by);
                (Outcome::Failed, format!("{command}: ended by signal {by}"))
            }
            Ending::Failed { cause } => (Outcome::Failed, format!("{command}: {cause}")),
            Ending::TimedOut { item_timeout } => (Outcome::Failed, format!("{command}: {}", took_too_long(*item_timeout))),
            Ending::Unsuitable { cause } => (Outcome::Rejected, format!("{command}: {cause}")),
            Ending::ConnectionLost => (Outcome::Lost, "the connection was lost".into()),
            Ending::NotStarted { error } => {
                delivery.give_back_unstarted()?;
                return Err(anyhow!("cannot start {command}: {error}"));
            }
        };
        let why = Some(&cause[..]).filter(|cause| !cause.is_empty());
        let attempt = Attempt { pid, began, exit, signal, bytes, outcome, cause: why };
        let delivery = JobLog::note(self.joblog.as_ref(), delivery, &attempt)?;
        match (outcome, ending) {
            (Outcome::Done, Ending::Exited { output, .. }) if !output.is_empty() => delivery.ack_with(&output)?,
            (Outcome::Done, _) => delivery.ack()?,
            (Outcome::Retry, _) => {
                let wait = self.retry_delay.spread(delivery.attempt(), delivery.id().0);
                delivery.retry_after(wait)?;
            }
            (Outcome::Rejected, _) => delivery.reject(cause)?,
            (Outcome::Failed, _) => delivery.fail(cause)?,
            (Outcome::Lost, _) => {
                if let Err(error @ common::Error::Expired { .. }) = delivery.release() {
                    return Err(error.into());
                }
                if !self.connects_again {
                    return Err(common::Error::Gone(format!("{command} was ended with it")).into());
                }
            }
        }
        Ok(Settled::AndOn)
    }

    fn take_a_pause(&self) {
        if !self.pause.is_zero() {
            let until = Instant::now() + self.pause.mul_f64(rand::rng().random_range(0.0..1.0));
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
}

/// Writes in one piece, then acknowledges. When nobody reads any more, the item goes back and the program ends, quietly.
fn print(record: &[u8], delivery: Delivery<'_, [u8]>) -> Result<Settled> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(record).and_then(|()| stdout.flush()) {
        Ok(()) => {
            delivery.ack()?;
            Ok(Settled::AndOn)
        }
        Err(error) => {
            delivery.give_back_unstarted()?;
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Ok(Settled::AndEnd(EXIT_OUTPUT_CLOSED));
            }
            Err(error).context("cannot write to stdout")
        }
    }
}

const _: () = assert!(EXIT_DONE == 0, "a command's exit code 0 acknowledges");
