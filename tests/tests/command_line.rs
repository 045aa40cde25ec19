//! What the programs say of themselves: help that fits a screen, the manual, versions, and errors that help on.

use std::path::Path;
use std::process::Command;

use tests::{Process, program};

const PROGRAMS: [&str; 3] = ["coordinator", "producer", "consumer"];

/// A screen. Where a flag too many comes, the one that is wanted least gets `hide_short_help`: it is named in the last lines then.
const HELP_LINES_MAX: usize = 50;
const HELP_COLUMNS_MAX: usize = 100;

fn run(name: &str, arguments: &[&str]) -> (i32, String, String) {
    Process::start(name, Path::new("/no/such/folder/q.sock"), arguments).finish()
}

/// Each program and each of its subcommands, by the words that lead to it.
fn commands() -> Vec<(&'static str, Vec<String>, clap::Command)> {
    fn add(program: &'static str, words: &[String], command: &clap::Command, found: &mut Vec<(&'static str, Vec<String>, clap::Command)>) {
        found.push((program, words.to_vec(), command.clone()));
        for below in command.get_subcommands() {
            add(program, &[words, &[below.get_name().to_string()]].concat(), below, found);
        }
    }
    let mut found = Vec::new();
    add("coordinator", &[], &coordinator::cli::Cli::dressed(), &mut found);
    add("producer", &[], &producer::cli::Cli::dressed(), &mut found);
    add("consumer", &[], &consumer::cli::Cli::dressed(), &mut found);
    assert!(found.len() >= 11, "{}", found.len());
    found
}

#[test]
fn help_fits_a_screen_with_a_line_for_each_flag_that_is_not_named_at_its_end() {
    for (program, words, command) in commands() {
        for flag in ["--help", "-h"] {
            let arguments: Vec<&str> = words.iter().map(String::as_str).chain([flag]).collect();
            let (code, help, said) = run(program, &arguments);
            let what = format!("{program} {arguments:?}\n{help}");
            assert_eq!((code, &said[..]), (0, ""), "{what}");
            assert!(help.lines().count() <= HELP_LINES_MAX, "{} lines: {what}", help.lines().count());
            let long = help.lines().find(|line| line.chars().count() > HELP_COLUMNS_MAX);
            assert_eq!(long, None, "{what}");
            assert!(!help.contains("[env"), "{what}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let Some(long) = argument.get_long() else { continue };
                let is_row = |line: &str| line.trim_start().starts_with(&format!("--{long} ")) && line.starts_with(' ');
                let rows = help.lines().filter(|line| is_row(line)).count();
                let last_lines = help.split("\nAlso: ").nth(1).unwrap_or_else(|| panic!("{what}"));
                let named = last_lines.contains(&format!("--{long}"));
                assert!(if argument.is_hide_short_help_set() { rows == 0 && named } else { rows == 1 }, "--{long}: {what}");
            }
            let entries = help.lines().filter(|line| line.trim_start().starts_with("--") || line.starts_with("  [")).count();
            let broken = help.lines().filter(|line| line.starts_with("            ")).count();
            assert!(broken == 0, "{broken} of {entries} flags take more than a line: {what}");
        }
    }
}

#[test]
fn help_as_a_subcommand_says_all_that_there_is_to_say() {
    let (code, help, _) = run("coordinator", &["help", "serve"]);
    assert_eq!(code, 0);
    for words in ["--spin <DUR>", "pays only where one is free", "--expect-producers <N>", "Started by systemd"] {
        assert!(help.contains(words), "{words:?} is missing in {help}");
    }
    assert!(run("coordinator", &["help"]).1.contains("--producers <N>"));
}

