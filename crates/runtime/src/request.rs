//! Bodies of `/init` and `/run`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Body of `/init`. Everything may be missing; what must be there is up to the family.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct InitBody {
    #[serde(default)]
    value: Option<InitValue>,
}

/// The `value` of an `/init`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct InitValue {
    /// Entry point; absent, null or empty is `main`. Some families refuse what is not text.
    #[serde(default)]
    pub(crate) main: Option<Value>,
    /// Source text, or base64 of a zip, tar.gz or executable.
    #[serde(default)]
    pub(crate) code: Option<String>,
    /// Whether `code` is base64.
    #[serde(default)]
    pub(crate) binary: Option<bool>,
    /// Environment for the action.
    #[serde(default)]
    env: Option<BTreeMap<String, Value>>,
}

impl InitValue {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let body: InitBody = serde_json::from_slice(body)?;
        Ok(body.value.unwrap_or_default())
    }

    /// Entry point, if it is text.
    pub(crate) fn entry_point(&self) -> Option<&str> {
        match &self.main {
            None | Some(Value::Null) => Some("main"),
            Some(Value::String(name)) if name.is_empty() => Some("main"),
            Some(Value::String(name)) => Some(name),
            Some(_) => None,
        }
    }

    /// Code, if there is any.
    pub(crate) fn code(&self) -> Option<&str> {
        self.code.as_deref().filter(|code| !code.is_empty())
    }

    /// The variables that a process can have: a name with `=` or a NUL anywhere cannot be passed on.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let env = self
            .env
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), text_of(value)));
        env.filter(|(name, value)| is_variable(name) && !value.contains('\0'))
            .collect()
    }
}

/// Whether an operating system takes this as the name of a variable.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// A JSON value as a variable: strings as they are, null as nothing, the rest as compact JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Body of `/run` as one line of JSON text. Raw line ends only ever stand between tokens, so they become spaces.
pub(crate) fn run_line(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let fields: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(body)?;
    drop(fields);
    Ok(body
        .iter()
        .map(|byte| {
            if matches!(byte, b'\n' | b'\r') {
                b' '
            } else {
                *byte
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_may_be_empty_or_null() {
        for body in [
            "{}",
            r#"{"value":null}"#,
            r#"{"value":{"code":null,"env":null,"main":null}}"#,
        ] {
            let value = InitValue::parse(body.as_bytes()).unwrap();
            assert_eq!(
                (value.code(), value.entry_point()),
                (None, Some("main")),
                "{body}"
            );
        }
        assert!(InitValue::parse(b"[").is_err());
    }

    #[test]
    fn variables_are_text_and_empty_ones_stay() {
        let body = r#"{"value":{"env":{"a":1,"b":null,"c":"x","d":{"e":[1]},"bad=":"y","":"z"}}}"#;
        let env = InitValue::parse(body.as_bytes()).unwrap().environment();
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        assert_eq!(env, ["a:1", "b:", "c:x", r#"d:{"e":[1]}"#]);
    }

    #[test]
    fn run_becomes_one_line() {
        assert_eq!(run_line(b"{\"value\":\n{}}").unwrap(), b"{\"value\": {}}");
        assert!(run_line(b"[1]").is_err());
        assert!(run_line(b"{\"value\":").is_err());
    }
}
