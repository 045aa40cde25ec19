//! What would be run for an item, as a line that can be pasted into a shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::command::{NUL_IN_ARGUMENT, filled, has_placeholder};

/// The line for one item, without a line end; an error says why no command can be run for it.
///
/// Words with control characters in them, or what is no UTF-8, are written as `$'…'`, which bash, zsh and ksh understand; all else any
/// shell does.
pub fn line_for(words: &[OsString], item: &[u8]) -> Result<String, &'static str> {
    if words.iter().any(|word| has_placeholder(word)) {
        if item.contains(&0) {
            return Err(NUL_IN_ARGUMENT);
        }
        return Ok(line_of(words.iter().map(|word| filled(word, item))));
    }
    let command = line_of(words);
    Ok(if item.contains(&0) {
        format!("printf {} | {command}", quoted(format_of(item).as_bytes()))
    } else {
        format!("printf %s {} | {command}", quoted(item))
    })
}

/// The line of a command without an item.
pub fn line_of(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    words.into_iter().map(|word| quoted(word.as_ref().as_bytes())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./,:@%+".contains(byte);
    match std::str::from_utf8(word) {
        Ok(text) if !text.is_empty() && word.iter().all(is_plain) => text.into(),
        Ok(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => format!("$'{}'", word.iter().map(escaped).collect::<String>()),
    }
}

fn escaped(byte: &u8) -> String {
    match byte {
        b'\n' => r"\n".into(),
        b'\t' => r"\t".into(),
        b'\r' => r"\r".into(),
        b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).into(),
        _ => format!("\\{byte:03o}"),
    }
}

/// A format for `printf` that makes these bytes, whatever they are.
fn format_of(item: &[u8]) -> String {
    item.iter().map(|byte| if *byte == b'%' { "%%".into() } else { escaped(byte).replace(r"\'", "'") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str], item: &[u8]) -> String {
        line_for(&words.iter().map(OsString::from).collect::<Vec<_>>(), item).unwrap()
    }

    #[test]
    fn only_what_needs_quotes_gets_them() {
        assert_eq!(line(&["echo", "a{}b", "-x", "{}"], b"1.txt"), "echo a1.txtb -x 1.txt");
        assert_eq!(line(&["echo", "{}"], b"it's $HOME"), r"echo 'it'\''s $HOME'");
        assert_eq!(line(&["A=1", "~", "{}"], b""), "'A=1' '~' ''");
        assert_eq!(line(&["echo", "{}"], "é".as_bytes()), "echo 'é'");
        assert_eq!(line(&["echo", "{}"], b"a\nb'\x01\xff7"), r"echo $'a\nb\'\001\3777'");
    }

    #[test]
    fn an_item_for_stdin_is_printed_into_it() {
        assert_eq!(line(&["wc", "-c"], b"a b"), "printf %s 'a b' | wc -c");
        assert_eq!(line(&["wc", "-c"], b"-n"), "printf %s -n | wc -c");
        assert_eq!(line(&["wc", "-c"], b"a\0%'\\\n"), r"printf 'a\000%%'\''\\\n' | wc -c");
        assert_eq!(line_for(&["{}".into()], b"a\0b"), Err(NUL_IN_ARGUMENT));
    }

    #[test]
    fn a_shell_makes_of_it_what_it_was() {
        let all: Vec<u8> = (1..=255).collect();
        for item in [&all[..], b"it's\n$HOME `x` \"y\" %s \\n ~ * ? \t", "é ü".as_bytes()] {
            for line in [line(&["printf", "%s", "{}"], item), line(&["cat"], item), line(&["cat"], &[item, b"\0x"].concat())] {
                let made = std::process::Command::new("bash").args(["-c", &line]).output().unwrap().stdout;
                assert_eq!(made.strip_suffix(b"\0x").unwrap_or(&made), item, "{line}");
                assert!(!line.contains('\n'));
            }
        }
    }
}
