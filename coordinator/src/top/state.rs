//! What is known of a coordinator, and what its user looks at.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use common::Status;
use common::status::{ClientStatus, Work};

use crate::limits::{PROGRESS_WINDOW, TOP_HISTORY_MAX};
use crate::pace::Pace;
use crate::words;

/// A figure over time, the newest first.
pub(super) type History = VecDeque<u64>;

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    /// Where the coordinator listens.
    pub(super) socket: String,
    pid: u32,
    interval: Duration,
    /// Time since we began.
    pub(super) now: Duration,
    /// The newest figures; none before the first answer.
    pub(super) status: Option<Status>,
    pub(super) clients: Vec<ClientStatus>,
    heard: Duration,
    /// Items in a second: put, and done.
    pub(super) put: History,
    pub(super) done: History,
    pub(super) depth: History,
    paces: BTreeMap<u64, Pace>,
    /// The first line of each list that is seen.
    pub(super) scroll: usize,
    pub(super) confirms_stop: bool,
    /// What came of the last order.
    pub(super) words: Option<String>,
}

impl State {
    pub(super) fn new(socket: String, pid: u32, interval: Duration) -> State {
        State {
            socket,
            pid,
            interval,
            now: Duration::ZERO,
            status: None,
            clients: Vec::new(),
            heard: Duration::ZERO,
            put: History::new(),
            done: History::new(),
            depth: History::new(),
            paces: BTreeMap::new(),
            scroll: 0,
            confirms_stop: false,
            words: None,
        }
    }

    /// True when the coordinator hands out nothing for now.
    pub(super) fn is_paused(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.paused)
    }

    /// Takes in new figures.
    pub(super) fn take(&mut self, status: Status, clients: Vec<ClientStatus>) {
        if let Some(before) = &self.status {
            // By the coordinator's own clock: when we hear of it says little.
            let seconds = status.uptime_ms.saturating_sub(before.uptime_ms).max(1) as f64 / 1000.0;
            let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
            note(&mut self.put, rate(status.accepted, before.accepted));
            note(&mut self.done, rate(status.settled(), before.settled()));
        }
        note(&mut self.depth, status.stored());
        let at = Duration::from_millis(status.uptime_ms);
        let mut paces = std::mem::take(&mut self.paces);
        for client in &clients {
            let count = match client.work {
                Work::Producer { accepted, .. } => accepted,
                Work::Consumer { done, .. } => done,
                Work::Control => continue,
            };
            let mut pace = paces.remove(&client.number).unwrap_or_else(|| Pace::over(PROGRESS_WINDOW));
            pace.note(at, count);
            self.paces.insert(client.number, pace);
        }
        self.status = Some(status);
        self.clients = clients;
        self.heard = self.now;
    }

    /// How fast a client is, of late.
    pub(super) fn rate_of(&self, number: u64) -> Option<f64> {
        self.paces.get(&number)?.per_second()
    }

    /// For how long the coordinator has not answered, if that is longer than it should be.
    pub(super) fn silence(&self) -> Option<Duration> {
        let silence = self.now.saturating_sub(self.heard);
        (silence > 2 * self.interval + Duration::from_secs(1)).then_some(silence)
    }

    /// What is left to be said once the coordinator is gone; `why` only if it is more than that.
    pub(super) fn last_words(&self, why: Option<&str>) -> String {
        let last = self.status.as_ref().map(|status| {
            let (done, dead, left) = (words::count(status.acknowledged), words::count(status.dead), words::count(status.stored()));
            format!("; at the last look: {done} done, {dead} dead, {left} left")
        });
        let why = why.map(|why| format!(" ({why})"));
        format!("pid {} has ended{}{}", self.pid, why.unwrap_or_default(), last.unwrap_or_default())
    }
}

fn note(history: &mut History, figure: u64) {
    history.push_front(figure);
    history.truncate(TOP_HISTORY_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_coordinators_clock_and_clients_that_left_are_forgotten() {
        let mut state = State::new("q".into(), 7, Duration::from_secs(1));
        let client = |number, done| {
            let work = Work::Consumer { held: 0, at_hand: None, waiting: false, done, failed: 0 };
            ClientStatus { number, pid: None, connected_ms: 0, work }
        };
        state.take(Status { uptime_ms: 1000, accepted: 10, ..Status::default() }, vec![client(3, 5), client(4, 0)]);
        assert_eq!((state.put.len(), state.rate_of(3)), (0, None));
        let status = Status { uptime_ms: 1500, accepted: 60, acknowledged: 20, dead: 1, ready: 39, ..Status::default() };
        state.take(status, vec![client(3, 25)]);
        assert_eq!((state.put[0], state.done[0], state.depth[0]), (100, 42, 39));
        assert_eq!((state.rate_of(3), state.rate_of(4)), (Some(40.0), None));
        assert_eq!(state.last_words(Some("why")), "pid 7 has ended (why); at the last look: 20 done, 1 dead, 39 left");
        assert_eq!(state.last_words(None), "pid 7 has ended; at the last look: 20 done, 1 dead, 39 left");
        state.now = Duration::from_secs(3);
        assert_eq!(state.silence(), None);
        state.now = Duration::from_secs(4);
        assert_eq!(state.silence(), Some(Duration::from_secs(4)));
    }
}
