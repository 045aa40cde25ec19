//! NATS JetStream, by the `async-nats` library and with as little beside it as can be: batches as procq makes them, a message each, with what
//! it takes that none is lost or stored twice. Each has an id, its confirmation is waited for, and so is that of its acknowledgement.

use std::collections::VecDeque;

use anyhow::{Context as _, Error, Result};
use async_nats::HeaderMap;
use common::limits::BATCH_BYTES_TARGET;
use coordinator::limits::JETSTREAM_MESSAGE_ITEMS_MAX;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Served;
use super::nats::{NATS_UNSYNCED, block_on, connect, consumer};
use crate::actor::{self, Part, Role};
use crate::item::{Checker, Maker, Tally};

pub const NATS_BATCHED: Served = Served { producer: Role::NatsBatchProducer, consumer: Role::NatsBatchConsumer, ..NATS_UNSYNCED };

/// What is in front of a message's items.
const HEAD: [u8; 16] = [0; 16];

/// Messages that are not confirmed, 8 MiB of them: more make it no faster.
const FLIGHT_MESSAGES_MAX: usize = 128;

/// As many as a producer of procq's puts together, and its coordinator leaves together.
fn items_per_message(size: usize) -> u64 {
    BATCH_BYTES_TARGET.div_ceil(size).min(JETSTREAM_MESSAGE_ITEMS_MAX as usize) as u64
}

pub fn produce(part: &Part) -> Result<()> {
    block_on(async {
        let context = connect(part).await?;
        let mut maker = Maker::new(part.size);
        let mut unconfirmed = VecDeque::new();
        let until = part.first + part.count;
        actor::wait_for_go()?;
        for first in (part.first..until).step_by(items_per_message(part.size) as usize) {
            if unconfirmed.len() >= FLIGHT_MESSAGES_MAX
                && let Some(oldest) = unconfirmed.pop_front()
            {
                oldest.await?;
            }
            let numbers = first..until.min(first + items_per_message(part.size));
            let mut message = Vec::with_capacity(HEAD.len() + (numbers.end - first) as usize * part.size);
            message.extend(HEAD);
            numbers.for_each(|number| message.extend_from_slice(maker.make(number)));
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", first.to_string().as_str());
            unconfirmed.push_back(context.publish_with_headers("there", headers, message.into()).await?);
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
        let client = context.client();
        let consumer = consumer(&context, "there", part.durable).await?;
        let mut checker = Checker::new(part.size);
        let mut messages = consumer.stream().max_messages_per_batch(FLIGHT_MESSAGES_MAX).messages().await?;
        let mut unconfirmed = FuturesUnordered::new();
        actor::say_ready();
        while checker.tally().count < part.count {
            let next = tokio::time::timeout(tests::DEADLINE, messages.next()).await?;
            let message = next.context("the stream has ended")??;
            let items = message.payload.get(HEAD.len()..).context("a message of items")?;
            items.chunks(part.size).try_for_each(|item| checker.check(item))?;
            let reply = message.reply.clone().context("a place for the acknowledgement")?;
            // The library's own way to have it confirmed subscribes to each answer by itself, which costs more.
            unconfirmed.push(client.request(reply, "+ACK".into()));
            while unconfirmed.len() >= FLIGHT_MESSAGES_MAX
                && let Some(confirmed) = unconfirmed.next().await
            {
                confirmed?;
            }
        }
        while let Some(confirmed) = unconfirmed.next().await {
            confirmed.map_err(Error::from)?;
        }
        actor::say_done(checker.tally());
        Ok(())
    })
}
