//! What shells complete: bash, and zsh and fish where they are there.

use std::path::Path;
use std::process::Command;

use coordinator::completions::{self, Shell};
use tests::Process;
use tests::terminal::Terminal;

fn run(name: &str, arguments: &[&str]) -> (i32, String, String) {
    Process::start(name, Path::new("/no/such/folder/q.sock"), arguments).finish()
}

fn is_there(shell: &str) -> bool {
    let is_there = Command::new(shell).arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: there is no {shell}");
    }
    is_there
}

#[test]
fn bash_takes_the_completions_and_completes_flags_values_and_subcommands() {
    let script = String::from_utf8(completions::script(Shell::Bash)).expect("text");
    assert_eq!(run("coordinator", &["completions", "bash"]), (0, script.clone(), String::new()));
    // What bash does at the second press of the tab key, with these words on the line.
    let complete = |words: &[&str]| {
        let query = format!(
            "source /dev/stdin || exit 9\nCOMP_WORDS=({}); COMP_CWORD={}; spec=$(complete -p {}) || exit 8\n\
             [[ $spec =~ -F\\ ([^ ]+) ]] && \"${{BASH_REMATCH[1]}}\" {} \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
            words[0],
            words[0],
        );
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", &query]);
        let mut bash = Process::spawn_plain(command);
        bash.write(script.as_bytes());
        let (code, out, said) = bash.finish();
        assert_eq!((code, &said[..]), (0, ""), "{words:?}: {out}");
        out.lines().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["coordinator", "--dead"]), ["--dead-letters"]);
    assert_eq!(complete(&["coordinator", "jour"]), ["journal"]);
    assert_eq!(complete(&["coordinator", "journal", "ver"]), ["verify"]);
    assert_eq!(complete(&["coordinator", "serve", "--fsync", ""]), ["always", "never"]);
    assert_eq!(complete(&["producer", "--format", "n"]), ["nul"]);
    assert_eq!(complete(&["consumer", "--rec"]), ["--reconnect"]);
    assert_eq!(complete(&["consumer", "--child"]), [""], "what is for the coordinator alone is not offered");
    assert_eq!(complete(&["coordinator", "man", "dead-r"]), ["dead-requeue"]);
    assert!(complete(&["coordinator", "--input", "x", "--", "ech"]).contains(&"echo".to_string()), "behind dashes stands a command");
    assert_eq!(complete(&["consumer", "--", "echo", "--fs"]), [""], "and its flags are not ours");
}

#[test]
fn every_shell_gets_the_flags_of_all_three_programs_and_files_under_the_names_that_it_looks_for() {
    let folder = tempfile::tempdir().expect("a folder");
    for (shell, file) in [
        ("bash", "coordinator.bash"),
        ("zsh", "_coordinator"),
        ("fish", "coordinator.fish"),
        ("elvish", "coordinator.elv"),
        ("powershell", "_coordinator.ps1"),
    ] {
        let (code, script, said) = run("coordinator", &["completions", shell]);
        assert_eq!((code, &said[..]), (0, ""));
        for word in ["dead-letters", "expect-producers", "reconnect", "prefetch", "name"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("child-of") && !script.contains("pause-ms"), "{shell}");
        let folder = folder.path().join(shell);
        let (code, _, said) = run("coordinator", &["completions", shell, "--dir", folder.to_str().expect("text")]);
        assert_eq!((code, &said[..]), (0, ""));
        assert!(folder.join(file).is_file() && std::fs::read_dir(&folder).expect("the folder").count() == 3, "{shell}");
        let syntax = match shell {
            "powershell" => continue,
            "elvish" => "-compileonly",
            _ => "-n",
        };
        match Command::new(shell).arg(syntax).arg(folder.join(file)).output() {
            Ok(checked) => assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr)),
            Err(_) => eprintln!("{shell}'s script not checked by it: it is not there"),
        }
    }
}

/// A folder with our completions for this shell in the file `script`, and a `file` and a `folder` whose names begin with "odd-".
fn place(shell: Shell) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("script"), completions::script(shell)).expect("a script");
    std::fs::write(place.path().join("odd-file"), "").expect("a file");
    std::fs::create_dir(place.path().join("odd-folder")).expect("a folder");
    place
}

#[test]
fn fish_completes_flags_values_subcommands_files_and_commands() {
    if !is_there("fish") {
        return;
    }
    let place = place(Shell::Fish);
    let complete = |line: &str| {
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", &format!("source script; complete -C '{line}'")])
            .current_dir(place.path())
            .env("HOME", place.path());
        let (code, out, said) = Process::spawn_plain(fish).finish();
        assert_eq!((code, &said[..]), (0, ""), "{line}");
        out.lines().map(|line| line.split('\t').next().unwrap_or_default().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(complete("coordinator st"), ["status", "stop"]);
    assert_eq!(complete("coordinator dead "), ["drop", "list", "requeue"]);
    assert_eq!(complete("coordinator dead requeue --a"), ["--all"]);
    assert_eq!(complete("coordinator --fsync "), ["always", "never"]);
    assert_eq!(complete("coordinator serve --fsync n"), ["never"]);
    assert_eq!(complete("coordinator --input odd-"), ["odd-file", "odd-folder/"]);
    assert_eq!(complete("coordinator journal verify odd-"), ["odd-folder/"]);
    assert_eq!(complete("coordinator completions z"), ["zsh"]);
    assert_eq!(complete("coordinator man dead-r"), ["dead-requeue"]);
    assert_eq!(complete("producer --rec"), ["--reconnect"]);
    assert!(complete("coordinator --input x -- ech").contains(&"echo".to_string()));
    assert_eq!(complete("consumer -- cat odd-fi"), ["odd-file"]);
}

#[test]
fn zsh_completes_flags_values_subcommands_files_and_commands() {
    if !is_there("zsh") {
        return;
    }
    let place = place(Shell::Zsh);
    let path = place.path().to_str().expect("text");
    let setup = "autoload -Uz compinit; compinit -u; source $ZDOTDIR/script; PROMPT='ready> '; unsetopt beep; cd $ZDOTDIR";
    std::fs::write(place.path().join(".zshrc"), setup).expect("a file");
    let shell = Terminal::spawn((24, 100), Path::new("/no/such/q.sock"), &[("ZDOTDIR", path)], &["zsh", "-i", "-o", "no_global_rcs"]);
    shell.wait_for("ready>");
    for (line, shown) in [
        ("coordinator sta", "> coordinator status"),
        ("coordinator dead r", "> coordinator dead requeue"),
        ("coordinator dead requeue --a", "> coordinator dead requeue --all"),
        ("coordinator --fsync n", "> coordinator --fsync never"),
        ("coordinator --input odd-fi", "> coordinator --input odd-file"),
        ("coordinator journal verify odd-", "> coordinator journal verify odd-folder/"),
        ("coordinator completions z", "> coordinator completions zsh"),
        ("coordinator man dead-r", "> coordinator man dead-requeue"),
        ("producer --rec", "> producer --reconnect"),
        ("coordinator --input x -- zmodlo", "> coordinator --input x -- zmodload"),
        ("consumer -- cat odd-fi", "> consumer -- cat odd-file"),
    ] {
        // Control-u: an empty line again.
        shell.press(&format!("\u{15}{line}\t"));
        shell.wait_for(shown);
    }
}
