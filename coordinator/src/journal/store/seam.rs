//! Between `redb` and the rest: our files under it, its errors and panics as ours.

use std::any::Any;
use std::io;
use std::ops::{Bound, Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, StorageBackend};

use super::super::disk::Disk;
use super::super::error::JournalError;

/// A database that may find damage even as it is dropped.
#[derive(Debug)]
pub(super) struct Opened(Option<Database>);

impl Opened {
    /// Opens the database in a file, or makes one in an empty file.
    pub(super) fn open_or_make(builder: &Builder, disk: Box<dyn Disk>) -> Result<Opened, redb::Error> {
        let locks = disk.file().map(|file| file.try_clone()).transpose()?.map(FileBackend::new).transpose()?;
        Ok(Opened(Some(builder.create_with_backend(Seam { disk, locks })?)))
    }

    pub(super) fn close(mut self) -> Result<(), redb::Error> {
        self.0.take().map_or(Ok(()), Database::close).map_err(redb::Error::from)
    }
}

impl Deref for Opened {
    type Target = Database;

    fn deref(&self) -> &Database {
        #[expect(clippy::expect_used, reason = "only closing and dropping take it, and nobody has it after these")]
        self.0.as_ref().expect("the database is open")
    }
}

impl DerefMut for Opened {
    fn deref_mut(&mut self) -> &mut Database {
        #[expect(clippy::expect_used, reason = "only closing and dropping take it, and nobody has it after these")]
        self.0.as_mut().expect("the database is open")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let database = self.0.take();
        // What is wrong was reported, or will be to the next one who opens it.
        let _ = guarded(|| {
            drop(database);
            Ok(())
        });
    }
}

/// Does what may find damage so odd that `redb` panics at it.
pub(super) fn guarded<T>(task: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(|panic| Err(redb::Error::Corrupted(in_words(&*panic))))
}

/// Says it as the journal does.
pub(super) fn translate(action: &'static str, path: &Path, error: redb::Error) -> JournalError {
    match error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            JournalError::Foreign { path: path.into(), what: error.to_string() }
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => JournalError::damaged(path, "it ends too early"),
        redb::Error::Io(source) => JournalError::io(action, path, source),
        redb::Error::Corrupted(what) => JournalError::damaged(path, what),
        redb::Error::DatabaseAlreadyOpen => JournalError::InUse { path: path.into(), pid: None, advice: "end that one first" },
        redb::Error::UpgradeRequired(version) => {
            JournalError::Foreign { path: path.into(), what: format!("a database in the file format {version} of redb") }
        }
        redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } | redb::Error::TableIsMultimap(_) => {
            JournalError::Foreign { path: path.into(), what: format!("a database of something else: {error}") }
        }
        redb::Error::PreviousIo => JournalError::Ended { path: path.into() },
        error => JournalError::damaged(path, error),
    }
}

fn in_words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    words.unwrap_or("the store has panicked").into()
}

#[derive(Debug)]
struct Seam {
    disk: Box<dyn Disk>,
    /// The same file once more, if there is one, for its locks only.
    locks: Option<FileBackend>,
}

impl Seam {
    fn locks(&self) -> Result<&FileBackend, BackendError> {
        self.locks.as_ref().ok_or(BackendError::Unsupported)
    }
}

impl StorageBackend for Seam {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.locks.as_ref().map_or(Ok(()), StorageBackend::close)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.locks()?.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.locks()?.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.locks()?.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.locks()?.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.locks()?.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.locks()?.query_lock_range(start, end)
    }
}
