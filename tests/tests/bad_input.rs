//! What people get wrong: inputs, commands and flags that cannot be right, outputs that nobody reads. Each is told in words that
//! help and by its exit code, and nothing that was accepted gets lost over it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::message::{Message, Position};
use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;
use tests::engine::{Engine, engine, left};
use tests::{DEADLINE, Process, Queue, children_of, eventually, is_alive, program};

/// A folder for inputs and scripts; the runs in it make their socket in a folder of its own, `socket`, which shows whether one began.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str, contents: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, contents).expect("a file");
        path.to_str().expect("a path in UTF-8").to_string()
    }

    fn script(&self, name: &str, contents: &str) -> String {
        let path = self.file(name, contents);
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("an executable file");
        path
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("socket/q.sock")
    }

    /// A run from its start to its end: exit code, stdout, stderr.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        Process::start("coordinator", &self.socket(), arguments).finish()
    }

    /// Nothing was begun: not even the socket's folder was made.
    fn assert_untouched(&self) {
        assert!(!self.socket().parent().expect("a folder").exists(), "the coordinator had begun");
    }

    /// What was begun is over, and has left nothing behind.
    fn assert_clean(&self) {
        let left = std::fs::read_dir(self.socket().parent().expect("a folder")).expect("the socket's folder");
        assert_eq!(left.count(), 0, "a socket or a lock file was left behind");
    }
}

fn assert_says(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "{words:?} is missing in {said:?}");
    }
}

fn sorted(lines: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    lines
}

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

/// A program whose output nobody reads to its end. Killed when dropped.
struct Unread(Child);

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program whose stdout is read up to the end of its first line, and then closed.
fn start_and_read_one_line(name: &str, socket: &Path, arguments: &[&str]) -> Unread {
    let mut command = Command::new(program(name));
    command.args(arguments).env("PROCQ_SOCKET", socket);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Unread(command.spawn().expect("a program to start"));
    let stdout = child.0.stdout.take().expect("a pipe");
    let deadline = DEADLINE.try_into().expect("a time in the system's terms");
    poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&deadline)).expect("a pipe to wait for");
    rustix::io::ioctl_fionbio(&stdout, true).expect("a pipe");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line, in time");
    assert!(line.ends_with('\n'), "no first line, but {line:?}");
    child
}

/// Its exit code and what it has said on stderr.
fn end_of(mut child: Unread) -> (Option<i32>, String) {
    let status = eventually("the end of a program that nobody reads", || child.0.try_wait().expect("a child"));
    let mut said = String::new();
    child.0.stderr.take().expect("a pipe").read_to_string(&mut said).expect("stderr in UTF-8");
    (status.code(), said)
}

#[test]
fn an_item_over_the_limit_names_its_line_and_what_came_before_it_is_accepted() {
    let queue = Queue::serve(&["--max-item", "10"]);
    let folder = Folder::new();
    let input = folder.file("long", "one\n0123456789\n0123456789A\nfour\n");
    let (code, stdout, said) = queue.client("producer", &["--input", &input]).finish();
    assert_eq!((code, &stdout[..]), (1, ""));
    assert_says(&said, &["stopped after 2 items, all of them accepted", "long line 3: longer than 10 bytes", "--max-item"]);
    assert_eq!(queue.status().accepted, 2);
    let consumer = queue.client("consumer", &[]);
    assert_eq!(queue.client("coordinator", &["stop"]).finish().0, 0);
    assert_eq!(consumer.finish().1, "one\n0123456789\n");
}

#[test]
fn in_a_run_an_item_over_the_limit_ends_its_input_and_the_rest_is_brought_to_its_end() {
    let folder = Folder::new();
    let long = folder.file("long", "one\ntwo\n0123456789A\nfour\n");
    let other = folder.file("other", &numbers(1000));
    let (code, results, said) = folder.run(&["--input", &long, "--input", &other, "--max-item", "10"]);
    assert_eq!(code, 1, "{said}");
    let all = numbers(1000) + "one\ntwo\n";
    assert_eq!(sorted(&results), sorted(&all));
    assert_says(&said, &["long line 3: longer than 10 bytes", "what it has put is brought to its end"]);
    folder.assert_clean();
}