#[test]
fn what_is_mistyped_gets_a_suggestion_and_what_is_impossible_the_choices() {
    for (program, arguments, words) in [
        ("coordinator", &["--consumer", "3"][..], &["--consumers", "similar"][..]),
        ("coordinator", &["sttus"], &["'status'", "similar"]),
        ("coordinator", &["serve", "--jurnal", "x"], &["'--journal'"]),
        ("coordinator", &["journal", "inspct", "x"], &["'inspect'"]),
        ("coordinator", &["--fsync", "sometimes"], &["possible values: always, never"]),
        ("coordinator", &["completions", "bsh"], &["possible values: bash, elvish, fish, powershell, zsh", "'bash'"]),
        ("coordinator", &["--input", "x", "sha256sum", "{}"], &["behind `--`: coordinator … -- sha256sum …"]),
        ("coordinator", &["urls.txt"], &["`--input urls.txt`", "-- urls.txt"]),
        ("coordinator", &["--consumers", "-1"], &["-1 is not in 1..=10000"]),
        ("coordinator", &["dead", "drop"], &["or --all for all of them"]),
        ("coordinator", &["dead", "drop", "x"], &["`coordinator dead list`"]),
        ("producer", &["urls.txt"], &["`--input urls.txt`"]),
        ("consumer", &["gzip"], &["behind `--`: consumer … -- gzip …"]),
        ("producer", &["--inputt", "x"], &["'--input'"]),
        ("consumer", &["--prefech", "3"], &["'--prefetch'"]),
    ] {
        let (code, out, said) = run(program, arguments);
        assert_eq!((code, &out[..]), (2, ""), "{said}");
        assert!(words.iter().all(|words| said.contains(words)), "{program} {arguments:?}: {words:?} in {said}");
        assert!(said.contains("For more information, try '--help'"), "{said}");
    }
}

#[test]
fn what_is_wrong_behind_a_subcommand_gets_no_advice_about_a_run() {
    let (code, _, said) = run("coordinator", &["status", "status"]);
    assert!(code == 2 && !said.contains("tip"), "{said}");
}

#[test]
fn each_program_says_its_version_and_an_optimised_one_its_commit() {
    let head = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let head = head.ok().filter(|output| output.status.success()).map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    let commit = option_env!("PROCQ_COMMIT").map(String::from).or(head.filter(|_| !cfg!(debug_assertions)));
    let commit = commit.map(|commit| format!(" ({})", commit.chars().take(12).collect::<String>())).unwrap_or_default();
    for program in PROGRAMS {
        let version = format!("{program} {}{commit}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(run(program, &["--version"]), (0, version.clone(), String::new()));
        assert_eq!(run(program, &["-V"]), (0, version, String::new()));
    }
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    // A terminal of `script`'s; without that program, only what is no terminal is looked at.
    let (_, help, _) = run("coordinator", &["--help"]);
    assert!(!help.contains('\u{1b}'), "{help}");
    let on_terminal = |setup: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{setup} {} --help", program("coordinator").display()), "/dev/null"]).env("TERM", "xterm");
        command.env_remove("NO_COLOR").output().ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    match (on_terminal(""), on_terminal("NO_COLOR=1")) {
        (Some(coloured), Some(plain)) => {
            assert!(coloured.contains("\u{1b}["), "{coloured}");
            assert!(!plain.contains('\u{1b}') && plain.contains("Usage:"), "{plain}");
        }
        _ => eprintln!("skipped in part: there is no `script`"),
    }
}

#[test]
fn every_manual_page_is_written_and_man_has_nothing_to_say_against_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("man1");
    let (code, out, said) = run("coordinator", &["man", "--dir", pages.to_str().expect("text")]);
    assert_eq!((code, out, said), (0, String::new(), String::new()));
    let mut count = 0;
    for (program, words, _) in commands() {
        let name = [&[program.to_string()], &words[..]].concat().join("-");
        let path = pages.join(format!("{name}.1"));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let own: Vec<&str> = ["man", program].into_iter().chain(words.iter().map(String::as_str)).collect();
        assert_eq!(run("coordinator", &own), (0, page.clone(), String::new()));
        assert!(page.lines().all(|line| line.len() < 2000 && !line.starts_with('\'')), "{page}");
        assert!(page.contains(".SH NAME") && page.contains(".SH \"EXIT STATUS\""), "{page}");
        count += 1;
        let shown = Command::new("man").args(["--warnings", "-E", "UTF-8", "-l"]).arg(&path).env("MANWIDTH", "100").output();
        match shown {
            Ok(shown) => {
                assert!(shown.status.success() && shown.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&shown.stderr));
                assert!(String::from_utf8_lossy(&shown.stdout).contains("EXIT STATUS"));
            }
            Err(_) => eprintln!("{name} not shown: there is no `man`"),
        }
    }
    assert_eq!(std::fs::read_dir(&pages).expect("the folder").count(), count);
}

#[test]
fn a_page_that_does_not_exist_is_an_error_that_names_those_that_do() {
    let (code, out, said) = run("coordinator", &["man", "sevre"]);
    assert_eq!((code, &out[..]), (1, ""));
    assert!(said.contains("no manual page \"sevre\"; give one of coordinator, serve,"), "{said}");
}
