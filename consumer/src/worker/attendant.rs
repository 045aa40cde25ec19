//! The thread that gives items to a worker, takes its answers (`answers`), looks at the `time` that they take, and starts another when it has
//! ended (`failing`).

mod answers;
mod failing;
mod time;

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use common::limits::PREFETCH_BYTES_MAX;
use common::{Consumer, Error, ItemId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::Worker;
use super::handover::{Handover, Item, Room, Supply};
use super::pace::Pace;
use super::process::Process;
use super::stderr::Lines;
use crate::command::{Ending, Running, hangup, watch_children, why_not_started};
use crate::joblog::{Attempt, Began, JobLog, Outcome};
use crate::limits::{LAST_WORDS_READS_MAX, PIPE_BYTES, WORKER_CLOSED, WORKER_END, WORKER_TERM};
use crate::unless_expired;

/// See the module.
pub(super) struct Attendant<'a, 'c> {
    worker: &'a Worker,
    consumer: &'c Consumer<[u8]>,
    handover: &'a Handover<'c>,
    running: &'a Running,
    child_ended: UnixStream,
    /// The consumer's connection, unless it is lost.
    connection: Option<OwnedFd>,
    /// How long an attempt may take.
    item_timeout: Option<Duration>,
    process: Option<Process<'a>>,
    start_at: Instant,
    /// Got, and not given to the worker.
    waiting: VecDeque<Item<'c>>,
    /// Given to it, and without an answer; the first is the one that it works on,
    given: VecDeque<Given<'c>>,
    /// since then.
    began: Began,
    held_bytes: u64,
    /// Bytes for the worker, of which so many are written.
    input: Vec<u8>,
    input_written: usize,
    /// Read and not dealt with: less than an answer, between two turns.
    output: Vec<u8>,
    looked_through: usize,
    lines: Lines,
    scratch: Vec<u8>,
    pace: Pace,
    /// Ended without an answer in a row: how often, and with how many different items.
    fruitless: u32,
    suspects: u32,
    suspect: Option<ItemId>,
    supply: Supply,
    /// Nothing more will come, which the getter has not heard.
    is_stopped: bool,
    /// The worker is on its way to its end; what comes next, and when.
    leaving: Option<Leaving>,
    closed_at: Option<Instant>,
    /// The first item took too long: the worker was asked to end, and is killed then.
    overdue_until: Option<Instant>,
    hinted: bool,
}

struct Given<'c> {
    item: Item<'c>,
    /// Neither is another given behind it, nor it behind another.
    alone: bool,
}

#[derive(Clone, Copy)]
enum Leaving {
    ByItself { until: Instant },
    Asked { until: Instant },
}

impl<'a, 'c> Attendant<'a, 'c> {
    pub(super) fn new(
        worker: &'a Worker,
        consumer: &'c Consumer<[u8]>,
        handover: &'a Handover<'c>,
        running: &'a Running,
    ) -> Result<Attendant<'a, 'c>> {
        let now = Instant::now();
        Ok(Attendant {
            worker,
            consumer,
            handover,
            running,
            child_ended: watch_children()?,
            connection: None,
            item_timeout: None,
            process: None,
            start_at: now,
            waiting: VecDeque::new(),
            given: VecDeque::new(),
            began: Began::now(),
            held_bytes: 0,
            input: Vec::new(),
            input_written: 0,
            output: Vec::new(),
            looked_through: 0,
            lines: Lines::default(),
            scratch: vec![0; PIPE_BYTES],
            pace: Pace::new(worker.prefetch, now),
            fruitless: 0,
            suspects: 0,
            suspect: None,
            supply: Supply::Open,
            is_stopped: false,
            leaving: None,
            closed_at: None,
            overdue_until: None,
            hinted: false,
        })
    }

    /// Until no more items come and the worker has ended, or nothing can be got done.
    pub(super) fn attend(mut self) -> Result<()> {
        let attended = self.attend_until_over();
        if attended.is_err() {
            self.process = None;
            // No item is to blame. If that fails, too, the coordinator does it when the connection closes.
            let items = self.given.drain(..).map(|given| given.item).chain(self.waiting.drain(..));
            items.for_each(|item| drop(item.give_back_unstarted()));
        }
        attended
    }

    fn attend_until_over(&mut self) -> Result<()> {
        self.running.set_idle(true);
        self.connect()?;
        loop {
            self.take_over()?;
            if self.supply == Supply::Broken {
                return Ok(());
            }
            let now = Instant::now();
            if self.supply == Supply::Over && self.leave(now) {
                return Ok(());
            }
            self.start_if_due(now)?;
            self.give()?;
            self.write()?;
            self.wait(now)?;
            self.look_after()?;
        }
    }

