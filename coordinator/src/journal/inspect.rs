//! Looking at a journal without changing it, also when its coordinator was killed: what a repair would write stays in memory.
//!
//! Refused while a coordinator has the journal: what it is writing cannot be read beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::error::JournalError;
use super::folder::Folder;
use super::store::Store;
use super::{FORMAT_VERSION, group::Known};
use crate::limits::SHOWN_LETTERS_MAX;
use crate::marks::Marks;

/// The version of the JSON form: raised when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The version of this form.
    pub version: u32,
    /// The version of the journal's format.
    pub format_version: u32,
    /// How its last coordinator left it.
    pub state: State,
    /// Commits so far.
    pub commits: u64,
    /// Commits that were reported as durable, as far as is known; more than there are is damage.
    pub commits_confirmed: Option<u64>,
    /// Items that are not settled.
    pub items: u64,
    /// Batches with such items.
    pub batches: u64,
    /// Bytes of these batches.
    pub body_bytes: u64,
    /// The number of the first batch's first item.
    pub first_id: Option<u64>,
    /// The number of the next item.
    pub next_id: u64,
    /// The largest item that was allowed.
    pub item_bytes_max: u64,
    /// Items that were acknowledged.
    pub acknowledged: u64,
    /// Dead letters.
    pub dead: u64,
    /// The first of them.
    pub dead_letters: Vec<Letter>,
    /// Producers with a name.
    pub producers: Vec<ProducerSummary>,
    /// Producers without a name that have finished.
    pub finished_unnamed: u64,
    /// How long the output file is as far as its results count.
    pub output_bytes: Option<u64>,
    /// How large the journal's file is.
    pub file_bytes: u64,
}

/// How a journal was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was closed.
    Closed,
    /// Its coordinator was killed, or lost power; the next one repairs it.
    Killed,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// Its item's number.
    pub id: u64,
    /// How often it was delivered.
    pub attempts: u32,
    /// What became of the last attempt.
    pub cause: String,
    /// Bytes of its item.
    pub item_bytes: u64,
}

/// A producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProducerSummary {
    /// Its name.
    pub name: String,
    /// How many of its items were accepted.
    pub position: u64,
    /// Their checksum, in hexadecimal digits.
    pub checksum: String,
    /// No more comes from it.
    pub finished: bool,
}

/// What was found by checking everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Batches that were checked.
    pub batches: u64,
    /// Items in them that are not settled.
    pub items: u64,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// Shows what a journal holds.
pub fn inspect(dir: &Path) -> Result<Summary, JournalError> {
    let folder = Folder::look_at(dir)?;
    let commits_confirmed = folder.confirmed()?;
    let (store, file_bytes) = folder.store_unchanged()?;
    let mut dead_letters = Vec::new();
    store.each_dead(|id, letter| {
        if let Ok(letter) = letter
            && dead_letters.len() < SHOWN_LETTERS_MAX
        {
            dead_letters.push(Letter { id, attempts: letter.attempts, cause: letter.cause, item_bytes: letter.item.len() as u64 });
        }
    })?;
    let recovered = store.recovered();
    let producer = |(progress, finished): (crate::queue::Progress, bool)| ProducerSummary {
        name: progress.name.as_ref().into(),
        position: progress.position,
        checksum: format!("{:016x}", progress.checksum),
        finished,
    };
    Ok(Summary {
        version: JSON_VERSION,
        format_version: FORMAT_VERSION,
        state: if store.needed_repair() { State::Killed } else { State::Closed },
        commits: store.totals().sequence,
        commits_confirmed,
        items: recovered.items,
        batches: recovered.batches,
        body_bytes: recovered.body_bytes,
        first_id: store.first_id()?,
        next_id: recovered.next_id,
        item_bytes_max: store.totals().item_bytes_max,
        acknowledged: recovered.acknowledged,
        dead: recovered.dead,
        dead_letters,
        producers: recovered.producers.into_iter().map(producer).collect(),
        finished_unnamed: recovered.finished_unnamed,
        output_bytes: recovered.output_bytes,
        file_bytes,
    })
}

/// Checks all that can be checked: the store's own checksums, each record, and that the totals and marks fit what is there.
pub fn verify(dir: &Path) -> Result<Verdict, JournalError> {
    let folder = Folder::look_at(dir)?;
    let mut verdict = Verdict::default();
    let confirmed = folder.confirmed().unwrap_or_else(|error| {
        verdict.problems.push(error.to_string());
        None
    });
    let (mut store, _) = match folder.store_unchanged() {
        Err(error @ JournalError::Damaged { .. }) => {
            verdict.problems.push(in_short(error));
            return Ok(verdict);
        }
        opened => opened?,
    };
    let commits = store.totals().sequence;
    if let Some(confirmed) = confirmed.filter(|confirmed| *confirmed > commits) {
        verdict.problems.push(format!("it ends with commit {commits}, but {confirmed} was confirmed"));
    }
    // The store's own checks mend what they can: first of all, what lies there.
    let checked = check_records(&store, &mut verdict);
    checked.unwrap_or_else(|error| verdict.problems.push(in_short(error)));
    match store.check_integrity() {
        Ok(true) => {}
        Ok(false) => verdict.problems.push("the store's own checksums are not right".into()),
        Err(error) => verdict.problems.push(in_short(error)),
    }
    Ok(verdict)
}

