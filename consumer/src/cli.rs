//! The consumer's command line.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use common::backoff::Backoff;

/// Takes items out of a procq queue: prints each, or runs a command for each.
#[derive(Clone, Debug, Parser)]
#[command(name = "consumer", version, about)]
pub struct Cli {
    /// The coordinator's socket
    #[arg(long, value_name = "PATH", env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,

    /// Wait this long for a coordinator that is about to come up
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_WAIT")]
    pub wait: Duration,

    /// When the connection is lost, as when the coordinator is killed and started again, try this long to connect again
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_RECONNECT")]
    pub reconnect: Duration,

    /// Ask for N items ahead of the one at hand, instead of as many as their pace suggests
    #[arg(long, value_name = "N", env = "PROCQ_PREFETCH")]
    pub prefetch: Option<u32>,

    /// How soon an item whose command asked for a later retry (exit 75) comes again, at first and at most
    #[arg(long, value_name = "DUR..DUR", default_value = "1s..60s", env = "PROCQ_RETRY_DELAY")]
    pub retry_delay: Backoff,

    /// What to do with items when there is no command
    #[arg(long, value_enum, default_value_t = Sink::Print, hide = true)]
    pub sink: Sink,

    /// The longest pause after each item in the narrated default run, in milliseconds
    #[arg(long, default_value_t = 0, hide = true)]
    pub pause_ms: u64,

    /// Before sleeping, keep looking for news this long, say 50us: lower latency for a busy core; pays only where one is free
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_SPIN")]
    pub spin: Duration,

    /// The coordinator that started this process, to die with it
    #[arg(long, value_name = "PID", hide = true)]
    pub child_of: Option<u32>,

    /// Run this for each item; `{}` in an argument is replaced by the item, without `{}` the item is the command's stdin
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
