//! Commands that stay up: `--worker`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::status::{ClientStatus, Work};
use common::{Control, Producer};
use rustix::process::Signal;
use tests::engine::{first_item, left, tells_of_item};
use tests::{Process, Queue, eventually, is_alive, program};

/// Echoes each line.
const ECHO: &str = "while IFS= read -r item; do printf '%s\\n' \"$item\"; done";

/// Runs the coordinator with `input` on its stdin and a shell as its worker.
fn run(options: &[&str], shell: &str, input: &[u8]) -> (i32, String, String) {
    run_command(options, &["sh", "-c", shell], input)
}

fn run_command(options: &[&str], command: &[&str], input: &[u8]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = start(folder.path(), options, command);
    coordinator.write(input);
    coordinator.close_stdin();
    coordinator.finish()
}

fn start(folder: &Path, options: &[&str], command: &[&str]) -> Process {
    let arguments = [&["--input", "-", "--worker"], options, &["--"], command].concat();
    Process::start("coordinator", &folder.join("q.sock"), &arguments)
}

fn numbered(count: u32) -> String {
    (0..count).map(|n| format!("line {n}\n")).collect()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// A job log's lines by item.
fn attempts(joblog: &Path) -> BTreeMap<u64, Vec<serde_json::Value>> {
    let mut attempts: BTreeMap<u64, Vec<serde_json::Value>> = BTreeMap::new();
    for line in std::fs::read_to_string(joblog).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        attempts.entry(line["id"].as_u64().unwrap()).or_default().push(line);
    }
    attempts
}

#[test]
fn each_item_is_a_line_and_each_answer_a_result_in_order_from_one_process() {
    let shell = "while IFS= read -r item; do printf '%s <%s>\\n' $$ \"$item\"; done";
    let lines = numbered(3000) + "\n  spaces and \t tabs \n";
    let (code, stdout, stderr) = run(&["--consumers", "1"], shell, lines.as_bytes());
    assert_eq!((code, &stderr[..]), (0, ""));
    let pid = stdout.split(' ').next().unwrap();
    let expected: String = lines.lines().map(|line| format!("{pid} <{line}>\n")).collect();
    assert_eq!(stdout, expected);
}

#[test]
fn each_consumer_has_its_worker_and_together_they_do_each_item_once() {
    let lines = numbered(5000);
    let (code, stdout, stderr) = run(&["--consumers", "3"], ECHO, lines.as_bytes());
    assert_eq!((code, &stderr[..]), (0, ""));
    assert_eq!(sorted(&stdout), sorted(&lines));
}

#[test]
fn one_quick_worker_keeps_the_order_of_one_input() {
    let lines = numbered(100_000);
    let (code, stdout, stderr) = run_command(&["--consumers", "1"], &[program("echo_worker").to_str().unwrap()], lines.as_bytes());
    assert_eq!((code, &stderr[..]), (0, ""));
    assert!(stdout == lines, "{:?}", stdout.lines().zip(lines.lines()).find(|(came, expected)| came != expected));
}

#[test]
fn with_nul_items_and_answers_may_hold_lines() {
    let shell = "while IFS= read -r -d '' item; do printf '<%s>\\0' \"$item\"; done";
    let (code, stdout, stderr) = run_command(&["--format", "nul", "--consumers", "1"], &["bash", "-c", shell], b"a\nb\0\0c\0");
    assert_eq!((code, &stdout[..], &stderr[..]), (0, "<a\nb>\0<>\0<c>\0", ""));
}

#[test]
fn large_items_and_answers_pass_pipes_that_hold_neither() {
    let large = "x".repeat(1_000_000);
    let lines: String = (0..20).map(|n| format!("{n}{large}\n")).collect();
    let (code, stdout, stderr) = run_command(&["--consumers", "1"], &[program("echo_worker").to_str().unwrap()], lines.as_bytes());
    assert_eq!((code, &stderr[..]), (0, ""));
    assert!(stdout == lines);
}

#[test]
fn a_worker_knows_its_queue_and_consumer_and_no_single_item() {
    let shell = r#"read -r item; echo "$PROCQ_SOCKET $PROCQ_CONSUMER $PPID ${PROCQ_ITEM_ID-none} ${PROCQ_ATTEMPT-none}"; read -r end"#;
    let (code, stdout, _) = run(&["--consumers", "1"], shell, b"a\n");
    let words: Vec<&str> = stdout.split_whitespace().collect();
    assert!(code == 0 && words[0].ends_with("/q.sock") && words[1] == words[2], "{stdout}");
    assert_eq!(words[3..], ["none", "none"]);
}

