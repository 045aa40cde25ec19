//! What must come of what a client says, by PROTOCOL.md.

use std::time::Duration;

use common::batch::Batch;
use common::limits::{batch_cost_bytes, result_bytes_max};
use common::message::{CloseReason, Message, Outcome};
use common::status::Phase;
use coordinator::limits::{DEMAND_BYTES_MAX, DEMAND_ITEMS_MAX};
use coordinator::queue::{ClientId, Input};

use super::watched::{Client, Kind, Producer, State, Watched};

/// Whether what a client says closes its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Refused,
}

impl Watched {
    /// Lets a client say something. True if its connection is open still.
    pub(super) fn say(&mut self, client: ClientId, message: Message, batch: Option<Batch>) -> bool {
        let accepted = self.queue.status().accepted;
        let shown = format!("{message:?}");
        let verdict = self.judge(client, &message, batch.as_ref(), accepted);
        if verdict == Verdict::Refused {
            self.let_go(client, false);
        }
        let put = batch.as_ref().and_then(|batch| match message {
            Message::Put { checksum, .. } => Some((batch.clone(), checksum)),
            _ => None,
        });
        if let Some((batch, checksum)) = put
            && verdict != Verdict::Refused
            && let Some(Client { kind: Kind::Producer(producer), .. }) = self.clients.get_mut(&client)
        {
            let count = batch.count();
            producer.put += u64::from(count);
            let cost = batch_cost_bytes(batch.body_bytes()) as i64;
            producer.credit = (producer.credit.0 - i64::from(count), producer.credit.1 - cost);
            producer.granted = (producer.granted.0 - i64::from(count), producer.granted.1 - cost);
            producer.recalled = false;
            if self.journal.is_some() {
                producer.parked.push_back((batch, checksum));
            }
        }
        // Whatever else is wrong with a Put that comes too late.
        let late = matches!(message, Message::Put { .. }) && self.queue.phase() != Phase::Running;
        let closed = self.handle(Input::Said { client, message, batch });
        match (verdict, closed.get(&client)) {
            (Verdict::Refused, Some(CloseReason::Ended)) if late => {}
            (Verdict::Fine, Some(CloseReason::Ended) | None) | (Verdict::Refused, Some(CloseReason::Protocol)) => {}
            (_, closed) => panic!("{client:?} says {shown}, which is {verdict:?}; closed: {closed:?}"),
        }
        !closed.contains_key(&client)
    }

    /// A connection is closed.
    pub(super) fn leave(&mut self, client: ClientId, orderly: bool) {
        self.let_go(client, orderly);
        self.clients.remove(&client);
        self.stops_asking(client);
        self.handle(Input::Left { client, orderly });
    }

    /// What a consumer holds goes back.
    fn let_go(&mut self, client: ClientId, orderly: bool) {
        let Some(Client { kind: Kind::Consumer(consumer), .. }) = self.clients.get(&client) else { return };
        let alone = consumer.held.len() == 1;
        for id in &consumer.held {
            let item = self.items.get_mut(id).expect("a held item");
            let failed = !orderly && (alone || consumer.begun.contains_key(id));
            item.attempts -= u32::from(orderly);
            item.failures += u32::from(failed);
            item.state = if failed && item.failures >= self.rules.attempts_max { State::Dying } else { State::Ready };
        }
    }

