//! Checks the document of an action before it enters the log: past this point every reader may trust it.

use std::collections::BTreeMap;

use bytes::Bytes;
use whiskraft_proto::Message;
use whiskraft_proto::{InvalidMessage, required, v1};
use whiskraft_state::{BlobHash, DocumentKey};
use whiskraft_types::{ActionLimits, ActionName, ByteSize};

use crate::annotations::{AnnotationError, Annotations};
use crate::config::DocumentsConfig;

/// Why an action is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ActionError {
    /// The body is not an `Action` message.
    #[error("the body of an action document must be an encoded Action: {0}")]
    Undecodable(String),
    /// A field is missing or malformed.
    #[error("action: {0}")]
    Field(#[from] InvalidMessage),
    /// The name inside is not the name of the document.
    #[error("the document is called {document}, the action in it {inside}; both must be the same")]
    Name { document: String, inside: String },
    /// No kind.
    #[error("action {0} has no kind; name a runtime such as python:3, nodejs:20, sh or native")]
    Kind(ActionName),
    /// The scheduler cannot read an annotation.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A default argument is not JSON, so no container could be started with it.
    #[error("parameter {name}: {text:?} is not JSON; write text in quotes")]
    Parameter { name: String, text: String },
    /// A limit is outside what this cluster allows.
    #[error("limits.{limit}: {value} is outside the allowed {min} to {max}")]
    Limit {
        limit: &'static str,
        value: String,
        min: String,
        max: String,
    },
    /// The code is a blob that the request does not name.
    #[error("the code of the action must be named in the request's blobs, so that it stays stored with it")]
    Blob,
}

/// The limits of the action in a document's body, if all of it is right.
///
/// # Errors
/// Says what to change.
pub(crate) fn limits(
    config: &DocumentsConfig,
    key: &DocumentKey,
    body: &Bytes,
    blobs: &[BlobHash],
) -> Result<ActionLimits, ActionError> {
    let action =
        v1::Action::decode(body.clone()).map_err(|error| ActionError::Undecodable(error.to_string()))?;
    let name: ActionName = action.name.parse().map_err(InvalidMessage::from)?;
    let document = format!("{}/{}", key.namespace, key.name);
    if name.as_str() != document {
        return Err(ActionError::Name {
            document,
            inside: name.to_string(),
        });
    }
    if action.kind.is_empty() {
        return Err(ActionError::Kind(name));
    }
    if !action.code_sha256.is_empty() && !blobs.iter().any(|hash| hash.0[..] == action.code_sha256[..]) {
        return Err(ActionError::Blob);
    }
    Annotations::check(&action.annotations)?;
    // In order, so that the same document is always refused for the same reason.
    for (name, text) in action.parameters.into_iter().collect::<BTreeMap<_, _>>() {
        if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
            return Err(ActionError::Parameter { name, text });
        }
    }
    let limits = ActionLimits::try_from(required(action.limits, "limits")?)?;
    check_limits(config, &limits)?;
    Ok(limits)
}

fn check_limits(config: &DocumentsConfig, limits: &ActionLimits) -> Result<(), ActionError> {
    range(
        "timeout",
        limits.timeout,
        config.timeout_min,
        config.timeout_max,
        |value| format!("{value:?}"),
    )?;
    range(
        "memory",
        limits.memory,
        config.memory_min,
        config.memory_max,
        ByteSize::to_string,
    )?;
    range(
        "logs",
        limits.logs,
        ByteSize::ZERO,
        config.logs_max,
        ByteSize::to_string,
    )?;
    range(
        "concurrency",
        limits.concurrency,
        1,
        config.concurrency_max.get(),
        u32::to_string,
    )?;
    limits.instances.map_or(Ok(()), |instances| {
        range("instances", instances, 1, u32::MAX, u32::to_string)
    })
}

fn range<T: PartialOrd>(
    limit: &'static str,
    value: T,
    min: T,
    max: T,
    show: impl Fn(&T) -> String,
) -> Result<(), ActionError> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(ActionError::Limit {
        limit,
        value: show(&value),
        min: show(&min),
        max: show(&max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DocumentKey {
        DocumentKey::action(&"guest/hello".parse().unwrap()).unwrap()
    }

    fn action() -> v1::Action {
        v1::Action {
            name: "guest/hello".into(),
            kind: "python:3".into(),
            limits: Some((&ActionLimits::default()).into()),
            ..Default::default()
        }
    }

    fn refused(action: &v1::Action, blobs: &[BlobHash]) -> String {
        let body = Bytes::from(action.encode_to_vec());
        limits(&DocumentsConfig::default(), &key(), &body, blobs)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_right_action_gives_its_limits() {
        let body = Bytes::from(action().encode_to_vec());
        assert_eq!(
            limits(&DocumentsConfig::default(), &key(), &body, &[]),
            Ok(ActionLimits::default())
        );
    }

    #[test]
    fn each_mistake_is_named() {
        let mut other = action();
        other.name = "guest/other".into();
        assert!(
            refused(&other, &[]).contains("the document is called guest/hello, the action in it guest/other")
        );
        let mut kindless = action();
        kindless.kind.clear();
        assert!(refused(&kindless, &[]).contains("has no kind"));
        let mut huge = action();
        huge.limits = Some(
            (&ActionLimits {
                memory: ByteSize::mib(4096),
                ..Default::default()
            })
                .into(),
        );
        assert_eq!(
            refused(&huge, &[]),
            "limits.memory: 4 GiB is outside the allowed 64 MiB to 2 GiB"
        );
        let mut tagged = action();
        tagged
            .annotations
            .insert("invoker-resources".to_owned(), "\"gpu\"".to_owned());
        assert!(
            refused(&tagged, &[]).starts_with("annotation invoker-resources: \"gpu\" must be a list of tags")
        );
        let mut garbled = action();
        garbled.parameters.insert("name".to_owned(), "Ada".to_owned());
        assert_eq!(
            refused(&garbled, &[]),
            "parameter name: \"Ada\" is not JSON; write text in quotes"
        );
        let mut code = action();
        code.code_sha256 = vec![7; 32].into();
        assert!(refused(&code, &[BlobHash([8; 32])]).contains("must be named in the request's blobs"));
    }
}
