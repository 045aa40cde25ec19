//! Dead letters, as the thread keeps, reads and forgets them.

use common::ItemId;
use serde_json::json;
use twox_hash::XxHash3_64;

use super::Answer;
use super::client::{Incoming, Outgoing};
use super::letters::Step;
use super::news::Failure;
use super::replies::{StreamInfo, read, read_message};
use super::requests::Kind;
use super::worker::Worker;
use crate::queue::DeadLetter;

impl Worker {
    pub(super) async fn bury(&mut self, letter: DeadLetter) {
        let DeadLetter { id, attempts, cause, item } = letter;
        let cause: String = cause.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let headers = vec![
            ("Nats-Msg-Id", format!("dead.{}.{:x}", id.0, XxHash3_64::oneshot(&item))),
            ("Procq-Item", id.0.to_string()),
            ("Procq-Attempts", attempts.to_string()),
            ("Procq-Cause", cause),
        ];
        self.ask(Kind::Bury(id), Outgoing { subject: self.names.dead_subject(id), headers, payload: item }).await;
    }

    /// Deletes a dead letter.
    pub(super) async fn forget_letter(&mut self, id: ItemId) {
        let request = format!("STREAM.PURGE.{}", self.names.dead);
        self.ask_api(Kind::ForgetLetter(id), &request, json!({ "filter": self.names.dead_subject(id) })).await;
    }

    /// Does what it takes to read dead letters.
    pub(super) async fn read_letters(&mut self, mut step: Step) {
        loop {
            match step {
                Step::Wait => return,
                Step::List { offset } => {
                    let payload = json!({ "subjects_filter": self.names.all_dead_subject(), "offset": offset });
                    let request = format!("STREAM.INFO.{}", self.names.dead);
                    return self.ask_api(Kind::Letters { offset }, &request, payload).await;
                }
                Step::Get(ids) => {
                    let stream = self.names.dead.clone();
                    for id in ids {
                        self.ask_for_last(Kind::Letter(id), &stream, self.names.dead_subject(id)).await;
                    }
                    return;
                }
                Step::Page(page) => {
                    self.answer(Answer::DeadLoaded(page));
                    step = self.letters.begin(self.now());
                }
            }
        }
    }

    pub(super) async fn listed_letters(&mut self, offset: u64, said: &Incoming) -> Result<(), Failure> {
        let info = read::<StreamInfo>(said)?;
        let subjects = info.state.subjects.unwrap_or_default();
        let listed: Vec<_> = subjects.keys().map(|subject| (subject.as_str(), self.names.dead_in(subject))).collect();
        let step = self.letters.listed(offset, &listed, info.total, self.now());
        self.read_letters(step).await;
        Ok(())
    }

    pub(super) async fn got_letter(&mut self, id: ItemId, said: &Incoming) -> Result<(), Failure> {
        let letter = read_message(said)?.map(|message| DeadLetter {
            id,
            attempts: message.header("Procq-Attempts").and_then(|attempts| attempts.parse().ok()).unwrap_or_default(),
            cause: message.header("Procq-Cause").unwrap_or_default().into(),
            item: message.payload,
        });
        let step = self.letters.got(id, letter, self.now());
        self.read_letters(step).await;
        Ok(())
    }
}
