//! How things look on this terminal: which characters it can show, and whether in colour.

use std::ffi::OsString;

/// What this terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// More than ASCII.
    pub unicode: bool,
    /// Colours.
    pub colour: bool,
}

/// What a piece of text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// What comes first to the eye.
    Bold,
    /// What goes well.
    Green,
    /// What is there without being looked at.
    Dim,
    /// What did not go well at once.
    Yellow,
    /// What went wrong.
    Red,
}

impl Style {
    /// By the environment: the locale, `NO_COLOR`.
    pub fn from_env() -> Style {
        Style::by(|name| std::env::var_os(name))
    }

    fn by(variable: impl Fn(&str) -> Option<OsString>) -> Style {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        Style { unicode, colour: set("NO_COLOR").is_none() }
    }

    /// Appends text in a colour.
    pub fn paint(self, out: &mut String, text: &str, colour: Option<Colour>) {
        let Some(colour) = colour.filter(|_| self.colour && !text.is_empty()) else { return out.push_str(text) };
        out.push_str(match colour {
            Colour::Bold => "\x1b[1m",
            Colour::Green => "\x1b[32m",
            Colour::Dim => "\x1b[2m",
            Colour::Yellow => "\x1b[33m",
            Colour::Red => "\x1b[31m",
        });
        out.push_str(text);
        out.push_str("\x1b[0m");
    }

    /// Appends a bar of so many columns, at least three.
    pub fn bar(self, out: &mut String, columns: usize, done: u64, total: u64) {
        let inner = if self.unicode { columns } else { columns - 2 };
        let filled = (u128::from(done) * inner as u128 / u128::from(total.max(1))).min(inner as u128) as usize;
        if self.unicode {
            self.paint(out, &"━".repeat(filled), Some(Colour::Green));
            // Without colour, the rest must look another way.
            let rest = if self.colour { "━" } else { "─" };
            self.paint(out, &rest.repeat(inner - filled), Some(Colour::Dim));
            return;
        }
        let head = usize::from(filled > 0 && filled < inner);
        out.push('[');
        self.paint(out, &"=".repeat(filled - head), Some(Colour::Green));
        self.paint(out, &">".repeat(head), Some(Colour::Green));
        out.push_str(&" ".repeat(inner - filled));
        out.push(']');
    }
}

/// True if this terminal, by its name, can put text in places.
pub fn can_move() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_says_which_characters_there_are_and_no_color_what_it_says() {
        let style = |variables: &[(&str, &str)]| {
            Style::by(|name| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value)))
        };
        assert_eq!(style(&[]), Style { unicode: false, colour: true });
        assert_eq!(style(&[("LANG", "en_US.UTF-8"), ("NO_COLOR", "1")]), Style { unicode: true, colour: false });
        assert!(!style(&[("LANG", "C.utf8"), ("LC_ALL", "C")]).unicode, "what stands above it counts");
        assert!(style(&[("LC_ALL", ""), ("LANG", "C.utf8"), ("NO_COLOR", "")]) == Style { unicode: true, colour: true });
    }

    #[test]
    fn a_bar_is_full_only_when_all_is_done() {
        let bar = |unicode, colour, done, total| {
            let mut out = String::new();
            Style { unicode, colour }.bar(&mut out, 6, done, total);
            out
        };
        assert_eq!([0, 2, 5, 9, 10].map(|done| bar(false, false, done, 10)), ["[    ]", "[    ]", "[=>  ]", "[==> ]", "[====]"]);
        assert_eq!(bar(true, false, 5, 10), "━━━───");
        assert_eq!(bar(true, true, 5, 10), "\x1b[32m━━━\x1b[0m\x1b[2m━━━\x1b[0m");
        assert_eq!(bar(true, false, 0, 0), "──────");
    }
}
