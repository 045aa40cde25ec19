//! Seeing how a run gets on: a line on the terminal, or one now and then in a log.
//!
//! On a terminal, results, what children say and the line share a screen. So while there is a line, our stderr, which the children inherit,
//! is a pipe to a thread of ours, which passes on what comes and keeps the line behind it; and the writer of results tells the
//! [`screen`] before it writes. The loop has no part in it but to answer for the figures ten times a second.

pub mod line;
pub mod screen;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use common::Status;
use common::program::tell;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::dup2_stderr;

use crate::PROGRAM;
use crate::figures::Asker;
use crate::limits::{FIGURES_WAIT, PROGRESS_LINE_WAIT, PROGRESS_LOG, PROGRESS_REFRESH, PROGRESS_WINDOW};
use crate::pace::Pace;
use crate::style::{self, Style};
use line::{Line, closing};
use screen::Shared;

/// At the end, so often what was said is read: a pipe holds 64 KiB on most systems, and a MiB at most.
const LAST_READS: u32 = 16;

/// When to show how a run gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal
    Auto,
    /// Where stderr is no terminal, as a line every few seconds
    Always,
    /// Not at all
    Never,
}

/// What is known of a run besides its figures.
#[derive(Clone, Debug)]
pub struct Known {
    /// How many producers have to finish until nothing more comes.
    pub producers_expected: Option<u64>,
    /// The queue's figures when it began, by its journal.
    pub before: Status,
}

/// How progress is shown here, before there is a queue to show.
#[derive(Debug)]
pub enum Progress {
    /// Not at all.
    Off,
    /// As lines in a log.
    Log,
    /// As a line that stays at the end of a terminal.
    Terminal(Shared),
}

/// The thread that shows it; dropped, it ends, and all that was said until then is passed on.
#[derive(Debug)]
pub struct Shown {
    end: Option<Sender<Status>>,
    thread: Option<JoinHandle<()>>,
    /// Our stderr as it was.
    stderr: Option<OwnedFd>,
}

impl Progress {
    /// As the user wishes and stderr allows. `talks`: others write to this terminal, and do not tell us.
    pub fn new(when: When, talks: bool) -> io::Result<Progress> {
        let fits = io::stderr().is_terminal() && style::can_move() && !talks;
        match when {
            When::Auto | When::Always if fits => {
                let terminal = File::from(io::stderr().as_fd().try_clone_to_owned()?);
                Ok(Progress::Terminal(Shared::new(terminal, Style::from_env())))
            }
            When::Always => Ok(Progress::Log),
            When::Auto | When::Never => Ok(Progress::Off),
        }
    }

    /// The screen that results share with the line, if they do.
    pub fn screen_of_results(&self) -> Option<Shared> {
        match self {
            Progress::Terminal(screen) if io::stdout().is_terminal() => Some(screen.clone()),
            _ => None,
        }
    }

    /// Begins to show the figures that `asker` gets.
    pub fn show(self, asker: Asker, known: Known) -> io::Result<Option<Shown>> {
        let (end, ended) = channel();
        let watch = Watch::new(asker, known);
        let builder = thread::Builder::new().name("progress".into());
        let (thread, stderr) = match self {
            Progress::Off => return Ok(None),
            Progress::Log => (builder.spawn(move || log(watch, &ended))?, None),
            Progress::Terminal(screen) => {
                let (said, say) = pipe_with(PipeFlags::CLOEXEC)?;
                rustix::io::ioctl_fionbio(&said, true)?;
                let stderr = io::stderr().as_fd().try_clone_to_owned()?;
                let restore = Restore(stderr.try_clone()?);
                let thread = builder.spawn(move || {
                    let _restore = restore;
                    draw(watch, &screen, File::from(said), &ended);
                })?;
                // From now on, what we and our children say goes through the thread.
                dup2_stderr(&say)?;
                (thread, Some(stderr))
            }
        };
        Ok(Some(Shown { end: Some(end), thread: Some(thread), stderr }))
    }
}

