//! What can be said of a queue, and what of that goes together.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueHint};
use common::Endpoint;
use common::backoff::Backoff;
use common::limits::{CAPACITY_ITEMS_DEFAULT, ITEM_BYTES_MAX_CEILING, ITEM_BYTES_MAX_DEFAULT, batch_cost_bytes};

use crate::halt::Halt;
use crate::jetstream::Address;
use crate::journal::Fsync;
use crate::limits::{DEAD_BYTES_MAX, DEAD_LETTERS_MAX, EARLY_BYTES_MAX, LEASE_GRACE, NEAR_BYTES, UNWRITTEN_BYTES_MAX};
use crate::metrics::Loopback;
use crate::progress::When;
use crate::queue::{Lease, Rules, Window};

/// A queue's bounds and rules.
#[derive(Debug, Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueArgs {
    /// The queue's socket [default: one per user]
    ///
    /// By default $XDG_RUNTIME_DIR/procq/default.sock, else /tmp/procq-UID/default.sock. Two coordinators at once need one each. Its directory
    /// must be the user's own, and writable by nobody else; it is made if it does not exist.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, env = "PROCQ_SOCKET")]
    pub socket: Option<OsString>,

    /// The most items in the queue
    ///
    /// When it is full, producers wait. An item counts until it is settled: those that consumers hold are included.
    #[arg(long, value_name = "ITEMS", default_value_t = CAPACITY_ITEMS_DEFAULT, env = "PROCQ_CAPACITY",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub capacity: u64,

    /// The most bytes in the queue
    ///
    /// An item costs its bytes, and each frame of items 192 more. With --journal this bounds what is on disk.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", env = "PROCQ_CAPACITY_BYTES")]
    pub capacity_bytes: ByteSize,

    /// The largest item, and the largest result [default: 16MiB]
    ///
    /// At most 1GiB; the default is lower where --capacity-bytes holds less.
    #[arg(long, value_name = "SIZE", env = "PROCQ_MAX_ITEM", hide_short_help = true)]
    pub max_item: Option<ByteSize>,

    /// How often an item may fail before it is a dead letter
    #[arg(long, value_name = "N", default_value_t = 5, env = "PROCQ_MAX_ATTEMPTS", help_heading = "Failure", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,

    /// How soon a failed item comes again
    ///
    /// At first, and at most: it doubles from failure to failure of the same item, and each item's is up to a quarter shorter, so that not
    /// all come again at once.
    #[arg(long, value_name = "DUR..DUR", default_value = "1s..60s", env = "PROCQ_RETRY_DELAY", help_heading = "Failure")]
    pub retry_delay: Backoff,

    /// End an attempt that takes longer
    ///
    /// It counts as a failed one; without this, an attempt may take any time. A command gets TERM, with all that it has started, and KILL a second later. From a consumer that does not end it by itself, the item is
    /// taken back two seconds after its time.
    #[arg(long, value_name = "DUR", value_parser = parse_item_timeout, env = "PROCQ_ITEM_TIMEOUT", help_heading = "Failure")]
    pub item_timeout: Option<Duration>,

    /// Write results in the order of their items
    ///
    /// However long each takes: results that come early wait for those before them, in bounded memory.
    #[arg(long, env = "PROCQ_KEEP_ORDER", help_heading = "Results")]
    pub keep_order: bool,

    /// Give up when too many items are dead letters
    ///
    /// `soon,fail=N` begins no more items once N have gone to the dead letters, and ends when what runs is done; `now,fail=N` ends what runs,
    /// too. `fail=X%` is a share of the items done or dead, from the third dead one on. Exit code 1.
    #[arg(long, value_name = "WHEN", default_value_t = Halt::Never, env = "PROCQ_HALT", help_heading = "Failure")]
    pub halt: Halt,

    /// Append dead letters to FILE as JSON lines, not to stderr
    ///
    /// Each has the item's id, the attempts, the cause of the last failure, and the item (`item_base64` for one that is not UTF-8).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_DEAD_LETTERS", help_heading = "Failure")]
    pub dead_letters: Option<PathBuf>,

    /// Write results to FILE instead of stdout
    ///
    /// With --journal each is in the file exactly once, however often the coordinator dies.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PROCQ_OUTPUT", help_heading = "Results")]
    pub output: Option<PathBuf>,

    /// Keep the queue in DIR, so that it outlives the coordinator
    ///
    /// Started again with the same line, the run goes on where it was. The directory belongs to one user and one coordinator at a time; it is
    /// made if it does not exist.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, env = "PROCQ_JOURNAL")]
    pub journal: Option<PathBuf>,

    /// Share the queue with other machines, over NATS JetStream
    ///
    /// The queue's items are at NATS servers with JetStream, and every coordinator that names the same queue with the same bounds takes part: producers and
    /// consumers notice nothing. nats://HOST:PORT/QUEUE, with several servers as nats://A,B,C/QUEUE, tls:// for TLS, and ?creds=FILE&ca=FILE&cert=FILE&key=FILE&domain=NAME&replicas=N&storage=memory.
    /// ca is whom to trust instead of the system's authorities; with it, or with cert and key, nothing goes without TLS.
    /// ack_wait=30s (1s to 10m, the same on all machines) is how soon another machine gets what a dead one held, lost=20s (6s to 10m) how soon a machine that says nothing is
    /// given up, and its producers with it.
    #[arg(long, value_name = "URL", env = "PROCQ_ENGINE", conflicts_with_all = ["journal", "keep_order"])]
    pub engine: Option<Address>,

    /// Wait for the disk
    ///
    /// Before a put is confirmed. What is confirmed then survives the machine's death, too; with `never`, the death of processes alone.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Fsync::Always, env = "PROCQ_FSYNC", hide_short_help = true)]
    pub fsync: Fsync,

    /// How long a first signal waits for held items
    ///
    /// INT, TERM or HUP. Those that consumers have at hand are finished, the rest is left. A second one ends it at once.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "10s", env = "PROCQ_GRACE", help_heading = "Failure")]
    pub grace: Duration,

    /// Show progress: auto, always or never
    ///
    /// On stderr; auto: of a run with --input, where that is a terminal. While the line is there, what commands write to stderr passes through the coordinator.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto, env = "PROCQ_PROGRESS", help_heading = "Results", hide_possible_values = true)]
    pub progress: When,

    /// Serve the figures at http://ADDR/metrics, for Prometheus
    ///
    /// Say 127.0.0.1:9464, or port 0 for any that is free. On loopback only: anyone on this machine gets to them, and nobody else.
    #[arg(long, value_name = "ADDR", env = "PROCQ_METRICS", hide_short_help = true)]
    pub metrics: Option<Loopback>,

    /// Before sleeping, keep looking for news this long, say 50us
    ///
    /// Lower latency for a busy core; pays only where one is free for each process that waits.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, default_value = "0s", env = "PROCQ_SPIN", hide_short_help = true)]
    pub spin: Duration,
}

