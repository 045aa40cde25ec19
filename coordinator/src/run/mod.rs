//! A run from its start to its exit code: which children it has, what their ends and signals mean, when it is over.

mod slots;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use common::Endpoint;
use common::endpoint::Listener;
use common::program::{EXIT_DEAD_LETTERS, EXIT_DONE, EXIT_ERROR, EXIT_HOPELESS, EXIT_OUTPUT_CLOSED, EXIT_SIGNAL_BASE, tell, tell_error};
use common::status::Phase;
use consumer::command::{find_program, has_placeholder};
use consumer::joblog::JobLog;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use tracing::{debug, info};

use crate::PROGRAM;
use crate::broker::{Broker, Event, Keeping, Setup};
use crate::cli::{QueueArgs, RunArgs, ServeArgs};
use crate::dry_run;
use crate::halt::Halt;
use crate::jetstream::{Settings, Timing};
use crate::limits::{CHILD_END, CHILD_LOOK, DONE_LINGER};
use crate::metrics::Metrics;
use crate::outputs::DeadLetters;
use crate::progress::{Known, Progress, Shown, When};
use crate::queue::{Input, Rules};
use crate::supervisor::{Exit, Kind, Tally, Verdict};
use crate::systemd::{self, Notifier};
use crate::writer::WriteFailure;
use slots::{Place, Slot, host, input_producers, open_input, random_producers};

/// Runs inputs through consumers to results; without inputs, the default run.
pub fn run(args: &RunArgs, rules: Rules) -> Result<u8> {
    if let Some(program) = args.command.first().filter(|program| args.worker || !has_placeholder(program)) {
        find_program(program)?;
    }
    if args.dry_run {
        return dry_run::show(args, rules.item_bytes_max);
    }
    if let Some(path) = &args.joblog {
        // Once and for all consumers, before anything is done that could not be noted.
        JobLog::append_to(path)?;
    }
    let inputs = args.input.iter().map(|input| open_input(input, args.format)).collect::<Result<Vec<_>>>()?;
    let narrates = args.is_default();
    let auto = if narrates { When::Never } else { When::Auto };
    let mut coordinator = Coordinator::start(rules, &args.queue, auto, true)?;
    let endpoint = coordinator.broker.endpoint().clone();
    if narrates {
        // Its consumers take a pause after the last number, too.
        coordinator.patience = DONE_LINGER.saturating_add(args.pause.0);
    }
    let consumers = args.consumers.unwrap_or_else(|| if narrates { 1 } else { cpus() });
    let consumers = slots::consumers(args, consumers, &endpoint, narrates);
    let producers = if narrates { random_producers(args, &endpoint) } else { input_producers(args, inputs, &endpoint) };
    for slot in producers.into_iter().chain(consumers) {
        coordinator.add(slot)?;
    }
    let code = coordinator.run_to_end()?;
    if narrates && code == EXIT_DONE {
        io::stdout().write_all(b"Done!\n").context("cannot write to stdout")?;
    }
    Ok(code)
}

/// Serves the queue to others' producers and consumers.
pub fn serve(args: &ServeArgs, rules: Rules) -> Result<u8> {
    raise_descriptor_limit();
    let coordinator = Coordinator::start(rules, &args.queue, When::Never, false)?;
    let place = coordinator.broker.endpoint().path().display();
    tell(PROGRAM, format_args!("ready at {place} (pid {})", std::process::id()));
    coordinator.run_to_end()
}

/// How the run is going to end.
enum End {
    /// When all is done.
    Open,
    /// Once what consumers hold is done, however long that takes: too much has failed.
    Halting,
    /// Soon, with this code; at the deadline whatever is left.
    Soon { code: u8, deadline: Duration },
    /// Now, with this code.
    Now { code: u8 },
}

type Signals = SignalDelivery<UnixStream, SignalOnly>;

