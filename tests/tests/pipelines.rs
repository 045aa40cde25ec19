//! Inputs through consumers to results: what goes in comes out, whatever the shape of the run.

use std::process::Command;

use tests::engine::{first_item, tells_of_item};
use tests::{Process, Queue};

/// Runs the coordinator with `input` on its stdin.
fn run(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = Process::start("coordinator", &folder.path().join("q.sock"), arguments);
    coordinator.write(input);
    coordinator.close_stdin();
    let ended = coordinator.finish();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left beside the socket");
    ended
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn numbered(count: u32) -> String {
    (0..count).map(|n| format!("line {n}\n")).collect()
}

#[test]
fn lines_in_are_lines_out() {
    let lines = numbered(50_000) + "\n  spaces and \t tabs \nlast without end";
    let (code, stdout, stderr) = run(&["--input", "-", "--consumers", "3"], lines.as_bytes());
    assert_eq!((code, &stderr[..]), (0, ""));
    assert_eq!(sorted(&stdout), sorted(&lines));
}

#[test]
fn one_consumer_keeps_the_order_of_one_input() {
    let lines = numbered(20_000);
    let (_, stdout, _) = run(&["--input", "-", "--consumers", "1"], lines.as_bytes());
    assert_eq!(stdout, lines);
}

#[test]
fn nul_separated_items_come_out_nul_separated() {
    let (code, stdout, _) = run(&["--input", "-", "--format", "nul", "--consumers", "1"], b"a\nb\0c\0");
    assert_eq!((code, &stdout[..]), (0, "a\nb\0c\0"));
}

#[test]
fn an_empty_input_is_a_run_without_items() {
    assert_eq!(run(&["--input", "-"], b""), (0, String::new(), String::new()));
}

#[test]
fn several_inputs_are_several_producers() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["one", "two", "three"].map(|name| folder.path().join(name));
    for (number, file) in files.iter().enumerate() {
        let lines: String = (0..1000).map(|n| format!("{number} {n}\n")).collect();
        std::fs::write(file, lines).unwrap();
    }
    let inputs: Vec<&str> = files.iter().flat_map(|file| ["--input", file.to_str().unwrap()]).collect();
    let (code, stdout, _) = run(&[&inputs[..], &["--consumers", "1"]].concat(), b"");
    assert_eq!((code, stdout.lines().count()), (0, 3000));
    for number in 0..3 {
        let of_one: Vec<String> = stdout.lines().filter(|line| line.starts_with(&format!("{number} "))).map(String::from).collect();
        assert_eq!(of_one, (0..1000).map(|n| format!("{number} {n}")).collect::<Vec<_>>(), "one producer's items keep their order");
    }
}

#[test]
fn a_command_gets_each_item_as_an_argument_and_its_output_is_the_result() {
    let (code, stdout, stderr) = run(&["--input", "-", "--", "printf", "<%s|%s>\\n", "{}", "x{}y"], b"a b\n$HOME\n");
    assert_eq!((code, &stderr[..]), (0, ""));
    assert_eq!(sorted(&stdout), ["<$HOME|x$HOMEy>", "<a b|xa by>"]);
}

#[test]
fn a_command_without_a_place_for_the_item_gets_it_on_stdin() {
    let large = "x".repeat(300_000);
    let (code, stdout, _) = run(&["--input", "-", "--", "wc", "-c"], format!("{large}\nabc\n").as_bytes());
    assert_eq!((code, sorted(&stdout)), (0, vec!["3", "300000"]));
}

#[test]
fn a_command_that_reads_nothing_of_a_large_item_is_no_error() {
    let (code, stdout, _) = run(&["--input", "-", "--", "echo", "ignored it"], format!("{}\n", "x".repeat(300_000)).as_bytes());
    assert_eq!((code, &stdout[..]), (0, "ignored it\n"));
}

#[test]
fn a_command_knows_which_item_and_attempt_it_is() {
    let shell = "echo $PROCQ_ITEM_ID $PROCQ_ATTEMPT; test $PROCQ_ATTEMPT = 2";
    let (code, stdout, _) = run(&["--input", "-", "--retry-delay", "1ms", "--", "sh", "-c", shell, "{}"], b"a\nb\n");
    let mut ids: Vec<u64> =
        stdout.lines().map(|line| line.strip_suffix(" 2").expect("a result of the second attempt").parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!((code, ids.len(), ids[0]), (0, 2, first_item()), "what the failed attempts printed is not a result");
    assert!(ids[0] < ids[1]);
}

#[test]
fn what_a_command_leaves_running_is_not_waited_for() {
    let (code, stdout, _) = run(&["--input", "-", "--", "sh", "-c", "sleep 1000 2>/dev/null & echo $!", "{}"], b"a\n");
    assert_eq!(code, 0);
    let left: u32 = stdout.trim().parse().unwrap();
    assert!(tests::is_alive(left));
    tests::signal(left, rustix::process::Signal::KILL);
}

#[test]
fn exit_codes_of_commands_decide_what_becomes_of_their_items() {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.jsonl");
    let shell = r#"case {} in
        bad) exit 65;;
        later) test $PROCQ_ATTEMPT = 3 && echo later done || exit 75;;
        killed) kill -9 $$;;
        fails) exit 7;;
        good) echo good done;;
    esac"#;
    let options = ["--input", "-", "--max-attempts", "2", "--retry-delay", "1ms..2ms", "--dead-letters", dead.to_str().unwrap()];
    let input = b"bad\nlater\nkilled\nfails\ngood\n";
    let (code, stdout, stderr) = run(&[&options[..], &["--", "sh", "-c", shell]].concat(), input);
    assert_eq!((code, sorted(&stdout)), (3, vec!["good done", "later done"]), "{stderr}");
    assert!(stderr.contains("3 items are in the dead letters"), "{stderr}");
    let mut letters: Vec<(String, u64, String)> = std::fs::read_to_string(&dead)
        .unwrap()
        .lines()
        .map(|line| {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| letter[field].as_str().unwrap().to_string();
            (text("item"), letter["attempts"].as_u64().unwrap(), text("cause"))
        })
        .collect();
    letters.sort();
    let expected =
        [("bad", 1, "sh rejected it (exit status 65)"), ("fails", 2, "sh: exit status 7"), ("killed", 2, "sh: ended by signal 9")];
    assert_eq!(letters, expected.map(|(item, attempts, cause)| (item.into(), attempts, cause.into())));
}

