//! Limits of the coordinator's shell, each with the reason for its value. Those that clients know of stand in `common::limits`.

use std::time::Duration;

/// Connections at once, if there are descriptors for as many: what each costs has to be bounded in all.
pub const CLIENTS_MAX: usize = 16 * 1024;

/// Connections that have not said `Hello`: enough for every consumer of a large run to come at once.
pub const GREETING_CLIENTS_MAX: usize = 1024;

/// How long a connection that says nothing keeps its place when as many as that say nothing, and more come: time for an honest client
/// on a busy machine, and a flood of silent ones passes at ten thousand a second.
pub const GREETING_YIELD: Duration = Duration::from_millis(100);

/// Descriptors that are not given to connections: some fifteen are the coordinator's own, and starting a child takes a few.
pub const DESCRIPTORS_KEPT: usize = 32;

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

/// Frames of one connection dealt with in one turn: one that sends tiny frames must not take more of it than one that sends large ones.
pub const FRAMES_PER_TURN: usize = 1024;

/// After the system was out of descriptors, the next try to accept comes after this long, unless a connection closes before.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Names whose positions are kept: a name costs up to 400 bytes, and has to be kept for as long as the coordinator lives.
pub const NAMES_MAX: usize = 64 * 1024;

/// Items that a consumer may have asked for and not got: sixteen times what our own client asks for.
pub const DEMAND_ITEMS_MAX: u32 = 1024 * 1024;

/// Bytes that a consumer may have asked for and not got: likewise.
pub const DEMAND_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// Joins of one client that wait for their answer: more than there are threads that share it; what is answered at once has to be bounded.
pub const JOINS_MAX: u32 = 4096;

/// How often whoever supervises the coordinator is told how things are, while anything happens: often enough to be looked at.
pub const STATUS_NOTICE: Duration = Duration::from_secs(5);

/// An item is taken back so long after its timeout: a consumer that runs a command ends it and says so in [`common::limits::COMMAND_END`],
/// and may be held up by a busy machine as long again.
pub const LEASE_GRACE: Duration = Duration::from_millis(2000);

/// With `--keep-order`, results that wait for an earlier one, and the items that they are of: as much as the queue holds by default. Once
/// so much waits, nothing is handed out but the item that all of it waits for; what consumers have in hand by then still comes.
pub const EARLY_BYTES_MAX: u64 = 64 * 1024 * 1024;

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

/// Of a queue that lies in a journal, so many bytes are in memory at the head: several times what all consumers of a machine ask for
/// ahead, and what the slowest commit of the journal (some 10 ms) lets pass meanwhile at a GB/s.
pub const NEAR_BYTES: u64 = 64 * 1024 * 1024;

/// Items on their way to the journal, and credit for such: enough for the commits to grow until the disk is busy all the time.
pub const UNWRITTEN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of entries that one commit of the journal takes at most: enough that a sync costs little beside the writing, and a put waits no
/// longer than some milliseconds for those before it.
pub const JOURNAL_COMMIT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What the journal's store keeps in memory: half of it takes up a commit before it is written, the other what was read.
pub const JOURNAL_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Batches of which the journal knows without asking what became of them, and runs of marks in these: some 50 MiB of memory at most. Those
/// that consumers hold should be among them; beyond that, each acknowledgement reads its batch.
pub const JOURNAL_KNOWN_MAX: usize = 512 * 1024;

/// A journal's file that is smaller is left as it is when it holds little.
pub const JOURNAL_SLACK_BYTES: u64 = 64 * 1024 * 1024;

/// A larger one is made smaller at the start if it is this many times what it holds: moving that costs little then.
pub const JOURNAL_SLACK_FACTOR: u64 = 8;

/// A journal's file up to this size is read and checked in whole when it is opened, as a larger one is only after a kill: that takes
/// seconds at most, and reading alone would take many a damaged page as it is.
pub const JOURNAL_CHECK_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Dead letters that are listed when a journal is looked at: as many as one reads.
pub const SHOWN_LETTERS_MAX: usize = 100;

/// How often the progress line is drawn: a person sees no more.
pub const PROGRESS_REFRESH: Duration = Duration::from_millis(100);

/// How often progress is told where it cannot be drawn: a log of an hour stays short enough to be read.
pub const PROGRESS_LOG: Duration = Duration::from_secs(5);

/// The time over which a pace is taken: long enough to be steady, short enough to follow.
pub const PROGRESS_WINDOW: Duration = Duration::from_secs(10);

/// How long something said without a line end keeps the progress line away: time for the rest of it to come.
pub const PROGRESS_LINE_WAIT: Duration = Duration::from_secs(1);