/// One line of JSON.
pub fn as_json(summary: &Summary) -> String {
    #[expect(clippy::expect_used, reason = "numbers and strings can always be written as JSON")]
    serde_json::to_string(summary).expect("a summary is JSON")
}

/// A few lines of text.
pub fn in_words(summary: &Summary) -> String {
    let state = match summary.state {
        State::Closed => "closed in order",
        State::Killed => "its coordinator was killed; the next one goes on",
    };
    let mut words = format!(
        "journal      format {}, {state}, {} commits, {} bytes on disk\n\
         items        {} in {} batches of {} bytes, {} done, {} dead; next number {}\n",
        summary.format_version,
        summary.commits,
        summary.file_bytes,
        summary.items,
        summary.batches,
        summary.body_bytes,
        summary.acknowledged,
        summary.dead,
        summary.next_id,
    );
    // Writing to a String cannot fail.
    if let Some(first) = summary.first_id {
        let _ = writeln!(words, "             the first batch begins with item {first}; items may have {} bytes", summary.item_bytes_max);
    }
    if let Some(confirmed) = summary.commits_confirmed.filter(|confirmed| *confirmed > summary.commits) {
        let _ = writeln!(words, "DAMAGED      commit {confirmed} was confirmed, and is not there");
    }
    if let Some(bytes) = summary.output_bytes {
        let _ = writeln!(words, "output       counts up to byte {bytes}");
    }
    for ProducerSummary { name, position, checksum, finished } in &summary.producers {
        let state = if *finished { "finished" } else { "not finished" };
        let _ = writeln!(words, "producer     {name:?}: {position} items (checksum {checksum}), {state}");
    }
    if summary.finished_unnamed > 0 {
        let _ = writeln!(words, "producers    {} without a name have finished", summary.finished_unnamed);
    }
    for Letter { id, attempts, cause, item_bytes } in &summary.dead_letters {
        let _ = writeln!(words, "dead letter  item {id} of {item_bytes} bytes after {attempts} attempts: {cause}");
    }
    words
}

/// Without the advice to do what was just done.
fn in_short(error: JournalError) -> String {
    match error {
        JournalError::Damaged { what, .. } => what,
        error => error.to_string(),
    }
}

/// Checks each record, and that all of them go together.
pub(super) fn check_records(store: &Store, verdict: &mut Verdict) -> Result<(), JournalError> {
    let problems = &mut verdict.problems;
    let mut batches = BTreeMap::new();
    let mut end = 0;
    store.each_batch(|first, batch| match batch {
        Ok(batch) => {
            if first < end {
                problems.push(format!("the batch of item {first} begins before the end of the one before it"));
            }
            end = first + u64::from(batch.count);
            batches.insert(first, batch);
        }
        Err(error) => problems.push(format!("the batch of item {first}: {error}")),
    })?;
    store.each_marks(|first, marks| {
        let marks = marks.map(|marks| batches.get_mut(&first).and_then(|batch| Some((Marks::from_stored(marks, batch.count)?, batch))));
        match marks {
            Ok(Some((marks, batch))) => batch.marks = marks,
            Ok(None) => problems.push(format!("what became of the items from {first} on does not fit any")),
            Err(error) => problems.push(format!("what became of the items from {first} on: {error}")),
        }
    })?;
    let (mut dead, mut dead_bytes) = (0, 0);
    store.each_dead(|id, letter| match letter {
        Ok(letter) => (dead, dead_bytes) = (dead + 1, dead_bytes + letter.item.len() as u64),
        Err(error) => problems.push(format!("the dead letter of item {id}: {error}")),
    })?;
    let totals = store.totals();
    let items = batches.values().map(|Known { count, marks, .. }| u64::from(*count - marks.settled())).sum();
    let body_bytes: u64 = batches.values().map(|batch| batch.body_bytes).sum();
    for (what, counted, expected) in [
        ("items", items, totals.items),
        ("batches", batches.len() as u64, totals.batches),
        ("bytes of batches", body_bytes, totals.body_bytes),
        ("dead letters", dead, totals.dead),
        ("bytes of dead letters", dead_bytes, totals.dead_bytes),
    ] {
        if counted != expected {
            problems.push(format!("there are {counted} {what}, and {expected} by the totals"));
        }
    }
    if end > totals.next_id {
        problems.push(format!("the last batch ends with item {}, and {} is the next by the totals", end - 1, totals.next_id));
    }
    (verdict.batches, verdict.items) = (batches.len() as u64, items);
    Ok(())
}
