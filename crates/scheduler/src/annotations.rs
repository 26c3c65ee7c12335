//! Annotations of an action that the scheduler reads. They are checked when the action is stored, so that a slip is told
//! to whoever made it and not read as no annotation; all others are the business of their authors.

use std::collections::{BTreeMap, HashMap};

/// Names the tags that an invoker must have, as a JSON list.
const TAGS: &str = "invoker-resources";
/// Says whether the action can do without them.
const TAGS_STRICT: &str = "invoker-resources-strict-policy";
/// Whatever begins like this is meant for the scheduler.
const PREFIX: &str = "invoker-resource";

/// Why annotations are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnnotationError {
    /// It is not JSON.
    #[error("annotation {name}: {text:?} is not JSON; write text in quotes")]
    Json { name: String, text: String },
    /// It looks like one of the scheduler's and is none.
    #[error("annotation {name} is not known; the scheduler reads {TAGS} and {TAGS_STRICT}")]
    Unknown { name: String },
    /// Its value is of the wrong form.
    #[error("annotation {name}: {text} must be {expected}")]
    Value {
        name: &'static str,
        text: String,
        expected: &'static str,
    },
}

/// What annotations ask of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotations {
    /// Tags that the action needs of its invoker.
    pub(crate) tags: Vec<String>,
    /// Whether it cannot do without them.
    pub(crate) strict: bool,
}

impl Default for Annotations {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            strict: true,
        }
    }
}

impl Annotations {
    /// Reads those of an action; one that is not there has its default.
    ///
    /// # Errors
    /// Names the annotation, its value and what it must be.
    pub(crate) fn read(annotations: &HashMap<String, String>) -> Result<Self, AnnotationError> {
        Ok(Self {
            tags: tags(annotations)?,
            strict: strict(annotations)?,
        })
    }

    /// The same of an action that may have been stored before they were checked: what cannot be read has its default.
    pub(crate) fn read_what_can_be(annotations: &HashMap<String, String>) -> Self {
        let default = Self::default();
        Self {
            tags: tags(annotations).unwrap_or(default.tags),
            strict: strict(annotations).unwrap_or(default.strict),
        }
    }

    /// Checks all annotations of an action that is about to be stored.
    ///
    /// # Errors
    /// As [`read`](Self::read); also if one is not JSON, or is named almost like one of the scheduler's.
    pub(crate) fn check(annotations: &HashMap<String, String>) -> Result<(), AnnotationError> {
        // In order, so that the same document is always refused for the same reason.
        let mut in_order: BTreeMap<&String, &String> = BTreeMap::new();
        in_order.extend(annotations);
        for (name, text) in in_order {
            if name.starts_with(PREFIX) && name != TAGS && name != TAGS_STRICT {
                return Err(AnnotationError::Unknown { name: name.clone() });
            }
            if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
                let (name, text) = (name.clone(), text.clone());
                return Err(AnnotationError::Json { name, text });
            }
        }
        Self::read(annotations).map(|_| ())
    }
}

fn tags(annotations: &HashMap<String, String>) -> Result<Vec<String>, AnnotationError> {
    let Some(text) = annotations.get(TAGS) else {
        return Ok(Annotations::default().tags);
    };
    let tags: Option<Vec<String>> = serde_json::from_str(text).ok();
    let are_names = |tags: &Vec<String>| tags.iter().all(|tag| !tag.trim().is_empty());
    tags.filter(are_names).ok_or_else(|| AnnotationError::Value {
        name: TAGS,
        text: text.clone(),
        expected: "a list of tags, for example [\"gpu\"]",
    })
}

fn strict(annotations: &HashMap<String, String>) -> Result<bool, AnnotationError> {
    let Some(text) = annotations.get(TAGS_STRICT) else {
        return Ok(Annotations::default().strict);
    };
    serde_json::from_str(text).map_err(|_| AnnotationError::Value {
        name: TAGS_STRICT,
        text: text.clone(),
        expected: "true or false",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn tags_and_policy_are_read_and_others_are_let_through() {
        let given = annotations(&[
            (TAGS, "[\"gpu\", \"ssd\"]"),
            (TAGS_STRICT, "false"),
            ("web-export", "true"),
            ("version", "2"),
        ]);
        assert_eq!(Annotations::check(&given), Ok(()));
        let read = Annotations::read(&given).unwrap();
        assert_eq!((read.tags.join(" "), read.strict), ("gpu ssd".to_owned(), false));
        assert_eq!(Annotations::read(&annotations(&[])), Ok(Annotations::default()));
    }

    #[test]
    fn of_an_older_document_each_is_read_by_itself() {
        let old = annotations(&[(TAGS, "[\"gpu\"]"), (TAGS_STRICT, "\"no\"")]);
        let read = Annotations::read_what_can_be(&old);
        assert_eq!((read.tags.join(" "), read.strict), ("gpu".to_owned(), true));
    }

    #[test]
    fn each_slip_is_told_with_its_value_and_what_is_right() {
        let slips = [
            (
                (TAGS, "\"gpu\""),
                "annotation invoker-resources: \"gpu\" must be a list of tags, for example [\"gpu\"]",
            ),
            (
                (TAGS, "[\"gpu\", 1]"),
                "annotation invoker-resources: [\"gpu\", 1] must be a list of tags, for example [\"gpu\"]",
            ),
            (
                (TAGS, "[\"\"]"),
                "annotation invoker-resources: [\"\"] must be a list of tags, for example [\"gpu\"]",
            ),
            (
                (TAGS_STRICT, "\"no\""),
                "annotation invoker-resources-strict-policy: \"no\" must be true or false",
            ),
            (
                ("invoker-resource", "[\"gpu\"]"),
                "annotation invoker-resource is not known; the scheduler reads invoker-resources and \
                 invoker-resources-strict-policy",
            ),
            (
                ("invoker-resources-strict", "false"),
                "annotation invoker-resources-strict is not known; the scheduler reads invoker-resources and \
                 invoker-resources-strict-policy",
            ),
            (
                ("author", "Ada"),
                "annotation author: \"Ada\" is not JSON; write text in quotes",
            ),
        ];
        for (pair, expected) in slips {
            let error = Annotations::check(&annotations(&[pair])).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