struct Coordinator {
    broker: Broker,
    signals: Signals,
    notifier: Notifier,
    slots: Vec<Slot>,
    end: End,
    halt: Halt,
    /// It was given up because too much has failed.
    halted: bool,
    /// It was told to stop, by `coordinator stop`.
    stopped: bool,
    grace: Duration,
    /// Where what is left will be found.
    journal: Option<PathBuf>,
    /// The queue that is shared with other machines, if it is.
    engine: Option<String>,
    done_at: Option<Duration>,
    /// How long after all is done children may take to end.
    patience: Duration,
    /// Something went wrong, but the rest was brought to its end.
    flawed: bool,
    progress: Option<Shown>,
}

impl Coordinator {
    /// `auto`: when progress is shown if the user has no wish. Where we do not start all who write to the terminal, or let them, there is none.
    fn start(rules: Rules, args: &QueueArgs, auto: When, own_producers: bool) -> Result<Coordinator> {
        let dead_letters = match &args.dead_letters {
            None => DeadLetters::Stderr,
            Some(path) => DeadLetters::append_to(path).with_context(|| format!("cannot write dead letters to {}", path.display()))?,
        };
        let (read, write) = UnixStream::pair().context("cannot make a socket pair")?;
        let mut caught = vec![SIGINT, SIGTERM, SIGCHLD];
        caught.extend((!is_ignored(SIGHUP)).then_some(SIGHUP));
        let signals = SignalDelivery::with_pipe(read, write, SignalOnly, caught);
        let signals = signals.context("cannot catch signals")?;
        let listener = listen(args)?;
        let metrics = args.metrics.map(Metrics::bind).transpose()?;
        let keeping = keeping(args, &rules, own_producers);
        let when = if args.progress == When::Auto { auto } else { args.progress };
        let progress = Progress::new(when, auto == When::Never && own_producers).context("cannot show progress")?;
        let producers_expected = rules.producers_expected;
        let screen = progress.screen_of_results();
        let setup = Setup { rules, keeping, output: args.output.as_deref(), dead_letters, screen, spin: args.spin };
        let broker = Broker::new(listener, setup, signals.get_read())?;
        if let Some(metrics) = metrics {
            tell(PROGRAM, format_args!("metrics at http://{}/metrics", metrics.address()?));
            metrics.serve(broker.asker()).context("cannot serve metrics")?;
        }
        let known = Known { producers_expected, before: broker.status() };
        let progress = progress.show(broker.asker(), known).context("cannot show progress")?;
        info!(socket = %broker.endpoint().path().display(), pid = std::process::id(), "listening");
        Ok(Coordinator {
            notifier: Notifier::from_env(),
            broker,
            signals,
            slots: Vec::new(),
            end: End::Open,
            halt: args.halt,
            halted: false,
            stopped: false,
            grace: args.grace,
            journal: args.journal.clone(),
            engine: args.engine.as_ref().map(ToString::to_string),
            done_at: None,
            patience: DONE_LINGER,
            flawed: false,
            progress,
        })
    }

    fn add(&mut self, mut slot: Slot) -> Result<()> {
        slot.place = slot.start(self.broker.now())?;
        self.slots.push(slot);
        Ok(())
    }

    /// Until it is over, in whatever way; no child outlives this.
    fn run_to_end(mut self) -> Result<u8> {
        self.notifier.ready(&self.broker.status());
        let code = self.run_until_over().map(|code| if code == EXIT_DONE && self.is_cut_short() { EXIT_ERROR } else { code });
        self.notifier.stopping();
        self.end_children();
        let code = code.and_then(|code| self.broker.close_keeper().map(|()| code));
        let code = code.or_else(|error| {
            tell_error(PROGRAM, &*error, format_args!("{error:#}"));
            anyhow::Ok(EXIT_ERROR)
        });
        if let Some(progress) = self.progress.take() {
            progress.end(self.broker.status());
        }
        if !matches!(code, Ok(EXIT_OUTPUT_CLOSED)) {
            self.tell_what_is_left();
        }
        code
    }

    /// True of a run that was told to stop before all was done. What is served has no end of its own.
    fn is_cut_short(&self) -> bool {
        // What is left in a shared queue is for the other machines.
        let is_left = self.engine.is_none() && self.broker.status().stored() > 0;
        self.stopped && !self.slots.is_empty() && (is_left || self.has_unread())
    }

