//! Between the queue and the servers at which it is shared: which messages are here, what became of their items, and from when on that counts.
//!
//! A batch is a message there. The queue's entries are told in order, as by a journal: an item's end counts at once if its message has others
//! that are open, since nothing is done at the servers; the last one's counts when they know that the message is done, a dead letter's when
//! they have it. What became of a message's items so far is noted beside it now and then ([`SHARED_MARK`]), for whoever gets it if this
//! machine dies.

pub mod model;
mod parts;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::ItemId;
use common::batch::Batch;
use common::limits::batch_cost_bytes;

use self::parts::Parts;
use crate::jetstream::{Answer, Cluster, ClusterError, Fetched, Marks as Told, item_id};
use crate::limits::SHARED_MARK;
use crate::marks::{Fate, Marks};
use crate::queue::{DeadLetter, DeadRange, Entry, Input, Loaded, Origin, Output, Progress, Whole};

/// What servers are asked; each call returns at once. [`Cluster`] has it from NATS, tests from memory.
pub trait Servers {
    /// Stores a batch: `Kept`, in order.
    fn put(&mut self, ticket: u64, batch: Batch, origin: Origin);
    /// So many more messages are wanted: `Fetched`.
    fn want_more(&mut self, messages: u32);
    /// None is wanted any more.
    fn want_nothing(&mut self);
    /// A message is done: `Settled`.
    fn settle(&mut self, sequence: u64);
    /// A message is another's, after a while; what was marked before holds.
    fn release(&mut self, sequence: u64, delay: Duration);
    /// What has become of a message's items, in all.
    fn mark(&mut self, sequence: u64, marks: Told);
    /// Keeps a dead letter: `Buried`.
    fn bury(&mut self, letter: DeadLetter);
    /// Finds dead letters: `DeadLoaded`.
    fn load_dead(&mut self, range: DeadRange);
    /// Forgets one: `DeadForgotten`.
    fn forget_dead(&mut self, id: ItemId);
    /// Takes a name: `Claimed`.
    fn claim(&mut self, name: Arc<str>);
    /// A name's end: `Finished`.
    fn finish(&mut self, name: Arc<str>);
    /// Tells all machines of this one's producers.
    fn announce(&mut self, expected: u64, finished: u64);
    /// Looks at the whole queue: `Cluster`.
    fn look(&mut self);
    /// What has come.
    fn collect(&mut self) -> Result<Vec<Answer>, ClusterError>;
}

impl Servers for Cluster {
    fn put(&mut self, ticket: u64, batch: Batch, origin: Origin) {
        Cluster::put(self, ticket, batch, origin);
    }

    fn want_more(&mut self, messages: u32) {
        Cluster::want_more(self, messages);
    }

    fn want_nothing(&mut self) {
        self.want(0);
    }

    fn settle(&mut self, sequence: u64) {
        Cluster::settle(self, sequence);
    }

    fn release(&mut self, sequence: u64, delay: Duration) {
        Cluster::release(self, sequence, delay);
    }

    fn mark(&mut self, sequence: u64, marks: Told) {
        Cluster::mark(self, sequence, marks);
    }

    fn bury(&mut self, letter: DeadLetter) {
        Cluster::bury(self, letter);
    }

    fn load_dead(&mut self, range: DeadRange) {
        Cluster::load_dead(self, range);
    }

    fn forget_dead(&mut self, id: ItemId) {
        Cluster::forget_dead(self, id);
    }

    fn claim(&mut self, name: Arc<str>) {
        Cluster::claim(self, name);
    }

    fn finish(&mut self, name: Arc<str>) {
        Cluster::finish(self, name);
    }

    fn announce(&mut self, expected: u64, finished: u64) {
        Cluster::announce(self, expected, finished);
    }

    fn look(&mut self) {
        Cluster::look(self);
    }

