//! Writes results to stdout and dead letters to their file, in a thread of its own: an output that takes nothing holds up nobody
//! who has no results to give. What was written is reported, and only then counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::program::tell;
use serde::Serialize;

use crate::PROGRAM;
use crate::limits::SHOWN_ITEM_BYTES_MAX;
use crate::queue::{DeadLetter, Record, Ticket};

/// Records gathered for one write at most.
const RECORDS_PER_WRITE_MAX: usize = 1024;

/// Gathered bytes that are written at once.
const GATHER_BYTES: usize = 64 * 1024;

/// Why nothing more can be written.
#[derive(Debug)]
pub struct WriteFailure {
    /// Where to, for people.
    pub place: String,
    /// True if it was stdout.
    pub is_stdout: bool,
    /// What the system says.
    pub error: io::Error,
}

/// Where dead letters go.
#[derive(Debug)]
pub enum DeadLetters {
    /// To stderr, a line for people each.
    Stderr,
    /// To a file, a JSON line each.
    File(File, PathBuf),
}

impl DeadLetters {
    /// To a file, behind what is in it.
    pub fn append_to(path: &Path) -> io::Result<DeadLetters> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if file.metadata()?.is_file() && !ends_a_line(path)? {
            // A disk was full in the middle of a letter: that one is torn, the next shall not be.
            file.write_all(b"\n")?;
        }
        Ok(DeadLetters::File(file, path.into()))
    }
}

fn ends_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last == *b"\n")
}

/// The near end of the writing thread.
#[derive(Debug)]
pub struct Writer {
    records: Sender<(Ticket, Record)>,
    done: Receiver<Result<Vec<Ticket>, WriteFailure>>,
    waiting_bytes: Arc<AtomicUsize>,
    waiting_records: usize,
}

impl Writer {
    /// Starts the thread. `wake` is called when there is something to collect.
    pub fn start(dead_letters: DeadLetters, wake: impl Fn() + Send + 'static) -> io::Result<Writer> {
        let (records, queue) = channel();
        let (report, done) = channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut outputs = Outputs { stdout, dead_letters };
        let waiting = Arc::clone(&waiting_bytes);
        thread::Builder::new().name("writer".into()).spawn(move || {
            while let Some((tickets, written)) = write_some(&queue, &mut outputs, &waiting) {
                let failed = written.is_err();
                // If nobody collects any more, the coordinator is on its way out.
                if report.send(written.map(|()| tickets)).is_err() {
                    return;
                }
                wake();
                if failed {
                    return;
                }
            }
        })?;
        Ok(Writer { records, done, waiting_bytes, waiting_records: 0 })
    }

    /// Hands a record over.
    pub fn write(&mut self, ticket: Ticket, record: Record) {
        self.waiting_bytes.fetch_add(record_bytes(&record), Ordering::Relaxed);
        self.waiting_records += 1;
        // After a failure the thread is gone; that was reported, and nothing counts as written any more.
        let _ = self.records.send((ticket, record));
    }

    /// What was written since the last call.
    pub fn collect(&mut self) -> Result<Vec<Ticket>, WriteFailure> {
        let mut tickets = Vec::new();
        loop {
            match self.done.try_recv() {
                Ok(written) => tickets.extend(written?),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    let error = io::Error::other("the writing thread has ended before its time");
                    return Err(WriteFailure { place: "the outputs".into(), is_stdout: false, error });
                }
            }
        }
        self.waiting_records -= tickets.len();
        Ok(tickets)
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// True when all that was handed over was collected as written.
    pub fn is_idle(&self) -> bool {
        self.waiting_records == 0
    }
}

type Records = Receiver<(Ticket, Record)>;

/// Waits for records, and writes all that wait. None at the end.
fn write_some(queue: &Records, outputs: &mut Outputs, waiting: &AtomicUsize) -> Option<(Vec<Ticket>, Result<(), WriteFailure>)> {
    let first = queue.recv().ok()?;
    let mut tickets = Vec::new();
    let mut gathered = Vec::new();
    let mut bytes = 0;
    let mut written = Ok(());
    for (ticket, record) in std::iter::once(first).chain(queue.try_iter()).take(RECORDS_PER_WRITE_MAX) {
        bytes += record_bytes(&record);
        tickets.push(ticket);
        written = written.and_then(|()| outputs.take(&record, &mut gathered));
    }
    written = written.and_then(|()| outputs.write_results(&mut gathered));
    waiting.fetch_sub(bytes, Ordering::Relaxed);
    Some((tickets, written))
}

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::Results(batch) => batch.body_bytes() as usize,
        Record::DeadLetter(letter) => letter.item.len() + letter.cause.len(),
    }
}

