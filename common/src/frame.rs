//! Frames: a little-endian `u32` length, then as many bytes. A pure codec; it never sees a socket.
//!
//! "Not all here yet" is `Ok(None)`; "can never be a frame" is an error. A length is judged before anything is allocated for it.

use bytes::Bytes;

use crate::limits::FRAME_PREFIX_BYTES;

/// Why bytes cannot be a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is over the limit.
    #[error("a frame of {bytes} bytes; at most {bytes_max} are accepted here")]
    TooLong {
        /// The length that came.
        bytes: usize,
        /// The limit in force on this connection.
        bytes_max: usize,
    },
    /// The length is zero: no message is empty.
    #[error("a frame of 0 bytes; the shortest message has 1")]
    Empty,
}

/// Cuts a stream of bytes into frames. A frame that came whole is copied once into memory of its own size; of a larger one
/// the rest is read straight into its place.
#[derive(Debug)]
pub struct FrameReader {
    bytes_max: usize,
    prefix: [u8; FRAME_PREFIX_BYTES],
    prefix_filled: usize,
    frame: Vec<u8>,
    frame_bytes: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> FrameReader {
        FrameReader { bytes_max, prefix: [0; FRAME_PREFIX_BYTES], prefix_filled: 0, frame: Vec::new(), frame_bytes: 0 }
    }

    /// Sets another limit, from the next frame on.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes bytes off the front of `input` up to the end of a frame, and returns that frame; `None` once `input` is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, FrameError> {
        if self.frame_bytes == 0 {
            let missing = FRAME_PREFIX_BYTES - self.prefix_filled;
            let (head, rest) = input.split_at(missing.min(input.len()));
            self.prefix[self.prefix_filled..self.prefix_filled + head.len()].copy_from_slice(head);
            self.prefix_filled += head.len();
            *input = rest;
            if self.prefix_filled < FRAME_PREFIX_BYTES {
                return Ok(None);
            }
            let bytes = u32::from_le_bytes(self.prefix) as usize;
            if bytes == 0 {
                return Err(FrameError::Empty);
            }
            if bytes > self.bytes_max {
                return Err(FrameError::TooLong { bytes, bytes_max: self.bytes_max });
            }
            self.frame_bytes = bytes;
            self.frame = Vec::with_capacity(bytes);
        }
        let missing = self.frame_bytes - self.frame.len();
        let (head, rest) = input.split_at(missing.min(input.len()));
        self.frame.extend_from_slice(head);
        *input = rest;
        Ok(self.take_whole())
    }

    /// Where to read the rest of a frame that is under way: a buffer whose spare capacity is what is missing. None between
    /// frames. Call [`FrameReader::direct_done`] after each read.
    pub fn direct(&mut self) -> Option<&mut Vec<u8>> {
        (self.frame_bytes > 0).then_some(&mut self.frame)
    }

    /// After a read into [`FrameReader::direct`]: the frame if it is whole, and what was read beyond its end.
    pub fn direct_done(&mut self) -> (Option<Bytes>, Vec<u8>) {
        let beyond = if self.frame.len() > self.frame_bytes { self.frame.split_off(self.frame_bytes) } else { Vec::new() };
        (self.take_whole(), beyond)
    }

    /// True when the stream may end here: no frame is under way.
    pub fn is_between_frames(&self) -> bool {
        self.prefix_filled == 0
    }

    fn take_whole(&mut self) -> Option<Bytes> {
        if self.frame_bytes == 0 || self.frame.len() < self.frame_bytes {
            return None;
        }
        self.prefix_filled = 0;
        self.frame_bytes = 0;
        Some(Bytes::from(std::mem::take(&mut self.frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&(frame.len() as u32).to_le_bytes()[..], frame].concat()).collect()
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut reader = FrameReader::new(10);
        let mut input = &[11, 0, 0, 0][..];
        assert_eq!(reader.next(&mut input), Err(FrameError::TooLong { bytes: 11, bytes_max: 10 }));
        let mut input = &[0xff; 4][..];
        assert_eq!(FrameReader::new(10).next(&mut input), Err(FrameError::TooLong { bytes: u32::MAX as usize, bytes_max: 10 }));
    }

    #[test]
    fn an_empty_frame_is_refused() {
        assert_eq!(FrameReader::new(10).next(&mut &[0; 4][..]), Err(FrameError::Empty));
    }

    #[test]
    fn half_a_frame_is_not_an_error_but_no_place_to_end() {
        let mut reader = FrameReader::new(10);
        assert!(reader.is_between_frames());
        for cut in [&[3, 0][..], &[0, 0], b"ab"] {
            assert_eq!(reader.next(&mut &cut[..]), Ok(None));
            assert!(!reader.is_between_frames());
        }
        assert_eq!(reader.next(&mut &b"c"[..]).unwrap().unwrap(), &b"abc"[..]);
        assert!(reader.is_between_frames());
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_frames_are_the_same(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..10),
            cuts in prop::collection::vec((1usize..50, any::<bool>()), 1..60),
        ) {
            let stream = framed(&frames);
            let mut reader = FrameReader::new(40);
            let (mut at, mut out) = (0, Vec::new());
            for (size, direct) in cuts.into_iter().cycle().take(2000) {
                let mut piece = &stream[at..(at + size).min(stream.len())];
                at += piece.len();
                if let Some(buffer) = reader.direct().filter(|_| direct) {
                    buffer.extend_from_slice(piece);
                    let (frame, beyond) = reader.direct_done();
                    out.extend(frame);
                    let mut beyond = &beyond[..];
                    while let Some(frame) = reader.next(&mut beyond).unwrap() { out.push(frame) }
                } else {
                    while let Some(frame) = reader.next(&mut piece).unwrap() { out.push(frame) }
                }
            }
            prop_assert_eq!(out, frames);
            prop_assert!(reader.is_between_frames());
        }
    }
}
