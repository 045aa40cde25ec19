//! The queue: a state machine without I/O, clock or randomness. [`Queue::handle`] takes what happened and when, [`Queue::poll`]
//! gives what is to be done about it, [`Queue::next_timeout`] says when to come back. The same inputs give the same outputs.
//!
//! An item passes so, by number; its bytes rest in `store` until it is settled:
//!
//! ```text
//! put → [parked] → ready → held → [early] → writing → settled
//!                    ↑ delayed ↲      (a result or a dead letter on its way out)
//! ```
//!
//! With an order, a result that comes early waits for those before it. With a lease, what is held for too long is taken back.
//!
//! With a journal, a step that must survive the coordinator counts only once its [`Entry`] is in the journal: a put before its items are
//! ready and confirmed, a settlement before their place is free. A queue that is shared with other machines (`shared`) has their servers
//! in the journal's place.

mod consumers;
mod dead;
mod entry;
mod event;
mod intake;
mod joins;
mod leases;
mod order;
mod pending;
mod runs;
mod shared;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::batch::Batch;
use common::limits::{batch_cost_bytes, body_bytes_max, result_bytes_max};
use common::message::{CloseReason, ItemId, ItemRange, Message, Outcome, Position};
use common::status::{Phase, Status, Work};

use consumers::Consumers;
use dead::{Ask, Dead};
pub use entry::{DeadPage, DeadRange, Entry, Load, Loaded, Progress, Recovered};
pub use event::{ClientId, DeadLetter, Input, Lease, Origin, Output, Record, Rules, Ticket, Whole, Window};
use intake::{Admitted, Amount, Intake};
use joins::Joins;
use order::Order;
use pending::{Effect, Pending};
use runs::{Past, Run, Runs};
use shared::{Behind, Shared};
use store::Store;

#[derive(Debug)]
struct Writing {
    first: u64,
    count: u64,
    /// It is one.
    letter: Option<DeadLetter>,
}

/// When what has failed is tried again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    AtOnce,
    /// After the delay that the rules say.
    Later,
}

/// A protocol violation or another reason to close a client's connection.
type Refusal = (CloseReason, String);

/// The queue.
#[derive(Debug)]
pub struct Queue {
    rules: Rules,
    phase: Phase,
    /// It hands out nothing for now; only in a phase in which it else would.
    paused: bool,
    store: Store,
    next_id: u64,
    ready: Runs,
    delayed: BTreeMap<(Duration, u64), Run>,
    delayed_items: u64,
    /// Results that come too early, if they are written in order.
    order: Option<Order>,
    writing: BTreeMap<Ticket, Writing>,
    writing_items: u64,
    next_ticket: u64,
    intake: Intake,
    /// Producers whose name is not settled yet, in the order of coming.
    arriving: Vec<(ClientId, Arc<str>)>,
    consumers: Consumers,
    joins: Joins,
    /// What is known of the other machines, if there are some.
    shared: Option<Shared>,
    pending: Pending,
    /// What is being loaded from the journal.
    loading: Option<Load>,
    outputs: VecDeque<Output>,
    acknowledged: u64,
    /// By earlier coordinators.
    acknowledged_before: u64,
    dead: Dead,
    redelivered: u64,
}

impl Queue {
    /// An empty queue.
    ///
    /// # Panics
    /// When the bounds cannot hold one item of the largest size, or a shared queue is to have what it cannot.
    pub fn new(rules: Rules) -> Queue {
        assert!(rules.capacity_items > 0, "a queue without room for an item");
        assert!(rules.capacity_bytes >= batch_cost_bytes(rules.item_bytes_max + 4), "a queue without room for its largest item");
        assert!(
            !rules.shared || (rules.journaled.is_some() && rules.early_bytes_max.is_none()),
            "a shared queue with an order, or kept nowhere"
        );
        Queue {
            intake: Intake::new(&rules),
            phase: Phase::Running,
            paused: false,
            store: Store::new(rules.journaled.map_or(u64::MAX, |window| window.near_bytes)),
            pending: Pending::default(),
            loading: None,
            arriving: Vec::new(),
            next_id: 0,
            ready: Runs::default(),
            delayed: BTreeMap::new(),
            delayed_items: 0,
            writing: BTreeMap::new(),
            writing_items: 0,
            next_ticket: 0,
            consumers: Consumers::new(rules.lease),
            order: rules.early_bytes_max.map(Order::new),
            joins: Joins::default(),
            shared: rules.shared.then(Shared::new),
            outputs: VecDeque::new(),
            acknowledged: 0,
            acknowledged_before: 0,
            dead: Dead::new(&rules),
            redelivered: 0,
            rules,
        }
    }

