//! The lock file beside the socket: who holds it owns the path.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::directory::Directory;
use super::{Endpoint, EndpointError};

/// The right to own a path, as long as it is held; its file goes with it.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    name: OsString,
    directory: OwnedFd,
}

impl Endpoint {
    pub(super) fn take_lock(&self, directory: &Directory) -> Result<Lock, EndpointError> {
        let mut name = self.file_name()?;
        name.push(".lock");
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&directory.handle, &name, flags, Mode::from_raw_mode(0o600));
            let mut lock = File::from(opened.map_err(|error| self.io("open the lock file beside", error.into()))?);
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let _ = (&lock).take(20).read_to_string(&mut text);
                    return Err(EndpointError::InUse { path: self.path.clone(), pid: text.trim().parse().ok() });
                }
                Err(TryLockError::Error(error)) => return Err(self.io("lock the file beside", error)),
            }
            // An owner that ends removes its lock file: what we opened may be that one, and a newer may stand there.
            let ours = lock.metadata().map_err(|error| self.io("look at the lock file beside", error))?;
            match directory.stat(&name) {
                Ok(there) if there.st_ino == ours.ino() && there.st_dev == ours.dev() => {}
                _ => continue,
            }
            let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
            written.map_err(|error| self.io("write the lock file beside", error))?;
            let directory = directory.handle.try_clone().map_err(|error| self.io("keep open the directory of", error))?;
            return Ok(Lock { file: lock, name, directory });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let ours = self.file.metadata().map(|meta| meta.ino()).ok();
        let there = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|stat| Some(stat.st_ino) == ours) {
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}