    fn connect(&mut self) -> Result<()> {
        use std::os::fd::AsFd;
        let connection = self.consumer.descriptor();
        self.item_timeout = self.consumer.item_timeout();
        self.connection = Some(connection.as_fd().try_clone_to_owned().context("cannot watch the connection")?);
        Ok(())
    }

    /// Takes what was got meanwhile.
    fn take_over(&mut self) -> Result<()> {
        let before = self.waiting.len();
        let supply = self.handover.take(&mut self.waiting);
        let came = self.waiting.range(before..);
        self.held_bytes += came.map(|item| item.item().len() as u64).sum::<u64>();
        if self.connection.is_none() && self.waiting.len() > before {
            // They have come on another.
            self.connect()?;
        }
        if supply != self.supply {
            self.supply = supply;
            if supply == Supply::Over {
                self.give_back_waiting()?;
            }
        }
        Ok(())
    }

    /// Nothing more comes. True once nothing is left to be done.
    fn leave(&mut self, now: Instant) -> bool {
        let Some(process) = &mut self.process else { return self.given.is_empty() };
        if self.input_written == self.input.len() {
            process.stdin = None;
        }
        if !self.given.is_empty() {
            return false;
        }
        match self.leaving {
            None => self.leaving = Some(Leaving::ByItself { until: now + WORKER_END }),
            Some(Leaving::ByItself { until }) if until <= now => {
                process.signal(Signal::TERM);
                self.leaving = Some(Leaving::Asked { until: now + WORKER_TERM });
            }
            Some(Leaving::Asked { until }) if until <= now => {
                self.process = None;
                return true;
            }
            Some(_) => {}
        }
        false
    }

    fn start_if_due(&mut self, now: Instant) -> Result<()> {
        if self.process.is_some() || self.start_at > now || self.supply != Supply::Open {
            return Ok(());
        }
        match self.worker.plan.start(self.running) {
            Ok(process) => self.process = Some(process),
            Err(error) => match why_not_started(error, false) {
                // It may do so a little later.
                Ending::Failed { cause } => self.worker_failed(&format!("{}: {cause}", self.worker.plan), None)?,
                Ending::NotStarted { error } => {
                    self.give_back_waiting()?;
                    return Err(error).with_context(|| format!("cannot start {}", self.worker.plan));
                }
                _ => {
                    self.give_back_waiting()?;
                    return Err(anyhow!("cannot start {}: its arguments are too long", self.worker.plan));
                }
            },
        }
        Ok(())
    }

