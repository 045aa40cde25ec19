//! Machines that share a queue: coordinators with sockets of their own, and what came out of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Control, Endpoint, Status};
use tempfile::TempDir;
use tests::{DEADLINE, Process, within};

/// A worker that says what it was given.
pub const ECHO: [&str; 5] = ["--worker", "--", "sh", "-c", "while read -r n; do echo \"$n\"; done"];

/// A queue, and a folder for its machines.
pub struct Place {
    pub folder: TempDir,
    pub address: String,
}

impl Place {
    /// What a dead machine held comes again after 2 s.
    pub fn at(url: &str) -> Place {
        Place { folder: tempfile::tempdir().unwrap(), address: format!("{url}/jobs?ack_wait=2s&lost=6s") }
    }

    /// A file of so many lines, none like another.
    pub fn input(&self, name: &str, lines: usize) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, (0..lines).map(|n| format!("{name} {n}\n")).collect::<String>()).unwrap();
        path
    }

    /// Starts a run; `arguments` end with its command.
    pub fn run(&self, name: &str, input: Option<&Path>, arguments: &[&str]) -> Machine {
        let input = input.map(|path| path.to_str().unwrap());
        let inputs: Vec<&str> = input.iter().flat_map(|path| ["--input", path]).collect();
        self.start(name, &[&inputs[..], &["--consumers", "2"], arguments].concat())
    }

    /// Starts `serve`, and waits until it is ready.
    pub fn serve(&self, name: &str, arguments: &[&str]) -> Machine {
        let machine = self.start(name, &[&["serve"], arguments].concat());
        machine.process.wait_for_stderr("ready at");
        machine
    }

    /// Starts a coordinator.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Machine {
        let socket = self.folder.path().join(format!("{name}.sock"));
        let (head, rest) = arguments.split_at(usize::from(arguments.first() == Some(&"serve")));
        let process = Process::start("coordinator", &socket, &[head, &["--engine", &self.address], rest].concat());
        Machine { process, socket }
    }
}

/// A coordinator.
pub struct Machine {
    pub process: Process,
    pub socket: PathBuf,
}

impl Machine {
    pub fn client(&self, name: &str, arguments: &[&str]) -> Process {
        Process::start(name, &self.socket, arguments)
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::at(&self.socket)
    }

    /// Waits until its figures satisfy `check`.
    pub fn wait_until(&self, what: &str, check: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        within(
            DEADLINE,
            || format!("{what}, which has said {:?}", self.process.stderr()),
            || {
                // A run may not listen yet.
                last = Control::connect(&self.endpoint()).and_then(|control| control.status()).ok();
                last.clone().filter(|status| check(status))
            },
        )
    }

    /// Waits until this many results have come out of it.
    pub fn wait_for_results(&self, count: usize) {
        let lines = || self.process.stdout().lines().count();
        within(DEADLINE, || format!("{count} results, after {}: {}", lines(), self.process.stderr()), || (lines() >= count).then_some(()));
    }

    /// How often it has said this.
    pub fn said(&self, text: &str) -> usize {
        self.process.stderr().matches(text).count()
    }

    /// Its results, once it has ended well.
    pub fn results(self) -> String {
        let (code, stdout, stderr) = self.process.finish_within(2 * DEADLINE);
        assert_eq!(code, 0, "{stderr}");
        stdout
    }
}

/// Every line of these files is in these results; returns how many came more than once.
pub fn account<'a>(inputs: impl IntoIterator<Item = &'a PathBuf>, results: &[String]) -> usize {
    let mut came: BTreeMap<&str, usize> = BTreeMap::new();
    results.iter().flat_map(|text| text.lines()).for_each(|line| *came.entry(line).or_default() += 1);
    let put: Vec<String> = inputs.into_iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let put: Vec<&str> = put.iter().flat_map(|text| text.lines()).collect();
    let missing: Vec<_> = put.iter().filter(|line| !came.contains_key(**line)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {:?} …", missing.len(), put.len(), &missing[..missing.len().min(5)]);
    assert_eq!(came.len(), put.len(), "something came that was not put");
    came.values().filter(|times| **times > 1).count()
}
