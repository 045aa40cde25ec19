//! The children of a run: what each is started with, and the place that it has, in which processes follow each other.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use common::Endpoint;
use common::limits::NAME_BYTES_MAX;
use producer::cli::Format;

use crate::children::{self, Plan, Process};
use crate::cli::RunArgs;
use crate::orphans::end_commands_of;
use crate::supervisor::{Kind, Record};

/// A child's place: the process in it may change.
pub(super) struct Slot {
    pub(super) kind: Kind,
    /// A producer's name.
    pub(super) name: Option<String>,
    pub(super) plan: Plan,
    pub(super) record: Record,
    pub(super) started: Duration,
    pub(super) place: Place,
    /// What ran here last, if it had no time to end what it had started.
    pub(super) died: Option<u32>,
}

pub(super) enum Place {
    Running(Process),
    Pausing(Duration),
    Empty,
}

impl Slot {
    fn new(kind: Kind, name: Option<String>, plan: Plan, attempts_max: u32) -> Slot {
        Slot { kind, name, plan, record: Record::new(attempts_max), started: Duration::ZERO, place: Place::Empty, died: None }
    }

    pub(super) fn start(&mut self, now: Duration) -> Result<Place> {
        self.started = now;
        // Once more, for what was just being started when it died.
        self.end_orphans();
        Ok(Place::Running(self.plan.spawn()?))
    }

    pub(super) fn end_orphans(&self) {
        if let Some(pid) = self.died.filter(|_| self.kind == Kind::Consumer) {
            end_commands_of(pid);
        }
    }
}

/// So many consumers.
pub(super) fn consumers(args: &RunArgs, count: u32, endpoint: &Endpoint, narrates: bool) -> Vec<Slot> {
    let plan = consumer_plan(args, endpoint, narrates);
    (0..count).map(|_| Slot::new(Kind::Consumer, None, plan.clone(), args.queue.max_attempts)).collect()
}

fn consumer_plan(args: &RunArgs, endpoint: &Endpoint, narrates: bool) -> Plan {
    let sink = match (narrates, args.format) {
        (true, _) => "narrate",
        (false, Format::Nul) => "nul",
        (false, Format::Lines | Format::Json) => "lines",
    };
    let mut arguments = vec![
        flag("--socket", endpoint.path()),
        flag("--sink", sink),
        flag("--retry-delay", args.queue.retry_delay.to_string()),
        flag("--pause-ms", args.pause.0.as_millis().to_string()),
        spin_flag(args),
    ];
    arguments.extend(args.prefetch.map(|items| flag("--prefetch", items.to_string())));
    arguments.extend(args.joblog.as_ref().map(|path| flag("--joblog", path)));
    if args.worker {
        arguments.extend(["--worker".into(), flag("--format", if args.format == Format::Nul { "nul" } else { "lines" })]);
    }
    if !args.command.is_empty() {
        arguments.push("--".into());
        arguments.extend(args.command.iter().cloned());
    }
    Plan { role: "consumer", arguments, stdin: children::Input::None, writes_stdout: narrates, leads_group: true }
}

pub(super) fn random_producers(args: &RunArgs, endpoint: &Endpoint) -> Vec<Slot> {
    let slot = |number: u32| {
        // At a shared queue each run has numbers of its own.
        let of = if args.queue.engine.is_some() { format!(" of {}:{}", host(), std::process::id()) } else { String::new() };
        let name = format!("random {number}{of}");
        let arguments = vec![
            flag("--socket", endpoint.path()),
            flag("--name", &name),
            flag("--count", args.count.to_string()),
            flag("--pause", args.pause.to_string().replace(' ', "")),
            spin_flag(args),
        ];
        let plan = Plan { role: "producer", arguments, stdin: children::Input::None, writes_stdout: true, leads_group: false };
        Slot::new(Kind::Producer, Some(name), plan, args.queue.max_attempts)
    };
    (1..=args.producers).map(slot).collect()
}

/// What is to be known of an input before anything is started: that it can be read, and who reads it.
pub(super) fn open_input(path: &Path, format: Format) -> Result<children::Input> {
    if path == Path::new("-") {
        return Ok(children::Input::Ours);
    }
    if path.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        // A pipe or a device: opened once, or who writes to it would see it close.
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(children::Input::Open(Arc::new(file)));
    }
    producer::source::Source::open(path, format)?;
    Ok(children::Input::None)
}

pub(super) fn input_producers(args: &RunArgs, inputs: Vec<children::Input>, endpoint: &Endpoint) -> Vec<Slot> {
    let slot = |(index, (input, stdin)): (usize, (&PathBuf, children::Input))| {
        let mut name = format!("{index}: {}", input.display());
        if args.queue.engine.is_some() {
            // Another machine's file of this name is another file, and so is another coordinator's stdin; one that comes again has its socket.
            name = format!("{}:{} {name}", host(), endpoint.path().display());
        }
        name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
        let format = match args.format {
            Format::Lines => "lines",
            Format::Nul => "nul",
            Format::Json => "json",
        };
        let mut arguments = vec![flag("--socket", endpoint.path()), flag("--name", &name), flag("--format", format), spin_flag(args)];
        let kind = match stdin {
            children::Input::None => {
                arguments.push(flag("--input", input));
                Kind::Producer
            }
            children::Input::Ours => {
                arguments.push("--input=-".into());
                Kind::OneTimeProducer
            }
            children::Input::Open(_) => {
                arguments.extend(["--input=-".into(), flag("--shown-as", input.display().to_string())]);
                Kind::OneTimeProducer
            }
        };
        let plan = Plan { role: "producer", arguments, stdin, writes_stdout: false, leads_group: false };
        Slot::new(kind, Some(name), plan, args.queue.max_attempts)
    };
    args.input.iter().zip(inputs).enumerate().map(slot).collect()
}

fn spin_flag(args: &RunArgs) -> OsString {
    flag("--spin", format!("{}ns", args.queue.spin.as_nanos()))
}

/// `name=value`, so that a value may begin with a dash.
fn flag(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut flag = OsString::from(name);
    flag.push("=");
    flag.push(value);
    flag
}

/// What this machine is called.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
