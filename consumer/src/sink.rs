//! What is done with an item, and how it is settled by what came of that.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use common::backoff::Backoff;
use common::program::{COMMAND_ASKS_RETRY, COMMAND_REJECTS, EXIT_DONE, EXIT_OUTPUT_CLOSED, tell};
use common::{Consumer, Delivery};
use rand::RngExt;

use crate::PROGRAM;
use crate::cli::{Cli, Sink};
use crate::command::{Command, Ending, Running};

/// What working on an item came to.
pub enum Settled {
    /// On to the next.
    AndOn,
    /// This was the last one; the program's exit code.
    AndEnd(u8),
}

/// Works on items, one at a time.
pub struct Worker<'a> {
    sink: Sink,
    command: Option<(Command, &'a Running)>,
    retry_delay: Backoff,
    pause: Duration,
    connects_again: bool,
    record: Vec<u8>,
}

impl<'a> Worker<'a> {
    /// As the command line says.
    pub fn new(cli: &Cli, command: Option<Command>, running: &'a Running) -> Result<Worker<'a>> {
        Ok(Worker {
            sink: cli.sink,
            command: command.map(|command| (command, running)),
            retry_delay: cli.retry_delay,
            pause: Duration::from_millis(cli.pause_ms),
            connects_again: !cli.reconnect.is_zero(),
            record: Vec::new(),
        })
    }

    /// Works on one item and settles it. One that was taken back meanwhile, since it took too long, is nobody's concern here any more.
    pub fn work_on(&mut self, delivery: Delivery<'_, [u8]>, consumer: &Consumer<[u8]>) -> Result<Settled> {
        self.work(delivery, consumer).or_else(|error| match error.downcast_ref() {
            Some(expired @ common::Error::Expired { .. }) => {
                tell(PROGRAM, format_args!("{expired}"));
                Ok(Settled::AndOn)
            }
            _ => Err(error),
        })
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
                self.record.push(b'\n');
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
        let ending = command.run(&delivery, consumer, running)?;
        match ending {
            Ending::Exited { code: 0, output } if output.is_empty() => delivery.ack()?,
            Ending::Exited { code: 0, output } => delivery.ack_with(&output)?,
            Ending::Exited { code: COMMAND_ASKS_RETRY, .. } => {
                let wait = self.retry_delay.spread(delivery.attempt(), delivery.id().0);
                delivery.retry_after(wait)?;
            }
            Ending::Exited { code: COMMAND_REJECTS, .. } => {
                delivery.reject(format!("{command} rejected it (exit status {COMMAND_REJECTS})"))?
            }
            Ending::Exited { code, .. } => delivery.fail(format!("{command}: exit status {code}"))?,
            Ending::Signalled { signal } => delivery.fail(format!("{command}: ended by signal {signal}"))?,
            Ending::Failed { cause } => delivery.fail(format!("{command}: {cause}"))?,
            Ending::TimedOut { item_timeout } => {
                let after = humantime::format_duration(item_timeout);
                delivery.fail(format!("{command}: took longer than {after}"))?;
            }
            Ending::Unsuitable { cause } => delivery.reject(format!("{command}: {cause}"))?,
            Ending::NotStarted { error } => {
                delivery.give_back_unstarted()?;
                return Err(error).with_context(|| format!("cannot start {command}"));
            }
            Ending::ConnectionLost => {
                if let Err(error @ common::Error::Expired { .. }) = delivery.release() {
                    return Err(error.into());
                }
                if self.connects_again {
                    return Ok(Settled::AndOn);
                }
                let words = format!("{command} was ended with it");
                return Err(common::Error::Gone(words).into());
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
