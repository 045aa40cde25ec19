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

/// The environment variable that says what is told: a level, or levels by part, as in `info,common::driver=trace`.
pub const LOG_VARIABLE: &str = "PROCQ_LOG";

/// `PROCQ_LOG` makes no sense.
#[derive(Debug, thiserror::Error)]
#[error(
    "{LOG_VARIABLE}={given} makes no sense: {source}; give off, error, warn, info, debug or trace, or such for a part of the program, \
     as in info,common::driver=trace"
)]
pub struct LogError {
    given: String,
    source: ParseError,
}

/// Begins to tell, if that is asked for. Once per process.
pub fn start(program: &'static str) -> Result<(), LogError> {
    let given = std::env::var_os(LOG_VARIABLE).unwrap_or_default();
    if given.is_empty() {
        return Ok(());
    }
    let given = given.to_string_lossy().into_owned();
    let targets: Targets = given.parse().map_err(|source| LogError { given, source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_timer(Stamp { program });
    // It fails only for a second one.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
    Ok(())
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
