//! Age limits. Two rules that differ at the edge, kept together so that nobody mixes them up.

use std::time::Duration;

/// Whether an activation has waited in the queue for as long as it may: the edge counts as too long.
#[must_use]
pub fn is_expired(age: Duration, retention: Duration) -> bool {
    age >= retention
}

/// Whether an activation is too old to be taken at all: the edge still passes. For intakes that know the age on one
/// clock; a queue itself measures from acceptance only, as clocks of two hosts do not compare.
#[must_use]
pub fn is_too_old(age: Duration, age_max: Duration) -> bool {
    age > age_max
}
