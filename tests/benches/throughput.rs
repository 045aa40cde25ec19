//! `cargo bench -p tests`: items through the typed client library, one producer process and one consumer process, every item
//! acknowledged, number and sum of all checked. Prints the rate, and the coordinator's memory at its largest.
//!
//! `--items N` (default 10 million) sets how many 8-byte items pass.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::{Consumer, Endpoint, Producer};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| arguments.iter().position(|argument| argument == flag).and_then(|at| arguments.get(at + 1));
    let items: u64 = after("--items").map_or(Ok(10_000_000), |items| items.parse())?;
    match after("--role").map(String::as_str) {
        Some("producer") => produce(items),
        Some("consumer") => consume(items),
        _ => measure(items),
    }
}

fn measure(items: u64) -> Result<()> {
    let queue = tests::Queue::serve(&[]);
    let me = std::env::current_exe()?;
    let role = |role: &str| {
        let mut command = Command::new(&me);
        command.args(["--role", role, "--items", &items.to_string()]).env("PROCQ_SOCKET", queue.socket());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    let mut consumer = role("consumer").spawn()?;
    let mut producer = role("producer").spawn()?;
    let mut said = String::new();
    BufReader::new(producer.stdout.take().context("a pipe")?).read_line(&mut said)?;
    ensure!(said == "ready\n", "the producer said {said:?}");
    let started = Instant::now();
    producer.stdin.take().context("a pipe")?.write_all(b"go\n")?;
    ensure!(producer.wait()?.success() && consumer.wait()?.success(), "a role failed");
    let seconds = started.elapsed().as_secs_f64();
    let peak_kib = tests::proc_status_kib(queue.pid(), "VmHWM").context("the coordinator's peak memory")?;
    println!(
        "{items} items of 8 bytes, 1 producer, 1 consumer, all acknowledged: {seconds:.3} s, {:.2} M items/s",
        items as f64 / seconds / 1e6
    );
    println!("coordinator's resident memory at its largest: {:.1} MiB", peak_kib as f64 / 1024.0);
    Ok(())
}

/// Eight bytes in postcard, too, which shortens numbers: spread over all bits.
fn item(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn produce(items: u64) -> Result<()> {
    let producer = Producer::<[u8; 8]>::connect(&Endpoint::from_env())?;
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    for n in 0..items {
        producer.put(&item(n))?;
    }
    Ok(producer.finish()?)
}

fn consume(items: u64) -> Result<()> {
    let consumer = Consumer::<[u8; 8]>::connect(&Endpoint::from_env())?;
    let (mut count, mut sum) = (0, 0u64);
    while count < items
        && let Some(delivery) = consumer.get()?
    {
        count += 1;
        sum = sum.wrapping_add(u64::from_le_bytes(*delivery.item()));
        delivery.ack()?;
    }
    consumer.join()?;
    let expected = (0..items).fold(0u64, |sum, n| sum.wrapping_add(u64::from_le_bytes(item(n))));
    ensure!(count == items && sum == expected, "{count} items of {items} came, their sum is {sum} instead of {expected}");
    Ok(())
}
