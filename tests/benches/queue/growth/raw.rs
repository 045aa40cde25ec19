//! Connections that speak the protocol by hand: thousands to a process, and none does more than it must.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use common::Endpoint;
use common::frame::FrameReader;
use common::limits::{ITEM_BYTES_MAX_DEFAULT, PROTOCOL_VERSION, frame_bytes_max};
use common::message::{Incoming, Message, Role};

/// A connection that has been welcomed.
pub struct Raw {
    stream: UnixStream,
    reader: FrameReader,
    heard: VecDeque<Incoming>,
}

impl Raw {
    pub fn connect(endpoint: &Endpoint, role: Role) -> Result<Raw> {
        let stream = endpoint.connect()?;
        stream.set_read_timeout(Some(tests::DEADLINE))?;
        stream.set_write_timeout(Some(tests::DEADLINE))?;
        let mut raw = Raw { stream, reader: FrameReader::new(frame_bytes_max(ITEM_BYTES_MAX_DEFAULT)), heard: VecDeque::new() };
        let mut hello = Vec::new();
        Message::Hello { version: PROTOCOL_VERSION, role, name: String::new() }.encode(0, &mut hello);
        raw.say(&hello)?;
        match raw.hear()?.message {
            Message::Welcome { .. } => Ok(raw),
            other => bail!("{} came instead of Welcome", other.name()),
        }
    }

    /// Sends whole frames.
    pub fn say(&mut self, frames: &[u8]) -> Result<()> {
        self.stream.write_all(frames).context("the coordinator does not read")
    }

    /// The next message.
    pub fn hear(&mut self) -> Result<Incoming> {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some(incoming) = self.heard.pop_front() {
                return Ok(incoming);
            }
            let count = self.stream.read(&mut buffer).context("the coordinator says nothing")?;
            if count == 0 {
                bail!("the coordinator has hung up");
            }
            let mut input = &buffer[..count];
            while let Some(frame) = self.reader.next(&mut input)? {
                self.heard.push_back(Message::decode(frame)?);
            }
        }
    }
}
