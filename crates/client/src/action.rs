//! Actions as callers write and read them, and their stored form.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use whiskraft_proto::{required, v1};
use whiskraft_types::{ActionLimits, ActionName, Revision};

/// An action to be stored with [`Client::put_action`](crate::Client::put_action).
#[derive(Debug, Clone, PartialEq)]
pub struct ActionSpec {
    /// `namespace/[package/]name`.
    pub name: ActionName,
    /// Runtime: `python:3`, `nodejs:20`, `sh`, `native`, …
    pub kind: String,
    /// Entry point; empty is `main`.
    pub main: String,
    /// Source text, or an archive or executable if `binary`.
    pub code: Bytes,
    /// Whether `code` is a zip, tar or executable instead of text.
    pub binary: bool,
    /// Time, memory, logs, concurrency.
    pub limits: ActionLimits,
    /// Default arguments; the caller's win.
    pub parameters: BTreeMap<String, Value>,
    /// Notes for people and tools.
    pub annotations: BTreeMap<String, Value>,
}

impl ActionSpec {
    /// An action with default limits and nothing else set.
    #[must_use]
    pub fn new(name: ActionName, kind: impl Into<String>, code: impl Into<Bytes>) -> Self {
        Self {
            name,
            kind: kind.into(),
            main: String::new(),
            code: code.into(),
            binary: false,
            limits: ActionLimits::default(),
            parameters: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// The stored form; `code_sha256` is empty when there is no code.
    pub(crate) fn to_wire(&self, code_sha256: Bytes) -> v1::Action {
        let texts = |values: &BTreeMap<String, Value>| {
            values
                .iter()
                .map(|(key, value)| (key.clone(), value.to_string()))
                .collect()
        };
        v1::Action {
            name: self.name.to_string(),
            kind: self.kind.clone(),
            main: self.main.clone(),
            code_sha256,
            binary: self.binary,
            limits: Some((&self.limits).into()),
            annotations: texts(&self.annotations),
            parameters: texts(&self.parameters),
        }
    }
}

/// What a write expects to find, so that two writers cannot overwrite each other unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// Whatever is there.
    #[default]
    Anything,
    /// Nothing: create, never replace.
    Absent,
    /// Exactly this revision: replace what was read, nothing newer.
    Revision(Revision),
}

impl Expect {
    pub(crate) fn to_wire(self) -> Option<u64> {
        match self {
            Self::Anything => None,
            Self::Absent => Some(0),
            Self::Revision(revision) => Some(revision.0),
        }
    }
}

/// A stored action. Its code is fetched with [`Client::action_code`](crate::Client::action_code).
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAction {
    /// `namespace/[package/]name`.
    pub name: ActionName,
    /// Grows with every write of this action.
    pub revision: Revision,
    /// Runtime.
    pub kind: String,
    /// Entry point; empty is `main`.
    pub main: String,
    /// Hash of the code; empty when there is none.
    pub code_sha256: Bytes,
    /// Whether the code is a zip, tar or executable.
    pub binary: bool,
    /// Time, memory, logs, concurrency.
    pub limits: ActionLimits,
    /// Default arguments.
    pub parameters: BTreeMap<String, Value>,
    /// Notes.
    pub annotations: BTreeMap<String, Value>,
}

impl StoredAction {
    pub(crate) fn from_wire(revision: Revision, action: v1::Action) -> Result<Self, String> {
        Ok(Self {
            name: action.name.parse().map_err(|error| format!("{error}"))?,
            revision,
            kind: action.kind,
            main: action.main,
            code_sha256: action.code_sha256,
            binary: action.binary,
            limits: required(action.limits, "action.limits")
                .and_then(ActionLimits::try_from)
                .map_err(|error| error.to_string())?,
            parameters: values("parameter", action.parameters)?,
            annotations: values("annotation", action.annotations)?,
        })
    }
}

fn values(
    what: &str,
    texts: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, Value>, String> {
    texts
        .into_iter()
        .map(|(key, text)| match serde_json::from_str(&text) {
            Ok(value) => Ok((key, value)),
            Err(error) => Err(format!("{what} {key:?} is not JSON: {error}")),
        })
        .collect()
}

/// One line of a list of actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionSummary {
    /// `namespace/[package/]name`.
    pub name: ActionName,
    /// Its revision.
    pub revision: Revision,
}

/// Part of a list of actions, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionPage {
    /// The actions.
    pub actions: Vec<ActionSummary>,
    /// Where to go on: the `after` of the next call. `None`: this is the end.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_action_reads_back_as_it_was_written() {
        let mut spec = ActionSpec::new(
            "guest/pkg/hello".parse().unwrap(),
            "python:3",
            "def main(a): return a",
        );
        spec.main = "entry".to_owned();
        spec.parameters
            .insert("greeting".to_owned(), json!({"text": ["hi"]}));
        spec.annotations.insert("final".to_owned(), json!(true));
        let stored = StoredAction::from_wire(Revision(7), spec.to_wire(Bytes::from_static(b"hash"))).unwrap();
        assert_eq!(stored.name, spec.name);
        assert_eq!(
            (stored.revision, stored.kind.as_str(), stored.main.as_str()),
            (Revision(7), "python:3", "entry")
        );
        assert_eq!(stored.parameters, spec.parameters);
        assert_eq!(stored.annotations, spec.annotations);
        assert_eq!(stored.limits, spec.limits);
    }

    #[test]
    fn a_broken_document_is_described() {
        let wire = ActionSpec::new("guest/hello".parse().unwrap(), "sh", "").to_wire(Bytes::new());
        let broken = v1::Action {
            limits: None,
            ..wire.clone()
        };
        assert!(
            StoredAction::from_wire(Revision(1), broken)
                .unwrap_err()
                .contains("limits")
        );
        let broken = v1::Action {
            parameters: [("p".to_owned(), "{".to_owned())].into(),
            ..wire
        };
        assert!(
            StoredAction::from_wire(Revision(1), broken)
                .unwrap_err()
                .contains("\"p\"")
        );
    }
}
