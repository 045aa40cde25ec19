//! One client's connection: bytes in, bytes out, and what it may say in which state. It knows nothing of the queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use common::batch::Batch;
use common::frame::{FrameError, FrameReader};
use common::limits::{HELLO_FRAME_BYTES_MAX, frame_bytes_max};
use common::message::{CloseReason, DecodeError, Message, Position, Role};
use common::outbox::Outbox;
use common::pool::Pool;
use common::transport::{self, Came, Scratch, Wire};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::limits::OUTBOX_BYTES_MAX;

/// What a connection is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not said `Hello`.
    Greeting,
    /// It has.
    Open(Role),
    /// We have closed it, and wait until it has read why.
    Lingering,
}

/// Why reading ended for good.
#[derive(Debug)]
pub enum Broken {
    /// The client has said something that it may not; it is told so.
    Refused(CloseReason, String),
    /// There is nobody to tell.
    Gone,
}

/// A client's connection, over a socket unless simulated.
#[derive(Debug)]
pub struct Connection<W = UnixStream> {
    wire: W,
    reader: FrameReader,
    outbox: Outbox,
    /// The system reports when more can be written.
    watches_room: bool,
    /// Its process id, where the system tells.
    pub pid: Option<u32>,
    /// When it came.
    pub since: Duration,
    /// Where it stands.
    pub state: State,
    /// When its state ends it, unless it moves on.
    pub deadline: Option<Duration>,
    /// The system has said that there is something to read, and no read has found the end of it.
    pub readable: bool,
    /// It is in the line of connections to be served.
    pub in_line: bool,
    /// It is in the line of connections to be written to.
    pub in_line_to_write: bool,
    hung_up: bool,
    /// A confirmation that is not said while the frame behind what it confirms is on its way: the next one will say it too.
    unsaid: Option<Position>,
    /// It cannot be written to any more; what it said before may still wait to be read.
    deaf: bool,
    /// It has sent results since it was last let through although results wait.
    pub gave_results: bool,
    /// Frames that were read and wait for the next turn, or until it has read some itself.
    pub unhandled: VecDeque<Bytes>,
    /// Why nothing more is read, once what was read before is dealt with.
    pub ending: Option<Broken>,
}

impl Connection {
    /// A connection that was just accepted, and has to say hello until `deadline`; `pool` is where its frames lie.
    pub fn new(stream: UnixStream, registry: &Registry, token: Token, deadline: Duration, pool: Pool) -> io::Result<Connection> {
        registry.register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Connection::over(stream, deadline, pool))
    }

    /// Has the system report when more can be written, from now on if something waits to be. Not otherwise, or each message that the client reads
    /// would wake us, at its own expense; but there is no end to it before a report comes in vain: who is slow now will be again.
    pub fn watch_room(&mut self, has_report: bool, registry: &Registry, token: Token) -> io::Result<()> {
        let waits = !self.outbox.is_empty();
        let interest = match (self.watches_room, waits) {
            (false, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) if has_report => Interest::READABLE,
            _ => return Ok(()),
        };
        self.watches_room = waits;
        registry.reregister(&mut SourceFd(&self.wire.as_raw_fd()), token, interest)
    }
}

impl<W: Wire> Connection<W> {
    /// A connection over `wire`, whose news the caller watches for.
    pub fn over(wire: W, deadline: Duration, pool: Pool) -> Connection<W> {
        Connection {
            wire,
            reader: FrameReader::with_pool(HELLO_FRAME_BYTES_MAX, pool),
            outbox: Outbox::default(),
            watches_room: false,
            pid: None,
            since: Duration::ZERO,
            state: State::Greeting,
            deadline: Some(deadline),
            readable: false,
            in_line: false,
            in_line_to_write: false,
            hung_up: false,
            unsaid: None,
            deaf: false,
            gave_results: false,
            unhandled: VecDeque::new(),
            ending: None,
        }
    }

    /// It is known whose it is, and when it came.
    pub fn of_peer(self, pid: Option<u32>, since: Duration) -> Connection<W> {
        Connection { pid, since, ..self }
    }

    /// The system reports news of this connection.
    pub fn note(&mut self, readable: bool, hung_up: bool) {
        self.readable |= readable || hung_up;
        self.hung_up |= hung_up;
    }

    /// True while it has to read before it is read from.
    pub fn is_clogged(&self) -> bool {
        self.outbox.bytes() > OUTBOX_BYTES_MAX
    }

    /// From now on it is known who this is: frames may have the size of items.
    pub fn open(&mut self, role: Role, item_bytes_max: u64) {
        self.state = State::Open(role);
        self.deadline = None;
        self.reader.set_bytes_max(frame_bytes_max(item_bytes_max));
    }

    /// Puts a last message into the outbox; afterwards nothing that comes is listened to.
    pub fn linger(&mut self, reason: CloseReason, words: String, deadline: Duration) {
        self.send(&Message::Close { reason, words }, None);
        self.state = State::Lingering;
        self.unhandled.clear();
        self.ending = None;
        self.deadline = Some(deadline);
        self.readable = true;
    }

    /// Gives up writing to it. What it said before it closed is still to be read: acknowledgements and its goodbye, say.
    pub fn deafen(&mut self) {
        self.deaf = true;
        (self.outbox, self.unsaid) = (Outbox::default(), None);
        self.note(true, true);
    }

