//! What a queue that outlives its coordinator keeps in its journal, and what it gets from there.

use std::sync::Arc;

use common::batch::Batch;
use common::limits::{DEAD_PAGE_BYTES_MAX, DEAD_PAGE_LETTERS_MAX};

use super::DeadLetter;

/// Something that has to be in the journal before it counts. Entries are made durable in order, those that were given out together
/// all or none.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Items are accepted, numbered from `first` on.
    Put {
        /// The first item's number.
        first: u64,
        /// The items.
        batch: Batch,
        /// Who has put them, if it has a name.
        by: Option<Progress>,
    },
    /// Items are done with, and no dead letters.
    Settled {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
        /// How long the output file is with their results in it; none if it has not grown.
        output_bytes: Option<u64>,
    },
    /// An item is given up: it is an item no more, but a dead letter.
    Dead(DeadLetter),
    /// A dead letter is put again: it is a dead letter no more, but an item under another number.
    Requeued {
        /// The dead letter's number.
        id: u64,
        /// The item's number.
        first: u64,
        /// The item.
        batch: Batch,
    },
    /// A dead letter is forgotten.
    Dropped {
        /// Its number.
        id: u64,
        /// Bytes of its item.
        item_bytes: u64,
    },
    /// Items whose attempts have failed so many times by now, and will be tried again.
    Failed {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
        /// Failed attempts of each.
        failures: u32,
    },
    /// The output file is ours from its beginning on, and has this length.
    Output {
        /// Bytes.
        bytes: u64,
    },
    /// No more comes from a producer: under this name, or from one without.
    Finished {
        /// The name.
        name: Option<Arc<str>>,
    },
}

/// How far a producer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its name.
    pub name: Arc<str>,
    /// How many of its items are accepted.
    pub position: u64,
    /// The checksum of these items: see `Welcome` in `PROTOCOL.md`.
    pub checksum: u64,
}

/// Batches wanted back from the journal: those whose first item lies in `from..until`, from the lowest on, until they cost `bytes_min`
/// together (as [`batch_cost_bytes`](common::limits::batch_cost_bytes) counts) or there are no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The lowest number.
    pub from: u64,
    /// The number behind the highest.
    pub until: u64,
    /// Enough.
    pub bytes_min: u64,
}

/// A batch from the journal.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its first item's number.
    pub first: u64,
    /// Its items, settled ones included.
    pub batch: Batch,
    /// Which are settled already: first and count, in order.
    pub settled: Vec<(u64, u64)>,
    /// Which have failed before: first, count and failures, in order; none of them settled.
    pub failed: Vec<(u64, u64, u32)>,
    /// How often it was handed out before, as far as that is known.
    pub attempts: u32,
}

/// Dead letters wanted from the journal: those of items `from..until`, from the lowest on, as many as a [`DeadPage`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadRange {
    /// The lowest number.
    pub from: u64,
    /// The number behind the highest.
    pub until: u64,
}

/// Some dead letters, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// The number of the first that is left.
    pub next: Option<u64>,
}

impl DeadPage {
    /// The first of these letters, as many as one page takes.
    pub fn of(letters: impl IntoIterator<Item = DeadLetter>) -> DeadPage {
        match DeadPage::of_results(letters.into_iter().map(Ok::<_, std::convert::Infallible>)) {
            Ok(page) => page,
        }
    }

    /// The same of what may fail to be read.
    pub fn of_results<E>(letters: impl IntoIterator<Item = Result<DeadLetter, E>>) -> Result<DeadPage, E> {
        let (mut page, mut bytes) = (DeadPage::default(), 0);
        for letter in letters {
            let letter = letter?;
            if page.letters.len() >= DEAD_PAGE_LETTERS_MAX || bytes >= DEAD_PAGE_BYTES_MAX {
                page.next = Some(letter.id.0);
                break;
            }
            bytes += letter.item.len() as u64 + letter.cause.len() as u64;
            page.letters.push(letter);
        }
        Ok(page)
    }
}

/// What a journal holds when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The number of the next item.
    pub next_id: u64,
    /// Items that are not settled.
    pub items: u64,
    /// Batches with such items.
    pub batches: u64,
    /// Bytes of these batches' bodies.
    pub body_bytes: u64,
    /// Items that were acknowledged.
    pub acknowledged: u64,
    /// Items that were given up: the dead letters that there are.
    pub dead: u64,
    /// Producers with a name, and whether each has finished.
    pub producers: Vec<(Progress, bool)>,
    /// Producers without a name that have finished.
    pub finished_unnamed: u64,
    /// How long the output file is as far as its results count; none if there was none.
    pub output_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::ItemId;

    /// Numbers of the letters of a page, out of so many with so many bytes each.
    fn page(letters: u64, item_bytes: u64, cause_bytes: u64) -> (u64, Option<u64>) {
        let letter = |id| DeadLetter {
            id: ItemId(id),
            attempts: 1,
            cause: "c".repeat(cause_bytes as usize).into(),
            item: vec![b'x'; item_bytes as usize].into(),
        };
        let page = DeadPage::of((0..letters).map(letter));
        (page.letters.len() as u64, page.next)
    }

    #[test]
    fn a_page_ends_with_its_number_of_letters_or_the_letter_that_fills_it() {
        let most = DEAD_PAGE_LETTERS_MAX as u64;
        assert_eq!([page(0, 0, 0), page(most, 1, 1), page(most + 1, 1, 1)], [(0, None), (most, None), (most, Some(most))]);
        let quarter = DEAD_PAGE_BYTES_MAX / 4;
        assert_eq!([page(2, quarter, quarter), page(3, quarter, quarter)], [(2, None), (2, Some(2))]);
        assert_eq!(page(3, quarter, quarter - 1), (3, None));
        assert_eq!(page(2, 8 * quarter, 0), (1, Some(1)), "one in any case, however large");
    }
}
