//! Looking for news again and again before going to sleep: to wake a sleeping core takes tens of microseconds, and a core to look takes all of it.

use std::time::{Duration, Instant};

/// Calls `look` until it finds something or `spin` has passed; once at least, unless `spin` is zero.
pub fn look_for<T>(spin: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    if spin.is_zero() {
        return None;
    }
    let started = Instant::now();
    loop {
        let found = look();
        if found.is_some() || started.elapsed() >= spin {
            return found;
        }
        // What is waited for may be done by a process that waits for this very core.
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_until_something_is_found_or_the_time_is_over() {
        let mut looks = 0;
        let third = || {
            looks += 1;
            (looks == 3).then_some(looks)
        };
        assert_eq!(look_for(Duration::from_secs(60), third), Some(3));
        assert_eq!(look_for(Duration::from_nanos(1), || None::<()>), None);
        assert_eq!(look_for(Duration::ZERO, || Some(())), None);
    }
}
