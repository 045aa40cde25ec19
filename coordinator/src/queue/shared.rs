//! A queue that is shared with other machines: what is on its way to the servers, what is asked of them, and what goes back to them.
//!
//! The servers have the items. Here are those batches that were asked for and came, until their last item is settled or they are given back:
//!
//! ```text
//! put → publishing → [servers] → arrived → ready → held → settled
//!                        ↑                   ↲ nobody here wants them
//! ```
//!
//! How full the whole queue is, is known from looks, and counted on from each look by what this machine does. So the bounds are the
//! servers' to keep; here they hold producers back in time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::batch::Batch;
use common::limits::batch_cost_bytes;
use common::message::CloseReason;
use common::status::{Phase, SharedStatus};

use super::entry::{Entry, Progress};
use super::intake::Amount;
use super::pending::Effect;
use super::{ClientId, Loaded, Origin, Output, Queue, Refusal, Whole};
use crate::limits::{JOINS_MAX, NAMES_MAX, SHARED_DEAD_LOOK, SHARED_IDLE, SHARED_WANTED_BATCHES_MAX};

/// What a batch is taken to hold before one has come.
const BATCH_GUESS: Amount = Amount { items: 512, bytes: 64 * 1024 };

#[derive(Debug)]
pub(super) struct Shared {
    whole: Whole,
    /// Batches on their way to the servers, in order.
    publishing: VecDeque<Publishing>,
    on_the_way: Amount,
    /// How many batches were published so far.
    published: u64,
    accepted: u64,
    /// Who waits until all is settled of what was still on its way when it asked: up to which batch that is.
    asks: VecDeque<(u64, ClientId)>,
    /// Names that have a producer here, or had; true once they are this machine's.
    names: BTreeMap<Arc<str>, bool>,
    /// Batches that are asked for and have not come.
    wanted: u32,
    /// What batches lately held, once one has come.
    batch: Option<Amount>,
    /// Consumers that want to know whether there is an item for them, what each lacked when it asked, and whether a look that began after that
    /// is on its way.
    asking: Vec<Asking>,
    /// A dead letter has come or gone here just now.
    dead_now: bool,
    /// When one did last: looks count them now and then only.
    dead_since: Option<Duration>,
    /// A look did not count for them, which may be the last that has news: when one is made that does.
    dead_look_at: Option<Duration>,
    /// A look that began after all that was here was done has found nothing more.
    is_drained: bool,
    /// Such a look is on its way.
    looks_for_end: bool,
    /// The run is over as a look has found, while something was on its way here: another has to say so.
    is_unsure: bool,
    /// Since when nobody here wants what is here.
    idle_since: Option<Duration>,
    /// Something has come back from a consumer that is gone or hangs.
    came_back: bool,
    announced: Option<(u64, u64)>,
    looking: bool,
}

/// A consumer that wants to know whether there is an item, and waits for the answer.
#[derive(Debug)]
struct Asking {
    client: ClientId,
    /// How many items it lacked then.
    lacked: u32,
    /// The batches that were put here by then, on their way or there: it is not told that there is none while these are on their way.
    after: u64,
    /// A look is under way that has begun after all of that.
    looks: bool,
    /// What it has said since. The answer takes back what it asked for before, not what it asks for behind that.
    behind: VecDeque<Behind>,
}

/// What a consumer says behind a question that is not answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Behind {
    Demand {
        items: u32,
        bytes: u64,
    },
    Withdraw {
        /// As of one who asks.
        after: u64,
        /// A look is under way that has begun after all of that.
        looks: bool,
    },
}

