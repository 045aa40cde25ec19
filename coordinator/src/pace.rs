//! How fast something goes, of late. No clock: time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

/// Looks that are kept: so many make a smooth figure, and no more are needed.
const LOOKS: u32 = 20;

/// A count, looked at now and then, and how fast it grew over a window of time.
#[derive(Clone, Debug)]
pub struct Pace {
    window: Duration,
    looks: VecDeque<(Duration, u64)>,
}

impl Pace {
    /// Of the last `window`.
    pub fn over(window: Duration) -> Pace {
        Pace { window, looks: VecDeque::new() }
    }

    /// The count is this now.
    pub fn note(&mut self, now: Duration, count: u64) {
        // The newest is replaced as long as the one before it is near.
        let near = self.looks.len() >= 2 && self.looks.get(self.looks.len() - 2).is_some_and(|(at, _)| now - *at < self.window / LOOKS);
        if near {
            self.looks.pop_back();
        }
        self.looks.push_back((now, count));
        while self.looks.len() > 2 && self.looks.get(1).is_some_and(|(at, _)| *at + self.window <= now) {
            self.looks.pop_front();
        }
    }

    /// By how much it grew in a second; none before there are two looks.
    pub fn per_second(&self) -> Option<f64> {
        let ((since, before), (until, count)) = (self.looks.front()?, self.looks.back()?);
        let seconds = until.saturating_sub(*since).as_secs_f64();
        (seconds > 0.0).then(|| count.saturating_sub(*before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_that_of_its_window_however_often_it_is_looked_at() {
        let mut pace = Pace::over(Duration::from_secs(10));
        assert_eq!(pace.per_second(), None);
        pace.note(Duration::ZERO, 0);
        assert_eq!(pace.per_second(), None);
        for ms in 1..=20_000 {
            pace.note(Duration::from_millis(ms), ms / 10);
        }
        assert_eq!(pace.per_second().map(f64::round), Some(100.0));
        assert!(pace.looks.len() <= LOOKS as usize + 2, "{}", pace.looks.len());
        for ms in 20_001..=40_000 {
            pace.note(Duration::from_millis(ms), 2000);
        }
        assert_eq!(pace.per_second(), Some(0.0), "what was long ago is forgotten");
    }
}
