//! Limits of the consumer, each with the reason for its value. Those that the coordinator knows of stand in `common::limits`.

use std::time::Duration;

use common::backoff::Backoff;

/// What is gathered for one write to a worker, and read from it at once: a pipe's whole buffer.
pub const PIPE_BYTES: usize = 64 * 1024;

/// Reads of what a worker that has ended said last: a pipe of the largest size that users may set (1 MiB on Linux), twice.
pub const LAST_WORDS_READS_MAX: usize = 32;

/// A line of a worker's stderr with what is put before it: what a pipe takes in one piece (`PIPE_BUF` on Linux), so that lines of several
/// consumers do not mix. A longer one is cut into several.
pub const STDERR_LINE_BYTES_MAX: usize = 4096;

/// So long after it has said something on stderr, a worker gets one item at a time: then it is certain which item it speaks of.
pub const WORKER_QUIET: Duration = Duration::from_secs(1);

/// A worker that has ended without an answer so often in a row, each time with another item or none, is broken: items are not to blame.
pub const WORKER_FAILURES_MAX: u32 = 5;

/// The pause before a worker that has ended without an answer is started again: as the coordinator's before another consumer.
pub const WORKER_RESTART: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(5) };

/// How long a worker may take to end by itself after its stdin was closed, and then after TERM: together less than the two seconds that
/// the coordinator waits for its consumers when all is done.
pub const WORKER_END: Duration = Duration::from_secs(1);

/// See [`WORKER_END`].
pub const WORKER_TERM: Duration = Duration::from_millis(500);

/// A worker that closes its stdout or stdin is about to end, or wrong: after this long it is the latter.
pub const WORKER_CLOSED: Duration = Duration::from_millis(200);

/// A worker that has not answered its first item for so long may have answered, but not flushed: its user is told. Long enough to load a
/// model in most cases.
pub const WORKER_HINT: Duration = Duration::from_secs(10);
