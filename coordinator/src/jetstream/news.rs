//! What is done about each piece of news.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::batch::Batch;
use serde_json::Value;
use tracing::debug;

use super::arrivals::Arrival;
use super::client::{Delivery, Incoming};
use super::looks::Seen;
use super::message::{MachineRecord, MarksRecord, MessageError, Reached, read_record};
use super::names::{source_of_machine, source_of_name};
use super::puts::{Amount, Put};
use super::replies::{Present, Refusal, Stored, StreamInfo, StreamState, read, read_message};
use super::requests::{Kind, Why};
use super::worker::{End, Worker};
use super::{Answer, ClusterError, Fetched, News, Work};
use crate::limits::{JETSTREAM_LOOKS_AGAIN, JETSTREAM_LOOKS_AGAIN_ALONE, JETSTREAM_MESSAGE_ITEMS_MAX, JETSTREAM_OVERHEAD_BYTES};
use crate::queue::Origin;

impl Worker {
    pub(super) async fn hear(&mut self, news: News) -> Result<(), End> {
        match news {
            News::Work(work) => self.work(work).await?,
            News::Answered { number, said } => self.answered(number, &said).await?,
            News::Delivered(delivery) => self.delivered(delivery).await?,
            News::PullEnded { number, said } => {
                let (code, words) = said.status.unwrap_or_default();
                let in_trouble = code == 503 || code == 409;
                self.pulls.ended(number, in_trouble, self.now());
                if code == 503 || words.contains("Deleted") {
                    self.check().await;
                }
            }
            News::Closed { inlet } if self.closing == Some(inlet) => {
                let request = format!("CONSUMER.INFO.{}.{}", self.names.items, self.names.consumer);
                self.ask_api(Kind::Consumer { inlet }, &request, Value::Null).await;
            }
            News::Closed { .. } => {}
            News::Said(said) => self.heard_of(&said).await?,
            News::Connected => self.resume().await,
            News::Flushed if self.client.is_connected() && !self.is_connected => self.resume().await,
            News::Flushed => {}
            News::Disconnected => {
                (self.is_connected, self.inlet, self.closing) = (false, None, None);
                self.begin_outage("the connection is lost".into());
            }
            News::Unauthorized if self.outage.is_some() => {}
            News::Unauthorized => self.begin_outage("the server refuses who we are".into()),
        }
        Ok(())
    }

    async fn work(&mut self, work: Work) -> Result<(), End> {
        match work {
            Work::Put { ticket, batch, origin } => self.put(ticket, &batch, &origin).await,
            Work::Want(messages) => self.pulls.want(messages),
            Work::WantMore(messages) => self.pulls.want_more(messages),
            Work::Settle(sequence) => {
                let act = self.leases.settle(sequence);
                self.act(act).await;
            }
            Work::Release { sequence, delay } => {
                self.leases.release(sequence, delay);
                self.release_in_order().await;
            }
            Work::Mark { sequence, marks } => {
                let act = self.leases.mark(sequence, marks);
                self.act(act).await;
            }
            Work::Bury(letter) => self.bury(letter).await,
            Work::LoadDead(range) => {
                let step = self.letters.load(range, self.now());
                self.read_letters(step).await;
            }
            Work::ForgetDead(id) => self.forget_letter(id).await,
            Work::Look => self.looks.want(),
            Work::Claim(name) => self.ask_for_name(name, Why::Claim).await,
            Work::Finish(name) => {
                let claim = self.producers.finish(&name);
                self.claim(claim).await;
            }
            Work::Announce { expected, finished } => {
                self.machines.announce(expected, finished);
                self.beat_at = Duration::ZERO;
            }
            Work::End => return Err(End::Wanted),
        }
        Ok(())
    }

