//! A worker that answers each line with itself, as fast as it can: the measure of what procq adds.

use std::io::{BufRead, BufReader, BufWriter, Write};

fn main() -> std::io::Result<()> {
    let mut input = BufReader::with_capacity(64 * 1024, std::io::stdin());
    let mut output = BufWriter::with_capacity(64 * 1024, std::io::stdout());
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return output.flush();
        }
        output.write_all(&line)?;
        // With an answer in hand, nobody is waited for.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
}
