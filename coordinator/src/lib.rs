//! The coordinator: owns the queue and its socket, starts and watches producers and consumers, writes the results.
//!
//! # Layout
//!
//! In the order in which data passes:
//! - [`broker`]: the loop, one thread that owns all of this; [`connection`]: one client's bytes in and out;
//!   [`door`]: who may connect;
//! - [`queue`]: what happens to items, without any I/O; [`writer`]: results and dead letters on their way out; [`journal`]: what outlives
//!   the coordinator; [`sharing`], [`jetstream`]: a queue that many machines share; [`keeper`]: which of them it is;
//!
//! and around it:
//! - [`cli`]: the command line; [`run`]: a run from its start to its exit code; [`dry_run`]: what it would do; [`children`], [`orphans`]: processes started,
//!   watched and ended; [`supervisor`]: when one is started again; [`halt`]: when all is given up; [`manual`], [`completions`]: manual pages, and what shells are told;
//!   [`steer`]: steering a coordinator that runs; [`systemd`]: as a service; [`limits`]: every limit with its reason;
//! - to be seen: [`status`], [`metrics`]: the queue's figures; [`progress`]: how a run gets on; [`top`]: a live view; [`figures`]: how their threads get
//!   what they show; [`pace`], [`words`], [`style`]: rates, numbers and characters.

pub mod broker;
pub mod children;
pub mod cli;
pub mod completions;
pub mod connection;
pub mod door;
pub mod dry_run;
pub mod figures;
pub mod halt;
pub mod jetstream;
pub mod journal;
pub mod keeper;
pub mod limits;
pub mod manual;
mod marks;
pub mod metrics;
pub mod orphans;
pub mod outputs;
pub mod pace;
pub mod progress;
pub mod queue;
pub mod run;
pub mod sharing;
pub mod status;
pub mod steer;
pub mod style;
pub mod supervisor;
pub mod systemd;
pub mod top;
pub mod words;
pub mod writer;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use common::program::{EXIT_DONE, EXIT_ERROR, EXIT_IN_USE, fail, tell};
use common::{Control, Endpoint, log};

use cli::{Cli, Command, JournalCommand, StatusArgs};
use journal::{JournalError, inspect};

/// What this program calls itself in messages.
pub(crate) const PROGRAM: &str = "coordinator";

/// Runs the program with these arguments, the first being its name: of the program itself or of a role that it plays.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    match name.and_then(|name| name.to_str()) {
        Some("producer") => return producer::main(arguments),
        Some("consumer") => return consumer::main(arguments),
        _ => {}
    }
    let cli = Cli::parse_checked(arguments);
    log::start(PROGRAM);
    match run_command(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_journal_in_use(&error) => {
            tell(PROGRAM, format_args!("{error:#}"));
            ExitCode::from(EXIT_IN_USE)
        }
        Err(error) => fail(PROGRAM, &*error, format_args!("{error:#}")),
    }
}

fn is_journal_in_use(error: &anyhow::Error) -> bool {
    error.chain().any(|link| matches!(link.downcast_ref(), Some(JournalError::InUse { .. })))
}

fn run_command(cli: &Cli) -> Result<u8> {
    match &cli.command {
        None => run::run(&cli.run, checked(&cli.run.queue, expected_producers(&cli.run))),
        Some(Command::Serve(args)) => run::serve(args, checked(&args.queue, args.expect_producers)),
        Some(Command::Status(args)) => {
            let status = Control::connect(&Endpoint::named(args.socket.as_deref()))?.status()?;
            let shown = match args {
                StatusArgs { json: true, .. } => status::as_json(&status) + "\n",
                StatusArgs { prometheus: true, .. } => status::prometheus::as_text(&status),
                _ => status::in_words(&status),
            };
            print(shown.as_bytes())
        }
        Some(Command::Top(args)) => top::top(&Endpoint::named(args.socket.as_deref()), args.interval),
        Some(Command::Journal(args)) => look_at_journal(&args.command),
        Some(Command::Completions(args)) => match &args.dir {
            Some(folder) => completions::write(args.shell, folder).map(|()| EXIT_DONE),
            None => print(&completions::script(args.shell)),
        },
        Some(Command::Man(args)) => match &args.dir {
            Some(folder) => manual::write_pages(folder).map(|()| EXIT_DONE),
            None => print(&manual::page(&args.name)?),
        },
        Some(Command::Stop(args)) => steer::stop(args),
        Some(Command::Pause(args)) => steer::pause(args),
        Some(Command::Resume(args)) => steer::resume(args),
        Some(Command::Dead(args)) => steer::dead(args),
    }
}

fn look_at_journal(command: &JournalCommand) -> Result<u8> {
    let (shown, code) = match command {
        JournalCommand::Inspect { dir, json } => {
            let summary = inspect::inspect(dir)?;
            (if *json { inspect::as_json(&summary) + "\n" } else { inspect::in_words(&summary) }, EXIT_DONE)
        }
        JournalCommand::Verify { dir } => {
            let verdict = inspect::verify(dir)?;
            for problem in &verdict.problems {
                tell(PROGRAM, format_args!("{}: {problem}", dir.display()));
            }
            let inspect::Verdict { batches, items, problems } = verdict;
            let (found, code) = match problems.len() {
                0 => ("all is well".into(), EXIT_DONE),
                1 => ("1 problem".into(), EXIT_ERROR),
                problems => (format!("{problems} problems"), EXIT_ERROR),
            };
            (format!("{}: {found}; {items} items in {batches} batches were checked\n", dir.display()), code)
        }
    };
    print(shown.as_bytes())?;
    Ok(code)
}

fn print(bytes: &[u8]) -> Result<u8> {
    std::io::stdout().lock().write_all(bytes).context("cannot write to stdout")?;
    Ok(EXIT_DONE)
}

fn expected_producers(run: &cli::RunArgs) -> Option<u64> {
    Some(if run.is_default() { u64::from(run.producers) } else { run.input.len() as u64 })
}

/// The queue's rules, or the end with a usage error.
fn checked(args: &cli::QueueArgs, producers_expected: Option<u64>) -> queue::Rules {
    args.rules(producers_expected).unwrap_or_else(|error| Cli::dressed().error(clap::error::ErrorKind::ValueValidation, error).exit())
}
