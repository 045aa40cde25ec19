//! A journal's directory: who may use it, who does, and what has to be in it.
//!
//! | file | |
//! |---|---|
//! | `journal.redb` | the journal |
//! | `witness` | how far it has come: see `witness.rs` |
//! | `lock` | held by the coordinator whose journal it is; its pid |
//! | `journal.new` | a journal that was never completed: a crash while it was made |

use std::ffi::OsString;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::Fsync;
use super::disk::{Disk, FileDisk, Overlay, sync_name};
use super::error::JournalError;
use super::store::{self, Sizes, Store};
use super::witness::Witness;

const JOURNAL: &str = "journal.redb";
const UNFINISHED: &str = "journal.new";
const WITNESS: &str = "witness";
const LOCK: &str = "lock";

/// Not merely to change its mode: it may be a directory that others need, such as /tmp.
const OWN_DIRECTORY: &str =
    "give a directory of its own for the journal, such as one that does not exist yet; if it is that, make it private (chmod 700)";

/// The directory, ours alone as long as this is held.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: OwnedFd,
    _lock: Option<File>,
}

impl Folder {
    /// Makes the directory if it is missing, and takes it.
    pub(super) fn open(path: &Path) -> Result<Folder, JournalError> {
        match DirBuilder::new().mode(0o700).create(path) {
            // The mode given to mkdir passes the umask, which may take even the owner's bits.
            Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
                .map_err(|source| JournalError::io("make", path, source))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(JournalError::io("make the directory", path, source)),
        }
        let mut folder = Folder { path: path.into(), handle: open_directory(path)?, _lock: None };
        let mut lock = folder.file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
        folder.take_lock(&lock, lock.try_lock(), "end that one, or give this one another --journal")?;
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(|source| JournalError::io("write", &folder.path.join(LOCK), source))?;
        folder._lock = Some(lock);
        Ok(folder)
    }

