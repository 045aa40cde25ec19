//! What must be true, whatever happens: a second queue, written as plainly as possible, one entry an item. It sees what the real one is
//! told and what the real one says, knows what that should have been, and panics where they differ.

mod applications;
mod consumers;
mod items;
mod journal;
mod producers;
mod steering;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use common::batch::Batch;
use common::message::{CloseReason, Message, Outcome};
use common::status::{ClientStatus, Phase, Work};
use coordinator::queue::{ClientId, Input, Output, Queue, Record, Rules, Ticket};

use super::item::{Lengths, Tag};
use applications::Applications;
use consumers::Consumers;
use items::Items;
use journal::Journal;
use producers::Producers;
use steering::Dead;

/// The client may not say this: its connection must be closed.
struct Refused;

/// The second queue.
#[derive(Debug)]
pub struct Oracle {
    rules: Rules,
    /// When the queue was told something last.
    now: Duration,
    lengths: Lengths,
    faultless: bool,
    items: Items,
    producers: Producers,
    consumers: Consumers,
    /// Questions for the end of everything accepted up to a number, in the order of asking.
    joins: BTreeMap<ClientId, Vec<u64>>,
    /// Questions for more time that have no answer.
    extensions: BTreeMap<ClientId, u32>,
    writing: BTreeMap<Ticket, Vec<u64>>,
    journal: Journal,
    /// Results go where nobody can take them back.
    writes_to_no_file: bool,
    to_be_closed: Option<ClientId>,
    /// It was told to take no more.
    drains: bool,
    hands_out: bool,
    paused: bool,
    pause_answers: VecDeque<(bool, bool)>,
    dead: Dead,
    applications: Applications,
}

impl Oracle {
    /// An empty queue's oracle. Without faults more is to be expected.
    pub fn new(rules: Rules, lengths: Lengths, faultless: bool, has_output: bool) -> Oracle {
        Oracle {
            producers: Producers::new(&rules),
            items: Items::new(&rules),
            rules,
            now: Duration::ZERO,
            lengths,
            faultless,
            journal: Journal::default(),
            writes_to_no_file: !has_output,
            consumers: Consumers::default(),
            joins: BTreeMap::new(),
            extensions: BTreeMap::new(),
            writing: BTreeMap::new(),
            to_be_closed: None,
            drains: false,
            hands_out: true,
            paused: false,
            pause_answers: VecDeque::new(),
            dead: Dead::default(),
            applications: Applications::default(),
        }
    }

    /// The applications' words: whose connection this is.
    pub fn connects(&mut self, client: ClientId, tag: Tag) {
        self.producers.owns(client, tag);
    }

    /// Item `n` of `tag` was taken in by its client.
    pub fn puts(&mut self, tag: Tag, n: u64) {
        self.producers.puts(tag, n);
    }

    /// A producer was told by its client that so many are confirmed.
    pub fn hears_confirmed(&mut self, tag: Tag, position: u64) {
        let accepted = self.producers.accepted_of(tag);
        assert!(position <= accepted, "producer {tag} believes that {position} of its items are accepted; only {accepted} are");
    }

    /// A producer was told by its client that the queue takes no more, and believes that so many are confirmed: all that are.
    pub fn hears_the_end(&self, tag: Tag, position: u64) {
        let confirmed = self.producers.confirmed_of(tag);
        assert!(
            position >= confirmed,
            "producer {tag} believes at the end that {position} of its items are accepted; {confirmed} were confirmed"
        );
    }

    /// A consumer's application gets an item.
    pub fn takes(&mut self, bytes: &[u8]) -> (Tag, u64) {
        let Some((tag, n)) = self.lengths.read(bytes) else { panic!("an application gets {} bytes that are no item", bytes.len()) };
        let times = self.applications.takes(tag, n);
        assert!(!self.faultless || times == 1, "an application gets item {n} of producer {tag} again, without any fault");
        (tag, n)
    }

    /// A producer is told by its client that all is settled; so much of its own was confirmed when it asked.
    pub fn hears_joined(&mut self, tag: Tag, position: u64) {
        self.producers.check_settled(tag, position);
    }

