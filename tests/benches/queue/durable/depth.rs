//! A queue deeper than memory: what the coordinator takes, and how soon another goes on where one was killed.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::{Consumer, Endpoint, Producer};
use tests::Process;

use super::disk::Disk;
use crate::growth::grouped;
use crate::item::{self, Tally};
use crate::report::{Group, Row, Unit};
use crate::sample::Sample;
use crate::target::Target;

/// What memory may hold of it.
const MIB_MAX: f64 = 500.0;

pub fn measure(waiting: u64, disk: &Disk) -> Result<Vec<Group>> {
    eprintln!("{} items in a journal", grouped(waiting));
    let folder = disk.folder()?;
    let (journal, socket) = (folder.path().join("journal"), folder.path().join("q.sock"));
    let mut coordinator = start(&journal, &socket)?;
    let filled = fill(&socket, waiting)?;
    let filled_mib = peak_mib(&coordinator)?;
    let file_bytes = folder_bytes(&journal)?;
    coordinator.kill();

    let started = Instant::now();
    let mut coordinator = start(&journal, &socket)?;
    let ready = started.elapsed().as_secs_f64();
    let consumer = Consumer::<[u8; 8]>::connect(&Endpoint::at(&socket))?;
    let (mut first, mut drained_mib) = (0.0, 0.0);
    let mut tally = Tally::default();
    while let Some(delivery) = consumer.get()? {
        tally.add_small(*delivery.item());
        if tally.count == 1 {
            first = started.elapsed().as_secs_f64();
        } else if tally.count == waiting {
            drained_mib = peak_mib(&coordinator)?;
        }
        delivery.ack()?;
    }
    let drained = waiting as f64 / (started.elapsed().as_secs_f64() - first);
    tally.verify(waiting)?;
    drop(consumer);
    let code = coordinator.wait();
    ensure!(code == 0, "the coordinator ended with {code}: {}", coordinator.stderr());

    let title = |what: &str| format!("{} items in a journal, 8 B: {what}, {}", grouped(waiting), disk.file_system());
    let row = |name: &str, figure, target| Row::new(name, Sample::new(vec![figure]), target);
    let memory = Some(Target::Below(MIB_MAX));
    Ok(vec![
        Group::new(
            &title("coordinator's resident memory at its largest"),
            Unit::MiB,
            vec![row("while they are put", filled_mib, memory), row("after a restart, until drained", drained_mib, memory)],
        ),
        Group::new(
            &title("from the start after kill -9 until"),
            Unit::Seconds,
            vec![row("it is ready", ready, None), row("the first item is delivered", first, None)],
        ),
        Group::new(&title("rates"), Unit::ItemsPerSecond, vec![row("put", filled, None), row("got and acknowledged", drained, None)]),
        Group::new(&title("an item's place on disk"), Unit::Bytes, vec![row("all files", file_bytes as f64 / waiting as f64, None)]),
    ])
}

/// A coordinator that is ready, and ends once it is drained.
fn start(journal: &Path, socket: &Path) -> Result<Process> {
    let journal = journal.to_str().context("a path in UTF-8")?;
    let kept = ["serve", "--expect-producers", "1", "--journal", journal, "--fsync", "never"];
    let bounds = ["--capacity", "200000000", "--capacity-bytes", "8GiB"];
    let coordinator = Process::start("coordinator", socket, &[&kept[..], &bounds].concat());
    coordinator.wait_for_stderr("ready at");
    Ok(coordinator)
}

/// Puts so many items, and returns how many a second.
fn fill(socket: &Path, waiting: u64) -> Result<f64> {
    let producer = Producer::<[u8; 8]>::connect(&Endpoint::at(socket))?;
    let started = Instant::now();
    for number in 0..waiting {
        producer.put(&item::small(number))?;
    }
    producer.finish()?;
    Ok(waiting as f64 / started.elapsed().as_secs_f64())
}

fn peak_mib(coordinator: &Process) -> Result<f64> {
    let kib = tests::proc_status_kib(coordinator.pid(), "VmHWM").context("the coordinator's memory")?;
    Ok(kib as f64 / 1024.0)
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let files = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(files.iter().map(|file| file.metadata().map(|metadata| metadata.len())).sum::<Result<u64, _>>()?)
}
