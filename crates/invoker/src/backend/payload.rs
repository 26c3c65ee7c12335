//! Hot path: the JSON bodies of /init and /run. Arguments are checked and copied, never taken apart (one allocation
//! and one pass per run).

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::spec::{Context, InitRequest, RunRequest};

/// Body of `POST /init`. The code becomes base64 when it is binary; a platform value wins over an init argument of
/// the same name.
pub(crate) fn init_body(request: &InitRequest, deadline: Duration) -> Bytes {
    let mut env = Map::new();
    for (name, value) in &request.env {
        env.insert(name.clone(), Value::String(variable_text(value)));
    }
    for (key, value) in context_fields(&request.context, &deadline_text(deadline)) {
        env.insert(format!("__OW_{}", key.to_uppercase()), Value::from(value));
    }
    let main = if request.main.is_empty() {
        "main"
    } else {
        &request.main
    };
    let mut value = json!({ "name": request.name, "main": main, "binary": request.binary, "env": env });
    if let Some(code) = &request.code {
        value["code"] = Value::String(code_text(code, request.binary));
    }
    Bytes::from(json!({ "value": value }).to_string())
}

/// Body of `POST /run`; `None` if the arguments are not one JSON object or array. They are the caller's text in the
/// middle of ours: unchecked they could close the object and add keys of the context.
pub(crate) fn run_body(request: &RunRequest, deadline: Duration) -> Option<Bytes> {
    let arguments: &[u8] = if request.payload.is_empty() {
        b"{}"
    } else {
        &request.payload
    };
    let text = std::str::from_utf8(arguments).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut body = Vec::with_capacity(arguments.len() + 512);
    body.extend_from_slice(b"{\"value\":");
    body.extend_from_slice(arguments);
    for (key, value) in context_fields(&request.context, &deadline_text(deadline)) {
        body.extend_from_slice(b",\"");
        body.extend_from_slice(key.as_bytes());
        body.extend_from_slice(b"\":");
        // Writing to memory does not fail, and text is always JSON.
        let _ = serde_json::to_writer(&mut body, value);
    }
    body.push(b'}');
    Some(Bytes::from(body))
}

/// Every context key with its value; all values are text.
fn context_fields<'a>(
    context: &'a Context,
    deadline: &'a str,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let fixed = [
        ("namespace", context.namespace.as_str()),
        ("action_name", &context.action_name),
        ("action_version", &context.action_version),
        ("activation_id", &context.activation_id),
        ("transaction_id", &context.transaction_id),
        ("deadline", deadline),
    ];
    fixed
        .into_iter()
        .chain(context.api_key.as_deref().map(|key| ("api_key", key)))
}

/// Milliseconds since the Unix epoch as text.
fn deadline_text(deadline: Duration) -> String {
    deadline.as_millis().to_string()
}

/// An init argument as a variable: strings as they are, null as nothing, the rest as compact JSON.
fn variable_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Code as JSON can carry it. Text that is no UTF-8 is not text; what is lost of it was never readable.
fn code_text(code: &[u8], binary: bool) -> String {
    if binary {
        base64(code)
    } else {
        String::from_utf8_lossy(code).into_owned()
    }
}

/// Base64 with padding. Written out because this is the invoker's only use of it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            namespace: "guest".to_owned(),
            action_name: "/guest/hello \"q\"".to_owned(),
            action_version: "0.0.1".to_owned(),
            activation_id: "ab".repeat(16),
            transaction_id: "t".to_owned(),
            api_key: Some("u:s".to_owned()),
        }
    }

    fn run(payload: &[u8], context: Context) -> Option<Value> {
        let request = RunRequest {
            payload: Bytes::copy_from_slice(payload),
            run: 1,
            context,
            timeout: Duration::from_secs(1),
            logs_max: whiskraft_types::ByteSize::ZERO,
        };
        let body = run_body(&request, Duration::from_millis(17))?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    fn init(code: Option<&[u8]>, binary: bool) -> Value {
        let env = [
            ("A", json!({"x": [1]})),
            ("N", Value::Null),
            ("__OW_NAMESPACE", json!("mine")),
            ("B", json!(true)),
        ];
        let request = InitRequest {
            name: "hello".to_owned(),
            main: String::new(),
            binary,
            code: code.map(Bytes::copy_from_slice),
            env: env
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            context: context(),
            timeout: Duration::from_secs(1),
            logs_max: whiskraft_types::ByteSize::ZERO,
        };
        serde_json::from_slice(&init_body(&request, Duration::from_millis(17))).unwrap()
    }

    #[test]
    fn init_has_code_entry_point_and_an_environment_of_text() {
        let value = &init(Some(b"code"), false)["value"];
        assert_eq!(
            (&value["main"], &value["code"], &value["binary"]),
            (&json!("main"), &json!("code"), &json!(false))
        );
        let env = &value["env"];
        assert_eq!(
            (&env["A"], &env["N"], &env["B"]),
            (&json!("{\"x\":[1]}"), &json!(""), &json!("true"))
        );
        assert_eq!(
            (&env["__OW_NAMESPACE"], &env["__OW_DEADLINE"]),
            (&json!("guest"), &json!("17"))
        );
        assert_eq!(env["__OW_API_KEY"], json!("u:s"));
    }

    #[test]
    fn code_may_be_absent_or_binary() {
        assert!(init(None, false)["value"].get("code").is_none());
        for (code, text) in [
            (&b"\xff\x00a"[..], "/wBh"),
            (b"ab", "YWI="),
            (b"a", "YQ=="),
            (b"", ""),
        ] {
            assert_eq!(init(Some(code), true)["value"]["code"], json!(text));
        }
    }

    #[test]
    fn run_has_arguments_and_context_as_text() {
        let expected = json!({
            "value": {"a": "é"}, "namespace": "guest", "action_name": "/guest/hello \"q\"", "action_version": "0.0.1",
            "activation_id": "ab".repeat(16), "transaction_id": "t", "deadline": "17", "api_key": "u:s",
        });
        assert_eq!(run("{\"a\":\"é\"}".as_bytes(), context()), Some(expected));
        let without = run(
            b"",
            Context {
                api_key: None,
                ..context()
            },
        );
        let without = without.unwrap();
        assert_eq!((&without["value"], without.get("api_key")), (&json!({}), None));
    }

    #[test]
    fn arguments_that_would_change_the_body_are_refused() {
        for bad in [
            "{},\"namespace\":\"other\"",
            "{",
            "3",
            "\"text\"",
            "{} {}",
            "null",
        ] {
            assert_eq!(run(bad.as_bytes(), context()), None, "{bad}");
        }
        assert_eq!(run(b"{\"a\":\"\xff\"}", context()), None);
        assert!(run(b" [1]\n", context()).is_some());
    }
}
