//! What the engine's client side costs, beside the least that does the same: `cargo test --release -p tests --test jetstream -- --ignored
//! --nocapture how_fast`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use bytes::Bytes;
use common::batch::{Batch, BatchBuilder};
use coordinator::jetstream::{Answer, Settings};
use coordinator::queue::Origin;
use futures_util::StreamExt;
use tests::nats::NatsServer;

use crate::machine::{Machine, settings};

/// Messages under way: as much as procq has at most.
fn window(bytes: usize) -> usize {
    ((8 << 20) / bytes).clamp(8, 256)
}

/// Messages and seconds.
type Measured = (u64, f64);

#[test]
#[ignore = "a measurement"]
fn how_fast() {
    crate::needs_server!();
    for (bytes, items, count) in [(128, 1, 40_000), (64_000, 500, 4_000), (512_000, 1, 500)] {
        let body = batch_of(bytes, items);
        for _ in 0..2 {
            let server = NatsServer::start();
            show("bare async-nats", bytes, bare(&server.url(), &body, count));
            let server = NatsServer::start();
            show("through procq", bytes, ours(&server.url(), &body, count));
        }
    }
}

fn show(what: &str, bytes: usize, [put, got]: [Measured; 2]) {
    let shown = |(count, seconds): Measured| {
        let rate = count as f64 / seconds;
        format!("{rate:>9.0}/s {:>7.1} MB/s", rate * bytes as f64 / 1e6)
    };
    eprintln!("{bytes:>7} B  {what:<16} put and confirmed {}   got and settled {}", shown(put), shown(got));
}

fn batch_of(bytes: usize, items: usize) -> Batch {
    let mut builder = BatchBuilder::default();
    (0..items).for_each(|_| builder.push_bytes(&vec![7; bytes / items]));
    builder.take_batch().expect("an item")
}

fn ours(url: &str, body: &Batch, count: u64) -> [Measured; 2] {
    let large = Settings { capacity_items: 1 << 40, capacity_bytes: 1 << 30, ..settings(url) };
    let mut machine = Machine::open(Settings { timing: Default::default(), ..large });
    let window = window(body.body_bytes() as usize);
    let started = Instant::now();
    for ticket in 0..count {
        machine.cluster.put(ticket, body.clone(), Origin::Nameless);
    }
    let mut kept = 0;
    while kept < count {
        kept += machine.cluster.collect().expect("answers").iter().filter(|answer| matches!(answer, Answer::Kept { .. })).count() as u64;
        std::thread::sleep(Duration::from_micros(200));
    }
    let put = (count, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let (mut got, mut settled) = (0, 0);
    machine.cluster.want(window as u32);
    while settled < count {
        for answer in machine.cluster.collect().expect("answers") {
            match answer {
                Answer::Fetched(fetched) => {
                    got += 1;
                    machine.cluster.settle(fetched.sequence);
                }
                Answer::Settled(_) => settled += 1,
                _ => {}
            }
        }
        machine.cluster.want(window as u32);
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(got, count);
    [put, (count, started.elapsed().as_secs_f64())]
}

fn bare(url: &str, body: &Batch, count: u64) -> [Measured; 2] {
    let window = window(body.body_bytes() as usize);
    let payload: Bytes = body.body().map(|piece| piece.to_vec()).concat().into();
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        let context = jetstream::new(async_nats::connect(url).await.expect("a connection"));
        let config = Config {
            name: "bare".into(),
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_bytes: 1 << 30,
            ..Config::default()
        };
        let stream = context.create_stream(config).await.expect("a stream");
        let started = Instant::now();
        let mut unconfirmed = VecDeque::new();
        for number in 0..count {
            if unconfirmed.len() >= window
                && let Some(oldest) = unconfirmed.pop_front()
            {
                let oldest: jetstream::context::PublishAckFuture = oldest;
                oldest.await.expect("a confirmation");
            }
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", number.to_string().as_str());
            unconfirmed.push_back(context.publish_with_headers("bare", headers, payload.clone()).await.expect("a message"));
        }
        for put in unconfirmed {
            put.await.expect("a confirmation");
        }
        let put = (count, started.elapsed().as_secs_f64());
        let config =
            pull::Config { durable_name: Some("c".into()), ack_policy: AckPolicy::Explicit, max_ack_pending: -1, ..Default::default() };
        let consumer = stream.create_consumer(config).await.expect("a consumer");
        let started = Instant::now();
        let mut messages = consumer.stream().max_messages_per_batch(window).messages().await.expect("messages");
        let (mut got, mut acks) = (0, futures_util::stream::FuturesUnordered::new());
        while got < count {
            let message = messages.next().await.expect("a message").expect("a message");
            got += 1;
            acks.push(async move { message.double_ack().await });
            while acks.len() >= window {
                acks.next().await.expect("an ack").expect("an ack");
            }
        }
        while let Some(ack) = acks.next().await {
            ack.expect("an ack");
        }
        [put, (count, started.elapsed().as_secs_f64())]
    })
}
