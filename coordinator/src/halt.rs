//! When a run is given up because too much of it fails: `--halt`, as GNU parallel has it.

use std::fmt;
use std::str::FromStr;

use crate::limits::HALT_PERCENT_LETTERS_MIN;

/// When, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Failures end nothing.
    Never,
    /// They do.
    When {
        /// What consumers hold is ended, too, instead of brought to its end.
        now: bool,
        /// How many.
        failures: Failures,
    },
}

/// How many items must have gone to the dead letters since the coordinator has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// So many.
    Count(u64),
    /// So many of a hundred that are done or dead, and [`HALT_PERCENT_LETTERS_MIN`] at least.
    Percent(u64),
}

impl Failures {
    /// True when these are enough.
    pub fn are_met(self, dead: u64, done: u64) -> bool {
        match self {
            Failures::Count(count) => dead >= count,
            Failures::Percent(percent) => dead >= HALT_PERCENT_LETTERS_MIN && dead * 100 >= percent * (dead + done),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Halt::When { now, failures } = self else { return f.write_str("never") };
        f.write_str(if *now { "now,fail=" } else { "soon,fail=" })?;
        match failures {
            Failures::Count(count) => write!(f, "{count}"),
            Failures::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Halt, String> {
        if text == "never" {
            return Ok(Halt::Never);
        }
        let expected = "expected `never`, `soon,fail=N`, `now,fail=N`, or X% in place of N";
        let (when, why) = text.split_once(',').ok_or(expected)?;
        let now = match when {
            "now" => true,
            "soon" => false,
            _ => return Err(expected.into()),
        };
        let failures = match why.split_once('=') {
            Some(("fail", number)) => number,
            Some(("success" | "done", _)) => return Err(format!("only `fail` can halt a run; {expected}")),
            _ => return Err(expected.into()),
        };
        let (number, is_percent) = failures.strip_suffix('%').map_or((failures, false), |number| (number, true));
        let most = if is_percent { 100 } else { u64::MAX };
        let number: u64 = number.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
            let unit = if is_percent { "percentage from 1 to 100" } else { "number from 1 on" };
            format!("{failures} is no {unit}; {expected}")
        })?;
        Ok(Halt::When { now, failures: if is_percent { Failures::Percent(number) } else { Failures::Count(number) } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_as_it_was_and_anything_else_is_refused() {
        for text in ["never", "soon,fail=1", "now,fail=20", "soon,fail=5%", "now,fail=100%"] {
            assert_eq!(text.parse::<Halt>().unwrap().to_string(), text);
        }
        for text in ["", "now", "later,fail=1", "now,fail", "now,fail=0", "now,fail=0%", "now,fail=101%", "now,fail=-1", "now,fail=1,"] {
            assert!(text.parse::<Halt>().unwrap_err().contains("now,fail=N"), "{text}");
        }
        assert!("now,success=1".parse::<Halt>().unwrap_err().contains("only `fail`"));
    }

    #[test]
    fn a_percentage_counts_from_the_third_failure_on() {
        let half = Failures::Percent(50);
        assert!(!half.are_met(2, 0) && half.are_met(3, 3) && !half.are_met(3, 4));
        assert!(!Failures::Count(2).are_met(1, 0) && Failures::Count(2).are_met(2, 1000));
    }
}