    /// Notes what a message does, and says what must come of it.
    fn judge(&mut self, client: ClientId, message: &Message, batch: Option<&Batch>, accepted: u64) -> Verdict {
        let largest = batch.and_then(|batch| batch.iter().map(<[u8]>::len).max()).unwrap_or_default() as u64;
        let (journaled, time) = (self.journal.is_some(), self.time());
        let Some(Client { kind, joins, withdrawals, finishes }) = self.clients.get_mut(&client) else { panic!("{client:?} is not there") };
        let is_fine = match (message, kind) {
            (
                Message::Put { .. } | Message::Want { .. } | Message::Recalled | Message::Finish,
                Kind::Producer(Producer { welcomed: false, .. }),
            ) => false,
            (Message::Join, _) => {
                joins.push(accepted);
                true
            }
            (Message::Withdraw, kind) => {
                *withdrawals += 1;
                if let Kind::Producer(producer) = kind {
                    producer.wish = None;
                }
                true
            }
            (Message::Ack { ranges }, _) if ranges.is_empty() => true,
            (Message::Put { position, .. }, Kind::Producer(producer)) => {
                let (items, bytes) = batch.map_or((0, 0), |batch| (batch.count(), batch_cost_bytes(batch.body_bytes())));
                let covered = producer.granted.0 >= i64::from(items) && producer.granted.1 >= bytes as i64;
                covered && largest <= self.rules.item_bytes_max && !producer.finished && position.0 == producer.put
            }
            (Message::Want { bytes }, Kind::Producer(producer)) => {
                let granted = producer.granted.0 > 0 && producer.granted.1 >= *bytes as i64;
                if !granted {
                    producer.wish = Some(*bytes);
                }
                !producer.finished && *bytes <= batch_cost_bytes(self.rules.item_bytes_max + 4)
            }
            (Message::Recalled, Kind::Producer(producer)) => {
                (producer.credit, producer.granted) = ((0, 0), (0, 0));
                std::mem::take(&mut producer.recalled)
            }
            (Message::Finish, Kind::Producer(producer)) => {
                // What is on its way to the journal comes there before the end.
                let all_in = if journaled { producer.parked.is_empty() } else { producer.put == producer.confirmed };
                let is_fine = all_in && !std::mem::replace(&mut producer.finished, true);
                if is_fine && !journaled {
                    let is_first = producer.name.clone().is_none_or(|name| self.finished_names.insert(name));
                    self.finished += u64::from(is_first);
                }
                *finishes += u32::from(is_fine);
                is_fine
            }
            (Message::Demand { items, bytes }, Kind::Consumer(consumer)) => {
                let (more_items, more_bytes) = &mut consumer.demand;
                *more_items = more_items.saturating_add(*items);
                *more_bytes = more_bytes.saturating_add_unsigned(*bytes);
                *more_items <= DEMAND_ITEMS_MAX && *more_bytes <= DEMAND_BYTES_MAX
            }
            (Message::Begin { id }, Kind::Consumer(consumer)) => {
                if consumer.held.contains(&id.0) {
                    consumer.begun.entry(id.0).or_insert(time);
                }
                true
            }
            (Message::Extend { id, by_ms }, Kind::Consumer(consumer)) => {
                let held = consumer.held.contains(&id.0);
                if held {
                    let due = consumer.begun.entry(id.0).or_insert(time);
                    let by = Duration::from_millis(*by_ms);
                    let grace = self.rules.lease.map_or(Duration::ZERO, |lease| lease.grace);
                    *due = self.now.saturating_add(by).saturating_add(grace).max(*due);
                }
                let is_fine = held || consumer.revoked.contains(&id.0) || self.rules.lease.is_none();
                consumer.extends += u32::from(is_fine);
                is_fine
            }
            (Message::Revoked, Kind::Consumer(consumer)) => {
                let is_fine = consumer.revokes > 0;
                consumer.revokes = consumer.revokes.saturating_sub(1);
                if consumer.revokes == 0 {
                    consumer.revoked.clear();
                }
                is_fine
            }
            (Message::Ack { ranges }, Kind::Consumer(_)) => ranges.iter().all(|range| {
                let done = self.take(client, range.first.0, range.count);
                self.note_settled(client, done.as_ref().map_or(0, Vec::len), 0);
                done.inspect(|done| {
                    if journaled {
                        return self.settling(done, None, false);
                    }
                    self.acknowledged += done.len() as u64;
                    done.iter().for_each(|id| drop(self.items.remove(id)));
                })
                .is_some()
            }),
            (Message::Result { first, .. }, Kind::Consumer(_)) => {
                largest <= result_bytes_max(self.rules.item_bytes_max)
                    && self.take(client, first.0, batch.map_or(0, Batch::count)).is_some_and(|done| {
                        self.note_settled(client, done.len(), 0);
                        done.iter().for_each(|id| self.set(*id, State::Done));
                        true
                    })
            }
            (Message::Return { range, outcome }, Kind::Consumer(_)) => {
                let is_failure = matches!(outcome, Outcome::Released | Outcome::Failed { .. } | Outcome::Rejected { .. });
                let taken = self.take(client, range.first.0, range.count);
                self.note_settled(client, 0, taken.as_ref().filter(|_| is_failure).map_or(0, Vec::len));
                taken.iter().flatten().for_each(|id| self.give_back(*id, outcome));
                taken.is_some()
            }
            _ => false,
        };
        if is_fine { Verdict::Fine } else { Verdict::Refused }
    }

    /// Takes items out of a consumer's hands, if it holds all of them; those that were taken back before it could know are passed over.
    fn take(&mut self, client: ClientId, first: u64, count: u32) -> Option<Vec<u64>> {
        let Some(Client { kind: Kind::Consumer(consumer), .. }) = self.clients.get_mut(&client) else { return None };
        let range = first..first.checked_add(u64::from(count))?;
        let ids: Vec<u64> = consumer.held.range(range.clone()).copied().collect();
        if count == 0 || ids.len() + consumer.revoked.range(range.clone()).count() != count as usize {
            return None;
        }
        consumer.held.retain(|id| !range.contains(id));
        consumer.begun.retain(|id, _| !range.contains(id));
        consumer.sits = None;
        Some(ids)
    }

    fn note_settled(&mut self, client: ClientId, done: usize, failed: usize) {
        if let Some(Client { kind: Kind::Consumer(consumer), .. }) = self.clients.get_mut(&client) {
            consumer.done += done as u64;
            consumer.failed += failed as u64;
        }
    }

    fn give_back(&mut self, id: u64, outcome: &Outcome) {
        let item = self.items.get_mut(&id).expect("a held item");
        item.failures += u32::from(matches!(outcome, Outcome::Released | Outcome::Failed { .. }));
        let is_last = item.failures >= self.rules.attempts_max;
        let delay = match outcome {
            Outcome::Failed { .. } => self.rules.retry_delay.spread(item.failures, id),
            Outcome::RetryAfter { delay_ms } => Duration::from_millis(*delay_ms),
            _ => Duration::ZERO,
        };
        item.attempts -= u32::from(*outcome == Outcome::Unstarted);
        item.state = match outcome {
            Outcome::Rejected { .. } => State::Dying,
            Outcome::Released | Outcome::Failed { .. } if is_last => State::Dying,
            _ if delay.is_zero() => State::Ready,
            _ => State::Delayed(self.now.saturating_add(delay)),
        };
    }

    fn set(&mut self, id: u64, state: State) {
        self.items.get_mut(&id).expect("a held item").state = state;
    }
}
