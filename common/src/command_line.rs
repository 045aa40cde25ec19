//! How the three programs' command lines look: help that fits a screen, and errors that say what to do. The only file of this package
//! that names `clap`.
//!
//! Help, short or long, has one line a flag, grouped by purpose; what is said at length (a doc comment's later paragraphs) is for the
//! manual. A flag with `hide_short_help` has no line: it is listed by name at the end.

use std::ffi::OsString;
use std::io::Write;

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, Error};

use crate::limits::HELP_COLUMNS_MAX;
use crate::program::{EXIT_DONE, VERSION};

/// Coloured where clap finds a terminal that wants it: not with `NO_COLOR`, nor in a pipe.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Yellow.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// Dresses a program's command line, its subcommands included.
pub fn dressed(command: Command) -> Command {
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print the version")
        .help_heading(None)
        .hide_short_help(true);
    let command = command.version(VERSION).disable_version_flag(true).arg(version);
    let manual = match command.get_name() {
        "coordinator" => "coordinator man".into(),
        name => format!("coordinator man {name}"),
    };
    with_short_help(command, manual).styles(STYLES).max_term_width(HELP_COLUMNS_MAX)
}

/// Parses arguments, the first being the program's name; ends the program if they make no sense, or ask for help.
pub fn parse(mut command: Command, arguments: impl IntoIterator<Item = OsString>) -> ArgMatches {
    command.try_get_matches_from_mut(arguments).unwrap_or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp => {
            let help = without_gaps(&error.render().ansi().to_string());
            // Whoever asks for help and closes the pipe has seen enough.
            let _ = anstream::stdout().write_all(help.as_bytes());
            std::process::exit(i32::from(EXIT_DONE))
        }
        _ => with_suggestion(error, &command).exit(),
    })
}

/// Where a word may also be a part of a command to run, clap does not take it for a mistyped subcommand; and it does not say where what has
/// no flag in front belongs.
fn with_suggestion(mut error: Error, command: &Command) -> Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return error };
    if error.kind() != ErrorKind::UnknownArgument || word.starts_with('-') || is_of_subcommand(&error, command) {
        return error;
    }
    let likeness = |name: &str| strsim::jaro(word, name);
    let closest = command.get_subcommands().map(Command::get_name).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    if let Some(name) = closest.filter(|name| likeness(name) > LIKENESS_MIN) {
        let names = vec![name.to_string()];
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(names));
        return error;
    }
    let has_input = command.get_arguments().any(|argument| argument.get_long() == Some("input"));
    let runs_commands = command.get_arguments().any(Arg::is_last_set);
    let tips = [
        runs_commands.then(|| format!("a command stands at the end, behind `--`: {} … -- {word} …", command.get_name())),
        has_input.then(|| format!("a file of items is read with `--input {word}`")),
    ];
    let tips = tips.into_iter().flatten().map(Into::into).collect();
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    error
}

/// True of what is wrong behind a subcommand: its usage is shown.
fn is_of_subcommand(error: &Error, command: &Command) -> bool {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => return false,
    };
    command.get_subcommands().any(|below| usage.contains(&format!("{} {} ", command.get_name(), below.get_name())))
}

/// What is taken for mistyped, by Jaro's measure: as like as clap wants it of flags.
const LIKENESS_MIN: f64 = 0.7;

/// Longer lines that end in a colon are sentences.
const HEADING_BYTES_MAX: usize = 30;

/// What a help text says on a screen: the groups of flags follow each other without an empty line.
fn without_gaps(help: &str) -> String {
    let mut shown = String::with_capacity(help.len());
    let (mut gap, mut in_groups) = (false, false);
    for line in help.lines() {
        let plain = anstream::adapter::strip_str(line).to_string();
        let is_heading = !plain.starts_with(' ') && plain.ends_with(':') && plain.len() < HEADING_BYTES_MAX;
        if gap && !(is_heading && in_groups) {
            shown.push('\n');
        }
        in_groups |= is_heading;
        gap = plain.is_empty();
        if !gap {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    shown
}

fn with_short_help(command: Command, manual: String) -> Command {
    let help =
        Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Print help").help_heading(None).hide_short_help(true);
    let command = command.disable_help_flag(true).arg(help).mut_args(|argument| argument.hide_env(true));
    let command = command.mut_subcommands(|below| {
        let manual = format!("{manual} {}", below.get_name());
        with_short_help(below.disable_help_subcommand(true), manual)
    });
    let behind = command.get_after_help().map(|behind| format!("\n{behind}")).unwrap_or_default();
    let more = what_has_no_line(&command, &manual);
    command.after_help(more + &behind)
}

fn what_has_no_line(command: &Command, manual: &str) -> String {
    let unlisted = command.get_arguments().filter(|argument| argument.is_hide_short_help_set() && !argument.is_hide_set());
    let names: Vec<String> = unlisted.filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect();
    let twin = twins(command).map(|(flag, twin, others)| format!("\nEnvironment: {twin} for --{flag}, {others}; PROCQ_LOG=debug"));
    format!("Also: {}; see `{manual}`{}", names.join(", "), twin.unwrap_or_default())
}

/// A flag and its twin in the environment, and whether the others have such; none for a command without flags of its own.
pub fn twins(command: &Command) -> Option<(&str, &str, String)> {
    let (flag, twin) = command.get_arguments().find_map(|argument| Some((argument.get_long()?, argument.get_env()?.to_str()?)))?;
    let alone = command.get_arguments().filter(|argument| argument.get_env().is_none() && !argument.is_hide_set());
    let alone = alone.filter_map(Arg::get_long).find(|long| !["help", "version"].contains(long));
    let others = alone.map_or("and so for each flag".into(), |flag| format!("and none for --{flag}"));
    Some((flag, twin, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_flags_follow_each_other_without_a_gap_and_all_else_keeps_its_own() {
        let help = "About.\n\nUsage: a\n\nInput:\n  --x\n\nWork:\n  --y\n\nAlso: --z.\n\nExamples:\n  a --x\n";
        assert_eq!(without_gaps(help), "About.\n\nUsage: a\n\nInput:\n  --x\nWork:\n  --y\n\nAlso: --z.\nExamples:\n  a --x\n");
        assert_eq!(
            without_gaps("About.\n\n\u{1b}[1mInput:\u{1b}[0m\n  --x\n\n\u{1b}[1mWork:\u{1b}[0m\n"),
            "About.\n\n\u{1b}[1mInput:\u{1b}[0m\n  --x\n\u{1b}[1mWork:\u{1b}[0m\n"
        );
    }
}
