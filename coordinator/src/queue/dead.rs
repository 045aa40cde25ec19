//! The dead letters: which are kept, and what is asked about them.
//!
//! Without a journal they are kept here as far as the bounds allow, those with the lowest numbers going first. With one they lie there, and are
//! loaded some at a time. Questions are dealt with one after the other, each to its end: so no letter is put again twice.

use std::collections::{BTreeMap, VecDeque};

use common::batch::Batch;
use common::limits::{BATCH_OVERHEAD_BYTES, batch_cost_bytes};
use common::message::{CloseReason, DeadFate, ItemId, Message, Obstacle};

use super::entry::{DeadPage, DeadRange, Entry, Recovered};
use super::intake::Room;
use super::pending::Effect;
use super::{ClientId, DeadLetter, Origin, Output, Queue, Refusal, Rules};

#[derive(Debug)]
pub(super) struct Dead {
    kept: BTreeMap<u64, DeadLetter>,
    kept_bytes: u64,
    letters_max: u64,
    bytes_max: u64,
    /// All that there are, here or in the journal.
    count: u64,
    /// Those that are in neither, and the number behind the highest of them.
    unkept: u64,
    unkept_until: u64,
    /// Items given up since this coordinator has begun.
    buried: u64,
    /// Letters that were put again or dropped, ever.
    removed: u64,
    asks: VecDeque<Ask>,
    /// What the first of them has come to.
    work: Work,
    /// Removals that are on their way to the journal.
    uncommitted: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    client: ClientId,
    /// Nobody hears the answer any more.
    unheard: bool,
    range: DeadRange,
    /// None: they are to be listed.
    fate: Option<DeadFate>,
}

#[derive(Debug, Default)]
enum Work {
    #[default]
    Idle,
    Loading,
    Removing(VecDeque<DeadLetter>, Removal),
    /// All is given out to the journal.
    Removed(Removal),
}

#[derive(Clone, Copy, Debug)]
struct Removal {
    count: u64,
    next: Option<u64>,
    obstacle: Option<Obstacle>,
}

impl Ask {
    pub(super) fn new(client: ClientId, from: ItemId, until: ItemId, fate: Option<DeadFate>) -> Ask {
        Ask { client, unheard: false, range: DeadRange { from: from.0, until: until.0.max(from.0) }, fate }
    }
}

impl Dead {
    pub(super) fn new(rules: &Rules) -> Dead {
        Dead {
            kept: BTreeMap::new(),
            kept_bytes: 0,
            letters_max: rules.dead_letters_max,
            bytes_max: rules.dead_bytes_max,
            count: 0,
            unkept: 0,
            unkept_until: 0,
            buried: 0,
            removed: 0,
            asks: VecDeque::new(),
            work: Work::Idle,
            uncommitted: 0,
        }
    }

    pub(super) fn recover(&mut self, recovered: &Recovered) {
        self.count = recovered.dead;
        self.removed = recovered.next_id.saturating_sub(recovered.items + recovered.acknowledged + recovered.dead);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// So many there are at all machines.
    pub(super) fn note_count(&mut self, count: u64) {
        self.count = count;
    }

    pub(super) fn buried(&self) -> u64 {
        self.buried
    }

    pub(super) fn removed(&self) -> u64 {
        self.removed
    }

    /// An item is given up for good.
    pub(super) fn bury(&mut self, count: u64) {
        self.count += count;
        self.buried += count;
    }

    /// Keeps a letter, and lets go of others if there are too many; the last one stays, however large.
    pub(super) fn keep(&mut self, letter: DeadLetter) {
        self.kept_bytes += cost_bytes(&letter);
        self.kept.insert(letter.id.0, letter);
        while self.kept.len() > 1 && (self.kept.len() as u64 > self.letters_max || self.kept_bytes > self.bytes_max) {
            let Some((id, letter)) = self.kept.pop_first() else { break };
            self.kept_bytes -= cost_bytes(&letter);
            self.unkept += 1;
            self.unkept_until = self.unkept_until.max(id + 1);
        }
    }

    /// A letter is one no more.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(letter) = self.kept.remove(&id) {
            self.kept_bytes -= cost_bytes(&letter);
        }
        // Of a shared queue, a look may have counted it out before.
        self.count = self.count.saturating_sub(1);
        self.removed += 1;
        self.uncommitted -= 1;
    }

    /// Counts those as dropped that were let go of before, if all of them are in the range.
    fn drop_unkept(&mut self, range: DeadRange) -> u64 {
        if range.from > 0 || range.until < self.unkept_until {
            return 0;
        }
        let dropped = std::mem::take(&mut self.unkept);
        self.count -= dropped;
        self.removed += dropped;
        dropped
    }

    fn page(&self, DeadRange { from, until }: DeadRange) -> DeadPage {
        DeadPage::of(self.kept.range(from..until).map(|(_, letter)| letter.clone()))
    }

    /// A client has gone; what it has asked is done all the same if it was begun.
    pub(super) fn leave(&mut self, client: ClientId) {
        let begun = usize::from(!matches!(self.work, Work::Idle));
        self.asks.iter_mut().take(begun).filter(|ask| ask.client == client).for_each(|ask| ask.unheard = true);
        let mut at = 0;
        self.asks.retain(|ask| {
            at += 1;
            at <= begun || ask.client != client
        });
    }
}

