//! What a test says about the cluster it wants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What differs from a plain cluster of three schedulers and one invoker.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Schedulers, numbered from 1.
    pub schedulers: u64,
    /// Invokers, numbered from 1.
    pub invokers: u64,
    /// Settings of every scheduler, as `KEY=VALUE`.
    pub set: Vec<String>,
    /// Settings of every invoker.
    pub invoker_set: Vec<String>,
    /// More settings of single invokers, which win.
    pub invoker_only: BTreeMap<u64, Vec<String>>,
    /// MiB of the [`Disk`](crate::Disk) that each scheduler has of its own; `None`: they share the machine's.
    pub disk_mib: Option<u64>,
    /// Whether simulated invokers record what they start.
    pub record_starts: bool,
    /// Environment of every scheduler.
    pub scheduler_env: Vec<(String, String)>,
    /// Binary with which everybody starts at first; `None`: the one under test.
    pub binary: Option<PathBuf>,
    /// Name of the cluster, if it is not the usual one.
    pub name: Option<String>,
    /// Backup from which the data directories of the schedulers are made.
    pub backup: Option<PathBuf>,
}

impl ClusterOptions {
    /// Three schedulers and so many invokers whose containers only pretend, each with this memory.
    #[must_use]
    pub fn simulated(invokers: u64, memory: &str) -> Self {
        Self {
            invokers,
            invoker_set: vec![
                "backend.kind=simulated".to_owned(),
                format!("invoker.pool.memory={memory}"),
            ],
            ..Self::default()
        }
    }

    /// With this setting of every scheduler.
    #[must_use]
    pub fn with(mut self, setting: &str) -> Self {
        self.set.push(setting.to_owned());
        self
    }

    /// With this setting of every invoker.
    #[must_use]
    pub fn with_invoker(mut self, setting: &str) -> Self {
        self.invoker_set.push(setting.to_owned());
        self
    }

    /// With this setting of one invoker.
    #[must_use]
    pub fn with_only(mut self, invoker: u64, setting: &str) -> Self {
        self.invoker_only
            .entry(invoker)
            .or_default()
            .push(setting.to_owned());
        self
    }

    /// With a disk of so many MiB for each scheduler, which can lose writes, fill up, stall and break.
    #[must_use]
    pub fn with_disks(mut self, mib: u64) -> Self {
        self.disk_mib = Some(mib);
        self
    }

    /// With the starts of simulated runs appended to the file that [`Cluster::starts`](crate::Cluster::starts) reads.
    #[must_use]
    pub fn recording_starts(mut self) -> Self {
        self.record_starts = true;
        self
    }

    /// Of so many schedulers.
    #[must_use]
    pub fn of(mut self, schedulers: u64) -> Self {
        self.schedulers = schedulers;
        self
    }

    /// Under this name, with what a backup holds.
    #[must_use]
    pub fn restored(mut self, name: &str, backup: &Path) -> Self {
        self.name = Some(name.to_owned());
        self.backup = Some(backup.to_owned());
        self
    }

    /// With the whole log kept, so that [`Cluster::check_log`](crate::Cluster::check_log) sees every revision.
    #[must_use]
    pub fn keeping_the_log(self) -> Self {
        self.with("raft.snapshot-logs=100000000")
            .with("raft.logs-kept=100000000")
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            schedulers: 3,
            invokers: 1,
            set: Vec::new(),
            invoker_set: Vec::new(),
            invoker_only: BTreeMap::new(),
            disk_mib: None,
            record_starts: false,
            scheduler_env: Vec::new(),
            binary: None,
            name: None,
            backup: None,
        }
    }
}
