//! What the three programs share: exit codes, waiting for a coordinator, and the tie of a child to its parent.

use std::error::Error as StdError;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::endpoint::EndpointError;
use crate::error::Error;
use crate::limits::CONNECT_RETRY;

/// The programs' version, and the commit that they were built from where that is known.
pub const VERSION: &str = match option_env!("PROCQ_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// All is done.
pub const EXIT_DONE: u8 = 0;
/// Something went wrong at run time.
pub const EXIT_ERROR: u8 = 1;
/// The command line makes no sense.
pub const EXIT_USAGE: u8 = 2;
/// Done, but some items ended in the dead letters.
pub const EXIT_DEAD_LETTERS: u8 = 3;
/// No coordinator listens (`EX_UNAVAILABLE` of `sysexits.h`).
pub const EXIT_NO_COORDINATOR: u8 = 69;
/// Another coordinator listens, or has the journal (`EX_CANTCREAT`).
pub const EXIT_IN_USE: u8 = 73;
/// A child's word to its coordinator, and to nobody else: another in its place would fail as it did (`EX_SOFTWARE`).
pub const EXIT_HOPELESS: u8 = 70;
/// Ended by signal `n`: this plus `n`.
pub const EXIT_SIGNAL_BASE: u8 = 128;
/// Nobody reads stdout any more: as if by SIGPIPE, 13 on every Unix system.
pub const EXIT_OUTPUT_CLOSED: u8 = EXIT_SIGNAL_BASE + 13;

/// A command's exit code that rejects its item: it goes to the dead letters at once (`EX_DATAERR`).
pub const COMMAND_REJECTS: i32 = 65;
/// A command's exit code that asks for a later retry (`EX_TEMPFAIL`).
pub const COMMAND_ASKS_RETRY: i32 = 75;

/// Says something on stderr, in one piece. If it cannot be said, there is nobody left to tell, and the work goes on.
pub fn tell(program: &str, words: std::fmt::Arguments<'_>) {
    let _ = std::io::stderr().lock().write_all(format!("{program}: {words}\n").as_bytes());
}

/// True when an error is that the coordinator is gone without a word.
pub fn is_gone<E: AsRef<dyn StdError + Send + Sync>>(error: &E) -> bool {
    let mut link: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
    while let Some(error) = link {
        if matches!(error.downcast_ref::<Error>(), Some(Error::Gone(_))) {
            return true;
        }
        link = error.source();
    }
    false
}

/// Ends a program by an error: says it, in `words`, on stderr, unless it is merely that nobody reads stdout any more.
pub fn fail(program: &str, error: &(dyn StdError + 'static), words: impl std::fmt::Display) -> ExitCode {
    let code = exit_code(error);
    if code != EXIT_OUTPUT_CLOSED {
        tell_error(program, error, words);
    }
    ExitCode::from(code)
}

/// Says an error, in `words`, and what to do where the system is what refused.
pub fn tell_error(program: &str, error: &(dyn StdError + 'static), words: impl std::fmt::Display) {
    match advice(error) {
        Some(advice) => tell(program, format_args!("{words}; {advice}")),
        None => tell(program, format_args!("{words}")),
    }
}

/// What to do about what the system said, if that is what an error comes from.
pub fn advice(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    use std::io::ErrorKind;
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let error = cause.downcast_ref::<std::io::Error>()?;
    Some(match error.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::PermissionDenied => "check whose it is and its mode, or choose another",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space, then start again",
        ErrorKind::ReadOnlyFilesystem => "choose a place that can be written",
        ErrorKind::IsADirectory => "give a file",
        ErrorKind::NotADirectory => "check the path: a part of it is no directory",
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => "the system has no more room: raise `ulimit -u`, or start fewer processes",
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => "raise `ulimit -n`",
        _ => return None,
    })
}

/// The exit code for an error: by what stands in its chain.
fn exit_code(error: &(dyn StdError + 'static)) -> u8 {
    let mut link = Some(error);
    while let Some(error) = link {
        let endpoint = match error.downcast_ref::<Error>() {
            Some(Error::Endpoint(endpoint)) => Some(&**endpoint),
            _ => error.downcast_ref::<EndpointError>(),
        };
        let io_error = error.downcast_ref::<std::io::Error>();
        if io_error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return EXIT_OUTPUT_CLOSED;
        }
        match endpoint {
            Some(EndpointError::NoCoordinator { .. }) => return EXIT_NO_COORDINATOR,
            Some(EndpointError::InUse { .. }) => return EXIT_IN_USE,
            _ => link = error.source(),
        }
    }
    EXIT_ERROR
}

/// Connects by `connect`, again and again for `wait` as long as there is no coordinator.
pub fn connect_within<T>(wait: Duration, connect: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now().checked_add(wait);
    loop {
        let missing = match connect() {
            Err(Error::Endpoint(error)) if matches!(*error, EndpointError::NoCoordinator { .. }) => error,
            connected => return connected,
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::Endpoint(missing));
        }
        // There is nothing to wait on: the socket's directory itself may not exist yet.
        std::thread::sleep(CONNECT_RETRY);
    }
}

/// Ties this process to the parent that started it: when that dies, however it does, the kernel sends SIGKILL, or SIGTERM to one
/// that has commands of its own to end. False if the parent is gone already. For the main thread of a child, first thing.
///
/// Only Linux has such a signal; elsewhere the end of the connection is what ends a child.
pub fn die_with_parent(parent_pid: u32, clean_up_first: bool) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        let signal = if clean_up_first { Signal::TERM } else { Signal::KILL };
        // It fails for no valid signal.
        let _ = set_parent_process_death_signal(Some(signal));
    }
    let _ = clean_up_first;
    // The parent may have died before the request: then there is another by now.
    rustix::process::getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent_pid))
}

/// Names this process, as `ps` and `pgrep` show it, where the system can.
pub fn set_process_name(name: &str) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Ok(name) = std::ffi::CString::new(name) {
        // Merely a comfort: without it, the program's own name is shown.
        let _ = rustix::thread::set_name(&name);
    }
    let _ = name;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_comes_with_what_to_do() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = std::path::PathBuf::from("q.sock");
        assert_eq!(advice(&full()), Some("free some space, then start again"));
        let within = EndpointError::Io { action: "listen at", path, source: full() };
        assert_eq!(advice(&Error::from(within)), Some("free some space, then start again"));
        assert_eq!(advice(&std::io::Error::from_raw_os_error(24)), Some("raise `ulimit -n`"));
        assert_eq!(advice(&Error::Finished), None);
    }

    #[test]
    fn exit_codes_tell_a_missing_coordinator_from_one_that_is_there() {
        let path = std::path::PathBuf::from("q.sock");
        let missing = Error::from(EndpointError::NoCoordinator { path: path.clone(), why: "gone" });
        assert_eq!(exit_code(&missing), EXIT_NO_COORDINATOR);
        assert_eq!(exit_code(&EndpointError::InUse { path, pid: None }), EXIT_IN_USE);
        assert_eq!(exit_code(&Error::Finished), EXIT_ERROR);
        assert_eq!(exit_code(&std::io::Error::from(std::io::ErrorKind::BrokenPipe)), EXIT_OUTPUT_CLOSED);
    }
}