    /// Cuts a batch into messages, and puts these in line.
    async fn put(&mut self, ticket: u64, batch: &Batch, origin: &Origin) {
        let message_bytes_max = self.client.payload_bytes_max().min(self.settings.capacity_bytes);
        let body_bytes_max = message_bytes_max.saturating_sub(JETSTREAM_OVERHEAD_BYTES);
        let items_max = self.settings.capacity_items.min(JETSTREAM_MESSAGE_ITEMS_MAX.into()) as u32;
        let parts = cut(batch, body_bytes_max, items_max);
        let ours = source_of_machine(self.machines.ours());
        let epoch = self.client.epoch();
        let (source, id) = match origin {
            // With the checksum: should another put other items under this name, they are not taken for these.
            Origin::Producer(by) => {
                let source = source_of_name(&by.name);
                let id = format!("{source}.{epoch}.{}.{:x}", by.position, by.checksum);
                (source, id)
            }
            Origin::Nameless => {
                let id = format!("{ours}.{epoch}.{ticket}");
                (ours, id)
            }
            // The same whichever machine puts it.
            Origin::DeadLetter(id) => (ours, format!("dead.{epoch}.{}", id.0)),
        };
        let by = match origin {
            Origin::Producer(by) => Some(by),
            Origin::Nameless | Origin::DeadLetter(_) => None,
        };
        let last = parts.len() - 1;
        for (index, part) in parts.into_iter().enumerate() {
            let is_last = index == last;
            let reached = by.filter(|_| is_last).map(|by| Reached { position: by.position, checksum: by.checksum });
            let subject = self.names.items_subject(part.count(), &source);
            let id = format!("{id}.{index}");
            let mut put = Put::new(is_last.then_some(ticket), subject, id, part);
            put.by = by.zip(reached).map(|(by, reached)| (Arc::clone(&by.name), reached));
            self.puts.push(put);
        }
        if let Some(by) = by.filter(|by| self.producers.has_lost(&by.name)) {
            self.withdraw(&by.name).await;
        }
    }

    async fn delivered(&mut self, delivery: Delivery) -> Result<(), End> {
        let Delivery { sequence, delivered, reply, message } = delivery;
        let is_wanted = self.pulls.delivered(self.leases.is_held(sequence));
        if !self.leases.delivered(sequence, reply, &message) {
            let act = self.leases.go_on(sequence);
            self.act(act).await;
            return Ok(());
        }
        if !is_wanted {
            self.leases.release(sequence, Duration::ZERO);
            self.release_in_order().await;
            return Ok(());
        }
        if self.arrivals.came(sequence, message, delivered) {
            let stream = self.names.state.clone();
            self.ask_for_last(Kind::Marks(sequence), &stream, self.names.marks_subject(sequence)).await;
        }
        self.hand_on_arrivals()
    }

    fn hand_on_arrivals(&mut self) -> Result<(), End> {
        while let Some((Arrival { sequence, message, delivered: deliveries, .. }, marks)) = self.arrivals.next() {
            let (batch, _) = message.read().map_err(|source| self.unreadable(&self.names.items, sequence, source))?;
            self.answer(Answer::Fetched(Fetched { sequence, deliveries, batch, marks }));
        }
        Ok(())
    }

    pub(super) fn unreadable(&self, stream: &str, sequence: u64, source: MessageError) -> End {
        ClusterError::Message { stream: stream.into(), sequence, source }.into()
    }

    fn gone(&self, what: &'static str) -> End {
        ClusterError::Gone { what, queue: self.names.queue.clone() }.into()
    }

    /// What a machine says to all; the records in the stream say the same.
    async fn heard_of(&mut self, said: &Incoming) -> Result<(), End> {
        if let Some(id) = self.names.machine_in(&said.subject) {
            let record = read_record(&said.payload).map_err(|source| self.unreadable(&self.names.state, 0, source))?;
            self.machines.heard(id, record, true, self.now());
        } else if let Some(name) = self.names.claimed_in(&said.subject)
            && said.payload != self.machines.ours()
        {
            let claim = self.producers.contested(&name);
            self.claim(claim).await;
        }
        Ok(())
    }

