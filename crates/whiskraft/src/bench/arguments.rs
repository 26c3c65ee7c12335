//! Arguments of the activations, and what their results must look like.

use std::fmt::Write as _;

/// Longest arguments that can be asked for: simulated containers look at no longer ones.
pub(crate) const ARGUMENTS_LEN_MAX: u64 = 64 * 1024;

/// What surrounds the ballast.
const BALLAST: (&str, &str) = (",\"ballast\":\"", "\"");

/// The arguments, but for the number of the activation.
#[derive(Debug)]
pub(super) struct Arguments {
    wishes: String,
    len: usize,
    ballast: String,
}

/// What a result says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// When the run began, in microseconds since the Unix epoch on the invoker's clock.
    Began(u64),
    /// Not when: whatever ran it was no simulated container.
    Missing,
    /// It is the result of another activation.
    Foreign,
}

impl Arguments {
    /// Arguments for a simulated run of so many milliseconds, so many bytes long or as short as they can be.
    pub(super) fn new(run_ms: f64, len: usize) -> Self {
        let mut wishes = ",\"stamp\":true".to_owned();
        if run_ms > 0.0 {
            write!(wishes, ",\"sleep_ms\":{run_ms}").expect("a string takes everything");
        }
        Self {
            wishes,
            len,
            ballast: "x".repeat(len),
        }
    }

    /// Those of activation number `n`.
    pub(super) fn text(&self, n: u64) -> String {
        let mut text = String::with_capacity(self.len.max(64));
        write!(text, "{{\"n\":{n}{}", self.wishes).expect("a string takes everything");
        // One byte for the brace that closes.
        let room = self.len.saturating_sub(text.len() + 1);
        match room.checked_sub(BALLAST.0.len() + BALLAST.1.len()) {
            Some(ballast) => text.extend([BALLAST.0, &self.ballast[..ballast], BALLAST.1]),
            None => text.extend(std::iter::repeat_n(' ', room)),
        }
        text.push('}');
        text
    }
}

/// Reads the beginning of the result of activation number `n`; the rest is what was sent.
pub(super) fn read_stamp(n: u64, result: &[u8]) -> Stamp {
    let Some(rest) = result.strip_prefix(b"{\"began_us\":") else {
        return Stamp::Missing;
    };
    let Some((began, rest)) = number(rest) else {
        return Stamp::Missing;
    };
    match rest.strip_prefix(b",\"n\":").and_then(number) {
        Some((found, _)) if found == n => Stamp::Began(began),
        _ => Stamp::Foreign,
    }
}

/// A number, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count());
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn arguments_have_the_length_that_was_asked_for() {
        for len in [0, 30, 45, 46, 47, 59, 60, 61, 1000] {
            let text = Arguments::new(0.25, len).text(1234);
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&value["n"], &value["sleep_ms"], &value["stamp"]),
                (&json!(1234), &json!(0.25), &json!(true))
            );
            let shortest = Arguments::new(0.25, 0).text(1234).len();
            assert_eq!(text.len(), len.max(shortest), "{text}");
        }
        let text = Arguments::new(0.0, 0).text(0);
        assert_eq!(text, r#"{"n":0,"stamp":true}"#, "no length is wished for");
    }

    #[test]
    fn a_result_is_told_from_that_of_another() {
        let stamp = |text: &str| read_stamp(12, text.as_bytes());
        let result = r#"{"began_us":1700000000000123,"n":12,"stamp":true}"#;
        assert_eq!(stamp(result), Stamp::Began(1_700_000_000_000_123));
        assert_eq!(stamp(r#"{"began_us":5,"n":13,"stamp":true}"#), Stamp::Foreign);
        assert_eq!(stamp(r#"{"began_us":5,"n":120}"#), Stamp::Foreign);
        for text in ["{}", r#"{"ok":true}"#, r#"{"began_us":}"#, ""] {
            assert_eq!(stamp(text), Stamp::Missing, "{text}");
        }
    }
}
