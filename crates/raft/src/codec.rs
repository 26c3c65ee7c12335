//! Bytes on disk and between schedulers: log entries, commands, responses, snapshot headers, small records.
//!
//! Every record starts with a format byte and a version byte. Format 1 is bincode 2 in its standard configuration, which
//! is positional: a variant never gets another field, a struct never gets another member; add a variant, or a version.
//! Golden tests pin the bytes.
//!
//! Invariant: this is the only module that calls bincode; none of these bytes reach a client.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// bincode 2, standard configuration.
const FORMAT: u8 = 1;
/// Version of the records; readers accept it and, once there is a second one, the version before.
const VERSION: u8 = 1;
/// Longest record accepted: an entry of the log is at most 1 MiB of document or blob, the tables of a big cluster
/// some hundred; more is damage, and must not become an allocation.
const LEN_MAX: usize = 1 << 30;

/// Why bytes are not a record, or a value did not become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// A newer release wrote it, or something else.
    #[error(
        "record has format {format} version {version}; this release reads format {FORMAT} version {VERSION}"
    )]
    Version {
        /// First byte.
        format: u8,
        /// Second byte.
        version: u8,
    },
    /// Cut off, damaged, or of another type.
    #[error("record of {len} bytes is damaged: {reason}")]
    Damaged {
        /// Its length.
        len: usize,
        /// What does not fit.
        reason: String,
    },
    /// The value is too large or cannot be serialized.
    #[error("record cannot be written: {0}")]
    Encode(String),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

fn settings() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<LEN_MAX>()
}

/// The record of a value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![FORMAT, VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, settings())
        .map_err(|error| CodecError::Encode(error.to_string()))?;
    Ok(bytes)
}

/// The value of a record; every byte must belong to it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let damaged = |reason: String| CodecError::Damaged {
        len: bytes.len(),
        reason,
    };
    match *bytes {
        [FORMAT, VERSION, ref body @ ..] => {
            let (value, used) = bincode::serde::decode_from_slice(body, settings())
                .map_err(|error| damaged(error.to_string()))?;
            if used == body.len() {
                Ok(value)
            } else {
                Err(damaged(format!("{} bytes follow the value", body.len() - used)))
            }
        }
        [format, version, ..] => Err(CodecError::Version { format, version }),
        _ => Err(damaged("it has no version".to_owned())),
    }
}

#[cfg(test)]
mod codec_test;
#[cfg(test)]
mod journal_test;