/// What a letter costs, with what is kept around it.
fn cost_bytes(letter: &DeadLetter) -> u64 {
    letter.item.len() as u64 + letter.cause.len() as u64 + BATCH_OVERHEAD_BYTES
}

impl Queue {
    pub(super) fn ask_of_dead(&mut self, ask: Ask) -> Result<(), Refusal> {
        if self.dead.asks.iter().any(|open| open.client == ask.client && !open.unheard) {
            return Err((CloseReason::Protocol, "a question about dead letters before the last one is answered".into()));
        }
        self.dead.asks.push_back(ask);
        Ok(())
    }

    /// Goes on with what is asked about dead letters, as far as it can.
    pub(super) fn work_on_dead(&mut self) {
        while let Some(&ask) = self.dead.asks.front() {
            match std::mem::take(&mut self.dead.work) {
                Work::Idle if self.rules.journaled.is_some() => {
                    self.dead.work = Work::Loading;
                    self.outputs.push_back(Output::LoadDead(ask.range));
                }
                Work::Idle => self.has_dead(ask, self.dead.page(ask.range)),
                Work::Removing(letters, removal) => {
                    if !self.remove_dead(ask, letters, removal) {
                        return;
                    }
                }
                Work::Removed(Removal { count, next, obstacle }) if self.dead.uncommitted == 0 => {
                    self.answer_of_dead(ask, Message::DeadRemoved { count, next: next.map(ItemId), obstacle });
                }
                waiting => {
                    self.dead.work = waiting;
                    return;
                }
            }
        }
    }

    /// Letters have come from the journal.
    pub(super) fn dead_loaded(&mut self, page: DeadPage) {
        let (Work::Loading, Some(&ask)) = (std::mem::take(&mut self.dead.work), self.dead.asks.front()) else {
            panic!("dead letters are loaded that were not wanted")
        };
        self.has_dead(ask, page);
    }

    fn has_dead(&mut self, ask: Ask, DeadPage { letters, next }: DeadPage) {
        if let Some(fate) = ask.fate {
            let count = if fate == DeadFate::Drop { self.dead.drop_unkept(ask.range) } else { 0 };
            self.dead.work = Work::Removing(letters.into(), Removal { count, next, obstacle: None });
            return;
        }
        for DeadLetter { id, attempts, cause, item } in letters.into_iter().filter(|_| !ask.unheard) {
            let batch = Batch::one(item);
            let message = Message::DeadLetter { id, attempts, cause: cause.to_string(), batch: batch.header() };
            self.outputs.push_back(Output::Send { client: ask.client, message, batch: Some(batch) });
        }
        let unkept = self.dead.unkept;
        self.answer_of_dead(ask, Message::DeadListed { next: next.map(ItemId), unkept });
    }

    fn answer_of_dead(&mut self, ask: Ask, answer: Message) {
        self.dead.asks.pop_front();
        if !ask.unheard {
            self.send(ask.client, answer);
        }
    }

    /// Puts letters again or drops them, until one meets an obstacle. False if it has to wait for the journal.
    fn remove_dead(&mut self, ask: Ask, mut letters: VecDeque<DeadLetter>, mut removal: Removal) -> bool {
        while let Some(letter) = letters.pop_front() {
            let id = letter.id.0;
            if ask.fate == Some(DeadFate::Drop) {
                let item_bytes = letter.item.len() as u64;
                self.dead.uncommitted += 1;
                self.keep(Effect::Dropped { id }, || Entry::Dropped { id, item_bytes });
                removal.count += 1;
                continue;
            }
            let batch = Batch::one(letter.item.clone());
            let serves = self.hands_out();
            let room = if serves { self.intake.room_for(ask.client, &batch) } else { Room::None };
            match room {
                Room::Free => {
                    self.requeue_dead(id, batch);
                    removal.count += 1;
                }
                Room::Later => {
                    letters.push_front(letter);
                    self.dead.work = Work::Removing(letters, removal);
                    return false;
                }
                Room::None => {
                    removal.next = Some(id);
                    removal.obstacle = Some(if serves { Obstacle::Full } else { Obstacle::Ending });
                    break;
                }
            }
        }
        self.dead.work = Work::Removed(removal);
        true
    }

    /// A dead letter becomes an item as fresh as any, behind all others.
    fn requeue_dead(&mut self, id: u64, batch: Batch) {
        self.dead.uncommitted += 1;
        if self.shared.is_some() {
            self.intake.stored_again(&batch);
            return self.publish(ClientId(0), batch, Origin::DeadLetter(ItemId(id)));
        }
        let first = self.next_id;
        self.next_id += 1;
        let bytes = batch_cost_bytes(batch.body_bytes());
        self.store.insert(first, batch.clone());
        self.intake.stored_again(&batch);
        self.keep(Effect::Requeued { id, first, bytes }, || Entry::Requeued { id, first, batch });
    }
}