    /// Takes the directory for a look at it, which changes nothing: others may look, too, but no coordinator may begin meanwhile. (In a copy
    /// without a lock file there is nobody to be kept out.)
    pub(super) fn look_at(path: &Path) -> Result<Folder, JournalError> {
        let mut folder = Folder { path: path.into(), handle: open_directory(path)?, _lock: None };
        match folder.file(LOCK, OFlags::RDONLY) {
            Ok(lock) => {
                folder.take_lock(&lock, lock.try_lock_shared(), "look once that one has ended, or ask it: `coordinator status`")?;
                folder._lock = Some(lock);
            }
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(folder)
    }

    /// The path of the journal's file.
    pub(super) fn journal_path(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Opens the journal; makes one where there is nothing.
    pub(super) fn store(&self, fsync: Fsync, sizes: Sizes) -> Result<Store, JournalError> {
        let file = match self.file(JOURNAL, OFlags::RDWR) {
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.check_empty()?;
                self.make()?;
                self.file(JOURNAL, OFlags::RDWR)?
            }
            opened => opened?,
        };
        let disk = |file| Box::new(FileDisk { file, fsync });
        let witness_path = self.path.join(WITNESS);
        let witness = Witness::new(disk(self.file(WITNESS, OFlags::RDWR | OFlags::CREATE)?), &witness_path);
        Store::open(disk(file), &self.journal_path(), Some(witness), sizes)
    }

    /// Opens the journal for a look at it, and says how large its file is: the files stay as they are, even if it needs repair.
    pub(super) fn store_unchanged(&self) -> Result<(Store, u64), JournalError> {
        let path = self.journal_path();
        let file = match self.file(JOURNAL, OFlags::RDONLY) {
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::Missing { path, found: self.names()?.join(", ") });
            }
            opened => opened?,
        };
        let overlay = Overlay::new(file).map_err(|source| JournalError::io("look at", &path, source))?;
        let file_bytes = overlay.len().map_err(|source| JournalError::io("look at", &path, source))?;
        let sizes = Sizes { slack_bytes: u64::MAX, check_bytes_max: 0, ..Sizes::default() };
        Ok((Store::open(Box::new(overlay), &path, None, sizes)?, file_bytes))
    }

    /// The last commit that the witness knows of.
    pub(super) fn confirmed(&self) -> Result<Option<u64>, JournalError> {
        match self.file(WITNESS, OFlags::RDONLY) {
            Ok(file) => Witness::new(Box::new(FileDisk { file, fsync: Fsync::Never }), &self.path.join(WITNESS)).read(),
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Under a name of its own until it is whole: no crash leaves half a journal.
    fn make(&self) -> Result<(), JournalError> {
        self.remove_unfinished()?;
        let (made, journal) = (self.path.join(UNFINISHED), self.journal_path());
        let file = self.file(UNFINISHED, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        let io = |source| JournalError::io("make", &journal, source);
        let disk = FileDisk { file: file.try_clone().map_err(io)?, fsync: Fsync::Always };
        store::create(Box::new(disk), &made)?;
        file.sync_all().map_err(io)?;
        rustix::fs::renameat(&self.handle, UNFINISHED, &self.handle, JOURNAL).map_err(|error| io(error.into()))?;
        rustix::fs::fsync(&self.handle).map_err(|error| io(error.into()))?;
        // The directory may be as new as what is in it.
        sync_name(&self.path).map_err(io)
    }

    fn remove_unfinished(&self) -> Result<(), JournalError> {
        match rustix::fs::unlinkat(&self.handle, UNFINISHED, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(JournalError::io("remove", &self.path.join(UNFINISHED), error.into())),
        }
    }

    /// A journal is begun only where there is nothing: one that is missing is not to be replaced by an empty one.
    fn check_empty(&self) -> Result<(), JournalError> {
        let mut others = self.names()?;
        others.retain(|name| name != LOCK && name != UNFINISHED);
        if others.is_empty() {
            return Ok(());
        }
        Err(JournalError::Missing { path: self.journal_path(), found: others.join(", ") })
    }

    fn names(&self) -> Result<Vec<String>, JournalError> {
        let entries = std::fs::read_dir(&self.path).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut names: Vec<OsString> = entries.map_err(|source| JournalError::io("list", &self.path, source))?;
        names.sort();
        Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    /// A file in the directory, not one that a symbolic link points to.
    fn file(&self, name: &str, flags: OFlags) -> Result<File, JournalError> {
        let path = self.path.join(name);
        let refuse = |what: &str| {
            Err(JournalError::Unsafe {
                path: path.clone(),
                what: what.into(),
                advice: "put the file itself there, or name another directory",
            })
        };
        // A pipe would have its opener wait for the other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.handle, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file).map_err(|error| JournalError::io("look at", &path, error.into()))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile { Ok(file.into()) } else { refuse("is no regular file") }
            }
            Err(Errno::LOOP) => refuse("is a symbolic link"),
            Err(Errno::ISDIR | Errno::NXIO) => refuse("is no regular file"),
            Err(error) => Err(JournalError::io("open", &path, error.into())),
        }
    }

    fn take_lock(&self, mut lock: &File, taken: Result<(), TryLockError>, advice: &'static str) -> Result<(), JournalError> {
        match taken {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = (&mut lock).take(20).read_to_string(&mut text);
                // One who merely looks at the journal leaves the pid of its last coordinator there.
                let lives = |pid: &i32| Pid::from_raw(*pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
                let pid = text.trim().parse().ok().filter(lives).map(i32::cast_unsigned);
                Err(JournalError::InUse { path: self.path.clone(), pid, advice })
            }
            Err(TryLockError::Error(source)) => Err(JournalError::io("lock", &self.path.join(LOCK), source)),
        }
    }
}

/// Opens the directory itself, not what a symbolic link in its place points to, and checks whose it is.
fn open_directory(path: &Path) -> Result<OwnedFd, JournalError> {
    let refuse = |what: String, advice| Err(JournalError::Unsafe { path: path.into(), what, advice });
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let handle = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(handle) => handle,
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return refuse("is a symbolic link or no directory".into(), "give the real directory's path");
        }
        Err(error) => return Err(JournalError::io("open the directory", path, error.into())),
    };
    let stat = rustix::fs::fstat(&handle).map_err(|error| JournalError::io("look at", path, error.into()))?;
    let uid = rustix::process::geteuid().as_raw();
    if stat.st_uid != uid {
        return refuse(format!("belongs to user {}, not to you", stat.st_uid), "use a directory of your own");
    }
    if stat.st_mode & 0o077 != 0 {
        return refuse(format!("is open to others (mode {:04o})", stat.st_mode & 0o7777), OWN_DIRECTORY);
    }
    Ok(handle)
}
