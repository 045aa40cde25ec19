//! `ipc-channel` between two processes: typed at 8 bytes, its byte channel above, where that is faster.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use ipc_channel::ipc::{self, IpcBytesSender, IpcOneShotServer, IpcSender};
use serde::{Deserialize, Serialize};

use crate::actor::{self, Actor, Part, Role};
use crate::item::{self, Checker, Maker, Tally};
use crate::peer::{Case, Peer};

pub struct IpcChannel;

/// The consumer's way in for items, which it sends to the producer.
#[derive(Serialize, Deserialize)]
enum Way {
    Small(IpcSender<[u8; 8]>),
    Large(IpcBytesSender),
}

impl Peer for IpcChannel {
    fn name(&self) -> &'static str {
        "ipc-channel"
    }

    fn pass(&self, case: Case, count: u64) -> Result<f64> {
        let part = |role| Part::new(role).items(case.size, 0, count);
        let mut producer = Actor::start(&part(Role::IpcProducer))?;
        let name = producer.said("server")?;
        let mut consumer = Actor::start(&part(Role::IpcConsumer).at(Path::new(&name)))?;
        consumer.ready()?;
        producer.ready()?;

        let started = Instant::now();
        producer.go()?;
        producer.done()?;
        let tally = consumer.done()?;
        let seconds = started.elapsed().as_secs_f64();

        tally.verify(count)?;
        [consumer, producer].into_iter().try_for_each(Actor::finish)?;
        Ok(seconds)
    }
}

pub fn produce(part: &Part) -> Result<()> {
    let (server, name) = IpcOneShotServer::<Way>::new()?;
    println!("server {name}");
    let (_introduction, way) = server.accept()?;
    actor::wait_for_go()?;
    match way {
        Way::Small(sender) => (0..part.count).try_for_each(|number| sender.send(item::small(number)))?,
        Way::Large(sender) => {
            let mut maker = Maker::new(part.size);
            (0..part.count).try_for_each(|number| sender.send(maker.make(number)))?;
        }
    }
    actor::say_done(Tally::default());
    Ok(())
}

pub fn consume(part: &Part) -> Result<()> {
    let name = part.place.to_str().context("a server's name")?.to_string();
    let introduction = IpcSender::<Way>::connect(name)?;
    let tally = if part.size == 8 {
        let (sender, receiver) = ipc::channel::<[u8; 8]>()?;
        introduction.send(Way::Small(sender))?;
        actor::say_ready();
        let mut tally = Tally::default();
        while tally.count < part.count {
            tally.add_small(receiver.recv()?);
        }
        tally
    } else {
        let (sender, receiver) = ipc::bytes_channel()?;
        introduction.send(Way::Large(sender))?;
        actor::say_ready();
        let mut checker = Checker::new(part.size);
        while checker.tally().count < part.count {
            checker.check(&receiver.recv()?)?;
        }
        checker.tally()
    };
    actor::say_done(tally);
    Ok(())
}
