//! What a worker says on stderr: passed on line by line, with the item that it is about in front.

use std::io::Write;

use common::ItemId;

use crate::limits::STDERR_LINE_BYTES_MAX;

/// Items that a line may be about: the first and the last; the worker was at one of them.
pub(super) type About = Option<(ItemId, ItemId)>;

/// Lines on their way.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Passes on what came, as far as it is whole lines.
    pub(super) fn pass_on(&mut self, came: &[u8], about: About) {
        self.pass_to(came, about, say);
    }

    /// Passes on what is left of a line that was not ended.
    pub(super) fn end(&mut self, about: About) {
        if !self.begun.is_empty() {
            self.pass_on(b"\n", about);
        }
    }

    fn pass_to(&mut self, came: &[u8], about: About, mut say: impl FnMut(&[u8])) {
        let front = match about {
            None => String::new(),
            Some((first, last)) if first == last => format!("item {}: ", first.0),
            Some((first, last)) => format!("items {} to {}: ", first.0, last.0),
        };
        let room = STDERR_LINE_BYTES_MAX - front.len() - 1;
        let mut line = front.clone().into_bytes();
        for piece in came.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            let is_whole = piece.ends_with(b"\n");
            while self.begun.len() > room || is_whole {
                let rest = self.begun.split_off(cut_at(&self.begun, room));
                line.truncate(front.len());
                line.append(&mut self.begun);
                line.push(b'\n');
                say(&line);
                self.begun = rest;
                if self.begun.is_empty() {
                    break;
                }
            }
        }
    }
}

/// Where a line of at most `room` bytes ends, if possible not within a character.
fn cut_at(line: &[u8], room: usize) -> usize {
    if line.len() <= room {
        return line.len();
    }
    let goes_on = |at: &usize| line[*at] & 0b1100_0000 == 0b1000_0000;
    (room - 3..=room).rev().find(|at| !goes_on(at)).unwrap_or(room)
}

/// In one piece. If it cannot be said, there is nobody left to tell, and the work goes on.
fn say(line: &[u8]) {
    let _ = std::io::stderr().lock().write_all(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &mut Lines, came: &[u8], about: About) -> Vec<String> {
        let mut all = Vec::new();
        lines.pass_to(came, about, |line| all.push(String::from_utf8(line.to_vec()).unwrap()));
        all
    }

    #[test]
    fn lines_go_out_whole_with_what_they_are_about() {
        let mut lines = Lines::default();
        assert_eq!(said(&mut lines, b"one\ntw", Some((ItemId(7), ItemId(7)))), ["item 7: one\n"]);
        assert_eq!(
            said(&mut lines, b"o\n\nthree\n", Some((ItemId(8), ItemId(9)))),
            ["items 8 to 9: two\n", "items 8 to 9: \n", "items 8 to 9: three\n"]
        );
        assert_eq!(said(&mut lines, b"idle\nand", None), ["idle\n"]);
        assert_eq!(said(&mut lines, b"\n", None), ["and\n"]);
    }

    #[test]
    fn a_line_that_a_pipe_would_tear_is_cut_between_characters() {
        let mut lines = Lines::default();
        let long = "é".repeat(5000);
        let mut all = said(&mut lines, long.as_bytes(), Some((ItemId(1), ItemId(1))));
        all.extend(said(&mut lines, b"\n", Some((ItemId(1), ItemId(1)))));
        assert!(all.len() == 3 && all.iter().all(|line| line.len() <= STDERR_LINE_BYTES_MAX), "{}", all.len());
        assert_eq!(all.iter().map(|line| line.strip_prefix("item 1: ").unwrap().trim_end()).collect::<String>(), long);
    }

    #[test]
    fn a_line_that_just_fits_is_not_cut() {
        let line = "x".repeat(STDERR_LINE_BYTES_MAX - 1) + "\n";
        assert_eq!(said(&mut Lines::default(), line.as_bytes(), None), [line]);
    }
}
