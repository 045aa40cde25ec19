//! Runs whose children are killed and stopped, one run after the other.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::{children_of, eventually, program};

use crate::account::{Account, assert_nothing_left};
use crate::{Coordinator, Schedule, Stopped};

/// A run of two inputs.
fn start(account: &Account, folder: &Path, socket: &Path, dead_letters: &Path) -> Coordinator {
    let mut command = Command::new(program("coordinator"));
    for _ in 0..2 {
        command.arg("--input").arg(account.new_input(folder));
    }
    command.args(["--consumers", "3", "--capacity", "50000", "--retry-delay", "1ms..10ms"]).arg("--dead-letters").arg(dead_letters);
    command.env("PROCQ_SOCKET", socket).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Coordinator(command.spawn().unwrap())
}

#[test]
fn runs_whose_children_are_killed_and_stopped_at_random_lose_no_item_and_double_none() {
    let mut schedule = Schedule::begin("runs");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket/q.sock");
    let dead_letters = folder.path().join("dead");
    let account = Account::default();
    let mut runs = 0;
    while !schedule.is_over() {
        let mut run = start(&account, folder.path(), &socket, &dead_letters);
        let results = account.read(run.0.stdout.take().unwrap());
        let stderr = run.0.stderr.take().unwrap();
        let said = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
        let mut stopped = Stopped::children_of(run.0.id());
        let ended = loop {
            if let Some(ended) = run.0.try_wait().unwrap() {
                break ended;
            }
            let children = children_of(run.0.id());
            if !schedule.is_over() && !children.is_empty() {
                let (victim, fault) = schedule.next(children.len());
                stopped.do_to(children[victim], fault, &mut schedule);
                stopped.go_on(false);
            } else if schedule.is_over() {
                stopped.go_on(true);
                break eventually("the run's end", || run.0.try_wait().unwrap());
            }
        };
        results.join().unwrap();
        let said = said.join().unwrap();
        assert!(ended.code() == Some(0) || ended.code() == Some(3), "{ended}: {said}");
        assert_nothing_left(&socket);
        runs += 1;
    }
    let dead = account.read_dead_letters(&dead_letters);
    let items = account.assert_complete();
    eprintln!("{runs} runs, {items} items, {dead} of them dead letters; {}", schedule.faults());
}
