//! The consumer's command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum, ValueHint};
use common::backoff::Backoff;
use common::command_line;

const EXAMPLES: &str = "\
Examples:
  consumer > items.txt
  consumer --wait 5s -- convert {} {}.png
Exit codes: 0 done, 1 error, 2 usage, 69 no coordinator, 128+signal";

/// Takes items out of a procq queue: prints each, or runs a command for each
///
/// Until the queue has ended. Start as many as you like, and kill any: what one held goes to the others at once.
#[derive(Clone, Debug, Parser)]
#[command(name = "consumer", after_help = EXAMPLES)]
pub struct Cli {
    /// The coordinator's socket [default: one per user]
    ///
    /// By default $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, env = "PROCQ_SOCKET", help_heading = "Connection")]
    pub socket: Option<OsString>,

    /// Wait this long for a coordinator that is about to come up
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_WAIT", help_heading = "Connection")]
    pub wait: Duration,

    /// When the connection is lost, try this long to connect again
    ///
    /// As when the coordinator is killed and started again. Nothing is put twice; what a consumer held is delivered again.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_RECONNECT",
        help_heading = "Connection")]
    pub reconnect: Duration,

    /// Ask for N items ahead of the one at hand
    ///
    /// Instead of as many as their pace suggests: many while they are short, none while they take long.
    #[arg(long, value_name = "N", env = "PROCQ_PREFETCH", help_heading = "Work", hide_short_help = true)]
    pub prefetch: Option<u32>,

    /// How soon an item comes again after exit 75
    ///
    /// At first, and at most. A command that ends with exit status 75 asks for a later retry; the delay doubles from one to the next of the same item.
    #[arg(long, value_name = "DUR..DUR", default_value = "1s..60s", env = "PROCQ_RETRY_DELAY", help_heading = "Work")]
    pub retry_delay: Backoff,

    /// CMD stays up: a line in, a line out per item
    ///
    /// It is started once. It gets one item a line on its stdin, and answers each, in order, with one line on its stdout, flushed. If it ends, the
    /// item that it was at has failed, and it is started again.
    #[arg(long, env = "PROCQ_WORKER", help_heading = "Work")]
    pub worker: bool,

    /// What ends an item that is printed, or a worker's
    ///
    /// And each answer of a worker.
    #[arg(long, value_enum, default_value_t = Format::Lines, env = "PROCQ_FORMAT", help_heading = "Work", hide_short_help = true)]
    pub format: Format,

    /// Append a JSON line for each attempt to FILE
    ///
    /// Its fields: id, attempt, pid, start and duration (in seconds), exit, signal, bytes (of the result), outcome, and a cause unless done.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_JOBLOG", help_heading = "Work", hide_short_help = true)]
    pub joblog: Option<PathBuf>,

    /// What to do with items when there is no command
    #[arg(long, value_enum, default_value_t = Sink::Print, hide = true)]
    pub sink: Sink,

    /// The longest pause after each item in the narrated default run, in milliseconds
    #[arg(long, default_value_t = 0, hide = true)]
    pub pause_ms: u64,

    /// Before sleeping, keep looking for news this long, say 50us
    ///
    /// Lower latency for a busy core; pays only where one is free for each process that waits.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_SPIN", hide_short_help = true)]
    pub spin: Duration,

    /// The coordinator that started this process, to die with it
    #[arg(long, value_name = "PID", hide = true)]
    pub child_of: Option<u32>,

    /// Run this per item (`{}`, or stdin): exit 0 done, 75 later, 65 never
    ///
    /// `{}` in an argument is replaced by the item; without `{}` the item is the command's stdin. What the command prints is the item's result,
    /// which the coordinator writes. Exit status 0 means that the item is done, 75 that it is to come again later, 65 that it can never succeed
    /// and is a dead letter at once; anything else, or a signal, is a failed attempt. PROCQ_ITEM_ID, PROCQ_ATTEMPT and PROCQ_SOCKET are in its
    /// environment.
    #[arg(last = true, value_name = "CMD", help_heading = "Work", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// What ends an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line end.
    #[value(alias = "json")]
    Lines,
    /// A NUL byte.
    Nul,
}

impl Format {
    /// The byte that ends it.
    pub fn separator(self) -> u8 {
        match self {
            Format::Lines => b'\n',
            Format::Nul => 0,
        }
    }
}

impl Cli {
    /// The command line as it is shown to people.
    pub fn dressed() -> clap::Command {
        command_line::dressed(Cli::command())
    }

    /// Parses arguments, the first being the program's name; ends the program if they make no sense.
    pub fn parse_checked(arguments: impl IntoIterator<Item = OsString>) -> Cli {
        let matches = command_line::parse(Cli::dressed(), arguments);
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let Some(words) = cli.what_is_missing() {
            Cli::dressed().error(ErrorKind::MissingRequiredArgument, words).exit();
        }
        // In the environment, it may be for others.
        if !cli.command.is_empty() && !cli.worker && matches.value_source("format") == Some(ValueSource::CommandLine) {
            let words = "--format is for items that are printed or given to a --worker; a command gets its item as it is";
            Cli::dressed().error(ErrorKind::ArgumentConflict, words).exit();
        }
        cli
    }

    fn what_is_missing(&self) -> Option<&'static str> {
        match () {
            () if !self.command.is_empty() => None,
            () if self.worker => Some("--worker needs the worker's command at the end: -- CMD"),
            () if self.joblog.is_some() => Some("--joblog notes the attempts of a command, and there is none; give it at the end: -- CMD"),
            () => None,
        }
    }
}

/// What becomes of items without a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sink {
    /// Each is printed as a line.
    Print,
    /// Each is its own result, a line, which the coordinator writes.
    Lines,
    /// Each is its own result, with a NUL behind it.
    Nul,
    /// Each is told of, as in the default run.
    Narrate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
