//! Sizes of memory and data.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// An amount of memory or data in bytes, shown in the largest binary unit that divides it. Formats for people read
/// `512 MiB` as well as a number of bytes; everything else holds the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

/// A text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size; write a number of bytes, or for example 512MiB or 2GiB")]
pub struct ParseSizeError {
    text: String,
}

impl ByteSize {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many bytes.
    #[must_use]
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// So many mebibytes (OpenWhisk writes "MB").
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The amount in bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The amount in mebibytes, rounded down.
    #[must_use]
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }

    /// The sum, or the largest value there is.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Reads `512MiB`, `512 mb`, `512m`, `536870912`. Units are binary, as in OpenWhisk, however they are spelt.
impl FromStr for ByteSize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let trimmed = text.trim();
        let (number, unit) = trimmed.split_at(trimmed.bytes().take_while(u8::is_ascii_digit).count());
        let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "k" | "kb" | "kib" => Some(1 << 10),
            "m" | "mb" | "mib" => Some(1 << 20),
            "g" | "gb" | "gib" => Some(1 << 30),
            _ => None,
        };
        let count = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        count.map(Self).ok_or_else(|| ParseSizeError {
            text: text.to_owned(),
        })
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Human;

        impl Visitor<'_> for Human {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 512MiB, or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(count))
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<ByteSize, E> {
                let unexpected = || E::invalid_value(de::Unexpected::Signed(count), &self);
                u64::try_from(count).map(ByteSize).map_err(|_| unexpected())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        if from.is_human_readable() {
            from.deserialize_any(Human)
        } else {
            u64::deserialize(from).map(Self)
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let unit = UNITS
            .iter()
            .find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((shift, name)) => write!(f, "{} {name}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_binary_whatever_the_spelling() {
        for text in ["2MiB", "2 mb", "2m", "2048k", "2097152", "2097152B", "2 MiB"] {
            assert_eq!(text.parse(), Ok(ByteSize::mib(2)), "{text}");
        }
        for text in ["", "MiB", "1.5g", "-1", "17179869184g", "1t", "1 2"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn reads_what_it_prints() {
        for size in [
            ByteSize::ZERO,
            ByteSize::bytes(1023),
            ByteSize::mib(3),
            ByteSize::bytes(5 << 30),
        ] {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
