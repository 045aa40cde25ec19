//! What is noted of attempts, `--joblog`, and what a run would do, `--dry-run`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::Process;
use tests::engine::{Engine, engine};

fn run_in(folder: &Path, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut coordinator = Process::start("coordinator", &folder.join("q.sock"), arguments);
    // One that refuses its arguments reads nothing.
    if !input.is_empty() {
        coordinator.write(input);
    }
    coordinator.close_stdin();
    coordinator.finish()
}

fn run(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    run_in(tempfile::tempdir().unwrap().path(), arguments, input)
}

fn lines(joblog: &Path) -> Vec<Value> {
    let mut lines: Vec<Value> = std::fs::read_to_string(joblog).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| (line["id"].as_u64(), line["attempt"].as_u64()));
    lines
}

/// The items that a log tells of, in order: their numbers grow in the order of the input, whatever they are.
fn items(lines: &[Value]) -> Vec<u64> {
    let mut ids: Vec<u64> = lines.iter().map(|line| line["id"].as_u64().unwrap()).collect();
    ids.dedup();
    ids
}

#[test]
fn each_attempt_of_a_command_is_a_line_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let joblog = folder.path().join("jobs.jsonl");
    std::fs::write(&joblog, "{\"torn").unwrap();
    let shell = r#"case {} in
        good) echo $$; sleep 0.05;;
        bad) exit 65;;
        later) test $PROCQ_ATTEMPT = 2 || exit 75;;
        killed) kill -9 $$;;
        fails) exit 7;;
    esac"#;
    let options = ["--input", "-", "--max-attempts", "2", "--retry-delay", "1ms", "--joblog", joblog.to_str().unwrap()];
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let (code, stdout, _) =
        run_in(folder.path(), &[&options[..], &["--", "sh", "-c", shell]].concat(), b"good\nbad\nlater\nkilled\nfails\n");
    assert_eq!(code, 3);
    let text = std::fs::read_to_string(&joblog).unwrap();
    std::fs::write(&joblog, text.strip_prefix("{\"torn\n").expect("the torn line is ended")).unwrap();
    let lines = lines(&joblog);
    let items = items(&lines);
    let shown: Vec<(usize, u64, &str, &Value, &Value)> = lines
        .iter()
        .map(|line| {
            let number = |field: &str| line[field].as_u64().unwrap();
            let item = items.iter().position(|id| *id == number("id")).unwrap();
            (item, number("attempt"), line["outcome"].as_str().unwrap(), &line["exit"], &line["signal"])
        })
        .collect();
    let (null, exit) = (&Value::Null, |code: i32| Value::from(code));
    assert_eq!(
        shown,
        [
            (0, 1, "done", &exit(0), null),
            (1, 1, "rejected", &exit(65), null),
            (2, 1, "retry", &exit(75), null),
            (2, 2, "done", &exit(0), null),
            (3, 1, "failed", null, &exit(9)),
            (3, 2, "failed", null, &exit(9)),
            (4, 1, "failed", &exit(7), null),
            (4, 2, "failed", &exit(7), null),
        ]
    );
    let good = &lines[0];
    assert_eq!((good["pid"].to_string() + "\n", good["bytes"].as_u64()), (stdout.clone(), Some(stdout.len() as u64)));
    assert!((before - 1.0..before + 60.0).contains(&good["start"].as_f64().unwrap()), "{good}");
    assert!((0.05..30.0).contains(&good["duration"].as_f64().unwrap()), "{good}");
    assert!(good.get("cause").is_none() && lines[6]["cause"] == "sh: exit status 7");
}

#[test]
fn many_consumers_share_the_file_without_a_torn_line() {
    for worker in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let joblog = folder.path().join("jobs.jsonl");
        let options = ["--input", "-", "--consumers", "4", "--joblog", joblog.to_str().unwrap()];
        let echo = tests::program("echo_worker");
        let command: &[&str] = if worker { &["--worker", "--", echo.to_str().unwrap()] } else { &["--", "true", "{}"] };
        let count = if worker { 20_000 } else { 200 };
        let input: String = (0..count).map(|n| format!("{n}\n")).collect();
        let (code, _, stderr) = run_in(folder.path(), &[&options[..], command].concat(), input.as_bytes());
        assert_eq!(code, 0, "{stderr}");
        let lines = lines(&joblog);
        assert_eq!((lines.len(), items(&lines).len()), (count, count));
    }
}

