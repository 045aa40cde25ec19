//! How long to wait before the next try: doubled with each, up to an end.

use std::time::Duration;

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
}
