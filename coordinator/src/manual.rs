//! Manual pages, made from the command lines' own definitions. The only file that names `clap_mangen`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use common::command_line::twins;
use common::program::{
    EXIT_DEAD_LETTERS, EXIT_DONE, EXIT_ERROR, EXIT_IN_USE, EXIT_NO_COORDINATOR, EXIT_OUTPUT_CLOSED, EXIT_SIGNAL_BASE, EXIT_USAGE, VERSION,
};

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
            bail!("there is no manual page {wanted:?}; give one of {}", names().join(", "))
        }
    }
}

/// What can be asked for.
pub fn names() -> Vec<String> {
    commands().iter().map(|command| name(command).trim_start_matches("coordinator-").to_string()).collect()
}

/// Writes all manual pages into a folder, which is made if it does not exist.
pub fn write_pages(folder: &Path) -> Result<()> {
    for command in commands() {
        write(folder, &format!("{}.1", name(&command)), &render(&command)?)?;
    }
    Ok(())
}

/// The three programs, as they are shown to people.
pub(crate) fn programs() -> [Command; 3] {
    [Cli::dressed(), producer::cli::Cli::dressed(), consumer::cli::Cli::dressed()]
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
    if let Some((flag, twin, others)) = twins(command) {
        let words = format!("Flags may be given in the environment instead: {twin} for --{flag}, {others}. The command line counts more.");
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
        (EXIT_IN_USE, "Another coordinator is at the socket, or has the journal."),
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

pub(crate) fn write(folder: &Path, file: &str, bytes: &[u8]) -> Result<()> {
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
}
