//! Moves bytes between a client's session and its socket. Callers do it in their own threads, so that an item pays no hand-over;
//! a thread of the connection's own steps in only for what must leave although nobody calls.
//!
//! Of the callers that wait, one polls the socket, and while it does nobody else reads: what somebody else took in could be what it
//! polls for, and would not wake it. The others wait for it to bring news.

mod greeting;
mod loss;

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use greeting::greet;
use loss::Lost;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::{debug, trace};

use crate::biased::{Biased, Guard, OwnersGuard, make_ready_if_wanted};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::frame::FrameReader;
use crate::limits::{FLUSH_DELAY, LOSS_LOOK};
use crate::message::{Message, Role};
use crate::session::{Greeting, Session};
use crate::spin::look_for;
use crate::transport::{self, Came, Scratch};

/// The background thread never waits for the lock, which would make each of the callers' calls wake it; it comes again after this long,
/// then after twice as long, up to [`FLUSH_DELAY`]. Callers that hold the lock so often send what has gathered by themselves.
const LOCKED_RETRY_MIN: Duration = Duration::from_micros(100);

/// So much later than it is due something may be done, if the background thread need not be called for it: it still leaves within the promised
/// millisecond.
const ALARM_SLACK: Duration = Duration::from_micros(125);

/// A connection that both callers and the background thread drive.
#[derive(Debug)]
pub(crate) struct Driver<S> {
    endpoint: Endpoint,
    role: Role,
    name: String,
    started: Instant,
    state: Biased<State<S>>,
    news: Condvar,
}

#[derive(Debug)]
pub(crate) struct State<S> {
    pub(crate) session: S,
    pub(crate) greeting: Greeting,
    /// Pollers share it while they do not hold the lock.
    stream: Arc<UnixStream>,
    reader: FrameReader,
    scratch: Scratch,
    failed: Option<Error>,
    lost: Option<Lost>,
    /// How long a lost connection is tried to be made again.
    reconnect: Duration,
    polling: bool,
    waiters: u32,
    /// When the background thread looks next; it sleeps until it is called when there is none.
    alarm_at: Option<Duration>,
    /// Something became due since the background thread looked. As long as that goes on it looks every [`FLUSH_DELAY`]: to call it would
    /// cost the callers more.
    armed: bool,
    background: Option<Thread>,
    closing: bool,
}

/// A driver and its background thread; dropping it says goodbye.
#[derive(Debug)]
pub(crate) struct Connection<S: Session + 'static> {
    driver: Arc<Driver<S>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<S: Session + 'static> Connection<S> {
    /// Connects, greets, and hands the greeting's answer to `session`.
    pub(crate) fn open(endpoint: &Endpoint, role: Role, name: &str, session: impl FnOnce(Greeting) -> S) -> Result<Connection<S>, Error> {
        let stream = endpoint.connect()?;
        stream.set_nonblocking(true)?;
        let (greeting, reader, frames) = greet(&stream, role, name, None)?;
        let Greeting { pid, position, item_bytes_max, .. } = greeting;
        debug!(?role, name, socket = %endpoint.path().display(), coordinator = pid, position = position.0, item_bytes_max, "greeted");
        let driver = Arc::new(Driver {
            endpoint: endpoint.clone(),
            role,
            name: name.into(),
            started: Instant::now(),
            state: Biased::new(State {
                session: session(greeting),
                greeting,
                stream: Arc::new(stream),
                reader,
                scratch: Scratch::default(),
                failed: None,
                lost: None,
                reconnect: endpoint.reconnect(),
                polling: false,
                waiters: 0,
                alarm_at: None,
                armed: false,
                background: None,
                closing: false,
            }),
            news: Condvar::new(),
        });
        for frame in frames {
            driver.lock().session.handle(Message::decode(frame)?)?;
        }
        let background = Arc::clone(&driver);
        let thread =
            thread::Builder::new().name("procq-client".into()).stack_size(128 * 1024).spawn(move || background.run_background())?;
        driver.lock().background = Some(thread.thread().clone());
        Ok(Connection { driver, thread: Some(thread) })
    }

    /// Ends the connection after `last` has had until `deadline` to see everything through.
    pub(crate) fn close(&mut self, deadline: Instant, mut last: impl FnMut(&mut S) -> bool) {
        let Some(thread) = self.thread.take() else { return };
        let mut state = self.driver.lock();
        let (state_after, _) = self.driver.wait_until(state, Some(deadline), |session| last(session).then_some(()));
        state = state_after;
        let lost = state.lost.is_some();
        if !lost {
            state.reconnect = Duration::ZERO;
            state.session.goodbye();
            (state, _) = self.driver.wait_until(state, Some(deadline), |session| session.outbox().is_empty().then_some(()));
        }
        state.closing = true;
        let _ = state.stream.shutdown(Shutdown::Both);
        drop(state);
        thread.thread().unpark();
        // A thread that tries to connect may be held up by a coordinator that is stopped; it ends when it can.
        if !lost {
            // It may be this very thread's turn only if a session's callback dropped its client, which none does.
            let _ = thread.join();
        }
    }
}

