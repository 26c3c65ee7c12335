//! What the arguments of an activation ask of the pretended container.

use std::time::Duration;

use bytes::Bytes;
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
    /// The result says when the run began (`"stamp"`).
    pub(super) stamp: bool,
}

#[derive(Deserialize)]
struct Arguments {
    sleep_ms: Option<f64>,
    #[serde(default)]
    fail_runs: u32,
    #[serde(default)]
    stamp: bool,
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
        stamp: arguments.stamp,
    }
}

/// Arguments that wished for a stamp, as the result of a run that began so long after the Unix epoch: the same object with
/// `"began_us"`, in microseconds, before everything else, so that whoever measures need not read the rest.
pub(super) fn stamped(arguments: &[u8], began: Duration) -> Bytes {
    let object = arguments.trim_ascii_start();
    // Only an object wishes for anything, and it has at least the wish in it.
    let fields = object.strip_prefix(b"{").unwrap_or(object);
    [
        format!("{{\"began_us\":{},", began.as_micros()).as_bytes(),
        fields,
    ]
    .concat()
    .into()
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
    fn a_stamp_comes_first_and_keeps_the_arguments() {
        let arguments = br#" {"stamp": true, "n": 7}"#;
        assert!(read(arguments).stamp);
        let result = stamped(arguments, Duration::from_micros(1_700_000_000_000_123));
        assert!(result.starts_with(br#"{"began_us":1700000000000123,"#));
        let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
        assert_eq!(
            (&result["began_us"], &result["n"]),
            (&1_700_000_000_000_123_u64.into(), &7.into())
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
            r#"{"stamp": 1}"#,
        ] {
            assert_eq!(read(text.as_bytes()), Wish::default(), "{text}");
        }
    }
}