    async fn answered(&mut self, number: u64, said: &Incoming) -> Result<(), End> {
        let Some(request) = self.requests.take(number) else { return Ok(()) };
        match self.settle_answer(request.kind.clone(), said).await {
            Ok(()) => Ok(()),
            Err(Failure::End(end)) => Err(end),
            Err(Failure::Refused(Refusal::NoStream)) if matches!(request.kind, Kind::Look { .. }) => Err(self.gone("the stream of items")),
            Err(Failure::Refused(_)) if matches!(request.kind, Kind::Check(_)) => Ok(()),
            Err(Failure::Refused(_)) if let Kind::Look { is_wanted, .. } = request.kind => {
                self.looks.lost(is_wanted);
                Ok(())
            }
            Err(Failure::Refused(refusal)) => {
                debug!(kind = ?request.kind, ?refusal, "refused for now");
                self.trouble = Some(refusal.to_string());
                // It may be that there is no leader, or that something is gone for good.
                self.requests.again(number, request, self.now());
                self.check().await;
                Ok(())
            }
        }
    }

    async fn settle_answer(&mut self, kind: Kind, said: &Incoming) -> Result<(), Failure> {
        match kind {
            Kind::Put(place) => match read::<Stored>(said) {
                Ok(Stored { seq }) => {
                    self.told_of_space = false;
                    let done = self.puts.stored(place, seq);
                    self.kept(done).await;
                }
                Err(Refusal::Full(words)) => {
                    let done = self.puts.refused(place, self.now());
                    self.kept(done).await;
                    if !words.contains("maximum") && !std::mem::replace(&mut self.told_of_space, true) {
                        self.answer(Answer::NoSpace(words));
                    }
                }
                Err(other) => return Err(other.into()),
            },
            Kind::Settle(sequence) => {
                if let Some((code, words)) = &said.status {
                    return Err(Refusal::Trouble(format!("{code} {words}")).into());
                }
                if let Some(is_marked) = self.leases.settled(sequence) {
                    self.settled += 1;
                    self.answer(Answer::Settled(sequence));
                    self.note_end();
                    if is_marked {
                        self.forget(self.names.marks_subject(sequence)).await;
                    }
                }
            }
            Kind::Mark(sequence) => {
                read::<Stored>(said)?;
                let act = self.leases.marked(sequence);
                self.act(act).await;
                self.release_in_order().await;
            }
            Kind::Marks(sequence) => {
                let found = read_message(said)?;
                let record = found.map(|found| {
                    let read = read_record::<MarksRecord>(&found.payload);
                    read.map_err(|source| self.unreadable(&self.names.state, found.sequence, source))
                });
                let record = record.transpose()?.filter(|record| Some(record.message_hash) == self.leases.message_hash(sequence));
                if record.is_some() {
                    self.leases.was_marked(sequence);
                }
                self.arrivals.marked(sequence, record.map(|record| record.marks).unwrap_or_default());
                self.hand_on_arrivals()?;
            }
            Kind::Bury(id) => {
                read::<Stored>(said)?;
                self.looks.note_letter();
                self.answer(Answer::Buried(id));
            }
            Kind::Letters { offset } => self.listed_letters(offset, said).await?,
            Kind::Letter(id) => self.got_letter(id, said).await?,
            Kind::ForgetLetter(id) => {
                let Present {} = read(said)?;
                self.looks.note_letter();
                self.answer(Answer::DeadForgotten(id));
            }
            Kind::CountLetters { ends } => {
                let info = read::<StreamInfo>(said)?;
                self.looks.counted(info.state.messages, ends, self.now());
                self.tell_view();
            }
            Kind::Release => {}
            Kind::Beat | Kind::Forget => {
                let Present {} = read(said)?;
            }
            Kind::Look { changes, settled, is_wanted } => {
                let info = read::<StreamInfo>(said)?;
                // What was settled meanwhile it may have seen or not; the next look tells, if nothing more is at work here.
                let is_mixed = settled != self.settled && self.leases.len() == 0;
                self.looked(&info, changes, is_wanted, is_mixed)?;
            }
            Kind::Consumer { inlet } => {
                // Whatever it says: if the consumer is gone, what asks next hears of it.
                if self.closing == Some(inlet) {
                    self.closing = None;
                    self.pulls.lost();
                    self.release_in_order().await;
                }
            }
            Kind::Check(part) => match read::<Present>(said) {
                Err(Refusal::NoStream | Refusal::NoConsumer) => return Err(self.gone(part).into()),
                Err(other) => return Err(other.into()),
                Ok(Present {}) => {}
            },
            Kind::Machines => {
                let info = read::<StreamInfo>(said)?;
                let subjects = info.state.subjects.unwrap_or_default();
                let ids: Vec<&str> = subjects.keys().filter_map(|subject| self.names.machine_in(subject)).collect();
                self.machines.registered(&ids);
                let others = ids.into_iter().filter(|id| *id != self.machines.ours()).map(String::from).collect::<Vec<_>>();
                for id in others {
                    let (stream, subject) = (self.names.state.clone(), self.names.machine_subject(&id));
                    self.ask_for_last(Kind::Machine(id), &stream, subject).await;
                }
            }
            Kind::Machine(id) => {
                if let Some(found) = read_message(said)? {
                    let record: MachineRecord =
                        read_record(&found.payload).map_err(|source| self.unreadable(&self.names.state, found.sequence, source))?;
                    self.machines.heard(&id, record, false, self.now());
                }
            }
            Kind::Name { name, why } => self.found_name(name, why, said).await?,
            Kind::Last { name, kept } => self.found_last(name, kept, said).await?,
            Kind::Write { name, claim } => match read::<Stored>(said) {
                Ok(Stored { seq }) => {
                    for claim in self.producers.written(&name, claim, seq) {
                        self.claim(Some(claim)).await;
                    }
                }
                Err(Refusal::NotNext) => self.ask_for_name(name, Why::Refused { claim }).await,
                Err(other) => return Err(other.into()),
            },
        }
        Ok(())
    }

