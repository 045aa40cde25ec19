//! What people do to the queue: whether it is paused, and what becomes of dead letters.

use std::collections::{BTreeMap, VecDeque};

use common::batch::Batch;
use common::limits::{DEAD_PAGE_BYTES_MAX, DEAD_PAGE_LETTERS_MAX, batch_cost_bytes};
use common::message::{DeadFate, Message, Obstacle};
use common::status::Phase;
use coordinator::queue::{ClientId, DeadLetter, DeadPage, DeadRange};

use super::Oracle;
use crate::simulator::item::Tag;

/// The dead letters that there are, and what is asked about them.
#[derive(Debug, Default)]
pub(super) struct Dead {
    /// Those that are kept, or in the journal: the bytes of each item and cause.
    kept: BTreeMap<u64, (u64, u64)>,
    unkept: u64,
    unkept_until: u64,
    /// The bytes of items that are being given up.
    dying: BTreeMap<u64, (u64, u64)>,
    asks: VecDeque<Ask>,
    /// Items that were dead letters before, by their numbers now.
    again: BTreeMap<u64, Again>,
}

#[derive(Debug)]
struct Ask {
    client: ClientId,
    unheard: bool,
    range: DeadRange,
    fate: Option<DeadFate>,
    /// What it is about, once that is known.
    page: Option<Page>,
}

#[derive(Debug)]
struct Page {
    letters: VecDeque<u64>,
    next: Option<u64>,
    unkept: u64,
    /// How many have gone, and how many of those are not in the journal.
    removed: u64,
    uncommitted: u64,
    /// Without a journal: the number of the next item.
    next_id: u64,
}

#[derive(Debug)]
struct Again {
    whose: (Tag, u64),
    cost_bytes: u64,
    touched: bool,
}

impl Dead {
    pub(super) fn dies(&mut self, letter: &DeadLetter) {
        self.dying.insert(letter.id.0, (letter.item.len() as u64, letter.cause.len() as u64));
    }

    /// An item is given up for good; more than the bounds allow are not kept, unless they lie in a journal.
    pub(super) fn keep(&mut self, id: u64, bounds: Option<(u64, u64)>) {
        let sizes = self.dying.remove(&id).expect("the letter of an item that is given up");
        self.kept.insert(id, sizes);
        let Some((letters_max, bytes_max)) = bounds else { return };
        while self.kept.len() > 1 {
            let bytes: u64 = self.kept.values().map(|(item, cause)| item + cause + 192).sum();
            if self.kept.len() as u64 <= letters_max && bytes <= bytes_max {
                break;
            }
            let (id, _) = self.kept.pop_first().expect("a letter");
            self.unkept += 1;
            self.unkept_until = self.unkept_until.max(id + 1);
        }
    }

    fn page(&self, range: DeadRange, next_id: u64) -> Page {
        let (mut letters, mut bytes, mut next) = (VecDeque::new(), 0, None);
        for (id, (item, cause)) in self.kept.range(range.from..range.until) {
            if letters.len() == DEAD_PAGE_LETTERS_MAX || bytes >= DEAD_PAGE_BYTES_MAX {
                next = Some(*id);
                break;
            }
            letters.push_back(*id);
            bytes += item + cause;
        }
        Page { letters, next, unkept: self.unkept, removed: 0, uncommitted: 0, next_id }
    }

    fn current(&mut self) -> &mut Page {
        self.asks.front_mut().and_then(|ask| ask.page.as_mut()).expect("a question that is being dealt with")
    }

