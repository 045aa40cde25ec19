//! procq through its typed client library, default settings, every item acknowledged by itself.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::{Consumer, Endpoint, Producer};

use crate::actor::{self, Actor, Part, Role};
use crate::item::{self, Checker, Maker, Tally};
use crate::peer::{self, Case, Peer};
use crate::trips::Trips;

/// procq, and the memory of the coordinators that have served.
#[derive(Default)]
pub struct Procq {
    /// Most KiB resident, per run with items of 8 bytes from one process to one.
    pub peaks_kib: RefCell<Vec<f64>>,
}

impl Peer for Procq {
    fn name(&self) -> &'static str {
        "procq"
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        let fan = case.fan as u64;
        pass(Team { producers: fan, consumers: fan, size: case.size }, &[], count, |coordinator| {
            if case == Case::SMALLEST {
                let peak_kib = tests::proc_status_kib(coordinator, "VmHWM").context("the coordinator's peak memory")?;
                self.peaks_kib.borrow_mut().push(peak_kib as f64);
            }
            Ok(())
        })
    }

    fn takes(&self, _case: Case) -> bool {
        true
    }

    fn trips(&self, count: u64) -> Option<Result<Trips>> {
        Some(trips(count))
    }
}

/// Who passes items of which size.
#[derive(Clone, Copy)]
pub struct Team {
    pub producers: u64,
    pub consumers: u64,
    pub size: usize,
}

/// Passes and verifies so many items through a queue of their own, whose coordinator gets these arguments as well; `at_end` gets its
/// process id when all are acknowledged.
pub fn pass(team: Team, arguments: &[&str], count: u64, at_end: impl FnOnce(u32) -> Result<()>) -> Result<f64> {
    let Team { producers, consumers, size } = team;
    // The benchmark itself is one more producer, which puts nothing, knows when all is acknowledged, and then ends the queue.
    let queue = tests::Queue::serve(&[&["--expect-producers", &(producers + 1).to_string()], arguments].concat());
    let last = Producer::<[u8]>::connect(&queue.endpoint())?;
    let consumer = Part::new(Role::ProcqConsumer).at(queue.socket()).items(size, 0, 0);
    let mut consumers = (0..consumers).map(|_| Actor::start(&consumer)).collect::<Result<Vec<_>>>()?;
    let producer = |index| {
        let share = peer::share(count, index, producers);
        Part::new(Role::ProcqProducer).at(queue.socket()).items(size, share.start, share.end - share.start)
    };
    let mut producers = (0..producers).map(|index| Actor::start(&producer(index))).collect::<Result<Vec<_>>>()?;
    consumers.iter_mut().chain(&mut producers).try_for_each(Actor::ready)?;

    let started = Instant::now();
    producers.iter_mut().try_for_each(Actor::go)?;
    for producer in &mut producers {
        producer.done()?;
    }
    last.join()?;
    let seconds = started.elapsed().as_secs_f64();

    at_end(queue.pid())?;
    last.finish()?;
    let mut tally = Tally::default();
    for consumer in &mut consumers {
        tally.add(consumer.done()?);
    }
    tally.verify(count)?;
    consumers.into_iter().chain(producers).try_for_each(Actor::finish)?;
    let (code, _, stderr, _) = queue.finish();
    ensure!(code == 0, "the coordinator ended with {code}: {stderr}");
    Ok(seconds)
}

fn trips(count: u64) -> Result<Trips> {
    let (there, back) = (tests::Queue::serve(&[]), tests::Queue::serve(&[]));
    let part = |role| Part::new(role).at(there.socket()).back(back.socket()).items(8, 0, count);
    let mut echo = Actor::start(&part(Role::ProcqEcho))?;
    let mut ping = Actor::start(&part(Role::ProcqPing))?;
    echo.ready()?;
    ping.ready()?;
    ping.go()?;
    let trips = ping.trips()?;
    echo.finish()?;
    ping.finish()?;
    Ok(trips)
}

pub fn produce(part: &Part) -> Result<()> {
    let endpoint = Endpoint::at(&part.place);
    let numbers = part.first..part.first + part.count;
    if part.size == 8 {
        let producer = Producer::<[u8; 8]>::connect(&endpoint)?;
        actor::wait_for_go()?;
        for number in numbers {
            producer.put(&item::small(number))?;
        }
        producer.finish()?;
    } else {
        let producer = Producer::<[u8]>::connect(&endpoint)?;
        let mut maker = Maker::new(part.size);
        actor::wait_for_go()?;
        for number in numbers {
            producer.put(maker.make(number))?;
        }
        producer.finish()?;
    }
    actor::say_done(Tally::default());
    Ok(())
}

pub fn consume(part: &Part) -> Result<()> {
    let endpoint = Endpoint::at(&part.place);
    let tally = if part.size == 8 {
        let consumer = Consumer::<[u8; 8]>::connect(&endpoint)?;
        actor::say_ready();
        let mut tally = Tally::default();
        while let Some(delivery) = consumer.get()? {
            tally.add_small(*delivery.item());
            delivery.ack()?;
        }
        tally
    } else {
        let consumer = Consumer::<[u8]>::connect(&endpoint)?;
        actor::say_ready();
        let mut checker = Checker::new(part.size);
        while let Some(delivery) = consumer.get()? {
            checker.check(delivery.item())?;
            delivery.ack()?;
        }
        checker.tally()
    };
    actor::say_done(tally);
    Ok(())
}

pub fn ping(part: &Part) -> Result<()> {
    let there = Producer::<[u8; 8]>::connect(&Endpoint::at(&part.place).with_spin(part.spin))?;
    let back = Consumer::<[u8; 8]>::connect(&Endpoint::at(&part.back).with_spin(part.spin))?;
    actor::wait_for_go()?;
    let trips = Trips::measure(part.count, |number| {
        there.put(&number.to_le_bytes())?;
        let delivery = back.get()?.context("Stop came instead of an item")?;
        let number = u64::from_le_bytes(*delivery.item());
        delivery.ack()?;
        Ok(number)
    })?;
    trips.say();
    Ok(())
}

pub fn echo(part: &Part) -> Result<()> {
    let there = Consumer::<[u8; 8]>::connect(&Endpoint::at(&part.place))?;
    let back = Producer::<[u8; 8]>::connect(&Endpoint::at(&part.back))?;
    actor::say_ready();
    for _ in 0..Trips::in_all(part.count) {
        let delivery = there.get()?.context("Stop came instead of an item")?;
        back.put(delivery.item())?;
        delivery.ack()?;
    }
    back.finish()?;
    Ok(())
}
