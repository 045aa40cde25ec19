//! The machine's own limit for the shape that procq has: three processes over Unix sockets, of which the middle one only passes on
//! framed, acknowledged blocks. It keeps nothing, knows one producer and one consumer, and survives nobody's death.
//!
//! A block is two u32, the bytes of its body and the number of its items, and the items, each behind its length as a u32: as in any
//! queue, an item may be of any size, is put by itself and is taken by itself. An acknowledgement is a u64: how many blocks are done.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::transport;

use crate::actor::{self, Actor, Part, Role};
use crate::item::{self, Checker, Maker, Tally};
use crate::peer::{Case, Peer};
use crate::trips::Trips;

const HEADER_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

/// Small items share blocks of this size, as they do in procq; a large item is a block.
const BLOCK_BYTES: usize = 64 * 1024;

/// How much may be on its way unacknowledged.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// The limit that targets refer to is that of sockets as the system makes them.
pub struct Limit {
    /// They have buffers as large as procq's.
    pub wide: bool,
}

impl Peer for Limit {
    fn name(&self) -> &'static str {
        if self.wide { "limit, buffers like procq's" } else { "limit" }
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        let folder = tempfile::tempdir()?;
        let part = |role| Part { wide: self.wide, ..Part::new(role).at(folder.path()).items(case.size, 0, count) };
        let mut relay = Actor::start(&part(Role::LimitRelay))?;
        relay.ready()?;
        let mut consumer = Actor::start(&part(Role::LimitConsumer))?;
        let mut producer = Actor::start(&part(Role::LimitProducer))?;
        consumer.ready()?;
        producer.ready()?;

        let started = Instant::now();
        producer.go()?;
        producer.done()?;
        let tally = consumer.done()?;
        let seconds = started.elapsed().as_secs_f64();

        tally.verify(count)?;
        [consumer, producer, relay].into_iter().try_for_each(Actor::finish)?;
        Ok(seconds)
    }

    fn trips(&self, count: u64) -> Option<Result<Trips>> {
        (!self.wide).then(|| trips(count))
    }
}

fn trips(count: u64) -> Result<Trips> {
    let (there, back) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let relay = |place: &Path| Actor::start(&Part::new(Role::LimitRelay).at(place));
    let mut relays = [relay(there.path())?, relay(back.path())?];
    relays.iter_mut().try_for_each(Actor::ready)?;
    let part = |role| Part::new(role).at(there.path()).back(back.path()).items(8, 0, count);
    let mut echo = Actor::start(&part(Role::LimitEcho))?;
    let mut ping = Actor::start(&part(Role::LimitPing))?;
    echo.ready()?;
    ping.ready()?;
    ping.go()?;
    let trips = ping.trips()?;
    [echo, ping].into_iter().chain(relays).try_for_each(Actor::finish)?;
    Ok(trips)
}

/// Passes blocks from whoever connects to `in` to whoever connects to `out`, and acknowledgements back.
pub fn relay(part: &Part) -> Result<()> {
    let (from, to) = (UnixListener::bind(part.place.join("in"))?, UnixListener::bind(part.place.join("out"))?);
    actor::say_ready();
    let (mut from, _) = from.accept()?;
    let (mut to, _) = to.accept()?;
    widen_if(part.wide, &to);
    let (mut acknowledged, mut acknowledging) = (from.try_clone()?, to.try_clone()?);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Ends with either of the two; what is then missing, its receiver notices.
            let _ = std::io::copy(&mut acknowledging, &mut acknowledged);
        });
        let mut blocks = Blocks::new(part.size);
        while let Some(block) = blocks.next(&mut from)? {
            to.write_all(block)?;
        }
        Ok(())
    })
}

pub fn produce(part: &Part) -> Result<()> {
    let mut stream = UnixStream::connect(part.place.join("in"))?;
    widen_if(part.wide, &stream);
    let block_items = items_per_block(part.size);
    let window = window(part.size);
    let mut maker = Maker::new(part.size);
    let mut block = Vec::new();
    let (mut sent, mut done) = (0, 0);
    actor::wait_for_go()?;
    let mut number = 0;
    while number < part.count {
        let items = block_items.min(part.count - number);
        if part.size >= BLOCK_BYTES && !block.is_empty() {
            // An item that is a block goes from where its maker left it: nothing forces a copy.
            item::stamp(number, &mut block[HEADER_BYTES + LENGTH_BYTES..]);
        } else {
            fill(&mut block, &mut maker, part.size, number, items);
        }
        while sent - done >= window {
            done = read_acknowledgement(&mut stream)?;
        }
        stream.write_all(&block)?;
        sent += 1;
        number += items;
    }
    while done < sent {
        done = read_acknowledgement(&mut stream)?;
    }
    actor::say_done(Tally::default());
    Ok(())
}

pub fn consume(part: &Part) -> Result<()> {
    let mut stream = UnixStream::connect(part.place.join("out"))?;
    let acknowledge_every = (window(part.size) / 4).max(1);
    let mut blocks = Blocks::new(part.size);
    let mut checker = Checker::new(part.size);
    let (mut done, mut acknowledged) = (0, 0);
    actor::say_ready();
    while checker.tally().count < part.count {
        let block = blocks.next(&mut stream)?.context("the blocks ended too early")?;
        let mut items = &block[HEADER_BYTES..];
        for _ in 0..Header::of(block).items {
            checker.check(take_item(&mut items)?)?;
        }
        ensure!(items.is_empty(), "a block has more than its items");
        done += 1;
        if done - acknowledged >= acknowledge_every || checker.tally().count == part.count {
            stream.write_all(&u64::to_le_bytes(done))?;
            acknowledged = done;
        }
    }
    actor::say_done(checker.tally());
    Ok(())
}

