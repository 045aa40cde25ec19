//! Bytes in and out of a non-blocking socket: the one way to read frames from it and the one way to write to it.

use std::io::IoSlice;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::frame::{FrameError, FrameReader};

/// Read at once between frames: as much as a socket's buffer holds.
pub const READ_BYTES: usize = 256 * 1024;

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The socket may have more.
    More,
    /// The socket has nothing more now.
    Drained,
    /// The other side has closed.
    End,
}

/// Reads once, into the frame under way or else into `scratch`, and gives each frame that is whole now to `each`.
/// Stops with the error that `each` returns.
pub fn receive<E: From<FrameError> + From<std::io::Error>>(
    stream: &UnixStream,
    reader: &mut FrameReader,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(Bytes) -> Result<(), E>,
) -> Result<Came, E> {
    scratch.clear();
    let (count, room, whole, beyond);
    if let Some(frame) = reader.direct() {
        room = frame.capacity() - frame.len();
        count = match rustix::io::read(stream, spare_capacity(frame)) {
            Ok(count) => count,
            Err(error) => return nothing(error),
        };
        (whole, beyond) = reader.direct_done();
    } else {
        scratch.reserve_exact(READ_BYTES);
        room = scratch.capacity();
        count = match rustix::io::read(stream, spare_capacity(scratch)) {
            Ok(count) => count,
            Err(error) => return nothing(error),
        };
        (whole, beyond) = (None, Vec::new());
    }
    if count == 0 {
        return Ok(Came::End);
    }
    if let Some(frame) = whole {
        each(frame)?;
    }
    for mut input in [&scratch[..], &beyond[..]] {
        while let Some(frame) = reader.next(&mut input)? {
            each(frame)?;
        }
    }
    Ok(if count < room { Came::Drained } else { Came::More })
}

fn nothing<E: From<std::io::Error>>(error: Errno) -> Result<Came, E> {
    match error {
        Errno::INTR => Ok(Came::More),
        Errno::AGAIN => Ok(Came::Drained),
        error => Err(std::io::Error::from(error).into()),
    }
}

/// Writes once, as much as the socket takes, without ever raising SIGPIPE.
pub fn send(stream: &UnixStream, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
    Ok(sendmsg(stream, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
}
