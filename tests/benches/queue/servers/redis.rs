//! Redis Streams, by the `redis` library: an entry per item, acknowledged by the consumer of a group. Commands go in pipelines.

use std::path::Path;

use anyhow::{Context, Result, bail};
use redis::{Client, Connection, Pipeline, pipe};

use super::{Served, items_per_go};
use crate::actor::{self, Part, Role};
use crate::item::{Checker, Maker, Tally};
use crate::trips::Trips;

pub const REDIS: Served = Served {
    name: "Redis Streams",
    program: "redis-server",
    version: "--version",
    arguments: |folder, durable| {
        let appended = if durable { "yes" } else { "no" };
        let arguments = ["--port", "0", "--save", "", "--appendonly", appended, "--appendfsync", "always", "--dir"];
        let mut arguments: Vec<_> = arguments.map(Into::into).into();
        arguments.extend([folder.into(), "--unixsocket".into(), folder.join("socket").into()]);
        Ok(arguments)
    },
    address: |folder| Some(folder.join("socket")).filter(|socket| connect(socket).is_ok()),
    producer: Role::RedisProducer,
    consumer: Role::RedisConsumer,
    ping: Role::RedisPing,
    echo: Role::RedisEcho,
};

const GROUP: &str = "workers";

fn connect(socket: &Path) -> Result<Connection> {
    let socket = socket.to_str().context("a path in UTF-8")?;
    let connection = Client::open(format!("unix://{socket}"))?.get_connection_with_timeout(tests::DEADLINE)?;
    connection.set_read_timeout(Some(2 * tests::DEADLINE))?;
    connection.set_write_timeout(Some(tests::DEADLINE))?;
    Ok(connection)
}

fn add(pipeline: &mut Pipeline, stream: &str, item: &[u8]) {
    pipeline.cmd("XADD").arg(stream).arg("*").arg("i").arg(item).ignore();
}

/// A stream's name, and its entries: a number and a field with its value.
type Came = Vec<(String, Vec<(String, (String, Vec<u8>))>)>;

/// A member of a stream's group.
struct Member {
    stream: &'static str,
    name: String,
    /// The numbers of entries that are done and not acknowledged.
    done: Vec<String>,
}

impl Member {
    fn join(connection: &mut Connection, stream: &'static str) -> Result<Member> {
        let created = redis::cmd("XGROUP").arg("CREATE").arg(stream).arg(GROUP).arg(0).arg("MKSTREAM").exec(connection);
        match created {
            // Another was first.
            Err(error) if error.code() == Some("BUSYGROUP") => {}
            created => created?,
        }
        Ok(Member { stream, name: std::process::id().to_string(), done: Vec::new() })
    }

    /// Acknowledges what is done, sends what else is in the pipeline, and waits for up to `count` entries.
    fn read(&mut self, connection: &mut Connection, mut pipeline: Pipeline, count: usize) -> Result<Vec<Vec<u8>>> {
        self.acknowledge(&mut pipeline);
        pipeline.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg(&self.name).arg("COUNT").arg(count);
        pipeline.arg("BLOCK").arg(tests::DEADLINE.as_millis() as u64).arg("STREAMS").arg(self.stream).arg(">");
        let (came,): (Option<Came>,) = pipeline.query(connection)?;
        let entries = came.into_iter().flatten().flat_map(|(_, entries)| entries);
        let (done, items) = entries.map(|(number, (_, item))| (number, item)).unzip();
        self.done = done;
        if self.done.is_empty() {
            bail!("Redis has nothing within {} s", tests::DEADLINE.as_secs());
        }
        Ok(items)
    }

    fn acknowledge(&mut self, pipeline: &mut Pipeline) {
        if !self.done.is_empty() {
            pipeline.cmd("XACK").arg(self.stream).arg(GROUP).arg(&self.done).ignore();
        }
    }

    fn read_number(&mut self, connection: &mut Connection, pipeline: Pipeline) -> Result<u64> {
        let items = self.read(connection, pipeline, 1)?;
        let item = items.first().context("an entry")?;
        Ok(u64::from_le_bytes(item[..].try_into().context("an entry of 8 bytes")?))
    }

    /// Acknowledges the rest, and waits until it is.
    fn leave(mut self, connection: &mut Connection, mut pipeline: Pipeline) -> Result<()> {
        self.acknowledge(&mut pipeline);
        Ok(pipeline.exec(connection)?)
    }
}

pub fn produce(part: &Part) -> Result<()> {
    let mut connection = connect(&part.place)?;
    let mut maker = Maker::new(part.size);
    let per_go = items_per_go(part.size);
    let mut pipeline = Pipeline::with_capacity(per_go);
    let end = part.first + part.count;
    actor::wait_for_go()?;
    let mut number = part.first;
    while number < end {
        let next = end.min(number + per_go as u64);
        (number..next).for_each(|number| add(&mut pipeline, "there", maker.make(number)));
        pipeline.exec(&mut connection)?;
        pipeline.clear();
        number = next;
    }
    actor::say_done(Tally::default());
    Ok(())
}

pub fn consume(part: &Part) -> Result<()> {
    let mut connection = connect(&part.place)?;
    let mut member = Member::join(&mut connection, "there")?;
    let mut checker = Checker::new(part.size);
    actor::say_ready();
    while checker.tally().count < part.count {
        let missing = (part.count - checker.tally().count) as usize;
        let items = member.read(&mut connection, pipe(), missing.min(items_per_go(part.size)))?;
        items.iter().try_for_each(|item| checker.check(item))?;
    }
    member.leave(&mut connection, pipe())?;
    actor::say_done(checker.tally());
    Ok(())
}

pub fn ping(part: &Part) -> Result<()> {
    let mut connection = connect(&part.place)?;
    let mut member = Member::join(&mut connection, "back")?;
    actor::wait_for_go()?;
    let trips = Trips::measure(part.count, |number| {
        let mut pipeline = pipe();
        add(&mut pipeline, "there", &number.to_le_bytes());
        member.read_number(&mut connection, pipeline)
    })?;
    member.leave(&mut connection, pipe())?;
    trips.say();
    Ok(())
}

pub fn echo(part: &Part) -> Result<()> {
    let mut connection = connect(&part.place)?;
    let mut member = Member::join(&mut connection, "there")?;
    actor::say_ready();
    let mut pipeline = pipe();
    for _ in 0..Trips::in_all(part.count) {
        let number = member.read_number(&mut connection, std::mem::take(&mut pipeline))?;
        add(&mut pipeline, "back", &number.to_le_bytes());
    }
    member.leave(&mut connection, pipeline)
}
