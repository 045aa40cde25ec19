//! Every limit of the protocol and the client library, each with the reason for its value.
//! What a user can set on the command line has its default here too.

use std::time::Duration;

/// The protocol's version, said in [`Hello`](crate::Message::Hello). Raised by any change that an older peer would misread.
pub const PROTOCOL_VERSION: u16 = 1;

/// Bytes of the length that precedes each frame: a little-endian `u32`.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// The largest message without its batch, in bytes: far above any real one, far below what could hurt.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// The largest frame that a peer may send before it is known who it is: a `Hello` with the longest name fits twice.
pub const HELLO_FRAME_BYTES_MAX: usize = 1024;

/// The most items in one batch: enough that a frame's fixed cost is nothing per item, few enough that zero-length items
/// (which no byte bound holds back) cannot make a batch endless.
pub const BATCH_ITEMS_MAX: u32 = 65_536;

/// What a batch costs against the byte bounds beyond its body: the coordinator's bookkeeping for it, rounded up, so that
/// a queue of lone items stays within the bound in real memory too.
pub const BATCH_OVERHEAD_BYTES: u64 = 192;

/// The producer sends a batch once its body has this size: the relay's rate is flat from here on (measured), and a
/// socket's buffer holds six, so that writer and reader overlap. Small items' batches, with what a journal writes
/// around them, stay below 64 KiB: the journal's pages are powers of two.
pub const BATCH_BYTES_TARGET: usize = 64 * 1024 - 512;

/// What a socket may hold unread, as asked of Linux: it takes twice this (socket(7)), which is twice its default, or less if the administrator
/// says so. With the default, of which three frames are all, writer and reader wait for each other more often: a tenth to a fifth of the
/// rate from 128 bytes on.
pub const SEND_BUFFER_BYTES: usize = 208 * 1024;

/// A put or an acknowledgement that nobody flushes leaves by itself after this long: half of the promised millisecond.
pub const FLUSH_DELAY: Duration = Duration::from_micros(500);

/// A consumer that is told to hurry lets nothing gather before so many waits for more. The coordinator tells it again only after half as
/// many deliveries: who waits for each item to be settled pays for few messages more. Neither 1 nor endless; else it does not matter.
pub const HURRIED_WAITS: u32 = 64;

/// A consumer with so many withdrawals unanswered asks for nothing more until one is: whoever waits for a few microseconds again and again would
/// send them faster than a coordinator answers that asks servers first, and closes at 4096. Threads that share a consumer seldom are more.
pub const WITHDRAWALS_MAX: u64 = 64;

/// How much work, in time, a consumer asks for ahead: covers some ten round trips of a sleeping machine (≈ 0.2 ms each),
/// and is what a stopped consumer can hold back at worst beyond the item in its hands.
pub const PREFETCH_TIME_TARGET: Duration = Duration::from_millis(2);

/// A consumer whose current item takes longer than this gives back what it has not begun.
pub const PREFETCH_GIVE_BACK_AFTER: Duration = Duration::from_millis(5);

/// The most items that a consumer asks for ahead by itself: two milliseconds at 30 ns an item.
pub const PREFETCH_ITEMS_MAX: u32 = 65_536;

/// The most bytes that a consumer asks for ahead by itself; one item is always delivered, however large.
pub const PREFETCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How many ranges of acknowledgements ride in one frame at most; out-of-order settling makes many.
pub const ACK_RANGES_MAX: usize = 4096;

/// Clients in one answer to who is connected: with the longest names they take 170 KiB, which a message holds.
pub const CLIENTS_SHOWN_MAX: usize = 512;

/// A producer's name, in bytes: a path's length would do, a novel would not.
pub const NAME_BYTES_MAX: usize = 255;

/// A cause of failure, in bytes: a few lines of an error's text. Longer ones are cut at a character.
pub const CAUSE_BYTES_MAX: usize = 4096;

/// Dead letters that one question is about at most: a few milliseconds of work, between which others have their turn.
pub const DEAD_PAGE_LETTERS_MAX: usize = 1024;

/// Bytes of such letters, the one with which they are more included: what one question may cost the coordinator's memory.
pub const DEAD_PAGE_BYTES_MAX: u64 = 1024 * 1024;

/// The largest item unless `--max-item` says otherwise.
pub const ITEM_BYTES_MAX_DEFAULT: u64 = 16 * 1024 * 1024;

/// The largest value of `--max-item`: offsets within a batch are `u32`, and the frame around it must fit as well.
pub const ITEM_BYTES_MAX_CEILING: u64 = 1024 * 1024 * 1024;

/// Items that the queue holds (waiting, held and delayed together) unless `--capacity` says otherwise.
pub const CAPACITY_ITEMS_DEFAULT: u64 = 1024 * 1024;

/// Bytes that the queue holds unless `--capacity-bytes` says otherwise.
pub const CAPACITY_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Credit that one producer holds at most, in items: two full batches in flight and one in the making, at 8 bytes.
pub const CREDIT_ITEMS_MAX: u64 = 4 * BATCH_ITEMS_MAX as u64;

/// Credit that one producer holds at most, in bytes, unless it asks for a larger item's. Also what a producer's connection
/// may cost the coordinator beyond the byte bound, when its place was given to another meanwhile.
pub const CREDIT_BYTES_MAX: u64 = 1024 * 1024;

/// How long dropping a producer waits for what it has put to be confirmed; `finish` and `flush` wait without limit.
pub const DROP_FLUSH: Duration = Duration::from_secs(5);

/// How long the coordinator may take to answer a `Hello`.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// Between two tries to reach a coordinator that is about to come up: short for people, long for the machine.
pub const CONNECT_RETRY: Duration = Duration::from_millis(20);

/// How often a client that may connect again looks whether it has lost its connection while it has something unconfirmed and nobody
/// calls.
pub const LOSS_LOOK: Duration = Duration::from_millis(100);

/// A command that has taken longer than the item timeout gets TERM; after this long it is killed. Time to remove what is half done.
pub const COMMAND_END: Duration = Duration::from_secs(1);

/// The path of a local socket, in bytes with the closing NUL: `sun_path` has 108 on Linux, 104 on the BSDs and macOS.
pub const SOCKET_PATH_BYTES_MAX: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 108 } else { 104 };

/// The programs' help is no wider than this, in columns, on the widest of terminals: longer lines are hard to read.
pub const HELP_COLUMNS_MAX: usize = 100;

/// What the byte bounds count for a batch: its body and the bookkeeping for it.
pub const fn batch_cost_bytes(body_bytes: u64) -> u64 {
    body_bytes + BATCH_OVERHEAD_BYTES
}

/// The largest result: an item of the largest size, and the end of the line that it is printed on.
pub const fn result_bytes_max(item_bytes_max: u64) -> u64 {
    item_bytes_max + 1
}

/// The largest body of a batch: what a producer gathers before it sends, and one item of the largest size more, with a full table.
pub const fn body_bytes_max(item_bytes_max: u64) -> u64 {
    // A little more than our own producer gathers.
    let gathered = 64 * 1024;
    let table = 4 * BATCH_ITEMS_MAX as u64;
    gathered + result_bytes_max(item_bytes_max) + table
}

/// The largest frame: such a body, and the message before it.
pub const fn frame_bytes_max(item_bytes_max: u64) -> usize {
    body_bytes_max(item_bytes_max) as usize + MESSAGE_BYTES_MAX
}
