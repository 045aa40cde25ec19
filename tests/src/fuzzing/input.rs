//! What a user gives: inputs in their formats, and the values of flags.

use std::io::{Cursor, Read};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use common::backoff::Backoff;
use coordinator::cli::QueueArgs;
use coordinator::queue::Queue;
use producer::cli::{Format, Pause};
use producer::source::Source;
use serde_json::value::RawValue;

/// A file, and how it is read.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    format: u8,
    bytes_max: u8,
    /// How many bytes a read gives.
    read: u8,
    skipped: u8,
    bytes: &'a [u8],
}

/// Reads so many bytes at once and no more, as a pipe does.
struct Pipe {
    bytes: Cursor<Vec<u8>>,
    read: usize,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.read.min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}

/// Cuts any input into its items, up to the first that is none, and names that by its number.
pub fn input(data: &[u8]) {
    let Ok(given) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let format = [Format::Lines, Format::Nul, Format::Json][usize::from(given.format % 3)];
    let delimiter = if format == Format::Nul { 0 } else { b'\n' };
    let (bytes_max, mut skipped) = (usize::from(given.bytes_max), usize::from(given.skipped % 4));
    let pipe = Pipe { bytes: Cursor::new(given.bytes.to_vec()), read: 1 + usize::from(given.read) };
    let mut source = Source::new("in".into(), format, Box::new(pipe), true);

    let mut records: Vec<&[u8]> = given.bytes.split(|byte| *byte == delimiter).collect();
    // What follows the last delimiter is a record only if there is something.
    records.pop_if(|last| last.is_empty());
    let is_item = |record: &[u8]| format != Format::Json || !record.iter().all(u8::is_ascii_whitespace);
    let is_json = |record| std::str::from_utf8(record).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    let is_valid = |record| format != Format::Json || is_json(record);

    if skipped > 0 && records.iter().filter(|record| is_item(record)).take(skipped).all(|record| is_valid(record)) {
        let there = records.iter().filter(|record| is_item(record)).count();
        assert_eq!(source.skip(skipped as u64, None).is_ok(), skipped <= there, "{skipped} of {there}");
        if skipped > there {
            return;
        }
    } else {
        skipped = 0;
    }
    for (number, record) in (1..).zip(records) {
        if skipped > 0 {
            skipped -= usize::from(is_item(record));
            continue;
        }
        // Where a line that holds nothing is no item, how long it may be is bounded all the same.
        let fits = record.len() <= bytes_max;
        if fits && !is_item(record) {
            continue;
        }
        let read = source.next(bytes_max as u64);
        if fits && is_valid(record) {
            assert_eq!(read.expect("an item"), Some(record), "record {number}");
            continue;
        }
        let error = read.expect_err("what is no item").to_string();
        let unit = if format == Format::Nul { "record" } else { "line" };
        let place = error.strip_prefix(&format!("in {unit} {number}")).unwrap_or_else(|| panic!("not of record {number}: {error}"));
        assert!(place.starts_with(if fits { " column " } else { ": longer than " }), "{error}");
        return;
    }
    assert_eq!(source.next(bytes_max as u64).expect("the end"), None);
}

/// The values of the flags that set a queue's bounds.
#[derive(Arbitrary, Debug)]
struct Options<'a> {
    capacity: u64,
    capacity_bytes: &'a str,
    max_item: Option<&'a str>,
    max_attempts: u32,
    failure: u32,
    delay: &'a str,
}

/// Reads any value of a flag or refuses it; what is read reads the same once it is shown; what is accepted makes a queue.
pub fn options(data: &[u8]) {
    let Ok(given) = Options::arbitrary_take_rest(Unstructured::new(data)) else { return };
    if let Ok(pause) = given.delay.parse::<Pause>() {
        assert_eq!(pause.to_string().parse::<Pause>().expect("as it is shown"), pause);
    }
    let delay = given.delay.parse::<Backoff>();
    if let Ok(delay) = &delay {
        assert_eq!(delay.to_string().parse::<Backoff>().expect("as it is shown"), *delay);
        let after = delay.after(given.failure);
        assert!((delay.min..=delay.max).contains(&after));
        assert!((after - after / 4..=after).contains(&delay.spread(given.failure, given.capacity)));
    }
    let (Ok(capacity_bytes), Ok(max_item)) = (given.capacity_bytes.parse(), given.max_item.map(str::parse).transpose()) else { return };
    let args = QueueArgs {
        output: None,
        journal: None,
        engine: None,
        fsync: coordinator::journal::Fsync::Always,
        socket: None,
        capacity: given.capacity.max(1),
        capacity_bytes,
        max_item,
        max_attempts: given.max_attempts.max(1),
        retry_delay: delay.unwrap_or(Backoff { min: Duration::ZERO, max: Duration::ZERO }),
        item_timeout: None,
        keep_order: false,
        halt: coordinator::halt::Halt::Never,
        dead_letters: None,
        progress: coordinator::progress::When::Never,
        metrics: None,
        spin: Duration::ZERO,
        grace: Duration::ZERO,
    };
    match args.rules(None) {
        Ok(rules) => drop(Queue::new(rules)),
        Err(error) => assert!(error.starts_with("--"), "{error}"),
    }
}
