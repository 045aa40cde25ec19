//! Ends what a killed consumer's commands have left running. The kernel could do that for a command by itself (its parent-death signal),
//! but only for one started by fork, which costs a quarter of a short command's whole time.

use std::path::Path;

use consumer::command::CONSUMER_VARIABLE;
use rustix::process::{Pid, Signal, kill_process};

/// Kills every process that consumer `pid` has started and that still runs: each has the consumer's pid in its environment.
///
/// A command that is being started at this very instant has no environment of its own yet; another call some time later finds it. Only on
/// systems with a `/proc` as Linux has it; elsewhere a command goes on to its end.
pub fn end_commands_of(pid: u32) {
    let mark = format!("{CONSUMER_VARIABLE}={pid}");
    let Ok(processes) = Path::new("/proc").read_dir() else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        // Those of other users cannot be read, nor those that have just gone.
        let Ok(environment) = std::fs::read(process.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
