//! Settings of queues that move between schedulers.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// Queues that go to another scheduler (`[scheduler.handoff]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HandOffConfig {
    /// Time in which the next leader must have everything that is in a queue; else it goes on where it is. Meanwhile the queue
    /// stands still. Default 5s.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Longest time for which a scheduler that is told to stop hands its queues over before it goes. Default 15s.
    #[serde(with = "humantime_serde")]
    pub leave_wait_max: Duration,
}

impl Default for HandOffConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            leave_wait_max: Duration::from_secs(15),
        }
    }
}

/// Queues that move so that each scheduler leads its part (`[scheduler.balance]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BalanceConfig {
    /// Whether queues are moved for balance at all. Default true.
    pub enabled: bool,
    /// Part of the most queues that a scheduler leads by which another one may lead fewer. Default 0.2.
    pub difference: f64,
    /// Part of all queues that moves per minute at most. Default 0.1.
    pub rate: f64,
    /// Time for which the schedulers must have been the same before queues are moved. Default 20s.
    #[serde(with = "humantime_serde")]
    pub settle: Duration,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            difference: 0.2,
            rate: 0.1,
            settle: Duration::from_secs(20),
        }
    }
}

impl HandOffConfig {
    /// # Errors
    /// If no queue could ever be handed over.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.deadline.is_zero() {
            let reason =
                "must be above 0; it is the time in which a queue is sent to its next leader".to_owned();
            return Err(ConfigError {
                setting: "handoff.deadline",
                reason,
            });
        }
        Ok(())
    }
}
