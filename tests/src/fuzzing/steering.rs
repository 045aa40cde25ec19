//! A watched queue that is steered: whether it is paused, and what becomes of its dead letters.

use std::collections::{BTreeMap, VecDeque};

use common::batch::Batch;
use common::limits::{DEAD_PAGE_BYTES_MAX, DEAD_PAGE_LETTERS_MAX, batch_cost_bytes};
use common::message::{CloseReason, DeadFate, Message, Obstacle};
use coordinator::queue::{ClientId, DeadLetter, DeadRange, Input};

use super::watched::Watched;

/// The dead letters, and what is asked about them.
#[derive(Default)]
pub(super) struct Dead {
    /// Given to the writer, and not settled.
    pub(super) dying: BTreeMap<u64, DeadLetter>,
    /// Those that are kept, or in the journal for sure.
    pub(super) letters: BTreeMap<u64, DeadLetter>,
    unkept: u64,
    unkept_until: u64,
    /// Letters that are none any more, and how many of them are items again, for sure.
    pub(super) removed: u64,
    pub(super) requeued: u64,
    /// The items that letters have become, by their numbers now.
    pub(super) again: BTreeMap<u64, Vec<u8>>,
    pub(super) paused: bool,
    asks: VecDeque<Ask>,
}

struct Ask {
    client: ClientId,
    range: DeadRange,
    fate: Option<DeadFate>,
    page: Option<Page>,
}

struct Page {
    letters: VecDeque<DeadLetter>,
    next: Option<u64>,
    unkept: u64,
    count: u64,
    uncommitted: u64,
}

impl Dead {
    /// A letter is written; without a journal, those with the lowest numbers may go.
    pub(super) fn keep(&mut self, id: u64, bounds: Option<(u64, u64)>) {
        let letter = self.dying.remove(&id).expect("a letter that was written");
        self.letters.insert(id, letter);
        let Some((letters_max, bytes_max)) = bounds else { return };
        let bytes = |letters: &BTreeMap<u64, DeadLetter>| {
            letters.values().map(|letter| batch_cost_bytes((letter.item.len() + letter.cause.len()) as u64)).sum::<u64>()
        };
        while self.letters.len() > 1 && (self.letters.len() as u64 > letters_max || bytes(&self.letters) > bytes_max) {
            let (id, _) = self.letters.pop_first().expect("a letter");
            self.unkept += 1;
            self.unkept_until = self.unkept_until.max(id + 1);
        }
    }

    fn page(&self, DeadRange { from, until }: DeadRange) -> Page {
        let mut all = self.letters.range(from..until.max(from)).map(|(_, letter)| letter.clone());
        let (mut letters, mut bytes) = (VecDeque::new(), 0);
        while letters.len() < DEAD_PAGE_LETTERS_MAX && bytes < DEAD_PAGE_BYTES_MAX {
            let Some(letter) = all.next() else { break };
            bytes += (letter.item.len() + letter.cause.len()) as u64;
            letters.push_back(letter);
        }
        Page { letters, next: all.next().map(|letter| letter.id.0), unkept: self.unkept, count: 0, uncommitted: 0 }
    }

    fn current(&mut self) -> &mut Page {
        self.asks.front_mut().and_then(|ask| ask.page.as_mut()).expect("a question that is being dealt with")
    }

    /// The coordinator dies; so many items are in the journal.
    pub(super) fn die(&mut self, certain: u64) {
        self.asks.clear();
        self.dying.clear();
        self.again.split_off(&certain);
        self.paused = false;
    }
}

impl Watched {
    /// A control connection steers the queue.
    pub(super) fn steer(&mut self, client: ClientId, message: Message) {
        let asks = match message {
            Message::DeadList { from, until } => Some((DeadRange { from: from.0, until: until.0 }, None)),
            Message::DeadRemove { from, until, fate } => Some((DeadRange { from: from.0, until: until.0 }, Some(fate))),
            _ => None,
        };
        let is_refused = asks.is_some() && self.dead_letters.asks.iter().any(|ask| ask.client == client);
        if is_refused {
            self.stops_asking(client);
        } else if let Some((range, fate)) = asks {
            self.dead_letters.asks.push_back(Ask { client, range, fate, page: None });
            if self.journal.is_none() {
                self.begins_with_dead();
            }
        } else if let Message::SetPaused { paused } = message {
            self.dead_letters.paused = paused && self.serves();
        }
        let closed = self.handle(Input::Steered { client, message });
        assert_eq!(closed.get(&client), is_refused.then_some(&CloseReason::Protocol));
        assert!(self.journal.is_some() || self.dead_letters.asks.is_empty(), "a question without an answer");
    }

    fn begins_with_dead(&mut self) {
        let Some(ask) = self.dead_letters.asks.front() else { panic!("nobody has asked") };
        let (range, fate) = (ask.range, ask.fate);
        let mut page = self.dead_letters.page(range);
        if fate == Some(DeadFate::Drop) && range.from == 0 && range.until >= self.dead_letters.unkept_until {
            page.count = std::mem::take(&mut self.dead_letters.unkept);
            self.dead -= page.count;
            self.dead_letters.removed += page.count;
        }
        self.dead_letters.asks[0].page = Some(page);
    }

