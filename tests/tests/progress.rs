//! How a run shows how it gets on: on a terminal, in a log, or not at all.

use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::terminal::Terminal;
use tests::{DEADLINE, Process, children_of, eventually, program, within};

/// A folder with an input of numbers, one a line.
fn input(items: usize) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers");
    std::fs::write(&path, (0..items).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    (folder, path.to_str().unwrap().to_string())
}

fn socket(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("q.sock")
}

/// A run on a terminal; `command` is what a shell does with the item `$1`.
fn run_on(size: (u16, u16), folder: &TempDir, input: &str, command: &str) -> Terminal {
    Terminal::start(size, &socket(folder), "coordinator", &["--input", input, "--consumers", "2", "--", "sh", "-c", command, "sh", "{}"])
}

/// A command that waits until the folder has a file `go`.
fn waiting(folder: &Path, then: &str) -> String {
    format!("while [ ! -e {}/go ]; do sleep 0.01; done; {then}", folder.display())
}

#[test]
fn nothing_is_said_of_it_where_stderr_is_no_terminal() {
    let (folder, input) = input(100);
    let (code, stdout, stderr) = Process::start("coordinator", &socket(&folder), &["--input", &input]).finish();
    assert_eq!((code, stdout.lines().count(), &stderr[..]), (0, 100, ""));
}

#[test]
fn always_means_in_a_log_too_a_line_now_and_then_and_one_at_the_end() {
    let (folder, input) = input(3);
    let command = waiting(folder.path(), "true");
    let arguments = ["--progress", "always", "--input", &input, "--consumers", "1", "--", "sh", "-c", &command];
    let run = Process::start("coordinator", &socket(&folder), &arguments);
    run.wait_for_stderr("coordinator: 0%  0/3  0/s  1 in flight  2 queued\n");
    std::fs::write(folder.path().join("go"), "").unwrap();
    let (code, _, stderr) = run.finish();
    assert_eq!(code, 0);
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("coordinator: 3 done in ") && !stderr.contains('\x1b'), "{stderr}");
}

#[test]
fn on_a_terminal_a_line_shows_how_far_it_is_and_goes_for_a_closing_one() {
    let (folder, input) = input(40);
    let command = waiting(folder.path(), "echo \"result $1\"");
    let mut terminal = run_on((50, 80), &folder, &input, &command);
    let line = terminal.wait_for("0/40");
    assert!(line.starts_with('━') && line.contains("  0%  0/40  ") && line.ends_with("2 in flight  38 queued"), "{line:?}");
    assert!(line.chars().count() < 80);
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(terminal.finish(), 0);
    let rows = terminal.rows();
    assert_eq!(rows.len(), 41, "{rows:#?}");
    assert!(rows[..40].iter().all(|row| row.starts_with("result ")));
    assert!(rows[40].starts_with("coordinator: 40 done in "), "{rows:#?}");
}

#[test]
fn no_line_of_results_or_of_what_commands_say_is_torn_by_it() {
    const ITEMS: usize = 400;
    let (folder, input) = input(ITEMS);
    let mut terminal = run_on((2 * ITEMS as u16 + 20, 80), &folder, &input, "echo \"says $1\" >&2; echo \"result $1\"");
    assert_eq!(terminal.finish(), 0);
    let mut rows = terminal.rows();
    assert!(rows.pop().unwrap().starts_with("coordinator: 400 done in "));
    for word in ["says", "result"] {
        let mut numbers: Vec<usize> = rows.iter().filter_map(|row| row.strip_prefix(word)?.trim().parse().ok()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..ITEMS).collect::<Vec<_>>(), "{word}");
    }
    assert_eq!(rows.len(), 2 * ITEMS, "{rows:#?}");
}