#[test]
fn what_is_not_json_names_its_line_and_the_items_before_it_are_delivered() {
    let folder = Folder::new();
    let input = folder.file("bad.json", "1\n{\"a\": [2]}\n\n{oops\n4\n");
    let (code, results, said) = folder.run(&["--input", &input, "--format", "json"]);
    assert_eq!((code, sorted(&results)), (1, vec!["1", "{\"a\": [2]}"]), "{said}");
    assert_says(&said, &["bad.json line 4 column 2: this is not JSON", "--format lines", "stopped after 2 items, all of them accepted"]);

    let queue = Queue::serve(&[]);
    let (code, _, said) = queue.client("producer", &["--input", &input, "--format", "json"]).finish();
    assert_eq!((code, queue.status().accepted), (1, 2));
    assert_says(&said, &["bad.json line 4 column 2: this is not JSON"]);
}

#[test]
fn an_input_that_cannot_be_read_is_refused_before_anything_is_started() {
    let folder = Folder::new();
    let good = folder.file("good", &numbers(3));
    let missing = folder.0.path().join("missing").display().to_string();
    let directory = folder.0.path().display().to_string();
    for (bad, words) in [(&missing, "No such file"), (&directory, "it is a directory; give a file")] {
        for inputs in [[&good, bad], [bad, &good]] {
            let (code, results, said) = folder.run(&["--input", inputs[0], "--input", inputs[1]]);
            assert_eq!((code, &results[..], said.lines().count()), (1, "", 1), "{said}");
            assert_says(&said, &[&format!("cannot read {bad}"), words]);
            folder.assert_untouched();
        }
        // Not 69: it does not even look for the coordinator.
        let (code, _, said) = Process::start("producer", &folder.socket(), &["--input", bad]).finish();
        assert_eq!((code, said.lines().count()), (1, 1), "{said}");
        assert_says(&said, &[&format!("cannot read {bad}"), words]);
    }
}

#[test]
fn stdin_named_twice_is_a_usage_error() {
    // Two readers of one stream would each get pieces of it, and cut lines where the pieces end.
    let folder = Folder::new();
    let (code, results, said) = folder.run(&["--input", "-", "--input", "-"]);
    assert_eq!((code, &results[..]), (2, ""), "stderr: {said:?}");
    assert_says(&said, &["--input -"]);
    folder.assert_untouched();
}

#[test]
fn stdin_by_its_name_in_dev_gives_its_items_or_is_refused() {
    let folder = Folder::new();
    let mut run = Process::start("coordinator", &folder.socket(), &["--input", "/dev/stdin"]);
    run.write(b"1\n2\n3\n");
    let (code, results, said) = run.finish();
    let refused = code != 0 && said.contains("/dev/stdin");
    assert!(refused || (code == 0 && sorted(&results) == ["1", "2", "3"]), "items vanished: exit {code}, {results:?}, {said:?}");
}

#[test]
fn a_named_pipe_gives_its_items() {
    let folder = Folder::new();
    let pipe = folder.0.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    let pipe = pipe.to_str().expect("a path in UTF-8");
    let mut writer = Command::new("sh");
    writer.args(["-c", "printf '1\\n2\\n3\\n' > \"$0\"", pipe]);
    let _writer = Process::spawn(writer, &folder.socket());
    let (code, results, said) = folder.run(&["--input", pipe]);
    assert_eq!((code, sorted(&results)), (0, vec!["1", "2", "3"]), "{said}");
}

