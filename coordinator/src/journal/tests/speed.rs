//! Figures, for people: `cargo test --release -p coordinator --lib -- --ignored --nocapture how_fast`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::program::tell;

use super::*;
use crate::journal::disk::FileDisk;
use crate::journal::{Answer, Fsync, Journal};

/// Just under 64 KiB, as producers send them.
const BODY_BYTES: u32 = 65_280;
const ITEM_BYTES: u32 = 128;

fn frame() -> Batch {
    let header = BatchHeader { count: BODY_BYTES / ITEM_BYTES, layout: Layout::Uniform { len: ITEM_BYTES } };
    Batch::check(header, vec![7; BODY_BYTES as usize].into()).unwrap()
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("p50 {:?} p99 {:?}", at(50), at(99))
}

#[test]
#[ignore = "measures, and judges nothing"]
fn how_fast_it_is() {
    // Beside the build, which lies on a disk; /tmp may not.
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let file = File::create(home.path().join("raw")).unwrap();
    let sync = |at: u64| {
        let start = Instant::now();
        file.write_all_at(&[1; 8192], at * 8192).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    };
    (0..200).for_each(|at| _ = sync(at));
    tell("speed", format_args!("a write of 8 KiB in place and fdatasync: {}", percentiles((0..200).map(sync).collect())));
    tell("speed", format_args!("appended, likewise: {}", percentiles((200..400).map(sync).collect())));
    for fsync in [Fsync::Always, Fsync::Never] {
        let (wake, woken) = channel();
        let dir = home.path().join(format!("{fsync:?}"));
        let (mut journal, _) = Journal::open(&dir, fsync, 1 << 20, move || _ = wake.send(())).unwrap();
        let mut next_id = 0;
        let lone = |_| {
            let start = Instant::now();
            journal.keep(Entry::Put { first: next_id, batch: Batch::one(vec![1; 128].into()), by: None });
            next_id += 1;
            journal.flush();
            wait(&mut journal, &woken);
            start.elapsed()
        };
        let times: Vec<_> = (0..1000).map(lone).collect();
        tell("speed", format_args!("{fsync:?}: one lone put of 128 B until it is kept: {}", percentiles(times)));
        churn(&mut journal, &woken, &mut next_id, fsync);
        let file_bytes = std::fs::metadata(dir.join("journal.redb")).unwrap().len();
        tell("speed", format_args!("{fsync:?}: the file has {} MiB", file_bytes >> 20));
        for _ in 0..16_000 {
            journal.keep(Entry::Put { first: next_id, batch: frame(), by: None });
            next_id += u64::from(BODY_BYTES / ITEM_BYTES);
            journal.flush();
            while journal.waiting_entries > 256 {
                woken.recv().unwrap();
                journal.collect().unwrap();
            }
        }
        wait(&mut journal, &woken);
        // As a kill would leave it.
        let killed = home.path().join("killed.redb");
        std::fs::copy(dir.join("journal.redb"), &killed).unwrap();
        journal.close().unwrap();
        for (how, file, check_bytes_max) in
            [("checked", dir.join("journal.redb"), u64::MAX), ("trusted", dir.join("journal.redb"), 0), ("after a kill", killed, 0)]
        {
            let start = Instant::now();
            let disk = File::options().read(true).write(true).open(&file).unwrap();
            let disk = FileDisk { file: disk, fsync };
            let store = Store::open(Box::new(disk), &file, None, Sizes { check_bytes_max, ..Sizes::default() }).unwrap();
            let mib = store.totals().body_bytes >> 20;
            tell("speed", format_args!("{fsync:?}: {mib} MiB opened, {how}: {:?}", start.elapsed()));
            store.close().unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// Frames come and are acknowledged, 1,000 of them lying between; as much is on its way as a coordinator lets be.
fn churn(journal: &mut Journal, woken: &Receiver<()>, next_id: &mut u64, fsync: Fsync) {
    let (count, depth) = (u64::from(BODY_BYTES / ITEM_BYTES), 1000);
    let start = Instant::now();
    let (mut frames, mut commits) = (0_u64, 0);
    let base = *next_id;
    while start.elapsed() < Duration::from_secs(6) {
        for _ in 0..8 {
            journal.keep(Entry::Put { first: *next_id, batch: frame(), by: None });
            *next_id += count;
            frames += 1;
            if frames > depth {
                let first = base + (frames - depth - 1) * count;
                // By two consumers, say.
                journal.keep(Entry::Settled { first, count: count / 2, output_bytes: None });
                journal.keep(Entry::Settled { first: first + count / 2, count: count - count / 2, output_bytes: None });
            }
        }
        journal.flush();
        commits += kept(journal);
        while journal.waiting_entries > 3 * 256 {
            woken.recv().unwrap();
            commits += kept(journal);
        }
    }
    wait(journal, woken);
    let seconds = start.elapsed().as_secs_f64();
    let bytes = frames as f64 * f64::from(BODY_BYTES);
    tell(
        "speed",
        format_args!(
            "{fsync:?}: {:.2} M items/s of {ITEM_BYTES} B put and acknowledged, {:.0} MB/s, {commits} commits of {:.1} frames",
            frames as f64 * count as f64 / seconds / 1e6,
            bytes / seconds / 1e6,
            frames as f64 / f64::from(commits.max(1)),
        ),
    );
}

fn kept(journal: &mut Journal) -> u32 {
    journal.collect().unwrap().iter().filter(|answer| matches!(answer, Answer::Kept(_))).count() as u32
}

fn wait(journal: &mut Journal, woken: &Receiver<()>) {
    while !journal.is_idle() {
        woken.recv().unwrap();
        journal.collect().unwrap();
    }
}
