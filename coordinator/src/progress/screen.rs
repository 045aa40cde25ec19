//! The terminal that the progress line, results and everything that is said on stderr share. Who writes takes the line away first and puts
//! it back, in one piece; so nothing is ever torn.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

use super::line::Line;
use crate::style::Style;

/// Until the end of it, a terminal that knows this shows nothing: text and line change at one blow. Others pass it over.
const BEGIN_UPDATE: &str = "\x1b[?2026h";
const END_UPDATE: &str = "\x1b[?2026l";

/// Takes away the line, which begins where the cursor is. If the terminal was made narrower meanwhile, it has more rows than one.
const CLEAR: &str = "\r\x1b[J";

/// The line itself never goes on in the next row.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// What a terminal without a size is taken for.
const COLUMNS_DEFAULT: usize = 80;

/// A terminal with a line at its end.
#[derive(Debug)]
pub struct Screen {
    terminal: File,
    style: Style,
    line: Option<Line>,
    /// The line is there to be seen.
    shown: bool,
    /// What was written last has not ended its line.
    in_line: bool,
}

/// The screen, for all who write to it.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Screen>>);

impl Shared {
    /// The screen that is this terminal.
    pub fn new(terminal: File, style: Style) -> Shared {
        Shared(Arc::new(Mutex::new(Screen { terminal, style, line: None, shown: false, in_line: false })))
    }

    /// Writes text that goes to this terminal by way of `write`.
    pub fn around(&self, text: &[u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut screen = self.lock();
        let clear = if screen.shown { [BEGIN_UPDATE, CLEAR].concat() } else { String::new() };
        screen.say(&clear);
        let was_shown = std::mem::take(&mut screen.shown);
        let written = write(text);
        screen.passed(text);
        screen.show(was_shown);
        written
    }

    /// Writes text to this terminal.
    pub fn print(&self, text: &[u8]) {
        let mut screen = self.lock();
        let was_shown = std::mem::take(&mut screen.shown);
        let before = if was_shown { [BEGIN_UPDATE, CLEAR].concat() } else { String::new() };
        screen.write(&[before.as_bytes(), text].concat());
        screen.passed(text);
        screen.show(was_shown);
    }

    /// Shows a line in the place of the last one.
    pub fn update(&self, line: Line) {
        let mut screen = self.lock();
        screen.line = Some(line);
        if screen.is_in_foreground() {
            screen.show(false);
        }
    }

    /// Ends a line that was written and not ended, so that there is a place for ours.
    pub fn end_line(&self) {
        let mut screen = self.lock();
        if std::mem::take(&mut screen.in_line) {
            screen.say("\n");
        }
    }

    /// True if what was written last has not ended its line.
    pub fn is_in_line(&self) -> bool {
        self.lock().in_line
    }

    /// Takes the line away for good.
    pub fn close(&self) {
        let mut screen = self.lock();
        screen.line = None;
        if std::mem::take(&mut screen.shown) {
            screen.say(CLEAR);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Screen> {
        // Who panics while it has it is on its way out with the whole program.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Screen {
    fn passed(&mut self, text: &[u8]) {
        if let Some(last) = text.last() {
            self.in_line = *last != b'\n';
        }
    }

    /// Shows the line, unless something stands in its place; ends the update that `within` says has begun.
    fn show(&mut self, within: bool) {
        let end = if within { END_UPDATE } else { "" };
        let fitted = match &self.line {
            Some(line) if !self.in_line => line.fitted(self.columns().saturating_sub(1), self.style),
            _ => return self.say(end),
        };
        self.shown = true;
        // The cursor stays at its beginning, which is where it is to be cleared from however often it has wrapped.
        self.say(&format!("{CLEAR}{NO_WRAP}{fitted}\r{WRAP}{end}"));
    }

    fn columns(&self) -> usize {
        let size = tcgetwinsize(self.terminal.as_fd());
        size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS_DEFAULT)
    }

    /// What runs in the background must not write over what its user does.
    fn is_in_foreground(&self) -> bool {
        tcgetpgrp(self.terminal.as_fd()).map_or(true, |foreground| foreground == getpgrp())
    }

    fn say(&mut self, text: &str) {
        if !text.is_empty() {
            self.write(text.as_bytes());
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        // A terminal that is gone has nobody before it.
        let _ = self.terminal.write_all(bytes);
    }
}
