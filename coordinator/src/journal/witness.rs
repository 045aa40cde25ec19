//! The witness: a small file that knows how far the journal has come.
//!
//! The store falls back to the last commit but one when it finds the last damaged, which after a crash is right, and else would silently take
//! back what was confirmed. So each commit's sequence number is noted here before the commit is reported. It is not synced: a process that
//! is killed leaves it as it was; after a loss of power it may be behind the journal, never ahead, as the commit before it was synced.
//! (With `--fsync never` a loss of power may leave either behind.)
//!
//! ```text
//! | "procqwit" | sequence: u64 LE | XXH3 of the former: u64 LE |
//! ```

use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use super::disk::Disk;
use super::error::JournalError;

/// The file's length. It lies in one sector, which a disk writes all or none of.
const BYTES: usize = 24;

const MAGIC: &[u8; 8] = b"procqwit";

/// The file.
#[derive(Debug)]
pub(super) struct Witness {
    disk: Box<dyn Disk>,
    path: PathBuf,
}

impl Witness {
    pub(super) fn new(disk: Box<dyn Disk>, path: &Path) -> Witness {
        Witness { disk, path: path.into() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last commit that it knows of; none if it is new.
    pub(super) fn read(&self) -> Result<Option<u64>, JournalError> {
        let io = |source| JournalError::io("read", &self.path, source);
        if self.disk.len().map_err(io)? == 0 {
            return Ok(None);
        }
        let mut bytes = [0; BYTES];
        let came = self.disk.read(0, &mut bytes);
        match came {
            Ok(()) if bytes == encode(sequence(&bytes)) => Ok(Some(sequence(&bytes))),
            Ok(()) => Err(JournalError::Witness { path: self.path.clone() }),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(JournalError::Witness { path: self.path.clone() }),
            Err(error) => Err(io(error)),
        }
    }

    /// Notes a commit.
    pub(super) fn write(&self, sequence: u64) -> Result<(), JournalError> {
        self.disk.write(0, &encode(sequence)).map_err(|source| JournalError::io("write", &self.path, source))
    }
}

fn sequence(bytes: &[u8; BYTES]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[8..16]);
    u64::from_le_bytes(number)
}

fn encode(sequence: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    let checksum = XxHash3_64::oneshot(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
