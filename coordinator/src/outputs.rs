//! Where results and dead letters go: stdout or a file, stderr or a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::program::tell;
use serde::Serialize;

use crate::PROGRAM;
use crate::journal::sync_name;
use crate::limits::SHOWN_ITEM_BYTES_MAX;
use crate::progress::screen::Shared;
use crate::queue::{DeadLetter, Record};
use crate::writer::WriteFailure;

/// Gathered bytes that are written at once.
const GATHER_BYTES: usize = 64 * 1024;

/// Where results go.
#[derive(Debug)]
pub enum Results {
    /// To stdout, which may be a screen that is shared with others.
    Stdout(File, Option<Shared>),
    /// To a file that is ours.
    File {
        /// The file, at its end.
        file: File,
        /// Its name, for people.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
    },
}

/// Why an output file cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The system refuses.
    #[error("cannot write results to {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The journal knows nothing of a file that has something in it.
    #[error("{path} has {came} bytes in it that this journal knows nothing of; remove it, or give another --output")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its length.
        came: u64,
    },
    /// It is a pipe, a device or a folder, in which nothing can be found again.
    #[error("{path} is no regular file, which --output must be with --journal; give another --output")]
    Irregular {
        /// What it is called.
        path: PathBuf,
    },
    /// Results are missing.
    #[error(
        "{path} has {came} bytes, but the journal says that the results so far take {expected}: it was changed, or is another file; \
         give the --output of the earlier run, or begin anew with another --journal"
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// What the journal says.
        expected: u64,
        /// Its length.
        came: u64,
    },
}

impl Results {
    /// To stdout.
    pub fn stdout(screen: Option<Shared>) -> io::Result<Results> {
        Ok(Results::Stdout(File::from(io::stdout().as_fd().try_clone_to_owned()?), screen))
    }

    /// To a file that begins anew.
    pub fn create(path: &Path) -> Result<Results, OutputError> {
        let file = File::create(path).map_err(|source| OutputError::Io { path: path.into(), source })?;
        Ok(Results::File { file, path: path.into(), bytes: 0 })
    }

    /// To a file that goes on behind its first `bytes` bytes, which is where a journal says that results end that count. What is behind
    /// them was being written when its coordinator died: it is cut off, and will be written again. None: no result counts yet, and
    /// the file must be new.
    pub fn resume(path: &Path, bytes: Option<u64>) -> Result<Results, OutputError> {
        let wrap = |source| OutputError::Io { path: path.into(), source };
        let (bytes, is_new) = (bytes.unwrap_or(0), bytes.is_none());
        let mut file = match OpenOptions::new().write(true).create(bytes == 0).truncate(false).open(path) {
            Err(error) if bytes > 0 && error.kind() == io::ErrorKind::NotFound => {
                return Err(OutputError::Short { path: path.into(), expected: bytes, came: 0 });
            }
            opened => opened.map_err(wrap)?,
        };
        let metadata = file.metadata().map_err(wrap)?;
        let came = metadata.len();
        if !metadata.is_file() {
            return Err(OutputError::Irregular { path: path.into() });
        }
        if came < bytes {
            return Err(OutputError::Short { path: path.into(), expected: bytes, came });
        }
        if is_new && came > 0 {
            return Err(OutputError::Foreign { path: path.into(), came });
        }
        if came > bytes {
            file.set_len(bytes).map_err(wrap)?;
        }
        file.seek(SeekFrom::End(0)).map_err(wrap)?;
        Ok(Results::File { file, path: path.into(), bytes })
    }

    fn write(&mut self, gathered: &[u8]) -> Result<(), WriteFailure> {
        match self {
            Results::Stdout(file, screen) => {
                let written = match screen {
                    None => file.write_all(gathered),
                    Some(screen) => screen.around(gathered, |gathered| file.write_all(gathered)),
                };
                written.map_err(|error| WriteFailure { place: "stdout".into(), is_stdout: true, error })
            }
            Results::File { file, path, .. } => file.write_all(gathered).map_err(|error| in_file(path, error)),
        }
    }

    /// How long the file is with `more` bytes in it, which are still to be written.
    fn grow(&mut self, more: u64) -> Option<u64> {
        match self {
            Results::Stdout(..) => None,
            Results::File { bytes, .. } => {
                *bytes += more;
                Some(*bytes)
            }
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Results::Stdout(..) => None,
            Results::File { path, .. } => Some(path),
        }
    }

    fn sync(&mut self) -> Result<(), WriteFailure> {
        match self {
            Results::Stdout(..) => Ok(()),
            Results::File { file, path, .. } => file.sync_data().map_err(|error| in_file(path, error)),
        }
    }
}

