//! The time of this machine. Limits: read by commands; the gate's own decisions take theirs from the stream's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::authorize::ids::UnixMillis;

/// The present moment; `None` where the clock stands before 1970.
pub fn now() -> Option<UnixMillis> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMillis)
}

/// A moment as RFC 3339, as seconds since 1970, or `now`.
///
/// # Errors
/// It is none of them, or not between 1970 and 5138.
pub fn parse(text: &str) -> Result<UnixMillis, String> {
    if text == "now" {
        return now().ok_or_else(|| "the clock of this machine shows no usable time".to_owned());
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(UnixMillis(at.as_millisecond()));
    }
    let seconds: f64 = text.parse().map_err(|_| "neither RFC 3339 nor seconds since 1970".to_owned())?;
    if !(0.0..=1e11).contains(&seconds) {
        return Err("not between 1970 and the year 5138".to_owned());
    }
    Ok(UnixMillis((seconds * 1000.0).round() as i64))
}

/// The longest that a command waits.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long a command waits: a time such as `500ms`, `30s` or `2m`, or a number of seconds; at most a day.
///
/// # Errors
/// It is none, or longer.
pub fn span(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let time = || Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok();
    let span = seconds.or_else(time).ok_or("neither a time such as `30s` or `2m` nor a number of seconds")?;
    if span > LONGEST { Err("longer than a day".to_owned()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_both_forms() {
        assert_eq!(parse("2030-01-01T00:00:00Z"), Ok(UnixMillis(1_893_456_000_000)));
        assert_eq!(parse("1893456000.5"), Ok(UnixMillis(1_893_456_000_500)));
        assert!(parse("now").unwrap() > UnixMillis(1_700_000_000_000));
        for bad in ["yesterday", "-1", "NaN", "1e30"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wait_is_a_time_or_a_number_of_seconds_and_bounded() {
        let cases =
            [("30s", 30_000), ("2m", 120_000), ("500ms", 500), ("0", 0), ("45", 45_000), ("24h", 86_400_000)];
        for (text, milliseconds) in cases {
            assert_eq!(span(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "soon", "-1s", "-1", "25h", "99999999999999999999s"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
