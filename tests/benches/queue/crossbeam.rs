//! `crossbeam-channel` between two threads of one process, 1024 items at most: no copy into a kernel, nobody to survive.

use std::time::Instant;

use anyhow::{Context, Result};
use crossbeam_channel::bounded;

use crate::actor::{self, Actor, Part, Role};
use crate::item::{self, Checker, Maker, Tally};
use crate::peer::{Case, Peer};

const CAPACITY: usize = 1024;

pub struct Crossbeam;

impl Peer for Crossbeam {
    fn name(&self) -> &'static str {
        "crossbeam-channel"
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        let mut threads = Actor::start(&Part::new(Role::Crossbeam).items(case.size, 0, count))?;
        threads.ready()?;
        let started = Instant::now();
        threads.go()?;
        let tally = threads.done()?;
        let seconds = started.elapsed().as_secs_f64();
        tally.verify(count)?;
        threads.finish()?;
        Ok(seconds)
    }
}

pub fn play(part: &Part) -> Result<()> {
    actor::wait_for_go()?;
    let tally = if part.size == 8 { pass_small(part.count)? } else { pass_large(part.size, part.count)? };
    actor::say_done(tally);
    Ok(())
}

fn pass_small(count: u64) -> Result<Tally> {
    let (sender, receiver) = bounded(CAPACITY);
    std::thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            let mut tally = Tally::default();
            receiver.iter().for_each(|item| tally.add_small(item));
            tally
        });
        for number in 0..count {
            sender.send(item::small(number)).context("the consumer is gone")?;
        }
        drop(sender);
        consumer.join().ok().context("the consumer failed")
    })
}

fn pass_large(size: usize, count: u64) -> Result<Tally> {
    let (sender, receiver) = bounded::<Vec<u8>>(CAPACITY);
    std::thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            let mut checker = Checker::new(size);
            receiver.iter().try_for_each(|item| checker.check(&item))?;
            anyhow::Ok(checker.tally())
        });
        let mut maker = Maker::new(size);
        for number in 0..count {
            sender.send(maker.make(number).to_vec()).ok().context("the consumer is gone")?;
        }
        drop(sender);
        consumer.join().ok().context("the consumer failed")?
    })
}