#[test]
fn a_worker_that_dies_fails_the_item_that_it_was_at_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (dead, joblog) = (folder.path().join("dead.jsonl"), folder.path().join("jobs.jsonl"));
    let shell = "while read -r item; do case $item in bad*) kill -9 $$;; esac; echo $item; done";
    let mut lines: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    lines[0] = "bad first".into();
    lines[1500] = "bad middle".into();
    lines[2999] = "bad last".into();
    let input = lines.join("\n") + "\n";
    let options = ["--consumers", "2", "--max-attempts", "3", "--retry-delay", "1ms"];
    let files = ["--dead-letters", dead.to_str().unwrap(), "--joblog", joblog.to_str().unwrap()];
    let (code, stdout, stderr) = run(&[&options[..], &files].concat(), shell, input.as_bytes());
    assert_eq!(code, 3, "{stderr}");
    let good = lines.iter().filter(|line| !line.starts_with("bad")).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert_eq!(sorted(&stdout), sorted(&good));
    let letters = std::fs::read_to_string(&dead).unwrap();
    assert_eq!(letters.lines().count(), 3, "{letters}");
    assert!(letters.lines().all(|letter| letter.contains(r#""attempts":3,"cause":"sh: ended by signal 9","item":"bad "#)), "{letters}");
    // Numbers grow in the order of the input, whatever they are.
    for (line, attempts) in attempts(&joblog).into_values().enumerate() {
        let outcomes: Vec<&str> = attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect();
        if [0, 1500, 2999].contains(&line) {
            assert_eq!(outcomes, ["failed"; 3]);
            assert!(attempts.iter().all(|attempt| attempt["signal"] == 9 && attempt["exit"].is_null() && attempt["bytes"] == 0));
        } else {
            assert_eq!((outcomes, &attempts[0]["attempt"]), (vec!["done"], &1.into()), "line {line}");
        }
    }
}

#[test]
fn a_worker_that_is_killed_by_others_is_started_again_and_its_item_done_at_the_next_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let shell = format!("while read -r item; do echo at $$ >&2; until test -e {}; do sleep 0.01; done; echo $item; done", gate.display());
    let mut coordinator = start(folder.path(), &["--consumers", "1", "--retry-delay", "1ms"], &["sh", "-c", &shell]);
    coordinator.write(b"a\nb\n");
    coordinator.wait_for_stderr(&format!("item {}: at ", first_item()));
    let stderr = coordinator.stderr();
    let pid: u32 = stderr.split(": at ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    tests::signal(pid, Signal::KILL);
    coordinator.wait_for_stderr("ended by signal 9; starting another");
    std::fs::write(&gate, "").unwrap();
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, sorted(&stdout)), (0, vec!["a", "b"]), "{stderr}");
}

#[test]
fn a_worker_that_ends_now_and_then_by_itself_is_no_error_of_the_run() {
    let shell = "for n in 1 2 3; do read -r item || exit; echo $item; done; exit 0";
    let (code, stdout, stderr) = run(&["--consumers", "1", "--retry-delay", "1ms"], shell, numbered(20).as_bytes());
    assert_eq!((code, sorted(&stdout)), (0, sorted(&numbered(20))), "{stderr}");
}

/// A consumer whose worker waits at item `stuck`, having more items given to it behind that one.
fn stuck_consumer(queue: &Queue) -> (Process, u32) {
    let shell = "while read -r item; do test $item = stuck && echo at $$ >&2 && sleep 1000; echo $item; done";
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put_all([&b"one"[..], b"stuck", b"three", b"four", b"five"]).unwrap();
    producer.finish().unwrap();
    let consumer = queue.client("consumer", &["--prefetch", "5", "--worker", "--", "sh", "-c", shell]);
    let said_by_worker = || consumer.stderr().rsplit_once(": at ")?.1.strip_suffix('\n')?.parse().ok();
    let worker = eventually("the worker at `stuck`", said_by_worker);
    queue.wait_until("all held or done", |status| status.ready == 0 && status.held == 4);
    (consumer, worker)
}

