//! Writes results and dead letters to where they go, in a thread of its own: an output that takes nothing holds up nobody
//! who has no results to give. What was written is reported, and only then counts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use crate::outputs::Outputs;
use crate::queue::{Record, Ticket};

/// Records gathered for one write at most.
const RECORDS_PER_WRITE_MAX: usize = 1024;

/// Why nothing more can be written.
#[derive(Debug)]
pub struct WriteFailure {
    /// Where to, for people.
    pub place: String,
    /// True if it was stdout.
    pub is_stdout: bool,
    /// What the system says.
    pub error: io::Error,
}

/// A record that is written, and how long the output file is with it, if it went there.
pub type Written = (Ticket, Option<u64>);

/// The near end of the writing thread.
#[derive(Debug)]
pub struct Writer {
    records: Sender<(Ticket, Record)>,
    done: Receiver<Result<Vec<Written>, WriteFailure>>,
    waiting_bytes: Arc<AtomicUsize>,
    waiting_records: usize,
}

impl Writer {
    /// Starts the thread. `wake` is called when there is something to collect.
    pub fn start(mut outputs: Outputs, wake: impl Fn() + Send + 'static) -> io::Result<Writer> {
        let (records, queue) = channel();
        let (report, done) = channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        thread::Builder::new().name("writer".into()).spawn(move || {
            while let Some(written) = write_some(&queue, &mut outputs, &waiting) {
                let failed = written.is_err();
                // If nobody collects any more, the coordinator is on its way out.
                if report.send(written).is_err() {
                    return;
                }
                wake();
                if failed {
                    return;
                }
            }
        })?;
        Ok(Writer { records, done, waiting_bytes, waiting_records: 0 })
    }

    /// Hands a record over.
    pub fn write(&mut self, ticket: Ticket, record: Record) {
        self.waiting_bytes.fetch_add(record_bytes(&record), Ordering::Relaxed);
        self.waiting_records += 1;
        // After a failure the thread is gone; that was reported, and nothing counts as written any more.
        let _ = self.records.send((ticket, record));
    }

    /// What was written since the last call.
    pub fn collect(&mut self) -> Result<Vec<Written>, WriteFailure> {
        let mut all = Vec::new();
        loop {
            match self.done.try_recv() {
                Ok(written) => all.extend(written?),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    let error = io::Error::other("the writing thread has ended before its time");
                    return Err(WriteFailure { place: "the outputs".into(), is_stdout: false, error });
                }
            }
        }
        self.waiting_records -= all.len();
        Ok(all)
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// True when all that was handed over was collected as written.
    pub fn is_idle(&self) -> bool {
        self.waiting_records == 0
    }
}

type Records = Receiver<(Ticket, Record)>;

/// Waits for records, and writes all that wait. None at the end.
fn write_some(queue: &Records, outputs: &mut Outputs, waiting: &AtomicUsize) -> Option<Result<Vec<Written>, WriteFailure>> {
    let first = queue.recv().ok()?;
    let mut done = Vec::new();
    let mut bytes = 0;
    let mut written = Ok(());
    for (ticket, record) in std::iter::once(first).chain(queue.try_iter()).take(RECORDS_PER_WRITE_MAX) {
        bytes += record_bytes(&record);
        written = written.and_then(|()| outputs.take(&record).map(|output_bytes| done.push((ticket, output_bytes))));
    }
    written = written.and_then(|()| outputs.write_out());
    waiting.fetch_sub(bytes, Ordering::Relaxed);
    Some(written.map(|()| done))
}

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::Results(batch) => batch.body_bytes() as usize,
        Record::DeadLetter(letter) => letter.item.len() + letter.cause.len(),
    }
}
