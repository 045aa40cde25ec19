//! A client's connection: what the library's driver does, without threads: bytes from the link to the session, and back.

use std::time::Duration;

use common::Error;
use common::frame::FrameReader;
use common::limits::{PROTOCOL_VERSION, frame_bytes_max};
use common::message::{CloseReason, Message, Role};
use common::outbox::Outbox;
use common::simulation::{Greeting, Session};
use common::transport::{self, Came, Wire};
use coordinator::queue::ClientId;

use super::link::{End, Weather};
use super::network::Stage;

/// A connection and its session, which there is once the greeting has come.
#[derive(Debug)]
pub struct Wired<S> {
    /// Its number.
    pub client: ClientId,
    /// The logic under test.
    pub session: Option<S>,
    /// Why it is over.
    pub failed: Option<Error>,
    /// The checksum in its greeting.
    pub checksum: Option<u64>,
    /// `Stop` has come.
    pub heard_stop: bool,
    /// The greeting has come: without it, a session is what is left of an earlier connection.
    pub is_greeted: bool,
    end: End,
    reader: FrameReader,
    hello: Outbox,
    since: Duration,
}

impl<S: Session> Wired<S> {
    /// Connects and says hello.
    pub fn connect(stage: &mut Stage, weather: Weather, role: Role, name: &str) -> Wired<S> {
        let (client, end) = stage.network.connect(weather);
        let mut hello = Outbox::default();
        hello.push(&Message::Hello { version: PROTOCOL_VERSION, role, name: name.into() });
        let reader = FrameReader::new(frame_bytes_max(0));
        Wired {
            client,
            session: None,
            failed: None,
            checksum: None,
            heard_stop: false,
            is_greeted: false,
            end,
            reader,
            hello,
            since: stage.now,
        }
    }

    /// Loses the connection, and makes another for the same session.
    pub fn connect_again(self, stage: &mut Stage, weather: Weather, role: Role, name: &str) -> Wired<S> {
        let Wired { mut session, heard_stop, since, .. } = self;
        session.iter_mut().for_each(Session::lose);
        Wired { session, heard_stop, since, ..Wired::connect(stage, weather, role, name) }
    }

    /// Time since the connection's beginning, which is what its session counts in.
    pub fn now(&self, stage: &Stage) -> Duration {
        stage.now - self.since
    }

    /// A time of its session's on everybody's clock.
    pub fn on_stage(&self, at: Duration) -> Duration {
        self.since + at
    }

    /// Takes in what has come; makes the session of the greeting.
    pub fn read(&mut self, stage: &mut Stage, mut begin: impl FnMut(Greeting) -> S) {
        let Wired { session, reader, checksum, heard_stop, is_greeted, end, .. } = self;
        while self.failed.is_none() {
            let mut bytes_max = None;
            let came = transport::receive::<Error>(end, reader, &mut stage.scratch, |frame| {
                let incoming = Message::decode(frame)?;
                let Some(session) = session.as_mut().filter(|_| *is_greeted) else {
                    let greeting = Greeting::try_from(incoming.message)?;
                    *checksum = greeting.checksum;
                    bytes_max = Some(frame_bytes_max(greeting.item_bytes_max));
                    *is_greeted = true;
                    return match session {
                        Some(session) => session.resume(greeting),
                        None => {
                            *session = Some(begin(greeting));
                            Ok(())
                        }
                    };
                };
                *heard_stop |= incoming.message == Message::Stop;
                session.handle(incoming)
            });
            bytes_max.into_iter().for_each(|bytes_max| reader.set_bytes_max(bytes_max));
            match came {
                Ok(Came::Drained) if !end.is_at_end() => return,
                Ok(Came::More | Came::Drained) => {}
                Ok(Came::End) => self.failed = Some(Error::Gone("it closed the connection".into())),
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// Writes what the link takes.
    pub fn write(&mut self, stage: &mut Stage, begin: impl FnMut(Greeting) -> S) {
        if self.failed.is_some() {
            return;
        }
        let session = self.session.as_mut().filter(|_| self.is_greeted);
        let outbox = session.map_or(&mut self.hello, |session| session.outbox());
        if let Err(error) = outbox.write_to(|pieces| self.end.write(pieces)) {
            // What the coordinator said before it closed says more than a broken pipe.
            self.read(stage, begin);
            self.failed.get_or_insert(error.into());
        }
    }

    /// True when all is written.
    pub fn is_written(&mut self) -> bool {
        self.session.as_mut().filter(|_| self.is_greeted).is_none_or(|session| session.outbox().is_empty())
    }

    /// Ends the test if this is no way for an honest client's connection to end. True when the queue takes no more.
    pub fn judge(&self, stage: &Stage) -> bool {
        match &self.failed {
            Some(Error::Closed { reason: CloseReason::Ended, .. }) => true,
            Some(Error::Closed { reason: CloseReason::Replaced, .. } | Error::Gone(_)) if !stage.faultless => false,
            other => panic!("the connection of an honest client, {:?}, fails: {other:?}", self.client),
        }
    }
}