#[test]
fn many_results_a_second_leave_the_line_where_it_is() {
    const ITEMS: usize = 200_000;
    let (folder, input) = input(ITEMS);
    let mut terminal = Terminal::start((30, 80), &socket(&folder), "coordinator", &["--input", &input, "--consumers", "2"]);
    assert_eq!(terminal.finish(), 0);
    let text = String::from_utf8(terminal.bytes()).unwrap();
    // Drawn again behind each piece of results, of which one takes many.
    assert!(text.matches("\x1b[?7l").count() < 2000, "{}", text.matches("\x1b[?7l").count());
    let plain = |line: &str| line.strip_suffix('\r').and_then(|line| line.rsplit(['\r', 'J', 'h', 'l']).next()?.parse::<usize>().ok());
    assert_eq!(text.split('\n').filter_map(plain).count(), ITEMS);
    let rows = terminal.rows();
    assert!(rows.last().unwrap().starts_with("coordinator: 200,000 done in "), "{rows:#?}");
    assert!(rows[..rows.len() - 1].iter().all(|row| row.parse::<usize>().is_ok()), "{rows:#?}");
}

#[test]
fn a_terminal_that_gets_narrow_shows_less_and_nothing_twice() {
    let (folder, input) = input(40);
    let command = waiting(folder.path(), "true");
    let mut terminal = run_on((20, 120), &folder, &input, &command);
    terminal.wait_for("38 queued");
    for columns in [60, 25, 12, 100] {
        terminal.resize((20, columns));
        let fits = |rows: &[String]| rows.len() == 1 && rows[0].contains("0/40") && rows[0].chars().count() < usize::from(columns);
        within(DEADLINE, || format!("a line that fits {columns}: {:#?}", terminal.rows()), || fits(&terminal.rows()).then_some(()));
    }
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(terminal.finish(), 0);
    assert_eq!(terminal.rows().len(), 1, "{:#?}", terminal.rows());
}

#[test]
fn a_terminal_without_colours_or_with_ascii_alone_gets_neither() {
    let (folder, input) = input(4);
    let command = waiting(folder.path(), "false");
    let path = program("coordinator");
    let arguments = [path.to_str().unwrap(), "--max-attempts=1", "--input", &input, "--", "sh", "-c", &command];
    for (variables, ascii, coloured) in [(vec![("LC_ALL", "C")], true, true), (vec![("NO_COLOR", "1")], false, false)] {
        let _ = std::fs::remove_file(folder.path().join("go"));
        let mut terminal = Terminal::spawn((20, 80), &socket(&folder), &variables, &arguments);
        terminal.wait_for("0/4");
        std::fs::write(folder.path().join("go"), "").unwrap();
        assert_eq!(terminal.finish(), 3);
        let text = String::from_utf8(terminal.bytes()).unwrap();
        assert_eq!((text.is_ascii(), text.contains("\x1b[1m")), (ascii, coloured), "{text:?}");
        assert!(text.contains(if ascii { "[ " } else { "─" }), "{text:?}");
    }
}

#[test]
fn results_in_a_file_have_nothing_of_it() {
    let (folder, input) = input(1000);
    let out = folder.path().join("out");
    let command = format!("exec {} --input {input} > {}", program("coordinator").display(), out.display());
    let mut terminal = Terminal::spawn((20, 80), &socket(&folder), &[], &["sh", "-c", &command]);
    assert_eq!(terminal.finish(), 0);
    let mut numbers: Vec<usize> = std::fs::read_to_string(&out).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    let rows = terminal.rows();
    assert!(rows.len() == 1 && rows[0].starts_with("coordinator: 1,000 done in "), "{rows:#?}");
}

#[test]
fn the_default_run_is_left_to_tell_its_own_story() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start((20, 80), &socket(&folder), "coordinator", &["--pause", "none"]);
    assert_eq!(terminal.finish(), 0);
    let rows = terminal.rows();
    assert_eq!((rows.len(), &rows[11][..]), (12, "Done!"));
    assert!(!terminal.bytes().contains(&0x1b));
}

