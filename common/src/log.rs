//! What the programs tell of themselves when `PROCQ_LOG` asks: events with fields, one a line, on stderr. The only file that names
//! `tracing_subscriber`.
//!
//! `info`: what happens once in a run, and what goes wrong; `debug`: what happens per connection, process, commit or failed item; `trace`:
//! what happens per frame. Nothing is said per item.

use std::fmt;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::program::{EXIT_USAGE, tell};

/// The environment variable that says what is told: a level, or levels by part, as in `info,common::driver=trace`.
pub const LOG_VARIABLE: &str = "PROCQ_LOG";

/// Begins to tell, if that is asked for; ends the program, by a usage error, if what is asked for makes no sense. Once per process.
pub fn start(program: &'static str) {
    let given = std::env::var_os(LOG_VARIABLE).unwrap_or_default();
    if given.is_empty() {
        return;
    }
    let targets: Targets = match given.to_string_lossy().parse() {
        Ok(targets) => targets,
        Err(error) => {
            let error: ParseError = error;
            let given = given.display();
            let advice = "give off, error, warn, info, debug or trace, or such for a part of the program, as in info,common::driver=trace";
            tell(program, format_args!("{LOG_VARIABLE}={given} makes no sense: {error}; {advice}"));
            std::process::exit(i32::from(EXIT_USAGE));
        }
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_timer(Stamp { program });
    // It fails only for a second one.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}

/// When and who: a run's processes share their stderr.
struct Stamp {
    program: &'static str,
}

impl FormatTime for Stamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(writer)?;
        write!(writer, " {}[{}]", self.program, std::process::id())
    }
}