fn in_file(path: &Path, error: io::Error) -> WriteFailure {
    WriteFailure { place: path.display().to_string(), is_stdout: false, error }
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

    fn write(&mut self, letter: &DeadLetter) -> Result<(), WriteFailure> {
        match self {
            DeadLetters::Stderr => {
                tell(PROGRAM, format_args!("{}", in_words(letter)));
                Ok(())
            }
            DeadLetters::File(file, path) => {
                let mut line = as_json(letter);
                line.push('\n');
                file.write_all(line.as_bytes()).map_err(|error| in_file(path, error))
            }
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            DeadLetters::Stderr => None,
            DeadLetters::File(file, path) => file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(path),
        }
    }

    fn sync(&mut self) -> Result<(), WriteFailure> {
        match self {
            DeadLetters::Stderr => Ok(()),
            DeadLetters::File(file, path) => match file.sync_data() {
                // A pipe or a terminal has nothing to sync.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                synced => synced.map_err(|error| in_file(path, error)),
            },
        }
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

/// All places that records go to.
#[derive(Debug)]
pub struct Outputs {
    results: Results,
    dead_letters: DeadLetters,
    /// What is written must be on the disk before it counts.
    synced: bool,
    gathered: Vec<u8>,
    unsynced_results: bool,
    unsynced_letters: bool,
}

impl Outputs {
    /// If `synced`, what is written out is on the disk, as far as it has one, and the files that it is in can be found there.
    pub fn new(results: Results, dead_letters: DeadLetters, synced: bool) -> Result<Outputs, OutputError> {
        if synced {
            for path in [results.path(), dead_letters.path()].into_iter().flatten() {
                sync_name(path).map_err(|source| OutputError::Io { path: path.into(), source })?;
            }
        }
        Ok(Outputs { results, dead_letters, synced, gathered: Vec::new(), unsynced_results: false, unsynced_letters: false })
    }

    /// Takes a record, which is written at [`Outputs::write_out`] at the latest. Returns how long the output file is with it, if it
    /// goes there.
    pub fn take(&mut self, record: &Record) -> Result<Option<u64>, WriteFailure> {
        match record {
            Record::Results(batch) => {
                // Results lie one behind the other, as they are to be written.
                let [results, _table] = batch.body();
                self.gathered.extend_from_slice(results);
                if self.gathered.len() >= GATHER_BYTES {
                    self.write_gathered()?;
                }
                Ok(self.results.grow(results.len() as u64))
            }
            Record::DeadLetter(letter) => {
                self.unsynced_letters = true;
                self.dead_letters.write(letter).map(|()| None)
            }
        }
    }

    /// Writes what was taken.
    pub fn write_out(&mut self) -> Result<(), WriteFailure> {
        self.write_gathered()?;
        if self.synced && std::mem::take(&mut self.unsynced_results) {
            self.results.sync()?;
        }
        if self.synced && std::mem::take(&mut self.unsynced_letters) {
            self.dead_letters.sync()?;
        }
        Ok(())
    }

    fn write_gathered(&mut self) -> Result<(), WriteFailure> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.unsynced_results = true;
        let written = self.results.write(&self.gathered);
        self.gathered.clear();
        written
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
    use common::batch::BatchBuilder;

    fn letter(item: &'static [u8]) -> DeadLetter {
        DeadLetter { id: ItemId(7), attempts: 5, cause: "exit status 1".into(), item: item.into() }
    }

    #[test]
    fn a_dead_letter_is_a_json_line_whatever_its_bytes() {
        assert_eq!(as_json(&letter(b"a \"b\"\n")), r#"{"id":7,"attempts":5,"cause":"exit status 1","item":"a \"b\"\n"}"#);
        assert_eq!(as_json(&letter(&[0xff])), r#"{"id":7,"attempts":5,"cause":"exit status 1","item_base64":"/w=="}"#);
    }

    fn results(texts: &[&str]) -> Record {
        let mut builder = BatchBuilder::default();
        texts.iter().for_each(|text| builder.push_bytes(text.as_bytes()));
        Record::Results(builder.take_batch().unwrap())
    }

    #[test]
    fn an_output_file_goes_on_where_its_results_count_and_loses_what_is_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut outputs = Outputs::new(Results::resume(&path, None).unwrap(), DeadLetters::Stderr, true).unwrap();
        assert_eq!(outputs.take(&results(&["one\n", "two\n"])).unwrap(), Some(8));
        assert_eq!(outputs.take(&results(&["three\n"])).unwrap(), Some(14));
        outputs.write_out().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
        let mut outputs = Outputs::new(Results::resume(&path, Some(8)).unwrap(), DeadLetters::Stderr, true).unwrap();
        assert_eq!(outputs.take(&results(&["3\n"])).unwrap(), Some(10));
        outputs.write_out().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n3\n");
    }

    #[test]
    fn an_output_file_that_cannot_be_the_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "text").unwrap();
        assert!(matches!(Results::resume(&path, None), Err(OutputError::Foreign { came: 4, .. })));
        assert!(matches!(Results::resume(&path, Some(5)), Err(OutputError::Short { came: 4, expected: 5, .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Results::resume(&path, Some(5)), Err(OutputError::Short { came: 0, expected: 5, .. })));
        assert!(!path.exists(), "no other file in its place");
    }

    #[test]
    fn a_dead_letter_in_words_is_one_short_line() {
        assert_eq!(in_words(&letter(b"a\nb")), r#"dead letter: item 7 after 5 attempts: exit status 1: "a\nb""#);
        let long = letter(&[b'x'; 1000]);
        assert!(in_words(&long).len() < 300 && in_words(&long).ends_with("…"));
    }
}
