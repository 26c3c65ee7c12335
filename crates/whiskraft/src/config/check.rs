//! Relations between settings of different sections, checked once at load.

use std::time::Duration;

use super::Config;
use super::cluster::is_address;

/// A setting contradicts another one, or cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {setting:?}: {reason}")]
pub(crate) struct RelationError {
    setting: String,
    reason: String,
}

impl RelationError {
    /// An error about `setting`; `reason` says what it must be.
    pub(crate) fn new(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            reason: reason.into(),
        }
    }
}

/// Checks every relation that no single component can see, after each component has checked its own.
pub(crate) fn relations(config: &Config) -> Result<(), RelationError> {
    config
        .raft
        .check()
        .map_err(|error| RelationError::new("raft", error.to_string()))?;
    config
        .scheduler
        .check()
        .map_err(|error| RelationError::new("scheduler", error.to_string()))?;
    session_outlives_election(config)?;
    match config.endpoints.iter().find(|address| !is_address(address)) {
        _ if config.endpoints.is_empty() => Err(RelationError::new(
            "endpoints",
            "must name at least one HOST:PORT",
        )),
        Some(wrong) => Err(RelationError::new(
            "endpoints",
            format!("{wrong:?} must be HOST:PORT"),
        )),
        None => Ok(()),
    }
}

/// Keepalives stop while the cluster has no leader. A session shorter than an election would end on every change
/// of the Raft leader, and all queues would move.
fn session_outlives_election(config: &Config) -> Result<(), RelationError> {
    // A follower campaigns after the old leader's lease and its own timeout; then one keepalive must get through.
    let election: Duration = config.raft.election_max * 2 + config.scheduler.session.keepalive;
    let ttl = config.scheduler.session.ttl;
    if ttl > election {
        return Ok(());
    }
    let reason = format!(
        "{ttl:?} must be longer than an election and one keepalive, {election:?} \
         (twice raft.election-max plus scheduler.session.keepalive)"
    );
    Err(RelationError::new("scheduler.session.ttl", reason))
}