#[test]
fn a_command_that_cannot_be_run_is_one_error_and_nothing_is_started() {
    let queue = Queue::serve(&[]);
    assert_eq!(queue.client("producer", &["--count", "1", "--pause", "none"]).finish().0, 0);
    let folder = Folder::new();
    let input = folder.file("input", &numbers(3));
    let plain = folder.file("plain", "#!/bin/sh\n");
    let directory = folder.0.path().display().to_string();
    for (command, words) in [
        ("no-such-command", "there is no command no-such-command in PATH"),
        ("/no/such/command", "there is no command /no/such/command"),
        (&plain, "not an executable file"),
        (&directory, "not an executable file"),
    ] {
        let (code, results, said) = folder.run(&["--input", &input, "--", command, "{}"]);
        assert_eq!((code, &results[..], said.lines().count()), (1, "", 1), "{said}");
        assert_says(&said, &[words, command]);
        folder.assert_untouched();

        let (code, results, said) = queue.client("consumer", &["--", command, "{}"]).finish();
        assert_eq!((code, &results[..], said.lines().count()), (1, "", 1), "{said}");
        assert_says(&said, &[words, command]);
    }
    let status = queue.status();
    assert_eq!((status.ready, status.redelivered), (1, 0), "no item was touched");
}

#[test]
fn a_command_that_vanishes_in_the_middle_of_a_run_ends_it_with_the_items_left_counted() {
    let folder = Folder::new();
    let input = folder.file("input", &numbers(10));
    let command = folder.script("vanishing", "#!/bin/sh\n[ \"$1\" = 4 ] && rm -- \"$0\"\necho \"done $1\"\n");
    let (code, results, said) = folder.run(&["--input", &input, "--consumers", "1", "--", &command, "{}"]);
    assert_eq!((code, &results[..]), (1, "done 1\ndone 2\ndone 3\ndone 4\n"), "{said}");
    assert_says(&said, &[&left(6), "consumers keep failing", "vanishing"]);
    folder.assert_clean();
}

#[test]
fn a_command_that_moves_along_path_in_the_middle_of_a_run_is_found_again() {
    let folder = Folder::new();
    let input = folder.file("input", &numbers(4));
    let places = ["first", "second"].map(|place| folder.0.path().join(place));
    places.iter().for_each(|place| std::fs::create_dir(place).expect("a folder"));
    let moves = format!("#!/bin/sh\n[ \"$1\" = 2 ] && mv -- \"$0\" {}\necho \"$1 $0\"\n", places[1].display());
    folder.script("first/moving", &moves);
    let path = std::env::var_os("PATH").expect("a PATH");
    let path = std::env::join_paths(places.iter().cloned().chain(std::env::split_paths(&path))).expect("folders without colons");
    let mut command = Command::new(program("coordinator"));
    command.env("PATH", path).args(["--input", &input, "--consumers", "1", "--", "moving", "{}"]);
    let (code, results, said) = Process::spawn(command, &folder.socket()).finish();
    let expected: String = [(1, 0), (2, 0), (3, 1), (4, 1)].map(|(item, at)| format!("{item} {}/moving\n", places[at].display())).concat();
    assert_eq!((code, results), (0, expected), "{said}");
    assert!(!said.contains("starting another"), "{said}");
}

#[test]
fn a_command_without_its_interpreter_ends_the_run_with_the_items_left_counted() {
    let folder = Folder::new();
    let input = folder.file("input", &numbers(10));
    let command = folder.script("orphan", "#!/no/such/interpreter\n");
    let (code, results, said) = folder.run(&["--input", &input, "--consumers", "1", "--", &command]);
    assert_eq!((code, &results[..]), (1, ""), "{said}");
    assert_says(&said, &["cannot start", "orphan", &left(10), "consumers keep failing"]);
}

