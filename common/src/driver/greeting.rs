//! How a connection begins: who comes says hello, and is welcome or not.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Error;
use crate::frame::FrameReader;
use crate::limits::{HANDSHAKE, PROTOCOL_VERSION, frame_bytes_max};
use crate::message::{Message, Role};
use crate::outbox::Outbox;
use crate::session::Greeting;
use crate::transport::{self, Came, Scratch};

/// A connection's beginning: the greeting, and what was read behind it.
pub(super) type Greeted = (Greeting, FrameReader, Vec<Bytes>);

/// Says hello and waits for the answer, at most until `until`.
pub(super) fn greet(stream: &UnixStream, role: Role, name: &str, until: Option<Instant>) -> Result<Greeted, Error> {
    let deadline = Instant::now() + HANDSHAKE;
    let deadline = until.map_or(deadline, |until| until.min(deadline));
    let mut outbox = Outbox::default();
    outbox.push(&Message::Hello { version: PROTOCOL_VERSION, role, name: name.into() });
    let mut reader = FrameReader::new(frame_bytes_max(0));
    let mut frames = VecDeque::new();
    while frames.is_empty() {
        let written = outbox.write_to(|slices| transport::send(stream, slices));
        let flags = if matches!(written, Ok(false)) { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Error::Handshake)?;
        match poll(&mut [PollFd::new(stream, flags)], Some(&timeout)) {
            Ok(0) => return Err(Error::Handshake),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        let came = transport::receive::<Error>(stream, &mut reader, &mut Scratch::default(), |frame| {
            frames.push_back(frame);
            Ok(())
        })?;
        if came == Came::End && frames.is_empty() {
            return Err(Error::Gone("it closed the connection without a word".into()));
        }
    }
    let first = frames.pop_front().unwrap_or_default();
    let greeting = Greeting::try_from(Message::decode(first)?.message)?;
    reader.set_bytes_max(frame_bytes_max(greeting.item_bytes_max));
    Ok((greeting, reader, frames.into()))
}
