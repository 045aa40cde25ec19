//! The job log: a JSON line for each attempt, appended by as many consumers as there are.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use common::Delivery;
use serde::Serialize;

use crate::unless_expired;

/// A file that attempts are appended to.
#[derive(Debug)]
pub struct JobLog {
    file: File,
    path: PathBuf,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The item is done.
    Done,
    /// The command asked for a later retry.
    Retry,
    /// A failed attempt.
    Failed,
    /// The item can never succeed: a dead letter at once.
    Rejected,
    /// It was not this consumer's any more: the connection was lost meanwhile, or it took too long and was taken back. It is delivered again.
    Lost,
}

/// An attempt, as far as it is not said by the delivery.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The process that worked on it; none if it did not come to that.
    pub pid: Option<u32>,
    /// When it began.
    pub began: Began,
    /// The exit code of the process, if it ended by itself.
    pub exit: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Bytes of the result.
    pub bytes: usize,
    /// What it came to.
    pub outcome: Outcome,
    /// Why it is not done.
    pub cause: Option<&'a str>,
}

/// When an attempt began, by the clock on the wall and by one that never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    wall: SystemTime,
    at: Instant,
}

/// The line; times in seconds, `start` since 1970.
#[derive(Serialize)]
struct Line<'a> {
    id: u64,
    attempt: u32,
    pid: Option<u32>,
    start: f64,
    duration: f64,
    exit: Option<i32>,
    signal: Option<i32>,
    bytes: usize,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

impl Began {
    /// Now.
    pub fn now() -> Began {
        Began { wall: SystemTime::now(), at: Instant::now() }
    }

    /// How long ago.
    pub fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// The later of two.
    pub fn or_later(self, other: Began) -> Began {
        if other.at > self.at { other } else { self }
    }
}

impl JobLog {
    /// Opens a file to append to it; makes it if it is not there.
    pub fn append_to(path: &Path) -> Result<JobLog> {
        let cannot = || format!("cannot write the job log {}", path.display());
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).or_else(|error| match error.kind() {
            // A pipe, say, that can only be written.
            std::io::ErrorKind::PermissionDenied => OpenOptions::new().append(true).open(path),
            _ => Err(error),
        });
        if let Ok(file) = &mut file {
            end_torn_line(file).with_context(cannot)?;
        }
        Ok(JobLog { file: file.with_context(cannot)?, path: path.into() })
    }

    /// Notes an attempt, if there is a log, before it is settled: nothing is done that is not noted. If it cannot be, the item goes back as if
    /// it had not been delivered, since it is not to blame.
    pub fn note<'c>(log: Option<&JobLog>, delivery: Delivery<'c, [u8]>, attempt: &Attempt<'_>) -> Result<Delivery<'c, [u8]>> {
        let Some(log) = log else { return Ok(delivery) };
        let noted = if delivery.is_held() {
            log.append(&delivery, attempt)
        } else {
            let cause = attempt.cause.or(Some("the connection was lost, or the item taken back"));
            log.append(&delivery, &Attempt { bytes: 0, outcome: Outcome::Lost, cause, ..*attempt })
        };
        match noted {
            Ok(()) => Ok(delivery),
            Err(error) => {
                unless_expired(delivery.give_back_unstarted())?;
                Err(error)
            }
        }
    }

    /// Appends a line, in one write.
    fn append(&self, delivery: &Delivery<'_, [u8]>, attempt: &Attempt<'_>) -> Result<()> {
        let line = Line {
            id: delivery.id().0,
            attempt: delivery.attempt(),
            pid: attempt.pid,
            start: seconds(attempt.began.wall.duration_since(UNIX_EPOCH).unwrap_or_default()),
            duration: seconds(attempt.began.elapsed()),
            exit: attempt.exit,
            signal: attempt.signal,
            bytes: attempt.bytes,
            outcome: attempt.outcome,
            cause: attempt.cause,
        };
        let cannot = || format!("cannot write the job log {}; what it does not hold is not done", self.path.display());
        let mut line = serde_json::to_vec(&line).with_context(cannot)?;
        line.push(b'\n');
        (&self.file).write_all(&line).with_context(cannot)
    }
}

/// With whole microseconds: more digits would be noise.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// A disk was full in the middle of a line: that one is torn, the next shall not be.
fn end_torn_line(file: &mut File) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != [b'\n'] { file.write_all(b"\n") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_microseconds_and_no_noise_behind_them() {
        assert_eq!(serde_json::to_string(&seconds(Duration::from_nanos(1_763_865_839_123_456_789))).unwrap(), "1763865839.123457");
        assert_eq!(serde_json::to_string(&seconds(Duration::from_nanos(1_500))).unwrap(), "2e-6");
    }
}
