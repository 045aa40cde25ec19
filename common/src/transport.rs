//! Bytes in and out of a non-blocking socket: the one way to read frames from it and the one way to write to it.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use rustix::io::readv;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tracing::debug;

use crate::frame::{FrameError, FrameReader};
use crate::limits::SEND_BUFFER_BYTES;

/// Read at once between frames: many small ones, or the beginning of a large one that has to be copied to its place.
const READ_BYTES: usize = 64 * 1024;

/// Read beyond the end of a frame that is read into its place: the next one's beginning, which has to be copied.
const BEYOND_BYTES: usize = 4 * 1024;

/// What bytes go over: a non-blocking socket, or what a simulation puts in its place.
pub trait Wire {
    /// Reads once into `places`, one after the other; 0 is the end.
    fn read(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Writes once, as much as it takes.
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends the sending: the other side meets the end behind what was written.
    fn end_writing(&self) -> io::Result<()>;
}

impl Wire for UnixStream {
    #[inline]
    fn read(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(readv(self, places)?)
    }

    #[inline]
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self, pieces)
    }

    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Where bytes are read to that have no place yet; one serves any number of connections.
#[derive(Debug)]
pub struct Scratch(Box<[u8]>);

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch(vec![0; READ_BYTES].into())
    }
}

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

/// Reads once, into the frame under way and beyond, or else into `scratch`, and gives each frame that is whole now to `each`.
/// Stops with the error that `each` returns.
pub fn receive<E: From<FrameError> + From<io::Error>>(
    wire: &impl Wire,
    reader: &mut FrameReader,
    scratch: &mut Scratch,
    mut each: impl FnMut(Bytes) -> Result<(), E>,
) -> Result<Came, E> {
    let (read, room, placed) = match reader.direct() {
        Some(place) => {
            let missing = place.len();
            let beyond = &mut scratch.0[..BEYOND_BYTES];
            let room = missing + beyond.len();
            (wire.read(&mut [IoSliceMut::new(place), IoSliceMut::new(beyond)]), room, missing)
        }
        None => (wire.read(&mut [IoSliceMut::new(&mut scratch.0)]), READ_BYTES, 0),
    };
    let count = match read {
        Ok(0) => return Ok(Came::End),
        Ok(count) => count,
        Err(error) => return nothing(error),
    };
    let placed = placed.min(count);
    if let Some(frame) = reader.filled(placed) {
        each(frame)?;
    }
    let mut input = &scratch.0[..count - placed];
    while let Some(frame) = reader.next(&mut input)? {
        each(frame)?;
    }
    Ok(if count < room { Came::Drained } else { Came::More })
}

/// Reads once what nobody listens to any more.
pub fn discard(wire: &impl Wire, scratch: &mut Scratch) -> io::Result<Came> {
    match wire.read(&mut [IoSliceMut::new(&mut scratch.0)]) {
        Ok(0) => Ok(Came::End),
        Ok(_) => Ok(Came::More),
        Err(error) => nothing(error),
    }
}

fn nothing<E: From<io::Error>>(error: io::Error) -> Result<Came, E> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(Came::More),
        ErrorKind::WouldBlock => Ok(Came::Drained),
        _ => Err(error.into()),
    }
}

/// Asks for as much room as [`SEND_BUFFER_BYTES`] gives for what is on its way out, if there is not more. A wish: with less it goes, too.
pub fn widen(stream: &UnixStream) {
    let widened = socket_send_buffer_size(stream).and_then(|bytes| match bytes < 2 * SEND_BUFFER_BYTES {
        true => set_socket_send_buffer_size(stream, SEND_BUFFER_BYTES),
        false => Ok(()),
    });
    if let Err(error) = widened {
        debug!(%error, "the socket's buffer stays as it is");
    }
}

/// Writes once, as much as the socket takes, without ever raising SIGPIPE.
pub fn send(stream: &UnixStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(sendmsg(stream, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_widened_once_and_never_narrowed() {
        let (stream, _peer) = UnixStream::pair().unwrap();
        let bytes = || socket_send_buffer_size(&stream).unwrap();
        set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES).unwrap();
        let wide = bytes();
        for quarters in [1, 3] {
            set_socket_send_buffer_size(&stream, quarters * SEND_BUFFER_BYTES / 4).unwrap();
            assert!(bytes() < wide);
            widen(&stream);
            assert_eq!(bytes(), wide);
        }
        // As much as the system gives here.
        set_socket_send_buffer_size(&stream, 64 * SEND_BUFFER_BYTES).unwrap();
        let most = bytes();
        widen(&stream);
        assert_eq!(bytes(), most);
    }
}
