//! Names of namespaces and actions, by the rules of OpenWhisk (`EntityPath.scala`): a segment is 1 to 256
//! characters, starts with a letter, digit or `_`, may hold `@ .&-` and space inside, and does not end in a space.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use arcstr::ArcStr;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest segment of a name, in bytes.
const SEGMENT_LEN_MAX: usize = 256;

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A segment has no characters.
    #[error("{what} {text:?} has an empty segment; write at least one character between slashes")]
    Empty {
        /// Kind of name.
        what: &'static str,
        /// The whole text.
        text: String,
    },
    /// A segment is longer than 256 bytes.
    #[error("{what} longer than allowed: [{len}] > {SEGMENT_LEN_MAX}")]
    TooLong {
        /// Kind of name.
        what: &'static str,
        /// Length found, in bytes.
        len: usize,
    },
    /// A character that the rule does not allow at its place.
    #[error(
        "{what} {text:?} contains illegal characters; use letters, digits and _ @ . & - (no space at either end)"
    )]
    Illegal {
        /// Kind of name.
        what: &'static str,
        /// The segment.
        text: String,
    },
    /// Not `namespace/name` or `namespace/package/name`.
    #[error("action name {text:?} must be namespace/name or namespace/package/name")]
    Segments {
        /// The whole text.
        text: String,
    },
}

fn check_segment(what: &'static str, text: &str) -> Result<(), NameError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let inner = |b: u8| word(b) || matches!(b, b'@' | b' ' | b'.' | b'&' | b'-');
    let bytes = text.as_bytes();
    match bytes {
        [] => Err(NameError::Empty {
            what,
            text: text.to_owned(),
        }),
        _ if bytes.len() > SEGMENT_LEN_MAX => Err(NameError::TooLong {
            what,
            len: bytes.len(),
        }),
        [first, rest @ ..]
            if word(*first) && rest.iter().all(|b| inner(*b)) && rest.last().is_none_or(|b| *b != b' ') =>
        {
            Ok(())
        }
        _ => Err(NameError::Illegal {
            what,
            text: text.to_owned(),
        }),
    }
}

/// Reads a name from where its text is, without a copy of it.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = NameError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ArcStr);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Text(PhantomData))
            }
        }
    };
}

text_name!(
    /// Namespace of a caller; limits belong to it.
    NamespaceName
);

impl FromStr for NamespaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_segment("namespace", text)?;
        Ok(Self(text.into()))
    }
}

text_name!(
    /// Fully qualified name of an action, `namespace/name` or `namespace/package/name`, without leading slash.
    ActionName
);

impl ActionName {
    /// The namespace that owns the action (not the one that invokes it).
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The last segment.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for ActionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let count = text.split('/').count();
        if !(2..=3).contains(&count) {
            return Err(NameError::Segments {
                text: text.to_owned(),
            });
        }
        for (at, segment) in text.split('/').enumerate() {
            check_segment(if at == 0 { "namespace" } else { "action name" }, segment)?;
        }
        Ok(Self(text.into()))
    }
}

/// Names a queue: the activations of one action in one invocation namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueKey {
    /// Namespace of the caller.
    pub namespace: NamespaceName,
    /// The action.
    pub action: ActionName,
}

impl fmt::Display for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_rule_allows() {
        for text in ["a", "_", "a b", "guest@example.com", "x-1.2&3-"] {
            assert!(text.parse::<NamespaceName>().is_ok(), "{text:?}");
        }
        assert!("/guest/pkg/hello".parse::<ActionName>().is_ok());
    }

    #[test]
    fn refuses_what_it_does_not() {
        for text in ["", " a", "a ", "-a", "a/b", "ä", "a\n", &"x".repeat(257)] {
            assert!(text.parse::<NamespaceName>().is_err(), "{text:?}");
        }
        for text in ["hello", "a/b/c/d", "a//b", "a/b ", ""] {
            assert!(text.parse::<ActionName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn action_name_knows_its_parts() {
        let name: ActionName = "/guest/pkg/hello".parse().unwrap();
        assert_eq!(
            (name.namespace(), name.name(), name.as_str()),
            ("guest", "hello", "guest/pkg/hello")
        );
    }
}
