//! What the progress line says, fitted to the terminal's width. Pure: figures in, text out.

use std::time::Duration;

use common::Status;

use crate::style::{Colour, Style};
use crate::words;

/// The narrowest bar that shows anything, and the widest that is of use.
const BAR_COLUMNS: std::ops::RangeInclusive<usize> = 10..=40;

/// The figures of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Items that are settled, those in the dead letters among them.
    pub done: u64,
    /// All that there are, once it is known.
    pub total: Option<u64>,
    /// Settled in a second, of late.
    pub per_second: Option<f64>,
    /// Items that wait to be delivered, and those that wait for a retry.
    pub queued: u64,
    /// Items that consumers hold, or whose results are being written.
    pub in_flight: u64,
    /// Deliveries beyond each item's first.
    pub retried: u64,
    /// Items in the dead letters.
    pub dead: u64,
    /// Nothing is handed out for now.
    pub paused: bool,
}

/// A piece of the line.
struct Field {
    text: String,
    colour: Option<Colour>,
    /// Where there is no room for all, the highest goes first.
    rank: u8,
}

impl Line {
    /// By these figures.
    pub fn new(status: &Status, total: Option<u64>, per_second: Option<f64>) -> Line {
        Line {
            done: status.settled(),
            total,
            per_second,
            queued: status.ready + status.delayed,
            in_flight: status.held,
            retried: status.redelivered,
            dead: status.dead,
            paused: status.paused,
        }
    }

    /// How long the rest takes at this pace.
    fn left(&self) -> Option<Duration> {
        if self.paused {
            return None;
        }
        let left = self.total?.saturating_sub(self.done);
        let seconds = left as f64 / self.per_second.filter(|per_second| *per_second > 0.0)?;
        // Beyond a year it is no estimate.
        (left > 0 && seconds < 365.0 * 86_400.0).then(|| Duration::from_secs_f64(seconds.ceil()))
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        let mut add = |rank, colour, text: String| fields.push(Field { text, colour, rank });
        match self.total {
            Some(total) => {
                add(1, Some(Colour::Bold), format!("{:>3}%", words::percent(self.done, total)));
                add(0, None, format!("{}/{}", words::count(self.done), words::count(total)));
            }
            None => add(0, None, format!("{} done", words::count(self.done))),
        }
        if self.paused {
            add(2, Some(Colour::Yellow), "paused".into());
        } else if let Some(per_second) = self.per_second {
            add(2, None, words::rate(per_second));
        }
        if let Some(left) = self.left() {
            add(3, None, format!("ETA {}", words::time(left)));
        }
        add(6, None, format!("{} in flight", words::count(self.in_flight)));
        add(7, None, format!("{} queued", words::count(self.queued)));
        if self.retried > 0 {
            add(5, Some(Colour::Yellow), format!("{} retried", words::count(self.retried)));
        }
        if self.dead > 0 {
            add(4, Some(Colour::Red), format!("{} dead", words::count(self.dead)));
        }
        fields
    }

    /// All of it, without a bar.
    pub fn words(&self, style: Style) -> String {
        let mut text = String::new();
        append(&mut text, &self.fields(), style);
        text.trim_start().into()
    }

    /// The line in at most so many columns.
    pub fn fitted(&self, columns: usize, style: Style) -> String {
        let mut fields = self.fields();
        // Two columns between fields.
        let width_of = |fields: &[Field]| fields.iter().map(|field| field.text.len() + 2).sum::<usize>().saturating_sub(2);
        let bar_columns = |fields: &[Field]| if self.total.is_some() { columns.saturating_sub(width_of(fields) + 1) } else { 0 };
        // A bar is worth more than how much is queued or in flight, and less than what fails.
        while let Some(last) = (0..fields.len()).filter(|_| fields.len() > 1).max_by_key(|index| fields[*index].rank) {
            let lacks_bar = self.total.is_some() && bar_columns(&fields) < *BAR_COLUMNS.start() && fields[last].rank >= 6;
            if width_of(&fields) <= columns && !lacks_bar {
                break;
            }
            fields.remove(last);
        }
        if width_of(&fields) > columns {
            return String::new();
        }
        let bar = Some(bar_columns(&fields).min(*BAR_COLUMNS.end())).filter(|columns| columns >= BAR_COLUMNS.start());
        let mut text = String::new();
        if let (Some(bar_columns), Some(total)) = (bar, self.total) {
            style.bar(&mut text, bar_columns, self.done, total);
            text.push(' ');
        }
        append(&mut text, &fields, style);
        text
    }
}

