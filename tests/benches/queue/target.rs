//! What procq is to reach on two cores: a ratio of its figure to another's in the same run, or a figure by itself.

use std::fmt;

use crate::peer::Case;
use crate::report::short;

#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// procq's figure by the other's.
    AtLeast(f64),
    /// procq's figure by the other's.
    AtMost(f64),
    /// procq's figure itself.
    Below(f64),
    /// procq's figure itself.
    Within(f64),
    /// procq's figure itself.
    Reached(f64),
}

impl Target {
    /// What items per second have to reach, by the other's name.
    pub fn of_rate(case: Case, other: &str) -> Option<Target> {
        let at_least = match (case.size, other) {
            _ if other.starts_with("multiprocessing") => match case.size {
                8 | 128 => 100.0,
                size if size >= 64 * 1024 => 4.0,
                _ => return None,
            },
            _ if other == OWN_ONE_TO_ONE => 0.7,
            _ if case.fan != 1 => return None,
            (8, "crossbeam-channel") => 1.1,
            (8, "limit") => 0.35,
            (128, "crossbeam-channel") => 3.0,
            (128, "limit") => 0.6,
            (1024, "limit") => 0.7,
            (size, "limit") if size >= 64 * 1024 => 0.8,
            _ => return None,
        };
        Some(Target::AtLeast(at_least))
    }

    /// What the microseconds of a round trip have to stay within, by the percentile and the other's name.
    pub fn of_trip(percentile: &str, other: &str) -> Option<Target> {
        match (percentile, other) {
            ("p50", "limit") => Some(Target::AtMost(1.25)),
            ("p99", _) if other.starts_with("multiprocessing") => Some(Target::AtMost(1.0)),
            _ => None,
        }
    }

    /// What jobs per second have to reach, by the other's name.
    pub fn of_commands(other: &str) -> Option<Target> {
        match other {
            "xargs -P2 -n1" => Some(Target::AtLeast(1.0)),
            "GNU parallel -j2" => Some(Target::AtLeast(6.0)),
            _ => None,
        }
    }

    /// What the milliseconds of the default run without pauses have to stay within.
    pub fn of_default_run(name: &str) -> Option<Target> {
        match name {
            "procq" => Some(Target::Below(30.0)),
            _ => Some(Target::AtMost(0.5)),
        }
    }

    /// True when it is about the ratio, not about the figure itself.
    pub fn is_of_ratio(self) -> bool {
        matches!(self, Target::AtLeast(_) | Target::AtMost(_))
    }

    pub fn is_met(self, figure: f64, ratio: f64) -> bool {
        match self {
            Target::AtLeast(target) => ratio >= target,
            Target::AtMost(target) => ratio <= target,
            Target::Below(target) => figure < target,
            Target::Within(target) => figure <= target,
            Target::Reached(target) => figure >= target,
        }
    }
}

/// procq's own rate with one producer and one consumer, beside that with four each.
pub const OWN_ONE_TO_ONE: &str = "procq, 1→1";

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtLeast(target) => write!(f, "≥ {target}"),
            Target::AtMost(target) => write!(f, "≤ {target}"),
            Target::Below(target) => write!(f, "itself < {target}"),
            Target::Within(target) => write!(f, "itself ≤ {target}"),
            Target::Reached(target) => write!(f, "itself ≥ {}", short(*target)),
        }
    }
}