    fn collect(&mut self) -> Result<Vec<Answer>, ClusterError> {
        Cluster::collect(self)
    }
}

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The servers cannot be reached, and why.
    Outage(String),
    /// They can again.
    Restored {
        /// After this long.
        after: Duration,
    },
    /// They have no room, though the queue's bounds are not met.
    NoSpace(String),
    /// One of them has this version, which is too old to be relied upon.
    OldServer(String),
    /// A machine is gone.
    Lost {
        /// What it is called.
        machine: String,
        /// Producers of it that had not finished.
        producers_unfinished: u64,
    },
}

/// What has come back.
#[derive(Debug)]
pub enum Said {
    /// For the queue.
    Input(Input),
    /// For people.
    Notice(Notice),
}

/// A message that is here.
#[derive(Debug)]
struct Message {
    sequence: u64,
    count: u32,
    bytes: u64,
    marks: Marks,
    /// Something has become of its items that is not noted at the servers.
    is_unmarked: bool,
}

impl Message {
    fn is_done(&self) -> bool {
        self.marks.settled() == self.count
    }

    fn told(&self) -> Told {
        let mut told = Told::default();
        for (from, until, fate) in self.marks.iter() {
            match fate {
                Fate::Settled => told.settled.push((from, until - from)),
                Fate::Failed(failures) => told.failed.push((from, until - from, failures)),
            }
        }
        told
    }
}

/// What an entry waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Awaited {
    Settled(u64),
    Buried(ItemId),
    Forgotten(ItemId),
    Finished(Arc<str>),
}

/// An entry that was given out, and is not reported as kept.
#[derive(Debug, Default)]
struct Given {
    /// Answers that it waits for.
    left: u32,
    /// Items and bytes of messages that it has ended: the servers have said so.
    items: u64,
    bytes: u64,
}

/// What this machine has of a shared queue.
#[derive(Debug)]
pub struct Sharing<S> {
    servers: S,
    /// By their first item's number.
    messages: BTreeMap<u64, Message>,
    given: VecDeque<Given>,
    /// How many entries were reported so far: the number of the first that was not.
    reported: u64,
    awaited: BTreeMap<Awaited, Vec<u64>>,
    /// Items and bytes of messages that are about to end.
    ending: BTreeMap<u64, (u64, u64)>,
    put: u64,
    /// Batches that no look has counted: sequence, items and bytes.
    uncounted: VecDeque<(u64, u64, u64)>,
    /// Those that are on their way: how many messages of each are, items and bytes.
    on_the_way: VecDeque<(usize, u64, u64)>,
    parts: Parts,
    mark_at: Option<Duration>,
    now: Duration,
}

impl<S: Servers> Sharing<S> {
    /// Nothing is here yet.
    pub fn new(servers: S) -> Sharing<S> {
        Sharing {
            servers,
            messages: BTreeMap::new(),
            given: VecDeque::new(),
            reported: 0,
            awaited: BTreeMap::new(),
            ending: BTreeMap::new(),
            put: 0,
            uncounted: VecDeque::new(),
            on_the_way: VecDeque::new(),
            parts: Parts::default(),
            mark_at: None,
            now: Duration::ZERO,
        }
    }

    /// The servers.
    pub fn servers(&self) -> &S {
        &self.servers
    }

    /// True when all entries are reported as kept.
    pub fn is_idle(&self) -> bool {
        self.given.is_empty()
    }