fn append(text: &mut String, fields: &[Field], style: Style) {
    for (index, Field { text: words, colour, .. }) in fields.iter().enumerate() {
        text.push_str(if index > 0 { "  " } else { "" });
        style.paint(text, words, *colour);
    }
}

/// What is said at the end: what was done since `before`, in what time.
pub fn closing(status: &Status, before: &Status, took: Duration) -> String {
    let done_before = before.acknowledged;
    let now = status.acknowledged.saturating_sub(done_before);
    let mut text = format!("{} done in {}", words::count(now), words::exact_time(took));
    if now > 0 && !took.is_zero() {
        text += &format!(", {}", words::rate(now as f64 / took.as_secs_f64()));
    }
    for (number, what) in [(done_before, "done before"), (status.redelivered, "retried"), (status.dead, "dead"), (status.stored(), "left")]
    {
        if number > 0 {
            text += &format!("; {} {what}", words::count(number));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { unicode: false, colour: false };

    fn line() -> Line {
        Line { done: 421, total: Some(1000), per_second: Some(83.0), queued: 571, in_flight: 8, retried: 3, dead: 1, paused: false }
    }

    #[test]
    fn a_wide_terminal_shows_all() {
        let expected = "[==============>                       ]  42%  421/1,000  83/s  ETA 7s  8 in flight  571 queued  3 retried  1 dead";
        assert_eq!(line().fitted(200, PLAIN), expected);
        let unknown = Line { total: None, per_second: None, retried: 0, dead: 0, ..line() };
        assert_eq!(unknown.fitted(200, PLAIN), "421 done  8 in flight  571 queued");
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters_most() {
        assert_eq!(line().fitted(79, PLAIN), "[=====>         ]  42%  421/1,000  83/s  ETA 7s  8 in flight  3 retried  1 dead");
        assert_eq!(line().fitted(44, PLAIN), " 42%  421/1,000  83/s  ETA 7s  1 dead");
        assert_eq!(line().fitted(16, PLAIN), " 42%  421/1,000");
        assert_eq!(line().fitted(9, PLAIN), "421/1,000");
        assert_eq!(line().fitted(8, PLAIN), "");
    }

    #[test]
    fn at_no_width_is_it_wider() {
        for style in [PLAIN, Style { unicode: true, colour: false }] {
            for done in [0, 1, 421, 999, 1000] {
                for columns in 0..200 {
                    let text = Line { done, ..line() }.fitted(columns, style);
                    assert!(text.chars().count() <= columns, "{columns}: {text:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_paused_says_so_in_place_of_how_fast_it_is() {
        let paused = Line { paused: true, ..line() };
        assert_eq!(paused.fitted(44, PLAIN), " 42%  421/1,000  paused  3 retried  1 dead");
    }

    #[test]
    fn dead_letters_that_are_put_again_or_dropped_leave_no_gap_at_the_end() {
        let status = Status { accepted: 11, acknowledged: 8, dead: 1, dead_removed: 2, ..Status::default() };
        let line = Line::new(&status, Some(status.accepted), None);
        assert_eq!((line.done, line.left()), (11, None));
    }

    #[test]
    fn what_stands_still_or_is_over_has_no_end_to_wait_for() {
        assert_eq!(Line { per_second: Some(0.0), ..line() }.left(), None);
        assert_eq!(Line { per_second: Some(1e-9), ..line() }.left(), None);
        assert_eq!(Line { done: 1000, ..line() }.left(), None);
        assert_eq!(Line { total: Some(0), done: 0, ..line() }.left(), None);
    }

    #[test]
    fn the_closing_line_says_what_was_done_now_and_what_before() {
        let status = Status { acknowledged: 1000, dead: 10, redelivered: 40, ready: 5, ..Status::default() };
        let before = Status { acknowledged: 400, dead: 3, ..Status::default() };
        let took = Duration::from_secs(12);
        assert_eq!(closing(&status, &before, took), "600 done in 12.0s, 50/s; 400 done before; 40 retried; 10 dead; 5 left");
        assert_eq!(closing(&Status::default(), &Status::default(), Duration::ZERO), "0 done in 0 ms");
    }
}
