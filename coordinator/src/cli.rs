//! The coordinator's command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use common::Endpoint;
use common::backoff::Backoff;
use common::limits::{CAPACITY_BYTES_DEFAULT, CAPACITY_ITEMS_DEFAULT, ITEM_BYTES_MAX_CEILING, ITEM_BYTES_MAX_DEFAULT, batch_cost_bytes};
use producer::cli::{Format, Pause, refuse_given};

use crate::journal::Fsync;
use crate::limits::{NEAR_BYTES, TOP_INTERVAL_MAX, TOP_INTERVAL_MIN, UNWRITTEN_BYTES_MAX};
use crate::metrics::Loopback;
use crate::progress::When;
use crate::queue::{Rules, Window};

const EXAMPLES: &str = "\
Examples:
  find . -name '*.rs' -print0 | coordinator --input - --format nul -- sha256sum {}
  coordinator --input urls.txt --consumers 8 --dead-letters failed.jsonl -- curl -sSfO {}
  coordinator serve            then, elsewhere: producer --input FILE, consumer -- CMD

Exit codes: 0 done, 1 error, 2 usage, 3 done with dead letters, 69 no coordinator, 73 socket in use, 128+n signal n.";

/// A bounded work queue between processes that nothing can wedge. Without --input: a small demonstration.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, about, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of a run.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the coordinator can do besides a run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a queue to producers and consumers that are started by others, until stopped
    Serve(Box<ServeArgs>),
    /// Show what a coordinator's queue is doing
    Status(StatusArgs),
    /// Show it live, over the whole screen: figures and their course, each producer and consumer and what it has at hand
    Top(TopArgs),
    /// End a coordinator: by default it takes no more items and ends once all are settled
    Stop(StopArgs),
    /// Look at a journal that no coordinator has open
    Journal(JournalArgs),
}

/// A run from inputs to results, or the default run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Read items from FILE, `-` for stdin; may be repeated, each input is a producer of its own
    #[arg(long, value_name = "FILE", env = "PROCQ_INPUT", help_heading = "Input")]
    pub input: Vec<PathBuf>,

    /// What an item is in the inputs
    #[arg(long, value_enum, default_value_t = Format::Lines, env = "PROCQ_FORMAT", help_heading = "Input")]
    pub format: Format,

    /// How many consumers to start [default: one per CPU with --input, else 1]
    #[arg(long, value_name = "N", env = "PROCQ_CONSUMERS", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Work")]
    pub consumers: Option<u32>,

    /// Let each consumer ask for N items ahead, instead of as many as their pace suggests
    #[arg(long, value_name = "N", env = "PROCQ_PREFETCH", help_heading = "Work")]
    pub prefetch: Option<u32>,

    /// In the default run: how many producers of random numbers to start
    #[arg(long, value_name = "N", default_value_t = 1, env = "PROCQ_PRODUCERS",
        value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Default run")]
    pub producers: u32,

    /// In the default run: how many numbers each producer puts
    #[arg(long, value_name = "N", default_value_t = 5, env = "PROCQ_COUNT", help_heading = "Default run")]
    pub count: u64,

    /// In the default run: the longest pause after each number, a duration or `none`
    #[arg(long, value_name = "DUR", default_value = "1s", env = "PROCQ_PAUSE", help_heading = "Default run")]
    pub pause: Pause,

    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,

    /// Run this for each item; `{}` in an argument is replaced by the item, without `{}` the item is the command's stdin.
    /// What it prints is the result. Exit 0: done; 75: again later; 65: dead letter at once; else: failed attempt
    #[arg(last = true, value_name = "CMD", requires = "input")]
    pub command: Vec<OsString>,
}

/// Serving.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// End once N producers have finished and all their items are settled
    #[arg(long, value_name = "N", env = "PROCQ_EXPECT_PRODUCERS")]
    pub expect_producers: Option<u64>,

    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,
}

