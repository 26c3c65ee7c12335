//! Section `[backend.simulated]`: how long the pretended containers take, and what goes wrong in them on purpose.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use whiskraft_invoker::backend::faults::{Faults, Share};
use whiskraft_invoker::backend::simulated::Behaviour;
use whiskraft_types::{ByteSize, CreationError};

/// Containers that only pretend (`[backend.simulated]`). Everything from `record` on is for fault tests.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SimulatedConfig {
    /// Length of a creation. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) create: Duration,
    /// Length of an init. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) init: Duration,
    /// Length of a run, which returns its arguments; they may choose another one (`{"sleep_ms": 1.5}`). Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) run: Duration,
    /// Length of a pause or resume. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) pause: Duration,
    /// File that gets a line `ID RUN INVOKER UNIX_MS` for every run that is started. Default: none.
    pub(crate) record: Option<PathBuf>,
    /// What chance starts from. Default 0.
    pub(crate) seed: u64,
    /// How many times as long runs last. Default 1.
    pub(crate) slow_factor: f64,
    /// Share of activations that are accepted and never answered. Default 0.
    pub(crate) silent: Share,
    /// Share of creations that fail. Default 0.
    pub(crate) create_failures: Share,
    /// Kind of those failures. Default whisk.
    #[serde(deserialize_with = "creation_error")]
    pub(crate) create_failure_kind: CreationError,
    /// What every creation takes longer. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) create_delay: Duration,
    /// Memory there really is; creations beyond it fail. Default: as much as is reported.
    pub(crate) lie_about_memory: Option<ByteSize>,
    /// Share of creations and removals whose report is late. Default 0.
    pub(crate) ack_losses: Share,
    /// How late those reports are. Default 1s.
    #[serde(with = "humantime_serde")]
    pub(crate) ack_delay: Duration,
    /// Share of pauses and resumes that fail. Default 0.
    pub(crate) pause_failures: Share,
}

impl Default for SimulatedConfig {
    fn default() -> Self {
        let faults = Faults::default();
        Self {
            create: Duration::ZERO,
            init: Duration::ZERO,
            run: Duration::ZERO,
            pause: Duration::ZERO,
            record: None,
            seed: faults.seed,
            slow_factor: faults.slow_factor,
            silent: faults.silent,
            create_failures: faults.create_failures,
            create_failure_kind: faults.create_failure,
            create_delay: faults.create_delay,
            lie_about_memory: faults.true_memory,
            ack_losses: faults.ack_losses,
            // The invoker's own time between two tries of a report.
            ack_delay: Duration::from_secs(1),
            pause_failures: faults.pause_failures,
        }
    }
}

/// A kind as other names in the file are written: `resource-not-enough`.
fn creation_error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CreationError, D::Error> {
    let text = String::deserialize(deserializer)?;
    let plain = text.replace('-', "");
    CreationError::ALL
        .into_iter()
        .find(|error| format!("{error:?}").eq_ignore_ascii_case(&plain))
        .ok_or_else(|| de::Error::custom(format!("{text:?} is no kind of creation error")))
}

impl From<&SimulatedConfig> for Behaviour {
    fn from(config: &SimulatedConfig) -> Self {
        Self {
            create: config.create,
            init: config.init,
            run: config.run,
            pause: config.pause,
            ..Self::default()
        }
    }
}

impl From<&SimulatedConfig> for Faults {
    fn from(config: &SimulatedConfig) -> Self {
        Self {
            seed: config.seed,
            slow_factor: config.slow_factor,
            silent: config.silent,
            create_failures: config.create_failures,
            create_failure: config.create_failure_kind,
            create_delay: config.create_delay,
            true_memory: config.lie_about_memory,
            ack_losses: config.ack_losses,
            ack_delay: config.ack_delay,
            pause_failures: config.pause_failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SimulatedConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn nothing_goes_wrong_by_default() {
        let config = read("run = \"3ms\"").unwrap();
        let faults = Faults::from(&config);
        assert_eq!(
            faults,
            Faults {
                ack_delay: Duration::from_secs(1),
                ..Faults::default()
            }
        );
    }

    #[test]
    fn faults_are_read_as_they_are_written() {
        let text = "slow-factor = 20\nsilent = 0.5\ncreate-failures = 1\ncreate-failure-kind = \"black-box\"\n\
                    lie-about-memory = \"1GiB\"";
        let faults = Faults::from(&read(text).unwrap());
        assert_eq!(faults.slow_factor, 20.0);
        assert_eq!(faults.silent, Share::new(0.5).unwrap());
        assert_eq!(faults.create_failures, Share::ALL);
        assert_eq!(faults.create_failure, CreationError::BlackBox);
        assert_eq!(faults.true_memory, Some(ByteSize::mib(1024)));
    }

    #[test]
    fn what_is_no_share_or_kind_is_refused() {
        assert!(read("silent = 1.5").is_err());
        assert!(read("create-failure-kind = \"gremlins\"").is_err());
    }
}
