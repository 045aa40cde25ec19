//! What was measured, as a table for people and as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::sample::Sample;
use crate::target::Target;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    ItemsPerSecond,
    JobsPerSecond,
    Microseconds,
    Milliseconds,
    Seconds,
    KiB,
    MiB,
    Bytes,
    Times,
    Ticks,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::ItemsPerSecond => "items/s",
            Unit::JobsPerSecond => "jobs/s",
            Unit::Microseconds => "µs",
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::KiB => "KiB",
            Unit::MiB => "MiB",
            Unit::Bytes => "B",
            Unit::Times => "×",
            Unit::Ticks => "ticks",
        }
    }
}

/// One contestant's figure.
pub struct Row {
    pub name: String,
    pub sample: Sample,
    target: Option<Target>,
}

impl Row {
    pub fn new(name: &str, sample: Sample, target: Option<Target>) -> Row {
        Row { name: name.to_string(), sample, target }
    }
}

/// Figures that can be compared with the first, which is procq's.
pub struct Group {
    pub title: String,
    pub unit: Unit,
    pub rows: Vec<Row>,
}

/// What was not measured, and why.
pub struct LeftOut {
    pub name: String,
    pub why: String,
}

impl LeftOut {
    pub fn new(name: &str, why: &str) -> LeftOut {
        LeftOut { name: name.to_string(), why: why.to_string() }
    }
}

impl Group {
    pub fn new(title: &str, unit: Unit, rows: Vec<Row>) -> Group {
        Group { title: title.to_string(), unit, rows }
    }

    /// The first row's figure by another's.
    fn ratio(&self, at: usize) -> Option<Sample> {
        (at > 0).then(|| self.rows[0].sample.ratio(&self.rows[at].sample))
    }

    fn is_met(&self, at: usize) -> Option<bool> {
        let row = &self.rows[at];
        let ratio = self.ratio(at).map_or(1.0, |ratio| ratio.median());
        row.target.map(|target| target.is_met(row.sample.median(), ratio))
    }

    fn json(&self) -> Value {
        let figures =
            |sample: &Sample| json!({ "median": sample.median(), "min": sample.min(), "max": sample.max(), "turns": sample.values() });
        let rows = self.rows.iter().enumerate().map(|(at, row)| {
            json!({
                "name": row.name,
                "figure": figures(&row.sample),
                "first_by_this": self.ratio(at).as_ref().map(figures),
                "target": row.target.map(|target| target.to_string()),
                "met": self.is_met(at),
            })
        });
        json!({ "title": self.title, "unit": self.unit.name(), "rows": rows.collect::<Vec<_>>() })
    }
}

pub struct Report {
    pub machine: String,
    pub turns: usize,
    /// procq beside others.
    pub peers: Vec<Group>,
    /// procq beside itself.
    pub growth: Vec<Group>,
    /// procq with a journal.
    pub durable: Vec<Group>,
    /// procq at servers.
    pub shared: Vec<Group>,
    pub left_out: Vec<LeftOut>,
}

impl Report {
    pub fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "turns": self.turns,
            "peers": self.peers.iter().map(Group::json).collect::<Vec<_>>(),
            "durable": self.durable.iter().map(Group::json).collect::<Vec<_>>(),
            "shared": self.shared.iter().map(Group::json).collect::<Vec<_>>(),
            "growth": self.growth.iter().map(Group::json).collect::<Vec<_>>(),
            "left_out": self.left_out.iter().map(|left_out| json!({ "name": left_out.name, "why": left_out.why })).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {} turns, medians (least–most); every item verified", self.machine, self.turns)?;
        writeln!(f, "ratio: the figure of its group's first row by the row's own, turn by turn\n")?;
        writeln!(f, "{:32} {:>9}  {:18} {:>7} {:20} {:11}", "", "median", "spread", "ratio", "spread", "target")?;
        let (mut met, mut missed) = (0, Vec::new());
        for group in self.peers.iter().chain(&self.durable).chain(&self.shared).chain(&self.growth) {
            writeln!(f, "{}, {}", group.title, group.unit.name())?;
            for (at, row) in group.rows.iter().enumerate() {
                let ratio = group.ratio(at);
                let is_met = group.is_met(at);
                let line = format!(
                    "  {:30} {:>9}  {:18} {:>7} {:20} {:11} {}",
                    row.name,
                    short(row.sample.median()),
                    spread(&row.sample),
                    ratio.as_ref().map(|ratio| short(ratio.median())).unwrap_or_default(),
                    ratio.as_ref().map(spread).unwrap_or_default(),
                    row.target.map(|target| target.to_string()).unwrap_or_default(),
                    is_met.map_or("", |is_met| if is_met { "met" } else { "MISSED" })
                );
                writeln!(f, "{}", line.trim_end())?;
                met += usize::from(is_met == Some(true));
                if let (Some(target), Some(false)) = (row.target, is_met) {
                    let came = short(ratio.as_ref().filter(|_| target.is_of_ratio()).unwrap_or(&row.sample).median());
                    missed.push(format!("missed: {}, {}: {came}, target {target}", group.title, row.name));
                }
            }
        }
        for LeftOut { name, why } in &self.left_out {
            writeln!(f, "left out: {name}: {why}")?;
        }
        for missed in &missed {
            writeln!(f, "{missed}")?;
        }
        writeln!(f, "{met} of {} targets met", met + missed.len())
    }
}

fn spread(sample: &Sample) -> String {
    format!("({}–{})", short(sample.min()), short(sample.max()))
}

/// Three digits, and k or M for thousands and millions.
pub fn short(figure: f64) -> String {
    let (figure, letter) = match figure {
        _ if figure >= 999_500.0 => (figure / 1e6, " M"),
        _ if figure >= 9_995.0 => (figure / 1e3, " k"),
        _ => (figure, ""),
    };
    let decimals = match figure {
        _ if figure >= 99.95 => 0,
        _ if figure >= 9.995 => 1,
        _ => 2,
    };
    format!("{figure:.decimals$}{letter}")
}
