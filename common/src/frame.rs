//! Frames: a little-endian `u32` length, then as many bytes. A pure codec; it never sees a socket.
//!
//! "Not all here yet" is `Ok(None)`; "can never be a frame" is an error. A length is judged before anything is allocated for it.

use bytes::Bytes;

use crate::limits::FRAME_PREFIX_BYTES;
use crate::pool::{Buffer, Pool};

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

/// Cuts a stream of bytes into frames, each in memory of its own. Of a frame that is under way the rest can be read straight into
/// its place.
#[derive(Debug)]
pub struct FrameReader {
    bytes_max: usize,
    pool: Pool,
    prefix: [u8; FRAME_PREFIX_BYTES],
    prefix_filled: usize,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    frame: Buffer,
    filled: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> FrameReader {
        FrameReader::with_pool(bytes_max, Pool::default())
    }

    /// A reader that shares its memory with others.
    pub fn with_pool(bytes_max: usize, pool: Pool) -> FrameReader {
        FrameReader { bytes_max, pool, prefix: [0; FRAME_PREFIX_BYTES], prefix_filled: 0, under_way: None }
    }

    /// Sets another limit, from the next frame on.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes bytes off the front of `input` up to the end of a frame, and returns that frame; `None` once `input` is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, FrameError> {
        if self.under_way.is_none() {
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
            self.under_way = Some(UnderWay { frame: self.pool.take(bytes), filled: 0 });
        }
        let Some(place) = self.direct() else { return Ok(None) };
        let count = place.len().min(input.len());
        let (head, rest) = input.split_at(count);
        place[..count].copy_from_slice(head);
        *input = rest;
        Ok(self.filled(count))
    }

    /// Where the rest of a frame that is under way belongs. None between frames. What is put there is told to
    /// [`FrameReader::filled`].
    pub fn direct(&mut self) -> Option<&mut [u8]> {
        self.under_way.as_mut().map(|under_way| &mut under_way.frame.as_mut()[under_way.filled..])
    }

    /// `count` bytes more are in [`FrameReader::direct`]'s place: the frame, if it is whole now.
    ///
    /// # Panics
    /// When that is more than were missing.
    pub fn filled(&mut self, count: usize) -> Option<Bytes> {
        let under_way = self.under_way.as_mut()?;
        under_way.filled += count;
        let bytes = under_way.frame.as_ref().len();
        assert!(under_way.filled <= bytes, "a frame of {bytes} bytes was filled with {}", under_way.filled);
        if under_way.filled < bytes {
            return None;
        }
        self.prefix_filled = 0;
        self.under_way.take().map(|under_way| under_way.frame.share())
    }

    /// True when the stream may end here: no frame is under way.
    pub fn is_between_frames(&self) -> bool {
        self.prefix_filled == 0
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
    fn a_frame_may_be_exactly_as_long_as_is_allowed_and_another_limit_holds_from_the_next_frame_on() {
        let mut reader = FrameReader::new(3);
        assert_eq!(reader.next(&mut &b"\x03\0\0\0ab"[..]), Ok(None));
        reader.set_bytes_max(2);
        assert_eq!(reader.next(&mut &b"c"[..]).unwrap().unwrap(), &b"abc"[..]);
        assert_eq!(reader.next(&mut &b"\x02\0\0\0de"[..]).unwrap().unwrap(), &b"de"[..]);
        assert_eq!(reader.next(&mut &b"\x03\0\0\0"[..]), Err(FrameError::TooLong { bytes: 3, bytes_max: 2 }));
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
                if let Some(place) = reader.direct().filter(|_| direct) {
                    let (head, rest) = piece.split_at(place.len().min(piece.len()));
                    place[..head.len()].copy_from_slice(head);
                    piece = rest;
                    out.extend(reader.filled(head.len()));
                }
                while let Some(frame) = reader.next(&mut piece).unwrap() { out.push(frame) }
            }
            prop_assert_eq!(out, frames);
            prop_assert!(reader.is_between_frames());
        }
    }
}
