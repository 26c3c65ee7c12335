//! Human forms of durations on the command line and in reports.

use std::time::Duration;

/// Reads `500ms`, `2s`, `1m 30s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example 500ms, 2s or 1m"))
}

/// Reads a time that is longer than nothing.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be longer than 0; write for example 500ms, 2s or 1m".to_owned()),
        time => Ok(time),
    }
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
    fn milliseconds_keep_three_digits() {
        assert_eq!(show_ms(0.8449), "0.84 ms");
        assert_eq!(show_ms(12.34), "12.3 ms");
        assert_eq!(show_ms(2314.0), "2.31 s");
    }
}
