//! The coordinator's command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use common::backoff::Backoff;
#[cfg(test)]
use common::limits::CAPACITY_BYTES_DEFAULT;
use common::limits::{CAPACITY_ITEMS_DEFAULT, ITEM_BYTES_MAX_CEILING, ITEM_BYTES_MAX_DEFAULT, batch_cost_bytes};
use common::{Endpoint, command_line};
use producer::cli::{Format, Pause, refuse_given};

use crate::completions::Shell;
use crate::halt::Halt;
use crate::jetstream::Address;
use crate::journal::Fsync;
use crate::limits::{
    DEAD_BYTES_MAX, DEAD_LETTERS_MAX, EARLY_BYTES_MAX, LEASE_GRACE, NEAR_BYTES, TOP_INTERVAL_MAX, TOP_INTERVAL_MIN, UNWRITTEN_BYTES_MAX,
};
use crate::metrics::Loopback;
use crate::progress::When;
use crate::queue::{Lease, Rules, Window};

/// What is said at the end of the help, and in the manual.
const EXAMPLES: &str = "\
Examples:
  find . -name '*.rs' -print0 | coordinator --input - --format nul -- sha256sum {}
  coordinator --input urls.txt --consumers 8 --dead-letters failed.jsonl -- curl -sSfO {}
  coordinator --input urls.txt --journal state --output pages.txt -- ./fetch {}  # survives kill -9
Exit codes: 0 done, 1 error, 2 usage, 3 dead letters, 69 no coordinator, 73 in use, 128+signal";

/// A bounded work queue between processes that nothing can wedge
///
/// Reads items, one a line or as --format says, and has consumer processes work on them: each runs CMD for each item, or passes the items on
/// where there is no CMD. What comes out is written once and whole. Any of the processes may die at any time: nothing that was accepted is
/// lost, and nobody else waits.
///
/// Without --input it is a small demonstration: one producer puts random numbers, one consumer takes them.
#[derive(Debug, Parser)]
#[command(name = "coordinator", after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
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
    /// Serve a queue to producers and consumers that others start
    ///
    /// Until it is stopped, or all that --expect-producers waits for is done. Started by systemd, it says when it is ready, and takes the socket
    /// that it is given (a .socket unit).
    #[command(after_help = "Examples:
  coordinator serve --expect-producers 2 > results.txt
  coordinator serve --journal queue --output results.txt")]
    Serve(Box<ServeArgs>),
    /// Show what a coordinator's queue is doing
    #[command(after_help = "Examples:
  coordinator status
  coordinator status --json | jq .ready")]
    Status(StatusArgs),
    /// Show a queue live, over the whole screen
    ///
    /// Its figures and their course, each producer and consumer, and what each has at hand. q quits, s stops the coordinator.
    #[command(after_help = "Examples:
  coordinator top
  coordinator top --interval 250ms")]
    Top(TopArgs),
    /// End a coordinator once all of its items are settled, or now
    ///
    /// It takes no more items. Waits until it has ended.
    #[command(after_help = "Examples:
  coordinator stop
  timeout 60 coordinator stop || coordinator stop --now")]
    Stop(StopArgs),
    /// Let a coordinator hand out nothing for now
    ///
    /// What consumers hold goes on, and puts are taken until the queue is full.
    Pause(SocketArgs),
    /// Let a coordinator that is paused go on
    Resume(SocketArgs),
    /// Look at a coordinator's dead letters, send them again, or drop them
    Dead(DeadArgs),
    /// Look at a journal that no coordinator has open
    Journal(JournalArgs),
    /// Print a script that teaches a shell all three programs' flags
    #[command(after_help = "Examples:
  source <(coordinator completions bash)    # in ~/.bashrc; zsh: in ~/.zshrc, behind compinit
  coordinator completions fish --dir ~/.config/fish/completions")]
    Completions(CompletionsArgs),
    /// Print the manual page of a program or subcommand
    #[command(after_help = "Examples:
  coordinator man | man -l -
  coordinator man --dir ~/.local/share/man/man1")]
    Man(ManArgs),
}

