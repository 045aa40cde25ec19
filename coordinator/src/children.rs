//! Processes that the coordinator starts: itself again, in another role. Spawned, reaped, signalled.
//!
//! They run this very program file under the role's name, so that a build of the coordinator alone is a working whole, and parent and
//! child are never of two versions.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use common::log::LOG_VARIABLE;
use rustix::process::{Pid, Signal, kill_process_group};
use tracing::debug;

use crate::supervisor::Exit;
use crate::systemd::NOTIFY_VARIABLE;

/// A role and how to start it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `producer` or `consumer`.
    pub role: &'static str,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it reads.
    pub stdin: Input,
    /// It writes to our stdout.
    pub writes_stdout: bool,
    /// It leads a process group, so that a terminal's signals come to us alone, and it ends with all that it started.
    pub leads_group: bool,
}

/// A child's stdin.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing.
    None,
    /// Ours.
    Ours,
    /// A file that is open already.
    Open(Arc<File>),
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    leads_group: bool,
}

impl Plan {
    /// Starts it. Only from the main thread: the kernel takes a thread's end for its parent's.
    pub fn spawn(&self) -> Result<Process> {
        let mut command = Command::new(own_program()?);
        command.arg0(self.role).arg(format!("--child-of={}", std::process::id())).args(&self.arguments);
        // What we were told in the environment is passed on as arguments, where it is meant for this role.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PROCQ_") && name != LOG_VARIABLE {
                command.env_remove(name);
            }
        }
        command.env_remove(NOTIFY_VARIABLE);
        command.stdin(match &self.stdin {
            Input::None => Stdio::null(),
            Input::Ours => Stdio::inherit(),
            Input::Open(file) => file.try_clone().context("cannot hand an input on")?.into(),
        });
        command.stdout(if self.writes_stdout { Stdio::inherit() } else { Stdio::null() });
        if self.leads_group {
            command.process_group(0);
        }
        let child = command.spawn().with_context(|| format!("cannot start a {}", self.role))?;
        debug!(role = self.role, pid = child.id(), "started a child");
        Ok(Process { child, leads_group: self.leads_group })
    }
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn try_reap(&mut self) -> Result<Option<Exit>> {
        let status = self.child.try_wait().context("cannot wait for a child")?;
        Ok(status.map(exit))
    }

    /// Ends it, with its process group if it leads one, unless it has ended already; says how it ended.
    pub fn kill(&mut self) -> Result<Exit> {
        let pid = Pid::from_child(&self.child);
        // It may have ended a moment ago; and std knows, where a pid would be somebody else's by then.
        if self.leads_group && matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        self.child.wait().map(exit).context("cannot wait for a child")
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

/// The program file that runs now; on Linux even if it was replaced or removed since.
fn own_program() -> Result<PathBuf> {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().context("cannot find the coordinator's own program file")
}