/// A queue's bounds and rules.
#[derive(Debug, Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueArgs {
    /// The socket [default: $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock]
    #[arg(long, value_name = "PATH", env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,

    /// The most items in the queue, those that consumers hold included
    #[arg(long, value_name = "ITEMS", default_value_t = CAPACITY_ITEMS_DEFAULT, env = "PROCQ_CAPACITY",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub capacity: u64,

    /// The most bytes in the queue
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(CAPACITY_BYTES_DEFAULT), env = "PROCQ_CAPACITY_BYTES")]
    pub capacity_bytes: ByteSize,

    /// The largest item, and the largest result [default: 16MiB, or as much as --capacity-bytes can hold]
    #[arg(long, value_name = "SIZE", env = "PROCQ_MAX_ITEM")]
    pub max_item: Option<ByteSize>,

    /// How often an item may fail before it goes to the dead letters
    #[arg(long, value_name = "N", default_value_t = 5, env = "PROCQ_MAX_ATTEMPTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,

    /// How soon a failed item comes again: at first, doubling, and at most
    #[arg(long, value_name = "DUR..DUR", default_value = "1s..60s", env = "PROCQ_RETRY_DELAY")]
    pub retry_delay: Backoff,

    /// Append dead letters to FILE as JSON lines, instead of writing one line each to stderr
    #[arg(long, value_name = "FILE", env = "PROCQ_DEAD_LETTERS")]
    pub dead_letters: Option<PathBuf>,

    /// Write results to FILE instead of stdout; with --journal, each exactly once however often the coordinator dies
    #[arg(long, value_name = "FILE", env = "PROCQ_OUTPUT")]
    pub output: Option<PathBuf>,

    /// Keep the queue in DIR, so that it outlives the coordinator: started again with the same line, the run goes on where it was
    #[arg(long, value_name = "DIR", env = "PROCQ_JOURNAL")]
    pub journal: Option<PathBuf>,

    /// What a confirmed item in the journal survives: `always`, the machine's death too; `never`, that of processes alone
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Fsync::Always, env = "PROCQ_FSYNC")]
    pub fsync: Fsync,

    /// After the first INT or TERM, how long to wait for what consumers hold
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "10s", env = "PROCQ_GRACE")]
    pub grace: Duration,

    /// Show on stderr how the run gets on; `auto`: a run with --input, on a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto, env = "PROCQ_PROGRESS")]
    pub progress: When,

    /// Serve the queue's figures for Prometheus at http://ADDR/metrics, say 127.0.0.1:9464; on loopback only, to anyone on this machine
    #[arg(long, value_name = "ADDR", env = "PROCQ_METRICS")]
    pub metrics: Option<Loopback>,

    /// Before sleeping, keep looking for news this long, say 50us: lower latency for a busy core; pays only where one is free
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_SPIN")]
    pub spin: Duration,
}

/// Asking.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As one line of JSON
    #[arg(long, env = "PROCQ_JSON")]
    pub json: bool,

    /// In Prometheus' text format
    #[arg(long, env = "PROCQ_PROMETHEUS", conflicts_with = "json")]
    pub prometheus: bool,

    /// The socket [default: $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock]
    #[arg(long, value_name = "PATH", env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,
}

/// Watching.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// How often to look
    #[arg(long, value_name = "DUR", value_parser = interval, default_value = "1s", env = "PROCQ_INTERVAL")]
    pub interval: Duration,

    /// The socket [default: $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock]
    #[arg(long, value_name = "PATH", env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,
}