    fn has_unread(&self) -> bool {
        let is_unread = |slot: &Slot| slot.name.as_ref().is_some_and(|name| !self.broker.queue().has_finished(name));
        self.slots.iter().any(is_unread)
    }

    fn tell_what_is_left(&self) {
        let left = self.broker.status().stored();
        let unread = (self.halted || self.stopped) && self.has_unread();
        if left == 0 && !unread {
            if self.halted {
                tell(PROGRAM, format_args!("nothing else was left to do"));
            }
            return;
        }
        let place = match (&self.journal, &self.engine) {
            (Some(folder), _) => format!("the journal {}", folder.display()),
            (None, Some(address)) => address.clone(),
            (None, None) => "the queue".into(),
        };
        let were = if left == 1 { "item was" } else { "items were" };
        let (undone, advice) = match (&self.journal, &self.engine) {
            (Some(_), _) => ("", "; start again with the same line to go on"),
            (None, Some(_)) => ("", ", for the other machines, or to go on with here"),
            (None, None) => (", not done", ""),
        };
        let mut what = if left > 0 { vec![format!("{left} {were} left in {place}{undone}")] } else { Vec::new() };
        what.extend(unread.then(|| "not all inputs were read to their end".into()));
        tell(PROGRAM, format_args!("{}{advice}", what.join(", and ")));
    }

    /// Children whose connection closes end their commands and themselves; who does not is killed.
    fn end_children(&mut self) {
        self.broker.hang_up();
        let until = self.broker.now() + CHILD_END;
        let is_running = |slot: &mut Slot| match &mut slot.place {
            Place::Running(process) => matches!(process.try_reap(), Ok(None)),
            _ => false,
        };
        while self.slots.iter_mut().any(is_running) && self.broker.now() < until {
            std::thread::sleep(CHILD_LOOK);
        }
        for slot in &mut self.slots {
            if let Place::Running(process) = &mut slot.place {
                slot.died = matches!(process.kill(), Ok(Exit::Signal(_))).then_some(process.pid());
            }
            slot.end_orphans();
        }
    }

    fn run_until_over(&mut self) -> Result<u8> {
        loop {
            for event in self.broker.turn(self.next_deadline()).context("the event loop failed")? {
                match event {
                    Event::Watched => self.take_signals()?,
                    Event::Shutdown { now } => self.told_to_stop(now),
                    Event::WriteFailed(failure) => return write_failed(failure),
                    Event::KeepingFailed(error) => return Err(error),
                }
            }
            self.halt_if_too_much_fails();
            self.start_pausing()?;
            self.notifier.news(self.broker.now(), || self.broker.status());
            if let Some(code) = self.is_over() {
                return Ok(code);
            }
        }
    }

