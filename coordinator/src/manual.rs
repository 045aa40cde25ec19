//! What is made from the command lines' own definitions: manual pages, and completions for shells. The only file that names `clap_complete`
//! and `clap_mangen`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use common::program::{
    EXIT_DEAD_LETTERS, EXIT_DONE, EXIT_ERROR, EXIT_IN_USE, EXIT_NO_COORDINATOR, EXIT_OUTPUT_CLOSED, EXIT_SIGNAL_BASE, EXIT_USAGE, VERSION,
};

pub use clap_complete::Shell;

use crate::cli::Cli;

/// The manual page of a program or of a coordinator's subcommand, named by words (none: the coordinator), in the language of `man`.
pub fn page(words: &[String]) -> Result<Vec<u8>> {
    let wanted: Vec<&str> = words.iter().flat_map(|word| word.split(['-', ' '])).filter(|word| *word != "coordinator").collect();
    let wanted = if wanted.is_empty() { "coordinator".to_string() } else { wanted.join("-") };
    let pages = commands();
    let is_wanted = |name: &str| name == wanted || name.strip_prefix("coordinator-") == Some(&wanted[..]);
    match pages.iter().find(|command| is_wanted(name(command))) {
        Some(command) => Ok(render(command)?),
        None => {
            let names: Vec<&str> = pages.iter().map(|command| name(command).trim_start_matches("coordinator-")).collect();
            bail!("there is no manual page {wanted:?}; give one of {}", names.join(", "))
        }
    }
}

/// Writes all manual pages into a folder, which is made if it does not exist.
pub fn write_pages(folder: &Path) -> Result<()> {
    for command in commands() {
        write(folder, &format!("{}.1", name(&command)), &render(&command)?)?;
    }
    Ok(())
}

/// A script that teaches a shell all three programs' command lines.
pub fn completions(shell: Shell) -> Vec<u8> {
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
pub fn write_completions(shell: Shell, folder: &Path) -> Result<()> {
    scripts(shell).into_iter().try_for_each(|(file, script)| write(folder, &file, script.as_bytes()))
}

fn programs() -> [Command; 3] {
    [Cli::dressed(), producer::cli::Cli::dressed(), consumer::cli::Cli::dressed()]
}

/// Each program's file name and script.
fn scripts(shell: Shell) -> Vec<(String, String)> {
    use clap_complete::Generator;
    let script = |mut command: Command| {
        let name = command.get_name().to_string();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut script);
        (shell.file_name(&name), String::from_utf8_lossy(&script).into_owned())
    };
    programs().iter().map(for_people).map(script).collect()
}

/// Without what only the coordinator says to its children: the generators know nothing of hidden flags.
fn for_people(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    Command::new(command.get_name().to_string())
        .version(VERSION)
        .about(command.get_about().cloned().unwrap_or_default())
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args(arguments.cloned())
        .subcommands(command.get_subcommands().map(for_people))
}

/// All that has a page of its own: the programs, and their subcommands at any depth.
fn commands() -> Vec<Command> {
    fn add(command: &Command, pages: &mut Vec<Command>) {
        pages.push(command.clone());
        command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(|command| add(command, pages));
    }
    let mut pages = Vec::new();
    for command in programs() {
        let mut command = all_shown(command);
        command.build();
        add(&command, &mut pages);
    }
    pages
}

/// What help leaves out for brevity stands in the manual.
fn all_shown(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_args(|argument| argument.hide_short_help(false)).mut_subcommands(all_shown)
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn render(command: &Command) -> std::io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).source(format!("procq {VERSION}")).manual("procq");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut behind = Roff::new();
    add_examples(&mut behind, command);
    add_environment(&mut behind, command);
    add_exit_status(&mut behind);
    add_see_also(&mut behind, command);
    behind.to_writer(&mut page)?;
    Ok(page)
}

/// The indented lines at the end of the help.
fn add_examples(page: &mut Roff, command: &Command) {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let examples: Vec<&str> = help.lines().filter(|line| line.starts_with("  ")).map(str::trim).collect();
    if examples.is_empty() {
        return;
    }
    page.control("SH", ["EXAMPLES"]).control("nf", []);
    for example in examples {
        page.text([roman(example)]);
    }
    page.control("fi", []);
}

