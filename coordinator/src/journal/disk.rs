//! Files as the journal uses them: the seam at which tests take the disk's place.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use super::Fsync;

/// A file.
pub(super) trait Disk: Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    /// Fills `into` from `offset` on; an error if the file ends before.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// What was written until now is on the disk.
    fn sync(&self) -> io::Result<()>;
    /// The file itself, if it is to be locked.
    fn file(&self) -> Option<&File> {
        None
    }
}

/// A file on disk.
#[derive(Debug)]
pub(super) struct FileDisk {
    pub(super) file: File,
    pub(super) fsync: Fsync,
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        match self.fsync {
            Fsync::Always => self.file.sync_data(),
            // The writes are the system's by now, which outlives this process.
            Fsync::Never => Ok(()),
        }
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// Makes the name of a file or directory survive a power loss, as far as its file system can.
pub fn sync_name(path: &Path) -> io::Result<()> {
    // The target of a symbolic link has its name in another directory.
    let path = path.canonicalize()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// A file that is only read: what is written to it stays in memory, so that even what needs repair can be looked at unchanged.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    len: u64,
    /// What lies in the file beyond this has been cut off.
    file_len: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

/// What is copied at the first write to a part of it: the store's smallest page.
const BLOCK_BYTES: usize = 4096;

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Overlay> {
        let len = file.metadata()?.len();
        Ok(Overlay { file, changes: Mutex::new(Changes { len, file_len: len, blocks: BTreeMap::new() }) })
    }

    fn changes(&self) -> io::Result<std::sync::MutexGuard<'_, Changes>> {
        self.changes.lock().map_err(|_| io::Error::other("a reader has panicked"))
    }

    fn read_block(&self, changes: &Changes, block: u64) -> io::Result<Box<[u8; BLOCK_BYTES]>> {
        if let Some(bytes) = changes.blocks.get(&block) {
            return Ok(bytes.clone());
        }
        let mut bytes = Box::new([0; BLOCK_BYTES]);
        let offset = block * BLOCK_BYTES as u64;
        let there = changes.file_len.saturating_sub(offset).min(BLOCK_BYTES as u64) as usize;
        self.file.read_exact_at(&mut bytes[..there], offset)?;
        Ok(bytes)
    }
}

impl Disk for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes()?.len)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let changes = self.changes()?;
        let end = offset.checked_add(into.len() as u64).filter(|end| *end <= changes.len);
        let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let blocks = offset / BLOCK_BYTES as u64..end.div_ceil(BLOCK_BYTES as u64);
        if end <= changes.file_len && changes.blocks.range(blocks.clone()).next().is_none() {
            return self.file.read_exact_at(into, offset);
        }
        for (block, at, part) in parts(offset, into.len()) {
            let bytes = self.read_block(&changes, block)?;
            let len = part.len();
            into[part].copy_from_slice(&bytes[at..at + len]);
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut changes = self.changes()?;
        for (block, at, part) in parts(offset, bytes.len()) {
            let mut whole = self.read_block(&changes, block)?;
            whole[at..at + part.len()].copy_from_slice(&bytes[part]);
            changes.blocks.insert(block, whole);
        }
        changes.len = changes.len.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes()?;
        let last = len / BLOCK_BYTES as u64;
        let mut whole = self.read_block(&changes, last)?;
        whole[(len % BLOCK_BYTES as u64) as usize..].fill(0);
        changes.blocks.split_off(&last);
        changes.blocks.insert(last, whole);
        (changes.len, changes.file_len) = (len, changes.file_len.min(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The blocks that bytes from `offset` on lie in: which, where in it, and which of the bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = (offset + done as u64) % BLOCK_BYTES as u64;
        let block = (offset + done as u64) / BLOCK_BYTES as u64;
        let part = done..len.min(done + BLOCK_BYTES - at as usize);
        done = part.end;
        (!part.is_empty()).then_some((block, at as usize, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_overlay_reads_like_a_file_that_was_written_to(
            before in 0_usize..20_000,
            steps in prop::collection::vec((0_u64..20_000, 0_usize..9000, any::<bool>()), 0..12),
        ) {
            let file = tempfile::tempfile().unwrap();
            let mut expected: Vec<u8> = (0..before).map(|at| at as u8 | 1).collect();
            file.write_all_at(&expected, 0).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
            let untouched = expected.clone();
            for (step, (offset, len, cut)) in (2..).zip(steps) {
                if cut {
                    overlay.set_len(offset).unwrap();
                    expected.resize(offset as usize, 0);
                } else {
                    overlay.write(offset, &vec![step; len]).unwrap();
                    expected.resize(expected.len().max(offset as usize + len), 0);
                    expected[offset as usize..offset as usize + len].fill(step);
                }
                let mut read = vec![0; overlay.len().unwrap() as usize];
                overlay.read(0, &mut read).unwrap();
                prop_assert_eq!(&read, &expected);
                prop_assert!(overlay.read(1, &mut read).is_err() || read.is_empty());
                let (from, until) = (expected.len() / 3, expected.len() / 2);
                overlay.read(from as u64, &mut read[from..until]).unwrap();
                prop_assert_eq!(&read, &expected);
            }
            let mut read = vec![0; before];
            file.read_exact_at(&mut read, 0).unwrap();
            prop_assert!(read == untouched && file.metadata().unwrap().len() == before as u64);
        }
    }
}