    /// A client has gone; what is under way goes on.
    pub(super) fn stops_asking(&mut self, client: ClientId) {
        let mut at = 0;
        self.dead_letters.asks.retain(|ask| {
            at += 1;
            ask.client != client || at == 1
        });
    }

    /// The queue wants letters of the journal's for the next question; if the one before has an answer, nobody was there to hear it.
    pub(super) fn loads_dead(&mut self, range: DeadRange) {
        let asks = &mut self.dead_letters.asks;
        if asks.front().is_some_and(|ask| ask.page.is_some()) {
            let before = asks.pop_front().expect("a question");
            assert!(!self.clients.contains_key(&before.client), "{:?} was not answered", before.client);
        }
        let ask = self.dead_letters.asks.front().expect("somebody has asked");
        assert_eq!((ask.range.from, ask.range.until.max(ask.range.from)), (range.from, range.until));
        self.journal.as_mut().expect("a journal").dead_load = Some(range);
    }

    /// They are about to come.
    pub(super) fn dead_loaded(&mut self, letters: &[DeadLetter], next: Option<u64>) {
        self.begins_with_dead();
        let page = self.dead_letters.current();
        assert!(page.letters.iter().eq(letters) && page.next == next, "the letters of the journal");
    }

    /// The queue answers who steers it.
    pub(super) fn steered(&mut self, to: ClientId, message: Message, batch: Option<Batch>) {
        let serves = self.serves();
        let dead = &mut self.dead_letters;
        match (message, batch) {
            (Message::PausedSet { paused, .. }, None) => assert_eq!(paused, dead.paused),
            (Message::DeadLetter { id, attempts, cause, .. }, Some(batch)) => {
                let item = batch.item_shared(0);
                let letter = DeadLetter { id, attempts, cause: cause.into(), item };
                assert_eq!((dead.current().letters.pop_front(), batch.count()), (Some(letter), 1));
            }
            (Message::DeadListed { next, unkept }, None) => {
                let page = dead.current();
                assert!(page.letters.is_empty() && page.next == next.map(|next| next.0) && page.unkept == unkept, "the end of a list");
                assert_eq!(dead.asks.pop_front().map(|ask| ask.client), Some(to));
            }
            (Message::DeadRemoved { count, next, obstacle }, None) => {
                if self.journal.is_none() {
                    self.remove_at_once(count);
                }
                let ask = self.dead_letters.asks.pop_front().expect("a question");
                let (Some(page), true) = (ask.page, ask.client == to) else { panic!("an answer for {to:?}") };
                assert_eq!((page.count, page.uncommitted), (count, 0));
                let left = page.letters.front();
                let expected = if obstacle.is_some() { left.map(|letter| letter.id.0) } else { page.next };
                assert_eq!(next.map(|next| next.0), expected);
                match obstacle {
                    None => assert!(left.is_none(), "{left:?} is left out"),
                    Some(Obstacle::Ending) => assert!(!serves && ask.fate == Some(DeadFate::Requeue)),
                    Some(Obstacle::Full) => {
                        // With a journal, room may have come since.
                        let status = self.queue.status();
                        let bytes = status.bytes + left.map_or(0, |letter| batch_cost_bytes(letter.item.len() as u64));
                        let is_full = status.stored() == self.rules.capacity_items || bytes > self.rules.capacity_bytes;
                        assert!(is_full || self.journal.is_some(), "there is room: {status:?}");
                        assert_eq!(ask.fate, Some(DeadFate::Requeue));
                    }
                }
            }
            (message, _) => panic!("{to:?} is told {}", message.name()),
        }
    }

    fn remove_at_once(&mut self, count: u64) {
        let fate = self.dead_letters.asks.front().and_then(|ask| ask.fate);
        while self.dead_letters.current().count < count {
            let letter = self.goes(None, fate);
            if fate == Some(DeadFate::Requeue) {
                let first = self.confirmed() + self.dead_letters.requeued;
                self.dead_letters.again.insert(first, letter.item.to_vec());
            }
            self.is_removed(letter.id.0, fate == Some(DeadFate::Requeue));
        }
    }

    /// The next letter is given out to the journal, or gone.
    pub(super) fn goes(&mut self, id: Option<u64>, fate: Option<DeadFate>) -> DeadLetter {
        assert_eq!(self.dead_letters.asks.front().and_then(|ask| ask.fate), fate, "what was asked");
        let page = self.dead_letters.current();
        let letter = page.letters.pop_front().expect("a letter that was asked for");
        assert!(id.is_none_or(|id| letter.id.0 == id));
        page.count += 1;
        page.uncommitted += 1;
        letter
    }

    /// For sure.
    pub(super) fn is_removed(&mut self, id: u64, requeued: bool) {
        let dead = &mut self.dead_letters;
        assert!(dead.letters.remove(&id).is_some(), "the dead letter {id} goes twice");
        dead.removed += 1;
        dead.requeued += u64::from(requeued);
        if let Some(page) = dead.asks.front_mut().and_then(|ask| ask.page.as_mut()) {
            page.uncommitted -= 1;
        }
        self.dead -= 1;
    }
}
