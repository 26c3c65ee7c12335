//! Every key a configuration type can be read from, found by asking serde, and the nearest one to a misspelt name.
//!
//! [`keys_of`] walks the type with a deserializer that holds no data: a struct tells its field names and ends the
//! walk there, anything else is a leaf, which tells what it wants to be read from. So the list cannot differ from
//! what loading accepts.

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Names further from every key than this get no suggestion: it would be noise.
const SIMILARITY_MIN: f64 = 0.6;

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Dotted name.
    pub(crate) name: String,
    /// What it is read from.
    pub(crate) shape: Shape,
}

/// What a setting is read from; decides how text of the environment is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Text, as it is.
    Text,
    /// A list; text is split at commas.
    List,
    /// A number, a truth value, or whatever the setting makes of it.
    Value,
}

/// All leaves of `T`, in the order of its fields.
pub(crate) fn keys_of<T: DeserializeOwned>() -> Vec<Key> {
    let mut keys = Vec::new();
    collect::<T>(&mut Vec::new(), &mut keys);
    keys
}

fn collect<T: DeserializeOwned>(path: &mut Vec<&'static str>, keys: &mut Vec<Key>) {
    let mut found = Found::Leaf(Shape::Value);
    let end = T::deserialize(Probe {
        path: path.as_slice(),
        found: &mut found,
    });
    debug_assert!(end.is_err(), "a probe never yields a value");
    match found {
        Found::Leaf(shape) => keys.push(Key {
            name: path.join("."),
            shape,
        }),
        Found::Struct(fields) => fields.iter().for_each(|field| {
            path.push(field);
            collect::<T>(path, keys);
            path.pop();
        }),
    }
}

/// What a probe met at the end of its path.
enum Found {
    Struct(&'static [&'static str]),
    Leaf(Shape),
}

/// The key that a user who wrote `name` most likely meant.
pub(crate) fn nearest<'k>(name: &str, keys: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    keys.into_iter()
        .map(|key| (similarity(name, key), key))
        .filter(|(score, _)| *score >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, key)| key)
}

/// Compares the whole name, and the last part alone: the usual slip is the right key in the wrong section.
fn similarity(name: &str, key: &str) -> f64 {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().replace('_', "-");
    let whole = strsim::jaro_winkler(&name.replace('_', "-"), key);
    // A matching last part in another section ranks just below the same score for the whole name.
    whole.max(strsim::jaro_winkler(&last(name), &last(key)) * 0.99)
}

/// Why a probe stopped; never shown.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("probe ended")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Descends along `path` and reports what it finds there.
struct Probe<'a> {
    path: &'a [&'static str],
    found: &'a mut Found,
}

impl Probe<'_> {
    fn stop<T>(self, shape: Shape) -> Result<T, Stop> {
        *self.found = Found::Leaf(shape);
        Err(Stop)
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.stop(Shape::Value)
    }

    fn deserialize_str<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.stop(Shape::Text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.stop(Shape::Text)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.stop(Shape::List)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.path.split_first() {
            Some((key, rest)) => visitor.visit_map(OneField {
                key,
                rest,
                found: self.found,
            }),
            None => {
                *self.found = Found::Struct(fields);
                Err(Stop)
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct map enum identifier ignored_any
    }
}

/// A map with the one field on the way down.
struct OneField<'a> {
    key: &'static str,
    rest: &'a [&'static str],
    found: &'a mut Found,
}

impl<'de> MapAccess<'de> for OneField<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        seed.deserialize(BorrowedStrDeserializer::new(self.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(Probe {
            path: self.rest,
            found: self.found,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct Inner {
        #[serde(with = "humantime_serde")]
        ttl_max: Duration,
        names: Vec<String>,
        count: u64,
    }

    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct Outer {
        log: String,
        data_dir: Option<std::path::PathBuf>,
        inner: Inner,
        maybe: Option<Inner>,
    }

    #[test]
    fn keys_are_the_leaves_in_order() {
        let keys = keys_of::<Outer>();
        let found: Vec<_> = keys.iter().map(|key| (key.name.as_str(), key.shape)).collect();
        let wanted = [
            ("log", Shape::Text),
            ("data-dir", Shape::Text),
            ("inner.ttl-max", Shape::Text),
            ("inner.names", Shape::List),
            ("inner.count", Shape::Value),
            ("maybe.ttl-max", Shape::Text),
            ("maybe.names", Shape::List),
            ("maybe.count", Shape::Value),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn nearest_finds_typing_slips_and_wrong_sections() {
        let keys = [
            "log",
            "scheduler.data-dir",
            "scheduler.client-listen",
            "raft.heartbeat",
        ];
        assert_eq!(nearest("scheduler.data-dri", keys), Some("scheduler.data-dir"));
        assert_eq!(nearest("data_dir", keys), Some("scheduler.data-dir"));
        assert_eq!(nearest("raft.heartbeet", keys), Some("raft.heartbeat"));
        assert_eq!(nearest("zzz", keys), None);
    }
}
