//! Bytes on their way out: small messages are gathered, large bodies kept by reference, all written with one vectored call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::Bytes;

use crate::batch::{Batch, BatchHeader, HEADROOM_BYTES};
#[cfg(test)]
use crate::message::Incoming;
use crate::message::Message;

/// Bodies below this are copied next to their header: dearer than nothing, cheaper than one more piece in a vectored write.
const COPY_BYTES_MAX: usize = 2048;

/// A gathered piece is closed at this size, so that its memory goes back once it is written.
const GATHER_BYTES_MAX: usize = 64 * 1024;

/// Buffers of this many bytes in all are kept to be used again: memory that is fresh from the system costs more than filling it.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pieces in one write; Linux takes up to 1024.
const PIECES_MAX: usize = 64;

/// What waits to be written to one socket, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    gather: Vec<u8>,
    bytes: usize,
    written_of_front: usize,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
}

#[derive(Debug)]
enum Piece {
    Shared(Bytes),
    Gathered(Vec<u8>),
    Built(Vec<u8>, Range<usize>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Shared(bytes) => bytes,
            Piece::Gathered(buffer) => buffer,
            Piece::Built(buffer, range) => &buffer[range.clone()],
        }
    }
}

impl Outbox {
    /// Adds a message without a batch.
    pub fn push(&mut self, message: &Message) {
        let before = self.gather.len();
        message.encode(0, &mut self.gather);
        self.bytes += self.gather.len() - before;
        if self.gather.len() >= GATHER_BYTES_MAX {
            self.close_gathered();
        }
    }

    /// Adds a message and its batch.
    pub fn push_batch(&mut self, message: &Message, batch: &Batch) {
        let body_bytes = batch.body_bytes() as usize;
        let before = self.gather.len();
        message.encode(body_bytes, &mut self.gather);
        self.bytes += self.gather.len() - before + body_bytes;
        for piece in batch.body() {
            if piece.len() <= COPY_BYTES_MAX {
                self.gather.extend_from_slice(piece);
            } else {
                self.close_gathered();
                self.pieces.push_back(Piece::Shared(piece.clone()));
            }
        }
        if self.gather.len() >= GATHER_BYTES_MAX {
            self.close_gathered();
        }
    }

    /// Adds a batch as its builder made it, writing the message into the room before the body.
    pub(crate) fn push_built(&mut self, message: impl FnOnce(BatchHeader) -> Message, header: BatchHeader, mut buffer: Vec<u8>) {
        let mut head = Vec::with_capacity(HEADROOM_BYTES);
        message(header).encode(buffer.len() - HEADROOM_BYTES, &mut head);
        debug_assert!(head.len() <= HEADROOM_BYTES, "HEADROOM_BYTES is too small for {} bytes", head.len());
        let from = HEADROOM_BYTES - head.len();
        buffer[from..HEADROOM_BYTES].copy_from_slice(&head);
        self.bytes += buffer.len() - from;
        if buffer.len() - from <= COPY_BYTES_MAX {
            self.gather.extend_from_slice(&buffer[from..]);
            self.keep_spare(buffer);
        } else {
            self.close_gathered();
            let range = from..buffer.len();
            self.pieces.push_back(Piece::Built(buffer, range));
        }
    }