    fn told_to_stop(&mut self, now: bool) {
        self.stopped = true;
        if now {
            self.end = End::Now { code: EXIT_DONE };
        } else {
            self.broker.feed(Input::Drain);
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        let pauses = self.slots.iter().filter_map(|slot| match slot.place {
            Place::Pausing(until) => Some(until),
            _ => None,
        });
        let end = match self.end {
            End::Open | End::Halting => None,
            End::Soon { deadline, .. } => Some(deadline),
            End::Now { .. } => Some(Duration::ZERO),
        };
        let linger = self.done_at.map(|done_at| done_at + self.patience).filter(|until| *until > self.broker.now());
        pauses.chain(end).chain(linger).chain(self.notifier.next_timeout()).min()
    }

    fn take_signals(&mut self) -> Result<()> {
        let caught: Vec<i32> = self.signals.pending().collect();
        for signal in caught {
            debug!(signal, "caught a signal");
            match (signal, &self.end) {
                (SIGCHLD, _) => self.reap()?,
                (_, End::Open | End::Halting) => self.begin_to_stop(signal),
                (_, End::Soon { .. } | End::Now { .. }) => {
                    self.end = End::Now { code: EXIT_SIGNAL_BASE + signal as u8 };
                }
            }
        }
        Ok(())
    }

    /// The first signal: nothing more goes in or out; what consumers hold may be finished within the grace.
    fn begin_to_stop(&mut self, signal: i32) {
        let held = self.broker.status().held;
        if held > 0 {
            let grace = humantime::format_duration(self.grace);
            tell(
                PROGRAM,
                format_args!("stopping; waiting up to {grace} for what consumers hold ({held} in all); signal again to stop at once"),
            );
        }
        self.notifier.stopping();
        self.end = End::Soon { code: EXIT_SIGNAL_BASE + signal as u8, deadline: self.broker.now().saturating_add(self.grace) };
        self.broker.feed(Input::Stop);
    }

    fn halt_if_too_much_fails(&mut self) {
        let (Halt::When { now, failures }, End::Open) = (self.halt, &self.end) else { return };
        let queue = self.broker.queue();
        let (dead, done) = (queue.buried(), queue.acknowledged_here());
        if !failures.are_met(dead, done) {
            return;
        }
        let have = if dead == 1 { "item has" } else { "items have" };
        let held = self.broker.status().held;
        let how = match (now, held) {
            (_, 0) => String::new(),
            (true, held) => format!("; what consumers hold is ended ({held} in all)"),
            (false, held) => format!("; waiting for what consumers hold ({held} in all)"),
        };
        tell(PROGRAM, format_args!("halted by --halt {}: {dead} {have} gone to the dead letters{how}", self.halt));
        self.halted = true;
        if now {
            self.end = End::Now { code: EXIT_ERROR };
            return;
        }
        self.end = End::Halting;
        self.broker.feed(Input::Stop);
    }

    fn reap(&mut self) -> Result<()> {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let Place::Running(process) = &mut slot.place else { continue };
            let Some(exit) = process.try_reap()? else { continue };
            let pid = process.pid();
            slot.place = Place::Empty;
            debug!(role = slot.plan.role, pid, %exit, "a child ended");
            slot.died = matches!(exit, Exit::Signal(_)).then_some(pid);
            slot.end_orphans();
            self.child_ended(index, pid, exit)?;
        }
        Ok(())
    }

    fn child_ended(&mut self, index: usize, pid: u32, exit: Exit) -> Result<()> {
        let status = self.broker.status();
        let slot = &mut self.slots[index];
        let role = slot.plan.role;
        if !matches!(self.end, End::Open) || status.phase == Phase::Done {
            return Ok(());
        }
        if slot.plan.writes_stdout && exit == Exit::Code(i32::from(EXIT_OUTPUT_CLOSED)) {
            self.end = End::Now { code: EXIT_OUTPUT_CLOSED };
            return Ok(());
        }
        let draining = status.phase != Phase::Running;
        if slot.kind != Kind::Consumer && draining {
            return Ok(());
        }
        if slot.name.as_ref().is_some_and(|name| self.broker.queue().has_finished(name)) {
            return Ok(());
        }
        let lived = self.broker.now().saturating_sub(slot.started);
        let tally = match slot.kind {
            Kind::Consumer => Tally { done: status.acknowledged, dead: status.dead },
            Kind::Producer | Kind::OneTimeProducer => Tally { done: status.accepted, dead: 0 },
        };
        match (slot.record.judge(slot.kind, exit, tally, lived), slot.kind) {
            // A consumer ends by itself only at Stop, which has not come: somebody has ended it.
            (Verdict::Done, Kind::Consumer) => slot.place = Place::Pausing(self.broker.now()),
            (Verdict::Done, _) => {}
            (Verdict::Restart { after }, _) => {
                tell(PROGRAM, format_args!("{role} {pid} ended by {exit}; starting another"));
                slot.place = Place::Pausing(self.broker.now() + after);
            }
            (Verdict::GiveUp, Kind::Consumer) if exit == Exit::Code(i32::from(EXIT_HOPELESS)) => {
                bail!(
                    "consumer {pid} has given up, and another would do no better, so the run ends; mend the cause that it named, then start again"
                );
            }
            (Verdict::GiveUp, Kind::Consumer) => {
                bail!(
                    "consumers keep failing without getting anything done, so the run ends; the last one (pid {pid}) ended by {exit}: \
                     see what was said before, or more with PROCQ_LOG=debug"
                );
            }
            (Verdict::GiveUp, _) => {
                tell(PROGRAM, format_args!("{role} {pid} ended by {exit}; what it has put is brought to its end"));
                self.flawed = true;
                let name = slot.name.clone().unwrap_or_default();
                self.broker.feed(Input::ProducerLost { name });
            }
        }
        Ok(())
    }

