//! The queue's figures for other threads of the coordinator: they ask, the loop answers at its next turn, and never waits for them.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::Status;

/// The loop's end.
#[derive(Debug, Default)]
pub struct Figures {
    shared: Arc<Shared>,
}

/// The end of those who ask; each thread has its own.
#[derive(Clone)]
pub struct Asker {
    shared: Arc<Shared>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicBool,
    latest: Mutex<Latest>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Latest {
    /// Counts answers, so that who asks can tell a new one.
    number: u64,
    status: Status,
}

impl Figures {
    /// Lets another thread ask; `wake` makes the loop turn.
    pub fn asker(&self, wake: impl Fn() + Send + Sync + 'static) -> Asker {
        Asker { shared: Arc::clone(&self.shared), wake: Arc::new(wake) }
    }

    /// True if somebody has asked since the last answer.
    pub fn is_asked(&self) -> bool {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Answers all who have asked.
    pub fn answer(&self, status: Status) {
        // Before looking: who asks from now on is answered the next time.
        self.shared.asked.store(false, Ordering::Relaxed);
        let mut latest = self.shared.lock();
        *latest = Latest { number: latest.number + 1, status };
        self.shared.news.notify_all();
    }
}

impl Asker {
    /// The queue's figures as they are now; none if the loop has not answered in time.
    pub fn ask(&self, within: Duration) -> Option<Status> {
        let latest = self.shared.lock();
        let before = latest.number;
        self.shared.asked.store(true, Ordering::Relaxed);
        (self.wake)();
        let waited = self.shared.news.wait_timeout_while(latest, within, |latest| latest.number == before);
        let (latest, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then(|| latest.status.clone())
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Latest> {
        // Nothing that holds it can panic halfway through a change.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn each_who_asks_gets_figures_from_after_the_question() {
        let figures = Figures::default();
        let asker = figures.asker(|| {});
        figures.answer(Status { ready: 1, ..Status::default() });
        assert_eq!(asker.ask(Duration::ZERO), None, "an answer from before is none");
        let askers = [0; 2].map(|_| asker.clone());
        thread::scope(|scope| {
            let asked = askers.map(|asker| scope.spawn(move || asker.ask(Duration::from_secs(30))));
            while !asked.iter().all(thread::ScopedJoinHandle::is_finished) {
                if figures.is_asked() {
                    figures.answer(Status { ready: 2, ..Status::default() });
                }
            }
            for answer in asked {
                assert_eq!(answer.join().unwrap().unwrap().ready, 2);
            }
        });
        assert!(!figures.is_asked());
    }

    #[test]
    fn who_asks_wakes_the_loop() {
        let woken = Arc::new(AtomicBool::new(false));
        let figures = Figures::default();
        let seen = Arc::clone(&woken);
        figures.asker(move || seen.store(true, Ordering::Relaxed)).ask(Duration::ZERO);
        assert!(woken.load(Ordering::Relaxed) && figures.is_asked());
    }
}
