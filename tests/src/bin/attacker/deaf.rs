//! Clients that do not read, or hardly.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use common::message::{Message, Role};
use tests::raw::{Raw, frames};

use crate::{begun, stay};

/// More than fits into a socket's buffers.
const DEMAND: Message = Message::Demand { items: 5000, bytes: 64 << 20 };

/// Demands, and never reads.
pub fn never_reads(socket: &Path) {
    let mut raw = Raw::connect(socket, Role::Consumer, "");
    raw.say(&[DEMAND]);
    stay()
}

/// Reads a byte a second of what it demands.
pub fn reads_a_byte_a_second(socket: &Path) {
    let mut raw = Raw::connect(socket, Role::Consumer, "");
    raw.say(&[DEMAND]);
    begun();
    loop {
        raw.stream.read_exact(&mut [0]).expect("more to read");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Asks as much as it can, and reads no answer.
pub fn asks_and_never_reads(socket: &Path) {
    let mut raw = Raw::connect(socket, Role::Control, "");
    let questions = frames(&vec![Message::StatusRequest; 10_000]);
    // Within this time it is not read from any more.
    raw.stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
    while std::io::Write::write_all(&mut raw.stream, &questions).is_ok() {}
    stay()
}