    /// An honest consumer has connected, which never has more items open than this, asked for and not got.
    pub fn serves(&mut self, client: ClientId, demand_max: Option<u32>) {
        self.applications.serves(client, demand_max);
    }

    /// A consumer's application is done with an item, with a result of so many bytes if it has one.
    pub fn settles(&mut self, client: ClientId, id: u64, result_bytes: Option<usize>) {
        self.applications.settles(client, id, result_bytes);
    }

    /// A consumer has written all that it had to say, its goodbye at the end, on a link that is whole.
    pub fn leaves(&mut self, client: ClientId) {
        self.applications.leaves(client);
    }

    /// The queue is about to be told this.
    pub fn before(&mut self, input: &Input, phase: Phase, now: Duration) {
        self.now = now;
        self.items.wake(now);
        if matches!(input, Input::Drain | Input::Stop) {
            self.paused = false;
        }
        let stops = matches!(input, Input::Stop);
        self.hands_out = matches!(phase, Phase::Running | Phase::Draining) && !self.paused && !stops;
        match input {
            Input::ProducerJoined { client, name } => {
                self.producers.joined(*client, name.clone());
            }
            Input::ConsumerJoined { client } => self.consumers.joined(*client),
            Input::Left { client, orderly } => {
                self.applications.left(*client, *orderly);
                if *orderly {
                    self.producers.check_all_heard(*client);
                }
                self.left(*client, *orderly);
            }
            Input::Said { client, message, batch } => {
                if let Err(Refused) = self.said(*client, message, batch.as_ref(), phase, now) {
                    self.left(*client, false);
                    self.to_be_closed = Some(*client);
                }
            }
            Input::Written { ticket, output_bytes } => {
                let ids = self.writing.remove(ticket).expect("only what is being written is reported as written");
                for id in ids {
                    if let Some(whose) = self.items.written(id, *output_bytes) {
                        self.is_settled(id, whose);
                        if self.items.is_dead(id) {
                            self.dead.keep(id, Some((self.rules.dead_letters_max, self.rules.dead_bytes_max)));
                        }
                    }
                }
            }
            Input::ProducerLost { name } => self.producers.finish_name(name),
            Input::Drain => self.drains = true,
            Input::Stop => self.consumers.are_told_again(),
            Input::Unheard { client } => self.items.unheard(*client, now),
            Input::Tick => {
                for client in self.items.expire(now, &self.rules) {
                    self.consumers.revoke(client);
                }
            }
            Input::Journaled { entries } => self.journaled(*entries),
            Input::Loaded { .. } => self.loaded(),
            Input::Steered { client, message } => self.steered(*client, message, phase),
            Input::DeadLoaded(page) => self.dead_loaded(page),
            other => panic!("only a shared queue hears {other:?}"),
        }
        self.items.watch(now);
        if phase == Phase::Stopping || (phase != Phase::Done && matches!(input, Input::Stop)) {
            self.items.give_up_waiting();
        }
    }

