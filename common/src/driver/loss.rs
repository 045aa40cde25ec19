//! What becomes of a connection that is lost: its end, unless it may be made again.
//!
//! When a connection is lost that may be made again, the background thread does that, since nobody limits its time. Callers that
//! need the coordinator wait for its news, each as long as it may.

use std::fmt;
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tracing::{debug, info};

use super::greeting::{Greeted, greet};
use super::{Driver, State};
use crate::endpoint::EndpointError;
use crate::error::Error;
use crate::limits::CONNECT_RETRY;
use crate::message::Message;
use crate::program::tell;
use crate::session::Session;

/// There is no connection now; the background thread tries to make one.
#[derive(Debug)]
pub(super) struct Lost {
    why: String,
    /// None: without end.
    until: Option<Instant>,
}

impl<S: Session> Driver<S> {
    /// The connection has failed: for good, unless it may be made again.
    pub(super) fn fail(&self, state: &mut State<S>, error: Error) {
        if state.failed.is_some() || state.lost.is_some() {
            return;
        }
        if !state.closing {
            debug!(role = ?self.role, %error, "connection lost");
        }
        match error {
            Error::Gone(why) if !state.reconnect.is_zero() => {
                state.lost = Some(Lost { why, until: Instant::now().checked_add(state.reconnect) });
                state.session.lose();
                // Who polls it is to look up; and nobody is to think that this client still holds what it held.
                let _ = state.stream.shutdown(Shutdown::Both);
                if let Some(background) = &state.background {
                    background.unpark();
                }
            }
            error => state.failed = Some(error),
        }
    }

    /// Tries to make a lost connection again until it is there, or the time is over, or the client is dropped.
    pub(super) fn come_again(&self) {
        let within = humantime::format_duration(self.endpoint.reconnect());
        self.narrate(format_args!("connection to the coordinator lost; trying for {within}"));
        let came_again = loop {
            // There is nothing to wait on: the socket's directory itself may not exist for a while.
            thread::sleep(CONNECT_RETRY);
            let tried = self.try_again();
            let mut state = self.lock();
            if state.closing {
                return;
            }
            let Some(Lost { why, until }) = &state.lost else { return };
            let failed = match tried {
                Ok(greeted) => {
                    let pid = greeted.0.pid;
                    self.resume(&mut state, greeted);
                    break state.failed.is_none().then_some(pid);
                }
                Err(error) if !is_passing(&error) => error,
                Err(_) if until.is_none_or(|until| Instant::now() < until) => continue,
                Err(_) => Error::Gone(format!("{why}, and did not come back within {within}")),
            };
            (state.failed, state.lost) = (Some(failed), None);
            self.wake_waiters(&state);
            break None;
        };
        if let Some(pid) = came_again {
            info!(role = ?self.role, coordinator = pid, "connected again");
            self.narrate(format_args!("connected again (pid {pid})"));
        }
    }

    /// Connects and greets, once.
    fn try_again(&self) -> Result<Greeted, Error> {
        let stream = Arc::new(self.endpoint.connect()?);
        stream.set_nonblocking(true)?;
        let mut state = self.lock();
        if state.closing {
            return Err(Error::Gone("nobody needs it any more".into()));
        }
        // So that who drops this client can end the greeting.
        state.stream = Arc::clone(&stream);
        let until = state.lost.as_ref().and_then(|lost| lost.until);
        drop(state);
        greet(&stream, self.role, &self.name, until)
    }

    /// There is a connection again.
    fn resume(&self, state: &mut State<S>, (greeting, reader, frames): Greeted) {
        (state.greeting, state.reader, state.lost) = (greeting, reader, None);
        let handled = state.session.resume(greeting);
        let handled = handled.and_then(|()| frames.into_iter().try_for_each(|frame| state.session.handle(Message::decode(frame)?)));
        if let Err(error) = handled {
            state.failed = Some(error);
            let _ = state.stream.shutdown(Shutdown::Both);
        }
        // What is asked again leaves at once, whether or not a caller waits for it.
        state.alarm_at = Some(self.now());
        self.wake_waiters(state);
    }

    fn narrate(&self, words: fmt::Arguments<'_>) {
        if let Some(program) = self.endpoint.narrator() {
            tell(program, words);
        }
    }
}

/// True for what may be over soon: the coordinator is about to come up, or has gone once more.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Gone(_) | Error::Handshake => true,
        Error::Endpoint(error) => matches!(**error, EndpointError::NoCoordinator { .. }),
        _ => false,
    }
}