    /// Does what the queue says; gives back what is for others to do.
    pub fn serve(&mut self, output: Output, now: Duration) -> Option<Output> {
        self.now = now;
        match output {
            Output::Journal(entry) => self.keep(entry),
            Output::Publish { batch, origin } => {
                let (items, bytes) = (u64::from(batch.count()), batch_cost_bytes(batch.body_bytes()));
                let parts = self.parts.cut(batch, origin);
                self.on_the_way.push_back((parts.len(), items, bytes));
                for (part, origin) in parts {
                    self.servers.put(self.put, part, origin);
                    self.put += 1;
                }
            }
            Output::Want { batches } => self.servers.want_more(batches),
            Output::WantNothing => self.servers.want_nothing(),
            Output::Release { first, delay } => self.release(first, delay),
            Output::Claim { name } => self.servers.claim(name),
            Output::Announce { expected, finished } => self.servers.announce(expected, finished),
            Output::LoadDead(range) => self.servers.load_dead(range),
            Output::Look => self.servers.look(),
            other => return Some(other),
        }
        None
    }

    /// How many more entries count from now on: to be reported as [`Input::Journaled`].
    pub fn take_kept(&mut self) -> usize {
        let mut entries = 0;
        while self.given.pop_front_if(|given| given.left == 0).is_some() {
            entries += 1;
        }
        self.reported += entries as u64;
        entries
    }

    /// When [`Sharing::note_marks`] has something to do.
    pub fn next_due(&self) -> Option<Duration> {
        self.mark_at
    }

    /// Notes at the servers what has become of items, if it is time.
    pub fn note_marks(&mut self, now: Duration) {
        if self.mark_at.is_none_or(|at| now < at) {
            return;
        }
        self.mark_at = None;
        for message in self.messages.values_mut().filter(|message| message.is_unmarked && !message.is_done()) {
            message.is_unmarked = false;
            self.servers.mark(message.sequence, message.told());
        }
    }

    /// What has come since the last call.
    pub fn collect(&mut self) -> Result<Vec<Said>, ClusterError> {
        let answers = self.servers.collect()?;
        Ok(answers.into_iter().flat_map(|answer| self.answered(answer)).collect())
    }

    /// The servers, for their end: what is here goes back.
    pub fn into_servers(mut self) -> S {
        for message in self.messages.values().filter(|message| message.is_unmarked && !message.is_done()) {
            self.servers.mark(message.sequence, message.told());
        }
        self.servers
    }

    fn keep(&mut self, entry: Entry) {
        let number = self.reported + self.given.len() as u64;
        self.given.push_back(Given::default());
        match entry {
            Entry::Settled { first, count, .. } => {
                self.parts.settled(count);
                self.settle(number, first, count);
            }
            Entry::Failed { first, count, failures } => _ = self.note(first, count, Fate::Failed(failures)),
            Entry::Dead(letter) => {
                self.wait_for(Awaited::Buried(letter.id), number);
                self.servers.bury(letter);
            }
            Entry::Dropped { id, .. } => {
                self.wait_for(Awaited::Forgotten(ItemId(id)), number);
                self.servers.forget_dead(ItemId(id));
            }
            Entry::Finished { name: Some(name) } => {
                self.wait_for(Awaited::Finished(Arc::clone(&name)), number);
                self.servers.finish(name);
            }
            // The announcement says so.
            Entry::Finished { name: None } => {}
            // A shared queue publishes, and has no file that servers know of.
            Entry::Put { .. } | Entry::Requeued { .. } | Entry::Output { .. } => {}
        }
    }

    fn wait_for(&mut self, awaited: Awaited, number: u64) {
        // Of a name's end there may be two, and one answer is for both.
        self.awaited.entry(awaited).or_default().push(number);
        if let Some(given) = self.given.get_mut((number - self.reported) as usize) {
            given.left += 1;
        }
    }

    /// One of the answers has come that an entry waits for.
    fn arrived(&mut self, number: u64) {
        if let Some(given) = self.given.get_mut((number - self.reported) as usize) {
            given.left -= 1;
        }
    }

    /// Items are settled by an entry, which then waits for what that ends.
    fn settle(&mut self, number: u64, first: u64, count: u64) {
        for at in self.note(first, count, Fate::Settled) {
            let Some(message) = self.messages.remove(&at) else { continue };
            self.ending.insert(message.sequence, (u64::from(message.count), message.bytes));
            self.wait_for(Awaited::Settled(message.sequence), number);
            self.servers.settle(message.sequence);
        }
    }