struct Outputs {
    stdout: File,
    dead_letters: DeadLetters,
}

impl Outputs {
    fn take(&mut self, record: &Record, gathered: &mut Vec<u8>) -> Result<(), WriteFailure> {
        match record {
            Record::Results(batch) => {
                // Results lie one behind the other, as they are to be written.
                let [results, _table] = batch.body();
                gathered.extend_from_slice(results);
                if gathered.len() >= GATHER_BYTES { self.write_results(gathered) } else { Ok(()) }
            }
            Record::DeadLetter(letter) => self.write_dead_letter(letter),
        }
    }

    fn write_results(&mut self, gathered: &mut Vec<u8>) -> Result<(), WriteFailure> {
        let written = self.stdout.write_all(gathered);
        gathered.clear();
        written.map_err(|error| WriteFailure { place: "stdout".into(), is_stdout: true, error })
    }

    fn write_dead_letter(&mut self, letter: &DeadLetter) -> Result<(), WriteFailure> {
        match &mut self.dead_letters {
            DeadLetters::Stderr => {
                tell(PROGRAM, format_args!("{}", in_words(letter)));
                Ok(())
            }
            DeadLetters::File(file, path) => {
                let mut line = as_json(letter);
                line.push('\n');
                let place = path.display().to_string();
                file.write_all(line.as_bytes()).map_err(|error| WriteFailure { place, is_stdout: false, error })
            }
        }
    }
}

fn in_words(letter: &DeadLetter) -> String {
    let shown = &letter.item[..letter.item.len().min(SHOWN_ITEM_BYTES_MAX)];
    let more = if shown.len() < letter.item.len() { "…" } else { "" };
    let (id, attempts, cause) = (letter.id, letter.attempts, &letter.cause);
    let times = if attempts == 1 { "1 attempt".into() } else { format!("{attempts} attempts") };
    format!("dead letter: item {id} after {times}: {cause}: {:?}{more}", String::from_utf8_lossy(shown))
}

#[derive(Serialize)]
struct Line<'a> {
    id: u64,
    attempts: u32,
    cause: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_base64: Option<String>,
}

/// One line; an item that is no UTF-8 is in `item_base64` instead of `item`.
fn as_json(letter: &DeadLetter) -> String {
    let text = std::str::from_utf8(&letter.item).ok();
    let line = Line {
        id: letter.id.0,
        attempts: letter.attempts,
        cause: &letter.cause,
        item: text,
        item_base64: text.is_none().then(|| BASE64_STANDARD.encode(&letter.item)),
    };
    #[expect(clippy::expect_used, reason = "numbers and strings can always be written as JSON")]
    serde_json::to_string(&line).expect("a dead letter is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::ItemId;

    fn letter(item: &'static [u8]) -> DeadLetter {
        DeadLetter { id: ItemId(7), attempts: 5, cause: "exit status 1".into(), item: item.into() }
    }

    #[test]
    fn a_dead_letter_is_a_json_line_whatever_its_bytes() {
        assert_eq!(as_json(&letter(b"a \"b\"\n")), r#"{"id":7,"attempts":5,"cause":"exit status 1","item":"a \"b\"\n"}"#);
        assert_eq!(as_json(&letter(&[0xff])), r#"{"id":7,"attempts":5,"cause":"exit status 1","item_base64":"/w=="}"#);
    }

    #[test]
    fn a_dead_letter_in_words_is_one_short_line() {
        assert_eq!(in_words(&letter(b"a\nb")), r#"dead letter: item 7 after 5 attempts: exit status 1: "a\nb""#);
        let long = letter(&[b'x'; 1000]);
        assert!(in_words(&long).len() < 300 && in_words(&long).ends_with("…"));
    }
}
