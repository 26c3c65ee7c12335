//! The settings of the binary: what the configuration file holds, section by section.
//!
//! Each component declares its own section; here are those of the process itself. Loading and merging is in
//! [`load()`], relations between settings are checked once, in `check`. `docs/config.md` describes every key.

mod check;
mod cluster;
mod keys;
mod load;
mod node;
mod simulated;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use whiskraft_invoker::backend::process::ProcessConfig;
use whiskraft_types::NamespaceName;

pub(crate) use cluster::is_address;
pub(crate) use load::{ConfigError, Overrides, Sources, default_file, load};
pub(crate) use node::NodeSection;
pub(crate) use simulated::SimulatedConfig;

/// Everything a configuration file can say.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// What to log; `None`: `info` for servers, `warn` for the other commands.
    pub(crate) log: Option<String>,
    /// Form of log lines. Default human.
    pub(crate) log_format: LogFormat,
    /// Client addresses of schedulers for the commands that talk to a cluster. Default 127.0.0.1:7401.
    #[serde(deserialize_with = "cluster::list")]
    pub(crate) endpoints: Vec<String>,
    /// Namespace of the caller for those commands. Default guest.
    pub(crate) namespace: NamespaceName,
    /// This scheduler's place in its cluster.
    pub(crate) node: NodeSection,
    /// The replicated log.
    pub(crate) raft: whiskraft_raft::Settings,
    /// The scheduler role.
    pub(crate) scheduler: whiskraft_scheduler::SchedulerConfig,
    /// The invoker role.
    pub(crate) invoker: whiskraft_invoker::InvokerConfig,
    /// What runs the invoker's containers.
    pub(crate) backend: BackendSection,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: None,
            log_format: LogFormat::Human,
            endpoints: vec!["127.0.0.1:7401".to_owned()],
            namespace: "guest".parse().expect("a valid name"),
            node: NodeSection::default(),
            raft: whiskraft_raft::Settings::default(),
            scheduler: whiskraft_scheduler::SchedulerConfig::default(),
            invoker: whiskraft_invoker::InvokerConfig::default(),
            backend: BackendSection::default(),
        }
    }
}

/// What runs the invoker's containers (`[backend]`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct BackendSection {
    /// Which backend. Default process.
    pub(crate) kind: BackendKind,
    /// Containers as child processes of this host.
    pub(crate) process: ProcessConfig,
    /// Containers that only pretend, for measurements of the schedulers.
    pub(crate) simulated: SimulatedConfig,
}

/// A backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendKind {
    /// Actions run as child processes of this host, with the interpreters found there.
    #[default]
    Process,
    /// Nothing runs: every activation succeeds after a configured time.
    Simulated,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people: colours on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Keys in the tables of `docs/config.md`: the first cell of each row, in backquotes.
    fn documented() -> BTreeSet<String> {
        let text = include_str!("../../../docs/config.md");
        let cells = text
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        cells.map(|(key, _)| key.to_owned()).collect()
    }

    #[test]
    fn every_key_is_documented_and_no_other() {
        let keys: BTreeSet<String> = keys::keys_of::<Config>()
            .into_iter()
            .map(|key| key.name)
            .collect();
        let missing: Vec<_> = keys.difference(&documented()).cloned().collect();
        let stale: Vec<_> = documented().difference(&keys).cloned().collect();
        assert!(
            missing.is_empty() && stale.is_empty(),
            "missing: {missing:?}\nstale: {stale:?}"
        );
    }

    #[test]
    fn variables_of_two_keys_never_coincide() {
        let keys = keys::keys_of::<Config>();
        let names: BTreeSet<_> = keys.iter().map(|key| key.name.replace(['.', '-'], "_")).collect();
        assert_eq!(names.len(), keys.len());
    }
}
