//! Bytes from a socket: frames, messages, batches.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use common::Message;
use common::batch::{Batch, BatchHeader, Layout};
use common::frame::{FrameError, FrameReader};
use common::limits::{BATCH_ITEMS_MAX, FRAME_PREFIX_BYTES};
use common::message::Incoming;

/// A stream larger than this shows nothing new: frames from 16 KiB on have memory from the pool.
const STREAM_BYTES_MAX: usize = 64 * 1024;

/// A stream of frames, and how it comes in pieces.
#[derive(Arbitrary, Debug)]
struct Stream<'a> {
    bytes_max: u16,
    /// The bytes come this often, so that few make long frames.
    repeated: u8,
    pieces: Vec<Piece>,
    bytes: &'a [u8],
}

#[derive(Arbitrary, Debug)]
struct Piece {
    bytes: u16,
    /// What belongs to the frame under way is put straight into its place.
    direct: bool,
}

/// What a reader made of a stream: its frames, and how it ended: between frames, within one, or with an error.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    frames: Vec<Vec<u8>>,
    end: Result<bool, FrameError>,
}

/// Cuts any stream into the same frames, however it comes in pieces, as a plain reading of the rules does.
pub fn frame(data: &[u8]) {
    let Ok(stream) = Stream::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut bytes = stream.bytes.repeat(1 + usize::from(stream.repeated));
    bytes.truncate(STREAM_BYTES_MAX);
    let bytes_max = usize::from(stream.bytes_max);
    let expected = cut_plainly(&bytes, bytes_max);
    assert_eq!(cut(&bytes, bytes_max, &[]), expected, "in one piece");
    assert_eq!(cut(&bytes, bytes_max, &stream.pieces), expected, "in pieces");
}

fn cut(mut bytes: &[u8], bytes_max: usize, pieces: &[Piece]) -> Cut {
    let mut reader = FrameReader::new(bytes_max);
    let mut frames = Vec::new();
    let whole = [Piece { bytes: u16::MAX, direct: false }];
    let mut pieces = if pieces.is_empty() { whole.iter().cycle() } else { pieces.iter().cycle() };
    while !bytes.is_empty() {
        let Some(piece) = pieces.next() else { break };
        let (mut now, later) = bytes.split_at((1 + usize::from(piece.bytes)).min(bytes.len()));
        bytes = later;
        if let Some(place) = reader.direct().filter(|_| piece.direct) {
            assert!(!place.is_empty() && place.len() <= bytes_max);
            let (head, rest) = now.split_at(place.len().min(now.len()));
            place[..head.len()].copy_from_slice(head);
            now = rest;
            frames.extend(reader.filled(head.len()).map(|frame| frame.to_vec()));
        }
        loop {
            match reader.next(&mut now) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => return Cut { frames, end: Err(error) },
            }
        }
        assert!(now.is_empty(), "what is left behind is lost");
    }
    Cut { frames, end: Ok(reader.is_between_frames()) }
}

fn cut_plainly(mut bytes: &[u8], bytes_max: usize) -> Cut {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<FRAME_PREFIX_BYTES>() {
        let length = u32::from_le_bytes(*prefix) as usize;
        if length == 0 {
            return Cut { frames, end: Err(FrameError::Empty) };
        }
        if length > bytes_max {
            return Cut { frames, end: Err(FrameError::TooLong { bytes: length, bytes_max }) };
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else { return Cut { frames, end: Ok(false) } };
        frames.push(frame.to_vec());
        bytes = rest;
    }
    Cut { frames, end: Ok(bytes.is_empty()) }
}

/// Decodes any frame or refuses it, and what it decodes encodes to the same again.
pub fn message(data: &[u8]) {
    let Incoming { message, batch } = match Message::decode(Bytes::copy_from_slice(data)) {
        Ok(incoming) => incoming,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let body = batch.as_ref().map(body).unwrap_or_default();
    let mut encoded = Vec::new();
    message.encode(body.len(), &mut encoded);
    encoded.extend_from_slice(&body);
    let mut reader = FrameReader::new(encoded.len());
    let mut input = &encoded[..];
    let frame = reader.next(&mut input).expect("its own limit").expect("a whole frame");
    assert!(input.is_empty());
    assert!(frame.len() <= data.len(), "the shortest encoding is the one that is written");
    let again = Message::decode(frame).expect("what was encoded here");
    assert_eq!(again.message, message);
    assert_eq!(again.batch.as_ref().map(items), batch.as_ref().map(items));
}

/// A batch's header and body.
#[derive(Arbitrary, Debug)]
struct Body<'a> {
    count: u32,
    table: bool,
    number: u32,
    part: (u32, u32),
    bytes_max: u16,
    bytes: &'a [u8],
}

/// Refuses any body that is not what its header says, and cuts any other without losing or mixing an item.
pub fn batch(data: &[u8]) {
    let Ok(given) = Body::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let layout = if given.table { Layout::Table { base: given.number } } else { Layout::Uniform { len: given.number } };
    let header = BatchHeader { count: given.count, layout };
    let Ok(batch) = Batch::check(header, Bytes::copy_from_slice(given.bytes)) else { return };
    assert!((1..=BATCH_ITEMS_MAX).contains(&batch.count()));
    assert_eq!((batch.header(), batch.count()), (header, given.count));
    assert_eq!(body(&batch), given.bytes);
    assert_eq!(batch.body_bytes(), given.bytes.len() as u64);
    let items = items(&batch);
    assert_eq!(items.len(), given.count as usize);
    assert_eq!(items.concat(), &batch.body()[0][..]);

    let from = given.part.0 % batch.count();
    let count = 1 + given.part.1 % (batch.count() - from);
    let part = batch.slice(from, count);
    let expected = &items[from as usize..(from + count) as usize];
    assert_eq!(self::items(&part), expected);
    let sent = Batch::check(part.header(), body(&part).into()).expect("a part is a batch");
    assert_eq!(self::items(&sent), expected);
    assert_eq!(part.item_shared(count - 1), expected[count as usize - 1]);
    let within = part.slice(count / 2, count - count / 2);
    assert_eq!(self::items(&within), &expected[count as usize / 2..]);

    let bytes_max = u64::from(given.bytes_max);
    let mut sum = 0;
    let fits = |item: &&Vec<u8>| {
        sum += item.len() as u64;
        sum <= bytes_max
    };
    let naive = expected.iter().take_while(fits).count().max(1);
    assert_eq!(batch.fit(from, count, bytes_max) as usize, naive);
}

fn body(batch: &Batch) -> Vec<u8> {
    batch.body().map(|piece| piece.to_vec()).concat()
}

fn items(batch: &Batch) -> Vec<Vec<u8>> {
    batch.iter().map(<[u8]>::to_vec).collect()
}
