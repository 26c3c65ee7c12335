//! What a node is told when it starts: who it is, where its data lives, and its settings.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use whiskraft_types::SchedulerId;

use crate::types::LANES_MAX;

/// Bytes of a lane's log that can be kept at most: further back nobody remembers where in the log they are.
const LANE_LOG_BYTES_MAX: u64 = 1 << 30;

/// Bounds outside which a cluster cannot work, with the setting that breaks one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {found}, but must be {wanted}")]
pub struct SettingsError {
    setting: &'static str,
    found: String,
    wanted: String,
}

/// Everything [`Node::start`](crate::Node::start) needs.
#[derive(Debug)]
pub struct NodeConfig {
    /// This scheduler's number in `initial_cluster`; `None` for one that joins, whose number the cluster chooses.
    pub id: Option<SchedulerId>,
    /// Peer addresses (`host:port`) of the schedulers that form the cluster, the same on each of them; empty for one
    /// that joins.
    pub initial_cluster: BTreeMap<SchedulerId, String>,
    /// Peer addresses of live members through which this scheduler joins; `None` for an initial member.
    pub join: Option<Vec<String>>,
    /// Whether one that joins stays without a vote until an operator promotes it.
    pub learner: bool,
    /// Name of the cluster; part of its identity, so that two clusters on the same addresses stay apart.
    pub cluster_name: String,
    /// Directory for log, snapshots, documents and identity; created if missing.
    pub data_dir: PathBuf,
    /// Listener for other schedulers, bound already.
    pub peer_listener: TcpListener,
    /// `host:port` at which others reach `peer_listener`; `None` takes the address in `initial_cluster` or, for one
    /// that joins, the listener's own.
    pub advertise_peer: Option<String>,
    /// `host:port` at which controllers and invokers reach this scheduler.
    pub advertise_client: String,
    /// Failure zone; may be empty.
    pub zone: String,
    /// Version of the binary.
    pub version: String,
    /// Tunables.
    pub settings: Settings,
}

/// Tunables of the replicated log (`[raft]`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Pause between heartbeats of the Raft leader. Default 50ms.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Shortest silence after which a follower asks for votes. Default 150ms; keep it above ten slow syncs.
    #[serde(with = "humantime_serde")]
    pub election_min: Duration,
    /// Longest such silence, and the length of the leader's lease. Default 300ms.
    #[serde(with = "humantime_serde")]
    pub election_max: Duration,
    /// How long a proposal, a read index or a forwarded call may wait for a leader and its answer. Default 5s.
    #[serde(with = "humantime_serde")]
    pub propose_timeout: Duration,
    /// Longest pause in the sending of a snapshot to a follower, four times that for those of lanes: between two of its
    /// parts, and after the last one beside the time that its length needs. Default 30s.
    #[serde(with = "humantime_serde")]
    pub snapshot_timeout: Duration,
    /// Log entries between two snapshots. Default 20000.
    pub snapshot_logs: u64,
    /// Log entries kept below the newest snapshot, so that a follower that was away catches up from the log; more
    /// than two snapshot intervals, so that the older snapshot stays usable. Default 100000.
    pub logs_kept: u64,
    /// Batches of events kept for watchers that resume. Default 8192.
    pub watch_batches: usize,
    /// Bytes of events kept for watchers that resume, by estimate. Default 33554432 (32 MiB).
    pub watch_bytes: usize,
    /// Space that must be left on the disk of `data-dir` for this node to accept documents, blobs and durable activations:
    /// room for the write-ahead log, a flush of the write buffers and a compaction on top. Default 268435456 (256 MiB).
    pub disk_reserve: u64,
    /// Lanes of the journal of durable activations; fixed when the cluster forms, later values are ignored. Default 3.
    pub lanes: u32,
    /// Bytes of a lane's log that are applied before entries are removed from it. Default 67108864 (64 MiB).
    pub lane_snapshot_bytes: u64,
    /// Bytes of a lane's log kept so that a scheduler that was away catches up from it; one that was away longer is
    /// sent all rows. Default 268435456 (256 MiB).
    pub lane_log_bytes: u64,
    /// How long payloads and records of the journal stay on the disk after they have expired. Default 1h.
    #[serde(with = "humantime_serde")]
    pub journal_margin: Duration,
    /// How long an activation whose record has expired is remembered as gone. Default 7d.
    #[serde(with = "humantime_serde")]
    pub journal_gone: Duration,
    /// Longest silence of a lane after which its leader tells it the time, by which records expire. Default 1m.
    #[serde(with = "humantime_serde")]
    pub lane_tick: Duration,
    /// How long a scheduler must have been well before lanes that belong to it are moved to it. Default 5s.
    #[serde(with = "humantime_serde")]
    pub lane_calm: Duration,
    /// Added to every sync of the log; for measurements of slow disks. Default 0s.
    #[serde(with = "humantime_serde")]
    pub sync_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            propose_timeout: Duration::from_secs(5),
            snapshot_timeout: Duration::from_secs(30),
            snapshot_logs: 20_000,
            logs_kept: 100_000,
            watch_batches: 8192,
            watch_bytes: 32 << 20,
            disk_reserve: 256 << 20,
            lanes: 3,
            lane_snapshot_bytes: 64 << 20,
            lane_log_bytes: 256 << 20,
            journal_margin: Duration::from_secs(60 * 60),
            journal_gone: Duration::from_secs(7 * 24 * 60 * 60),
            lane_tick: Duration::from_secs(60),
            lane_calm: Duration::from_secs(5),
            sync_delay: Duration::ZERO,
        }
    }
}

