//! The queue's figures in Prometheus' text format.

use std::fmt::Write;

use common::Status;
use common::status::Phase;

/// What the format calls itself over HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A figure, or several under one name that a label tells apart.
struct Metric<'a> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: &'a [(&'a str, f64)],
}

/// All figures, each with what it means.
pub fn as_text(status: &Status) -> String {
    let phase = |phase: Phase| f64::from(u8::from(status.phase == phase));
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    let count = |number: u64| number as f64;
    let metrics = [
        gauge("procq_build_info", "The coordinator's version; always 1.", &[(version, 1.0)]),
        gauge("procq_uptime_seconds", "Time since the coordinator began.", &[("", status.uptime_ms as f64 / 1000.0)]),
        gauge(
            "procq_phase",
            "What the queue as a whole does: 1 for the phase it is in, else 0.",
            &[
                ("phase=\"running\"", phase(Phase::Running)),
                ("phase=\"draining\"", phase(Phase::Draining)),
                ("phase=\"stopping\"", phase(Phase::Stopping)),
                ("phase=\"done\"", phase(Phase::Done)),
            ],
        ),
        gauge("procq_paused", "1 while it is told to hand out nothing, else 0.", &[("", f64::from(u8::from(status.paused)))]),
        gauge(
            "procq_items",
            "Items in the queue: waiting to be delivered, waiting for a retry, held by consumers or being written.",
            &[
                ("state=\"ready\"", count(status.ready)),
                ("state=\"delayed\"", count(status.delayed)),
                ("state=\"held\"", count(status.held)),
            ],
        ),
        gauge("procq_capacity_items", "The most items that the queue holds.", &[("", count(status.capacity_items))]),
        gauge("procq_stored_bytes", "Bytes that the items in the queue cost.", &[("", count(status.bytes))]),
        gauge("procq_capacity_bytes", "The most bytes that the queue holds.", &[("", count(status.capacity_bytes))]),
        counter("procq_items_accepted_total", "Items accepted.", count(status.accepted)),
        counter("procq_items_acknowledged_total", "Items done.", count(status.acknowledged)),
        counter("procq_items_dead_total", "Items that went to the dead letters.", count(status.dead + status.dead_removed)),
        counter("procq_dead_letters_removed_total", "Dead letters that were put again or dropped.", count(status.dead_removed)),
        gauge("procq_dead_letters", "Dead letters that are there now.", &[("", count(status.dead))]),
        gauge(
            "procq_redelivered_items",
            "Deliveries beyond each item's first. Falls when a consumer gives back what it has not begun.",
            &[("", count(status.redelivered))],
        ),
        gauge("procq_producers", "Connected producers.", &[("", count(status.producers))]),
        gauge("procq_producers_waiting", "Connected producers that wait for room.", &[("", count(status.producers_waiting))]),
        counter("procq_producers_finished_total", "Producers that have finished.", count(status.producers_finished)),
        gauge("procq_consumers", "Connected consumers.", &[("", count(status.consumers))]),
        gauge("procq_consumers_waiting", "Connected consumers that wait for items.", &[("", count(status.consumers_waiting))]),
    ];
    let shared = status.shared.map(|shared| {
        [
            gauge("procq_shared_items", "Items of a shared queue that are not settled, at whatever machine.", &[("", count(shared.items))]),
            gauge("procq_shared_machines", "Machines that take part in a shared queue.", &[("", count(shared.machines))]),
            gauge(
                "procq_shared_producers",
                "Producers that any machine of a shared queue waits for, or has waited for.",
                &[("", count(shared.producers_expected))],
            ),
            gauge("procq_shared_producers_finished", "Those of them that have finished.", &[("", count(shared.producers_finished))]),
        ]
    });
    metrics.into_iter().chain(shared.into_iter().flatten()).collect()
}

fn gauge(name: &'static str, help: &'static str, values: &[(&str, f64)]) -> String {
    Metric { name, kind: "gauge", help, values }.as_text()
}

fn counter(name: &'static str, help: &'static str, value: f64) -> String {
    Metric { name, kind: "counter", help, values: &[("", value)] }.as_text()
}

impl Metric<'_> {
    fn as_text(&self) -> String {
        let Metric { name, kind, help, values } = self;
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (label, value) in *values {
            let label = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}{label} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::status::SharedStatus;
    use prometheus_parse::{Scrape, Value};

    #[test]
    fn a_parser_of_the_format_finds_every_figure_with_its_type_and_meaning() {
        let status = Status {
            ready: 3,
            held: 1,
            accepted: 1 << 53,
            acknowledged: 77,
            bytes: 4096,
            dead: 2,
            dead_removed: 5,
            paused: true,
            uptime_ms: 1500,
            phase: Phase::Draining,
            shared: Some(SharedStatus { items: 9, machines: 3, ..SharedStatus::default() }),
            ..Status::default()
        };
        let text = as_text(&status);
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_string()))).unwrap();
        let value = |metric: &str, label: &str| {
            let mut samples = scrape.samples.iter().filter(|sample| sample.metric == metric);
            let sample = samples.find(|sample| label.is_empty() || sample.labels.values().any(|value| value == label));
            match sample.unwrap_or_else(|| panic!("no {metric} {label}")).value {
                Value::Counter(value) => ("counter", value),
                Value::Gauge(value) => ("gauge", value),
                ref other => panic!("{metric} is {other:?}"),
            }
        };
        assert_eq!(value("procq_items", "ready"), ("gauge", 3.0));
        assert_eq!(value("procq_items", "held"), ("gauge", 1.0));
        assert_eq!(value("procq_items_accepted_total", ""), ("counter", (1u64 << 53) as f64));
        assert_eq!(value("procq_items_acknowledged_total", ""), ("counter", 77.0));
        assert_eq!([value("procq_items_dead_total", ""), value("procq_dead_letters", "")], [("counter", 7.0), ("gauge", 2.0)]);
        assert_eq!(value("procq_paused", ""), ("gauge", 1.0));
        assert_eq!(value("procq_stored_bytes", ""), ("gauge", 4096.0));
        assert_eq!(value("procq_uptime_seconds", ""), ("gauge", 1.5));
        assert_eq!([value("procq_phase", "draining"), value("procq_phase", "running")], [("gauge", 1.0), ("gauge", 0.0)]);
        assert_eq!(value("procq_build_info", env!("CARGO_PKG_VERSION")), ("gauge", 1.0));
        for sample in &scrape.samples {
            assert!(scrape.docs.contains_key(&sample.metric), "{} has no HELP", sample.metric);
            assert_eq!(matches!(sample.value, Value::Counter(_)), sample.metric.ends_with("_total"), "{}", sample.metric);
        }
        assert!(text.ends_with('\n') && text.is_ascii());
    }

    #[test]
    fn every_figure_of_a_status_is_there() {
        // Each number gets a value of its own, which is to be found.
        fn number_all(value: &mut serde_json::Value, path: &str, numbered: &mut Vec<(String, u64)>) {
            match value {
                serde_json::Value::Object(fields) => {
                    fields
                        .iter_mut()
                        .filter(|(name, _)| !["pid", "next_id"].contains(&&name[..]))
                        .for_each(|(name, value)| number_all(value, name, numbered));
                }
                serde_json::Value::Number(_) => {
                    let number = 7_001_000 + 1000 * numbered.len() as u64;
                    *value = number.into();
                    numbered.push((path.to_string(), number));
                }
                _ => {}
            }
        }
        let mut fields = serde_json::to_value(Status { shared: Some(SharedStatus::default()), ..Status::default() }).unwrap();
        let mut numbered = Vec::new();
        number_all(&mut fields, "", &mut numbered);
        assert!(numbered.len() > 20);
        let text = as_text(&serde_json::from_value(fields).unwrap());
        for (name, number) in numbered {
            let shown = if name == "uptime_ms" { number / 1000 } else { number };
            assert!(text.lines().any(|line| line.ends_with(&format!(" {shown}"))), "{name} is not shown");
        }
    }
}
