//! Runs a command for one item: the item goes in as an argument or as stdin, what it prints comes back as the result.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use common::endpoint::SOCKET_VARIABLE;
use common::limits::COMMAND_END;
use common::{Consumer, Delivery};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::SIGCHLD;
use tracing::trace;

/// Tells a command which consumer runs it; whatever it starts inherits that, so that the coordinator can find it all.
pub const CONSUMER_VARIABLE: &str = "PROCQ_CONSUMER";

/// What stands for the item in an argument.
const PLACEHOLDER: &[u8] = b"{}";

/// Why an item that holds a NUL byte cannot be a command's argument, and what to do.
pub(crate) const NUL_IN_ARGUMENT: &str = "the item holds a NUL byte, which no argument can; leave out {} to give it on stdin";

/// Read at once from the command: a pipe's whole buffer.
const READ_BYTES: usize = 64 * 1024;

/// A command that is run once per item.
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    takes_argument: bool,
    socket: PathBuf,
    dies_with_us: bool,
    child_ended: UnixStream,
    buffer: Vec<u8>,
    pid: Option<u32>,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ending {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// What it printed.
        output: Vec<u8>,
    },
    /// By a signal.
    Signalled {
        /// Which.
        signal: i32,
    },
    /// It did what it may not, and was killed; or the system had no room for it now.
    Failed {
        /// In words.
        cause: String,
    },
    /// The item can never be given to this command.
    Unsuitable {
        /// In words.
        cause: String,
    },
    /// The command itself is at fault: no item would fare better.
    NotStarted {
        /// What the system says.
        error: io::Error,
    },
    /// It took longer than the item timeout, and was ended with all that it had started.
    TimedOut {
        /// That time.
        item_timeout: Duration,
    },
    /// The connection closed meanwhile, and the item with it is another's; the command was killed.
    ConnectionLost,
}

/// The process group that runs now, for whoever has to end it from another thread.
#[derive(Debug, Default)]
pub struct Running {
    group: Mutex<Option<Pid>>,
    idle: AtomicBool,
}

