//! Annotations of an action that the scheduler reads. They are checked when the action is stored, so that a slip is told
//! to whoever made it and not read as no annotation; all others are the business of their authors.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use humantime_serde::re::humantime::parse_duration;
use whiskraft_queue::RetryPolicy;

/// Names the tags that an invoker must have, as a JSON list.
const TAGS: &str = "invoker-resources";
/// Says whether the action can do without them.
const TAGS_STRICT: &str = "invoker-resources-strict-policy";
/// Most runs of one durable activation, the first included.
const RETRY_ATTEMPTS: &str = "retry-attempts";
/// Pause before the second run; it doubles.
const RETRY_BACKOFF: &str = "retry-backoff";
/// Longest such pause.
const RETRY_BACKOFF_MAX: &str = "retry-backoff-max";
/// Age of an activation after which no further run begins.
const RETRY_MAX_AGE: &str = "retry-max-age";
/// Whether one that may have started on an invoker that was lost runs again.
const RETRY_ON_LOSS: &str = "retry-on-loss";

/// Whatever begins with the first of these is meant for the scheduler, which reads the others.
const FAMILIES: [(&str, &[&str]); 2] = [
    ("invoker-resource", &[TAGS, TAGS_STRICT]),
    (
        "retry-",
        &[
            RETRY_ATTEMPTS,
            RETRY_BACKOFF,
            RETRY_BACKOFF_MAX,
            RETRY_MAX_AGE,
            RETRY_ON_LOSS,
        ],
    ),
];

/// Runs that a policy may ask for.
const ATTEMPTS: RangeInclusive<u32> = 1..=100;
/// Pauses and ages that it may ask for.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 60 * 60);

/// Why annotations are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnnotationError {
    /// It is not JSON.
    #[error("annotation {name}: {text:?} is not JSON; write text in quotes")]
    Json { name: String, text: String },
    /// It looks like one of the scheduler's and is none.
    #[error("annotation {name} is not known; the scheduler reads {}", listed(.known))]
    Unknown {
        name: String,
        known: &'static [&'static str],
    },
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
    /// When a run that failed is followed by another.
    pub(crate) retry: RetryPolicy,
}

impl Default for Annotations {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            strict: true,
            retry: RetryPolicy::default(),
        }
    }
}

/// Names in a sentence.
fn listed(names: &[&str]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        names => names.concat(),
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
            strict: flag(annotations, TAGS_STRICT)?.unwrap_or(Self::default().strict),
            retry: retry(annotations)?,
        })
    }

    /// The same of an action that may have been stored before they were checked: what cannot be read has its default.
    pub(crate) fn read_what_can_be(annotations: &HashMap<String, String>) -> Self {
        let default = Self::default();
        Self {
            tags: tags(annotations).unwrap_or(default.tags),
            strict: flag(annotations, TAGS_STRICT)
                .ok()
                .flatten()
                .unwrap_or(default.strict),
            retry: retry(annotations).unwrap_or(default.retry),
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
            let family = FAMILIES.iter().find(|(prefix, _)| name.starts_with(prefix));
            if let Some((_, known)) = family
                && !known.contains(&name.as_str())
            {
                let name = name.clone();
                return Err(AnnotationError::Unknown { name, known });
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

fn retry(annotations: &HashMap<String, String>) -> Result<RetryPolicy, AnnotationError> {
    let default = RetryPolicy::default();
    let backoff = time(annotations, RETRY_BACKOFF)?.unwrap_or(default.backoff);
    let backoff_max = time(annotations, RETRY_BACKOFF_MAX)?;
    if backoff_max.is_some_and(|max| max < backoff) {
        return Err(AnnotationError::Value {
            name: RETRY_BACKOFF_MAX,
            text: annotations.get(RETRY_BACKOFF_MAX).cloned().unwrap_or_default(),
            expected: "at least as long as retry-backoff",
        });
    }
    Ok(RetryPolicy {
        runs_max: attempts(annotations)?.unwrap_or(default.runs_max),
        backoff,
        backoff_max: backoff_max.unwrap_or(default.backoff_max.max(backoff)),
        age_max: time(annotations, RETRY_MAX_AGE)?,
        on_loss: flag(annotations, RETRY_ON_LOSS)?.unwrap_or(default.on_loss),
    })
}

fn attempts(annotations: &HashMap<String, String>) -> Result<Option<u32>, AnnotationError> {
    read(annotations, RETRY_ATTEMPTS, "a number from 1 to 100", |text| {
        let attempts = serde_json::from_str(text).ok();
        attempts.filter(|attempts| ATTEMPTS.contains(attempts))
    })
}

fn time(
    annotations: &HashMap<String, String>,
    name: &'static str,
) -> Result<Option<Duration>, AnnotationError> {
    read(
        annotations,
        name,
        "a time from 1ms to 30days, for example \"10s\"",
        |text| {
            let text: String = serde_json::from_str(text).ok()?;
            parse_duration(&text).ok().filter(|time| TIMES.contains(time))
        },
    )
}

fn flag(annotations: &HashMap<String, String>, name: &'static str) -> Result<Option<bool>, AnnotationError> {
    read(annotations, name, "true or false", |text| {
        serde_json::from_str(text).ok()
    })
}

/// One annotation, if it is there.
fn read<T>(
    annotations: &HashMap<String, String>,
    name: &'static str,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, AnnotationError> {
    let Some(text) = annotations.get(name) else {
        return Ok(None);
    };
    match parse(text) {
        Some(value) => Ok(Some(value)),
        None => Err(AnnotationError::Value {
            name,
            text: text.clone(),
            expected,
        }),
    }
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
    fn a_retry_policy_is_read_and_its_longest_pause_follows_the_first() {
        let given = annotations(&[
            (RETRY_ATTEMPTS, "4"),
            (RETRY_BACKOFF, "\"2m\""),
            (RETRY_MAX_AGE, "\"1h\""),
            (RETRY_ON_LOSS, "true"),
        ]);
        assert_eq!(Annotations::check(&given), Ok(()));
        let expected = RetryPolicy {
            runs_max: 4,
            backoff: Duration::from_secs(120),
            backoff_max: Duration::from_secs(120),
            age_max: Some(Duration::from_secs(3600)),
            on_loss: true,
        };
        assert_eq!(Annotations::read(&given).unwrap().retry, expected);
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
                ("retry-attempt", "3"),
                "annotation retry-attempt is not known; the scheduler reads retry-attempts, retry-backoff, \
                 retry-backoff-max, retry-max-age and retry-on-loss",
            ),
            (
                (RETRY_ATTEMPTS, "0"),
                "annotation retry-attempts: 0 must be a number from 1 to 100",
            ),
            (
                (RETRY_BACKOFF, "5"),
                "annotation retry-backoff: 5 must be a time from 1ms to 30days, for example \"10s\"",
            ),
            (
                (RETRY_BACKOFF_MAX, "\"10ms\""),
                "annotation retry-backoff-max: \"10ms\" must be at least as long as retry-backoff",
            ),
            (
                (RETRY_ON_LOSS, "\"yes\""),
                "annotation retry-on-loss: \"yes\" must be true or false",
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
