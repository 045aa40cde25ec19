//! Where coordinator and clients meet: a local socket in a private directory. The only file that names `interprocess`.
//!
//! Three locks keep other users out, each alone enough where the directory is ours to make: the directory's mode (0700), the
//! socket's mode (0600), and the peer's credentials. The coordinator holds a lock file beside the socket for life; only its
//! holder may judge a socket file stale and replace it, so one path never has two owners.

mod directory;
mod error;
mod lock;
mod settings;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use directory::{Directory, own_uid};
pub use error::EndpointError;
use interprocess::ConnectWaitMode;
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{
    ConnectOptions, GenericFilePath, Listener as AnyListener, ListenerNonblockingMode, ListenerOptions, Stream,
};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use lock::Lock;
use rustix::fs::{AtFlags, Mode};

use crate::limits::SOCKET_PATH_BYTES_MAX;
use crate::transport::widen;

/// The environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "PROCQ_SOCKET";

/// The path of a coordinator's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    path: PathBuf,
    spin: Duration,
    reconnect: Duration,
    narrator: Option<&'static str>,
}

/// The two ends of a connection that was accepted.
#[derive(Debug)]
pub enum Accepted {
    /// A client of our own user, and its process id, where the system tells.
    Client(UnixStream, Option<u32>),
    /// Another user's process, to be refused.
    Foreign(UnixStream, Option<u32>),
}

impl Endpoint {
    /// The socket that `PROCQ_SOCKET` names; else `$XDG_RUNTIME_DIR/procq/default.sock`; else `/tmp/procq-UID/default.sock`.
    ///
    /// ```
    /// use common::Endpoint;
    ///
    /// let endpoint = Endpoint::from_env();
    /// assert!(endpoint.path().is_absolute() || std::env::var_os("PROCQ_SOCKET").is_some());
    /// ```
    pub fn from_env() -> Endpoint {
        if let Some(path) = variable(SOCKET_VARIABLE) {
            return Endpoint::at(path);
        }
        let directory = match variable("XDG_RUNTIME_DIR") {
            Some(runtime) => Path::new(&runtime).join("procq"),
            None => PathBuf::from(format!("/tmp/procq-{}", own_uid())),
        };
        Endpoint::at(directory.join("default.sock"))
    }

    /// The socket that was named; without a name, or with an empty one, [`Endpoint::from_env`].
    ///
    /// ```
    /// use std::ffi::OsStr;
    ///
    /// # use common::Endpoint;
    /// assert_eq!(Endpoint::named(Some(OsStr::new("/run/q.sock"))), Endpoint::at("/run/q.sock"));
    /// assert_eq!(Endpoint::named(None), Endpoint::from_env());
    /// ```
    pub fn named(path: Option<&OsStr>) -> Endpoint {
        path.filter(|path| !path.is_empty()).map_or_else(Endpoint::from_env, Endpoint::at)
    }

    /// The socket at `path`.
    ///
    /// ```
    /// # use common::Endpoint;
    /// let endpoint = Endpoint::at("/home/me/queues/thumbnails.sock");
    /// # assert!(endpoint.reconnect().is_zero());
    /// ```
    pub fn at(path: impl Into<PathBuf>) -> Endpoint {
        Endpoint { path: path.into(), spin: Duration::ZERO, reconnect: Duration::ZERO, narrator: None }
    }

    /// The socket's path.
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// # use common::Endpoint;
    /// assert_eq!(Endpoint::at("/run/q.sock").path(), Path::new("/run/q.sock"));
    /// ```
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connects to the coordinator, after the same checks of directory and socket that it made, and of who it is.
    ///
    /// ```
    /// // What clients do first; `Producer::connect` and its like are what is wanted mostly.
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let stream = endpoint.connect()?;
    /// assert!(stream.peer_addr()?.as_pathname().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(&self) -> Result<UnixStream, EndpointError> {
        self.check_length()?;
        let directory = match Directory::open(self.directory()) {
            Err(EndpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(self.no_coordinator("its directory does not exist"));
            }
            opened => opened?,
        };
        if directory.socket(self)?.is_none() {
            return Err(self.no_coordinator("there is no such socket"));
        }
        let (stream, peer) = match self.dial(ConnectWaitMode::Unbounded) {
            Ok(dialled) => dialled,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(self.no_coordinator("the one that made this socket is gone"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.no_coordinator("it has just gone")),
            Err(error) => return Err(self.io("connect to", error)),
        };
        match peer.uid {
            Some(uid) if uid != own_uid() => Err(EndpointError::ForeignCoordinator { path: self.path.clone(), uid }),
            _ => {
                widen(&stream);
                Ok(stream)
            }
        }
    }

