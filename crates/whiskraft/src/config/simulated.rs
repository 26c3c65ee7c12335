//! Section `[backend.simulated]`: how long the pretended containers take.

use std::time::Duration;

use serde::Deserialize;
use whiskraft_invoker::backend::simulated::Behaviour;

/// Times of containers that only pretend (`[backend.simulated]`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SimulatedConfig {
    /// Length of a creation. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) create: Duration,
    /// Length of an init. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) init: Duration,
    /// Length of a run, which returns its arguments. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) run: Duration,
    /// Length of a pause or resume. Default 0s.
    #[serde(with = "humantime_serde")]
    pub(crate) pause: Duration,
}

impl From<&SimulatedConfig> for Behaviour {
    fn from(config: &SimulatedConfig) -> Self {
        let SimulatedConfig {
            create,
            init,
            run,
            pause,
        } = *config;
        Self {
            create,
            init,
            run,
            pause,
            ..Self::default()
        }
    }
}