/// A run from inputs to results, or the default run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Read items from FILE, `-` for stdin; may be repeated
    ///
    /// Each input is a producer of its own: they are read at the same time. One that cannot be read on stops, the others go on, and the exit code
    /// is 1.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_INPUT", help_heading = "Input")]
    pub input: Vec<PathBuf>,

    /// What an item is
    ///
    /// A line, what stands between NUL bytes (as `find -print0` writes), or a line that holds one JSON value.
    #[arg(long, value_enum, default_value_t = Format::Lines, env = "PROCQ_FORMAT", help_heading = "Input")]
    pub format: Format,

    /// How many consumers to start [default: one per CPU]
    ///
    /// In the default run, without --input, one.
    #[arg(long, value_name = "N", env = "PROCQ_CONSUMERS", help_heading = "Work",
        value_parser = clap::value_parser!(u32).range(1..=10_000), allow_negative_numbers = true)]
    pub consumers: Option<u32>,

    /// Let each consumer ask for N items ahead
    ///
    /// Instead of as many as their pace suggests: many while they are short, none while they take long.
    #[arg(long, value_name = "N", env = "PROCQ_PREFETCH", help_heading = "Work", hide_short_help = true)]
    pub prefetch: Option<u32>,

    /// CMD stays up: a line in, a line out per item
    ///
    /// Each consumer starts it once. It gets one item a line on its stdin, and answers each, in order, with one line on its stdout, flushed; with
    /// --format nul, both end with NUL. If it ends, the item that it was at has failed, and it is started again.
    #[arg(long, env = "PROCQ_WORKER", help_heading = "Work")]
    pub worker: bool,

    /// Append a JSON line for each attempt to FILE
    ///
    /// Its fields: id, attempt, pid, start and duration (in seconds), exit, signal, bytes (of the result), outcome, and a cause unless done.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_JOBLOG", help_heading = "Work", hide_short_help = true)]
    pub joblog: Option<PathBuf>,

    /// Print the command lines, and run nothing
    ///
    /// Quoted as a shell takes them, one a line, in the order of the items; of a worker, its own.
    #[arg(long, env = "PROCQ_DRY_RUN", help_heading = "Work", hide_short_help = true)]
    pub dry_run: bool,

    /// How many producers of random numbers to start
    #[arg(long, value_name = "N", default_value_t = 1, env = "PROCQ_PRODUCERS", hide_short_help = true,
        value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Default run")]
    pub producers: u32,

    /// How many numbers each producer puts
    #[arg(long, value_name = "N", default_value_t = 5, env = "PROCQ_COUNT", hide_short_help = true, help_heading = "Default run")]
    pub count: u64,

    /// The longest pause after each number, a duration or `none`
    #[arg(long, value_name = "DUR", default_value = "1s", env = "PROCQ_PAUSE", hide_short_help = true, help_heading = "Default run")]
    pub pause: Pause,

    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,

    /// Run this per item (`{}`, or stdin): exit 0 done, 75 later, 65 never
    ///
    /// `{}` in an argument is replaced by the item; without `{}` the item is the command's stdin. What the command prints is the item's result.
    /// Exit status 0 means that the item is done, 75 that it is to come again later, 65 that it can never succeed and is a dead letter at
    /// once; anything else, or a signal, is a failed attempt. PROCQ_ITEM_ID, PROCQ_ATTEMPT and PROCQ_SOCKET are in its environment.
    #[arg(last = true, value_name = "CMD", help_heading = "Work", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// True for the default run: random numbers, and a story of what becomes of them.
    pub fn is_default(&self) -> bool {
        self.input.is_empty() && self.command.is_empty()
    }
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
    /// The queue's socket [default: one per user]
    ///
    /// By default $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock. Two coordinators at once need one each. Its directory
    /// must be the user's own, and writable by nobody else; it is made if it does not exist.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,

    /// The most items in the queue
    ///
    /// When it is full, producers wait. An item counts until it is settled: those that consumers hold are included.
    #[arg(long, value_name = "ITEMS", default_value_t = CAPACITY_ITEMS_DEFAULT, env = "PROCQ_CAPACITY",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub capacity: u64,

    /// The most bytes in the queue
    ///
    /// An item costs its bytes, and each frame of items 192 more. With --journal this bounds what is on disk.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", env = "PROCQ_CAPACITY_BYTES")]
    pub capacity_bytes: ByteSize,

    /// The largest item, and the largest result [default: 16MiB]
    ///
    /// At most 1GiB; the default is lower where --capacity-bytes holds less.
    #[arg(long, value_name = "SIZE", env = "PROCQ_MAX_ITEM", hide_short_help = true)]
    pub max_item: Option<ByteSize>,

    /// How often an item may fail before it is a dead letter
    #[arg(long, value_name = "N", default_value_t = 5, env = "PROCQ_MAX_ATTEMPTS", help_heading = "Failure", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,

    /// How soon a failed item comes again
    ///
    /// At first, and at most: it doubles from failure to failure of the same item, and each item's is up to a quarter shorter, so that not
    /// all come again at once.
    #[arg(long, value_name = "DUR..DUR", default_value = "1s..60s", env = "PROCQ_RETRY_DELAY", help_heading = "Failure")]
    pub retry_delay: Backoff,

    /// End an attempt that takes longer
    ///
    /// It counts as a failed one; without this, an attempt may take any time. A command gets TERM, with all that it has started, and KILL a second later. From a consumer that does not end it by itself, the item is
    /// taken back two seconds after its time.
    #[arg(long, value_name = "DUR", value_parser = parse_item_timeout, env = "PROCQ_ITEM_TIMEOUT", help_heading = "Failure")]
    pub item_timeout: Option<Duration>,

    /// Write results in the order of their items
    ///
    /// However long each takes: results that come early wait for those before them, in bounded memory.
    #[arg(long, env = "PROCQ_KEEP_ORDER", help_heading = "Results")]
    pub keep_order: bool,

    /// Give up when too many items are dead letters
    ///
    /// `soon,fail=N` begins no more items once N have gone to the dead letters, and ends when what runs is done; `now,fail=N` ends what runs,
    /// too. `fail=X%` is a share of the items done or dead, from the third dead one on. Exit code 1.
    #[arg(long, value_name = "WHEN", default_value_t = Halt::Never, env = "PROCQ_HALT", help_heading = "Failure")]
    pub halt: Halt,

    /// Append dead letters to FILE as JSON lines, not to stderr
    ///
    /// Each has the item's id, the attempts, the cause of the last failure, and the item (`item_base64` for one that is not UTF-8).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_DEAD_LETTERS", help_heading = "Failure")]
    pub dead_letters: Option<PathBuf>,

    /// Write results to FILE instead of stdout
    ///
    /// With --journal each is in the file exactly once, however often the coordinator dies.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_OUTPUT", help_heading = "Results")]
    pub output: Option<PathBuf>,

    /// Keep the queue in DIR, so that it outlives the coordinator
    ///
    /// Started again with the same line, the run goes on where it was. The directory belongs to one user and one coordinator at a time; it is
    /// made if it does not exist.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, env = "PROCQ_JOURNAL")]
    pub journal: Option<PathBuf>,

    /// Share the queue with other machines, over NATS JetStream
    ///
    /// The queue's items are at NATS servers with JetStream, and every coordinator that names the same queue with the same bounds takes part: producers and
    /// consumers notice nothing. nats://HOST:PORT/QUEUE, with several servers as nats://A,B,C/QUEUE, tls:// for TLS, and ?creds=FILE&ca=FILE&cert=FILE&key=FILE&domain=NAME&replicas=N&storage=memory.
    /// ack_wait=30s (1s to 10m, the same on all machines) is how soon another machine gets what a dead one held, lost=20s (6s to 10m) how soon a machine that says nothing is
    /// given up, and its producers with it.
    #[arg(long, value_name = "URL", env = "PROCQ_ENGINE", conflicts_with_all = ["journal", "keep_order"])]
    pub engine: Option<Address>,

    /// Wait for the disk
    ///
    /// Before a put is confirmed. What is confirmed then survives the machine's death, too; with `never`, the death of processes alone.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Fsync::Always, env = "PROCQ_FSYNC", hide_short_help = true)]
    pub fsync: Fsync,

    /// How long a first signal waits for held items
    ///
    /// INT, TERM or HUP. Those that consumers have at hand are finished, the rest is left. A second one ends it at once.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "10s", env = "PROCQ_GRACE", help_heading = "Failure")]
    pub grace: Duration,

    /// Show progress: auto, always or never
    ///
    /// On stderr; auto: of a run with --input, where that is a terminal. While the line is there, what commands write to stderr passes through the coordinator.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto, env = "PROCQ_PROGRESS", help_heading = "Results", hide_possible_values = true)]
    pub progress: When,

    /// Serve the figures at http://ADDR/metrics, for Prometheus
    ///
    /// Say 127.0.0.1:9464, or port 0 for any that is free. On loopback only: anyone on this machine gets to them, and nobody else.
    #[arg(long, value_name = "ADDR", env = "PROCQ_METRICS", hide_short_help = true)]
    pub metrics: Option<Loopback>,

    /// Before sleeping, keep looking for news this long, say 50us
    ///
    /// Lower latency for a busy core; pays only where one is free for each process that waits.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_SPIN", hide_short_help = true)]
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

