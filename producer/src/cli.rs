//! The producer's command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum, ValueHint};
use common::command_line;

const EXAMPLES: &str = "\
Examples:
  producer --input urls.txt
  find . -name '*.rs' -print0 | producer --input - --format nul --wait 5s
Exit codes: 0 done, 1 error, 2 usage, 69 no coordinator, 128+signal";

/// Puts items into a procq queue: what it reads, or random numbers
///
/// It ends once all of them are in the coordinator's hands, and on disk where that keeps a journal.
#[derive(Clone, Debug, Parser)]
#[command(name = "producer", after_help = EXAMPLES)]
pub struct Cli {
    /// Read items from FILE, `-` for stdin; without it, put random numbers
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_INPUT", help_heading = "Input")]
    pub input: Option<PathBuf>,

    /// What an item is
    ///
    /// A line, what stands between NUL bytes (as `find -print0` writes), or a line that holds one JSON value.
    #[arg(long, value_enum, default_value_t = Format::Lines, env = "PROCQ_FORMAT", help_heading = "Input")]
    pub format: Format,

    /// How many random numbers to put
    #[arg(long, value_name = "N", default_value_t = 5, env = "PROCQ_COUNT", help_heading = "Input")]
    pub count: u64,

    /// The longest pause after each, a duration or `none`
    #[arg(long, value_name = "DUR", default_value = "1s", env = "PROCQ_PAUSE", help_heading = "Input")]
    pub pause: Pause,

    /// A name under which to go on where an earlier producer was
    ///
    /// The coordinator keeps how far the producer of each name is. Where it keeps a journal, a file that is the input gives its producer one.
    #[arg(long, value_name = "NAME", env = "PROCQ_NAME", help_heading = "Input")]
    pub name: Option<String>,

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

    /// Before sleeping, keep looking for news this long, say 50us
    ///
    /// Lower latency for a busy core; pays only where one is free for each process that waits.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_SPIN", hide_short_help = true)]
    pub spin: Duration,

    /// The coordinator that started this process, to die with it
    #[arg(long, value_name = "PID", hide = true)]
    pub child_of: Option<u32>,

    /// What to call the input in messages
    #[arg(long, value_name = "NAME", hide = true)]
    pub shown_as: Option<String>,
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
        if cli.input.is_some() {
            refuse_given(
                &mut Cli::dressed(),
                &matches,
                &["count", "pause"],
                "is for random numbers, and there is an --input; leave out one of them",
            );
        }
        cli
    }
}

/// Ends the program with a usage error if one of these flags stands on the command line; in the environment, it may be for others.
pub fn refuse_given(command: &mut clap::Command, matches: &ArgMatches, flags: &[&str], why: &str) {
    for flag in flags {
        if matches.value_source(flag) == Some(ValueSource::CommandLine) {
            command.error(ErrorKind::ArgumentConflict, format!("--{flag} {why}")).exit();
        }
    }
}

/// What an item is in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line, without its newline.
    Lines,
    /// What stands between NUL bytes.
    Nul,
    /// A line that holds one JSON value.
    Json,
}

/// The longest of random pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause(pub Duration);

impl std::str::FromStr for Pause {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Pause, humantime::DurationError> {
        if text == "none" { Ok(Pause(Duration::ZERO)) } else { humantime::parse_duration(text).map(Pause) }
    }
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_zero() { f.write_str("none") } else { humantime::format_duration(self.0).fmt(f) }
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
    fn a_pause_reads_as_it_is_shown() {
        for text in ["none", "1s", "500ms"] {
            assert_eq!(text.parse::<Pause>().unwrap().to_string(), text);
        }
        assert!("soon".parse::<Pause>().is_err());
    }
}
