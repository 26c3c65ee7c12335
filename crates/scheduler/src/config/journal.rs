//! Settings of the journal.

use std::num::NonZeroUsize;
use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use serde::Deserialize;
use whiskraft_types::ByteSize;

use super::ConfigError;

/// Durable activations, and the records of all (`[scheduler.journal]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JournalConfig {
    /// Time for which the record of an activation can be read by its id, from its end; its id and idempotency key are
    /// remembered as long. Default 24h.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// Whether records of activations that were accepted into memory only are kept too; off the way of their callers, and
    /// as far as there is room. Default true.
    pub archive: bool,
    /// Durable activations that wait for the disks at a time; more are refused for now. Default 16384.
    pub accepting_max: NonZeroUsize,
    /// Bytes of their payloads. Default 67108864 (64 MiB).
    pub accepting_bytes_max: ByteSize,
    /// Records of other activations that wait to be kept; more are dropped. Default 16384.
    pub archiving_max: NonZeroUsize,
    /// Bytes of those records. Default 33554432 (32 MiB).
    pub archiving_bytes_max: ByteSize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        let count = NonZeroUsize::new(16_384).unwrap_or(NonZeroUsize::MIN);
        Self {
            retention: Duration::from_secs(24 * 60 * 60),
            archive: true,
            accepting_max: count,
            accepting_bytes_max: ByteSize::mib(64),
            archiving_max: count,
            archiving_bytes_max: ByteSize::mib(32),
        }
    }
}

impl JournalConfig {
    /// Times outside of which nothing works, or which are slips of a unit.
    ///
    /// # Errors
    /// Names the setting, its value and what it may be.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let range = Duration::from_secs(60)..=Duration::from_secs(366 * 24 * 60 * 60);
        if range.contains(&self.retention) {
            return Ok(());
        }
        let [value, min, max] = [self.retention, *range.start(), *range.end()].map(format_duration);
        Err(ConfigError {
            setting: "journal.retention",
            reason: format!("{value} is outside the allowed {min} to {max}"),
        })
    }
}