impl Running {
    /// Kills it, if there is one.
    pub fn kill(&self) {
        if let Some(group) = *self.lock() {
            // It may have just ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// True while one runs that has something to do.
    pub fn is_busy(&self) -> bool {
        self.lock().is_some() && !self.idle.load(Ordering::Relaxed)
    }

    /// Says whether the one that runs waits for something to do.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// There is another one now, or none.
    pub(crate) fn set(&self, group: Option<Pid>) {
        *self.lock() = group;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.group.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Command {
    /// The command with these words. It is looked for now, so that one that does not exist is one error and not one per item.
    ///
    /// With `dies_with_us` the kernel kills it when this thread dies, however it does; it starts more slowly then.
    pub fn find(words: &[OsString], socket: &Path, dies_with_us: bool) -> Result<Command> {
        let Some((program, arguments)) = words.split_first() else { bail!("the command is empty; give a program's name behind --") };
        if !has_placeholder(program) {
            find_program(program)?;
        }
        Ok(Command {
            takes_argument: words.iter().any(|word| has_placeholder(word)),
            program: program.clone(),
            arguments: arguments.to_vec(),
            socket: std::path::absolute(socket).unwrap_or_else(|_| socket.to_path_buf()),
            dies_with_us,
            child_ended: watch_children()?,
            buffer: vec![0; READ_BYTES],
            pid: None,
        })
    }

    /// The process that ran for the last item, if one was started.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Runs it for one item.
    pub fn run(&mut self, delivery: &Delivery<'_, [u8]>, consumer: &Consumer<[u8]>, running: &Running) -> Result<Ending> {
        let item = delivery.item();
        self.pid = None;
        if self.takes_argument && item.contains(&0) {
            return Ok(Ending::Unsuitable { cause: NUL_IN_ARGUMENT.into() });
        }
        let mut child = match self.spawn(delivery) {
            Ok(child) => child,
            Err(error) => return Ok(why_not_started(error, has_placeholder(&self.program))),
        };
        let group = Pid::from_child(&child);
        self.pid = Some(child.id());
        running.set(Some(group));
        trace!(item = delivery.id().0, attempt = delivery.attempt(), pid = child.id(), "started a command");
        let input = if self.takes_argument { &[] } else { item };
        let ended = self.attend(&mut child, input, delivery, consumer);
        running.set(None);
        trace!(item = delivery.id().0, ?ended, "a command ended");
        if !matches!(ended, Ok(Ending::Exited { .. } | Ending::Signalled { .. })) {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.wait();
        }
        ended.with_context(|| format!("cannot attend to {self}"))
    }

    fn spawn(&self, delivery: &Delivery<'_, [u8]>) -> io::Result<Child> {
        let item = delivery.item();
        let mut command = std::process::Command::new(filled(&self.program, item));
        command
            .args(self.arguments.iter().map(|argument| filled(argument, item)))
            .env("PROCQ_ITEM_ID", delivery.id().to_string())
            .env("PROCQ_ATTEMPT", delivery.attempt().to_string())
            .stdin(if self.takes_argument { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped());
        tie(&mut command, &self.socket, self.dies_with_us);
        command.spawn()
    }

    /// Feeds the command and takes what it prints, until it has ended.
    fn attend(
        &mut self,
        child: &mut Child,
        mut input: &[u8],
        delivery: &Delivery<'_, [u8]>,
        consumer: &Consumer<[u8]>,
    ) -> io::Result<Ending> {
        let bytes_max = consumer.result_bytes_max();
        let timeout = consumer.item_timeout().and_then(|timeout| Some((timeout, Instant::now().checked_add(timeout)?)));
        let connection = consumer.descriptor();
        if !delivery.is_held() {
            return Ok(Ending::ConnectionLost);
        }
        let mut stdin = child.stdin.take();
        let mut stdout = child.stdout.take();
        stdin.iter().try_for_each(|pipe| rustix::io::ioctl_fionbio(pipe, true))?;
        stdout.iter().try_for_each(|pipe| rustix::io::ioctl_fionbio(pipe, true))?;
        let mut output = Vec::new();
        loop {
            if let Some(status) = child.try_wait()? {
                // What a process left behind still holds open is not waited for.
                self.read_output(&mut stdout, &mut output, bytes_max)?;
                return Ok(if output.len() as u64 > bytes_max { too_much(bytes_max) } else { ended(status, output) });
            }
            feed(&mut stdin, &mut input)?;
            self.read_output(&mut stdout, &mut output, bytes_max)?;
            if output.len() as u64 > bytes_max {
                return Ok(too_much(bytes_max));
            }
            let left = timeout.map(|(_, until)| until.saturating_duration_since(Instant::now()));
            if self.wait_for_news(&stdin, &stdout, &connection, left)? {
                return Ok(Ending::ConnectionLost);
            }
            if let Some((item_timeout, until)) = timeout
                && until <= Instant::now()
                && child.try_wait()?.is_none()
            {
                self.end_in_time(child)?;
                return Ok(Ending::TimedOut { item_timeout });
            }
        }
    }

    /// Asks it to end, and gives it a moment for that.
    fn end_in_time(&self, child: &mut Child) -> io::Result<()> {
        // It may have just ended by itself.
        let _ = kill_process_group(Pid::from_child(child), Signal::TERM);
        let until = Instant::now() + COMMAND_END;
        while child.try_wait()?.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(&mut [PollFd::new(&self.child_ended, PollFlags::IN)], Some(left))?;
            let _ = (&self.child_ended).read(&mut [0; 64]);
        }
        Ok(())
    }

    /// Waits until there is something to do, or so long; true when the connection is lost.
    fn wait_for_news(
        &self,
        stdin: &Option<ChildStdin>,
        stdout: &Option<ChildStdout>,
        connection: &impl AsFd,
        left: Option<Duration>,
    ) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.child_ended, PollFlags::IN), PollFd::new(connection, hangup())];
        fds.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        wait(&mut fds, left)?;
        let lost = fds[1].revents().intersects(hangup() | PollFlags::HUP | PollFlags::ERR);
        if !fds[0].revents().is_empty() {
            // Only a wake-up: how many children have ended is for try_wait to say.
            let _ = (&self.child_ended).read(&mut [0; 64]);
        }
        Ok(lost)
    }

    /// Takes what there is, and a byte more than allowed at most; closes the pipe at its end.
    fn read_output(&mut self, stdout: &mut Option<ChildStdout>, output: &mut Vec<u8>, bytes_max: u64) -> io::Result<()> {
        let Some(pipe) = stdout else { return Ok(()) };
        while output.len() as u64 <= bytes_max {
            match pipe.read(&mut self.buffer) {
                Ok(0) => {
                    *stdout = None;
                    return Ok(());
                }
                Ok(count) => output.extend_from_slice(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Path::new(&self.program).display())
    }
}

/// Ties what is to be started to this process and its queue. With `dies_with_us` the kernel kills it when this thread dies.
pub(crate) fn tie(command: &mut std::process::Command, socket: &Path, dies_with_us: bool) {
    command.env(CONSUMER_VARIABLE, std::process::id().to_string()).env(SOCKET_VARIABLE, socket);
    // A group of its own, so that it can be ended with all that it started, and a terminal's Ctrl-C does not reach it.
    command.process_group(0);
    if dies_with_us {
        die_with_this_thread(command);
    }
}

/// Becomes readable when a child has ended.
pub(crate) fn watch_children() -> Result<UnixStream> {
    let (child_ended, notify) = UnixStream::pair().context("cannot make a socket pair")?;
    child_ended.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, notify).context("cannot watch for children")?;
    Ok(child_ended)
}

/// Says whether a command can be found, as running it would.
pub fn find_program(program: &OsStr) -> Result<()> {
    let is_program = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let path = Path::new(program);
    if program.as_bytes().contains(&b'/') {
        if !path.exists() {
            bail!("there is no command {}; check its path", path.display());
        }
        if !is_program(path) {
            bail!("{} cannot be run: it is not an executable file; `chmod +x` it, or name what runs it first", path.display());
        }
        return Ok(());
    }
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    if program.is_empty() {
        bail!("the command is empty; give a program's name behind --");
    }
    if !std::env::split_paths(&search).any(|directory| is_program(&directory.join(path))) {
        bail!("there is no command {} in PATH; check its spelling, or give its path", path.display());
    }
    Ok(())
}

/// True when a word has a place for the item.
pub fn has_placeholder(word: &OsStr) -> bool {
    word.as_bytes().windows(PLACEHOLDER.len()).any(|window| window == PLACEHOLDER)
}

/// The word with the item in each place for it.
pub(crate) fn filled(word: &OsStr, item: &[u8]) -> OsString {
    let mut filled = Vec::with_capacity(word.len() + item.len());
    let mut rest = word.as_bytes();
    while let Some(at) = rest.windows(PLACEHOLDER.len()).position(|window| window == PLACEHOLDER) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(item);
        rest = &rest[at + PLACEHOLDER.len()..];
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}

/// Writes as much of the item as the pipe takes; closes it at the end, or when the command reads no more.
fn feed(stdin: &mut Option<ChildStdin>, input: &mut &[u8]) -> io::Result<()> {
    let Some(pipe) = stdin else { return Ok(()) };
    while !input.is_empty() {
        match pipe.write(input) {
            Ok(count) => *input = &input[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A command need not read what it gets.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error),
        }
    }
    *stdin = None;
    Ok(())
}

/// Waits for one of these, or so long.
fn wait(fds: &mut [PollFd<'_>], left: Option<Duration>) -> io::Result<()> {
    // What the system cannot express is as good as no limit.
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn ended(status: ExitStatus, output: Vec<u8>) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited { code, output },
        (None, Some(signal)) => Ending::Signalled { signal },
        (None, None) => Ending::Failed { cause: format!("ended in an unknown way ({status})") },
    }
}

fn too_much(bytes_max: u64) -> Ending {
    Ending::Failed { cause: printed_too_much(bytes_max) }
}

pub(crate) fn printed_too_much(bytes_max: u64) -> String {
    format!("it printed more than {bytes_max} bytes, the most that a result may have (--max-item, and a line end)")
}

/// The cause of an attempt's failure that took longer than it may.
pub(crate) fn took_too_long(item_timeout: Duration) -> String {
    format!("took longer than {}", humantime::format_duration(item_timeout))
}

/// What it means that a command cannot be started.
pub(crate) fn why_not_started(error: io::Error, item_is_program: bool) -> Ending {
    match error.kind() {
        io::ErrorKind::ArgumentListTooLong => {
            Ending::Unsuitable { cause: "the item is too long for an argument; leave out {} to give it on stdin".into() }
        }
        // Out of processes, memory or descriptors for now, or just being written: the item's next attempt may fare better.
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory | io::ErrorKind::ExecutableFileBusy => {
            Ending::Failed { cause: format!("cannot be started now: {error}") }
        }
        _ if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) => {
            Ending::Failed { cause: format!("cannot be started now: {error}") }
        }
        _ if item_is_program => Ending::Unsuitable { cause: format!("cannot be started: {error}") },
        _ => Ending::NotStarted { error },
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn die_with_this_thread(command: &mut std::process::Command) {
    let request = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this makes one prctl system call and nothing else.
    #[expect(unsafe_code, reason = "only the child itself can ask for its parent's death signal, and std has no safe way to say so")]
    unsafe {
        command.pre_exec(request);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn die_with_this_thread(_command: &mut std::process::Command) {}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn hangup() -> PollFlags {
    PollFlags::RDHUP
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn hangup() -> PollFlags {
    PollFlags::HUP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled_with_the_item_as_it_is() {
        let fill = |word: &str, item: &[u8]| filled(OsStr::new(word), item).into_vec();
        assert_eq!(fill("a{}b{}", b"x y"), b"ax ybx y");
        assert_eq!(fill("{}", b"{}"), b"{}");
        assert_eq!(fill("{ }", b"x"), b"{ }");
        assert!(has_placeholder(OsStr::new("--in={}")) && !has_placeholder(OsStr::new("{x}")));
    }

    #[test]
    fn a_command_is_found_as_running_it_would_find_it() {
        assert!(find_program(OsStr::new("sh")).is_ok());
        assert!(find_program(OsStr::new("/bin/sh")).is_ok());
        for (name, words) in [("no-such-command", "in PATH"), ("/no/such", "no command /no/such"), ("/etc/passwd", "not an executable")] {
            let error = find_program(OsStr::new(name)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