    fn looked(&mut self, info: &StreamInfo, changes: u64, is_wanted: bool, is_mixed: bool) -> Result<(), End> {
        if self.created.get_or_insert_with(|| info.created.clone()) != &info.created {
            return Err(self.gone("the stream of items"));
        }
        let is_elsewhere = info.state.messages > self.leases.len() as u64;
        let is_coming = is_wanted && is_elsewhere && self.pulls.is_wanting();
        let looks = match is_coming && self.machines.count() == 1 {
            true => JETSTREAM_LOOKS_AGAIN_ALONE,
            false => JETSTREAM_LOOKS_AGAIN,
        };
        if (is_coming || is_mixed) && self.looks_again < looks {
            self.looks_again += 1;
            self.looks.lost(true);
            return Ok(());
        }
        self.looks_again = 0;
        let none = BTreeMap::new();
        let subjects = info.state.subjects.as_ref().unwrap_or(&none);
        let mut items: u64 = subjects.iter().map(|(subject, messages)| messages * self.names.count_in(subject).unwrap_or(1)).sum();
        if (subjects.len() as u64) < info.total {
            // Of so many producers not all are told; each message of the others has an item at least.
            items += info.state.messages.saturating_sub(subjects.values().sum());
        }
        let found = Amount { items, bytes: info.state.bytes };
        let machines = self.machines.count();
        self.puts.looked(found, machines, self.now());
        self.end_outage();
        let is_drained = info.state.messages == 0 && self.puts.is_empty() && self.machines.changes() == changes;
        let StreamState { messages, bytes, last_sequence, .. } = info.state;
        let seen = Seen { messages, items, bytes, first_sequence: info.state.first_sequence(), last_sequence };
        self.looks.saw(seen, is_wanted, is_drained && self.machines.have_finished());
        self.tell_view();
        Ok(())
    }

    fn tell_view(&mut self) {
        if let Some(view) = self.looks.view(self.machines.view()) {
            self.answer(Answer::Cluster(view));
        }
    }
}

/// Why an answer is not the end of its request.
pub(super) enum Failure {
    Refused(Refusal),
    End(End),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Failure {
        Failure::End(end)
    }
}

/// Parts of a batch that fit into a message each; one item always does.
pub(super) fn cut(batch: &Batch, body_bytes_max: u64, items_max: u32) -> Vec<Batch> {
    let mut parts = Vec::new();
    let mut from = 0;
    while from < batch.count() {
        let mut count = batch.fit(from, items_max.max(1), body_bytes_max);
        let mut part = batch.slice(from, count);
        while part.body_bytes() > body_bytes_max && count > 1 {
            count = count.div_ceil(2);
            part = batch.slice(from, count);
        }
        from += count;
        parts.push(part);
    }
    parts
}
