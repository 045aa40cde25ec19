//! Why a socket cannot be used.

use std::io;
use std::path::PathBuf;

use super::SOCKET_VARIABLE;
use crate::limits::SOCKET_PATH_BYTES_MAX;

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

fn pid_in_words(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}
