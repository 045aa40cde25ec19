//! What shells are told about all three command lines, made from their own definitions. The only file that names `clap_complete`.
//!
//! The generators leave out what these command lines have: a command behind `--`, of which every shell knows how to complete it; in fish,
//! values of arguments without a flag, and of a flag that stands last. That is added here.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, ValueHint};
use common::program::VERSION;

pub use clap_complete::Shell;

use crate::manual;

/// A script that teaches a shell all three programs' command lines.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = String::new();
    for (_, part) in scripts(shell) {
        for line in part.lines() {
            // PowerShell takes these at the top only.
            if !(line.starts_with("using ") && script.contains(line)) {
                script.push_str(line);
                script.push('\n');
            }
        }
    }
    script.into_bytes()
}

/// Writes each program's completions into a folder, under the name by which the shell finds them.
pub fn write(shell: Shell, folder: &Path) -> Result<()> {
    scripts(shell).into_iter().try_for_each(|(file, script)| manual::write(folder, &file, script.as_bytes()))
}

/// Each program's file name and script.
fn scripts(shell: Shell) -> Vec<(String, String)> {
    use clap_complete::Generator;
    let script = |program: &Command| {
        let name = program.get_name();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut for_people(program), name, &mut script);
        let script = completed(shell, program, &String::from_utf8_lossy(&script));
        (shell.file_name(name), script)
    };
    manual::programs().iter().map(script).collect()
}

/// Without what only the coordinator says to its children: the generators know nothing of hidden flags. And without a command to run: zsh's
/// would take it for the first of the subcommands.
fn for_people(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set() && !argument.is_last_set());
    let arguments = arguments.cloned().map(|argument| match (command.get_name(), argument.get_id().as_str()) {
        ("man", "name") => argument.value_parser(PossibleValuesParser::new(manual::names())),
        _ => argument,
    });
    Command::new(command.get_name().to_string())
        .version(VERSION)
        .about(command.get_about().cloned().unwrap_or_default())
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args(arguments)
        .subcommands(command.get_subcommands().map(for_people))
}

/// A program's script with what its generator left out.
fn completed(shell: Shell, program: &Command, script: &str) -> String {
    let name = program.get_name();
    let runs_commands = program.get_arguments().any(Arg::is_last_set);
    let begin = format!("_{name}() {{\n");
    match shell {
        Shell::Bash if runs_commands => script.replacen(&begin, &format!("{begin}{BASH_BEHIND_DASHES}"), 1),
        Shell::Zsh if runs_commands => script.replacen(&begin, &format!("{begin}{ZSH_BEHIND_DASHES}"), 1),
        Shell::Fish => {
            // A flag that has no value yet is no reason to forget all flags.
            let mut script = script.replace("2>/dev/null\n    or return\n", "2>/dev/null\n    or return 0\n");
            if runs_commands {
                script += &FISH_BEHIND_DASHES.replace("NAME", name);
            }
            let _ = writeln!(script, "complete -c {name} -n 'not contains -- -- (commandline -opc)' -f");
            add_fish_values(&mut script, name, &for_people(program), &[]);
            script
        }
        _ => script.into(),
    }
}

const BASH_BEHIND_DASHES: &str = r#"    local dashes offset
    for ((dashes = 1; dashes < COMP_CWORD; dashes++)); do
        [[ ${COMP_WORDS[dashes]} == -- ]] || continue
        for offset in _comp_command_offset _command_offset; do
            if declare -F "$offset" > /dev/null; then
                "$offset" $((dashes + 1))
                return
            fi
        done
        # Without the package bash-completion: a command's name, then files.
        COMPREPLY=()
        if ((dashes + 1 == COMP_CWORD)); then
            mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
        fi
        return
    done
"#;

const ZSH_BEHIND_DASHES: &str = r"    local dashes=${words[(ie)--]}
    if (( dashes < CURRENT )); then
        shift $dashes words
        (( CURRENT -= dashes ))
        _normal
        return
    fi
";

const FISH_BEHIND_DASHES: &str = r"
function __fish_NAME_behind_dashes
    set -l words (commandline -opc)
    set -l dashes (contains -i -- -- $words)
    complete -C (string join ' ' -- (string escape -- $words[(math $dashes + 1)..]) (commandline -ct))
end
complete -c NAME -n 'contains -- -- (commandline -opc)' -f -a '(__fish_NAME_behind_dashes)'
";

/// What may stand without a flag, behind these subcommands.
fn add_fish_values(script: &mut String, name: &str, command: &Command, path: &[&str]) {
    let condition = match path {
        [] => None,
        [first] => Some(format!("__fish_{name}_using_subcommand {first}")),
        [first, second, ..] => Some(format!("__fish_{name}_using_subcommand {first}; and __fish_seen_subcommand_from {second}")),
    };
    for argument in command.get_positionals() {
        let values = argument.get_possible_values();
        let values = match argument.get_value_hint() {
            ValueHint::DirPath => "(__fish_complete_directories)".into(),
            _ => values.iter().map(clap::builder::PossibleValue::get_name).collect::<Vec<_>>().join(" "),
        };
        if let Some(condition) = condition.as_ref().filter(|_| !values.is_empty()) {
            let _ = writeln!(script, "complete -c {name} -n '{condition}' -f -a '{values}'");
        }
    }
    for below in command.get_subcommands() {
        add_fish_values(script, name, below, &[path, &[below.get_name()]].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shell: Shell) -> String {
        String::from_utf8(script(shell)).unwrap()
    }

    #[test]
    fn a_script_has_its_imports_once_and_at_the_top() {
        let script = text(Shell::PowerShell);
        let is_import = |line: &&str| line.starts_with("using ");
        let last = script.lines().filter(|line| !line.is_empty()).skip_while(is_import).filter(is_import).count();
        assert_eq!(last, 0, "{script}");
    }

    #[test]
    fn what_generators_leave_out_has_its_place_in_what_they_write() {
        for (shell, addition, times) in
            [(Shell::Bash, BASH_BEHIND_DASHES, 2), (Shell::Zsh, ZSH_BEHIND_DASHES, 2), (Shell::Fish, "\n    or return 0\n", 1)]
        {
            assert_eq!(text(shell).matches(addition).count(), times, "{shell}");
        }
    }
}
