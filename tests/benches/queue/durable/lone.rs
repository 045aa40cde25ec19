//! How long one put takes to be confirmed when nothing else happens, beside what the disk needs at least.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use common::Producer;

use super::disk::Disk;
use crate::Run;
use crate::item;
use crate::report::{Group, Row, Unit};
use crate::sample::Sample;
use crate::target::Target;
use crate::trips::Trips;

pub fn measure(run: &Run, puts: u64, disk: &Disk) -> Result<Vec<Group>> {
    eprintln!("lone puts");
    let turns = (0..run.turns).map(|_| turn(puts, disk)).collect::<Result<Vec<_>>>()?;
    let group = |percentile: &str, figure: fn(&Trips) -> f64, target| {
        let sample = |of: fn(&Turn) -> &Trips| Sample::new(turns.iter().map(|turn| figure(of(turn))).collect());
        let rows = vec![
            Row::new("procq --fsync always", sample(|turn| &turn.put), None),
            Row::new("4 KiB appended, fdatasync", sample(|turn| &turn.append), target),
        ];
        Group::new(&format!("one lone put until it is confirmed, 8 B, {percentile}, {}", disk.file_system()), Unit::Microseconds, rows)
    };
    Ok(vec![group("p50", |trips| trips.p50, Some(Target::AtMost(2.0))), group("p99", |trips| trips.p99, None)])
}

struct Turn {
    put: Trips,
    append: Trips,
}

/// One put and one append in turn: what slows the disk for a while slows both.
fn turn(puts: u64, disk: &Disk) -> Result<Turn> {
    const BLOCK: [u8; 4096] = [1; 4096];
    let folder = disk.folder()?;
    let journal = folder.path().join("journal");
    let queue = tests::Queue::serve(&["--journal", journal.to_str().context("a path in UTF-8")?]);
    let producer = Producer::<[u8; 8]>::connect(&queue.endpoint())?;
    let mut appended = File::create(folder.path().join("appended"))?;
    let (mut put, mut append) = (Vec::new(), Vec::new());
    for number in 0..puts {
        let started = Instant::now();
        producer.put(&item::small(number))?;
        producer.flush()?;
        put.push(started.elapsed());

        let started = Instant::now();
        appended.write_all(&BLOCK)?;
        appended.sync_data()?;
        append.push(started.elapsed());
    }
    Ok(Turn { put: Trips::of(put)?, append: Trips::of(append)? })
}
