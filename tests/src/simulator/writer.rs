//! The writer's thread and the file that results go to: what is written is reported some time later, and outlives the coordinator.

use std::collections::VecDeque;
use std::time::Duration;

use coordinator::queue::{Input, Record, Ticket};

use crate::random::Random;

/// How quick the writer is, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For a record.
    pub writing_us: (u64, u64),
    /// Until the loop hears of it.
    pub report_us: (u64, u64),
}

/// What waits to be written, what is written, and the file.
#[derive(Debug)]
pub struct Writer {
    pace: Pace,
    /// When each is written.
    waiting: VecDeque<(Duration, Ticket, Record)>,
    written: VecDeque<(Duration, Ticket, Option<u64>)>,
    /// What is in the output file, if there is one; otherwise results go where nobody can take them back.
    pub file: Option<Vec<u8>>,
}

impl Writer {
    /// One that has written nothing.
    pub fn new(pace: Pace, has_file: bool) -> Writer {
        Writer { pace, waiting: VecDeque::new(), written: VecDeque::new(), file: has_file.then(Vec::new) }
    }

    /// Takes a record.
    pub fn write(&mut self, ticket: Ticket, record: Record, now: Duration, random: &mut Random) {
        let last = self.waiting.back().map_or(Duration::ZERO, |(due, ..)| *due);
        let due = (now + random.micros(self.pace.writing_us)).max(last);
        self.waiting.push_back((due, ticket, record));
    }

    /// Writes what is written by now.
    fn go_on(&mut self, now: Duration, random: &mut Random) {
        while let Some((_, ticket, record)) = self.waiting.pop_front_if(|(due, ..)| *due <= now) {
            let bytes = match (&mut self.file, record) {
                (Some(file), Record::Results(batch)) => {
                    batch.iter().for_each(|result| file.extend_from_slice(result));
                    Some(file.len() as u64)
                }
                _ => None,
            };
            let last = self.written.back().map_or(Duration::ZERO, |(at, ..)| *at);
            self.written.push_back(((now + random.micros(self.pace.report_us)).max(last), ticket, bytes));
        }
    }

    /// The next record that is reported as written.
    pub fn collect(&mut self, now: Duration, random: &mut Random) -> Option<Input> {
        self.go_on(now, random);
        let (_, ticket, output_bytes) = self.written.pop_front_if(|(at, ..)| *at <= now)?;
        Some(Input::Written { ticket, output_bytes })
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        let bytes = |record: &Record| match record {
            Record::Results(batch) => batch.body_bytes() as usize,
            Record::DeadLetter(letter) => letter.item.len(),
        };
        self.waiting.iter().map(|(_, _, record)| bytes(record)).sum()
    }

    /// When there is something to do for it or to be heard from it.
    pub fn next(&self) -> Option<Duration> {
        let waiting = self.waiting.front().map(|(due, ..)| *due);
        waiting.into_iter().chain(self.written.front().map(|(at, ..)| *at)).min()
    }

    /// Its process dies, perhaps in the middle of a record. The file stays.
    pub fn dies(&mut self, now: Duration, random: &mut Random) {
        self.go_on(now, random);
        if let (Some(file), Some((_, _, Record::Results(batch)))) = (&mut self.file, self.waiting.front()) {
            let all: Vec<u8> = batch.iter().flatten().copied().collect();
            file.extend_from_slice(&all[..random.below(all.len() as u64 + 1) as usize]);
        }
        self.waiting.clear();
        self.written.clear();
    }

    /// The next coordinator goes on with the file where the journal says that results end which count.
    pub fn resume(&mut self, output_bytes: Option<u64>) {
        let Some(file) = &mut self.file else { return assert_eq!(output_bytes, None, "the journal knows of a file") };
        let bytes = output_bytes.expect("the journal knows nothing of the file") as usize;
        assert!(bytes <= file.len(), "the file has {} bytes, but results that count take {bytes}", file.len());
        file.truncate(bytes);
    }
}
