//! What the arguments of an activation ask of the pretended container.

use std::time::Duration;

use serde::Deserialize;

/// Arguments longer than this are not looked at: reading them would cost more than the run.
const READ_MAX: usize = 64 * 1024;

/// Result of a run that was asked to fail.
pub(super) const FAILURE: &str = r#"{"error":"failed as asked"}"#;

/// What is wished for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Length of the run (`"sleep_ms"`, in milliseconds with a fraction); `None` if nothing is chosen.
    pub(super) length: Option<Duration>,
    /// So many runs of the activation end with an application error (`"fail_runs"`).
    pub(super) fail_runs: u32,
}

#[derive(Deserialize)]
struct Arguments {
    sleep_ms: Option<f64>,
    #[serde(default)]
    fail_runs: u32,
}

/// Reads the arguments; what is no wish is none.
pub(super) fn read(payload: &[u8]) -> Wish {
    // Serde would take an array for the fields in order.
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    if !is_object || payload.len() > READ_MAX {
        return Wish::default();
    }
    let Ok(arguments) = serde_json::from_slice::<Arguments>(payload) else {
        return Wish::default();
    };
    let length = arguments
        .sleep_ms
        .map(|ms| Duration::try_from_secs_f64(ms / 1000.0));
    Wish {
        length: length.and_then(Result::ok),
        fail_runs: arguments.fail_runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_may_have_a_fraction() {
        let wish = |text: &str| read(text.as_bytes()).length;
        assert_eq!(wish(r#"{"sleep_ms": 20}"#), Some(Duration::from_millis(20)));
        assert_eq!(
            wish(r#"{"name": [1, {}], "sleep_ms": 0.25}"#),
            Some(Duration::from_micros(250))
        );
    }

    #[test]
    fn the_first_runs_may_be_told_to_fail() {
        let wish = read(br#"{"fail_runs": 2, "sleep_ms": 1}"#);
        assert_eq!((wish.fail_runs, wish.length), (2, Some(Duration::from_millis(1))));
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
            assert_eq!(read(text.as_bytes()), Wish::default(), "{text}");
        }
    }
}