impl Cli {
    /// The command line as it is shown to people.
    pub fn dressed() -> clap::Command {
        command_line::dressed(Cli::command())
    }

    /// Parses arguments, the first being the program's name; ends the program if they make no sense.
    pub fn parse_checked(arguments: impl IntoIterator<Item = OsString>) -> Cli {
        let mut command = Cli::dressed();
        let matches = command_line::parse(command.clone(), arguments);
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let Some(words) = cli.what_is_missing() {
            command.error(ErrorKind::MissingRequiredArgument, words).exit();
        }
        if !cli.run.input.is_empty() {
            refuse_given(
                &mut command,
                &matches,
                &["producers", "count", "pause"],
                "is for the default run, and there is an --input; leave out one of them",
            );
        }
        if cli.run.input.iter().filter(|input| *input == Path::new("-")).count() > 1 {
            let words = "stdin (--input -) can be read only once; leave one of them out";
            command.error(ErrorKind::ArgumentConflict, words).exit();
        }
        cli
    }

    fn what_is_missing(&self) -> Option<String> {
        let RunArgs { command, input, worker, joblog, dry_run, .. } = &self.run;
        match &self.command {
            Some(Command::Dead(DeadArgs { command: DeadCommand::Requeue(which) | DeadCommand::Drop(which) }))
                if which.ids.is_empty() && !which.all =>
            {
                return Some(
                    "which dead letters? Give their items' numbers (`coordinator dead list` shows them), or --all for all of them".into(),
                );
            }
            Some(_) => return None,
            None => {}
        }
        // At a shared queue, other machines may have the inputs.
        let needs_input = self.run.queue.engine.is_none() || *dry_run;
        if let Some(program) = command.first().filter(|_| input.is_empty() && needs_input) {
            let program = Path::new(program).display();
            return Some(format!(
                "there is a command ({program}), but no --input: give the items for it, --input FILE or --input - for stdin"
            ));
        }
        let flags = [("--worker", *worker), ("--joblog", joblog.is_some()), ("--dry-run", *dry_run)];
        let (flag, _) = flags.into_iter().find(|(_, given)| *given && command.is_empty())?;
        Some(format!("{flag} is about a command, and there is none: give it at the end, -- CMD"))
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
            return Err(format!("--capacity-bytes {capacity_bytes} holds no item: give {around} bytes or more"));
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
        let window = Window { near_bytes: NEAR_BYTES, unwritten_bytes: UNWRITTEN_BYTES_MAX };
        Ok(Rules {
            capacity_items: self.capacity,
            capacity_bytes,
            item_bytes_max,
            attempts_max: self.max_attempts,
            retry_delay: self.retry_delay,
            lease: self.item_timeout.map(|item_timeout| Lease { item_timeout, grace: LEASE_GRACE }),
            early_bytes_max: self.keep_order.then_some(EARLY_BYTES_MAX),
            producers_expected,
            dead_letters_max: DEAD_LETTERS_MAX,
            dead_bytes_max: DEAD_BYTES_MAX,
            journaled: (self.journal.is_some() || self.engine.is_some()).then_some(window),
            shared: self.engine.is_some(),
        })
    }
}

