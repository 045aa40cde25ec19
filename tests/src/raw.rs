//! A client by hand: it says what it likes, when it likes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::limits::PROTOCOL_VERSION;
use common::message::{CloseReason, Incoming, ItemId, ItemRange, Message, Role};

use crate::DEADLINE;

/// A connection, and nothing that would keep to the protocol.
pub struct Raw {
    /// The connection.
    pub stream: UnixStream,
}

impl Raw {
    /// Connects, and says nothing.
    pub fn silent(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket).expect("a coordinator that listens");
        stream.set_read_timeout(Some(DEADLINE)).and_then(|()| stream.set_write_timeout(Some(DEADLINE))).expect("a socket");
        Raw { stream }
    }

    /// Connects, says hello and hears its welcome.
    pub fn connect(socket: &Path, role: Role, name: &str) -> Raw {
        let mut raw = Raw::silent(socket);
        raw.say(&[hello(role, name)]);
        let welcome = raw.hear().expect("a welcome").message;
        assert!(matches!(welcome, Message::Welcome { .. }), "{welcome:?}");
        raw
    }

    /// Says these, in one write.
    pub fn say(&mut self, messages: &[Message]) {
        self.stream.write_all(&frames(messages)).expect("a coordinator that reads");
    }

    /// Sends these bytes; the coordinator may have heard enough before all are sent.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next message.
    pub fn hear(&mut self) -> io::Result<Incoming> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(Message::decode(frame.into()).expect("a message"))
    }

    /// Hears deliveries until so many items have come: which these are, those that follow each other together.
    pub fn take(&mut self, items: u64) -> Vec<ItemRange> {
        let (mut taken, mut left) = (Vec::<ItemRange>::new(), items);
        while left > 0 {
            let Message::Deliver { first, batch, .. } = self.hear().expect("a delivery").message else { continue };
            left = left.checked_sub(batch.count.into()).expect("no more than were asked for");
            match taken.last_mut() {
                Some(last) if last.first.0 + u64::from(last.count) == first.0 => last.count += batch.count,
                _ => taken.push(ItemRange { first, count: batch.count }),
            }
        }
        taken
    }

    /// Why the coordinator closes this connection, after whatever it says before; an end without a word is an error.
    pub fn hear_close(&mut self) -> io::Result<(CloseReason, String)> {
        loop {
            if let Message::Close { reason, words } = self.hear()?.message {
                return Ok((reason, words));
            }
        }
    }
}

/// The items of these, one by one.
pub fn items(ranges: &[ItemRange]) -> Vec<ItemId> {
    ranges.iter().flat_map(|range| (range.first.0..).take(range.count as usize).map(ItemId)).collect()
}

/// The first message of a client.
pub fn hello(role: Role, name: &str) -> Message {
    Message::Hello { version: PROTOCOL_VERSION, role, name: name.into() }
}

/// These messages as they go over the socket.
pub fn frames(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(0, &mut bytes));
    bytes
}

/// Any bytes as a frame.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

/// A message with a body behind it, as it goes over the socket.
pub fn with_body(message: &Message, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(body.len(), &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}
