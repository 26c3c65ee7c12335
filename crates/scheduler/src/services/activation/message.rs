//! JSON of the unary pull service, as OpenWhisk's scheduler and its pullers write it.

use serde_json::{Value, json};
use whiskraft_types::{ActionName, ActivationId, NamespaceName, Revision};

use crate::message::Content;

/// Name that OpenWhisk's processes call each other with at their start; nothing ever waits for it.
const WARM_UP: &str = "whisk.system/warmUp";

/// An action as pullers name it: `{"path", "name", "version"}`, or `path/name[@version]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fqn {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Fqn {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("fqn: {error}"))?;
        let field = |name: &str| value.get(name).and_then(Value::as_str);
        let (full, version) = match &value {
            Value::String(full) => {
                let (full, version) = full.split_once('@').unwrap_or((full, ""));
                (full.to_owned(), version)
            }
            _ => {
                let (Some(path), Some(name)) = (field("path"), field("name")) else {
                    return Err("fqn: path and name are needed".to_owned());
                };
                (format!("{path}/{name}"), field("version").unwrap_or_default())
            }
        };
        let (path, name) = full
            .rsplit_once('/')
            .ok_or_else(|| format!("fqn: {full} has no namespace"))?;
        let version = if version.is_empty() { "0.0.1" } else { version };
        Ok(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
        })
    }

    pub(crate) fn action(&self) -> Result<ActionName, String> {
        format!("{}/{}", self.path, self.name)
            .parse()
            .map_err(|error| format!("fqn: {error}"))
    }

    pub(crate) fn is_warm_up(&self) -> bool {
        format!("{}/{}", self.path, self.name) == WARM_UP
    }
}

/// A revision: a number, or a text of digits.
pub(crate) fn revision(text: &str) -> Result<Revision, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("rev: {error}"))?;
    let number = match &value {
        Value::String(digits) => digits.parse().ok(),
        other => other.as_u64(),
    };
    number
        .map(Revision)
        .ok_or_else(|| format!("rev: {text} is no revision"))
}

/// The id in an activation message.
pub(crate) fn activation_id(message: &str) -> Result<ActivationId, String> {
    let value: Value =
        serde_json::from_str(message).map_err(|error| format!("activationMessage: {error}"))?;
    let inner = value.get("message").unwrap_or(&value);
    let id = inner
        .get("activationId")
        .and_then(Value::as_str)
        .unwrap_or_default();
    id.parse().map_err(|error| format!("activationId: {error}"))
}

pub(crate) fn nothing() -> String {
    wrap(&json!({ "noActivationMessage": "no activation message exist", "type": "NoActivationMessage" }))
}

pub(crate) fn no_queue() -> String {
    wrap(&json!({ "noMemoryQueue": "no memory queue exist", "type": "NoMemoryQueue" }))
}

pub(crate) fn mismatch() -> String {
    wrap(&json!({ "actionMisMatch": "action version does not match", "type": "ActionMismatch" }))
}

/// An activation message.
pub(crate) fn activation(
    id: ActivationId,
    namespace: &NamespaceName,
    fqn: &Fqn,
    revision: Revision,
    content: &Content,
    now_ms: u64,
) -> String {
    // What is no JSON goes as the text it is.
    let arguments = serde_json::from_slice(&content.arguments)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&content.arguments).into_owned()));
    let cause = (!content.cause.is_empty()).then_some(&content.cause);
    wrap(&json!({
        "transid": [content.transaction, now_ms],
        "action": { "path": fqn.path, "name": fqn.name, "version": fqn.version },
        "revision": revision.0.to_string(),
        "user": {
            "subject": content.subject,
            "namespace": { "name": namespace.to_string(), "uuid": "" },
            "authkey": { "api_key": content.api_key },
            "rights": [],
            "limits": {},
        },
        "activationId": id.to_string(),
        "rootControllerIndex": { "asString": "0", "instanceType": "controller" },
        "blocking": true,
        "content": arguments,
        "initArgs": [],
        "lockedArgs": {},
        "cause": cause,
        "traceContext": null,
    }))
}

fn wrap(message: &Value) -> String {
    json!({ "message": message }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_named_as_object_or_text() {
        let object = Fqn::parse(r#"{"path":"guest/pkg","name":"hello","version":"0.0.2"}"#).unwrap();
        assert_eq!(object, Fqn::parse(r#""guest/pkg/hello@0.0.2""#).unwrap());
        assert_eq!(object.action().unwrap().as_str(), "guest/pkg/hello");
        assert!(!object.is_warm_up() && Fqn::parse(r#""whisk.system/warmUp""#).unwrap().is_warm_up());
        for bad in ["", "{}", "7", "\"hello\"", r#"{"path":"guest"}"#, "guest/hello"] {
            assert!(Fqn::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_revision_is_a_number_or_its_digits() {
        assert_eq!(revision("\"12\""), Ok(Revision(12)));
        assert_eq!(revision("12"), Ok(Revision(12)));
        for bad in ["", "\"1-a\"", "-1", "null"] {
            assert!(revision(bad).is_err(), "{bad}");
        }
    }
}