    /// What items cost that were dead letters before.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.again.values().map(|again| again.cost_bytes).sum()
    }

    pub(super) fn touched_bytes(&self) -> u64 {
        self.again.values().filter(|again| again.touched).map(|again| again.cost_bytes).sum()
    }

    /// An item is delivered; false if it was no dead letter before.
    pub(super) fn touch(&mut self, id: u64, whose: (Tag, u64)) -> bool {
        let Some(again) = self.again.get_mut(&id) else { return false };
        assert_eq!(again.whose, whose, "item {id} was a dead letter, and has changed");
        again.touched = true;
        true
    }

    /// An item is settled; false if it was no dead letter before.
    pub(super) fn settle(&mut self, id: u64) -> bool {
        self.again.remove(&id).is_some()
    }

    /// A client has gone.
    pub(super) fn leave(&mut self, client: ClientId, journaled: bool) {
        let mut at = 0;
        self.asks.retain_mut(|ask| {
            at += 1;
            ask.unheard |= ask.client == client;
            ask.client != client || (at == 1 && journaled)
        });
    }

    /// The coordinator dies: what was asked is forgotten, and items that are not in the journal are dead letters still.
    pub(super) fn die(&mut self, certain: u64) {
        self.asks.clear();
        self.dying.clear();
        self.again.split_off(&certain);
        self.again.values_mut().for_each(|again| again.touched = false);
    }
}

impl Oracle {
    /// Somebody is about to steer the queue.
    pub(super) fn steered(&mut self, client: ClientId, message: &Message, phase: Phase) {
        match message {
            Message::SetPaused { paused } => {
                // One that came to its end meanwhile is not paused any more.
                let serves = matches!(phase, Phase::Running | Phase::Draining);
                let (before, paused) = (self.paused && serves, *paused && serves);
                self.paused = paused;
                let changed = before != paused;
                self.pause_answers.push_back((paused, changed));
            }
            Message::DeadList { from, until } => self.asks(client, DeadRange { from: from.0, until: until.0 }, None),
            Message::DeadRemove { from, until, fate } => self.asks(client, DeadRange { from: from.0, until: until.0 }, Some(*fate)),
            other => panic!("nobody steers by {}", other.name()),
        }
    }

    fn asks(&mut self, client: ClientId, range: DeadRange, fate: Option<DeadFate>) {
        self.dead.asks.push_back(Ask { client, unheard: false, range, fate, page: None });
        if self.rules.journaled.is_none() {
            self.begins_with_dead(self.items.accepted());
        }
    }

    fn begins_with_dead(&mut self, next_id: u64) {
        let Some(ask) = self.dead.asks.front() else { panic!("nobody has asked") };
        let (mut page, range, fate) = (self.dead.page(ask.range, next_id), ask.range, ask.fate);
        if fate == Some(DeadFate::Drop) && range.from == 0 && range.until >= self.dead.unkept_until {
            let unkept = std::mem::take(&mut self.dead.unkept);
            page.removed = unkept;
            self.items.dead_letters_removed(unkept);
        }
        self.dead.asks[0].page = Some(page);
    }

    /// The queue wants dead letters: the one question was dealt with, the next is.
    pub(super) fn loads_dead(&mut self, range: DeadRange) {
        self.dead.asks.pop_front_if(|ask| ask.unheard && ask.page.is_some());
        let ask = self.dead.asks.front().expect("somebody has asked");
        assert!(ask.range == range && ask.page.is_none(), "{range:?} is loaded for {ask:?}");
    }

    pub(super) fn dead_loaded(&mut self, page: &DeadPage) {
        self.begins_with_dead(0);
        let expected = self.dead.current();
        assert!(page.letters.iter().map(|letter| letter.id.0).eq(expected.letters.iter().copied()), "the letters that are in the journal");
        assert_eq!(page.next, expected.next);
    }

