//! Numbers, rates, times and sizes as people read them.

use std::time::Duration;

use bytesize::ByteSize;

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut words = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// `950`, `12.3k`, `4.56M`: three digits, for where there is little room.
pub fn short(number: f64) -> String {
    for (unit, sign) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        // What would be rounded up to the next unit is of that unit.
        if number >= unit * 0.9995 {
            return format!("{}{sign}", three_digits(number / unit));
        }
    }
    if number >= 9.95 || number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

fn three_digits(number: f64) -> String {
    let decimals = if number < 9.995 {
        2
    } else if number < 99.95 {
        1
    } else {
        0
    };
    format!("{number:.decimals$}")
}

/// `83/s`, `1.20M/s`; `12/min` for what comes less often than once a second.
pub fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 0.95 { format!("{}/min", short(per_second * 60.0)) } else { format!("{}/s", short(per_second)) }
}

/// `7s`, `1m 05s`, `2h 03m`, `3d 04h`.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The same with more of what is short: `12 ms`, `1.23s`, `12.3s`.
pub fn exact_time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.9995 => format!("{} ms", (seconds * 1000.0).round()),
        seconds if seconds < 59.95 => format!("{}s", three_digits(seconds)),
        _ => self::time(time),
    }
}

/// The same in seven columns: `40ms`, `1.5s`, `59s`, `1m 05s`.
pub fn brief_time(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms}ms"),
        ms @ 1000..10_000 => format!("{}.{}s", ms / 1000, ms / 100 % 10),
        _ => self::time(time),
    }
}

/// `12.3 MiB`.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Whole percents, 100 only when all is there.
pub fn percent(part: u64, whole: u64) -> u64 {
    (u128::from(part) * 100 / u128::from(whole.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_round() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let shown = [0.0, 0.44, 9.0, 9.96, 950.2, 999.6, 1234.0, 99_960.0, 999_600.0, 5e9].map(short);
        assert_eq!(shown, ["0", "0.4", "9", "10", "950", "1.00k", "1.23k", "100k", "1.00M", "5.00G"]);
        assert_eq!([0.0, 0.2, 0.94, 1.5, 52e6].map(rate), ["0/s", "12/min", "56/min", "1.5/s", "52.0M/s"]);
        assert_eq!([size(512), size(12_900_000)], ["512 B", "12.3 MiB"]);
        assert_eq!([percent(1, 0), percent(999, 1000), percent(u64::MAX, u64::MAX)], [100, 99, 100]);
    }

    #[test]
    fn times_have_two_units_at_most() {
        let shown = [0, 59, 65, 3599, 7384, 273_600].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "59s", "1m 05s", "59m 59s", "2h 03m", "3d 04h"]);
        let shown = [0, 999, 1599, 9999, 10_000, 65_000].map(|ms| brief_time(Duration::from_millis(ms)));
        assert_eq!(shown, ["0ms", "999ms", "1.5s", "9.9s", "10s", "1m 05s"]);
        let shown = [7, 1234, 12_345, 65_000].map(|ms| exact_time(Duration::from_millis(ms)));
        assert_eq!(shown, ["7 ms", "1.23s", "12.3s", "1m 05s"]);
    }
}