#[test]
fn a_run_whose_reader_goes_away_ends_quietly() {
    let folder = Folder::new();
    let input = folder.file("input", &numbers(200_000));
    for arguments in [&["--input", &input][..], &["--input", &input, "--", "echo", "{}"]] {
        let run = start_and_read_one_line("coordinator", &folder.socket(), arguments);
        let children = children_of(run.0.id());
        assert_eq!(end_of(run), (Some(141), String::new()), "{arguments:?}");
        assert!(children.iter().all(|child| !is_alive(*child)), "a child outlived the run");
        folder.assert_clean();
    }
}

#[test]
fn a_default_run_whose_reader_goes_away_ends_quietly() {
    let folder = Folder::new();
    let run = start_and_read_one_line("coordinator", &folder.socket(), &["--count", "100000", "--pause", "none"]);
    assert_eq!(end_of(run), (Some(141), String::new()));
    folder.assert_clean();
}

#[test]
fn a_consumer_whose_reader_goes_away_ends_quietly_and_gives_back_what_it_has_not_printed() {
    let queue = Queue::serve(&[]);
    let folder = Folder::new();
    let input = folder.file("input", &numbers(100_000));
    let producer = queue.client("producer", &["--input", &input]);
    let consumer = start_and_read_one_line("consumer", queue.socket(), &[]);
    let (code, said) = end_of(consumer);
    let greeting = format!("consumer: connected to the coordinator (pid {}) at {}\n", queue.pid(), queue.socket().display());
    assert_eq!((code, said), (Some(141), greeting));
    assert_eq!(producer.finish().0, 0);
    let status = queue.wait_until("the consumer's end", |status| status.consumers == 0);
    assert!((status.held, status.dead) == (0, 0) && status.ready > 0, "all was printed to nobody");
    let rest = Process::start("consumer", queue.socket(), &[]);
    queue.wait_until("the rest", |status| (status.acknowledged, status.ready, status.held) == (100_000, 0, 0));
    eventually("each of these once", || (rest.stdout().lines().count() as u64 == 100_000 - status.acknowledged).then_some(()));
}

#[test]
fn a_full_disk_ends_a_run_with_its_cause_and_the_items_left_counted() {
    let folder = Folder::new();
    // One item: of several, the last might not have come yet. Its result is the last thing to happen: nothing else wakes the run.
    let input = folder.file("input", "1\n");
    for _ in 0..10 {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" --input \"$1\" > /dev/full"]).arg(program("coordinator")).arg(&input);
        let (code, _, said) = Process::spawn(command, &folder.socket()).finish();
        assert_eq!(code, 1, "{said}");
        assert_says(&said, &["cannot write to stdout", "No space left", &left(1)]);
        folder.assert_clean();
    }
}

#[test]
fn a_run_whose_reader_was_gone_before_its_only_result_ends_quietly() {
    let folder = Folder::new();
    for _ in 0..10 {
        let mut command = Command::new(program("coordinator"));
        command.args(["--input", "-"]).env("PROCQ_SOCKET", folder.socket());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut run = Unread(command.spawn().expect("a program to start"));
        drop(run.0.stdout.take());
        run.0.stdin.take().expect("a pipe").write_all(b"1\n").expect("a run that reads");
        assert_eq!(end_of(run), (Some(141), String::new()));
        folder.assert_clean();
    }
}