/// Ending.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// At once: what is not settled is left
    #[arg(long, env = "PROCQ_NOW")]
    pub now: bool,

    /// The socket [default: $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock]
    #[arg(long, value_name = "PATH", env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,
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
    Inspect {
        /// The journal's directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,

        /// As one line of JSON
        #[arg(long, env = "PROCQ_JSON")]
        json: bool,
    },
    /// Check all of it; exit code 1 if anything is wrong
    Verify {
        /// The journal's directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
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

impl Cli {
    /// Parses arguments, the first being the program's name; ends the program if they make no sense.
    pub fn parse_checked(arguments: impl IntoIterator<Item = OsString>) -> Cli {
        let mut command = Cli::command();
        let matches = command.clone().get_matches_from(arguments);
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if !cli.run.input.is_empty() {
            refuse_given(&mut command, &matches, &["producers", "count", "pause"], "is for the default run, and there is an --input");
        }
        if cli.run.input.iter().filter(|input| *input == Path::new("-")).count() > 1 {
            let words = "stdin (--input -) can be read only once";
            command.error(ErrorKind::ArgumentConflict, words).exit();
        }
        cli
    }
}

impl QueueArgs {
    /// The socket of this queue.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::named(self.socket.as_deref())
    }

    /// The queue's rules; an error says which bounds do not go together.
    pub fn rules(&self, producers_expected: Option<u64>) -> Result<Rules, String> {
        // One item alone in its batch costs this beyond its own bytes.
        let around = batch_cost_bytes(4);
        let capacity_bytes = self.capacity_bytes.as_u64();
        let Some(most) = capacity_bytes.checked_sub(around) else {
            return Err(format!("--capacity-bytes {capacity_bytes} holds no item: at least {around} bytes are needed"));
        };
        let item_bytes_max = match self.max_item {
            Some(size) => size.as_u64(),
            None => ITEM_BYTES_MAX_DEFAULT.min(most),
        };
        if item_bytes_max > ITEM_BYTES_MAX_CEILING {
            return Err(format!(
                "--max-item {item_bytes_max} is over the limit of {ITEM_BYTES_MAX_CEILING} bytes; put a file's name instead of its contents"
            ));
        }
        if item_bytes_max > most {
            return Err(format!(
                "--max-item {item_bytes_max} does not fit into --capacity-bytes {capacity_bytes}: an item costs {around} bytes beyond its own; \
                 give --capacity-bytes {} or more",
                item_bytes_max.saturating_add(around)
            ));
        }
        Ok(Rules {
            capacity_items: self.capacity,
            capacity_bytes,
            item_bytes_max,
            attempts_max: self.max_attempts,
            retry_delay: self.retry_delay,
            producers_expected,
            journaled: self.journal.as_ref().map(|_| Window { near_bytes: NEAR_BYTES, unwritten_bytes: UNWRITTEN_BYTES_MAX }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_args(arguments: &[&str]) -> QueueArgs {
        Cli::parse_from([&["coordinator"], arguments].concat()).run.queue
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bounds_that_do_not_go_together_are_refused_with_what_would() {
        let error = queue_args(&["--capacity-bytes", "1MiB", "--max-item", "2MiB"]).rules(None).unwrap_err();
        assert!(error.contains("give --capacity-bytes 2097348 or more"), "{error}");
        assert!(queue_args(&["--capacity-bytes", "100"]).rules(None).is_err());
        assert!(queue_args(&["--capacity-bytes", "9GiB", "--max-item", "2GiB"]).rules(None).is_err());
        assert_eq!(queue_args(&["--capacity-bytes", "1MiB"]).rules(None).unwrap().item_bytes_max, (1 << 20) - 196);
    }

    #[test]
    fn a_command_needs_an_input() {
        let refused = Cli::try_parse_from(["coordinator", "--", "true"]).unwrap_err().to_string();
        assert!(refused.contains("--input"), "{refused}");
    }

    #[test]
    fn every_flag_has_an_environment_twin() {
        let command = Cli::command();
        let subcommands = command.get_subcommands().flat_map(|subcommand| subcommand.get_arguments());
        for argument in command.get_arguments().chain(subcommands) {
            let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
            let twin = format!("PROCQ_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|env| env.to_str()), Some(&twin[..]));
        }
    }
}
