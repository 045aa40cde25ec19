//! The coordinator's command line.

mod queue;
mod subcommands;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use common::command_line;
use producer::cli::{Format, Pause, refuse_given};

pub use queue::QueueArgs;
pub use subcommands::{
    CompletionsArgs, DeadArgs, DeadCommand, JournalArgs, JournalCommand, ManArgs, SocketArgs, StatusArgs, StopArgs, TopArgs, WhichDead,
};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