/// Said to consumers in milliseconds.
fn parse_item_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout < Duration::from_millis(1) { Err("too short for any attempt; give 1ms or more".into()) } else { Ok(timeout) }
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
    fn the_default_of_the_byte_bound_is_that_of_the_protocol() {
        assert_eq!(queue_args(&[]).capacity_bytes, ByteSize(CAPACITY_BYTES_DEFAULT));
    }

    #[test]
    fn an_item_timeout_is_told_from_none_and_no_time_is_refused() {
        assert_eq!(queue_args(&[]).rules(None).unwrap().lease, None);
        let lease = queue_args(&["--item-timeout", "1.5s"]).rules(None).unwrap().lease.unwrap();
        assert_eq!(lease.item_timeout, Duration::from_millis(1500));
        assert!(lease.grace > common::limits::COMMAND_END, "an honest consumer is heard first");
        let refused = Cli::try_parse_from(["coordinator", "--item-timeout", "0s"]).unwrap_err().to_string();
        assert!(refused.contains("give 1ms or more"), "{refused}");
    }

    #[test]
    fn a_command_needs_an_input() {
        let refused = |arguments: &[&str]| Cli::parse_from([&["coordinator"], arguments].concat()).what_is_missing();
        assert!(refused(&["--", "true"]).unwrap().contains("there is a command (true), but no --input"));
        for flag in ["--worker", "--joblog=x", "--dry-run"] {
            let words = refused(&["--input", "-", flag]).unwrap();
            assert!(words.starts_with(flag.trim_end_matches("=x")) && words.contains("-- CMD"), "{words}");
            assert_eq!(refused(&["--input", "-", flag, "--", "true"]), None);
        }
        assert_eq!(refused(&["serve"]), None);
    }

    #[test]
    fn every_flag_has_an_environment_twin_but_those_that_cannot_be_taken_back() {
        let command = Cli::command();
        let below = |command: &clap::Command| command.get_subcommands().cloned().collect::<Vec<_>>();
        let subcommands: Vec<_> = below(&command).into_iter().flat_map(|command| [below(&command), vec![command]].concat()).collect();
        let subcommands = subcommands.iter().flat_map(|subcommand| subcommand.get_arguments());
        for argument in command.get_arguments().chain(subcommands) {
            let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
            let twin = format!("PROCQ_{}", long.to_uppercase().replace('-', "_"));
            // What throws away is said where it is done: it must not come from an environment that was set for something else.
            let twin = Some(&twin[..]).filter(|_| !["all", "now"].contains(&long));
            assert_eq!(argument.get_env().and_then(|env| env.to_str()), twin);
        }
    }
}