fn add_environment(page: &mut Roff, command: &Command) {
    page.control("SH", ["ENVIRONMENT"]);
    let twin = command.get_arguments().find_map(|argument| Some((argument.get_long()?, argument.get_env()?.to_str()?)));
    if let Some((flag, twin)) = twin {
        let words =
            format!("Each flag may be given in the environment instead: {twin} for --{flag}, and so on. The command line counts more.");
        page.text([roman(words)]);
    }
    let variables = [
        (
            "PROCQ_LOG",
            "What the programs tell of themselves on stderr: off, error, warn, info, debug or trace, or such for a part of them, \
             as in info,common::driver=trace.",
        ),
        ("NO_COLOR", "Not empty: nothing is coloured."),
    ];
    add_list(page, variables);
}

fn add_exit_status(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    let codes = [
        (EXIT_DONE, "All is done."),
        (EXIT_ERROR, "Something went wrong; stderr says what."),
        (EXIT_USAGE, "The command line makes no sense."),
        (EXIT_DEAD_LETTERS, "Done, but some items are in the dead letters."),
        (EXIT_NO_COORDINATOR, "There is no coordinator at the socket."),
        (EXIT_IN_USE, "Another coordinator is at the socket."),
        (EXIT_OUTPUT_CLOSED, "Nobody reads stdout any more."),
    ];
    add_list(page, codes.map(|(code, words)| (code.to_string(), words)));
    add_list(page, [(format!("{EXIT_SIGNAL_BASE}+n"), "Ended by signal n.")]);
}

fn add_see_also(page: &mut Roff, command: &Command) {
    let own = name(command);
    let family = commands();
    let others: Vec<String> = family.iter().map(name).filter(|other| *other != own).map(|other| format!("{other}(1)")).collect();
    page.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);
}

fn add_list<T: Into<String>>(page: &mut Roff, entries: impl IntoIterator<Item = (T, &'static str)>) {
    for (term, words) in entries {
        page.control("TP", []).text([bold(term.into())]).text([roman(words)]);
    }
}

fn write(folder: &Path, file: &str, bytes: &[u8]) -> Result<()> {
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(file), bytes));
    written.with_context(|| format!("cannot write {}; give another --dir", folder.join(file).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_and_subcommand_has_a_page_by_any_of_its_names() {
        for words in [&["serve"][..], &["coordinator", "serve"], &["coordinator-serve"]] {
            let page = String::from_utf8(page(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()).unwrap();
            assert!(page.contains(".TH coordinator-serve 1"), "{page}");
            for section in ["OPTIONS", "QUEUE", "ENVIRONMENT", "EXIT STATUS", "SEE ALSO"] {
                assert!(page.contains(&format!(".SH {section}\n")) || page.contains(&format!(".SH \"{section}\"\n")), "{section}: {page}");
            }
        }
        assert!(page(&["producer".into()]).is_ok() && page(&["journal".into(), "verify".into()]).is_ok() && page(&[]).is_ok());
        let refused = page(&["sevre".into()]).unwrap_err().to_string();
        assert!(refused.contains("\"sevre\"") && refused.contains("serve, ") && refused.contains("journal-inspect"), "{refused}");
    }

    #[test]
    fn what_help_leaves_out_stands_in_the_manual() {
        let page = String::from_utf8(page(&[]).unwrap()).unwrap();
        for word in ["pays only where one is free", "How many numbers each producer puts", "default.sock"] {
            assert!(page.contains(word), "{word}");
        }
        assert!(!page.contains("Also:"));
    }

    #[test]
    fn a_script_has_its_imports_once_and_at_the_top() {
        let script = String::from_utf8(completions(Shell::PowerShell)).unwrap();
        let is_import = |line: &&str| line.starts_with("using ");
        let last = script.lines().filter(|line| !line.is_empty()).skip_while(is_import).filter(is_import).count();
        assert_eq!(last, 0, "{script}");
    }
}