#[test]
fn a_file_for_dead_letters_that_cannot_be_written_is_refused_before_anything_is_started() {
    let folder = Folder::new();
    let input = folder.file("input", &numbers(5));
    let (code, results, said) = folder.run(&["--input", &input, "--dead-letters", "/no/such/folder/dead"]);
    assert_eq!((code, &results[..], said.lines().count()), (1, "", 1), "{said}");
    assert_says(&said, &["cannot write dead letters to /no/such/folder/dead"]);
    folder.assert_untouched();
}

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error_with_words_that_help() {
    let folder = Folder::new();
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("coordinator", &["--capacity", "0"], &["'0' for '--capacity <ITEMS>'", "not in 1.."]),
        ("coordinator", &["serve", "--capacity", "0"], &["'0' for '--capacity <ITEMS>'"]),
        (
            "coordinator",
            &["--capacity-bytes", "1MiB", "--max-item", "2MiB"],
            &["--max-item 2097152 does not fit", "--capacity-bytes 2097348"],
        ),
        ("coordinator", &["serve", "--capacity-bytes", "1MiB", "--max-item", "2MiB"], &["give --capacity-bytes 2097348 or more"]),
        ("coordinator", &["--capacity-bytes", "100"], &["holds no item", "196 bytes"]),
        ("coordinator", &["--max-item", "2GiB", "--capacity-bytes", "4GiB"], &["over the limit of 1073741824 bytes"]),
        ("coordinator", &["--max-item", "5Q"], &["'5Q' for '--max-item <SIZE>'"]),
        ("coordinator", &["--", "true"], &["--input FILE or --input -"]),
        ("coordinator", &["--inptu", "x"], &["'--inptu'", "'--input'"]),
        ("coordinator", &["--input"], &["a value is required for '--input <FILE>'"]),
        ("coordinator", &["--input", "x", "--count", "3"], &["--count is for the default run, and there is an --input"]),
        ("coordinator", &["--input", "x", "--format", "xml"], &["'xml'", "lines, nul, json"]),
        ("coordinator", &["--consumers", "0"], &["'0' for '--consumers <N>'"]),
        ("coordinator", &["--retry-delay", "5s..1s"], &["write the shorter first"]),
        ("coordinator", &["--grace", "5"], &["time unit needed, for example 5sec"]),
        ("coordinator", &["serve", "--", "true"], &["unexpected argument 'true'"]),
        ("coordinator", &["statsu"], &["'statsu'"]),
        ("producer", &["--input", "x", "--count", "3"], &["--count is for random numbers, and there is an --input"]),
        ("producer", &["--pause", "soon"], &["'soon' for '--pause <DUR>'"]),
        ("producer", &["extra"], &["unexpected argument 'extra'"]),
        ("consumer", &["true"], &["unexpected argument 'true'", "[-- <CMD>...]"]),
        ("consumer", &["--bogus"], &["unexpected argument '--bogus'"]),
    ];
    for (program, arguments, words) in cases {
        if arguments[0] == "--" && engine() == Engine::Nats {
            // One that takes part in the work of other machines.
            continue;
        }
        let (code, stdout, said) = Process::start(program, &folder.socket(), arguments).finish();
        assert_eq!((code, &stdout[..]), (2, ""), "{program} {arguments:?}: {said}");
        assert_says(&said, words);
    }
    folder.assert_untouched();
}

#[test]
fn a_coordinator_of_another_version_is_told_of_once_and_by_the_right_name() {
    let folder = Folder::new();
    let socket = folder.0.path().join("other.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("a socket");
    let producer = Process::start("producer", &socket, &["--count", "1"]);
    let (mut stream, _) = eventually("a client", || listener.accept().ok());
    let welcome = Message::Welcome {
        version: 99,
        pid: 1,
        item_bytes_max: 1,
        position: Position(0),
        announce_from: 1,
        checksum: None,
        lease_ms: None,
    };
    let mut frame = Vec::new();
    welcome.encode(0, &mut frame);
    stream.write_all(&frame).expect("a client that reads");
    let (code, _, said) = producer.finish();
    assert_eq!(code, 1);
    // The words serve both sides: here it is not the client that speaks 99.
    assert!(said.contains("version 99") && said.contains("version 1") && !said.contains("client speaks protocol version 99"), "{said}");
    assert_eq!(said.matches("99").count(), 1, "{said}");
}

#[test]
fn what_the_system_says_is_said_once() {
    let (code, _, said) = Process::start("coordinator", Path::new("/no/such/folder/q.sock"), &["serve"]).finish();
    assert_eq!((code, said.matches("No such file or directory").count()), (1, 1), "{said}");
}