#[test]
fn what_a_killed_consumer_had_given_to_its_worker_comes_again_to_others_and_the_worker_ends() {
    let queue = Queue::serve(&["--expect-producers", "1"]);
    let (mut consumer, worker) = stuck_consumer(&queue);
    consumer.kill();
    eventually("the worker's end", || (!is_alive(worker)).then_some(()));
    let (code, _, stderr) = queue.client("consumer", &["--worker", "--", "sh", "-c", ECHO]).finish();
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr, _folder) = queue.finish();
    assert_eq!((code, &stdout[..]), (0, "one\nstuck\nthree\nfour\nfive\n"), "{stderr}");
}

#[test]
fn where_one_failure_is_the_last_a_killed_consumer_costs_the_one_item_that_was_begun() {
    let queue = Queue::serve(&["--expect-producers", "1", "--max-attempts", "1"]);
    let (mut consumer, _) = stuck_consumer(&queue);
    consumer.kill();
    let (code, _, stderr) = queue.client("consumer", &["--worker", "--", "sh", "-c", ECHO]).finish();
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr, _folder) = queue.finish();
    assert_eq!((code, &stdout[..]), (3, "one\nthree\nfour\nfive\n"), "{stderr}");
    assert!(tells_of_item(&stderr, 1, "after 1 attempt"), "{stderr}");
}

#[test]
fn a_consumer_of_a_run_that_is_killed_takes_its_worker_with_it_and_another_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let shell =
        format!("while read -r item; do echo at $$ $PPID. >&2; until test -e {}; do sleep 0.01; done; echo $item; done", gate.display());
    let mut coordinator = start(folder.path(), &["--consumers", "1"], &["sh", "-c", &shell]);
    coordinator.write(b"a\nb\nc\n");
    coordinator.wait_for_stderr(".\n");
    let stderr = coordinator.stderr();
    let mut pids = stderr.split("at ").nth(1).unwrap().split(['.', ' ']).map_while(|pid| pid.parse::<u32>().ok());
    let (worker, consumer) = (pids.next().unwrap(), pids.next().unwrap());
    tests::signal(consumer, Signal::KILL);
    eventually("the worker's end", || (!is_alive(worker)).then_some(()));
    std::fs::write(&gate, "").unwrap();
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, sorted(&stdout)), (0, vec!["a", "b", "c"]), "{stderr}");
}

#[test]
fn an_answer_that_is_too_long_or_one_too_many_fails_its_item() {
    let options = ["--consumers", "1", "--max-item", "1KiB", "--max-attempts", "1"];
    let cases = [
        ("while read -r item; do yes | tr -d '\\n'; done", "printed more than 1025 bytes"),
        ("while read -r item; do printf '%s' $(seq 1000); echo; done", "printed more than 1025 bytes"),
        ("while read -r item; do printf '1\\n2\\n'; done", "printed more than one line for an item"),
        ("read -r item; exec >&-; sleep 1000", "it closed its stdout"),
        ("read -r item; exit 7", "exit status 7"),
        ("read -r item; exit 0", "exit status 0"),
    ];
    for (shell, cause) in cases {
        let (code, stdout, stderr) = run(&options, shell, b"a\n");
        assert_eq!((code, &stdout[..]), (3, ""), "{shell}: {stderr}");
        assert!(
            stderr.contains(&format!("dead letter: item {} after 1 attempt: sh: ", first_item())) && stderr.contains(cause),
            "{shell}: {stderr}"
        );
    }
}

#[test]
fn the_largest_answer_is_a_result() {
    let (code, stdout, stderr) = run(&["--max-item", "1KiB"], "read -r item; printf '%01024d\\n' 7; read -r end", b"a\n");
    assert_eq!((code, stdout.len()), (0, 1025), "{stderr}");
}

#[test]
fn a_worker_that_closes_its_stdin_gets_no_more_items_and_another_goes_on() {
    let shell = "read -r item; echo $item; exec <&-; exec sleep 1000";
    let (code, stdout, stderr) = run(&["--consumers", "1", "--retry-delay", "1ms"], shell, b"a\nb\n");
    assert_eq!((code, sorted(&stdout)), (0, vec!["a", "b"]), "{stderr}");
    assert!(stderr.contains("it closed its stdin; starting another"), "{stderr}");
}

#[test]
fn what_lies_unread_before_a_worker_that_closes_its_stdin_goes_to_another() {
    // Time enough for the next item to lie there.
    let shell = "read -r item; echo $item; sleep 0.3; exec <&-; exec sleep 1000";
    let (code, stdout, stderr) = run(&["--consumers", "1", "--retry-delay", "1ms"], shell, b"a\nb\n");
    assert_eq!((code, sorted(&stdout)), (0, vec!["a", "b"]), "{stderr}");
    assert!(stderr.contains("it closed its stdin; starting another"), "{stderr}");
}

