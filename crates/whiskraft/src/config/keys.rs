//! Every key a configuration type can be read from, found by asking serde, and the nearest one to a misspelt name.
//!
//! [`keys_of`] walks the type with a deserializer that holds no data: a struct tells its field names and ends the
//! walk there, anything else is a leaf. So the list cannot differ from what loading accepts.

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Names further from every key than this get no suggestion: it would be noise.
const SIMILARITY_MIN: f64 = 0.6;

/// Dotted names of all leaves of `T`, in the order of its fields.
pub(crate) fn keys_of<T: DeserializeOwned>() -> Vec<String> {
    let mut keys = Vec::new();
    collect::<T>(&mut Vec::new(), &mut keys);
    keys
}

fn collect<T: DeserializeOwned>(path: &mut Vec<&'static str>, keys: &mut Vec<String>) {
    let mut fields = None;
    let end = T::deserialize(Probe { path: path.as_slice(), fields: &mut fields });
    debug_assert!(end.is_err(), "a probe never yields a value");
    match fields {
        None => keys.push(path.join(".")),
        Some(fields) => fields.iter().for_each(|field| {
            path.push(field);
            collect::<T>(path, keys);
            path.pop();
        }),
    }
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

/// Descends along `path` and reports the fields of the struct it finds there.
struct Probe<'a> {
    path: &'a [&'static str],
    fields: &'a mut Option<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
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
            Some((key, rest)) => visitor.visit_map(OneField { key, rest, fields: self.fields }),
            None => {
                *self.fields = Some(fields);
                Err(Stop)
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A map with the one field on the way down.
struct OneField<'a> {
    key: &'static str,
    rest: &'a [&'static str],
    fields: &'a mut Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for OneField<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        seed.deserialize(BorrowedStrDeserializer::new(self.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(Probe { path: self.rest, fields: self.fields })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Inner {
        #[serde(with = "humantime_serde")]
        ttl_max: Duration,
        names: Vec<String>,
    }

    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Outer {
        log: String,
        data_dir: Option<std::path::PathBuf>,
        inner: Inner,
        maybe: Option<Inner>,
    }

    #[test]
    fn keys_are_the_leaves_in_order() {
        let wanted =
            ["log", "data-dir", "inner.ttl-max", "inner.names", "maybe.ttl-max", "maybe.names"];
        assert_eq!(keys_of::<Outer>(), wanted);
    }

    #[test]
    fn nearest_finds_typing_slips_and_wrong_sections() {
        let keys = ["log", "scheduler.data-dir", "scheduler.client-listen", "raft.heartbeat"];
        assert_eq!(nearest("scheduler.data-dri", keys), Some("scheduler.data-dir"));
        assert_eq!(nearest("data_dir", keys), Some("scheduler.data-dir"));
        assert_eq!(nearest("raft.heartbeet", keys), Some("raft.heartbeat"));
        assert_eq!(nearest("zzz", keys), None);
    }
}
