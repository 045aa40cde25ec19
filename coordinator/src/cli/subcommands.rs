//! What can be said to the subcommands that serve no queue.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use crate::completions::Shell;
use crate::limits::{TOP_INTERVAL_MAX, TOP_INTERVAL_MIN};

/// Asking.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As one line of JSON
    #[arg(long, env = "PROCQ_JSON")]
    pub json: bool,

    /// In Prometheus' text format
    #[arg(long, env = "PROCQ_PROMETHEUS", conflicts_with = "json")]
    pub prometheus: bool,

    /// The queue's socket [default: one per user]
    ///
    /// By default $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,
}

/// Watching.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// How often to look
    #[arg(long, value_name = "DUR", value_parser = interval, default_value = "1s", env = "PROCQ_INTERVAL")]
    pub interval: Duration,

    /// The queue's socket [default: one per user]
    ///
    /// By default $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,
}

/// Ending.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// At once: what is not settled is left
    #[arg(long)]
    pub now: bool,

    /// The queue's socket [default: one per user]
    ///
    /// By default $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,
}

/// Which coordinator.
#[derive(Debug, Args)]
pub struct SocketArgs {
    /// The queue's socket [default: one per user]
    ///
    /// By default $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,
}

/// Dealing with dead letters.
#[derive(Debug, Args)]
pub struct DeadArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: DeadCommand,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// Show them, a line each
    #[command(after_help = "Examples:
  coordinator dead list
  coordinator dead list --json | jq -r .item > again.txt")]
    List {
        /// As lines of JSON, like those of --dead-letters
        #[arg(long, env = "PROCQ_JSON")]
        json: bool,

        /// Which coordinator.
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Put them into the queue again
    ///
    /// Each becomes a new item, with a number of its own and all its attempts before it. It needs room like any other.
    #[command(after_help = "Examples:
  coordinator dead requeue 7 12
  coordinator dead requeue --all")]
    Requeue(WhichDead),
    /// Forget them
    #[command(after_help = "Examples:
  coordinator dead drop 7 12
  coordinator dead drop --all")]
    Drop(WhichDead),
}

/// Some dead letters of a coordinator.
#[derive(Debug, Args)]
pub struct WhichDead {
    /// The numbers of their items
    #[arg(value_name = "ID", value_parser = item_number, conflicts_with = "all")]
    pub ids: Vec<u64>,

    /// All that there are now
    #[arg(long)]
    pub all: bool,

    /// Which coordinator.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Looking at a journal.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: JournalCommand,
}

/// What can be done with a journal. Neither changes it.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Show what is in it
    #[command(after_help = "Examples:
  coordinator journal inspect queue
  coordinator journal inspect --json queue")]
    Inspect {
        /// The journal's directory
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,

        /// As one line of JSON
        #[arg(long, env = "PROCQ_JSON")]
        json: bool,
    },
    /// Check all of it; exit code 1 if anything is wrong
    Verify {
        /// The journal's directory
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// Completing.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,

    /// Write a file for each program into DIR instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, env = "PROCQ_DIR")]
    pub dir: Option<PathBuf>,
}

/// Explaining.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// `producer`, `consumer`, or a subcommand: `serve`, `journal inspect`
    #[arg(value_name = "NAME")]
    pub name: Vec<String>,

    /// Write all pages into DIR instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, env = "PROCQ_DIR", conflicts_with = "name")]
    pub dir: Option<PathBuf>,
}

fn item_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not an item's number; `coordinator dead list` shows them".into())
}

/// How often to look at a coordinator: not so often that it has much to do with that.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let range = TOP_INTERVAL_MIN..=TOP_INTERVAL_MAX;
    if range.contains(&interval) {
        return Ok(interval);
    }
    let [min, max] = [range.start(), range.end()].map(|bound| humantime::format_duration(*bound));
    Err(format!("at least {min}, at most {max}"))
}