    /// Returns the messages of which nothing is open any more, by their first items.
    fn note(&mut self, first: u64, count: u64, fate: Fate) -> Vec<u64> {
        let mut done = Vec::new();
        let until = first + count;
        let touched = self.messages.range_mut(..until).rev().take_while(|(at, message)| **at + u64::from(message.count) > first);
        for (at, message) in touched {
            let (from, until) = (first.max(*at) - at, until.min(at + u64::from(message.count)) - at);
            // The queue settles each once; what it says of one that is settled would be its own error.
            let is_new = message.marks.set(from as u32, until as u32, fate);
            assert!(is_new, "of items {first} and {count} more some are settled already");
            message.is_unmarked = true;
            self.mark_at.get_or_insert(self.now + SHARED_MARK);
            if message.is_done() {
                done.push(*at);
            }
        }
        done
    }

    fn release(&mut self, first: u64, delay: Duration) {
        let Some(message) = self.messages.remove(&first) else { panic!("item {first} is given back and is not here") };
        if message.is_unmarked {
            self.servers.mark(message.sequence, message.told());
        }
        self.servers.release(message.sequence, delay);
    }

    fn answered(&mut self, answer: Answer) -> Vec<Said> {
        let said = match answer {
            Answer::Kept { ticket: _, sequence } => {
                let Some((left, ..)) = self.on_the_way.front_mut() else { panic!("more is kept than was put") };
                *left -= 1;
                let Some((_, items, bytes)) = self.on_the_way.pop_front_if(|(left, ..)| *left == 0) else { return Vec::new() };
                self.uncounted.push_back((sequence, items, bytes));
                Said::Input(Input::Published { until: item_id(sequence + 1, 0).0 })
            }
            Answer::Fetched(fetched) => return self.fetched(fetched).map(Said::Input).into_iter().collect(),
            Answer::Settled(sequence) => return self.settled(sequence),
            Answer::Buried(id) => return self.buried(id),
            Answer::DeadForgotten(id) => return self.answer_to(&Awaited::Forgotten(id)),
            Answer::DeadLoaded(page) => Said::Input(Input::DeadLoaded(page)),
            // Whether it has finished shows when its producer says so again.
            Answer::Claimed { name, position, checksum, finished: _ } => {
                let by = Progress { name, position, checksum };
                self.parts.goes_on(&by);
                Said::Input(Input::Claimed { by })
            }
            Answer::Replaced(name) => Said::Input(Input::Replaced { name }),
            Answer::Finished(name) => return self.answer_to(&Awaited::Finished(name)),
            Answer::Cluster(view) => {
                while self.uncounted.pop_front_if(|(sequence, ..)| *sequence <= view.last_sequence).is_some() {}
                let beyond = self.uncounted.iter().map(|(_, items, bytes)| (*items, *bytes));
                // An end that they have told and that does not count yet, the look has seen; one that they have not told it has seen if the
                // message lies before all that it found. Between those it may have seen some: then too few count until the next look.
                let told = self.given.iter().map(|given| (given.items, given.bytes));
                let unreported = told.chain(self.ending.range(..view.first_sequence).map(|(_, amount)| *amount));
                let (items, bytes) = beyond.chain(unreported).fold((view.items, view.bytes), |sum, more| (sum.0 + more.0, sum.1 + more.1));
                // What they have not told yet does not count as settled here, though the look has seen it.
                let first_open = self.ending.keys().next().map_or(view.first_sequence, |first| view.first_sequence.min(*first));
                Said::Input(Input::Whole(Whole {
                    items,
                    bytes,
                    settled_until: item_id(first_open, 0).0,
                    next_id: item_id(view.last_sequence + 1, 0).0,
                    dead: view.dead,
                    machines: view.machines,
                    producers_expected: view.producers_expected,
                    producers_finished: view.producers_finished,
                    is_done: view.is_done,
                }))
            }
            Answer::Lost(lost) => Said::Notice(Notice::Lost { machine: lost.machine, producers_unfinished: lost.producers_unfinished }),
            Answer::Outage(said) => Said::Notice(Notice::Outage(said)),
            Answer::Restored { after } => Said::Notice(Notice::Restored { after }),
            Answer::NoSpace(said) => Said::Notice(Notice::NoSpace(said)),
            Answer::OldServer(version) => Said::Notice(Notice::OldServer(version)),
        };
        vec![said]
    }

