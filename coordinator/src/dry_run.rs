//! What a run would do, shown: its inputs are read as the run would read them, and nothing is started.

use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use common::program::{EXIT_DEAD_LETTERS, EXIT_DONE, EXIT_ERROR, tell};
use consumer::shell;
use producer::source::Source;

use crate::PROGRAM;
use crate::cli::RunArgs;

/// Prints the command line for each item, in the inputs' order; of a worker, its own, and items are merely read. The exit code, as the run
/// would have it if every command did well.
pub fn show(args: &RunArgs, item_bytes_max: u64) -> Result<u8> {
    let mut sources = args.input.iter().map(|input| Source::open(input, args.format)).collect::<Result<Vec<_>>>()?;
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    if args.worker {
        writeln!(stdout, "{}", shell::line_of(&args.command)).context("cannot write to stdout")?;
    }
    let (mut is_bad, mut dead) = (false, 0u64);
    for source in &mut sources {
        let mut count = 0u64;
        let read = loop {
            let item = match source.next(item_bytes_max) {
                Ok(Some(item)) => item,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            count += 1;
            if args.worker {
                continue;
            }
            match shell::line_for(&args.command, item) {
                Ok(line) => writeln!(stdout, "{line}").context("cannot write to stdout")?,
                Err(cause) => {
                    dead += 1;
                    tell(PROGRAM, format_args!("item {count} of {} would be a dead letter: {cause}", source.name()));
                }
            }
        };
        if let Err(error) = read {
            is_bad = true;
            // What was shown comes first, as its commands would.
            stdout.flush().context("cannot write to stdout")?;
            tell(PROGRAM, format_args!("this input would stop after {count} items: {error:#}"));
        }
    }
    stdout.flush().context("cannot write to stdout")?;
    Ok(match (is_bad, dead) {
        (true, _) => EXIT_ERROR,
        (false, 0) => EXIT_DONE,
        (false, _) => EXIT_DEAD_LETTERS,
    })
}