impl Shown {
    /// Shows no more, and says what was done in all.
    pub fn end(mut self, status: Status) {
        self.give_back_stderr();
        if let Some(end) = self.end.take() {
            // It is gone before its time only by a panic, which has said so.
            let _ = end.send(status);
        }
    }

    /// With it goes our end of the pipe: when the children's are gone too, all is said.
    fn give_back_stderr(&self) {
        if let Some(stderr) = &self.stderr {
            let _ = dup2_stderr(stderr);
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.give_back_stderr();
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives stderr back when the thread ends, however it does: nobody else would read what is said.
struct Restore(OwnedFd);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = dup2_stderr(&self.0);
    }
}

/// Looks at the figures.
struct Watch {
    asker: Asker,
    known: Known,
    started: Instant,
    pace: Pace,
}

impl Watch {
    fn new(asker: Asker, known: Known) -> Watch {
        let mut pace = Pace::over(PROGRESS_WINDOW);
        pace.note(Duration::ZERO, known.before.settled());
        Watch { asker, known, started: Instant::now(), pace }
    }

    /// The line as it is now; none if the loop is busy with something long.
    fn look(&mut self) -> Option<Line> {
        let status = self.asker.ask(FIGURES_WAIT)?;
        self.pace.note(self.started.elapsed(), status.settled());
        let all_put = self.known.producers_expected.is_some_and(|expected| status.producers_finished >= expected);
        Some(Line::new(&status, all_put.then_some(status.accepted), self.pace.per_second()))
    }

    fn closing(&self, status: &Status) -> String {
        closing(status, &self.known.before, self.started.elapsed())
    }
}

fn log(mut watch: Watch, ended: &Receiver<Status>) {
    let plain = Style { unicode: false, colour: false };
    loop {
        match ended.recv_timeout(PROGRESS_LOG) {
            Ok(status) => return tell(PROGRAM, format_args!("{}", watch.closing(&status))),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(line) = watch.look() {
                    tell(PROGRAM, format_args!("{}", line.words(plain)));
                }
            }
        }
    }
}

fn draw(mut watch: Watch, screen: &Shared, mut said: File, ended: &Receiver<Status>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut next = Instant::now();
    // When something was said last on stderr, in a line that is not ended.
    let mut unended = None;
    let mut is_open = true;
    loop {
        is_open = is_open && wait_for_words(&said, next.saturating_duration_since(Instant::now()));
        let heard = pass_on(&mut said, &mut buffer, screen);
        if heard {
            unended = screen.is_in_line().then(Instant::now);
        }
        let end = ended.try_recv();
        if end != Err(TryRecvError::Empty) {
            // Not without end: what a command has left behind may go on for ever.
            let _ = (0..LAST_READS).take_while(|_| pass_on(&mut said, &mut buffer, screen)).count();
            screen.close();
            if let Ok(status) = end {
                screen.end_line();
                screen.print(format!("{PROGRAM}: {}\n", watch.closing(&status)).as_bytes());
            }
            return;
        }
        if !is_open {
            // Nobody can say anything any more, and the end is on its way.
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        if next > Instant::now() {
            continue;
        }
        if unended.is_some_and(|since: Instant| since.elapsed() > PROGRESS_LINE_WAIT) {
            screen.end_line();
            unended = None;
        }
        if let Some(line) = watch.look() {
            screen.update(line);
        }
        next = Instant::now() + PROGRESS_REFRESH;
    }
}

/// Waits until something is said, at most so long. False once nobody can say anything any more.
fn wait_for_words(said: &File, at_most: Duration) -> bool {
    let mut watched = [PollFd::new(said, PollFlags::IN)];
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    // Interrupted, it merely looks too soon.
    let _ = poll(&mut watched, Some(&timeout));
    !watched[0].revents().contains(PollFlags::HUP) || watched[0].revents().contains(PollFlags::IN)
}

/// Passes on what was said; false if there was nothing.
fn pass_on(said: &mut File, buffer: &mut [u8], screen: &Shared) -> bool {
    match said.read(buffer) {
        Ok(count) if count > 0 => {
            screen.print(&buffer[..count]);
            true
        }
        _ => false,
    }
}