    /// A message has come. None if all of it was settled by a machine that could not say so any more.
    fn fetched(&mut self, Fetched { sequence, deliveries, batch, marks: told }: Fetched) -> Option<Input> {
        let first = item_id(sequence, 0).0;
        let mut marks = Marks::default();
        let count = batch.count();
        let fits = |from: u32, len: u32| from.checked_add(len).is_some_and(|end| end <= count);
        for &(from, len) in told.settled.iter().filter(|(from, len)| fits(*from, *len)) {
            // Of what is said twice, once is enough.
            let _ = marks.set(from, from + len, Fate::Settled);
        }
        for &(from, len, failures) in told.failed.iter().filter(|(from, len, _)| fits(*from, *len)) {
            let _ = marks.set(from, from + len, Fate::Failed(failures));
        }
        let bytes = batch_cost_bytes(batch.body_bytes());
        let message = Message { sequence, count, bytes, marks, is_unmarked: false };
        if message.is_done() {
            self.servers.settle(sequence);
            self.servers.want_more(1);
            return None;
        }
        let at = |index: u32| first + u64::from(index);
        let (mut settled, mut failed) = (Vec::new(), Vec::new());
        for (from, until, fate) in message.marks.iter() {
            match fate {
                Fate::Settled => settled.push((at(from), u64::from(until - from))),
                Fate::Failed(failures) => failed.push((at(from), u64::from(until - from), failures)),
            }
        }
        let attempts = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX);
        self.messages.insert(first, message);
        Some(Input::Arrived { batches: vec![Loaded { first, batch, settled, failed, attempts }] })
    }

    /// A dead letter is kept: now its item may end.
    fn buried(&mut self, id: ItemId) -> Vec<Said> {
        let Some(number) = self.awaited.remove(&Awaited::Buried(id)).and_then(|numbers| numbers.first().copied()) else {
            return Vec::new();
        };
        self.settle(number, id.0, 1);
        // Not later: else it would be tried again, and buried twice, if this machine dies.
        if let Some((_, message)) = self.messages.range_mut(..=id.0).next_back().filter(|(_, message)| message.is_unmarked) {
            message.is_unmarked = false;
            self.servers.mark(message.sequence, message.told());
        }
        self.arrived(number);
        self.report()
    }

    /// A message is done.
    fn settled(&mut self, sequence: u64) -> Vec<Said> {
        let (items, bytes) = self.ending.remove(&sequence).unwrap_or_default();
        let awaited = Awaited::Settled(sequence);
        let number = self.awaited.get(&awaited).and_then(|numbers| numbers.first()).copied();
        if let Some(given) = number.and_then(|number| self.given.get_mut((number - self.reported) as usize)) {
            given.items += items;
            given.bytes += bytes;
        }
        self.answer_to(&awaited)
    }

    fn answer_to(&mut self, awaited: &Awaited) -> Vec<Said> {
        for number in self.awaited.remove(awaited).unwrap_or_default() {
            self.arrived(number);
        }
        self.report()
    }

    /// Entries count in order: those that wait for nothing any more, up to the first that does.
    fn report(&mut self) -> Vec<Said> {
        let entries = self.take_kept();
        if entries > 0 { vec![Said::Input(Input::Journaled { entries })] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests;