impl Settings {
    /// Those of the lanes: they may take longer to notice that a leader is gone, and so disturb group 0 less.
    pub(crate) fn of_lanes(&self) -> Self {
        Self {
            heartbeat: self.heartbeat * 4,
            election_min: self.election_min * 4,
            // Longer than the shortest, however close the two are.
            election_max: (self.election_max * 3).max(self.election_min * 4 + self.heartbeat),
            snapshot_timeout: self.snapshot_timeout * 4,
            ..self.clone()
        }
    }

    /// Checks the relations between settings.
    ///
    /// # Errors
    /// Names the first setting that is out of bounds.
    pub fn check(&self) -> Result<(), SettingsError> {
        let refuse = |setting, found: String, wanted: String| {
            Err(SettingsError {
                setting,
                found,
                wanted,
            })
        };
        if self.heartbeat < Duration::from_millis(5) {
            return refuse(
                "heartbeat",
                format!("{:?}", self.heartbeat),
                "at least 5ms".to_owned(),
            );
        }
        if self.election_min < self.heartbeat * 2 {
            let wanted = format!("at least twice the heartbeat of {:?}", self.heartbeat);
            return refuse("election-min", format!("{:?}", self.election_min), wanted);
        }
        if self.election_max <= self.election_min {
            let wanted = format!("more than election-min, {:?}", self.election_min);
            return refuse("election-max", format!("{:?}", self.election_max), wanted);
        }
        if self.snapshot_logs == 0 {
            return refuse("snapshot-logs", "0".to_owned(), "at least 1".to_owned());
        }
        if !(1..=LANES_MAX).contains(&self.lanes) {
            return refuse("lanes", self.lanes.to_string(), format!("from 1 to {LANES_MAX}"));
        }
        if self.lane_log_bytes > LANE_LOG_BYTES_MAX {
            let wanted = format!("at most {LANE_LOG_BYTES_MAX}");
            return refuse("lane-log-bytes", self.lane_log_bytes.to_string(), wanted);
        }
        if self.lane_snapshot_bytes == 0 {
            return refuse("lane-snapshot-bytes", "0".to_owned(), "at least 1".to_owned());
        }
        if self.watch_batches == 0 || self.watch_bytes == 0 {
            return refuse(
                "watch-batches",
                "0".to_owned(),
                "at least 1, like watch-bytes".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_bounds() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn a_setting_out_of_bounds_is_named() {
        let settings = Settings {
            election_max: Duration::from_millis(100),
            ..Settings::default()
        };
        let error = settings.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "election-max is 100ms, but must be more than election-min, 150ms"
        );
    }
}