    fn said(&mut self, client: ClientId, message: &Message, batch: Option<&Batch>, phase: Phase, now: Duration) -> Result<(), Refused> {
        match (message, batch) {
            (Message::Put { position, checksum, .. }, Some(batch)) => {
                let too_long = batch.iter().any(|item| item.len() as u64 > self.rules.item_bytes_max);
                if phase != Phase::Running || too_long { Err(Refused) } else { self.producers.put(client, position.0, *checksum, batch) }
            }
            (Message::Want { bytes }, None) => self.producers.want(client, *bytes),
            (Message::Recalled, None) => self.producers.gives_credit_back(client),
            (Message::Finish, None) => {
                let name = self.producers.finish(client)?;
                if self.rules.journaled.is_some() {
                    self.journal.finishing.push_back(name);
                } else {
                    self.producers.finish_for_good(name);
                }
                Ok(())
            }
            (Message::Demand { items, bytes }, None) => {
                self.consumers.demand(client, *items, *bytes)?;
                self.applications.check_demand(client, self.consumers.items(client));
                Ok(())
            }
            (Message::Withdraw, None) => Ok(()),
            (Message::Join, None) => {
                self.joins.entry(client).or_default().push(self.items.accepted());
                Ok(())
            }
            (Message::Begin { id }, None) => {
                self.consumers.check(client)?;
                self.items.begin(client, id.0, now);
                Ok(())
            }
            (Message::Extend { id, by_ms }, None) => {
                self.consumers.check(client)?;
                self.items.extend(client, id.0, Duration::from_millis(*by_ms), now)?;
                *self.extensions.entry(client).or_default() += 1;
                Ok(())
            }
            (Message::Revoked, None) => {
                if self.consumers.revoked(client)? {
                    self.items.revoked(client);
                }
                Ok(())
            }
            (Message::Ack { ranges }, None) => {
                self.consumers.check(client)?;
                for range in ranges {
                    let (held, late) = self.items.held_range(client, range.first.0, u64::from(range.count))?;
                    late.into_iter().for_each(|id| self.applications.settled(client, id, None));
                    self.consumers.settled(client, held.len(), true);
                    for id in held {
                        self.check_announced(client, id);
                        self.applications.settled(client, id, None);
                        if let Some(whose) = self.items.acknowledged(id) {
                            self.is_settled(id, whose);
                        }
                    }
                }
                Ok(())
            }
            (Message::Result { first, .. }, Some(batch)) => {
                self.consumers.check(client)?;
                if batch.iter().any(|result| result.len() as u64 > self.rules.item_bytes_max + 1) {
                    return Err(Refused);
                }
                let (held, _) = self.items.held_range(client, first.0, u64::from(batch.count()))?;
                self.applications.have_results(client, first.0..first.0 + u64::from(batch.count()), batch);
                self.consumers.settled(client, held.len(), true);
                for id in held {
                    self.check_announced(client, id);
                    self.items.has_result(id, batch.item((id - first.0) as u32).len());
                }
                Ok(())
            }
            (Message::Return { range, outcome }, None) => {
                self.consumers.check(client)?;
                let (held, _) = self.items.held_range(client, range.first.0, u64::from(range.count))?;
                if matches!(outcome, Outcome::Released | Outcome::Failed { .. } | Outcome::Rejected { .. }) {
                    self.consumers.settled(client, held.len(), false);
                }
                for id in held {
                    if *outcome != Outcome::Unstarted {
                        self.check_announced(client, id);
                    }
                    self.returned(id, outcome, now);
                }
                Ok(())
            }
            _ => Err(Refused),
        }
    }

    fn is_settled(&mut self, id: u64, (tag, n): (Tag, u64)) {
        if !self.dead.settle(id) {
            self.producers.settled(tag, n);
        }
    }

    fn check_announced(&self, client: ClientId, id: u64) {
        if self.applications.is_honest_consumer(client) {
            self.items.check_announced(id, if self.rules.attempts_max == 1 || self.rules.lease.is_some() { 1 } else { 2 });
        }
    }

    fn returned(&mut self, id: u64, outcome: &Outcome, now: Duration) {
        let most = self.rules.attempts_max;
        match outcome {
            Outcome::Unstarted => self.items.never_delivered(id),
            Outcome::Released => self.items.failed(id, most, now, |_| Duration::ZERO),
            Outcome::Failed { .. } => self.items.failed(id, most, now, |failures| self.rules.retry_delay.spread(failures, id)),
            Outcome::Rejected { .. } => self.items.rejected(id),
            Outcome::RetryAfter { delay_ms } => self.items.comes_back(id, now + Duration::from_millis(*delay_ms), now),
        }
    }

    fn left(&mut self, client: ClientId, orderly: bool) {
        self.producers.left(client);
        self.joins.remove(&client);
        self.extensions.remove(&client);
        self.dead.leave(client, self.rules.journaled.is_some());
        if self.consumers.left(client) {
            self.items.holder_left(client, orderly, self.rules.attempts_max);
        }
    }

