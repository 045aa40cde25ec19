//! How long to wait before the next try: doubled with each, up to an end.

use std::time::Duration;

/// Of a delay, one part in so many may be left out: enough to spread those of a second over a quarter of one, little enough that the
/// delay still is about what was asked for.
const SPREAD_PART: u32 = 4;

/// A delay that grows from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl Backoff {
    /// The delay after failure number `failure`, from 1 on.
    pub fn after(&self, failure: u32) -> Duration {
        let factor = 1u32.checked_shl(failure.saturating_sub(1)).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }

    /// The same for one of many that may all have failed at the same instant, `which` telling it from the others: up to a quarter
    /// earlier, so that they do not all come again at the same instant. The same for the same every time.
    pub fn spread(&self, failure: u32, which: u64) -> Duration {
        let delay = self.after(failure);
        delay - (delay / SPREAD_PART).mul_f64(hashed(which, failure))
    }
}

/// Evenly over 0 to 1, and nothing alike for neighbours: the finalizer of SplitMix64.
fn hashed(which: u64, failure: u32) -> f64 {
    let mut hash = which.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(failure) << 32;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // Of its bits, as many as fit.
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// Why a text is no [`Backoff`].
#[derive(Debug, thiserror::Error)]
pub enum BackoffError {
    /// One of its ends is no duration.
    #[error(transparent)]
    Duration(#[from] humantime::DurationError),
    /// Its ends are in the wrong order.
    #[error("the first delay is longer than the second; write the shorter first, as in 1s..60s")]
    Order,
}

impl std::str::FromStr for Backoff {
    type Err = BackoffError;

    fn from_str(text: &str) -> Result<Backoff, BackoffError> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (min, max) = (humantime::parse_duration(min)?, humantime::parse_duration(max)?);
        if min > max { Err(BackoffError::Order) } else { Ok(Backoff { min, max }) }
    }
}

impl std::fmt::Display for Backoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |duration| humantime::format_duration(duration).to_string().replace(' ', "");
        write!(f, "{}..{}", shown(self.min), shown(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_reads_as_it_is_shown_and_doubles_up_to_its_end() {
        let delay: Backoff = "1s..5s".parse().unwrap();
        assert_eq!(delay.to_string(), "1s..5s");
        assert_eq!([1, 2, 3, 4, 99].map(|failure| delay.after(failure).as_secs()), [1, 2, 4, 5, 5]);
        assert_eq!("1m30s".parse::<Backoff>().unwrap().to_string(), "1m30s..1m30s");
        assert!("5s..1s".parse::<Backoff>().unwrap_err().to_string().contains("shorter first"));
        assert!("x..1s".parse::<Backoff>().is_err());
    }

    #[test]
    fn a_delay_is_spread_over_its_last_quarter_and_is_the_same_every_time() {
        let delay = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };
        let mut times: Vec<u128> = (0..1000).map(|which| delay.spread(3, which).as_millis()).collect();
        assert_eq!(delay.spread(3, 7), delay.spread(3, 7));
        times.sort_unstable();
        assert!(times.iter().all(|ms| (3000..=4000).contains(ms)), "{times:?}");
        for (tenth, ms) in times.chunks(100).map(|tenth| tenth[50]).enumerate() {
            assert!(ms.abs_diff(3050 + 100 * tenth as u128) < 30, "unevenly: {ms}");
        }
        assert_ne!(delay.spread(1, 7) * 2, delay.spread(2, 7), "another place every time");
        assert_eq!(Backoff { min: Duration::ZERO, max: Duration::ZERO }.spread(9, 9), Duration::ZERO);
        let one = Duration::from_nanos(1);
        assert_eq!(Backoff { min: one, max: one }.spread(1, 1), one);
    }

    #[test]
    fn places_are_those_of_splitmix64_and_another_for_each_failure() {
        // Its first three numbers for the seed 0.
        for (which, number) in [(1, 0xe220_a839_7b1d_cdaf_u64), (2, 0x6e78_9e6a_a1b9_65f4), (3, 0x06c4_5d18_8009_454f)] {
            assert_eq!(hashed(which, 0), (number >> 11) as f64 / (1u64 << 53) as f64);
        }
        let mut places: Vec<f64> = (0..64).map(|failure| hashed(2, failure)).collect();
        places.sort_unstable_by(f64::total_cmp);
        places.dedup();
        assert_eq!(places.len(), 64);
    }
}
