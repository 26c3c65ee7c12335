//! Byte strings as one piece: the bytes of a record are those of a list of bytes, but written and read at once.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

/// Bytes reserved on the word of a length that nobody has checked yet.
const RESERVED_MAX: usize = 4096;

pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    from.deserialize_byte_buf(Reader)
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::with_capacity(from.size_hint().unwrap_or_default().min(RESERVED_MAX));
        while let Some(byte) = from.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}
