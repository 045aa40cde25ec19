//! Limits of the coordinator's shell, each with the reason for its value. Those that clients know of stand in `common::limits`.

use std::time::Duration;

/// Connections at once: each costs a descriptor, and some always have to be left for files and children.
pub const CLIENTS_MAX: usize = 16 * 1024;

/// Connections that have not said `Hello`: enough for every consumer of a large run to come at once.
pub const GREETING_CLIENTS_MAX: usize = 1024;

/// How long a connection may take to say `Hello`: a program does so at once, however loaded the machine.
pub const GREETING: Duration = Duration::from_secs(5);

/// How long a connection that was closed by us may take to read why.
pub const LINGER: Duration = Duration::from_secs(1);

/// A client that lets this much pile up unread is not read from until it has read some: what it asks, it waits for.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Results on their way to a slow output; beyond this, no consumer is read from, so that workers wait instead of memory growing.
pub const RESULTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Connections accepted in one turn of the loop: a flood of them must not keep the others waiting.
pub const ACCEPTS_PER_TURN: usize = 64;

/// After the system was out of descriptors, the next try to accept comes after this long, unless a connection closes before.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Names whose positions are kept: a name costs up to 400 bytes, and has to be kept for as long as the coordinator lives.
pub const NAMES_MAX: usize = 64 * 1024;

/// Credit that a producer has waited for is not taken back for the next in line before this: one that runs uses it at once, and one that
/// is stopped holds up nobody for longer.
pub const CREDIT_SPARED: Duration = Duration::from_millis(1);

/// Items that a consumer may have asked for and not got: sixteen times what our own client asks for.
pub const DEMAND_ITEMS_MAX: u32 = 1024 * 1024;

/// Bytes that a consumer may have asked for and not got: likewise.
pub const DEMAND_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// How long children may take to end after the connection to them is closed: time to end their commands, before they are killed.
pub const CHILD_END: Duration = Duration::from_millis(500);

/// How often it looks whether they have.
pub const CHILD_LOOK: Duration = Duration::from_millis(2);

/// How long the coordinator lingers after all is done for consumers to hear of it and go.
pub const DONE_LINGER: Duration = Duration::from_secs(2);

/// A child that dies this often in a row without any item getting done in between is given up.
pub const CHILD_FAILURES_MAX: u32 = 5;

/// The pause before a child that died without progress is started again.
pub const CHILD_RESTART: common::backoff::Backoff =
    common::backoff::Backoff { min: Duration::from_millis(100), max: Duration::from_secs(5) };

/// An item in a message for people is cut to this many bytes.
pub const SHOWN_ITEM_BYTES_MAX: usize = 200;
