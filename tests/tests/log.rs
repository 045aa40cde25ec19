//! What `PROCQ_LOG` has the programs tell, and that they tell nothing unless it does.

use std::path::Path;
use std::process::Command;

use tests::{Process, program};

/// Runs the coordinator in a folder of its own; exit code, stdout, stderr.
fn run(log: Option<&str>, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("input"), "1\n2\n3\n").expect("a file");
    let mut command = Command::new(program("coordinator"));
    command.args(arguments).current_dir(folder.path()).env_remove("PROCQ_LOG");
    if let Some(log) = log {
        command.env("PROCQ_LOG", log);
    }
    Process::spawn(command, Path::new("q.sock")).finish()
}

#[test]
fn nothing_is_told_unless_it_is_asked_for() {
    for log in [None, Some(""), Some("off")] {
        assert_eq!(run(log, &["--input", "input", "--consumers", "1"]), (0, "1\n2\n3\n".into(), String::new()));
    }
}

#[test]
fn a_run_tells_of_connections_children_commits_retries_and_dead_letters_with_fields() {
    let line = ["--input", "input", "--consumers", "1", "--max-attempts", "2", "--retry-delay", "1ms..1ms", "--journal", "journal"];
    let (code, out, said) = run(Some("debug"), &[&line[..], &["--", "sh", "-c", "[ $1 != 2 ] && echo $1", "sh", "{}"]].concat());
    assert_eq!((code, &out[..]), (3, "1\n3\n"), "{said}");
    let told = |words: &[&str]| {
        let found = said.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{words:?} is missing in {said}");
    };
    told(&["INFO coordinator::run: listening socket=q.sock pid="]);
    told(&["DEBUG coordinator::children: started a child role=\"producer\" pid="]);
    told(&["DEBUG coordinator::run: a child ended role=\"consumer\"", "exit=exit status 0"]);
    told(&["DEBUG coordinator::broker::clients: accepted a connection client=3"]);
    told(&["DEBUG coordinator::broker::clients: greeted", "role=Producer name=\"0: input\""]);
    told(&["DEBUG coordinator::broker: given back", "outcome=Failed { cause: \"sh: exit status 1\" }"]);
    told(&["INFO coordinator::broker: dead letter item=1 attempts=2 cause=\"sh: exit status 1\""]);
    told(&["DEBUG coordinator::journal: committed entries="]);
    told(&["DEBUG coordinator::broker::clients: a connection is gone", "orderly=true"]);
    // Its children tell, too, each under its own name.
    told(&["Z producer[", "DEBUG common::driver: greeted role=Producer"]);
    told(&["Z consumer[", "DEBUG common::driver: greeted role=Consumer"]);
    assert!(!said.contains("TRACE") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn a_part_alone_can_be_asked_for_and_commands_are_told_of_at_the_lowest_level() {
    let (code, _, said) = run(Some("consumer=trace"), &["--input", "input", "--consumers", "1", "--", "cat"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert!(lines.iter().all(|line| line.contains("TRACE consumer::command: ")), "{said}");
}

#[test]
fn a_worker_is_told_of_when_it_starts_and_when_it_ends() {
    let script = "while read -r item; do echo $item; [ $item = 2 ] && exit 0; done";
    let (code, _, said) = run(Some("consumer=debug"), &["--input", "input", "--consumers", "1", "--worker", "--", "sh", "-c", script]);
    assert_eq!(code, 0, "{said}");
    for words in ["DEBUG consumer::worker::process: started a worker", "DEBUG consumer::worker::process: a worker ended"] {
        assert_eq!(said.lines().filter(|line| line.contains(words) && line.contains(" pid=")).count(), 2, "{said}");
    }
    assert!(said.contains("program=sh") && said.contains("status=exit status: 0") && !said.contains("TRACE"), "{said}");
}

#[test]
fn what_makes_no_sense_is_a_usage_error_that_says_what_would() {
    for name in ["coordinator", "producer", "consumer"] {
        let mut command = Command::new(program(name));
        command.env("PROCQ_LOG", "common=loud");
        let (code, out, said) = Process::spawn(command, Path::new("/no/such/q.sock")).finish();
        assert_eq!((code, &out[..], said.lines().count()), (2, "", 1), "{said}");
        assert!(said.starts_with(&format!("{name}: PROCQ_LOG=common=loud makes no sense: ")) && said.contains("give off, error"), "{said}");
    }
}
