//! A small worker pool: one process puts jobs, several worker threads share a consumer, a job that fails is tried again.
//!
//! ```sh
//! coordinator serve --expect-producers 1 &
//! cargo run -p common --example worker_pool -- work &
//! cargo run -p common --example worker_pool -- put 1000
//! ```
//!
//! Start as many `work` processes as you like, and kill any of them: its jobs go to the others.

#![expect(clippy::print_stdout, reason = "an example may panic when nobody reads it")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::{Consumer, Endpoint, Producer};
use serde::{Deserialize, Serialize};

const THREADS: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    number: u64,
    name: String,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let endpoint = Endpoint::from_env();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["put", count] => put(&endpoint, count.parse()?),
        ["work"] => work(&endpoint),
        _ => anyhow::bail!("usage: worker_pool put COUNT | worker_pool work"),
    }
}

fn put(endpoint: &Endpoint, count: u64) -> anyhow::Result<()> {
    let producer = Producer::<Job>::connect(endpoint)?;
    for number in 0..count {
        producer.put(&Job { number, name: format!("job {number}") })?;
    }
    Ok(producer.finish()?)
}

fn work(endpoint: &Endpoint) -> anyhow::Result<()> {
    let consumer = Consumer::<Job>::connect(endpoint)?;
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work_on_jobs(&consumer, &done))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    println!("{} jobs done", done.into_inner());
    Ok(())
}

fn work_on_jobs(consumer: &Consumer<Job>, done: &AtomicU64) -> anyhow::Result<()> {
    while let Some(delivery) = consumer.get()? {
        // Every tenth job fails at first.
        if delivery.item().number % 10 == 0 && delivery.attempt() == 1 {
            let cause = format!("{} does not feel like it", delivery.item().name);
            delivery.fail(cause)?;
            continue;
        }
        delivery.ack()?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
