//! The directory that the socket lies in: whose it is, and who may do what in it.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::{Endpoint, EndpointError};

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) handle: OwnedFd,
}

impl Directory {
    pub(super) fn open_or_create(path: &Path) -> Result<Directory, EndpointError> {
        match DirBuilder::new().mode(0o700).create(path) {
            // The mode given to mkdir passes the umask, which may take even the owner's bits.
            Ok(()) => {
                let made = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
                made.map_err(|source| EndpointError::Io { action: "make private", path: path.into(), source })?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(EndpointError::Io { action: "make the socket's directory", path: path.into(), source }),
        }
        Directory::open(path)
    }

    /// Opens the directory itself, not what a symbolic link in its place points to, and checks who may do what in it.
    pub(super) fn open(path: &Path) -> Result<Directory, EndpointError> {
        let refuse = |what: String, advice| Err(EndpointError::Unsafe { path: path.into(), what, advice });
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let handle = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                return refuse("is a symbolic link or no directory".into(), "give the real directory's path");
            }
            Err(error) => {
                return Err(EndpointError::Io { action: "open the socket's directory", path: path.into(), source: error.into() });
            }
        };
        let stat =
            rustix::fs::fstat(&handle).map_err(|error| EndpointError::Io { action: "look at", path: path.into(), source: error.into() })?;
        if stat.st_uid != own_uid() {
            return refuse(format!("belongs to user {}, not to you", stat.st_uid), "use a directory of your own");
        }
        if stat.st_mode & 0o022 != 0 {
            let mode = stat.st_mode & 0o7777;
            return refuse(format!("can be written by others (mode {mode:04o})"), "use a private directory (chmod 700)");
        }
        Ok(Directory { handle })
    }

    pub(super) fn stat(&self, name: &OsString) -> rustix::io::Result<Stat> {
        rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The socket file, if there is one that can be trusted.
    pub(super) fn socket(&self, endpoint: &Endpoint) -> Result<Option<Stat>, EndpointError> {
        let refuse = |what: &str, advice| Err(EndpointError::Unsafe { path: endpoint.path.clone(), what: what.into(), advice });
        let stat = match self.stat(&endpoint.file_name()?) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(endpoint.io("look at", error.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => {}
            FileType::Symlink => return refuse("is a symbolic link", "give the socket's real path"),
            _ => return refuse("is not a socket", "it is left as it is; choose another path with --socket"),
        }
        if stat.st_uid != own_uid() {
            let what = format!("belongs to user {}, not to you", stat.st_uid);
            return refuse(&what, "choose another path with --socket");
        }
        Ok(Some(stat))
    }
}

pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
