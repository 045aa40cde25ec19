//! Items that are put, got and acknowledged beside others that wait. The producer and the consumer are connections of one process,
//! which gives and takes many items in one frame and does next to nothing with each: the coordinator is what takes the time. Few items
//! are on their way at once, so that the queue is as deep at the end, and all the time, as it was at the beginning.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use common::Endpoint;
use common::batch::BatchBuilder;
use common::message::{ItemRange, Message, Position, Role as Speaker};

use super::raw::Raw;
use crate::actor::{self, Actor, Part, Role};
use crate::item::{self, Tally};

/// Items in one frame.
const ROUND_ITEMS: u64 = 50;

/// Frames written at once. Two such bursts are on their way, so that the coordinator has always one to do.
const BURST_ROUNDS: u64 = 4;

/// Passes so many items through a queue in which `depth` others, numbered from 0 on, wait; returns the seconds that it takes.
pub fn pass(queue: &tests::Queue, depth: u64, count: u64) -> Result<f64> {
    let mut circuit = Actor::start(&Part::new(Role::ProcqCircuit).at(queue.socket()).items(8, depth, count))?;
    circuit.ready()?;
    let started = Instant::now();
    circuit.go()?;
    let tally = circuit.done()?;
    let seconds = started.elapsed().as_secs_f64();
    // First in, first out: those that waited longest came.
    tally.verify(count)?;
    circuit.finish()?;
    Ok(seconds)
}

/// Plays the part: `first` items wait, `count` more go round.
pub fn play(part: &Part) -> Result<()> {
    let endpoint = Endpoint::at(&part.place);
    let mut producer = Raw::connect(&endpoint, Speaker::Producer)?;
    let consumer = Raw::connect(&endpoint, Speaker::Consumer)?;
    let Message::Confirm { .. } = producer.hear()?.message else { bail!("no credit for the first put") };
    let mut circuit = Circuit { producer, consumer, first: part.first, put: 0, confirmed: 0, tally: Tally::default(), acks: Vec::new() };
    actor::wait_for_go()?;
    circuit.run(part.count)?;
    actor::say_done(circuit.tally);
    Ok(())
}

struct Circuit {
    producer: Raw,
    consumer: Raw,
    first: u64,
    put: u64,
    confirmed: u64,
    tally: Tally,
    /// What came and is not yet acknowledged.
    acks: Vec<u8>,
}

impl Circuit {
    fn run(&mut self, count: u64) -> Result<()> {
        while self.put < count {
            let before = self.put;
            self.send_burst(count)?;
            self.wait_until_done(before)?;
        }
        self.wait_until_done(count)?;
        self.consumer.say(&self.acks)
    }

    /// Puts and asks for as many items, unless `count` are put already.
    fn send_burst(&mut self, count: u64) -> Result<()> {
        let (mut puts, mut demands) = (Vec::new(), std::mem::take(&mut self.acks));
        for _ in 0..BURST_ROUNDS {
            let numbers = self.put..count.min(self.put + ROUND_ITEMS);
            let mut builder = BatchBuilder::default();
            numbers.clone().for_each(|number| builder.push_bytes(&item::small(self.first + number)));
            let Some(batch) = builder.take_batch() else { break };
            Message::Put { position: Position(self.put), checksum: 0, batch: batch.header() }
                .encode(batch.body_bytes() as usize, &mut puts);
            batch.body().into_iter().for_each(|piece| puts.extend_from_slice(piece));
            Message::Demand { items: batch.count(), bytes: batch.body_bytes() }.encode(0, &mut demands);
            self.put = numbers.end;
        }
        self.producer.say(&puts)?;
        self.consumer.say(&demands)
    }

    fn wait_until_done(&mut self, count: u64) -> Result<()> {
        while self.tally.count < count {
            let incoming = self.consumer.hear()?;
            let (Message::Deliver { first, .. }, Some(batch)) = (&incoming.message, &incoming.batch) else {
                bail!("{} came instead of items", incoming.message.name());
            };
            for item in batch.iter() {
                self.tally.add_small(item.try_into().context("an item that is not of 8 bytes")?);
            }
            let ranges = vec![ItemRange { first: *first, count: batch.count() }];
            Message::Ack { ranges }.encode(0, &mut self.acks);
        }
        while self.confirmed < count {
            match self.producer.hear()?.message {
                Message::Confirm { position, .. } => self.confirmed = position.0,
                other => bail!("{} came instead of a confirmation", other.name()),
            }
        }
        ensure!(self.tally.count <= self.put && self.confirmed <= self.put, "more came than was put");
        Ok(())
    }
}