    /// The answers of the queue to who steers it.
    pub(super) fn answers_steering(&mut self, message: &Message, batch: Option<&Batch>) {
        match (message, batch) {
            (Message::PausedSet { paused, changed }, None) => {
                assert_eq!(self.pause_answers.pop_front(), Some((*paused, *changed)), "whether it is paused");
            }
            (Message::DeadLetter { id, attempts, .. }, Some(batch)) => {
                assert_eq!(self.dead.current().letters.pop_front(), Some(id.0), "the next dead letter");
                assert_eq!(batch.count(), 1);
                self.items.check_letter(id.0, *attempts, self.lengths.read(batch.item(0)));
            }
            (Message::DeadListed { next, unkept }, None) => {
                let page = self.dead.asks.pop_front().and_then(|ask| ask.page).expect("a question");
                assert!(page.letters.is_empty(), "dead letters {:?} are not listed", page.letters);
                assert_eq!((next.map(|next| next.0), *unkept), (page.next, page.unkept));
            }
            (Message::DeadRemoved { count, next, obstacle }, None) => {
                let fate = self.dead.asks.front().and_then(|ask| ask.fate).expect("a question");
                if self.rules.journaled.is_none() {
                    self.remove_at_once(*count, fate);
                }
                let page = self.dead.asks.pop_front().and_then(|ask| ask.page).expect("a question");
                assert_eq!((page.removed, page.uncommitted), (*count, 0), "letters that have gone");
                let expected = if obstacle.is_some() { page.letters.front().copied() } else { page.next };
                assert_eq!(next.map(|next| next.0), expected, "where to go on");
                match obstacle {
                    None => assert!(page.letters.is_empty(), "dead letters {:?} are left out", page.letters),
                    Some(Obstacle::Ending) => assert!(!self.hands_out || self.paused, "it does not end"),
                    Some(Obstacle::Full) => assert_eq!(fate, DeadFate::Requeue),
                }
            }
            _ => panic!("the queue says {} to who steers it", message.name()),
        }
    }

    /// Without a journal the answer tells how many have gone.
    fn remove_at_once(&mut self, count: u64, fate: DeadFate) {
        while self.dead.current().removed < count {
            let page = self.dead.current();
            let id = page.letters.pop_front().expect("no more go than there are");
            let first = page.next_id;
            page.next_id += 1;
            if fate == DeadFate::Requeue {
                self.is_again(id, first);
                self.items.is_requeued();
            }
            self.dead.current().removed += 1;
            self.dead.kept.remove(&id);
            self.items.dead_letters_removed(1);
        }
    }

    fn is_again(&mut self, id: u64, first: u64) -> u64 {
        let whose = self.items.whose(id);
        let cost_bytes = batch_cost_bytes(self.dead.kept[&id].0);
        self.dead.again.insert(first, Again { whose, cost_bytes, touched: false });
        cost_bytes
    }

    /// The queue tells the journal that a letter is put again as item `first`. What that costs.
    pub(super) fn requeues(&mut self, id: u64, first: u64, batch: &Batch) -> u64 {
        let whose = self.lengths.read(batch.item(0));
        assert_eq!((batch.count(), whose), (1, Some(self.items.whose(id))), "the dead letter {id}");
        self.items.enter(first, 1);
        self.goes(id, DeadFate::Requeue);
        self.is_again(id, first)
    }

    pub(super) fn drops(&mut self, id: u64, item_bytes: u64) {
        assert_eq!(self.dead.kept[&id].0, item_bytes, "bytes of the dead letter {id}");
        self.goes(id, DeadFate::Drop);
    }

    fn goes(&mut self, id: u64, fate: DeadFate) {
        assert_eq!(self.dead.asks.front().and_then(|ask| ask.fate), Some(fate), "what was asked");
        let page = self.dead.current();
        assert_eq!(page.letters.pop_front(), Some(id), "the next dead letter");
        page.removed += 1;
        page.uncommitted += 1;
    }

    /// The journal knows that a letter is none any more.
    pub(super) fn is_removed(&mut self, id: u64) {
        assert!(self.dead.kept.remove(&id).is_some(), "the dead letter {id} goes twice");
        self.items.dead_letters_removed(1);
        // After a death nobody asks any more.
        if let Some(page) = self.dead.asks.front_mut().and_then(|ask| ask.page.as_mut()) {
            page.uncommitted -= 1;
        }
    }
}
