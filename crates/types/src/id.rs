//! Identities. Each is a newtype with one text form that is parsed and printed the same way everywhere.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct ParseIdError {
    text: String,
    wanted: &'static str,
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The value after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number_id!(
    /// A member of the Raft cluster, by the number it has in `--initial-cluster` or was given when it joined.
    SchedulerId
);
number_id!(
    /// A worker host, by the number its operator gave it; at most one live process may hold it.
    InvokerId
);
number_id!(
    /// A session: the only lease there is. The value is the log revision that opened it, so it is never reused.
    SessionId
);
number_id!(
    /// Generation of a queue's leadership; grows with every change of leader and never falls.
    Epoch
);
number_id!(
    /// Revision of an action document: the log revision of the write, so a later write is always greater.
    Revision
);
number_id!(
    /// Index in the replicated log of group 0.
    LogRevision
);

/// A container and its creation: the session of the queue leader that reserved it, and a number that this
/// session uses once. Known before the container exists, so that every message about it can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    /// Session of the scheduler that reserved the slot.
    pub session: SessionId,
    /// Counter of that session, from 1.
    pub seq: u64,
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}-{}", self.session, self.seq)
    }
}

impl FromStr for ContainerId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.strip_prefix('c').and_then(|rest| {
            let (session, seq) = rest.split_once('-')?;
            Some(Self {
                session: SessionId(session.parse().ok()?),
                seq: seq.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| ParseIdError {
            text: text.to_owned(),
            wanted: "a container id (c<session>-<number>)",
        })
    }
}

/// One request to run an action: 16 bytes, shown as 32 lower-case hex digits as in OpenWhisk. Ordered by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActivationId([u8; 16]);

impl ActivationId {
    /// An id from its bytes; the SDK draws them at random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as they travel.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Ord for ActivationId {
    fn cmp(&self, other: &Self) -> Ordering {
        // The order of the bytes in two instructions: a derived one calls `memcmp`, at every node of a tree of ids.
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for ActivationId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut text = [0_u8; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 0xf]) {
                *digit = DIGITS[usize::from(half)];
            }
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ActivationId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        let mut bytes = [0_u8; 16];
        let valid = digits.len() == 32
            && digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'))
            && bytes.iter_mut().zip(digits.chunks_exact(2)).all(|(byte, pair)| {
                std::str::from_utf8(pair)
                    .ok()
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                    .map(|value| *byte = value)
                    .is_some()
            });
        if valid {
            Ok(Self(bytes))
        } else {
            Err(ParseIdError {
                text: text.to_owned(),
                wanted: "an activation id (32 lower-case hex digits)",
            })
        }
    }
}

impl TryFrom<&[u8]> for ActivationId {
    type Error = ParseIdError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| ParseIdError {
            text: format!("{} bytes", bytes.len()),
            wanted: "an activation id of 16 bytes",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activation_id_reads_what_it_prints() {
        let id = ActivationId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn activation_ids_ascend_as_their_bytes() {
        let mut all = Vec::new();
        for at in 0..16 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = [3; 16];
                bytes[at] = byte;
                all.push(bytes);
            }
        }
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let ids = [a, b].map(|bytes| ActivationId::from_bytes(*bytes));
            assert_eq!(ids[0].cmp(&ids[1]), a.cmp(b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn activation_id_refuses_upper_case_and_wrong_length() {
        assert!("AB".repeat(16).parse::<ActivationId>().is_err());
        assert!("ab".repeat(15).parse::<ActivationId>().is_err());
        assert!("é".repeat(16).parse::<ActivationId>().is_err());
    }

    #[test]
    fn container_id_reads_what_it_prints() {
        let id = ContainerId {
            session: SessionId(12),
            seq: 7,
        };
        assert_eq!(id.to_string(), "c12-7");
        assert_eq!("c12-7".parse(), Ok(id));
        assert!("12-7".parse::<ContainerId>().is_err());
    }
}