#[test]
fn what_is_said_without_a_line_end_is_left_to_be_seen() {
    let (folder, input) = input(1);
    let command = waiting(folder.path(), "printf 'and so on' >&2");
    let mut terminal = run_on((20, 80), &folder, &input, &format!("printf 'so far' >&2; {command}"));
    terminal.wait_for("so far");
    // After a while, it gets a line of its own.
    terminal.wait_for("0/1");
    assert_eq!(terminal.rows()[0], "so far");
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(terminal.finish(), 0);
    let rows = terminal.rows();
    assert_eq!((rows.len(), &rows[0][..], &rows[1][..]), (3, "so far", "and so on"));
    assert!(rows[2].starts_with("coordinator: 1 done in "));
}

#[test]
fn a_run_that_is_interrupted_leaves_a_closing_line_that_says_what_is_left() {
    let (folder, input) = input(9);
    let command = waiting(folder.path(), "true");
    let mut terminal = run_on((20, 80), &folder, &input, &command);
    terminal.wait_for("2 in flight");
    // As Ctrl-C does, twice.
    terminal.press("\x03");
    terminal.wait_for("stopping; waiting up to 10s");
    terminal.press("\x03");
    assert_eq!(terminal.finish(), 130);
    let rows = terminal.rows();
    assert!(rows.iter().any(|row| row.contains("0 done in ") && row.contains("9 left")), "{rows:#?}");
    assert!(!rows.iter().any(|row| row.contains('%')), "{rows:#?}");
}

#[test]
fn a_run_in_the_background_does_not_write_over_what_its_user_does() {
    let (folder, input) = input(9);
    let command = waiting(folder.path(), "true");
    let script = format!(
        "set -m; {} --input {input} --consumers 2 -- sh -c '{command}' & read line; kill -INT %1; wait",
        program("coordinator").display()
    );
    let mut terminal = Terminal::spawn((20, 80), &socket(&folder), &[], &["bash", "-c", &script]);
    // Its two consumers run their commands, and nothing is drawn.
    let coordinator = eventually("a coordinator with its children", || {
        let all = children_of(terminal.pid());
        all.into_iter().find(|pid| children_of(*pid).iter().filter(|child| !children_of(**child).is_empty()).count() == 2)
    });
    assert_eq!(terminal.rows(), Vec::<String>::new());
    tests::signal(coordinator, Signal::TERM);
    tests::signal(coordinator, Signal::TERM);
    terminal.press("\n");
    terminal.finish();
    assert!(!terminal.rows().iter().any(|row| row.contains('%')), "{:#?}", terminal.rows());
}

#[test]
fn what_a_journal_has_done_before_is_told_apart_from_what_is_done_now() {
    let (folder, input) = input(5);
    let journal = folder.path().join("journal");
    let out = folder.path().join("out");
    let [journal, out] = [&journal, &out].map(|path| path.to_str().unwrap());
    let arguments = ["--progress=always", "--journal", journal, "--output", out, "--input", &input, "--consumers", "1"];
    for closing in ["coordinator: 5 done in ", "coordinator: 0 done in "] {
        let (code, _, stderr) = Process::start("coordinator", &socket(&folder), &arguments).finish();
        assert_eq!(code, 0, "{stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(last.starts_with(closing), "{stderr}");
        assert_eq!(last.ends_with("; 5 done before"), closing.contains('0'), "{stderr}");
    }
}

#[test]
fn a_command_that_has_left_something_behind_which_never_stops_talking_does_not_keep_the_run_from_its_end() {
    let (folder, input) = input(1);
    let pid = folder.path().join("pid");
    // Neither its group nor its environment tells whose it is.
    let command =
        format!("env -i setsid sh -c 'echo $$ > {}; exec yes' >&2 & while [ ! -s {} ]; do sleep 0.01; done", pid.display(), pid.display());
    let mut terminal = run_on((20, 80), &folder, &input, &command);
    assert_eq!(terminal.finish(), 0);
    assert!(terminal.rows().iter().any(|row| row.starts_with("coordinator: 1 done in ")));
    // With us, its pipe has gone, and so it goes.
    let pid: u32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    eventually("the end of what was left behind", || (!tests::is_alive(pid)).then_some(()));
}
