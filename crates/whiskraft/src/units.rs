//! Human forms of durations on the command line and in reports.

use std::time::Duration;

/// Reads `500ms`, `2s`, `1m 30s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example 500ms, 2s or 1m"))
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
    fn milliseconds_keep_three_digits() {
        assert_eq!(show_ms(0.8449), "0.84 ms");
        assert_eq!(show_ms(12.34), "12.3 ms");
        assert_eq!(show_ms(2314.0), "2.31 s");
    }
}