    /// Gives as many of the waiting items to the worker as it may have ahead, if it takes any now.
    fn give(&mut self) -> Result<()> {
        let is_ready = self.process.as_ref().is_some_and(|process| process.stdin.is_some() && process.stdout.is_some());
        if !is_ready || self.overdue_until.is_some() || self.waiting.is_empty() || self.input_written < self.input.len() {
            return Ok(());
        }
        self.input.clear();
        self.input_written = 0;
        let now = Instant::now();
        if self.given.len() <= self.pace.ahead(now) / 2 {
            self.pace.measure(now);
        }
        let (ahead, announce_from) = (self.pace.ahead(now), self.consumer.announce_from());
        while self.given.len() <= ahead && self.input.len() < PIPE_BYTES && !self.given.back().is_some_and(|last| last.alone) {
            let Some(next) = self.waiting.front() else { break };
            let alone = next.attempt() > 1 || next.attempt() >= announce_from;
            if alone && !self.given.is_empty() {
                break;
            }
            let Some(item) = self.waiting.pop_front() else { break };
            if item.item().contains(&self.worker.separator) {
                self.held_bytes -= item.item().len() as u64;
                self.reject(item)?;
                continue;
            }
            if alone && !unless_expired(item.begin().map(|()| true))? {
                self.held_bytes -= item.item().len() as u64;
                continue;
            }
            if self.given.is_empty() {
                self.began = Began::now();
                self.pace.work(now);
                self.running.set_idle(false);
            }
            self.input.extend_from_slice(item.item());
            self.input.push(self.worker.separator);
            self.given.push_back(Given { item, alone });
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        while self.input_written < self.input.len() {
            match process.write(&self.input[self.input_written..]).with_context(|| format!("cannot write to {}", self.worker.plan))? {
                0 => break,
                count => self.input_written += count,
            }
        }
        if self.input_written == self.input.len() && self.input.capacity() > 16 * PIPE_BYTES {
            self.input = Vec::new();
            self.input_written = 0;
        }
        Ok(())
    }

    /// How much more is to be got: when the worker has done half of what it was given ahead, up to as much again.
    fn room(&mut self, lying: usize, now: Instant) -> Option<Room> {
        let held = self.given.len() + self.waiting.len() + lying;
        if std::mem::take(&mut self.is_stopped) {
            // For the getter to see that.
            return Some(Room { items: 1, bytes: 1 });
        }
        if self.process.is_none() || self.overdue_until.is_some() || self.supply != Supply::Open {
            return Some(Room::default());
        }
        let ahead = self.pace.ahead(now);
        if held > ahead / 2 {
            return None;
        }
        self.pace.measure(now);
        let items = (self.pace.ahead(now) + 1).saturating_sub(held);
        Some(Room { items, bytes: PREFETCH_BYTES_MAX as i64 - self.held_bytes as i64 })
    }

    /// Waits for whatever comes first.
    fn wait(&mut self, now: Instant) -> Result<()> {
        let handover = self.handover;
        let seen = self.supply;
        let may_sleep = handover.rest(seen, |lying| self.room(lying, now));
        let timeout = if may_sleep { self.next_timeout(now) } else { Some(Duration::ZERO) };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![PollFd::new(handover.woken(), PollFlags::IN), PollFd::new(&self.child_ended, PollFlags::IN)];
        let mut stdin_at = None;
        if let Some(process) = &self.process {
            fds.extend(process.stdout.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            fds.extend(process.stderr.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            // That nobody reads it any more is said in any case: of what is written, too.
            let flags = if self.input_written < self.input.len() { PollFlags::OUT } else { PollFlags::empty() };
            if let Some(pipe) = process.stdin.as_ref().filter(|_| !flags.is_empty() || !process.has_read_all) {
                stdin_at = Some(fds.len());
                fds.push(PollFd::new(pipe, flags));
            }
        }
        // While nobody gets and the worker is slow, nobody would hear of Stop.
        let hears = !self.given.is_empty() && !self.may_hold_back() && seen == Supply::Open;
        let news = if hears { hangup() | PollFlags::IN } else { hangup() };
        fds.extend(self.connection.iter().map(|connection| PollFd::new(connection, news)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error)).context("cannot wait for the worker"),
        }
        let came = fds.last().filter(|_| self.connection.is_some()).map_or(PollFlags::empty(), PollFd::revents);
        let is_lost = came.intersects(hangup() | PollFlags::HUP | PollFlags::ERR);
        // What is wrong with the connection is said to the getter as well.
        self.is_stopped = came.contains(PollFlags::IN) && self.consumer.is_stopped().unwrap_or(true);
        let reads_no_more = stdin_at.is_some_and(|at| fds[at].revents().contains(PollFlags::ERR));
        if !fds[0].revents().is_empty() {
            handover.drain();
        }
        if !fds[1].revents().is_empty() {
            // Only a wake-up: how many children have ended is for try_wait to say.
            let _ = (&self.child_ended).read(&mut [0; 64]);
        }
        if let Some(process) = self.process.as_mut().filter(|_| reads_no_more) {
            process.reads_no_more();
        }
        handover.wake_up();
        if is_lost { self.connection_lost() } else { Ok(()) }
    }

    /// What the worker has is another's. One that connects again lets it finish that all the same, though it counts for nothing: a worker
    /// may be dear to start.
    fn connection_lost(&mut self) -> Result<()> {
        self.connection = None;
        if self.worker.connects_again || self.given.is_empty() {
            return Ok(());
        }
        if let Some(Given { item, .. }) = self.given.pop_front() {
            let attempt = self.attempt(Outcome::Lost, Some("the connection was lost"));
            drop(JobLog::note(self.worker.joblog.as_ref(), item, &attempt)?);
        }
        Err(Error::Gone(format!("{} was ended with it", self.worker.plan)).into())
    }

    /// Takes what the worker says, sees whether it has ended, and what takes too long.
    fn look_after(&mut self) -> Result<()> {
        if let Some(cause) = self.listen()?.wrong {
            return self.worker_failed(&cause, None);
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        if let Some(status) = process.try_wait().context("cannot wait for the worker")? {
            // What it said last counts; but what it has left running may go on to speak.
            for _ in 0..LAST_WORDS_READS_MAX {
                let heard = self.listen()?;
                if let Some(cause) = heard.wrong {
                    return self.worker_failed(&cause, Some(status));
                }
                if !heard.anything {
                    break;
                }
            }
            return self.worker_ended(status);
        }
        let now = Instant::now();
        let reads_no_more = process.stdin.is_none() && self.supply == Supply::Open;
        if self.leaving.is_none() && self.overdue_until.is_none() && (process.stdout.is_none() || reads_no_more) {
            let which = if process.stdout.is_none() { "stdout" } else { "stdin" };
            let closed_at = *self.closed_at.get_or_insert(now);
            if now >= closed_at + WORKER_CLOSED {
                return self.worker_failed(&format!("it closed its {which}"), None);
            }
        }
        self.look_at_time()
    }

    /// The attempt at the first item.
    fn attempt<'w>(&self, outcome: Outcome, cause: Option<&'w str>) -> Attempt<'w> {
        let pid = self.process.as_ref().map(Process::pid);
        Attempt { pid, began: self.began, exit: None, signal: None, bytes: 0, outcome, cause }
    }
}