    /// The queue says this.
    pub fn after(&mut self, output: &Output) {
        match output {
            Output::Send { client, message, batch } => self.sent(*client, message, batch.as_ref()),
            Output::Close { client, reason, words } => match reason {
                CloseReason::Ended if self.to_be_closed != Some(*client) => self.producers.left(*client),
                CloseReason::Replaced => self.producers.replaced(*client),
                _ => {
                    let expected = self.to_be_closed.take();
                    assert_eq!(expected, Some(*client), "{client:?} is closed: {words}");
                }
            },
            Output::Welcome { client, position, checksum } => self.producers.welcomed(*client, position.0, *checksum),
            Output::Journal(entry) => self.keeps(entry),
            Output::Load(load) => self.loads(*load),
            Output::LoadDead(range) => self.loads_dead(*range),
            Output::Write { ticket, record } => {
                let ids = match record {
                    Record::Results(batch) => {
                        let ids = self.items.results(batch.count());
                        if !self.writes_to_no_file {
                            self.journal.results.extend(ids.iter().copied().zip(batch.iter().map(<[u8]>::to_vec)));
                        }
                        ids
                    }
                    Record::DeadLetter(letter) => {
                        let whose = self.lengths.read(&letter.item);
                        assert!(!letter.cause.is_empty(), "a dead letter without a cause");
                        self.dead.dies(letter);
                        vec![self.items.dead_letter(letter.id.0, letter.attempts, whose)]
                    }
                };
                self.writing.insert(*ticket, ids);
            }
            other => panic!("only a shared queue says {other:?}"),
        }
    }

    fn sent(&mut self, client: ClientId, message: &Message, batch: Option<&Batch>) {
        match (message, batch) {
            (Message::Confirm { position, credit_items, credit_bytes }, None) => {
                self.producers.confirmed(client, position.0, *credit_items, *credit_bytes);
            }
            (Message::Recall { position }, None) => self.producers.recalled(client, position.0),
            (Message::Deliver { first, attempt, .. }, Some(batch)) => {
                assert!(!self.paused, "items are handed out by a queue that is paused");
                self.consumers.delivered(client, batch);
                for (id, bytes) in (first.0..).zip(batch.iter()) {
                    let whose = self.lengths.read(bytes).unwrap_or_else(|| panic!("item {id} is delivered as something nobody has put"));
                    let is_new = self.items.delivered(id, client, *attempt, whose);
                    if self.dead.touch(id, whose) {
                        continue;
                    }
                    self.producers.touch(whose.0, whose.1);
                    if is_new {
                        self.producers.seen(whose.0, whose.1);
                    }
                }
                self.items.watch(self.now);
            }
            (Message::Withdrawn, None) => {
                let hungry = self.hands_out && self.consumers.is_hungry(client) && !self.journal.is_loading();
                let misses_out = hungry && self.items.any_ready() && !self.items.holds_back();
                assert!(!misses_out, "{client:?} hears that there is no item, and there is one");
                self.consumers.withdrawn(client);
                self.producers.withdrawn(client);
            }
            (Message::Joined, None) => {
                let asked = self.joins.get_mut(&client).filter(|asked| !asked.is_empty());
                let until = asked.unwrap_or_else(|| panic!("{client:?} gets an answer to no Join")).remove(0);
                self.items.check_settled(until);
            }
            (Message::Finished, None) => {}
            (Message::Revoke { ranges }, None) => {
                let ids = ranges.iter().flat_map(|range| range.first.0..range.first.0 + u64::from(range.count));
                self.items.told_of(client, ids);
            }
            (Message::Extended, None) => {
                let asked = self.extensions.get_mut(&client).unwrap_or_else(|| panic!("{client:?} gets an answer to no Extend"));
                *asked = asked.checked_sub(1).expect("an answer to each Extend");
            }
            (Message::Hurry, None) => assert!(self.items.held_by(client) > 0, "{client:?} holds nothing that anybody could wait for"),
            (Message::Stop, None) => self.consumers.told_to_stop(client),
            _ => self.answers_steering(message, batch),
        }
    }

    /// Somebody is told what these clients do, who are connected.
    pub fn check_clients(&self, clients: &[ClientStatus], now: Duration) {
        for ClientStatus { number, work, .. } in clients {
            let client = ClientId(*number);
            let expected = self.consumers.work(client).map(|(waiting, done, failed)| {
                let at_hand = self.items.at_hand(client);
                (self.items.held_by(client), at_hand, waiting, done, failed)
            });
            match work {
                Work::Consumer { held, at_hand, waiting, done, failed } => {
                    let shown = at_hand.as_ref().map(|at_hand| (at_hand.id.0, at_hand.attempt));
                    assert_eq!(Some((*held, shown, *waiting, *done, *failed)), expected, "what {client:?} does");
                    assert!(at_hand.as_ref().is_none_or(|at_hand| Duration::from_millis(at_hand.for_ms) <= now));
                }
                Work::Producer { name, accepted, parked, finished, .. } => {
                    self.producers.check_shown(client, name, *accepted, *parked, *finished);
                }
                Work::Control => assert_eq!(expected, None, "{client:?} is a consumer"),
            }
        }
    }

