//! Producers with a name, as the thread deals with them: whose a name is, how far it has come, what it leaves behind.

use std::sync::Arc;

use super::Answer;
use super::client::{Incoming, Outgoing};
use super::message::{ITEMS_HEADER, ItemsMessage, ProducerRecord, read_record, write_record};
use super::names::source_of_name;
use super::news::Failure;
use super::puts::Put;
use super::registry::Claim;
use super::replies::read_message;
use super::requests::{Kind, Why};
use super::worker::Worker;

impl Worker {
    pub(super) async fn ask_for_name(&mut self, name: Arc<str>, why: Why) {
        let (stream, subject) = (self.names.state.clone(), self.names.producer_subject(&name));
        self.ask_for_last(Kind::Name { name, why }, &stream, subject).await;
    }

    pub(super) async fn found_name(&mut self, name: Arc<str>, why: Why, said: &Incoming) -> Result<(), Failure> {
        let kept = match read_message(said)? {
            Some(found) => {
                let record: ProducerRecord =
                    read_record(&found.payload).map_err(|source| self.unreadable(&self.names.state, found.sequence, source))?;
                Some((record, found.sequence))
            }
            None => None,
        };
        let is_lost = match why {
            Why::Claim => {
                let subject = format!("{}.*.{}", self.names.items_subject, source_of_name(&name));
                let stream = self.names.items.clone();
                self.ask_for_last(Kind::Last { name, kept }, &stream, subject).await;
                return Ok(());
            }
            Why::Contested { claim } => self.producers.is_lost(&name, claim, self.machines.ours(), kept),
            Why::Refused { claim } => match self.producers.verify(&name, claim, self.machines.ours(), kept) {
                Some(claims) => {
                    for claim in claims {
                        self.claim(Some(claim)).await;
                    }
                    false
                }
                None => true,
            },
        };
        if is_lost {
            self.answer(Answer::Replaced(Arc::clone(&name)));
            self.withdraw(&name).await;
            let end = self.producers.end_lost(&name);
            self.claim(end).await;
        }
        Ok(())
    }

    pub(super) async fn claim(&mut self, claim: Option<Claim>) {
        match claim {
            Some(Claim::Write { name, claim, record, after }) => {
                let headers = vec![("Nats-Expected-Last-Subject-Sequence", after.to_string())];
                let out = Outgoing { subject: self.names.producer_subject(&name), headers, payload: write_record(&record) };
                self.ask(Kind::Write { name, claim }, out).await;
            }
            Some(Claim::Claimed { name, record }) => {
                // Not before: whoever had it looks up at once whether it still has.
                let payload = record.machine.into();
                self.say(Outgoing { subject: self.names.claimed_subject(&name), payload, ..Outgoing::default() }).await;
                let ProducerRecord { position, checksum, finished, .. } = record;
                self.answer(Answer::Claimed { name, position, checksum, finished });
            }
            Some(Claim::Finished { name }) => self.answer(Answer::Finished(name)),
            Some(Claim::Check { name, claim }) => self.ask_for_name(name, Why::Contested { claim }).await,
            None => {}
        }
    }

    pub(super) async fn found_last(&mut self, name: Arc<str>, kept: Option<(ProducerRecord, u64)>, said: &Incoming) -> Result<(), Failure> {
        let last = match read_message(said)? {
            Some(found) => {
                let head = found.header(ITEMS_HEADER).unwrap_or_default();
                let read = ItemsMessage { head, body: found.payload }.read();
                let read = read.map_err(|source| self.unreadable(&self.names.items, found.sequence, source));
                read?.1
            }
            None => None,
        };
        let claim = self.producers.found(&name, self.machines.ours(), kept, last);
        self.claim(claim).await;
        Ok(())
    }

    pub(super) async fn kept(&mut self, done: Vec<Put>) {
        for put in done {
            if let Some((name, reached)) = put.by {
                let claim = self.producers.reached(&name, reached);
                self.claim(claim).await;
            }
            // What was put later may lie before what was put earlier, after a fault, or have been there already.
            self.kept_until = self.kept_until.max(put.sequence);
            if let Some(ticket) = put.ticket {
                self.answer(Answer::Kept { ticket, sequence: self.kept_until });
            }
        }
    }

    /// Drops what has not left of a producer that is another machine's now.
    pub(super) async fn withdraw(&mut self, name: &str) {
        let done = self.puts.withdraw(&source_of_name(name));
        self.kept(done).await;
    }
}