/// A batch on its way to the servers.
#[derive(Debug)]
struct Publishing {
    client: ClientId,
    amount: Amount,
    origin: Origin,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            whole: Whole::default(),
            publishing: VecDeque::new(),
            on_the_way: Amount::default(),
            published: 0,
            accepted: 0,
            asks: VecDeque::new(),
            names: BTreeMap::new(),
            wanted: 0,
            batch: None,
            asking: Vec::new(),
            dead_now: false,
            dead_since: None,
            dead_look_at: None,
            is_drained: false,
            looks_for_end: false,
            is_unsure: false,
            idle_since: None,
            came_back: false,
            announced: None,
            looking: false,
        }
    }

    /// Items accepted here.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn is_done(&self) -> bool {
        self.whole.is_done
    }

    /// No other machine is known.
    fn is_alone(&self) -> bool {
        self.whole.machines <= 1
    }

    pub(super) fn is_publishing(&self) -> bool {
        !self.publishing.is_empty()
    }

    /// Batches that were put here so far, those on their way included.
    fn put(&self) -> u64 {
        self.published + self.publishing.len() as u64
    }

    pub(super) fn settled_until(&self) -> u64 {
        self.whole.settled_until
    }

    pub(super) fn is_ours(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|ours| *ours)
    }

    /// Notes that a dead letter has come or gone here.
    pub(super) fn note_dead(&mut self) {
        self.dead_now = true;
    }

    /// Notes that something has come back from a consumer that can do nothing more with it.
    pub(super) fn note_came_back(&mut self) {
        self.came_back = true;
    }

    /// When the queue has to be told the time, if nothing else happens before.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let idle = self.idle_since.map(|since| since.saturating_add(SHARED_IDLE));
        idle.into_iter().chain(self.dead_look_at.filter(|_| !self.looking)).min()
    }

    /// Items of the whole queue, those on their way to it too.
    fn items(&self) -> u64 {
        self.whole.items + self.on_the_way.items
    }

    /// `next_id`: below which the numbers of all that was published here are.
    pub(super) fn status(&self, next_id: u64) -> SharedStatus {
        SharedStatus {
            items: self.items(),
            next_id: self.whole.next_id.max(next_id),
            machines: self.whole.machines,
            producers_expected: self.whole.producers_expected,
            producers_finished: self.whole.producers_finished,
        }
    }
}

impl Queue {
    /// Sends a batch on its way to the servers; it has room.
    pub(super) fn publish(&mut self, client: ClientId, batch: Batch, origin: Origin) {
        let Some(shared) = &mut self.shared else { return };
        let amount = Amount::of(&batch);
        shared.on_the_way = shared.on_the_way.plus(amount);
        shared.publishing.push_back(Publishing { client, amount, origin: origin.clone() });
        self.outputs.push_back(Output::Publish { batch, origin });
    }

    /// The first batch of those on their way is at the servers.
    pub(super) fn published(&mut self, until: u64) {
        let Some(shared) = &mut self.shared else { panic!("something is published of a queue that is not shared") };
        let Some(Publishing { client, amount, origin }) = shared.publishing.pop_front() else {
            panic!("more is published than was given out")
        };
        shared.on_the_way = shared.on_the_way.less(amount);
        // A look may have seen it before it was known here.
        if until > shared.whole.next_id {
            shared.whole.items += amount.items;
            shared.whole.bytes += amount.bytes;
        }
        shared.published += 1;
        shared.accepted += amount.items;
        self.next_id = self.next_id.max(until);
        let stored = shared.on_the_way.plus(Amount { items: shared.whole.items, bytes: shared.whole.bytes });
        self.intake.note_stored(stored);
        let published = shared.published;
        let mut told = Vec::new();
        while let Some((_, client)) = shared.asks.pop_front_if(|(batch, _)| *batch <= published) {
            told.push(client);
        }
        for client in told {
            // It was within the bound when it asked.
            let _ = self.joins.ask(client, self.next_id);
        }
        match origin {
            Origin::Producer(by) => self.intake.kept(client, amount.items, amount.bytes, Some(by)),
            Origin::Nameless => self.intake.kept(client, amount.items, amount.bytes, None),
            Origin::DeadLetter(id) => {
                self.intake.kept_again(amount.bytes);
                let item_bytes = amount.bytes - batch_cost_bytes(0);
                self.keep(Effect::Dropped { id: id.0 }, || Entry::Dropped { id: id.0, item_bytes });
            }
        }
        self.welcome_arriving();
    }