pub fn ping(part: &Part) -> Result<()> {
    let mut there = UnixStream::connect(part.place.join("in"))?;
    let mut back = UnixStream::connect(part.back.join("out"))?;
    let mut blocks = Blocks::new(8);
    actor::wait_for_go()?;
    let trips = Trips::measure(part.count, |number| {
        if number > 0 {
            ensure!(read_acknowledgement(&mut there)? == number, "an acknowledgement is missing");
        }
        there.write_all(&one_item(number))?;
        let number = read_one_item(&mut blocks, &mut back)?;
        back.write_all(&(number + 1).to_le_bytes())?;
        Ok(number)
    })?;
    ensure!(read_acknowledgement(&mut there)? == Trips::in_all(part.count), "the last acknowledgement is missing");
    trips.say();
    Ok(())
}

pub fn echo(part: &Part) -> Result<()> {
    let mut there = UnixStream::connect(part.place.join("out"))?;
    let mut back = UnixStream::connect(part.back.join("in"))?;
    let mut blocks = Blocks::new(8);
    actor::say_ready();
    for turn in 0..Trips::in_all(part.count) {
        if turn > 0 {
            ensure!(read_acknowledgement(&mut back)? == turn, "an acknowledgement is missing");
        }
        let number = read_one_item(&mut blocks, &mut there)?;
        back.write_all(&one_item(number))?;
        there.write_all(&(turn + 1).to_le_bytes())?;
    }
    ensure!(read_acknowledgement(&mut back)? == Trips::in_all(part.count), "the last acknowledgement is missing");
    Ok(())
}

fn widen_if(wide: bool, stream: &UnixStream) {
    if wide {
        transport::widen(stream);
    }
}

fn items_per_block(size: usize) -> u64 {
    ((BLOCK_BYTES - HEADER_BYTES) / (LENGTH_BYTES + size)).max(1) as u64
}

/// How many blocks may be on their way unacknowledged.
fn window(size: usize) -> u64 {
    (WINDOW_BYTES / size.max(BLOCK_BYTES)).max(1) as u64
}

fn fill(block: &mut Vec<u8>, maker: &mut Maker, size: usize, first: u64, items: u64) {
    let body_bytes = (LENGTH_BYTES + size) as u32 * items as u32;
    block.clear();
    block.extend(body_bytes.to_le_bytes());
    block.extend((items as u32).to_le_bytes());
    for number in first..first + items {
        if size == 8 {
            append_item(block, &item::small(number));
        } else {
            append_item(block, maker.make(number));
        }
    }
}

fn append_item(block: &mut Vec<u8>, item: &[u8]) {
    block.extend((item.len() as u32).to_le_bytes());
    block.extend_from_slice(item);
}

/// The next of a block's items.
fn take_item<'a>(items: &mut &'a [u8]) -> Result<&'a [u8]> {
    let (length, rest) = items.split_first_chunk().context("an item's length is missing")?;
    let (item, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).context("an item is cut off")?;
    *items = rest;
    Ok(item)
}

fn one_item(number: u64) -> Vec<u8> {
    let mut block = Vec::new();
    block.extend((LENGTH_BYTES as u32 + 8).to_le_bytes());
    block.extend(1u32.to_le_bytes());
    append_item(&mut block, &number.to_le_bytes());
    block
}

fn read_one_item(blocks: &mut Blocks, stream: &mut UnixStream) -> Result<u64> {
    let block = blocks.next(stream)?.context("the blocks ended too early")?;
    let item = take_item(&mut &block[HEADER_BYTES..])?;
    Ok(u64::from_le_bytes(item.try_into()?))
}

fn read_acknowledgement(stream: &mut UnixStream) -> Result<u64> {
    let mut done = [0; 8];
    stream.read_exact(&mut done).context("the acknowledgements ended too early")?;
    Ok(u64::from_le_bytes(done))
}

struct Header {
    body_bytes: usize,
    items: usize,
}

impl Header {
    fn of(block: &[u8]) -> Header {
        let number = |at: usize| block[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        Header { body_bytes: number(0), items: number(4) }
    }
}

/// Reads whole blocks, as many at once as there are.
struct Blocks {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Blocks {
    fn new(size: usize) -> Blocks {
        Blocks { buffer: vec![0; 2 * (HEADER_BYTES + LENGTH_BYTES + size).max(BLOCK_BYTES)], start: 0, end: 0 }
    }

    fn next(&mut self, stream: &mut UnixStream) -> Result<Option<&[u8]>> {
        loop {
            let mut needed = HEADER_BYTES;
            if self.end - self.start >= needed {
                needed += Header::of(&self.buffer[self.start..]).body_bytes;
                if self.end - self.start >= needed {
                    let block = self.start..self.start + needed;
                    self.start = block.end;
                    return Ok(Some(&self.buffer[block]));
                }
            }
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            } else if self.start + needed > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            ensure!(self.start + needed <= self.buffer.len(), "a block of {needed} bytes is none of ours");
            match stream.read(&mut self.buffer[self.end..])? {
                0 if self.start == self.end => return Ok(None),
                0 => anyhow::bail!("the stream ended inside a block"),
                count => self.end += count,
            }
        }
    }
}
