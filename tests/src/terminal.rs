//! A program on a terminal, and what a person sees there. The only file that names `pty_process` and `vt100`.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use crate::{DEADLINE, eventually, program, within};

/// A pseudo-terminal and the program that has it. Killed when dropped.
pub struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

struct Seen {
    screen: vt100::Parser,
    bytes: Vec<u8>,
}

fn number(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a terminal with rows and columns")
}

impl Terminal {
    /// Starts one of the three programs on a terminal of so many rows and columns; `PROCQ_SOCKET` leads to `socket`.
    pub fn start(size: (u16, u16), socket: &Path, name: &str, arguments: &[&str]) -> Terminal {
        let path = program(name);
        let command = [&[path.to_str().expect("a path in UTF-8")], arguments].concat();
        Terminal::spawn(size, socket, &[], &command)
    }

    /// Starts any command, in an environment with these variables; it knows UTF-8 and colours unless they say otherwise.
    pub fn spawn((rows, columns): (u16, u16), socket: &Path, variables: &[(&str, &str)], command: &[&str]) -> Terminal {
        let (pty, pts) = open().expect("a pseudo-terminal");
        pty.resize(Size::new(rows, columns)).expect("a size");
        let usual = [("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")];
        let env = usual.into_iter().chain(variables.iter().copied());
        let spawned = Command::new(command[0]).args(&command[1..]).env_remove("NO_COLOR").envs(env).env("PROCQ_SOCKET", socket);
        let child = spawned.spawn(pts).expect("a program to start");
        let seen = Seen { screen: vt100::Parser::new(number(rows), number(columns), 0), bytes: Vec::new() };
        let (pty, seen) = (Arc::new(pty), Arc::new(Mutex::new(seen)));
        let (source, sink) = (Arc::clone(&pty), Arc::clone(&seen));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error is the end: nobody has the terminal any more.
            while let Ok(count @ 1..) = (&*source).read(&mut buffer) {
                let mut seen = sink.lock().expect("what was seen");
                seen.screen.process(&buffer[..count]);
                seen.bytes.extend_from_slice(&buffer[..count]);
            }
        });
        Terminal { pty, child, seen, reader: Some(reader) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    pub fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).expect("a terminal that takes keys");
    }

    /// Makes the terminal larger or smaller.
    pub fn resize(&self, (rows, columns): (u16, u16)) {
        let mut seen = self.seen();
        seen.screen.set_size(number(rows), number(columns));
        self.pty.resize(Size::new(rows, columns)).expect("a size");
    }

    /// The rows that are to be seen now, without the empty ones at the end.
    pub fn rows(&self) -> Vec<String> {
        let contents = self.seen().screen.screen().contents();
        contents.lines().map(|row| row.trim_end().to_string()).collect()
    }

    /// True while the program has the whole screen, or hides the cursor.
    pub fn is_taken(&self) -> bool {
        let seen = self.seen();
        seen.screen.screen().alternate_screen() || seen.screen.screen().hide_cursor()
    }

    /// All that was written so far, as it was written.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen().bytes.clone()
    }

    /// Waits until a row holds `text`.
    pub fn wait_for(&self, text: &str) -> String {
        let what = || format!("{text:?} on the screen, which has {:#?}", self.rows());
        within(DEADLINE, what, || self.rows().into_iter().find(|row| row.contains(text)))
    }

    /// Waits for the program's end: its exit code, 128 + n for signal n. All that it has written is there then.
    pub fn finish(&mut self) -> i32 {
        let (child, seen) = (&mut self.child, &self.seen);
        let contents = || seen.lock().expect("what was seen").screen.screen().contents();
        let what = || format!("the end of a program whose screen has {:?}", contents());
        let status = within(DEADLINE, what, || child.try_wait().expect("a child"));
        if let Some(reader) = self.reader.take() {
            eventually("the end of what is written to the terminal", || reader.is_finished().then_some(()));
        }
        status.code().unwrap_or_else(|| 128 + status.signal().expect("a signal"))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("what was seen")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
