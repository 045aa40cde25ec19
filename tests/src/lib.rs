//! What the tests of whole processes stand on: programs that are built and fresh, queues to start, watch and kill.
//!
//! A test waits for an event with a deadline: [`eventually`].

mod build;
pub mod engine;
pub mod fuzzing;
mod load;
mod local_queue;
pub mod nats;
mod process;
pub mod random;
pub mod raw;
pub mod simulator;
pub mod terminal;

pub use build::program;
pub use load::{Load, Pace};
pub use local_queue::LocalQueue;
pub use process::{Process, Queue};

use std::time::{Duration, Instant};

/// How long a test waits for what must come: far beyond what a loaded machine needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `check` gives something, and fails the test when it has not within [`DEADLINE`].
pub fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, || what.into(), check)
}

/// The same for what may take longer, or has more to say when it has not come.
pub fn within<T>(deadline: Duration, what: impl Fn() -> String, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "still not after {deadline:?}: {}", what());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A figure in KiB from `/proc/PID/status`, `VmRSS` or `VmHWM`, say.
pub fn proc_status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The CPU time that a process has used so far, in the system's clock ticks.
pub fn proc_cpu_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some(user + system)
}

/// The letter of a process's state: `R`, `S`, `T` (stopped), `Z`, …; `None` when there is no such process.
pub fn proc_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// True while a process exists that is not merely waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    proc_state(pid).is_some_and(|state| state != 'Z')
}

/// The parent of a process; `None` when there is no such process.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Children of a process, by `/proc`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| parent_of(*child) == Some(pid)).collect()
}

/// The name that a process goes by, as `ps` shows it.
pub fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_string()
}

/// Sends a signal by its number.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("a process to signal");
}
