//! Chance that repeats itself: shares, and draws from a seed.

use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Deserializer, de};

/// A part of all cases, from 0 (none) to 1 (all).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Share(f64);

impl Share {
    /// No case.
    pub const NONE: Self = Self(0.0);
    /// Every case.
    pub const ALL: Self = Self(1.0);

    /// The share, or `None` if it is not between 0 and 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(deserializer)?;
        Self::new(share).ok_or_else(|| de::Error::custom(format!("{share} must be from 0 to 1")))
    }
}

/// Draws of one kind. Each kind has its own, so that how often one is asked does not move the others.
#[derive(Debug)]
pub(super) struct Draw(Mutex<StdRng>);

impl Draw {
    pub(super) fn new(seed: u64, kind: u64) -> Self {
        /// Odd, so that different kinds of the same seed start far apart.
        const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
        Self(Mutex::new(StdRng::seed_from_u64(
            seed ^ kind.wrapping_mul(SPREAD),
        )))
    }

    /// Whether the next case is one of the share.
    pub(super) fn is_hit(&self, share: Share) -> bool {
        share.0 > 0.0
            && self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .random_bool(share.0)
    }
}