    /// Items of a shared queue that are not here: they wait at the servers, or are another machine's.
    pub(super) fn elsewhere_items(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.items().saturating_sub(self.store.near_items()))
    }

    /// Notes who wants to be told when all that is accepted by now is settled.
    pub(super) fn join(&mut self, client: ClientId) -> Result<(), Refusal> {
        match &mut self.shared {
            Some(shared) if shared.is_publishing() => {
                let batch = shared.put();
                let open = shared.asks.iter().filter(|(_, asked)| *asked == client).count();
                self.joins.check(client, open)?;
                shared.asks.push_back((batch, client));
                Ok(())
            }
            _ => self.joins.ask(client, self.next_id),
        }
    }

    /// Batches of a shared queue that were put here so far.
    pub(super) fn batches_put(&self) -> u64 {
        self.shared.as_ref().map_or(0, Shared::put)
    }

    /// True if only the servers know whether there is an item for a consumer that wants to know: the answer waits for a look there, or
    /// for an item.
    pub(super) fn has_to_look_for(&mut self, client: ClientId) -> bool {
        let (lacked, serves) = (self.consumers.lacks(client), self.serves());
        let Some(shared) = self.shared.as_mut().filter(|_| serves && lacked > 0) else { return false };
        let after = shared.put();
        shared.asking.push(Asking { client, lacked, after, looks: false, behind: VecDeque::new() });
        true
    }

    /// True if this is to be heard once the consumer's question is answered: it was said behind that.
    pub(super) fn comes_behind(&mut self, client: ClientId, said: Behind) -> Result<bool, Refusal> {
        let asking = self.shared.as_mut().and_then(|shared| shared.asking.iter_mut().find(|asking| asking.client == client));
        let Some(Asking { behind, .. }) = asking else { return Ok(false) };
        let open = behind.len();
        match (behind.back_mut(), said) {
            (Some(Behind::Demand { items, bytes }), Behind::Demand { items: more_items, bytes: more_bytes }) => {
                (*items, *bytes) = (items.saturating_add(more_items), bytes.saturating_add(more_bytes));
            }
            _ if open >= 2 * JOINS_MAX as usize => {
                return Err((CloseReason::Limit, format!("more than {JOINS_MAX} Withdraws wait for their answer")));
            }
            _ => behind.push_back(said),
        }
        Ok(true)
    }

    /// Tells consumers whether there is an item for them: those that have got one, and those for which a look has found none.
    fn answer_asking(&mut self, has_looked: bool, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        for asking in std::mem::take(&mut shared.asking) {
            let is_answered = self.consumers.lacks(asking.client) < asking.lacked || (has_looked && asking.looks) || !self.serves();
            if is_answered {
                self.withdraw(asking.client);
                self.hear_behind(asking.client, asking.behind, has_looked, now);
            } else if let Some(shared) = &mut self.shared {
                shared.asking.push(asking);
            }
        }
    }

    /// Hears what a consumer has said behind a question that is answered now, up to the next one that is not.
    fn hear_behind(&mut self, client: ClientId, mut behind: VecDeque<Behind>, has_looked: bool, now: Duration) {
        while let Some(said) = behind.pop_front() {
            match said {
                Behind::Demand { items, bytes } => {
                    if let refused @ Err(_) = self.consumers.demand(client, items, bytes) {
                        return self.unless_refused(client, refused, now);
                    }
                    self.dispatch(now);
                }
                // One look is for all who asked before it began.
                Behind::Withdraw { looks, .. } if (has_looked && looks) || !self.has_to_look_for(client) => self.withdraw(client),
                Behind::Withdraw { .. } => {
                    let asking = self.shared.as_mut().and_then(|shared| shared.asking.last_mut());
                    return asking.into_iter().for_each(|asking| asking.behind = std::mem::take(&mut behind));
                }
            }
        }
    }

    /// Forgets what a client that has gone wanted to know.
    pub(super) fn leave_joins(&mut self, client: ClientId) {
        self.joins.leave(client);
        if let Some(shared) = &mut self.shared {
            shared.asking.retain(|asking| asking.client != client);
            shared.asks.retain(|(_, asked)| *asked != client);
        }
    }

    /// Batches have come from the servers.
    pub(super) fn arrived(&mut self, batches: &[Loaded]) {
        for loaded in batches {
            self.store.arrived(loaded);
            self.ready_again(loaded);
            let Some(shared) = &mut self.shared else { panic!("something arrives at a queue that is not shared") };
            shared.wanted = shared.wanted.saturating_sub(1);
            let came = Amount::of(&loaded.batch);
            // Smoothed, so that one small batch among others does not make many be asked for.
            let smooth = |before: Amount| Amount { items: (3 * before.items + came.items) / 4, bytes: (3 * before.bytes + came.bytes) / 4 };
            shared.batch = Some(shared.batch.map_or(came, smooth));
        }
    }

    /// Asks for a name that has to be this machine's before its producer is let in. False if there are too many.
    pub(super) fn claim(&mut self, name: &Arc<str>) -> bool {
        let Some(shared) = &mut self.shared else { return false };
        if shared.names.contains_key(name) {
            return true;
        }
        if shared.names.len() >= NAMES_MAX {
            return false;
        }
        shared.names.insert(Arc::clone(name), false);
        self.outputs.push_back(Output::Claim { name: Arc::clone(name) });
        true
    }

    /// A name is this machine's, and so far.
    pub(super) fn claimed(&mut self, by: Progress) {
        let ours = self.shared.as_mut().and_then(|shared| shared.names.get_mut(&by.name));
        if let Some(ours) = ours {
            *ours = true;
            self.intake.note_progress(by);
            self.welcome_arriving();
        }
    }

    /// A name is another machine's now.
    pub(super) fn replaced(&mut self, name: &Arc<str>) {
        if let Some(shared) = &mut self.shared {
            shared.names.remove(name);
        }
        if let Some(client) = self.intake.replace(name) {
            let words = "another producer has connected under the same name, at another machine".into();
            self.close_producer(client, CloseReason::Replaced, words);
        }
    }

    /// A look at the whole queue: what is on its way comes on top.
    pub(super) fn whole(&mut self, whole: Whole, now: Duration) {
        let Some(shared) = &mut self.shared else { panic!("a queue that is not shared is looked at") };
        let is_sure = !shared.is_publishing();
        shared.is_unsure = whole.is_done && !is_sure;
        shared.whole = Whole { is_done: whole.is_done && is_sure, ..whole };
        shared.looking = false;
        shared.is_drained = std::mem::take(&mut shared.looks_for_end) && whole.items == 0;
        let counts_dead = whole.is_done || shared.dead_since.is_none_or(|since| now >= since.saturating_add(SHARED_DEAD_LOOK));
        let stored = shared.on_the_way.plus(Amount { items: whole.items, bytes: whole.bytes });
        shared.dead_look_at = shared.dead_since.filter(|_| !counts_dead).map(|since| since.saturating_add(SHARED_DEAD_LOOK));
        self.intake.note_stored(stored);
        if counts_dead {
            self.dead.note_count(whole.dead);
        }
        self.dispatch(now);
        self.answer_asking(true, now);
    }

    /// Batches have left, with so much in them.
    pub(super) fn gone(&mut self, amount: Amount) {
        let Some(shared) = &mut self.shared else { return };
        let left = Amount { items: shared.whole.items, bytes: shared.whole.bytes }.less(amount);
        (shared.whole.items, shared.whole.bytes) = (left.items, left.bytes);
        let stored = shared.on_the_way.plus(left);
        self.intake.note_stored(stored);
    }

    /// What has to be asked of the servers and said to them after whatever has happened.
    pub(super) fn share(&mut self, now: Duration) {
        if self.shared.is_none() {
            return;
        }
        self.answer_asking(false, now);
        self.give_back(now);
        self.want();
        self.announce();
        let waits = self.intake.waiting() > 0 || self.joins.is_waiting();
        let Some(shared) = &mut self.shared else { return };
        // What is on its way now will be at the servers after whatever a look has found there.
        let ends = self.phase == Phase::Draining && self.store.is_empty() && !shared.is_publishing();
        shared.is_drained &= ends;
        if std::mem::take(&mut shared.dead_now) {
            shared.dead_since = Some(now);
        }
        let published = shared.published;
        let asks = shared.asking.iter().any(|asking| asking.after <= published) || shared.dead_look_at.is_some_and(|at| at <= now);
        let is_unsure = shared.is_unsure && !shared.is_publishing();
        if (waits || asks || is_unsure || (ends && !shared.is_drained)) && !std::mem::replace(&mut shared.looking, true) {
            // Behind what was asked for by now: what that brings comes before what the look shows.
            for asking in &mut shared.asking {
                asking.looks |= asking.after <= published;
                for said in &mut asking.behind {
                    if let Behind::Withdraw { after, looks } = said {
                        *looks |= *after <= published;
                    }
                }
            }
            shared.looks_for_end = ends;
            self.outputs.push_back(Output::Look);
        }
    }

    /// True if what comes would be handed out here, as soon as somebody asks for it: also while it drains, if nobody else would.
    fn serves(&self) -> bool {
        let drains_alone = self.phase == Phase::Draining && self.shared.as_ref().is_some_and(Shared::is_alone);
        (self.phase == Phase::Running || drains_alone) && !self.paused
    }

    /// True if a queue that drains has come to its end here: all that is here is done, and no other machine is there to do the rest, if there is one.
    pub(super) fn is_drained(&self) -> bool {
        let is_here = |shared: &Shared| shared.is_publishing() || (shared.is_alone() && !shared.is_drained);
        self.store.is_empty() && !self.shared.as_ref().is_some_and(is_here)
    }

    /// Asks for as much as consumers ask for.
    fn want(&mut self) {
        let lacking = if self.serves() { self.consumers.demand_items().saturating_sub(self.ready.items()) } else { 0 };
        let room_bytes = self.store.near_room_bytes();
        let is_served = self.ready.items() > 0;
        let Some(shared) = &mut self.shared else { return };
        let batch = shared.batch.unwrap_or(BATCH_GUESS);
        let batches = lacking.div_ceil(batch.items.max(1)).min(SHARED_WANTED_BATCHES_MAX);
        let fitting = room_bytes / batch.bytes.max(1);
        // Where memory is full of what others have in hand, one at a time.
        let batches = if is_served { batches.min(fitting) } else { batches.min(fitting.max(1)) } as u32;
        // More, not how many in all: one that has come and is not heard of yet would be taken off twice, and another sent back out of its turn.
        let more = batches.saturating_sub(shared.wanted);
        if more > 0 {
            shared.wanted = batches;
            self.outputs.push_back(Output::Want { batches: more });
        }
    }

    /// Asks for nothing any more.
    fn want_nothing(&mut self) {
        if let Some(shared) = &mut self.shared
            && std::mem::take(&mut shared.wanted) > 0
        {
            self.outputs.push_back(Output::WantNothing);
        }
    }

    /// Gives back what nobody here wants: at once if it came back from a consumer that is gone, or if there is none; else after a
    /// while, since consumers take breaks. What consumers have begun of a batch keeps the rest of it here.
    fn give_back(&mut self, now: Duration) {
        let is_wanted = self.serves() && self.consumers.hungry() > 0;
        let (serves, is_deserted) = (self.serves(), self.consumers.connected() == 0);
        let Some(shared) = &mut self.shared else { return };
        let came_back = std::mem::take(&mut shared.came_back);
        let is_empty = self.ready.items() == 0 && self.delayed_items == 0 && shared.wanted == 0;
        if is_wanted || is_empty {
            shared.idle_since = None;
            return;
        }
        let since = *shared.idle_since.get_or_insert(now);
        if !came_back && !is_deserted && serves && now < since.saturating_add(SHARED_IDLE) {
            return;
        }
        shared.idle_since = Some(now);
        self.want_nothing();
        let mut due: BTreeMap<u64, Duration> = BTreeMap::new();
        for ((at, _), run) in &self.delayed {
            let first = self.store.batch_of(run.first);
            due.entry(first).and_modify(|due| *due = (*due).min(*at)).or_insert(*at);
        }
        for (first, count) in self.store.idle_batches() {
            let delay = match due.get(&first) {
                // Its time is counted here, as long as somebody is here to take it then.
                Some(_) if !is_deserted && serves => continue,
                Some(due) => due.saturating_sub(now),
                None => Duration::ZERO,
            };
            self.release(first, count, delay);
        }
        if self.ready.items() == 0
            && self.delayed_items == 0
            && let Some(shared) = &mut self.shared
        {
            shared.idle_since = None;
        }
    }

    fn release(&mut self, first: u64, count: u64, delay: Duration) {
        let until = first + count;
        self.store.forget(first);
        self.ready.remove_all(first, until);
        self.delayed.retain(|_, run| !(first..until).contains(&run.first));
        self.delayed_items = self.delayed.values().map(|run| run.count).sum();
        self.outputs.push_back(Output::Release { first, delay });
    }

    /// Tells of this machine's producers, if there is news: those that are expected, or are here and have not finished, are waited for.
    fn announce(&mut self) {
        let finished = self.intake.finished();
        let known = finished + self.intake.unfinished() + self.pending.finishing() + self.arriving.len() as u64;
        let expected = self.rules.producers_expected.unwrap_or(0).max(known);
        let news = Some((expected, finished));
        if let Some(shared) = &mut self.shared
            && shared.announced != news
        {
            shared.announced = news;
            self.outputs.push_back(Output::Announce { expected, finished });
        }
    }
}