    /// Becomes the coordinator of this path: makes the directory, takes the lock, replaces a stale socket, listens.
    ///
    /// ```
    /// use common::Endpoint;
    /// use common::endpoint::{Accepted, EndpointError};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let endpoint = Endpoint::at(folder.path().join("q.sock"));
    /// let listener = endpoint.bind()?;
    /// assert!(matches!(endpoint.bind(), Err(EndpointError::InUse { .. })));
    /// let client = endpoint.connect()?;
    /// assert!(matches!(listener.accept()?, Accepted::Client(..)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind(&self) -> Result<Listener, EndpointError> {
        self.check_length()?;
        let directory = Directory::open_or_create(self.directory())?;
        let lock = self.take_lock(&directory)?;
        if directory.socket(self)?.is_some() {
            self.remove_if_stale(&directory)?;
        }
        let options = || {
            let name = self.path.as_path().to_fs_name::<GenericFilePath>()?;
            Ok(ListenerOptions::new().name(name).reclaim_name(false).nonblocking(ListenerNonblockingMode::Accept))
        };
        let listener = match options().and_then(|options| options.mode(0o600).create_sync()) {
            // Not every system can set the mode before the socket appears; there the directory alone guards that moment.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                options().and_then(|options| options.create_sync()).and_then(|listener| set_private(&self.path).map(|()| listener))
            }
            made => made,
        };
        let listener = listener.map_err(|error| self.io("listen at", error))?;
        let listener = Listener { listener, endpoint: self.clone(), directory, _lock: Some(lock), inode: None };
        listener.check_place()
    }

    /// Listens at a socket that another has made and passed to this process: it stays that one's, lock, file and all. Whether it lies where
    /// `named` says, if that is given, and whether nobody else can come to it, is checked as if it were ours.
    ///
    /// ```
    /// use std::fs::{Permissions, set_permissions};
    /// use std::os::unix::fs::PermissionsExt;
    /// use std::os::unix::net::UnixListener;
    ///
    /// use common::Endpoint;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("q.sock");
    /// let passed = UnixListener::bind(&path)?; // by systemd, mostly
    /// set_permissions(&path, Permissions::from_mode(0o600))?;
    /// let listener = Endpoint::adopt(passed, None)?;
    /// assert_eq!(listener.endpoint().path(), path);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt(passed: UnixListener, named: Option<&Path>) -> Result<Listener, EndpointError> {
        let refuse = |path: &Path, what: &str, advice| Err(EndpointError::Unsafe { path: path.into(), what: what.into(), advice });
        let address =
            passed.local_addr().map_err(|source| EndpointError::Io { action: "look at", path: "the passed socket".into(), source })?;
        let Some(path) = address.as_pathname() else {
            return refuse(Path::new("the passed socket"), "has no path", "give ListenStream= in the .socket unit a path");
        };
        let endpoint = Endpoint::at(path);
        let inode = |path: &Path| std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        if named.is_some_and(|named| inode(named) != inode(path)) {
            return refuse(path, "was passed, but another socket is named", "leave out --socket and PROCQ_SOCKET, or name this one");
        }
        let directory = Directory::open(endpoint.directory())?;
        match directory.socket(&endpoint)? {
            None => return refuse(path, "was passed, but is not there any more", "restart the .socket unit"),
            Some(stat) if stat.st_mode & 0o077 != 0 => {
                return refuse(path, "is open to others", "set SocketMode=0600 in the .socket unit");
            }
            Some(_) => {}
        }
        let listener = AnyListener::UdSocket(OwnedFd::from(passed).into());
        listener.set_nonblocking(ListenerNonblockingMode::Accept).map_err(|error| endpoint.io("listen at", error))?;
        Ok(Listener { listener, endpoint, directory, _lock: None, inode: None })
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn file_name(&self) -> Result<OsString, EndpointError> {
        self.path.file_name().map(OsString::from).ok_or_else(|| EndpointError::Unsafe {
            path: self.path.clone(),
            what: "names no file".into(),
            advice: "give the path of a socket",
        })
    }

    fn check_length(&self) -> Result<(), EndpointError> {
        let bytes = self.path.as_os_str().len();
        if bytes >= SOCKET_PATH_BYTES_MAX {
            return Err(EndpointError::TooLong { path: self.path.clone(), bytes });
        }
        self.file_name().map(|_| ())
    }

    /// Waiting without end is the only mode in which `Ok` means connected: the others return a socket that is not when the
    /// listener's backlog is full. For probing whether anybody lives that is an answer, too.
    fn dial(&self, wait: ConnectWaitMode) -> io::Result<(UnixStream, Peer)> {
        let name = self.path.as_path().to_fs_name::<GenericFilePath>()?;
        let Stream::UdSocket(stream) = ConnectOptions::new().name(name).wait_mode(wait).connect_sync()?;
        let peer = Peer::of(&stream);
        Ok((UnixStream::from(OwnedFd::from(stream)), peer))
    }

    /// Only for the holder of the lock. The lock file may have been deleted under a coordinator that lives: ask the socket, too.
    fn remove_if_stale(&self, directory: &Directory) -> Result<(), EndpointError> {
        match self.dial(ConnectWaitMode::Deferred) {
            Ok((_, peer)) => Err(EndpointError::InUse { path: self.path.clone(), pid: peer.pid }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                rustix::fs::unlinkat(&directory.handle, self.file_name()?, AtFlags::empty())
                    .map_err(|error| self.io("remove the stale socket", error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(EndpointError::InUse { path: self.path.clone(), pid: None }),
            Err(error) => Err(self.io("probe", error)),
        }
    }

    fn no_coordinator(&self, why: &'static str) -> EndpointError {
        EndpointError::NoCoordinator { path: self.path.clone(), why }
    }

    fn io(&self, action: &'static str, source: io::Error) -> EndpointError {
        EndpointError::Io { action, path: self.path.clone(), source }
    }
}

/// A coordinator's socket: removed, with its lock file, when dropped, unless it was passed.
#[derive(Debug)]
pub struct Listener {
    listener: AnyListener,
    endpoint: Endpoint,
    directory: Directory,
    _lock: Option<Lock>,
    /// Of the file that is ours to remove.
    inode: Option<u64>,
}

impl Listener {
    /// The next connection that waits; `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<Accepted> {
        let Stream::UdSocket(stream) = self.listener.accept()?;
        let peer = Peer::of(&stream);
        let stream = UnixStream::from(OwnedFd::from(stream));
        stream.set_nonblocking(true)?;
        match peer.uid {
            Some(uid) if uid == own_uid() => {
                widen(&stream);
                Ok(Accepted::Client(stream, peer.pid))
            }
            uid => Ok(Accepted::Foreign(stream, uid)),
        }
    }

    /// The path that is listened at.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The directory may have been exchanged between the check and the bind, which goes by path: the socket must have come to
    /// lie in the directory that was checked.
    fn check_place(mut self) -> Result<Listener, EndpointError> {
        let name = self.endpoint.file_name()?;
        let by_handle = self.directory.stat(&name).map(|stat| (stat.st_dev, stat.st_ino));
        let by_path = std::fs::symlink_metadata(&self.endpoint.path).map(|meta| (meta.dev(), meta.ino()));
        match (by_handle, by_path) {
            (Ok(handle), Ok(path)) if handle == path => {
                self.inode = Some(handle.1);
                // The mode that the socket was made with passes the umask, which may take even the owner's bits.
                match rustix::fs::chmodat(&self.directory.handle, &name, Mode::from_raw_mode(0o600), AtFlags::empty()) {
                    Ok(()) => Ok(self),
                    Err(error) => Err(self.endpoint.io("make private", error.into())),
                }
            }
            _ => {
                // By either way to it: the exchange may be over by now, or not.
                let _ = std::fs::remove_file(&self.endpoint.path);
                let _ = rustix::fs::unlinkat(&self.directory.handle, &name, AtFlags::empty());
                Err(EndpointError::Unsafe {
                    path: self.endpoint.directory().into(),
                    what: "was exchanged for another while the socket was made in it".into(),
                    advice: "somebody tampers with it; choose another place with --socket",
                })
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            AnyListener::UdSocket(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Ok(name) = self.endpoint.file_name() else { return };
        if self.directory.stat(&name).is_ok_and(|stat| Some(stat.st_ino) == self.inode) {
            let _ = rustix::fs::unlinkat(&self.directory.handle, &name, AtFlags::empty());
        }
    }
}

struct Peer {
    uid: Option<u32>,
    pid: Option<u32>,
}

impl Peer {
    fn of(stream: &impl interprocess::local_socket::traits::StreamCommon) -> Peer {
        let creds = stream.peer_creds().ok();
        Peer {
            uid: creds.as_ref().and_then(|creds| creds.euid()),
            pid: creds.as_ref().and_then(|creds| creds.pid()).and_then(|pid| u32::try_from(pid).ok()),
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.as_bytes().is_empty())
}

fn set_private(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests;
