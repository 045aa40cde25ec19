//! Producers, consumers and askers that somebody started by hand, and starts again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tests::{Process, eventually, program};

use crate::account::{Account, assert_nothing_left};
use crate::{Coordinator, Schedule, Stopped};

/// What a process is for.
enum Job {
    /// Puts an input, to its end.
    Produce(PathBuf),
    /// Gives each item back as its result.
    Echo,
    /// The same, with a process for each.
    Command,
    /// Asks for the figures.
    Ask,
}

/// Where what all of them say is gathered.
fn said(socket: &Path) -> File {
    let path = socket.parent().and_then(Path::parent).unwrap().join("said");
    File::options().append(true).create(true).open(path).unwrap()
}

/// A place for a process, which is started again as often as it ends before its time.
struct Place {
    job: Job,
    child: Option<Child>,
}

impl Place {
    fn new(job: Job, socket: &Path) -> Place {
        let mut place = Place { job, child: None };
        place.start(socket);
        place
    }

    fn start(&mut self, socket: &Path) {
        let (name, arguments): (_, Vec<&str>) = match &self.job {
            Job::Produce(input) => {
                let input = input.to_str().unwrap();
                ("producer", vec!["--name", input, "--input", input])
            }
            Job::Echo => ("consumer", vec!["--sink=lines"]),
            Job::Command => ("consumer", vec!["--", "echo", "{}"]),
            Job::Ask => ("coordinator", vec!["status"]),
        };
        let mut command = Command::new(program(name));
        // What it says to people is shown when the test fails.
        command.args(arguments).env("PROCQ_SOCKET", socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said(socket));
        self.child = Some(command.spawn().unwrap());
    }

    /// Its exit code, -1 for a signal, once it has ended; nobody is in this place then.
    fn ended(&mut self) -> Option<i32> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status.code().unwrap_or(-1))
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn clients_that_are_killed_and_stopped_at_random_lose_no_item_and_double_none() {
    let mut schedule = Schedule::begin("clients");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket/q.sock");
    let dead_letters = folder.path().join("dead");
    let account = Account::default();
    let mut command = Command::new(program("coordinator"));
    command.arg("serve").args(["--capacity", "50000", "--retry-delay", "1ms..10ms"]).arg("--dead-letters").arg(&dead_letters);
    command.env("PROCQ_SOCKET", &socket).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut coordinator = Coordinator(command.spawn().unwrap());
    let results = account.read(coordinator.0.stdout.take().unwrap());
    eventually("the coordinator", || socket.exists().then_some(()));

    let jobs = [Job::Echo, Job::Echo, Job::Command, Job::Ask].into_iter();
    let inputs = (0..2).map(|_| Job::Produce(account.new_input(folder.path())));
    let mut places: Vec<Place> = inputs.chain(jobs).map(|job| Place::new(job, &socket)).collect();
    let mut stopped = Stopped::children_of(std::process::id());
    let tend = |places: &mut Vec<Place>, over: bool| {
        for place in places.iter_mut() {
            let Some(code) = place.ended() else { continue };
            if code != 0 && code != -1 {
                let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
                let last: Vec<&str> = said.lines().filter(|line| !line.contains("connected to the coordinator")).collect();
                panic!("one ended by itself, with exit code {code}: {last:?}");
            }
            match &mut place.job {
                Job::Produce(input) if code == 0 => {
                    std::fs::remove_file(&input).unwrap();
                    if over {
                        continue;
                    }
                    *input = account.new_input(folder.path());
                }
                Job::Ask if over => continue,
                _ => {}
            }
            place.start(&socket);
        }
    };
    while !schedule.is_over() {
        let (victim, fault) = schedule.next(places.len());
        if let Some(pid) = places[victim].pid() {
            stopped.do_to(pid, fault, &mut schedule);
        }
        stopped.go_on(false);
        tend(&mut places, false);
    }
    stopped.go_on(true);
    let is_busy = |place: &Place| matches!(place.job, Job::Produce(_) | Job::Ask) && place.child.is_some();
    eventually("all to be put", || {
        tend(&mut places, true);
        (!places.iter().any(is_busy)).then_some(())
    });
    assert_eq!(Process::start("coordinator", &socket, &["stop"]).finish().0, 0);
    let ended = eventually("the coordinator's end", || coordinator.0.try_wait().unwrap());
    results.join().unwrap();
    let dead = account.read_dead_letters(&dead_letters);
    assert!(ended.success(), "{ended}");
    for place in places.iter_mut().filter(|place| place.child.is_some()) {
        assert_eq!(eventually("a consumer's end", || place.ended()), 0);
    }
    assert_nothing_left(&socket);
    let items = account.assert_complete();
    eprintln!("{items} items, {dead} of them dead letters; {}", schedule.faults());
}