    /// True when there is something to be served.
    pub fn has_work(&self) -> bool {
        !self.is_clogged() && (self.readable || !self.unhandled.is_empty())
    }

    /// True when the system has reported its end.
    pub fn has_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Puts a message, and its batch, into the outbox. After the last one, nothing more.
    pub fn send(&mut self, message: &Message, batch: Option<&Batch>) {
        if self.deaf || self.state == State::Lingering {
            return;
        }
        if let Message::Confirm { position, credit_items, credit_bytes } = message {
            let brings_credit = *credit_items > 0 || *credit_bytes > 0;
            self.unsaid = Some(*position).filter(|_| !brings_credit && !self.reader.is_between_frames());
            if self.unsaid.is_some() {
                return;
            }
        } else {
            // It may be the last message.
            self.say_unsaid();
        }
        match batch {
            Some(batch) => self.outbox.push_batch(message, batch),
            None => self.outbox.push(message),
        }
    }

    /// True when there is a confirmation to be said that nothing follows any more.
    pub fn is_confirmation_due(&self) -> bool {
        self.unsaid.is_some() && self.reader.is_between_frames()
    }

    fn say_unsaid(&mut self) {
        if let Some(position) = self.unsaid.take() {
            self.outbox.push(&Message::Confirm { position, credit_items: 0, credit_bytes: 0 });
        }
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        self.in_line_to_write = false;
        if self.is_confirmation_due() {
            self.say_unsaid();
        }
        let written = self.outbox.write_to(|pieces| self.wire.write(pieces))?;
        if written && self.state == State::Lingering {
            // All is said; the client sees the end behind it, and we wait for its own.
            self.wire.end_writing()?;
        }
        Ok(())
    }

    /// Reads once; adds the frames that are whole now to `frames`, also when it ends in an error.
    pub fn receive(&mut self, scratch: &mut Scratch, frames: &mut Vec<Bytes>) -> Result<(), Broken> {
        let came = if self.state == State::Lingering {
            transport::discard(&self.wire, scratch)?
        } else {
            transport::receive(&self.wire, &mut self.reader, scratch, |frame| {
                frames.push(frame);
                Ok::<(), Broken>(())
            })?
        };
        match came {
            Came::More => Ok(()),
            Came::Drained => {
                // Of an end that was reported before, no further report comes: read on until it is met.
                self.readable = self.hung_up;
                Ok(())
            }
            Came::End => Err(Broken::Gone),
        }
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Broken {
        Broken::Refused(CloseReason::Protocol, format!("you sent {error}"))
    }
}

impl From<DecodeError> for Broken {
    fn from(error: DecodeError) -> Broken {
        match error {
            DecodeError::Version { .. } => Broken::Refused(CloseReason::Version, format!("you sent {error}")),
            _ => Broken::Refused(CloseReason::Protocol, format!("you sent {error}")),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Broken {
        Broken::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn confirm(items: u64) -> Message {
        Message::Confirm { position: Position(items), credit_items: 0, credit_bytes: 0 }
    }

    /// A connection that has met the beginning of a frame.
    fn amid_a_frame() -> (Connection<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut connection = Connection::over(ours, Duration::ZERO, Pool::default());
        connection.open(Role::Producer, 1000);
        (&theirs).write_all(&[5, 0, 0]).unwrap();
        connection.receive(&mut Scratch::default(), &mut Vec::new()).unwrap();
        (connection, theirs)
    }

    fn heard(connection: &mut Connection<UnixStream>, theirs: &UnixStream) -> Vec<Message> {
        connection.flush().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (mut bytes, mut reader) = (Vec::new(), FrameReader::new(1000));
        _ = (&*theirs).read_to_end(&mut bytes);
        let mut input = &bytes[..];
        std::iter::from_fn(|| reader.next(&mut input).unwrap()).map(|frame| Message::decode(frame).unwrap().message).collect()
    }

    #[test]
    fn confirmations_are_said_together_once_the_frame_behind_them_is_there() {
        let (mut connection, theirs) = amid_a_frame();
        connection.send(&confirm(3), None);
        connection.send(&confirm(5), None);
        assert_eq!(heard(&mut connection, &theirs), []);
        (&theirs).write_all(&[0, 1, 2, 3, 4, 5]).unwrap();
        connection.receive(&mut Scratch::default(), &mut Vec::new()).unwrap();
        assert_eq!(heard(&mut connection, &theirs), [confirm(5)]);
        assert_eq!(heard(&mut connection, &theirs), []);
    }

    #[test]
    fn what_is_confirmed_is_said_before_whatever_comes_behind_it() {
        let (mut connection, theirs) = amid_a_frame();
        connection.send(&confirm(3), None);
        connection.send(&Message::Joined, None);
        assert_eq!(heard(&mut connection, &theirs), [confirm(3), Message::Joined]);
        connection.send(&confirm(4), None);
        connection.linger(CloseReason::Ended, String::new(), Duration::ZERO);
        let close = Message::Close { reason: CloseReason::Ended, words: String::new() };
        assert_eq!(heard(&mut connection, &theirs), [confirm(4), close]);
    }
}
