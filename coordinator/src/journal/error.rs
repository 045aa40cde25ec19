//! What can be wrong with a journal. Each error names the file and what can be done; nothing is thrown away by itself.

use std::io;
use std::path::{Path, PathBuf};

use super::FORMAT_VERSION;

/// Why a journal cannot be opened, or goes on no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another coordinator has it.
    #[error(
        "the journal {} is in use by another coordinator{}; {advice}",
        path.display(), pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other's process id, if it is known.
        pid: Option<u32>,
        /// What to do.
        advice: &'static str,
    },
    /// The directory, or a file in it, cannot be trusted or used.
    #[error("{} {what}; {advice}", path.display())]
    Unsafe {
        /// The offending path.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// There is no journal, but something else.
    #[error(
        "{} is missing, but its directory is not empty (it has {found}); name the journal's directory or a new one, or put the file back: \
         without it, what the journal held is lost",
        path.display()
    )]
    Missing {
        /// Where the journal's file should be.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// There is a file, but no journal.
    #[error("{} is no journal of procq ({what}); name another directory, or move that file away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that is known.
        what: String,
    },
    /// The journal's format is another.
    #[error(
        "{} has format version {came}, this program knows {FORMAT_VERSION}; {}", path.display(),
        if *came > FORMAT_VERSION { "use the newer program that wrote it" } else { "let the program that wrote it finish its items, then begin a new journal" }
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that was found.
        came: u32,
    },
    /// What is there is not what was written.
    #[error(
        "{} is damaged: {what}; look closer with `coordinator journal verify`, restore the directory from a copy, or move it away to begin anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The journal's last commits are gone.
    #[error(
        "{} is damaged: it ends with commit {found}, but {confirmed} was confirmed (after a loss of power with --fsync never, that is to be \
         expected); restore the directory from a copy, or delete {} to go on without what is gone",
        path.display(), witness.display()
    )]
    Behind {
        /// The journal's file.
        path: PathBuf,
        /// Who knows better.
        witness: PathBuf,
        /// The last commit that is there.
        found: u64,
        /// The last commit that was reported.
        confirmed: u64,
    },
    /// The witness is not what was written.
    #[error("{} is damaged; check the journal with `coordinator journal verify`, then delete this file: it will be made anew", path.display())]
    Witness {
        /// The file.
        path: PathBuf,
    },
    /// Items that are stored may be larger than items may be now.
    #[error(
        "{} holds items that were allowed to have up to {needed} bytes; --max-item is {given} now: give --max-item {needed} or more",
        path.display()
    )]
    ItemsTooLarge {
        /// The file.
        path: PathBuf,
        /// The largest item that was allowed while there were any.
        needed: u64,
        /// The largest that is allowed now.
        given: u64,
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
    /// It has failed before.
    #[error("the journal {} has failed before: nothing is kept any more; mend what was said then, and start again", path.display())]
    Ended {
        /// The directory.
        path: PathBuf,
    },
}

impl JournalError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> JournalError {
        JournalError::Io { action, path: path.into(), source }
    }

    pub(super) fn damaged(path: &Path, what: impl ToString) -> JournalError {
        JournalError::Damaged { path: path.into(), what: what.to_string() }
    }
}
