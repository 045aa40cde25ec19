//! A worker's process and its pipes, none of which ever makes us wait.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Stdio};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tracing::debug;

use crate::command::{Running, find_program, tie};

/// How to start a worker.
#[derive(Debug)]
pub(super) struct Plan {
    program: OsString,
    arguments: Vec<OsString>,
    socket: PathBuf,
    dies_with_us: bool,
}

/// One that was started. Killed with all of its process group when dropped.
pub(super) struct Process<'a> {
    child: Child,
    running: &'a Running,
    ended: Option<ExitStatus>,
    /// Closed at the end, or when the worker reads no more.
    pub(super) stdin: Option<ChildStdin>,
    /// The worker has closed its stdin, and has read all before.
    pub(super) has_read_all: bool,
    /// Until its end.
    pub(super) stdout: Option<ChildStdout>,
    /// Until its end.
    pub(super) stderr: Option<ChildStderr>,
    /// It has answered an item.
    pub(super) has_answered: bool,
}

impl Plan {
    /// The program is looked for now.
    pub(super) fn new(words: &[OsString], socket: &Path, dies_with_us: bool) -> Result<Plan> {
        let Some((program, arguments)) = words.split_first() else { bail!("an empty command") };
        find_program(program)?;
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_path_buf());
        Ok(Plan { program: program.clone(), arguments: arguments.to_vec(), socket, dies_with_us })
    }

    pub(super) fn start<'a>(&self, running: &'a Running) -> io::Result<Process<'a>> {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tie(&mut command, &self.socket, self.dies_with_us);
        let mut child = command.spawn()?;
        running.set(Some(Pid::from_child(&child)));
        debug!(pid = child.id(), program = %self, "started a worker");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let process = Process { child, running, ended: None, stdin, has_read_all: false, stdout, stderr, has_answered: false };
        process.stdin.iter().try_for_each(never_wait)?;
        process.stdout.iter().try_for_each(never_wait)?;
        process.stderr.iter().try_for_each(never_wait)?;
        Ok(process)
    }
}

fn never_wait(pipe: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(pipe, true)?)
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Path::new(&self.program).display())
    }
}

impl Process<'_> {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            if let Some(status) = self.ended {
                debug!(pid = self.child.id(), %status, "a worker ended");
                self.running.set(None);
            }
        }
        Ok(self.ended)
    }

    /// Asks it, and all that it has started, to end.
    pub(super) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // It may have just ended by itself.
            let _ = kill_process_group(Pid::from_child(&self.child), signal);
        }
    }

    /// Kills it, and all that it has started, also if it has ended itself.
    pub(super) fn kill_all(&self) {
        // There may be nothing left.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    /// Writes what the pipe takes; how much that is. Closes it when the worker reads no more.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(pipe) = &mut self.stdin else { return Ok(0) };
        match pipe.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdin = None;
                Ok(0)
            }
            written => unless_waiting(written).map(Option::unwrap_or_default),
        }
    }

    /// To be called when the worker has closed its stdin: closes this end, too, if there is something in it that will not be read.
    pub(super) fn reads_no_more(&mut self) {
        // Where that cannot be found out, the next item will show it.
        let unread = self.stdin.as_ref().map_or(0, |pipe| rustix::io::ioctl_fionread(pipe).unwrap_or(0));
        if unread > 0 {
            self.stdin = None;
        }
        self.has_read_all = unread == 0;
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill_all();
            let _ = self.child.wait();
            debug!(pid = self.child.id(), "killed a worker");
            self.running.set(None);
        }
    }
}

/// Appends what there is to read, up to the size of `buffer`; closes the pipe at its end.
pub(super) fn read_some<P: Read>(pipe: &mut Option<P>, buffer: &mut [u8], came: &mut Vec<u8>) -> io::Result<()> {
    let Some(open) = pipe else { return Ok(()) };
    match unless_waiting(open.read(buffer))? {
        Some(0) => *pipe = None,
        Some(count) => came.extend_from_slice(&buffer[..count]),
        None => {}
    }
    Ok(())
}

/// None when it would have to wait.
fn unless_waiting(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
