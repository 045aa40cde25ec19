//! Processes under test: started with their output caught, killed when the test ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Control, Endpoint, Status};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::engine::{self, Place};
use crate::{DEADLINE, eventually, is_alive, program, within};

/// A running program, its output gathering line by line. Killed when dropped.
pub struct Process {
    child: Child,
    _place: Place,
    stdin: Option<ChildStdin>,
    stdout: Gathered,
    stderr: Gathered,
}

struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Gathered {
    fn from(source: impl Read + Send + 'static) -> Gathered {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                sink.lock().expect("the lines so far").append(&mut line);
            }
        });
        Gathered { bytes, thread: Some(thread) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("the lines so far")).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the gathering thread");
        }
        self.so_far()
    }
}

impl Process {
    /// Starts one of the three programs; `PROCQ_SOCKET` leads to `socket`.
    pub fn start(name: &str, socket: &Path, arguments: &[&str]) -> Process {
        let mut command = Command::new(program(name));
        command.args(arguments);
        Process::spawn(command, socket)
    }

    /// The same, a shell having run `setup` before, in the process that becomes the program.
    pub fn start_after(setup: &str, name: &str, socket: &Path, arguments: &[&str]) -> Process {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{setup}; exec \"$0\" \"$@\"")).arg(program(name)).args(arguments);
        Process::spawn(command, socket)
    }

    /// Starts any command, with its input and output caught; `PROCQ_SOCKET` leads to `socket`.
    pub fn spawn(mut command: Command, socket: &Path) -> Process {
        command.env("PROCQ_SOCKET", socket);
        Process::spawn_plain(command)
    }

    /// Starts any command, with its input and output caught.
    pub fn spawn_plain(command: Command) -> Process {
        Process::spawn_reading(command, Stdio::piped())
    }

    /// Starts any command that has this for its stdin, with its output caught.
    pub fn spawn_reading(mut command: Command, stdin: impl Into<Stdio>) -> Process {
        let place = engine::apply(&mut command);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a program to start");
        let stdout = Gathered::from(child.stdout.take().expect("a pipe"));
        let stderr = Gathered::from(child.stderr.take().expect("a pipe"));
        Process { stdin: child.stdin.take(), child, _place: place, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its stdin.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("an open stdin").write_all(bytes).expect("a process that reads");
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until stdout holds `text`.
    pub fn wait_for_stdout(&self, text: &str) {
        within(DEADLINE, || format!("{text:?} on stdout, which has {:?}", self.stdout()), || self.stdout().contains(text).then_some(()));
    }

    /// Waits until stderr holds `text`.
    pub fn wait_for_stderr(&self, text: &str) {
        within(DEADLINE, || format!("{text:?} on stderr, which has {:?}", self.stderr()), || self.stderr().contains(text).then_some(()));
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        crate::signal(self.pid(), signal);
    }

    /// True while it runs.
    pub fn is_alive(&self) -> bool {
        is_alive(self.pid())
    }

    /// Waits for its end: exit code (128 + n for signal n), stdout, stderr.
    pub fn finish(self) -> (i32, String, String) {
        self.finish_within(DEADLINE)
    }

    /// The same for one that may take longer.
    pub fn finish_within(mut self, deadline: Duration) -> (i32, String, String) {
        self.close_stdin();
        let code = self.wait_within(deadline);
        (code, self.stdout.all(), self.stderr.all())
    }

    /// Waits for its end: exit code, 128 + n for signal n.
    pub fn wait(&mut self) -> i32 {
        self.wait_within(DEADLINE)
    }

    fn wait_within(&mut self, deadline: Duration) -> i32 {
        let (child, stderr) = (&mut self.child, &self.stderr);
        let what = || format!("the end of a process that has said {:?}", stderr.so_far());
        let status = within(deadline, what, || child.try_wait().expect("a child"));
        status.code().unwrap_or_else(|| 128 + status.signal().expect("a signal"))
    }

    /// After its end: its exit code and all that it has said on stderr, for people.
    pub fn end(&mut self) -> String {
        let code = self.wait();
        format!("exit {code}: {}", self.stderr.all())
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A coordinator that serves a queue in a folder of its own.
pub struct Queue {
    coordinator: Process,
    socket: PathBuf,
    folder: TempDir,
}

impl Queue {
    /// Starts `coordinator serve` with these arguments, and waits until it is ready.
    pub fn serve(arguments: &[&str]) -> Queue {
        Queue::serve_after(":", arguments)
    }

    /// The same, a shell having run `setup` before, in the process that becomes the coordinator: `ulimit`, `umask` and the like.
    pub fn serve_after(setup: &str, arguments: &[&str]) -> Queue {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("q.sock");
        let coordinator = Process::start_after(setup, "coordinator", &socket, &[&["serve"], arguments].concat());
        coordinator.wait_for_stderr("ready at");
        Queue { coordinator, socket, folder }
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::at(&self.socket)
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A folder that goes with the queue.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The coordinator's process id.
    pub fn pid(&self) -> u32 {
        self.coordinator.pid()
    }

    /// The coordinator.
    pub fn coordinator(&mut self) -> &mut Process {
        &mut self.coordinator
    }

    /// Starts a program as its client.
    pub fn client(&self, name: &str, arguments: &[&str]) -> Process {
        Process::start(name, &self.socket, arguments)
    }

    /// The queue's figures.
    pub fn status(&self) -> Status {
        Control::connect(&self.endpoint()).and_then(|control| control.status()).expect("a coordinator that answers")
    }

    /// Waits until the figures satisfy `check`.
    pub fn wait_until(&self, what: &str, check: impl Fn(&Status) -> bool) -> Status {
        let control = Control::connect(&self.endpoint()).expect("a coordinator that answers");
        eventually(what, || Some(control.status().expect("figures")).filter(|status| check(status)))
    }

    /// Waits for the coordinator's end: exit code, stdout, stderr. The folder stays until the last value is dropped.
    pub fn finish(self) -> (i32, String, String, TempDir) {
        let (code, stdout, stderr) = self.coordinator.finish();
        (code, stdout, stderr, self.folder)
    }
}