/// How long another thread waits for the loop's figures: a turn takes some milliseconds at most, on a loaded machine longer.
pub const FIGURES_WAIT: Duration = Duration::from_millis(200);

/// How soon a key, a signal or news are seen while the whole screen is shown.
pub const TOP_LOOK: Duration = Duration::from_millis(100);

/// How often it may be looked at a coordinator: a look at 16,384 clients takes some milliseconds of its time.
pub const TOP_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// And how seldom: beyond that, it is no live view.
pub const TOP_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Figures of the past that are shown: as many as the widest screen has columns.
pub const TOP_HISTORY_MAX: usize = 512;

/// HTTP connections to the metrics at once: a scraper has one, and somebody looks in. They are among the [`DESCRIPTORS_KEPT`].
pub const HTTP_CLIENTS_MAX: usize = 4;

/// How long one may take to ask and to read its answer.
pub const HTTP_DEADLINE: Duration = Duration::from_secs(5);

/// Bytes of a request: browsers send some hundreds.
pub const HTTP_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Headers of a request: browsers send some twenty.
pub const HTTP_HEADERS_MAX: usize = 64;

/// After the system had no descriptor for a connection, the next try to accept one comes after this long.
pub const HTTP_ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Metrics that were served so recently are served again: however many ask, the loop is asked ten times a second.
pub const METRICS_FRESH: Duration = Duration::from_millis(100);

/// Dead letters that are kept in memory where there is no journal: more than anybody looks through one by one.
pub const DEAD_LETTERS_MAX: u64 = 64 * 1024;

/// Bytes that these cost at most, each 192 beyond its own: a quarter of what the queue itself may take by default. All of them were
/// written where dead letters go before.
pub const DEAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A share of failures halts a run from so many of them on: the first items of a run say little.
pub const HALT_PERCENT_LETTERS_MIN: u64 = 3;

/// Items of one message at NATS servers: `common::limits::BATCH_ITEMS_MAX` of them, so that an item's number is its message's, these bits
/// further to the left, and its place in it. A stream's numbers then suffice for 2⁴⁸ messages.
pub const JETSTREAM_INDEX_BITS: u32 = 16;

/// What a message may have beside its items: subject, headers, and a dead letter's cause (`CAUSE_BYTES_MAX`).
pub const JETSTREAM_OVERHEAD_BYTES: u64 = 8 * 1024;

/// Items that share a message: what one machine takes at a time, so what the others wait for at the end of a run, and what is done twice at
/// most when a machine dies. More of them would save little: a message costs what some hundred small items do.
pub const JETSTREAM_MESSAGE_ITEMS_MAX: u32 = 512;

/// The largest record that is read from a stream of records: the marks of a message whose every second item failed are a fifth of it.
pub const JETSTREAM_RECORD_BYTES_MAX: usize = 1024 * 1024;

/// Messages published and not confirmed: several times what lies on a network of 10 ms at a GB/s.
pub const JETSTREAM_FLIGHT_MESSAGES_MAX: usize = 256;

/// Their bytes: likewise; also what one machine may fill up between two looks at how full the queue is.
pub const JETSTREAM_FLIGHT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A machine fills up at most this part of the queue between two looks.
pub const JETSTREAM_SHARE: u64 = 16;

/// How long a server waits for a machine to say that it is still at a message, before another gets it: the time that passes until items
/// come back from a machine that died, and the longest outage that nobody notices.
pub const JETSTREAM_ACK_WAIT: Duration = Duration::from_secs(30);

/// `?ack_wait=` at least: several times what a busy machine may take to renew what it holds.
pub const JETSTREAM_ACK_WAIT_MIN: Duration = Duration::from_secs(1);

/// The oldest NATS server that loses nothing. One before it that takes up the work of a killed server, or its own after a restart, passes over what it
/// does not know to have been delivered as soon as something behind that is acknowledged: whose holder is gone, too, is never delivered again, and
/// deleted in the end (nats-server's pull request 6469; seen with 2.10.25 in one of some fifty runs of three killed leaders each).
pub const JETSTREAM_SERVER_OLDEST: (u16, u16, u16) = (2, 10, 26);

/// And at most: after longer nobody would still expect what a dead machine held.
pub const JETSTREAM_ACK_WAIT_MAX: Duration = Duration::from_secs(600);

/// How often a machine says so in that time: two may be lost.
pub const JETSTREAM_RENEWALS: u32 = 3;

/// How long servers know a message by its id, so that one put again is dropped: several times an outage of a minute.
pub const JETSTREAM_DUPLICATE_WINDOW: Duration = Duration::from_secs(300);