#[test]
fn an_item_that_names_no_program_is_a_dead_letter_where_items_are_programs() {
    let (code, _, stderr) = run(&["--input", "-", "--consumers", "1", "--", "{}"], b"true\nno-such-program\ntrue\n");
    assert_eq!(code, 3, "{stderr}");
    assert!(tells_of_item(&stderr, 1, "after 1 attempt: {}: cannot be started"), "{stderr}");
}

#[test]
fn an_item_that_no_argument_can_hold_is_a_dead_letter_with_advice() {
    let (code, _, stderr) = run(&["--input", "-", "--format", "lines", "--", "echo", "{}"], b"a\0b\n");
    assert_eq!(code, 3);
    assert!(stderr.contains("holds a NUL byte") && stderr.contains("leave out {}"), "{stderr}");
}

#[test]
fn a_command_that_prints_too_much_fails_its_item() {
    let arguments = ["--input", "-", "--max-item", "1KiB", "--max-attempts", "1", "--", "sh", "-c", "yes; echo {}"];
    let (code, stdout, stderr) = run(&arguments, b"a\n");
    assert_eq!((code, &stdout[..]), (3, ""));
    assert!(stderr.contains("printed more than 1025 bytes"), "{stderr}");
}

#[test]
fn a_command_can_put_more_items_into_the_queue_that_runs_it() {
    let producer = tests::program("producer");
    let shell = format!("echo {{}}; test {{}} = more && printf 'x\\ny\\n' | {} --input - 2>/dev/null; true", producer.display());
    let (code, stdout, stderr) = run(&["--input", "-", "--", "sh", "-c", &shell], b"more\n");
    assert_eq!((code, sorted(&stdout)), (0, vec!["more", "x", "y"]), "{stderr}");
}

#[test]
fn serve_producer_and_consumer_by_hand_need_nothing_but_the_default_socket() {
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(tests::program(name));
        command.args(arguments).env("XDG_RUNTIME_DIR", folder.path());
        Process::spawn_plain(command)
    };
    let input = folder.path().join("in");
    std::fs::write(&input, numbered(1000)).unwrap();
    let mut coordinator = start("coordinator", &["serve", "--expect-producers", "1"]);
    coordinator.wait_for_stderr("procq/default.sock");
    let (code, _, stderr) = start("producer", &["--input", input.to_str().unwrap()]).finish();
    assert_eq!((code, stderr.lines().count()), (0, 1), "{stderr}");
    assert!(stderr.starts_with("producer: connected to the coordinator (pid "), "{stderr}");
    let (code, stdout, stderr) = start("consumer", &[]).finish();
    assert_eq!((code, stdout), (0, numbered(1000)), "{stderr}");
    assert_eq!(coordinator.wait(), 0);
}

#[test]
fn results_of_consumers_that_others_started_come_out_of_the_coordinator() {
    let queue = Queue::serve(&["--expect-producers", "1"]);
    let mut producer = queue.client("producer", &["--input", "-"]);
    producer.write(b"a\nb\n");
    assert_eq!(producer.finish().0, 0);
    let (code, stdout, _) = queue.client("consumer", &["--", "echo", "did", "{}"]).finish();
    assert_eq!((code, &stdout[..]), (0, ""));
    let (code, stdout, _, _folder) = queue.finish();
    assert_eq!((code, sorted(&stdout)), (0, vec!["did a", "did b"]));
}

#[test]
fn status_shows_the_queue_in_words_and_in_json() {
    let queue = Queue::serve(&["--capacity", "10"]);
    let mut producer = queue.client("producer", &["--input", "-"]);
    producer.write(b"a\nb\n");
    queue.wait_until("two items", |status| status.ready == 2);
    let (code, words, _) = queue.client("coordinator", &["status"]).finish();
    assert_eq!(code, 0);
    assert!(words.contains("2 ready, 0 delayed, 0 held") && words.contains("2 of 10 items (20%)"), "{words}");
    let (_, json, _) = queue.client("coordinator", &["status", "--json"]).finish();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["version"].as_u64(), json["ready"].as_u64(), json["phase"].as_str()), (Some(1), Some(2), Some("running")));
}
