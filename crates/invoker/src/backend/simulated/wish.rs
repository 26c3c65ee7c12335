//! What the arguments of an activation ask of the pretended container.

use std::time::Duration;

use serde::Deserialize;

/// Arguments longer than this are not looked at: reading them would cost more than the run.
const READ_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Wish {
    sleep_ms: Option<f64>,
}

/// Length of the run as chosen by `{"sleep_ms": …}`, in milliseconds with a fraction; `None` if nothing is chosen.
pub(super) fn run_length(payload: &[u8]) -> Option<Duration> {
    // Serde would take an array for the fields in order.
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    if !is_object || payload.len() > READ_MAX {
        return None;
    }
    let wish: Wish = serde_json::from_slice(payload).ok()?;
    Duration::try_from_secs_f64(wish.sleep_ms? / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_may_have_a_fraction() {
        let wish = |text: &str| run_length(text.as_bytes());
        assert_eq!(wish(r#"{"sleep_ms": 20}"#), Some(Duration::from_millis(20)));
        assert_eq!(
            wish(r#"{"name": [1, {}], "sleep_ms": 0.25}"#),
            Some(Duration::from_micros(250))
        );
    }

    #[test]
    fn everything_else_chooses_nothing() {
        for text in [
            "",
            "{}",
            "[1]",
            "no json",
            r#"{"sleep_ms": "x"}"#,
            r#"{"sleep_ms": -1}"#,
            r#"{"sleep_ms": null}"#,
        ] {
            assert_eq!(run_length(text.as_bytes()), None, "{text}");
        }
    }
}