#[test]
fn a_job_log_that_cannot_be_written_is_an_error() {
    let (code, _, stderr) = run(&["--input", "-", "--joblog", "/no/such/folder/log", "--", "true"], b"");
    assert!(code == 1 && stderr.contains("cannot write the job log /no/such/folder/log"), "{stderr}");
    for command in [&["--", "true"][..], &["--worker", "--", "cat"]] {
        let arguments = [&["--input", "-", "--consumers", "1", "--joblog", "/dev/full"], command].concat();
        let (code, stdout, stderr) = run(&arguments, b"a\n");
        assert_eq!((code, &stdout[..]), (1, ""), "nothing is done that is not noted: {stderr}");
        assert!(stderr.contains("cannot write the job log /dev/full") && stderr.contains("1 item was left"), "{stderr}");
    }
}

#[test]
fn a_command_line_that_lacks_something_is_told_plainly_what() {
    for (arguments, words) in [
        (&["--", "true"][..], "there is a command (true), but no --input: give the items for it"),
        (&["--input", "-", "--worker"], "--worker is about a command, and there is none"),
        (&["--input", "-", "--joblog", "x"], "--joblog is about a command, and there is none"),
        (&["--input", "-", "--dry-run"], "--dry-run is about a command, and there is none"),
    ] {
        if arguments[0] == "--" && engine() == Engine::Nats {
            // One that takes part in the work of other machines.
            continue;
        }
        let (code, stdout, stderr) = run(arguments, b"");
        assert_eq!((code, &stdout[..]), (2, ""));
        assert!(stderr.contains(words), "{stderr}");
    }
    for (arguments, words) in [
        (&["--worker"][..], "--worker needs the worker's command"),
        (&["--joblog", "x"], "--joblog notes the attempts of a command"),
        (&["--format", "nul", "--", "true"], "--format is for items that are printed or given to a --worker"),
    ] {
        let (code, _, stderr) = Process::start("consumer", Path::new("/no/such/socket"), arguments).finish();
        assert!(code == 2 && stderr.contains(words), "{stderr}");
    }
}

#[test]
fn a_dry_run_prints_lines_that_a_shell_runs_as_the_run_would() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["one", "two"].map(|name| folder.path().join(name));
    std::fs::write(&files[0], "a b\nit's\n$HOME\n").unwrap();
    std::fs::write(&files[1], "-n\n\n").unwrap();
    let inputs = ["--input", files[0].to_str().unwrap(), "--input", files[1].to_str().unwrap(), "--dry-run"];
    let (code, stdout, stderr) = run_in(folder.path(), &[&inputs[..], &["--", "printf", "<%s>\\n", "x{}"]].concat(), b"");
    assert_eq!((code, &stderr[..]), (0, ""));
    let expected =
        "printf '<%s>\\n' 'xa b'\nprintf '<%s>\\n' 'xit'\\''s'\nprintf '<%s>\\n' 'x$HOME'\nprintf '<%s>\\n' x-n\nprintf '<%s>\\n' x\n";
    assert_eq!(stdout, expected);
    let pasted = Command::new("sh").args(["-c", &stdout]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(pasted).unwrap(), "<xa b>\n<xit's>\n<x$HOME>\n<x-n>\n<x>\n");
    // Without a place for the item, it is the command's stdin.
    let (_, stdout, _) = run_in(folder.path(), &[&inputs[..], &["--", "wc", "-c"]].concat(), b"");
    let pasted = Command::new("sh").args(["-c", &stdout]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(pasted).unwrap(), "3\n4\n5\n2\n0\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "neither socket nor anything else is made");
}

#[test]
fn a_dry_run_finds_in_its_inputs_what_the_run_would() {
    let bad_json = run(&["--input", "-", "--format", "json", "--dry-run", "--", "echo", "{}"], b"1\n{\n2\n");
    assert_eq!((bad_json.0, &bad_json.1[..]), (1, "echo 1\n"));
    assert!(bad_json.2.contains("line 2 column 1: this is not JSON"), "{}", bad_json.2);
    let nul = run(&["--input", "-", "--dry-run", "--", "echo", "{}"], b"a\0b\nc\n");
    assert_eq!((nul.0, &nul.1[..]), (3, "echo c\n"));
    assert!(nul.2.contains("item 1 of stdin would be a dead letter: the item holds a NUL byte"), "{}", nul.2);
    let missing = run(&["--input", "/no/such/file", "--dry-run", "--", "echo", "{}"], b"");
    assert!(missing.0 == 1 && missing.2.contains("cannot read /no/such/file"), "{}", missing.2);
    let worker = run(&["--input", "-", "--dry-run", "--worker", "--", "sh", "-c", "cat -u"], b"a\n");
    assert_eq!((worker.0, &worker.1[..]), (0, "sh -c 'cat -u'\n"));
}
