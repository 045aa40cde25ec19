//! A process that looks at who is connected and what each does, now and then, page by page.

use std::time::Duration;

use common::Error;
use common::frame::FrameReader;
use common::limits::{PROTOCOL_VERSION, frame_bytes_max};
use common::message::{Message, Role};
use common::outbox::Outbox;
use common::transport::{self, Came, Wire};
use coordinator::queue::ClientId;

use super::link::{End, Weather};
use super::network::Stage;
use super::player::{Player, Wake};

/// The process. What it is told, the oracle has seen before.
#[derive(Debug)]
pub struct Looker {
    weather: Weather,
    wired: Option<(ClientId, End)>,
    reader: FrameReader,
    outbox: Outbox,
    /// It waits for an answer; clients from here on are its question.
    asked: Option<u64>,
    asks_at: Duration,
    done: bool,
}

impl Looker {
    /// One that has not begun.
    pub fn new(weather: Weather) -> Looker {
        let reader = FrameReader::new(frame_bytes_max(0));
        Looker { weather, wired: None, reader, outbox: Outbox::default(), asked: None, asks_at: Duration::ZERO, done: false }
    }

    fn connect(&mut self, stage: &mut Stage) {
        self.outbox.push(&Message::Hello { version: PROTOCOL_VERSION, role: Role::Control, name: String::new() });
        self.wired = Some(stage.network.connect(self.weather));
    }

    fn ask(&mut self, from: u64) {
        self.outbox.push(&Message::ClientsRequest { from });
        self.asked = Some(from);
    }

    /// What is left to be asked; an error if the connection is lost.
    fn read(&mut self, stage: &mut Stage) -> Result<Option<u64>, Error> {
        let Some((client, end)) = &self.wired else { return Ok(None) };
        let mut more = None;
        loop {
            let asked = &mut self.asked;
            let came = transport::receive::<Error>(end, &mut self.reader, &mut stage.scratch, |frame| {
                match Message::decode(frame)?.message {
                    Message::Welcome { .. } => {}
                    Message::Clients { clients, more_from } => {
                        let from = asked.take().expect("one answer to a question");
                        let numbers = clients.iter().map(|shown| shown.number);
                        assert!(numbers.clone().all(|number| number >= from) && numbers.is_sorted(), "who is connected, from {from} on");
                        assert!(more_from.is_some() || from > client.0 || clients.iter().any(|shown| shown.number == client.0));
                        more = more_from;
                    }
                    other => panic!("{client:?}, who asks who is connected, is told {}", other.name()),
                }
                Ok(())
            })?;
            match came {
                Came::Drained if !end.is_at_end() => return Ok(more),
                Came::More | Came::Drained => {}
                Came::End => return Err(Error::Gone("it closed the connection".into())),
            }
        }
    }
}

impl Player for Looker {
    fn step(&mut self, stage: &mut Stage) -> Wake {
        if self.done {
            return None;
        }
        if self.wired.is_none() {
            self.connect(stage);
        }
        match self.read(stage) {
            Ok(Some(from)) => self.ask(from),
            Ok(None) => {}
            Err(error) => {
                assert!(!stage.faultless && matches!(error, Error::Gone(_)), "who looks is refused: {error}");
                self.crash();
                return Some(stage.now + stage.random.micros((10, 20_000)));
            }
        }
        if self.asked.is_none() && self.asks_at <= stage.now {
            stage.count("looks", 1);
            let from = if stage.random.chance(70) { 0 } else { stage.random.below(10) };
            self.ask(from);
            self.asks_at = stage.now + stage.random.micros((10, 20_000));
        }
        if let Some((_, end)) = &self.wired {
            // A link that is broken is noticed by reading.
            let _ = self.outbox.write_to(|pieces| end.write(pieces));
        }
        self.asked.is_none().then_some(self.asks_at)
    }

    fn client(&self) -> Option<ClientId> {
        self.wired.as_ref().map(|(client, _)| *client)
    }

    fn crash(&mut self) {
        *self = Looker { done: self.done, ..Looker::new(self.weather) };
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn mend(&mut self) {
        // It would look for ever.
        self.crash();
        self.done = true;
    }

    fn name(&self) -> String {
        "looker".into()
    }
}