    /// An empty buffer for the next batch to be built in, one that has been written if there is any.
    pub(crate) fn take_spare(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= buffer.capacity();
        buffer
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Writes as much as `write` takes, until nothing waits or it would block. True when nothing waits any more.
    pub fn write_to(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<bool> {
        self.close_gathered();
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut used = 0;
            for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
                let skip = if used == 0 { self.written_of_front } else { 0 };
                *slot = IoSlice::new(&piece.bytes()[skip..]);
                used += 1;
            }
            match write(&slices[..used]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        self.written_of_front += written;
        while let Some(front) = self.pieces.front() {
            let front_bytes = front.bytes().len();
            if self.written_of_front < front_bytes {
                break;
            }
            self.written_of_front -= front_bytes;
            if let Some(Piece::Built(buffer, _)) = self.pieces.pop_front() {
                self.keep_spare(buffer);
            }
        }
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if self.spare_bytes + buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare_bytes += buffer.capacity();
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    fn close_gathered(&mut self) {
        if !self.gather.is_empty() {
            self.pieces.push_back(Piece::Gathered(std::mem::take(&mut self.gather)));
        }
    }
}

#[cfg(test)]
impl Outbox {
    /// Writes all that waits, and reads it as the other side would.
    pub(crate) fn read_all(&mut self) -> Vec<Incoming> {
        let mut stream = Vec::new();
        let write = |slices: &[IoSlice<'_>]| {
            slices.iter().for_each(|slice| stream.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        assert!(self.write_to(write).unwrap());
        let mut reader = crate::frame::FrameReader::new(1 << 24);
        let mut input = &stream[..];
        std::iter::from_fn(|| reader.next(&mut input).unwrap()).map(|frame| Message::decode(frame).unwrap()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameReader;
    use crate::message::{ItemId, Position};

    #[test]
    fn messages_and_batches_leave_in_order_however_little_each_write_takes() {
        let large = Batch::one(Bytes::from(vec![7; COPY_BYTES_MAX + 1]));
        let small = Batch::one(Bytes::from_static(b"small"));
        for step in [1, 3, 1000, 100_000] {
            let mut outbox = Outbox::default();
            outbox.push(&Message::Stop);
            for batch in [&large, &small, &large] {
                let message = Message::Put { position: Position(5), checksum: 0, batch: batch.header() };
                outbox.push_batch(&message, batch);
            }
            outbox.push(&Message::Finish);
            let total = outbox.bytes();
            let mut stream = Vec::new();
            let mut blocked = false;
            loop {
                let done = outbox.write_to(|slices| {
                    blocked = !blocked;
                    if blocked {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).take(step).collect();
                    stream.extend_from_slice(&bytes);
                    Ok(bytes.len())
                });
                if done.unwrap() {
                    break;
                }
            }
            assert_eq!(stream.len(), total);
            assert!(outbox.is_empty());
            let mut reader = FrameReader::new(100_000);
            let mut input = &stream[..];
            let mut names = Vec::new();
            while let Some(frame) = reader.next(&mut input).unwrap() {
                let incoming = Message::decode(frame).unwrap();
                names.push((incoming.message.name(), incoming.batch.map(|batch| batch.item(0).len())));
            }
            let expected = [("Stop", None), ("Put", Some(2049)), ("Put", Some(5)), ("Put", Some(2049)), ("Finish", None)];
            assert_eq!(names, expected);
        }
    }

    /// The slices that one write is given.
    fn pieces(outbox: &mut Outbox) -> Vec<Vec<u8>> {
        let mut given = Vec::new();
        let write = |slices: &[IoSlice<'_>]| {
            given = slices.iter().map(|slice| slice.to_vec()).collect();
            Err(io::ErrorKind::WouldBlock.into())
        };
        assert!(outbox.is_empty() || !outbox.write_to(write).unwrap());
        given
    }

    fn built(outbox: &mut Outbox, item_bytes: usize) {
        let mut builder = crate::batch::BatchBuilder::default();
        builder.push_bytes(&vec![1; item_bytes]);
        let (header, buffer) = builder.take(outbox.take_spare()).unwrap();
        outbox.push_built(|batch| Message::Put { position: Position(0), checksum: 0, batch }, header, buffer);
    }

    #[test]
    fn what_is_small_shares_a_piece_and_what_is_large_is_not_copied() {
        for (body_bytes, count) in [(COPY_BYTES_MAX, 1), (COPY_BYTES_MAX + 1, 3)] {
            let mut outbox = Outbox::default();
            let batch = Batch::one(Bytes::from(vec![7; body_bytes]));
            outbox.push(&Message::Stop);
            outbox.push_batch(&Message::Put { position: Position(0), checksum: 0, batch: batch.header() }, &batch);
            outbox.push(&Message::Stop);
            assert_eq!(pieces(&mut outbox).len(), count);
        }
        let mut outbox = Outbox::default();
        outbox.push(&Message::Stop);
        built(&mut outbox, 100);
        assert_eq!(pieces(&mut outbox).len(), 1);
        built(&mut outbox, COPY_BYTES_MAX);
        assert_eq!(pieces(&mut outbox).len(), 2);
        assert_eq!((outbox.read_all().len(), outbox.bytes()), (3, 0));
    }

    #[test]
    fn a_built_batch_is_copied_if_its_whole_frame_is_small() {
        for item_bytes in COPY_BYTES_MAX - 50..=COPY_BYTES_MAX {
            let mut outbox = Outbox::default();
            outbox.push(&Message::Stop);
            let before = outbox.bytes();
            built(&mut outbox, item_bytes);
            let is_small = outbox.bytes() - before <= COPY_BYTES_MAX;
            assert_eq!(pieces(&mut outbox).len(), if is_small { 1 } else { 2 }, "{item_bytes}");
        }
    }

    #[test]
    fn a_piece_that_gathers_is_closed_once_it_is_large() {
        let mut messages = Outbox::default();
        (0..GATHER_BYTES_MAX / 5).for_each(|_| messages.push(&Message::Stop));
        assert_eq!(messages.pieces.len(), 0);
        messages.push(&Message::Stop);
        assert_eq!((messages.pieces.len(), messages.gather.len()), (1, 0));
        let mut batches = Outbox::default();
        let batch = Batch::one(Bytes::from(vec![7; COPY_BYTES_MAX]));
        while batches.pieces.is_empty() {
            batches.push_batch(&Message::Put { position: Position(0), checksum: 0, batch: batch.header() }, &batch);
            assert!(batches.bytes() < GATHER_BYTES_MAX + 2 * COPY_BYTES_MAX);
        }
        assert!(batches.bytes() >= GATHER_BYTES_MAX && batches.gather.is_empty());
    }

    #[test]
    fn many_pieces_leave_in_several_writes() {
        let mut outbox = Outbox::default();
        (0..PIECES_MAX + 1).for_each(|_| built(&mut outbox, COPY_BYTES_MAX));
        assert_eq!(pieces(&mut outbox).len(), PIECES_MAX);
        assert_eq!(outbox.read_all().len(), PIECES_MAX + 1);
    }

    #[test]
    fn a_write_that_is_interrupted_is_tried_again_and_other_errors_are_told() {
        let mut outbox = Outbox::default();
        outbox.push(&Message::Stop);
        let mut tries = 0;
        let done = outbox.write_to(|slices| {
            tries += 1;
            if tries == 1 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(slices[0].len()) }
        });
        assert!(done.unwrap());
        outbox.push(&Message::Stop);
        assert_eq!(outbox.write_to(|_| Ok(0)).unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(outbox.write_to(|_| Err(io::ErrorKind::BrokenPipe.into())).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_memory_of_written_batches_is_used_again_and_bounded() {
        let mut outbox = Outbox::default();
        built(&mut outbox, 10_000);
        assert_eq!(outbox.take_spare().capacity(), 0, "it is not written yet");
        outbox.read_all();
        let spare = outbox.take_spare();
        assert!(spare.is_empty() && spare.capacity() > 10_000);
        (0..8).for_each(|_| outbox.keep_spare(Vec::with_capacity(SPARE_BYTES_MAX / 4)));
        assert_eq!((outbox.spare.len(), outbox.spare_bytes), (4, SPARE_BYTES_MAX));
        outbox.take_spare();
        assert_eq!((outbox.spare.len(), outbox.spare_bytes), (3, SPARE_BYTES_MAX / 4 * 3));
    }

    #[test]
    fn the_longest_head_fits_the_headroom() {
        let batch = BatchHeader { count: u32::MAX, layout: crate::batch::Layout::Table { base: u32::MAX } };
        for message in
            [Message::Put { position: Position(u64::MAX), checksum: u64::MAX, batch }, Message::Result { first: ItemId(u64::MAX), batch }]
        {
            let mut head = Vec::new();
            message.encode(0, &mut head);
            assert!(head.len() <= HEADROOM_BYTES, "{} bytes", head.len());
        }
    }
}
