//! Showing the queue's figures, for people and for programs.

pub mod prometheus;

use std::time::Duration;

use common::Status;
use common::status::{Phase, SharedStatus};
use serde::Serialize;

use crate::words;

/// The version of the JSON form: raised when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

#[derive(Serialize)]
struct Versioned<'a> {
    version: u32,
    #[serde(flatten)]
    status: &'a Status,
}

/// One line of JSON.
pub fn as_json(status: &Status) -> String {
    #[expect(clippy::expect_used, reason = "numbers and strings can always be written as JSON")]
    serde_json::to_string(&Versioned { version: JSON_VERSION, status }).expect("a status is JSON")
}

/// A few lines of text, one for each thing.
pub fn in_words(status: &Status) -> String {
    let uptime = words::time(Duration::from_millis(status.uptime_ms));
    let count = words::count;
    let items = [
        ("ready", status.ready),
        ("delayed", status.delayed),
        ("held", status.held),
        ("done", status.acknowledged),
        ("dead", status.dead),
        ("retried", status.redelivered),
    ];
    let of = |part: String, whole: String, percent: u64| format!("{part} of {whole} ({percent}%)");
    let (stored, capacity) = (status.stored(), status.capacity_items);
    let lines = [
        ("coordinator", format!("pid {}, up {uptime}", status.pid)),
        ("phase", doing_in_words(status).into()),
        ("items", items.map(|(what, number)| format!("{} {what}", count(number))).join(", ")),
        ("capacity", of(count(stored), format!("{} items", count(capacity)), words::percent(stored, capacity))),
        ("bytes", of(words::size(status.bytes), words::size(status.capacity_bytes), words::percent(status.bytes, status.capacity_bytes))),
        (
            "producers",
            format!(
                "{} connected, {} waiting for room, {} finished",
                count(status.producers),
                count(status.producers_waiting),
                count(status.producers_finished)
            ),
        ),
        ("consumers", format!("{} connected, {} waiting for items", count(status.consumers), count(status.consumers_waiting))),
    ];
    let shared = status
        .shared
        .map(|shared| ("shared", format!("{}; what is held, done and so on above is this machine's", shared_in_words(&shared))));
    lines.into_iter().chain(shared).map(|(what, words)| format!("{what:<13}{words}\n")).collect()
}

/// What is known of the other machines.
pub fn shared_in_words(shared: &SharedStatus) -> String {
    let SharedStatus { items: _, next_id: _, machines, producers_expected, producers_finished } = *shared;
    let (count, many) = (words::count, if machines == 1 { "machine" } else { "machines" });
    format!("{} {many}, {} of {} producers finished", count(machines), count(producers_finished), count(producers_expected))
}

/// What the queue does.
pub fn doing_in_words(status: &Status) -> &'static str {
    match status.phase {
        Phase::Running if status.paused => "paused: hands out nothing",
        Phase::Draining if status.paused => "draining, and paused: takes no more items, and hands out nothing",
        Phase::Running => "running",
        Phase::Draining => "draining: takes no more items",
        Phase::Stopping => "stopping: waits for what consumers hold",
        Phase::Done => "done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_begins_with_its_version_and_names_every_figure() {
        let json = as_json(&Status { ready: 3, phase: Phase::Draining, ..Status::default() });
        assert!(json.starts_with(r#"{"version":1,"pid":0,"#) && json.contains(r#""phase":"draining","ready":3"#), "{json}");
    }

    #[test]
    fn words_show_how_full_the_queue_is() {
        let status = Status { ready: 3, held: 1, capacity_items: 8, capacity_bytes: 64 << 20, bytes: 16 << 20, ..Status::default() };
        let words = in_words(&status);
        assert!(words.contains("\ncapacity     4 of 8 items (50%)\nbytes        16.0 MiB of 64.0 MiB (25%)\n"), "{words}");
    }
}