    fn start_pausing(&mut self) -> Result<()> {
        let now = self.broker.now();
        let wanted = matches!(self.end, End::Open) && matches!(self.broker.queue().phase(), Phase::Running | Phase::Draining);
        for slot in &mut self.slots {
            if matches!(slot.place, Place::Pausing(until) if until <= now) {
                slot.place = if wanted { slot.start(now)? } else { Place::Empty };
            }
        }
        Ok(())
    }

    /// The exit code, once nothing is left to wait for.
    fn is_over(&mut self) -> Option<u8> {
        let now = self.broker.now();
        let done = self.broker.queue().phase() == Phase::Done;
        let (code, deadline) = match self.end {
            End::Now { code } => return Some(code),
            End::Halting => (Some(EXIT_ERROR), Duration::MAX),
            End::Soon { code, deadline } => (Some(code), deadline),
            End::Open if done => (None, *self.done_at.get_or_insert(now) + self.patience),
            // Asked every turn of the loop: the figures below are not for that.
            End::Open => return None,
        };
        let alone = self.slots.iter().all(|slot| !matches!(slot.place, Place::Running(_)));
        let status = self.broker.status();
        let heard = if done { status.consumers == 0 } else { status.held == 0 && self.broker.is_written() };
        let over = (alone && heard) || now >= deadline;
        over.then(|| code.unwrap_or_else(|| self.code_when_done(status.dead)))
    }

    fn code_when_done(&self, dead: u64) -> u8 {
        if self.flawed {
            return EXIT_ERROR;
        }
        if dead == 0 {
            return EXIT_DONE;
        }
        tell(PROGRAM, format_args!("done, but {dead} {} in the dead letters", if dead == 1 { "item is" } else { "items are" }));
        EXIT_DEAD_LETTERS
    }
}

/// Nobody reads the results any more: a quiet end, as by the signal for that. Anything else is an error.
fn write_failed(WriteFailure { place, is_stdout, error }: WriteFailure) -> Result<u8> {
    if is_stdout && error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(EXIT_OUTPUT_CLOSED);
    }
    Err(error).with_context(|| format!("cannot write to {place}; nothing is done whose result was not written"))
}

/// Where the queue is kept.
fn keeping<'a>(args: &'a QueueArgs, rules: &Rules, own_producers: bool) -> Keeping<'a> {
    match (&args.journal, &args.engine) {
        (Some(folder), _) => Keeping::Journal { folder, fsync: args.fsync, anew: own_producers },
        (None, Some(address)) => Keeping::Shared(Box::new(Settings {
            address: address.clone(),
            capacity_items: rules.capacity_items,
            capacity_bytes: rules.capacity_bytes,
            item_bytes_max: args.max_item.map(|_| rules.item_bytes_max),
            machine: format!("{}:{}", host(), std::process::id()),
            timing: Timing { ack_wait: address.ack_wait, machine_lost: address.machine_lost, ..Timing::default() },
        })),
        (None, None) => Keeping::Nowhere,
    }
}

/// Listens at the queue's socket, or at one that was passed.
fn listen(args: &QueueArgs) -> Result<Listener> {
    let Some(passed) = systemd::passed_listener()? else { return Ok(args.endpoint().bind()?) };
    Ok(Endpoint::adopt(passed, args.socket.as_deref().filter(|path| !path.is_empty()).map(Path::new))?)
}

fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
}

/// True if this process was started with a signal ignored, as `nohup` does: then it stays so. Where that cannot be found out, it is not.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Each client costs a descriptor. A run's own children would inherit the raised limit; a server has none.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Not raised, it is as before: connections beyond it wait.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
