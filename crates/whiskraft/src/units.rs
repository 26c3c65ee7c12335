//! Human forms of durations on the command line and in reports.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime_serde::re::humantime;

/// First moment that has no text form, the year 10000, counted from the Unix epoch.
const CALENDAR_END: Duration = Duration::from_secs(253_402_300_800);

/// Reads `500ms`, `2s`, `1m 30s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 500ms, 2s or 1m"))
}

/// Reads a time that is longer than nothing.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be longer than 0; write for example 500ms, 2s or 1m".to_owned()),
        time => Ok(time),
    }
}

/// Reads a moment: `2026-12-24T18:00:00Z` (a `T` or a space; the zone is always UTC), or `+30m` from `now` on.
pub(crate) fn parse_moment(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    if let Some(after) = text.strip_prefix('+') {
        let after = parse_duration(after)?;
        return now
            .checked_add(after)
            .filter(|at| {
                at.duration_since(UNIX_EPOCH)
                    .is_ok_and(|since| since < CALENDAR_END)
            })
            .ok_or_else(|| format!("{text:?} is after the year 9999"));
    }
    humantime::parse_rfc3339_weak(text).map_err(|_| {
        format!("{text:?} is no time; write for example 2026-12-24T18:00:00Z, in UTC, or +30m for half an hour from now")
    })
}

/// A moment in UTC with milliseconds, as `parse_moment` reads it.
pub(crate) fn show_moment(at: SystemTime) -> String {
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(at)) {
        Ok(()) => text,
        Err(_) => "after the year 9999".to_owned(),
    }
}

/// A duration as `parse_duration` reads it.
pub(crate) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Milliseconds with a precision that fits their size: `0.84 ms`, `12.3 ms`, `2.31 s`.
pub(crate) fn show_ms(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.1} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_nothing_is_refused_where_something_has_to_last() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        for text in ["0s", "0ms"] {
            let refused = parse_time(text).unwrap_err();
            assert!(
                refused.contains("longer than 0") && refused.contains("for example 500ms"),
                "{refused}"
            );
        }
        assert!(parse_time("5").unwrap_err().contains("500ms"));
    }

    #[test]
    fn a_moment_is_a_time_in_utc_or_some_time_from_now() {
        let now = UNIX_EPOCH + Duration::from_secs(86_400);
        for (text, seconds) in [
            ("1970-01-02T01:00:00Z", 90_000),
            ("1970-01-02 01:00:00", 90_000),
            ("+1h", 90_000),
            ("+1m 30s", 86_490),
        ] {
            let expected = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(parse_moment(text, now), Ok(expected), "{text}");
        }
        for text in [
            "tomorrow",
            "1h",
            "+",
            "+99999999999y",
            "2026-12-24T18:00:00+01:00",
        ] {
            assert!(parse_moment(text, now).is_err(), "{text}");
        }
        assert_eq!(show_moment(now), "1970-01-02T00:00:00.000Z");
        let late = UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 100);
        assert_eq!(show_moment(late), "after the year 9999");
    }

    #[test]
    fn milliseconds_keep_three_digits() {
        assert_eq!(show_ms(0.8449), "0.84 ms");
        assert_eq!(show_ms(12.34), "12.3 ms");
        assert_eq!(show_ms(2314.0), "2.31 s");
    }
}
