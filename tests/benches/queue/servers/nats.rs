//! NATS JetStream, by the `async-nats` library: a message per item in a stream in memory or in files, gone once it is acknowledged. Messages
//! are published without waiting for the confirmation of those before, and got by the batch.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{Served, items_per_go};
use crate::actor::{self, Part, Role};
use crate::item::{Checker, Maker, Tally};
use crate::trips::Trips;

pub const NATS: Served = Served {
    name: "NATS JetStream",
    program: "nats-server",
    version: "--version",
    arguments: |folder, durable| Ok(vec!["--config".into(), write_config(folder, durable && syncs_always())?.into()]),
    address: |folder| tests::nats::address(folder).map(PathBuf::from),
    producer: Role::NatsProducer,
    consumer: Role::NatsConsumer,
    ping: Role::NatsPing,
    echo: Role::NatsEcho,
};

/// The same as it comes: what it has on the disk gets there some time after it is confirmed.
pub const NATS_UNSYNCED: Served =
    Served { arguments: |folder, _| Ok(vec!["--config".into(), write_config(folder, false)?.into()]), ..NATS };

/// Writes the server's configuration; `synced`: what is in a file has reached the disk before it is confirmed.
fn write_config(folder: &Path, synced: bool) -> Result<PathBuf> {
    let path = folder.join("config");
    // The largest item of this benchmark is 8 MiB, the default limit is 1 MiB.
    let sync = if synced { ", sync_interval: always" } else { "" };
    std::fs::write(&path, tests::nats::config(folder, None, sync, "max_payload: 8388608"))?;
    Ok(path)
}

/// True if this server knows of syncing before it confirms; servers before 2.10 do not.
pub fn syncs_always() -> bool {
    static SYNCS: OnceLock<bool> = OnceLock::new();
    let asks = || {
        let folder = tempfile::tempdir()?;
        let config = write_config(folder.path(), true)?;
        let asked = Command::new(NATS.program).arg("-t").arg("--config").arg(config).stdin(Stdio::null()).output()?;
        Ok::<_, Error>(asked.status.success())
    };
    *SYNCS.get_or_init(|| asks().unwrap_or(false))
}

/// A message that is not acknowledged within this time is delivered again, which must not happen here.
const ACK_WAIT: Duration = Duration::from_secs(600);

/// Messages delivered and not acknowledged, of all consumers together: four times what each gets at once.
const UNACKNOWLEDGED_MAX: i64 = 16_000;

/// Runs an actor: one thread for both the library and its user.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

pub(super) async fn connect(part: &Part) -> Result<Context> {
    let address = part.place.to_str().context("an address in UTF-8")?;
    Ok(jetstream::new(async_nats::connect(address).await?))
}

pub(super) async fn consumer(context: &Context, name: &str, durable: bool) -> Result<Consumer<pull::Config>> {
    let storage = if durable { StorageType::File } else { StorageType::Memory };
    let config = Config { name: name.to_string(), retention: RetentionPolicy::WorkQueue, storage, ..Config::default() };
    let stream = context.get_or_create_stream(config).await?;
    let config = pull::Config {
        durable_name: Some("workers".to_string()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: UNACKNOWLEDGED_MAX,
        memory_storage: !durable,
        ..pull::Config::default()
    };
    Ok(stream.get_or_create_consumer("workers", config).await?)
}

pub fn produce(part: &Part) -> Result<()> {
    block_on(async {
        let context = connect(part).await?;
        let mut maker = Maker::new(part.size);
        let mut unconfirmed = VecDeque::new();
        actor::wait_for_go()?;
        for number in part.first..part.first + part.count {
            if unconfirmed.len() >= items_per_go(part.size).max(2)
                && let Some(oldest) = unconfirmed.pop_front()
            {
                oldest.await?;
            }
            unconfirmed.push_back(context.publish("there", Bytes::copy_from_slice(maker.make(number))).await?);
        }
        for put in unconfirmed {
            put.await?;
        }
        actor::say_done(Tally::default());
        Ok(())
    })
}

pub fn consume(part: &Part) -> Result<()> {
    block_on(async {
        let context = connect(part).await?;
        let consumer = consumer(&context, "there", part.durable).await?;
        let mut checker = Checker::new(part.size);
        actor::say_ready();
        while checker.tally().count < part.count {
            let before = checker.tally().count;
            let missing = (part.count - before) as usize;
            let batch = consumer.batch().max_messages(missing.min(items_per_go(part.size))).expires(tests::DEADLINE);
            let mut messages = batch.messages().await?;
            while let Some(message) = messages.next().await {
                let message = message.map_err(Error::from_boxed)?;
                checker.check(&message.payload)?;
                if checker.tally().count == part.count {
                    // The last one's acknowledgement is confirmed, and with it those before.
                    message.double_ack().await.map_err(Error::from_boxed)?;
                } else {
                    message.ack().await.map_err(Error::from_boxed)?;
                }
            }
            if checker.tally().count == before {
                bail!("NATS has nothing within {} s", tests::DEADLINE.as_secs());
            }
        }
        actor::say_done(checker.tally());
        Ok(())
    })
}

/// Gets numbers from one stream and puts them into another.
struct Walker {
    context: Context,
    to: &'static str,
    messages: pull::Stream,
}

impl Walker {
    async fn connect(part: &Part, from: &str, to: &'static str) -> Result<Walker> {
        let context = connect(part).await?;
        // Both streams have to be there before anything is put.
        consumer(&context, to, part.durable).await?;
        let messages = consumer(&context, from, part.durable).await?.messages().await?;
        Ok(Walker { context, to, messages })
    }

    async fn put(&self, number: u64) -> Result<jetstream::context::PublishAckFuture> {
        Ok(self.context.publish(self.to, Bytes::copy_from_slice(&number.to_le_bytes())).await?)
    }

    async fn get(&mut self) -> Result<u64> {
        let message = tokio::time::timeout(tests::DEADLINE, self.messages.next()).await?.context("the stream has ended")??;
        message.ack().await.map_err(Error::from_boxed)?;
        Ok(u64::from_le_bytes(message.payload[..].try_into().context("a message of 8 bytes")?))
    }
}

pub fn ping(part: &Part) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut walker = runtime.block_on(Walker::connect(part, "back", "there"))?;
    actor::wait_for_go()?;
    let trips = Trips::measure(part.count, |number| {
        runtime.block_on(async {
            let put = walker.put(number).await?;
            let back = walker.get().await?;
            put.await?;
            Ok(back)
        })
    })?;
    trips.say();
    Ok(())
}

pub fn echo(part: &Part) -> Result<()> {
    block_on(async {
        let mut walker = Walker::connect(part, "there", "back").await?;
        actor::say_ready();
        for _ in 0..Trips::in_all(part.count) {
            let number = walker.get().await?;
            walker.put(number).await?.await?;
        }
        Ok(())
    })
}