#[test]
fn one_that_closes_its_stdin_behind_an_item_has_time_for_that() {
    let shell = "read -r item; exec <&-; sleep 0.5; echo $item $PPID; exec sleep 1000";
    let (code, stdout, stderr) = run(&["--consumers", "1", "--max-attempts", "1"], shell, b"a\n");
    assert!(code == 0 && stdout.starts_with("a ") && !stderr.contains("it closed its stdin"), "{code} {stdout} {stderr}");
}

#[test]
fn one_that_prints_without_an_item_is_started_again_but_not_for_ever() {
    let queue = Queue::serve(&[]);
    let (code, _, stderr) = queue.client("consumer", &["--worker", "--", "sh", "-c", "echo ready; exec cat"]).finish();
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(stderr.matches("it printed something while it had no item; starting another").count(), 4, "{stderr}");
    assert!(stderr.contains("workers keep ending without an answer, so this was the last"), "{stderr}");
}

#[test]
fn a_worker_that_cannot_work_ends_the_run_with_its_cause_and_not_with_a_dead_letter_of_each_item() {
    let options = ["--consumers", "1", "--max-attempts", "1"];
    let shell = "echo 'no module named torch' >&2; exit 3";
    let (code, stdout, stderr) = run(&options, shell, numbered(100_000).as_bytes());
    assert_eq!((code, &stdout[..]), (1, ""), "{stderr}");
    assert!(stderr.contains("no module named torch") && stderr.contains("exit status 3; workers keep ending"), "{stderr}");
    assert!(stderr.contains("has given up, and another would do no better, so the run ends"), "{stderr}");
    assert_eq!(stderr.matches("no module named torch").count(), 5, "it is not said again and again: {stderr}");
}

