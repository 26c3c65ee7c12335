//! How an answer of /init or /run becomes a status and a result. Pure; the texts are what OpenWhisk's clients see.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use whiskraft_types::ActivationStatus;

/// Nothing came back from /init.
pub(crate) const INIT_ABNORMAL: &str = "The action did not initialize and exited unexpectedly.";
/// Nothing came back from /run.
pub(crate) const RUN_ABNORMAL: &str = "The action did not produce a valid response and exited unexpectedly.";
/// Memory ran out in either.
pub(crate) const MEMORY_EXHAUSTED: &str = "The action exhausted its memory and was aborted.";

/// What came back over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A complete response.
    Response {
        /// HTTP status code.
        code: u16,
        /// The body, or the part of it that was kept.
        body: Bytes,
        /// Length and limit of a body that was over the limit.
        truncated: Option<Truncated>,
    },
    /// The container was killed because it went over its memory.
    MemoryExhausted,
    /// No answer, a broken connection, no Content-Length, or out of time.
    Nothing,
}

/// A body over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truncated {
    /// Its Content-Length.
    pub(crate) length: u64,
    /// What is allowed.
    pub(crate) limit: u64,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// HTTP 503: the container is not able to run anything, the activation may go elsewhere.
    GiveBack,
    /// /init was good.
    Initialised,
    /// The activation is over.
    Ended {
        /// Status class.
        status: ActivationStatus,
        /// JSON text of the result.
        result: Bytes,
        /// Size of the body.
        size: Option<u64>,
    },
}

/// Judges an answer of /init that took so long; the first rule that fits wins.
pub(crate) fn init_verdict(answer: &Answer, took: Duration, limit: Duration) -> Verdict {
    let failed = |text: &str, size| developer(error_result(text), size);
    match answer {
        Answer::Response { code: 503, .. } => Verdict::GiveBack,
        Answer::Response {
            code: 200,
            truncated: None,
            ..
        } => Verdict::Initialised,
        _ if took >= limit => failed(&init_timeout_text(limit), None),
        Answer::Response {
            body,
            truncated: Some(truncated),
            ..
        } => failed(&truncation_text(*truncated, body), Some(truncated.length)),
        Answer::Response {
            body,
            truncated: None,
            ..
        } => match parse_error(body) {
            Some(error) => developer(error_object(&error), size_of(body)),
            None => failed(
                &with_body("The action failed during initialization", body),
                size_of(body),
            ),
        },
        Answer::MemoryExhausted => failed(MEMORY_EXHAUSTED, None),
        Answer::Nothing => failed(INIT_ABNORMAL, None),
    }
}

/// Judges an answer of /run that took so long; the first rule that fits wins.
pub(crate) fn run_verdict(answer: Answer, took: Duration, limit: Duration) -> Verdict {
    let failed = |text: &str, size| developer(error_result(text), size);
    match answer {
        Answer::Response { code: 503, .. } => Verdict::GiveBack,
        _ if took >= limit => failed(&run_timeout_text(limit), None),
        Answer::Response {
            body,
            truncated: Some(truncated),
            ..
        } => Verdict::Ended {
            status: ActivationStatus::ApplicationError,
            result: error_result(&truncation_text(truncated, &body)),
            size: Some(truncated.length),
        },
        Answer::Response {
            code,
            body,
            truncated: None,
        } => judge_body(code, body),
        Answer::MemoryExhausted => failed(MEMORY_EXHAUSTED, None),
        Answer::Nothing => failed(RUN_ABNORMAL, None),
    }
}

/// Judges a complete body of /run.
fn judge_body(code: u16, body: Bytes) -> Verdict {
    let size = size_of(&body);
    let text = std::str::from_utf8(&body).unwrap_or_default();
    match serde_json::from_str::<Shape>(text) {
        Ok(Shape::Object { has_error: true }) => {
            let status = if code == 200 {
                ActivationStatus::ApplicationError
            } else {
                ActivationStatus::DeveloperError
            };
            let error = parse_error(&body).unwrap_or(Value::Null);
            Verdict::Ended {
                status,
                result: error_object(&error),
                size,
            }
        }
        Ok(Shape::Object { has_error: false } | Shape::Array) if code == 200 => Verdict::Ended {
            status: ActivationStatus::Success,
            result: body,
            size,
        },
        Ok(_) | Err(_) => {
            let text = with_body(
                "The action did not produce a valid JSON or JSON Array response",
                &body,
            );
            developer(error_result(&text), size)
        }
    }
}

/// Text of a run that was over its time.
pub(crate) fn run_timeout_text(limit: Duration) -> String {
    format!(
        "The action exceeded its time limits of {} milliseconds.",
        limit.as_millis()
    )
}

fn init_timeout_text(limit: Duration) -> String {
    format!(
        "The action exceeded its time limits of {} milliseconds during initialization.",
        limit.as_millis()
    )
}

fn truncation_text(truncated: Truncated, kept: &[u8]) -> String {
    let Truncated { length, limit } = truncated;
    let mut text = format!(
        "The action produced a response that exceeded the allowed length: {length} > {limit} bytes. \
         The truncated response was: "
    );
    text.push_str(&String::from_utf8_lossy(kept));
    text
}

fn with_body(text: &str, body: &[u8]) -> String {
    let mut text = text.to_owned();
    if body.is_empty() {
        text.push('.');
    } else {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {}", String::from_utf8_lossy(body));
    }
    text
}

fn developer(result: Bytes, size: Option<u64>) -> Verdict {
    Verdict::Ended {
        status: ActivationStatus::DeveloperError,
        result,
        size,
    }
}

/// The result `{"error": <text>}`.
pub(crate) fn error_result(text: &str) -> Bytes {
    error_object(&Value::from(text))
}

fn error_object(error: &Value) -> Bytes {
    Bytes::from(format!("{{\"error\":{error}}}"))
}

/// The value of `error` of a JSON object; its presence decides, whatever the value.
fn parse_error(body: &[u8]) -> Option<Value> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(mut fields)) => fields.remove("error"),
        _ => None,
    }
}

/// UTF-16 units of a body, as the original counts them; absent for no body.
fn size_of(body: &[u8]) -> Option<u64> {
    if body.is_empty() {
        return None;
    }
    let units = match std::str::from_utf8(body) {
        Ok(text) if text.is_ascii() => text.len(),
        Ok(text) => text.encode_utf16().count(),
        Err(_) => String::from_utf8_lossy(body).encode_utf16().count(),
    };
    Some(units as u64)
}

/// What a JSON text is at its top level. Reading it checks the whole text without building it in memory, which is
/// what keeps a large good result cheap.
enum Shape {
    Object { has_error: bool },
    Array,
    Other,
}

impl<'de> serde::Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> serde::de::Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut has_error = false;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            has_error |= key == "error";
            map.next_value::<serde::de::IgnoredAny>()?;
        }
        Ok(Shape::Object { has_error })
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(Shape::Array)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
}

#[cfg(test)]
#[path = "classify/classify_test.rs"]
mod classify_test;
