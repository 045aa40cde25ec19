//! Where coordinator and clients meet: a local socket in a private directory. The only file that names `interprocess`.
//!
//! Three locks keep other users out, each alone enough where the directory is ours to make: the directory's mode (0700), the
//! socket's mode (0600), and the peer's credentials. The coordinator holds a lock file beside the socket for life; only its
//! holder may judge a socket file stale and replace it, so one path never has two owners.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::ConnectWaitMode;
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{
    ConnectOptions, GenericFilePath, Listener as AnyListener, ListenerNonblockingMode, ListenerOptions, Stream,
};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::limits::SOCKET_PATH_BYTES_MAX;

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

/// Why a socket cannot be used. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Nobody listens.
    #[error("no coordinator at {}: {why}; start one with `coordinator serve`, or name its socket with --socket or {SOCKET_VARIABLE}", path.display())]
    NoCoordinator {
        /// The socket's path.
        path: PathBuf,
        /// What is there instead.
        why: &'static str,
    },
    /// Another coordinator listens.
    #[error("a coordinator{} already listens at {}; give this one another --socket, or end that one with `coordinator stop`", pid_in_words(*pid), path.display())]
    InUse {
        /// The socket's path.
        path: PathBuf,
        /// The other coordinator's process id, where known.
        pid: Option<u32>,
    },
    /// The path does not fit into a socket address.
    #[error("the socket path {} has {bytes} bytes; at most {} fit into a socket address: choose a shorter one", path.display(), SOCKET_PATH_BYTES_MAX - 1)]
    TooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The path, or the directory that it lies in, cannot be trusted.
    #[error("{} {what}; {advice}", path.display())]
    Unsafe {
        /// The offending path.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// Who listens is another user.
    #[error("the coordinator at {} runs as user {uid}, not as you; use a socket of your own", path.display())]
    ForeignCoordinator {
        /// The socket's path.
        path: PathBuf,
        /// The other user.
        uid: u32,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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

    /// Lets clients that connect here keep looking for news for `spin` before they sleep, each time they wait: news comes sooner, for a
    /// core that is busy meanwhile. Pays only where a core is free for each that waits, the coordinator (`--spin`) included.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use common::Endpoint;
    /// let endpoint = Endpoint::from_env().with_spin(Duration::from_micros(50));
    /// # assert_eq!(endpoint.spin(), Duration::from_micros(50));
    /// ```
    pub fn with_spin(self, spin: Duration) -> Endpoint {
        Endpoint { spin, ..self }
    }

    /// See [`Endpoint::with_spin`].
    ///
    /// ```
    /// # use common::Endpoint;
    /// assert!(Endpoint::from_env().spin().is_zero());
    /// ```
    pub fn spin(&self) -> Duration {
        self.spin
    }

    /// Lets producers and consumers that connect here connect again when they lose their connection without a word, as when the
    /// coordinator is killed and started again: calls that need it wait, and fail once `within` has passed since the loss. What the
    /// coordinator says before it closes (that the queue has ended, that another producer came under the name) is final all the same.
    ///
    /// A producer then keeps what is unconfirmed, and puts again what the coordinator has not accepted: nothing twice. For that it
    /// needs a name; one without gets one that nobody else has, which the coordinator keeps. What a consumer held is delivered again, to
    /// any; to settle a delivery of the lost connection is without effect.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let endpoint = endpoint.with_reconnect(Duration::from_secs(30));
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&7)?; // waits for 30 s at most should the coordinator be gone
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn with_reconnect(self, within: Duration) -> Endpoint {
        Endpoint { reconnect: within, ..self }
    }

    /// See [`Endpoint::with_reconnect`]; zero unless that was called.
    ///
    /// ```
    /// # use common::Endpoint;
    /// assert!(Endpoint::from_env().reconnect().is_zero());
    /// ```
    pub fn reconnect(&self) -> Duration {
        self.reconnect
    }

    /// Lets clients say on stderr, in this program's name, when their connection is lost and when there is one again.
    ///
    /// ```
    /// # use common::Endpoint;
    /// let endpoint = Endpoint::from_env().with_narrator("thumbnailer");
    /// # assert_eq!(endpoint.narrator(), Some("thumbnailer"));
    /// ```
    pub fn with_narrator(self, program: &'static str) -> Endpoint {
        Endpoint { narrator: Some(program), ..self }
    }

    /// See [`Endpoint::with_narrator`].
    ///
    /// ```
    /// # use common::Endpoint;
    /// assert_eq!(Endpoint::from_env().narrator(), None);
    /// ```
    pub fn narrator(&self) -> Option<&'static str> {
        self.narrator
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
            _ => Ok(stream),
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

    fn take_lock(&self, directory: &Directory) -> Result<Lock, EndpointError> {
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
            Some(uid) if uid == own_uid() => Ok(Accepted::Client(stream, peer.pid)),
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

/// The right to own a path, as long as it is held; its file goes with it.
#[derive(Debug)]
struct Lock {
    file: File,
    name: OsString,
    directory: OwnedFd,
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

#[derive(Debug)]
struct Directory {
    handle: OwnedFd,
}

impl Directory {
    fn open_or_create(path: &Path) -> Result<Directory, EndpointError> {
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
    fn open(path: &Path) -> Result<Directory, EndpointError> {
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

    fn stat(&self, name: &OsString) -> rustix::io::Result<Stat> {
        rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The socket file, if there is one that can be trusted.
    fn socket(&self, endpoint: &Endpoint) -> Result<Option<Stat>, EndpointError> {
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

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.as_bytes().is_empty())
}

fn set_private(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

fn pid_in_words(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> (tempfile::TempDir, Endpoint) {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::at(directory.path().join("q.sock"));
        (directory, endpoint)
    }

    #[test]
    fn a_listener_is_private_and_leaves_nothing_behind() {
        let (directory, _) = private();
        let endpoint = Endpoint::at(directory.path().join("made/q.sock"));
        let listener = endpoint.bind().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&directory.path().join("made")), 0o700);
        assert_eq!(mode(endpoint.path()), 0o600);
        endpoint.connect().unwrap();
        assert!(matches!(listener.accept().unwrap(), Accepted::Client(_, Some(pid)) if pid == std::process::id()));
        drop(listener);
        assert_eq!(std::fs::read_dir(directory.path().join("made")).unwrap().count(), 0);
        assert!(matches!(endpoint.connect(), Err(EndpointError::NoCoordinator { .. })));
    }

    #[test]
    fn a_live_socket_is_never_displaced_even_when_its_lock_file_is_gone() {
        let (_directory, endpoint) = private();
        let listener = endpoint.bind().unwrap();
        let own_pid = Some(std::process::id());
        assert!(matches!(endpoint.bind(), Err(EndpointError::InUse { pid, .. }) if pid == own_pid));
        std::fs::remove_file(endpoint.path().with_extension("sock.lock")).unwrap();
        assert!(matches!(endpoint.bind(), Err(EndpointError::InUse { pid, .. }) if pid == own_pid));
        endpoint.connect().unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_stale_socket_is_taken_over() {
        let (_directory, endpoint) = private();
        drop(UnixListener::bind(endpoint.path()).unwrap());
        assert!(matches!(endpoint.connect(), Err(EndpointError::NoCoordinator { why, .. }) if why.contains("gone")));
        let _listener = endpoint.bind().unwrap();
        endpoint.connect().unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let (directory, endpoint) = private();
        std::fs::write(endpoint.path(), "precious").unwrap();
        let refused = endpoint.bind().unwrap_err().to_string();
        assert!(refused.contains("is not a socket"), "{refused}");
        assert_eq!(std::fs::read(endpoint.path()).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no lock file is left beside it");
        let link = Endpoint::at(directory.path().join("link.sock"));
        std::os::unix::fs::symlink(endpoint.path(), link.path()).unwrap();
        let refused = link.bind().unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
    }

    #[test]
    fn a_directory_that_others_can_write_or_a_link_to_one_is_refused() {
        let (directory, endpoint) = private();
        let chmod = |mode| std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o770);
        let refused = endpoint.bind().unwrap_err().to_string();
        assert!(refused.contains("can be written by others (mode 0770)"), "{refused}");
        chmod(0o700);
        std::fs::create_dir(directory.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", directory.path().join("link")).unwrap();
        let refused = Endpoint::at(directory.path().join("link/q.sock")).bind().unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
    }

    #[test]
    fn a_path_too_long_for_a_socket_says_its_length_and_the_limit() {
        let long = Endpoint::at(format!("/tmp/{}", "x".repeat(200)));
        for refused in [long.bind().unwrap_err(), long.connect().unwrap_err()] {
            let words = refused.to_string();
            assert!(words.contains("205 bytes") && words.contains(&(SOCKET_PATH_BYTES_MAX - 1).to_string()), "{words}");
        }
    }
}