impl<S: Session + 'static> std::ops::Deref for Connection<S> {
    type Target = Driver<S>;

    fn deref(&self) -> &Driver<S> {
        &self.driver
    }
}

impl<S: Session> Driver<S> {
    /// The state, which only its holder may use.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, State<S>> {
        // A panic while the lock is held can come only from an encoder of the caller's, which leaves the batch as it was.
        self.state.lock()
    }

    /// The state, for the thread that uses it most; for others see [`Driver::lock`].
    #[inline(always)]
    pub(crate) fn lock_as_owner(&self) -> Option<OwnersGuard<'_, State<S>>> {
        self.state.lock_as_owner()
    }

    /// Time since the connection's beginning.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The socket of the connection that there is, or was last.
    pub(crate) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.lock().stream)
    }

    /// Lets those who wait for news look again.
    pub(crate) fn wake_waiters(&self, state: &State<S>) {
        if state.waiters > 0 {
            self.news.notify_all();
        }
    }

    /// Writes what the socket takes, without waiting.
    pub(crate) fn write(&self, state: &mut State<S>) -> Result<(), Error> {
        state.check()?;
        self.write_outbox(state);
        state.check()
    }

    /// Takes in what has come, without waiting.
    pub(crate) fn read(&self, state: &mut State<S>) -> Result<(), Error> {
        state.check()?;
        self.receive_unless_polled(state);
        state.check()
    }

    /// Sees to it that the background thread wakes in time for what is pending now. Call it before giving the lock back.
    pub(crate) fn arm(&self, state: &mut State<S>) {
        let unwritten = (!state.session.outbox().is_empty()).then(|| self.now() + FLUSH_DELAY);
        let Some(due) = state.session.next_timeout().into_iter().chain(unwritten).chain(self.look_at(state)).min() else { return };
        state.armed = true;
        if state.alarm_at.is_none_or(|at| due + ALARM_SLACK < at) {
            // However late that is: something that may take only so long is likely to follow, and would call once more.
            state.alarm_at = Some(due.min(self.now() + FLUSH_DELAY + ALARM_SLACK));
            if let Some(background) = &state.background {
                background.unpark();
            }
        }
    }

    /// When the background thread has to look whether the connection is lost.
    fn look_at(&self, state: &State<S>) -> Option<Duration> {
        (!state.reconnect.is_zero() && state.session.is_owed()).then(|| self.now() + LOSS_LOOK)
    }

    /// Writes and reads until `ready` has an answer (`Ok(Some)`), the deadline passes (`Ok(None)`), or the connection fails.
    pub(crate) fn wait_until<'a, R>(
        &'a self,
        mut state: Guard<'a, State<S>>,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut S) -> Option<R>,
    ) -> (Guard<'a, State<S>>, Result<Option<R>, Error>) {
        loop {
            // An answer that came before the connection's end counts.
            if let Some(answer) = ready(&mut state.session) {
                self.arm(&mut state);
                return (state, Ok(Some(answer)));
            }
            if let Err(error) = state.check() {
                return (state, Err(error));
            }
            self.write_outbox(&mut state);
            if ready_after_write(&mut state, &mut ready) {
                continue;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.arm(&mut state);
                return (state, Ok(None));
            }
            state = if state.polling || state.lost.is_some() { self.wait_for_news(state, left) } else { self.poll_socket(state, left) };
        }
    }

    /// Writes and reads until `ready` has an answer, however long that takes.
    pub(crate) fn wait_for<'a, R>(&'a self, state: Guard<'a, State<S>>, ready: impl FnMut(&mut S) -> Option<R>) -> Result<R, Error> {
        let (state, waited) = self.wait_until(state, None, ready);
        drop(state);
        // Without a deadline, the wait ends with an answer or an error.
        waited?.ok_or(Error::Unexpected("end of a wait without deadline"))
    }

    fn wait_for_news<'a>(&'a self, mut state: Guard<'a, State<S>>, left: Option<Duration>) -> Guard<'a, State<S>> {
        state.waiters += 1;
        // Who waits here may also have bytes that did not fit; the poller only looks for what was there when it began.
        let unwritten = state.lost.is_none() && !state.session.outbox().is_empty();
        let left = if unwritten { Some(left.unwrap_or(FLUSH_DELAY).min(FLUSH_DELAY)) } else { left };
        let mut state = self.state.wait(state, &self.news, left);
        state.waiters -= 1;
        state
    }

    fn poll_socket<'a>(&'a self, mut state: Guard<'a, State<S>>, left: Option<Duration>) -> Guard<'a, State<S>> {
        state.polling = true;
        let stream = Arc::clone(&state.stream);
        let mut flags = PollFlags::IN;
        if !state.session.outbox().is_empty() {
            flags |= PollFlags::OUT;
        }
        drop(state);
        let look = |left: Option<Duration>| {
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            poll(&mut [PollFd::new(&*stream, flags)], timeout.as_ref())
        };
        let spin = self.endpoint.spin();
        let spin = left.map_or(spin, |left| left.min(spin));
        let found = look_for(spin, || Some(look(Some(Duration::ZERO))).filter(|found| *found != Ok(0)));
        let polled = found.unwrap_or_else(|| look(left.map(|left| left - spin)));
        let mut state = self.lock();
        state.polling = false;
        match polled {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => self.receive(&mut state),
            Err(error) => self.fail(&mut state, std::io::Error::from(error).into()),
        }
        self.wake_waiters(&state);
        state
    }

    fn write_outbox(&self, state: &mut State<S>) {
        if state.session.outbox().is_empty() || state.lost.is_some() {
            return;
        }
        let State { session, stream, .. } = &mut *state;
        let outbox = session.outbox();
        trace!(role = ?self.role, bytes = outbox.bytes(), "writing");
        let written = outbox.write_to(|slices| transport::send(stream, slices));
        if let Err(error) = written {
            // What the coordinator said before it closed is still there to be read, and says more than a broken pipe. Who polls meets
            // the end in any case.
            self.receive(state);
            self.fail(state, error.into());
            self.wake_waiters(state);
        }
    }

    /// Takes in what has come, unless a caller polls for it.
    fn receive_unless_polled(&self, state: &mut State<S>) {
        if !state.polling {
            self.receive(state);
            self.wake_waiters(state);
        }
    }

    fn receive(&self, state: &mut State<S>) {
        while state.failed.is_none() && state.lost.is_none() {
            let State { session, stream, reader, scratch, .. } = state;
            let came = transport::receive(&**stream, reader, scratch, |frame| session.handle(Message::decode(frame)?));
            match came {
                Ok(Came::More) => {}
                Ok(Came::Drained) => return,
                Ok(Came::End) => self.fail(state, Error::Gone("it closed the connection".into())),
                Err(error) => self.fail(state, error),
            }
        }
    }

    fn run_background(&self) {
        let mut retry = LOCKED_RETRY_MIN;
        loop {
            make_ready_if_wanted();
            let Some(mut state) = self.state.try_lock() else {
                thread::park_timeout(retry);
                retry = (2 * retry).min(FLUSH_DELAY);
                continue;
            };
            retry = LOCKED_RETRY_MIN;
            if state.closing {
                return;
            }
            if state.lost.is_some() {
                drop(state);
                self.come_again();
                continue;
            }
            let now = self.now();
            let Some(alarm_at) = state.alarm_at else {
                drop(state);
                thread::park();
                continue;
            };
            if alarm_at > now {
                drop(state);
                thread::park_timeout(alarm_at - now);
                continue;
            }
            if state.failed.is_some() {
                state.alarm_at = None;
                continue;
            }
            let due = state.session.next_timeout().is_some_and(|due| due <= now);
            if due || self.look_at(&state).is_some() {
                self.receive_unless_polled(&mut state);
            }
            if due {
                state.session.handle_timeout(now);
            }
            self.write_outbox(&mut state);
            // Who polls has nothing to do, and calls when that is over.
            let busy = std::mem::take(&mut state.armed) && !state.polling;
            let go_on = busy || !state.session.outbox().is_empty();
            let soon = go_on.then(|| now + FLUSH_DELAY).into_iter().chain(self.look_at(&state));
            state.alarm_at = state.session.next_timeout().map(|due| due.max(now)).into_iter().chain(soon).min();
        }
    }
}

fn ready_after_write<S: Session, R>(state: &mut State<S>, ready: &mut impl FnMut(&mut S) -> Option<R>) -> bool {
    // Only "all is written" can have become true by writing, and asking twice costs nothing.
    state.failed.is_some() || (state.session.outbox().is_empty() && ready(&mut state.session).is_some())
}

impl<S: Session> State<S> {
    fn check(&self) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}