impl QueueArgs {
    /// The socket of this queue.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::named(self.socket.as_deref())
    }

    /// The queue's rules; an error says which bounds do not go together.
    pub fn rules(&self, producers_expected: Option<u64>) -> Result<Rules, String> {
        // One item alone in its batch costs this beyond its own bytes.
        let around = batch_cost_bytes(4);
        let capacity_bytes = self.capacity_bytes.as_u64();
        let Some(most) = capacity_bytes.checked_sub(around) else {
            return Err(format!("--capacity-bytes {capacity_bytes} holds no item: give {around} bytes or more"));
        };
        let item_bytes_max = match self.max_item {
            Some(size) => size.as_u64(),
            None => ITEM_BYTES_MAX_DEFAULT.min(most),
        };
        if item_bytes_max > ITEM_BYTES_MAX_CEILING {
            return Err(format!(
                "--max-item {item_bytes_max} is over the limit of {ITEM_BYTES_MAX_CEILING} bytes; put a file's name instead of its contents"
            ));
        }
        if item_bytes_max > most {
            return Err(format!(
                "--max-item {item_bytes_max} does not fit into --capacity-bytes {capacity_bytes}: an item costs {around} bytes beyond its own; \
                 give --capacity-bytes {} or more",
                item_bytes_max.saturating_add(around)
            ));
        }
        let window = Window { near_bytes: NEAR_BYTES, unwritten_bytes: UNWRITTEN_BYTES_MAX };
        Ok(Rules {
            capacity_items: self.capacity,
            capacity_bytes,
            item_bytes_max,
            attempts_max: self.max_attempts,
            retry_delay: self.retry_delay,
            lease: self.item_timeout.map(|item_timeout| Lease { item_timeout, grace: LEASE_GRACE }),
            early_bytes_max: self.keep_order.then_some(EARLY_BYTES_MAX),
            producers_expected,
            dead_letters_max: DEAD_LETTERS_MAX,
            dead_bytes_max: DEAD_BYTES_MAX,
            journaled: (self.journal.is_some() || self.engine.is_some()).then_some(window),
            shared: self.engine.is_some(),
        })
    }
}

/// Said to consumers in milliseconds.
fn parse_item_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout < Duration::from_millis(1) { Err("too short for any attempt; give 1ms or more".into()) } else { Ok(timeout) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use common::limits::CAPACITY_BYTES_DEFAULT;

    use super::*;
    use crate::cli::Cli;

    fn queue_args(arguments: &[&str]) -> QueueArgs {
        Cli::parse_from([&["coordinator"], arguments].concat()).run.queue
    }

    #[test]
    fn bounds_that_do_not_go_together_are_refused_with_what_would() {
        let error = queue_args(&["--capacity-bytes", "1MiB", "--max-item", "2MiB"]).rules(None).unwrap_err();
        assert!(error.contains("give --capacity-bytes 2097348 or more"), "{error}");
        assert!(queue_args(&["--capacity-bytes", "100"]).rules(None).is_err());
        assert!(queue_args(&["--capacity-bytes", "9GiB", "--max-item", "2GiB"]).rules(None).is_err());
        assert_eq!(queue_args(&["--capacity-bytes", "1MiB"]).rules(None).unwrap().item_bytes_max, (1 << 20) - 196);
    }

    #[test]
    fn the_default_of_the_byte_bound_is_that_of_the_protocol() {
        assert_eq!(queue_args(&[]).capacity_bytes, ByteSize(CAPACITY_BYTES_DEFAULT));
    }

    #[test]
    fn an_item_timeout_is_told_from_none_and_no_time_is_refused() {
        assert_eq!(queue_args(&[]).rules(None).unwrap().lease, None);
        let lease = queue_args(&["--item-timeout", "1.5s"]).rules(None).unwrap().lease.unwrap();
        assert_eq!(lease.item_timeout, Duration::from_millis(1500));
        assert!(lease.grace > common::limits::COMMAND_END, "an honest consumer is heard first");
        let refused = Cli::try_parse_from(["coordinator", "--item-timeout", "0s"]).unwrap_err().to_string();
        assert!(refused.contains("give 1ms or more"), "{refused}");
    }
}
