//! Showing the queue's figures, for people and for programs.

use common::Status;
use common::status::Phase;
use serde::Serialize;

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

/// A few lines of text.
pub fn in_words(status: &Status) -> String {
    let phase = match status.phase {
        Phase::Running if status.paused => "paused: hands out nothing",
        Phase::Draining if status.paused => "draining, and paused: takes no more items, and hands out nothing",
        Phase::Running => "running",
        Phase::Draining => "draining: takes no more items",
        Phase::Stopping => "stopping: waits for what consumers hold",
        Phase::Done => "done",
    };
    let uptime = humantime::format_duration(std::time::Duration::from_secs(status.uptime_ms / 1000));
    let percent = |part: u64, whole: u64| 100 * part / whole.max(1);
    format!(
        "coordinator  pid {}, up {uptime}, {phase}\n\
         items        {} ready, {} delayed, {} held; {} done, {} dead, {} delivered again\n\
         capacity     {} of {} items ({}%), {} of {} bytes ({}%)\n\
         producers    {} connected, {} waiting for room, {} finished\n\
         consumers    {} connected, {} waiting for items\n",
        status.pid,
        status.ready,
        status.delayed,
        status.held,
        status.acknowledged,
        status.dead,
        status.redelivered,
        status.stored(),
        status.capacity_items,
        percent(status.stored(), status.capacity_items),
        status.bytes,
        status.capacity_bytes,
        percent(status.bytes, status.capacity_bytes),
        status.producers,
        status.producers_waiting,
        status.producers_finished,
        status.consumers,
        status.consumers_waiting,
    )
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
        let status = Status { ready: 3, held: 1, capacity_items: 8, capacity_bytes: 100, bytes: 25, ..Status::default() };
        let words = in_words(&status);
        assert!(words.contains("4 of 8 items (50%), 25 of 100 bytes (25%)"), "{words}");
    }
}