#[test]
fn a_program_that_cannot_be_started_is_named_at_once() {
    let (code, _, stderr) = run_command(&[], &["no-such-worker"], b"");
    assert!(code == 1 && stderr.contains("there is no command no-such-worker in PATH"), "{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, _, stderr) = run_command(&["--consumers", "1"], &[script.to_str().unwrap()], b"a\n");
    assert!(code == 1 && stderr.contains("cannot start ") && stderr.contains(&left(1)), "{stderr}");
}

#[test]
fn an_item_that_holds_what_ends_an_item_is_a_dead_letter_with_advice() {
    let queue = Queue::serve(&["--expect-producers", "1"]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put_all([&b"a"[..], b"b\nc", b"d"]).unwrap();
    producer.finish().unwrap();
    assert_eq!(queue.client("consumer", &["--worker", "--", "sh", "-c", ECHO]).finish().0, 0);
    let (code, stdout, stderr, _folder) = queue.finish();
    assert_eq!((code, &stdout[..]), (3, "a\nd\n"), "{stderr}");
    assert!(tells_of_item(&stderr, 1, "after 1 attempt: sh: the item holds a line end") && stderr.contains("--format nul"), "{stderr}");
}

#[test]
fn what_a_worker_says_on_stderr_comes_with_the_item_that_it_is_at() {
    let shell = "echo up >&2; while read -r item; do echo before $item >&2; echo $item; echo after $item >&2; done; printf bye >&2";
    let input: String = (0..200).map(|n| format!("{n}\n")).collect();
    let (code, stdout, stderr) = run(&["--consumers", "1"], shell, input.as_bytes());
    assert_eq!((code, stdout), (0, input));
    let item_that_said = |words: &str| {
        let line = stderr.lines().find_map(|line| line.strip_suffix(&format!(": {words}"))).unwrap_or_else(|| panic!("{words}: {stderr}"));
        line.strip_prefix("item ").and_then(|item| item.parse::<u64>().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let items: Vec<u64> = (0..200).map(|n| item_that_said(&format!("before {n}"))).collect();
    assert!(items[0] == first_item() && items.is_sorted_by(|one, next| one < next), "{items:?}");
    assert_eq!(stderr.lines().filter(|line| line.ends_with("up") || *line == "bye").count(), 2, "{stderr}");
    assert_eq!(stderr.lines().count(), 402, "no line is torn or lost: {stderr}");
}

#[test]
fn a_slow_item_holds_back_no_other_that_another_consumer_could_do() {
    let queue = Queue::serve(&[]);
    let gate = queue.folder().join("gate");
    let shell = format!(
        "while read -r item; do if test $item = slow; then echo at it >&2; until test -e {}; do sleep 0.01; done; fi; echo $item; done",
        gate.display()
    );
    let consumers = [(); 2].map(|()| queue.client("consumer", &["--worker", "--", "sh", "-c", &shell]));
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    (0..3000).for_each(|n: u32| producer.put(n.to_string().as_bytes()).unwrap());
    queue.wait_until("quick ones, so that many are given ahead", |status| status.acknowledged == 3000);
    producer.put(b"slow").unwrap();
    eventually("the slow one at a worker", || consumers.iter().any(|consumer| consumer.stderr().contains("at it")).then_some(()));
    // What comes while nobody can know yet that it is slow may lie behind it in the worker's pipe.
    let control = Control::connect(&queue.endpoint()).unwrap();
    let at_hand = |client: ClientStatus| if let Work::Consumer { at_hand, .. } = client.work { at_hand } else { None };
    let is_slow = || control.clients().unwrap().into_iter().filter_map(at_hand).any(|at_hand| at_hand.for_ms > 100);
    eventually("it takes its time", || is_slow().then_some(()));
    for n in 1..=50 {
        producer.put(b"quick").unwrap();
        queue.wait_until("it is done by the other", |status| status.acknowledged == 3000 + n);
    }
    assert_eq!(queue.status().held, 1);
    std::fs::write(&gate, "").unwrap();
    queue.wait_until("the slow one", |status| status.acknowledged == 3051);
}

#[test]
fn a_worker_that_takes_several_items_before_it_answers_gets_as_many_as_prefetch_says() {
    let shell = "while read -r a && read -r b && read -r c; do printf '%s\\n' $a $b $c; done";
    let (code, stdout, stderr) = run(&["--consumers", "1", "--prefetch", "2"], shell, b"1\n2\n3\n4\n5\n6\n");
    assert_eq!((code, &stdout[..]), (0, "1\n2\n3\n4\n5\n6\n"), "{stderr}");
}

#[test]
fn one_that_answers_only_at_its_inputs_end_is_told_of_and_has_that_end_at_the_first_signal() {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = start(folder.path(), &["--consumers", "1"], &["sort"]);
    coordinator.write(b"a\nb\nc\n");
    coordinator.wait_for_stderr(&format!(
        "sort has not answered item {} for 10s: a worker has to write one line for each, and flush it",
        first_item()
    ));
    coordinator.signal(Signal::TERM);
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, &stdout[..]), (128 + 15, "a\n"), "{stderr}");
    assert!(stderr.contains(&left(2)), "{stderr}");
}

#[test]
fn at_stop_a_worker_may_end_by_itself_and_is_ended_if_it_does_not() {
    let (code, stdout, stderr) = run(&["--consumers", "1"], &format!("{ECHO}; echo saved >&2; exit 4"), b"a\n");
    assert_eq!((code, &stdout[..]), (0, "a\n"), "{stderr}");
    assert!(stderr.contains("saved") && stderr.contains("exit status 4, after its last item"), "{stderr}");
    let begun = Instant::now();
    let stubborn = format!("trap '' TERM; echo $$ >&2; {ECHO}; while :; do sleep 1; done");
    let (code, stdout, stderr) = run(&["--consumers", "1"], &stubborn, b"a\n");
    assert_eq!((code, &stdout[..]), (0, "a\n"), "{stderr}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let pid = stderr.lines().find_map(|line| line.trim_start_matches(&format!("item {}: ", first_item())).parse().ok()).unwrap();
    assert!(!is_alive(pid), "{stderr}");
}

#[test]
fn the_first_signal_lets_it_finish_its_item_and_the_grace_bounds_that() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let shell = format!("while read -r item; do echo begun >&2; until test -e {}; do sleep 0.01; done; echo $item; done", gate.display());
    let mut coordinator = start(folder.path(), &["--consumers", "1", "--grace", "30s"], &["sh", "-c", &shell]);
    coordinator.write(b"first\nsecond\n");
    coordinator.wait_for_stderr("begun");
    coordinator.signal(Signal::TERM);
    coordinator.wait_for_stderr("stopping; waiting up to 30s");
    std::fs::write(&gate, "").unwrap();
    let (code, stdout, stderr) = coordinator.finish();
    assert_eq!((code, &stdout[..]), (128 + 15, "first\n"), "{stderr}");

    let mut coordinator =
        start(folder.path(), &["--consumers", "1", "--grace", "100ms"], &["sh", "-c", "read -r item; echo $$ >&2; sleep 1000"]);
    coordinator.write(b"first\n");
    coordinator.wait_for_stderr(&format!("item {}: ", first_item()));
    let stderr = coordinator.stderr();
    let worker: u32 = stderr.trim().trim_start_matches(&format!("item {}: ", first_item())).parse().unwrap();
    coordinator.signal(Signal::TERM);
    let (code, stdout, _) = coordinator.finish();
    assert_eq!((code, &stdout[..]), (128 + 15, ""));
    eventually("the worker's end", || (!is_alive(worker)).then_some(()));
}

#[test]
fn a_consumer_by_hand_whose_coordinator_dies_ends_its_worker() {
    let mut queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put(b"a").unwrap();
    producer.flush().unwrap();
    let consumer = queue.client("consumer", &["--worker", "--", "sh", "-c", "read -r item; echo at $$ >&2; sleep 1000"]);
    consumer.wait_for_stderr(&format!("item {}: at ", first_item()));
    let stderr = consumer.stderr();
    let worker: u32 = stderr.split(": at ").nth(1).unwrap().trim().parse().unwrap();
    queue.coordinator().kill();
    assert_eq!(consumer.finish().0, 1);
    eventually("the worker's end", || (!is_alive(worker)).then_some(()));
}

#[test]
fn with_a_journal_each_result_is_in_the_file_once_though_the_coordinator_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let [input, journal, output] = ["in", "journal", "out"].map(|name| folder.path().join(name));
    std::fs::write(&input, numbered(20_000)).unwrap();
    let echo = program("echo_worker");
    let mut arguments = vec!["--consumers", "2", "--worker", "--fsync", "never"];
    for (flag, path) in [("--input", &input), ("--journal", &journal), ("--output", &output)] {
        arguments.extend([flag, path.to_str().unwrap()]);
    }
    arguments.extend(["--", echo.to_str().unwrap()]);
    let begin = || Process::start("coordinator", &folder.path().join("q.sock"), &arguments);
    let mut first = begin();
    eventually("some results", || std::fs::metadata(&output).is_ok_and(|meta| meta.len() > 1000).then_some(()));
    first.kill();
    let (code, _, stderr) = begin().finish();
    assert_eq!(code, 0, "{stderr}");
    assert!(sorted(&std::fs::read_to_string(&output).unwrap()) == sorted(&numbered(20_000)));
}

#[test]
fn the_examples_answer_each_item() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples");
    for (program, file, expected) in [("python3", "worker.py", "ab: 195"), ("sh", "worker.sh", "ab: 2"), ("node", "worker.js", "ab: ba")] {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("{file} is not run: there is no {program} here");
            continue;
        }
        let (code, stdout, stderr) = run_command(&[], &[program, folder.join(file).to_str().unwrap()], b"ab\n");
        assert_eq!((code, stdout.trim()), (0, expected), "{stderr}");
        let (code, stdout, stderr) =
            run_command(&["--consumers", "1"], &[program, folder.join(file).to_str().unwrap()], numbered(3000).as_bytes());
        assert_eq!((code, stdout.lines().count()), (0, 3000), "{stderr}");
        assert!(stdout.lines().zip(numbered(3000).lines()).all(|(answer, item)| answer.starts_with(item)));
    }
}

/// What one worker does that only echoes: `cargo test --release -p tests --test worker -- --ignored --nocapture how_fast`.
#[test]
#[ignore = "a measurement, for a release build"]
fn how_fast_one_worker_is() {
    let folder = tempfile::tempdir().unwrap();
    let (input, count) = (folder.path().join("in"), 3_000_000);
    std::fs::write(&input, (0..count).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    for worker in [program("echo_worker").to_str().unwrap(), "cat"] {
        let mut rates: Vec<f64> = (0..5)
            .map(|_| {
                let mut command = Command::new(program("coordinator"));
                command.args(["--input", input.to_str().unwrap(), "--output", "/dev/null", "--consumers", "1", "--worker", "--", worker]);
                let begun = Instant::now();
                let (code, _, stderr) = Process::spawn(command, &folder.path().join("q.sock")).finish();
                assert_eq!(code, 0, "{stderr}");
                f64::from(count) / begun.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_unstable_by(f64::total_cmp);
        println!("{worker}: {:.0} items/s (median of 5; {:.0} to {:.0})", rates[2], rates[0], rates[4]);
        if !cfg!(debug_assertions) {
            assert!(rates[2] > 300_000.0);
        }
    }
}
