//! The producer's command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};

/// Puts items into a procq queue: what it reads, or a few random numbers.
#[derive(Clone, Debug, Parser)]
#[command(name = "producer", version, about)]
pub struct Cli {
    /// Read items from FILE, `-` for stdin; without it, put random numbers
    #[arg(long, value_name = "FILE", env = "PROCQ_INPUT")]
    pub input: Option<PathBuf>,

    /// What an item is in the input
    #[arg(long, value_enum, default_value_t = Format::Lines, env = "PROCQ_FORMAT")]
    pub format: Format,

    /// How many random numbers to put
    #[arg(long, value_name = "N", default_value_t = 5, env = "PROCQ_COUNT")]
    pub count: u64,

    /// The longest pause after each random number: a duration, or `none`
    #[arg(long, value_name = "DUR", default_value = "1s", env = "PROCQ_PAUSE")]
    pub pause: Pause,

    /// A name under which the coordinator keeps how far this producer is: one that comes again under it goes on there. Where there is a
    /// journal, a file that is the input gives it one
    #[arg(long, value_name = "NAME", env = "PROCQ_NAME")]
    pub name: Option<String>,

    /// The coordinator's socket
    #[arg(long, value_name = "PATH", env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,

    /// Wait this long for a coordinator that is about to come up
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_WAIT")]
    pub wait: Duration,

    /// When the connection is lost, as when the coordinator is killed and started again, try this long to connect again
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_RECONNECT")]
    pub reconnect: Duration,

    /// Before sleeping, keep looking for news this long, say 50us: lower latency for a busy core; pays only where one is free
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_SPIN")]
    pub spin: Duration,

    /// The coordinator that started this process, to die with it
    #[arg(long, value_name = "PID", hide = true)]
    pub child_of: Option<u32>,

    /// What to call the input in messages
    #[arg(long, value_name = "NAME", hide = true)]
    pub shown_as: Option<String>,
}

impl Cli {
    /// Parses arguments, the first being the program's name; ends the program if they make no sense.
    pub fn parse_checked(arguments: impl IntoIterator<Item = OsString>) -> Cli {
        let matches = Cli::command().get_matches_from(arguments);
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if cli.input.is_some() {
            refuse_given(&mut Cli::command(), &matches, &["count", "pause"], "is for random numbers, and there is an --input");
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
