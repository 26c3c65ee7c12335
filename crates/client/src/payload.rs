//! Arguments of an activation: JSON text that is an object or an array.
//!
//! Checked here, before anything is sent, so that a caller learns of a mistake without a round trip.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Arguments of an activation, not checked yet. Made from JSON values or from JSON text.
///
/// ```
/// use whiskraft_client::Payload;
///
/// let from_value: Payload = serde_json::json!({"name": "Ada"}).into();
/// let from_text: Payload = r#"{"name": "Ada"}"#.into();
/// let nothing = Payload::empty();
/// # let _ = (from_value, from_text, nothing);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Payload(Form);

#[derive(Debug, Clone, PartialEq)]
enum Form {
    Value(Value),
    Text(Bytes),
}

/// Why something cannot be the arguments of an activation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The bytes are not JSON.
    #[error("arguments are not JSON: {reason}")]
    NotJson {
        /// What the parser stumbled over, and where.
        reason: String,
    },
    /// JSON, but neither an object nor an array.
    #[error("arguments must be a JSON object or array, found {found}")]
    NotObjectOrArray {
        /// What it is instead.
        found: &'static str,
    },
    /// Larger than the cluster takes.
    #[error("request larger than allowed: [{len}] > {len_max} bytes")]
    TooLarge {
        /// Length of the JSON text, in bytes.
        len: u64,
        /// Longest text the schedulers announced.
        len_max: u64,
    },
}

impl Payload {
    /// No arguments: `{}`.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Form::Text(Bytes::from_static(b"{}")))
    }

    /// The JSON text, if it may travel.
    ///
    /// # Errors
    /// [`PayloadError`] says what is wrong with it.
    pub fn into_text(self, len_max: u64) -> Result<Bytes, PayloadError> {
        let text = match self.0 {
            Form::Value(value @ (Value::Object(_) | Value::Array(_))) => Bytes::from(value.to_string()),
            Form::Value(other) => {
                return Err(PayloadError::NotObjectOrArray {
                    found: kind_of(&other),
                });
            }
            Form::Text(text) => text,
        };
        let len = text.len() as u64;
        if len > len_max {
            return Err(PayloadError::TooLarge { len, len_max });
        }
        check_text(&text)?;
        Ok(text)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self(Form::Value(value))
    }
}

impl From<Bytes> for Payload {
    fn from(text: Bytes) -> Self {
        Self(Form::Text(text))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(text: Vec<u8>) -> Self {
        Self(Form::Text(text.into()))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(Form::Text(text.into()))
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self(Form::Text(Bytes::copy_from_slice(text.as_bytes())))
    }
}

/// Parses without building anything: the parser's work, none of its allocations.
fn check_text(text: &[u8]) -> Result<(), PayloadError> {
    serde_json::from_slice::<IgnoredAny>(text).map_err(|error| PayloadError::NotJson {
        reason: error.to_string(),
    })?;
    let found = match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{' | b'[') => return Ok(()),
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    Err(PayloadError::NotObjectOrArray { found })
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LEN_MAX: u64 = 64;

    #[test]
    fn objects_and_arrays_pass_unchanged() {
        let text = |payload: Payload| payload.into_text(LEN_MAX).unwrap();
        assert_eq!(text(Payload::empty()), "{}");
        assert_eq!(text(json!({"a": 1}).into()), r#"{"a":1}"#);
        assert_eq!(text(" [1, 2]\n".into()), " [1, 2]\n");
    }

    #[test]
    fn everything_else_is_named() {
        let refused = |payload: Payload| payload.into_text(LEN_MAX).unwrap_err();
        assert_eq!(
            refused(json!(null).into()),
            PayloadError::NotObjectOrArray { found: "null" }
        );
        assert_eq!(
            refused("\"x\"".into()),
            PayloadError::NotObjectOrArray { found: "a string" }
        );
        assert_eq!(
            refused(" 7".into()),
            PayloadError::NotObjectOrArray { found: "a number" }
        );
        assert!(matches!(refused("{\"a\":".into()), PayloadError::NotJson { .. }));
        assert!(matches!(refused("{} x".into()), PayloadError::NotJson { .. }));
        assert!(matches!(
            refused(vec![b'{', 0xff, b'}'].into()),
            PayloadError::NotJson { .. }
        ));
        assert!(matches!(refused("".into()), PayloadError::NotJson { .. }));
    }

    #[test]
    fn the_limit_counts_bytes_and_is_inclusive() {
        let fits = format!("[{}]", "1".repeat(62));
        assert!(Payload::from(fits.as_str()).into_text(64).is_ok());
        assert_eq!(
            Payload::from(fits).into_text(63),
            Err(PayloadError::TooLarge { len: 64, len_max: 63 })
        );
    }
}