    /// The queue has said all that it has to say by now.
    pub fn check(&mut self, queue: &Queue) {
        assert_eq!(self.to_be_closed, None, "it said what it may not, and is not closed");
        assert!(self.extensions.values().all(|asked| *asked == 0), "Extends have no answer: {:?}", self.extensions);
        let status = queue.status();
        self.items.accept(status.accepted);
        let certain = status.accepted - self.items.uncertain();
        assert_eq!(certain, self.producers.accepted() + self.items.requeued(), "what is accepted is confirmed, or was put again");
        self.producers.check_told(status.producers);
        self.check_memory(queue);
        let counts = (status.acknowledged, status.dead, status.delayed, status.held);
        assert_eq!(counts, self.items.counts(), "acknowledged, dead, delayed, held");
        assert_eq!(
            status.ready,
            status.accepted - counts.0 - counts.1 - counts.2 - counts.3 - status.dead_removed,
            "every item is in one place"
        );
        assert_eq!(status.dead_removed, self.items.dead_removed(), "dead letters that are none any more");
        assert_eq!(status.redelivered, self.items.redelivered(), "deliveries again");
        assert_eq!(status.producers_finished, self.producers.finished(), "producers that have finished");
        self.producers.check_replaced();
        assert_eq!(status.bytes, self.producers.stored_bytes() + self.dead.stored_bytes(), "bytes");
        assert!(status.stored() <= self.rules.capacity_items && status.bytes <= self.rules.capacity_bytes, "within the bounds: {status:?}");
        let handing_out = matches!(status.phase, Phase::Running | Phase::Draining);
        assert_eq!(status.paused, self.paused && handing_out, "whether it is paused");
        let misses_out = handing_out && !status.paused && status.ready > self.items.uncertain() && status.consumers_waiting > 0;
        assert!(!misses_out || self.journal.is_loading() || self.items.holds_back(), "items wait while somebody asks: {status:?}");
        assert_eq!(status.consumers_waiting, self.consumers.hungry(), "consumers that ask");
        self.items.check_nothing_pending();
        assert!(status.phase != Phase::Done || status.stored() == 0, "done with items left");
        let all_finished = self.rules.producers_expected.is_some_and(|expected| status.producers_finished >= expected);
        assert!(status.phase != Phase::Done || self.drains || all_finished, "done, though more may come: {status:?}");
        let is_over = handing_out && status.stored() == 0 && (self.drains || all_finished);
        assert!(!is_over, "nothing is left and nothing will come, but it is not done: {status:?}");
        assert!(!self.faultless || status.redelivered == 0, "an item is delivered again without any fault");
    }

    /// All that was accepted under a name, and how often it should be.
    pub fn check_position(&self, tag: Tag, position: u64) {
        assert_eq!(position, self.producers.accepted_of(tag), "the position of producer {tag}");
    }

    /// Dead letters that were put again, and those that were dropped.
    pub fn dead_letters_moved(&self) -> (u64, u64) {
        let requeued = self.items.requeued();
        (requeued, self.items.dead_removed() - requeued)
    }

    /// Everybody has gone.
    pub fn end(&self, queue: &Queue, output: Option<&[u8]>) {
        self.check_output(output);
        let status = queue.status();
        assert_eq!(status.held, 0, "held by nobody");
        if status.phase == Phase::Done {
            self.items.check_settled(status.accepted);
            self.producers.check_all_seen();
        } else {
            assert_eq!(status.phase, Phase::Stopping, "the phase at the end");
        }
        if self.faultless {
            assert_eq!(self.applications.taken(), status.accepted, "each item reaches an application, once");
        }
    }
}