/// What has not been answered by then is asked again: longer than a new leader's election takes.
pub const JETSTREAM_OVERDUE: Duration = Duration::from_secs(5);

/// What a server could not do now is asked again after this long.
pub const JETSTREAM_RETRY: Duration = Duration::from_millis(250);

/// How long a connection may take nothing in before it counts as lost.
pub const JETSTREAM_STALL: Duration = Duration::from_secs(1);

/// How often a silent server is asked whether it is there; the second question without an answer ends the connection.
pub const JETSTREAM_PING: Duration = Duration::from_secs(5);

/// Commands that the client library holds before it makes us wait: more than are under way at once but for acknowledgements.
pub const JETSTREAM_COMMANDS_MAX: usize = 8 * 1024;

/// How long a request for messages lies at a server before it is made anew.
pub const JETSTREAM_PULL: Duration = Duration::from_secs(10);

/// How often it is looked how full the queue is, if nothing else makes that worth knowing; also how soon it shows that a stream is gone.
pub const JETSTREAM_LOOK: Duration = Duration::from_secs(1);

/// How often, when all producers have finished: somebody waits for the end. A machine that has settled the last that it held looks at once.
pub const JETSTREAM_LAST_LOOK: Duration = Duration::from_millis(100);

/// How often a look is repeated that somebody waits for who wants an item, if it has seen messages that are not here: the answer may have overtaken
/// one that is on its way. Two more take some ten milliseconds; more of them would not make it certain, for another machine may have it. Likewise one
/// that may have seen messages which are settled by now, when nothing is at work here any more.
pub const JETSTREAM_LOOKS_AGAIN: u32 = 2;

/// The same where there is no other machine: what is there and not here is on its way, unless it is to come later, or was a dead machine's. Six take a quarter of a second,
/// which a busy server may need.
pub const JETSTREAM_LOOKS_AGAIN_ALONE: u32 = 6;

/// How often it is looked whether a full queue has room again.
pub const JETSTREAM_FULL: common::backoff::Backoff =
    common::backoff::Backoff { min: Duration::from_millis(4), max: Duration::from_millis(128) };

/// Dead letters that are asked for at once: a page of small ones takes eight times the way to the servers and back. Of large ones it is as
/// many as fit into a page, and an eighth of this before it is known how large they are.
pub const JETSTREAM_LETTERS_MAX: usize = 128;

/// For how long a list of dead letters' numbers serves further pages: who shows one asks for the next at once, and the servers need up to
/// a second for a list of a million.
pub const JETSTREAM_LETTERS_FRESH: Duration = Duration::from_secs(5);

/// How often a machine says that it is there.
pub const JETSTREAM_HEARTBEAT: Duration = Duration::from_secs(2);

/// A machine that was not heard of for this long is gone, and nobody waits for its producers any more.
pub const JETSTREAM_MACHINE_LOST: Duration = Duration::from_secs(20);

/// `?lost=` at least: three signs of life. All machines give these equally often, so each may have a patience of its own.
pub const JETSTREAM_MACHINE_LOST_MIN: Duration = Duration::from_secs(6);

/// And at most.
pub const JETSTREAM_MACHINE_LOST_MAX: Duration = Duration::from_secs(600);

/// How long the goodbye to the servers may take.
pub const JETSTREAM_GOODBYE: Duration = Duration::from_secs(3);

/// How long batches of a shared queue may lie here while no consumer asks for them, before other machines get them: longer than a consumer's
/// pause between two questions, shorter than anybody's patience.
pub const SHARED_IDLE: Duration = Duration::from_secs(1);

/// Looks at a shared queue count its dead letters now and then only: so long after one came or went here, what is known here is the better count.
pub const SHARED_DEAD_LOOK: Duration = Duration::from_secs(3);

/// Batches of a shared queue that are asked for at once: more than are under way on a network of 10 ms at the servers' best rate.
pub const SHARED_WANTED_BATCHES_MAX: u64 = 256;

/// No message of a shared queue has more than this part of what its machine has put before: so many machines can share the work evenly,
/// however little there is of it. The first 131,072 items then take some 1,850 messages instead of 256.
pub const SHARED_MESSAGE_SHARE: u64 = 256;

/// Or than this part of what its machine has settled before: then no message is work for longer than a sixteenth of the time that has been worked
/// so far, and where items take microseconds, messages are full after the first 8,192.
pub const SHARED_MESSAGE_SETTLED_SHARE: u64 = 16;

/// How often it is noted beside a batch of a shared queue what has become of its items: what was settled after that is done again when
/// the machine dies.
pub const SHARED_MARK: Duration = Duration::from_secs(1);