    /// A queue that goes on where a journal says another has been.
    pub fn recover(rules: Rules, recovered: &Recovered) -> Queue {
        let mut queue = Queue::new(rules);
        queue.next_id = recovered.next_id;
        (queue.acknowledged, queue.acknowledged_before) = (recovered.acknowledged, recovered.acknowledged);
        queue.dead.recover(recovered);
        queue.store.recover(recovered);
        queue.intake.recover(recovered, queue.store.bytes());
        queue
    }

    /// Takes in what happened at `now`, counted from any fixed moment.
    pub fn handle(&mut self, input: Input, now: Duration) {
        // First of all: who asks now whether there is an item is to get one whose time has come now.
        self.wake_delayed(now);
        match input {
            Input::ProducerJoined { client, name } => self.producer_joined(client, name),
            Input::ConsumerJoined { client } => {
                self.consumers.join(client);
                if matches!(self.phase, Phase::Done | Phase::Stopping) {
                    self.send(client, Message::Stop);
                }
            }
            Input::Left { client, orderly } => self.left(client, orderly, now),
            Input::Said { client, message, batch } => {
                let said = self.said(client, message, batch, now);
                self.unless_refused(client, said, now);
            }
            Input::Steered { client, message } => {
                let said = self.steered(client, message);
                self.unless_refused(client, said, now);
            }
            Input::Written { ticket, output_bytes } => self.written(ticket, output_bytes),
            Input::Journaled { entries } => self.journaled(entries),
            Input::Loaded { batches } => self.loaded(&batches),
            Input::DeadLoaded(page) => self.dead_loaded(page),
            Input::Published { until } => self.published(until),
            Input::Arrived { batches } => self.arrived(&batches),
            Input::Claimed { by } => self.claimed(by),
            Input::Replaced { name } => self.replaced(&name),
            Input::Whole(whole) => self.whole(whole, now),
            Input::ProducerLost { name } => self.intake.finished_by(Some(name.into())),
            Input::Drain => self.end_intake(Phase::Draining),
            Input::Stop => self.stop(),
            Input::Unheard { client } => self.consumers.unheard(client, now),
            // Not before: what has come in time is heard first, however late the clock is looked at.
            Input::Tick => self.take_back(now),
        }
        // Ahead of the producers, who might take all the room again and again.
        self.work_on_dead();
        self.admit();
        self.write_in_order();
        self.dispatch(now);
        self.load_ahead();
        self.share(now);
        self.answer_joins();
        self.check_done();
        self.hurry();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.flush_confirmations();
        }
        self.outputs.pop_front()
    }

    /// When to call [`Queue::handle`] with [`Input::Tick`] at the latest.
    pub fn next_timeout(&self) -> Option<Duration> {
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let shared = self.shared.as_ref().and_then(Shared::next_due);
        delayed.into_iter().chain(self.consumers.next_due()).chain(shared).min()
    }

    /// From whom something would be taken back now.
    pub fn overdue(&self, now: Duration) -> Vec<ClientId> {
        self.consumers.overdue(now)
    }

    /// How many items were accepted so far under a producer's name.
    pub fn position(&self, name: &str) -> Position {
        Position(self.intake.progress(name).0)
    }

    /// True when nothing more comes under a producer's name.
    pub fn has_finished(&self, name: &str) -> bool {
        self.intake.has_finished(name)
    }

    /// What the batches cost whose bytes are in memory, counted one by one: for tests.
    pub fn bytes_in_memory(&self) -> u64 {
        self.store.bytes_in_memory()
    }

    /// From which attempt on consumers announce what they begin.
    pub fn announce_from(&self) -> u32 {
        if self.rules.attempts_max == 1 || self.rules.lease.is_some() { 1 } else { 2 }
    }

    /// How long an attempt may take, by its consumer's clock.
    pub fn item_timeout(&self) -> Option<Duration> {
        self.rules.lease.map(|lease| lease.item_timeout)
    }

    /// What the queue is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Items given up since this coordinator has begun, whatever has become of their dead letters.
    pub fn buried(&self) -> u64 {
        self.dead.buried()
    }

    /// Items acknowledged since this coordinator has begun.
    pub fn acknowledged_here(&self) -> u64 {
        self.acknowledged - self.acknowledged_before
    }

    /// The queue's figures; process id and uptime are the caller's to fill in.
    pub fn status(&self) -> Status {
        Status {
            pid: 0,
            uptime_ms: 0,
            phase: self.phase,
            ready: self.ready.items() + self.store.far_items() + self.pending.put_items() + self.elsewhere_items(),
            delayed: self.delayed_items,
            held: self.consumers.held_items() + self.early_items() + self.writing_items + self.pending.settled_items(),
            dead: self.dead.count(),
            acknowledged: self.acknowledged,
            accepted: self.shared.as_ref().map_or(self.next_id, Shared::accepted),
            redelivered: self.redelivered,
            // The bound of a shared queue is the servers' to keep, and they do; here it is counted rather too much than too little.
            bytes: if self.shared.is_some() { self.intake.stored_bytes().min(self.rules.capacity_bytes) } else { self.store.bytes() },
            capacity_items: self.rules.capacity_items,
            capacity_bytes: self.rules.capacity_bytes,
            producers: self.intake.connected(),
            producers_finished: self.intake.finished(),
            producers_waiting: self.intake.waiting(),
            consumers: self.consumers.connected(),
            consumers_waiting: self.consumers.hungry(),
            paused: self.paused,
            dead_removed: self.dead.removed(),
            shared: self.shared.as_ref().map(|shared| shared.status(self.next_id)),
        }
    }

    /// What a producer or consumer does; none for a client that is neither, or waits until it is known how far its name has come.
    pub fn work(&self, client: ClientId, now: Duration) -> Option<Work> {
        self.intake.work(client).or_else(|| self.consumers.work(client, now))
    }

    fn unless_refused(&mut self, client: ClientId, said: Result<(), Refusal>, now: Duration) {
        if let Err((reason, words)) = said {
            let is_closed = |output: &Output| matches!(output, Output::Close { client: closed, .. } if *closed == client);
            if self.outputs.iter().any(is_closed) {
                // It was on its way, and its owner has not come to the end yet that it has here.
                return;
            }
            self.left(client, false, now);
            self.outputs.push_back(Output::Close { client, reason, words });
        }
    }

    fn steered(&mut self, client: ClientId, message: Message) -> Result<(), Refusal> {
        match message {
            Message::SetPaused { paused } => {
                let paused = paused && self.hands_out();
                let changed = std::mem::replace(&mut self.paused, paused) != paused;
                self.send(client, Message::PausedSet { paused, changed });
                Ok(())
            }
            Message::DeadList { from, until } => self.ask_of_dead(Ask::new(client, from, until, None)),
            Message::DeadRemove { from, until, fate } => self.ask_of_dead(Ask::new(client, from, until, Some(fate))),
            other => Err((CloseReason::Protocol, format!("{} has no place here", other.name()))),
        }
    }

    /// True in a phase in which items are handed out.
    fn hands_out(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Draining)
    }

    fn said(&mut self, client: ClientId, message: Message, batch: Option<Batch>, now: Duration) -> Result<(), Refusal> {
        match (message, batch) {
            (Message::Put { position, checksum, .. }, Some(batch)) => {
                if self.phase != Phase::Running {
                    return Err((CloseReason::Ended, "the queue takes no more items".into()));
                }
                check_sizes(&batch, self.rules.item_bytes_max, self.rules.item_bytes_max, "item")?;
                self.intake.put(client, position.0, batch, checksum)
            }
            (Message::Want { bytes }, None) => self.intake.want(client, bytes),
            (Message::Recalled, None) => self.intake.recalled(client),
            (Message::Finish, None) => {
                let name = self.intake.finish(client)?;
                self.keep(Effect::Finished { client, name: name.clone() }, || Entry::Finished { name });
                Ok(())
            }
            (Message::Demand { items, bytes }, None) => {
                if self.comes_behind(client, Behind::Demand { items, bytes })? {
                    Ok(())
                } else {
                    self.consumers.demand(client, items, bytes)
                }
            }
            (Message::Withdraw, None) => {
                // Grant or deliver first what can be: the answer comes behind it.
                self.admit();
                self.dispatch(now);
                self.intake.withdraw(client);
                let asks = Behind::Withdraw { after: self.batches_put(), looks: false };
                if !self.comes_behind(client, asks)? && !self.has_to_look_for(client) {
                    self.withdraw(client);
                }
                Ok(())
            }
            (Message::Begin { id }, None) => self.consumers.begin(client, id.0, now),
            (Message::Extend { id, by_ms }, None) => {
                self.consumers.extend(client, id.0, Duration::from_millis(by_ms), now)?;
                self.send(client, Message::Extended);
                Ok(())
            }
            (Message::Revoked, None) => self.consumers.revoked(client),
            (Message::Ack { ranges }, None) => {
                let mut done = 0;
                for ItemRange { first, count } in ranges {
                    let runs = self.consumers.take(client, first.0, u64::from(count), "acknowledged", now)?;
                    for (first, count) in joined(&runs) {
                        self.settle(first, count, None);
                        self.pass(first, count);
                        done += count;
                    }
                }
                self.consumers.settled(client, done, 0, now);
                Ok(())
            }
            (Message::Result { first, .. }, Some(batch)) => {
                let count = u64::from(batch.count());
                check_sizes(&batch, result_bytes_max(self.rules.item_bytes_max), self.rules.item_bytes_max, "result")?;
                let runs = self.consumers.take(client, first.0, count, "sent results of", now)?;
                self.consumers.settled(client, items_in(&runs), 0, now);
                for (from, count) in joined(&runs) {
                    let results = batch.slice((from - first.0) as u32, count as u32);
                    let items = runs.iter().filter(|run| (from..from + count).contains(&run.first));
                    self.write_results(from, results, items.copied().collect());
                }
                Ok(())
            }
            (Message::Return { range, outcome }, None) => self.returned(client, range, outcome, now),
            (Message::Join, None) => self.join(client),
            (other, _) => Err((CloseReason::Protocol, format!("{} has no place here", other.name()))),
        }
    }

    /// A client has what there is for it now, and gets no more by what it has asked for so far.
    fn withdraw(&mut self, client: ClientId) {
        self.consumers.withdraw(client);
        self.flush_confirmations();
        self.send(client, Message::Withdrawn);
    }

    fn producer_joined(&mut self, client: ClientId, name: Option<String>) {
        let Some(name) = name.map(Arc::from) else { return self.welcome(client, None) };
        let arriving = self.arriving.iter().position(|(_, arriving)| *arriving == name);
        let replaced = self.intake.replace(&name).or_else(|| arriving.map(|index| self.arriving.remove(index).0));
        if let Some(replaced) = replaced {
            self.close_producer(replaced, CloseReason::Replaced, "another producer has connected under the same name".into());
        }
        self.arriving.push((client, name));
        self.welcome_arriving();
    }

    /// Lets producers in of whose names it is known how far they have come.
    fn welcome_arriving(&mut self) {
        for (client, name) in std::mem::take(&mut self.arriving) {
            let is_settled = self.intake.is_settled(&name);
            if is_settled && self.shared.as_ref().is_none_or(|shared| shared.is_ours(&name)) {
                self.welcome(client, Some(name));
                continue;
            }
            if is_settled && !self.claim(&name) {
                self.close_producer(client, CloseReason::Limit, intake::too_many_names());
                continue;
            }
            self.arriving.push((client, name));
        }
    }

    fn welcome(&mut self, client: ClientId, name: Option<Arc<str>>) {
        if self.phase != Phase::Running {
            return self.refuse_late(client, name.as_deref());
        }
        match self.intake.join(client, name) {
            Ok((position, checksum)) => self.greet(client, position, checksum),
            Err((reason, words)) => self.close_producer(client, reason, words),
        }
    }

    fn greet(&mut self, client: ClientId, position: u64, checksum: u64) {
        let checksum = self.rules.journaled.map(|_| checksum);
        self.outputs.push_back(Output::Welcome { client, position: Position(position), checksum });
    }

    fn left(&mut self, client: ClientId, orderly: bool, now: Duration) {
        self.intake.leave(client);
        self.arriving.retain(|(arriving, _)| *arriving != client);
        self.leave_joins(client);
        self.dead.leave(client);
        for (run, failed) in self.consumers.leave(client) {
            self.shared.as_mut().map(Shared::note_came_back);
            if orderly {
                self.requeue_unstarted(run, now);
                continue;
            }
            if failed {
                let cause = format!("its consumer's connection closed during attempt {}", run.past.attempts);
                self.fail(run, &cause, Retry::AtOnce, now);
            } else {
                self.keep_failures(run);
                self.requeue(run, Duration::ZERO, now);
            }
        }
    }

    fn returned(&mut self, client: ClientId, range: ItemRange, outcome: Outcome, now: Duration) -> Result<(), Refusal> {
        let runs = self.consumers.take(client, range.first.0, u64::from(range.count), "returned", now)?;
        let is_failure = matches!(outcome, Outcome::Released | Outcome::Failed { .. } | Outcome::Rejected { .. });
        self.consumers.settled(client, 0, if is_failure { items_in(&runs) } else { 0 }, now);
        for run in runs {
            match &outcome {
                Outcome::Unstarted => self.requeue_unstarted(run, now),
                Outcome::Released => self.fail(run, "its consumer let it go unsettled", Retry::AtOnce, now),
                Outcome::Failed { cause } => self.fail(run, cause, Retry::Later, now),
                Outcome::Rejected { cause } => self.bury(run, cause),
                Outcome::RetryAfter { delay_ms } => self.requeue(run, Duration::from_millis(*delay_ms), now),
            }
        }
        Ok(())
    }

    /// It was no delivery after all.
    fn requeue_unstarted(&mut self, run: Run, now: Duration) {
        let past = Past { attempts: run.past.attempts - 1, ..run.past };
        self.redelivered -= if run.past.attempts > 1 { run.count } else { 0 };
        self.requeue(Run { past, ..run }, Duration::ZERO, now);
    }

    /// An attempt at these has failed.
    fn fail(&mut self, run: Run, cause: &str, retry: Retry, now: Duration) {
        let failures = run.past.failures + 1;
        let run = Run { past: Past { failures, ..run.past }, ..run };
        if failures >= self.rules.attempts_max {
            return self.bury(run, cause);
        }
        self.keep_failures(run);
        if retry == Retry::AtOnce || self.rules.retry_delay.after(failures).is_zero() {
            return self.requeue(run, Duration::ZERO, now);
        }
        for id in run.first..run.end() {
            self.requeue(Run::one(id, run.past), self.rules.retry_delay.spread(failures, id), now);
        }
    }

    fn keep_failures(&mut self, Run { first, count, past: Past { failures, .. } }: Run) {
        if failures > 0 {
            self.keep(Effect::None, || Entry::Failed { first, count, failures });
        }
    }

    fn requeue(&mut self, run: Run, delay: Duration, now: Duration) {
        self.store.hand_back(run.first, run.count, !delay.is_zero());
        if delay.is_zero() {
            self.ready.insert(run);
        } else {
            self.delayed_items += run.count;
            self.delayed.insert((now.saturating_add(delay), run.first), run);
        }
    }

    fn wake_delayed(&mut self, now: Duration) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let run = entry.remove();
            self.delayed_items -= run.count;
            self.ready.insert(run);
        }
    }

    fn bury(&mut self, run: Run, cause: &str) {
        let cause: Arc<str> = cause.into();
        for id in run.first..run.end() {
            let Ok((batch, index)) = self.store.find(id) else { panic!("item {id} was in hand and is away") };
            // A copy, so that one dead item does not keep its whole batch in memory.
            let item = Bytes::copy_from_slice(batch.item(index));
            let letter = DeadLetter { id: ItemId(id), attempts: run.past.attempts, cause: Arc::clone(&cause), item };
            self.write(id, 1, Some(letter.clone()), Record::DeadLetter(letter));
            self.pass(id, 1);
        }
    }

    fn write(&mut self, first: u64, count: u64, letter: Option<DeadLetter>, record: Record) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.writing.insert(ticket, Writing { first, count, letter });
        self.writing_items += count;
        self.outputs.push_back(Output::Write { ticket, record });
    }

    fn written(&mut self, ticket: Ticket, output_bytes: Option<u64>) {
        let Some(writing) = self.writing.remove(&ticket) else { panic!("{ticket:?} is reported as written twice") };
        let Writing { first, count, letter } = writing;
        self.writing_items -= count;
        let Some(letter) = letter else { return self.settle(first, count, output_bytes) };
        if self.rules.journaled.is_none() {
            self.dead.keep(letter.clone());
        }
        self.keep(Effect::Settled { first, count, dead: true }, || Entry::Dead(letter));
    }

    fn settle(&mut self, first: u64, count: u64, output_bytes: Option<u64>) {
        self.keep(Effect::Settled { first, count, dead: false }, || Entry::Settled { first, count, output_bytes });
    }

    /// Lets in what waits for room, as far as there is any.
    fn admit(&mut self) {
        while let Some(Admitted { client, batch, by }) = self.intake.next_admitted() {
            if self.shared.is_some() {
                self.intake.stored(&batch);
                self.publish(client, batch, by.map_or(Origin::Nameless, Origin::Producer));
                continue;
            }
            let (first, count) = (self.next_id, u64::from(batch.count()));
            self.next_id += count;
            let bytes = batch_cost_bytes(batch.body_bytes());
            self.store.insert(first, batch.clone());
            self.intake.stored(&batch);
            self.keep(Effect::Put { client, first, count, bytes, by: by.clone() }, || Entry::Put { first, batch, by });
        }
    }

    /// Does what an entry stands for once it is in the journal; at once if there is none.
    fn keep(&mut self, effect: Effect, entry: impl FnOnce() -> Entry) {
        if self.rules.journaled.is_none() {
            return self.apply(effect);
        }
        self.pending.push(effect);
        self.outputs.push_back(Output::Journal(entry()));
    }

    fn journaled(&mut self, entries: usize) {
        for _ in 0..entries {
            let Some(effect) = self.pending.pop() else { panic!("more is in the journal than was given out") };
            self.apply(effect);
        }
        self.welcome_arriving();
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Put { client, first, count, bytes, by } => {
                if self.store.kept(first) {
                    self.arrive(first, count, &[]);
                    self.ready.insert(Run { first, count, past: Past::default() });
                }
                self.intake.kept(client, count, bytes, by);
            }
            Effect::Settled { first, count, dead } => {
                if dead {
                    self.shared.as_mut().map(Shared::note_dead);
                    self.dead.bury(count);
                } else {
                    self.acknowledged += count
                }
                let gone = self.store.settle(first, count);
                if self.shared.is_some() {
                    // What is settled of a batch stays at the servers until all of it is.
                    self.gone(gone);
                } else {
                    self.intake.settle(count, self.store.bytes());
                }
            }
            Effect::Requeued { id, first, bytes } => {
                self.dead.remove(id);
                if self.store.kept(first) {
                    self.arrive(first, 1, &[]);
                    self.ready.insert(Run::one(first, Past::default()));
                }
                self.intake.kept_again(bytes);
            }
            Effect::Dropped { id } => {
                self.shared.as_mut().map(Shared::note_dead);
                self.dead.remove(id);
            }
            Effect::Finished { client, name } => {
                self.intake.finished_by(name);
                self.flush_confirmations();
                if self.intake.is_connected(client) {
                    self.send(client, Message::Finished);
                }
            }
            Effect::None => {}
        }
    }

    /// Sees to it that what is far comes near before it is asked for.
    fn load_ahead(&mut self) {
        let wanted = self.ready.items() == 0 && self.consumers.hungry() > 0;
        if let Some(load) = self.store.load_ahead(wanted) {
            self.load(load);
        }
    }

    fn load(&mut self, load: Load) {
        if self.loading.is_none() {
            self.loading = Some(load);
            self.outputs.push_back(Output::Load(load));
        }
    }

    fn loaded(&mut self, batches: &[Loaded]) {
        let Some(load) = self.loading.take() else { panic!("what was loaded was not wanted") };
        assert!(!batches.is_empty(), "the journal has nothing of {load:?}");
        for loaded in batches {
            if self.store.loaded(loaded) {
                self.ready_again(loaded);
            }
        }
    }

    /// Makes a far batch's items ready, but for those that are settled.
    fn ready_again(&mut self, Loaded { first, batch, settled, failed, attempts }: &Loaded) {
        let fresh = Past { attempts: *attempts, failures: 0 };
        let end = first + u64::from(batch.count());
        self.arrive(*first, end - first, settled);
        let mut parts: Vec<Run> = failed
            .iter()
            .map(|&(first, count, failures)| Run { first, count, past: Past { attempts: failures.max(*attempts), failures } })
            .chain(settled.iter().map(|&(first, count)| Run { first, count, past: Past::default() }))
            .collect();
        parts.sort_unstable_by_key(|part| part.first);
        let mut at = *first;
        for part in parts {
            if at < part.first {
                self.ready.insert(Run { first: at, count: part.first - at, past: fresh });
            }
            at = part.end();
            if part.past.failures > 0 {
                self.ready.insert(part);
            }
        }
        if at < end {
            self.ready.insert(Run { first: at, count: end - at, past: fresh });
        }
    }

    /// Hands ready items to consumers that ask, first to first.
    fn dispatch(&mut self, now: Duration) {
        if !self.hands_out() || self.paused {
            return;
        }
        while let Some(run) = self.ready.first() {
            let most = self.order.as_ref().map_or(run.count, |order| order.most(run));
            if most == 0 {
                return;
            }
            let Some((client, items, bytes)) = self.consumers.next_hungry() else { return };
            let (batch, index) = match self.store.find(run.first) {
                Ok(found) => found,
                Err(load) => return self.load(load),
            };
            let count = batch.fit(index, most.min(u64::from(items)) as u32, bytes);
            let part = batch.slice(index, count);
            self.ready.remove_first(u64::from(count));
            self.store.hand_out(run.first, u64::from(count));
            let past = Past { attempts: run.past.attempts + 1, ..run.past };
            self.redelivered += if past.attempts > 1 { u64::from(count) } else { 0 };
            let delivered = Run { first: run.first, count: u64::from(count), past };
            self.consumers.deliver(client, delivered, part.body_bytes(), now);
            let message = Message::Deliver { first: ItemId(run.first), attempt: past.attempts, batch: part.header() };
            self.outputs.push_back(Output::Send { client, message, batch: Some(part) });
        }
    }

    fn answer_joins(&mut self) {
        let unsettled = match &self.shared {
            Some(shared) => shared.settled_until(),
            None => self.store.first_unsettled().unwrap_or(u64::MAX),
        };
        while let Some((client, times)) = self.joins.next_answer(unsettled) {
            (0..times).for_each(|_| self.send(client, Message::Joined));
        }
    }

    fn end_intake(&mut self, phase: Phase) {
        // Who wants it to end does not want it to wait.
        self.paused = false;
        if self.phase == Phase::Running || (self.phase == Phase::Draining && phase == Phase::Stopping) {
            self.phase = phase;
        }
        // What is confirmed must be said before the goodbye.
        self.flush_confirmations();
        for client in self.intake.close() {
            self.close_intake_of(client);
        }
    }

    /// Lets a producer know how far it has come, and that it can go no further.
    fn refuse_late(&mut self, client: ClientId, name: Option<&str>) {
        let (position, checksum) = name.map_or((0, 0), |name| self.intake.progress(name));
        self.greet(client, position, checksum);
        self.close_intake_of(client);
    }

    fn close_intake_of(&mut self, client: ClientId) {
        self.close_producer(client, CloseReason::Ended, "the queue takes no more items".into());
    }

    /// A producer that is not known any more, or not yet, is told why; of what it has asked it hears nothing behind that.
    fn close_producer(&mut self, client: ClientId, reason: CloseReason, words: String) {
        self.leave_joins(client);
        self.outputs.push_back(Output::Close { client, reason, words });
    }

    fn stop(&mut self) {
        self.end_intake(Phase::Stopping);
        self.send_stop();
    }

    fn check_done(&mut self) {
        let ending = match (&self.shared, self.phase) {
            (Some(shared), Phase::Running) => shared.is_done() && self.rules.producers_expected.is_some(),
            (_, Phase::Running) => self.rules.producers_expected.is_some_and(|expected| self.intake.finished() >= expected),
            (_, Phase::Draining) => self.is_drained(),
            (_, Phase::Stopping | Phase::Done) => false,
        };
        // Nor does anything wait to be let in: an empty queue has room for whatever may be put.
        if ending && self.store.is_empty() {
            self.end_intake(Phase::Draining);
            self.phase = Phase::Done;
            self.send_stop();
        }
    }

    /// Lets consumers know that somebody waits for what they hold to be settled: they would gather what is, while they wait for more.
    fn hurry(&mut self) {
        let ends =
            self.phase == Phase::Draining || self.rules.producers_expected.is_some_and(|expected| self.intake.finished() >= expected);
        let waited_for = ends || self.joins.is_waiting() || self.intake.waiting() > 0;
        if !waited_for || self.consumers.hungry() == 0 {
            return;
        }
        for client in self.consumers.take_unhurried() {
            self.send(client, Message::Hurry);
        }
    }

    fn send_stop(&mut self) {
        for client in self.consumers.all() {
            self.send(client, Message::Stop);
        }
    }

    /// What producers are to be told, gathered so that one message answers many.
    fn flush_confirmations(&mut self) {
        while let Some((client, position)) = self.intake.next_recall() {
            if let Some((confirmed, credit)) = self.intake.confirmation(client) {
                self.confirm(client, confirmed, credit);
            }
            self.send(client, Message::Recall { position: Position(position) });
        }
        while let Some((client, position, credit)) = self.intake.next_confirmation() {
            self.confirm(client, position, credit);
        }
    }

    fn confirm(&mut self, client: ClientId, position: u64, credit: Amount) {
        let (credit_items, credit_bytes) = (credit.items, credit.bytes);
        self.send(client, Message::Confirm { position: Position(position), credit_items, credit_bytes });
    }

    fn send(&mut self, client: ClientId, message: Message) {
        self.outputs.push_back(Output::Send { client, message, batch: None });
    }
}

fn items_in(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.count).sum()
}

/// Runs that follow each other count as one: first and count of each.
fn joined(runs: &[Run]) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some((first, count)) if *first + *count == run.first => *count += run.count,
            _ => joined.push((run.first, run.count)),
        }
    }
    joined
}

/// A batch's items are looked at one by one only if it is so large that one of them might be too large.
fn check_sizes(batch: &Batch, bytes_max: u64, item_bytes_max: u64, what: &str) -> Result<(), Refusal> {
    let body_bytes = batch.body_bytes();
    let body_bytes_max = body_bytes_max(item_bytes_max);
    if body_bytes > body_bytes_max {
        return Err((CloseReason::Protocol, format!("a batch of {body_bytes} bytes; at most {body_bytes_max} are accepted")));
    }
    if body_bytes <= bytes_max {
        return Ok(());
    }
    match batch.iter().map(|item| item.len() as u64).find(|bytes| *bytes > bytes_max) {
        Some(bytes) => Err((CloseReason::Protocol, format!("one {what} has {bytes} bytes; at most {bytes_max} are accepted"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
