//! What a lane's log keeps, and the time by which its records expire.
//!
//! Rows are on disk with the log id they belong to, so entries that are applied are only kept for followers that were
//! away. How many is a matter of bytes: an entry may be short or a mebibyte. While one is sent all rows it is more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use whiskraft_state::journal::{JournalBatch, LaneMillis};

use super::{ROUND_PAUSE, STEP_TIMEOUT};
use crate::clock;
use crate::core::Group;
use crate::store::LaneShared;
use crate::types::Proposal;

/// Takes entries off the log that are applied and not kept, again and again.
pub(super) async fn tidy(group: Group, shared: Arc<LaneShared>) {
    let (mut covered, mut purged) = (0, 0);
    loop {
        clock::beat(ROUND_PAUSE).await;
        let bytes = shared.bytes.load(Ordering::Relaxed);
        // A snapshot that was installed begins to count anew.
        covered = covered.min(bytes);
        if bytes - covered >= group.settings.lane_snapshot_bytes {
            covered = bytes;
            drop(group.raft.trigger().snapshot().await);
        }
        let Some(index) = shared.index_with_bytes_behind(group.settings.lane_log_bytes) else {
            continue;
        };
        let snapshot = group.metrics(|metrics| metrics.snapshot.map_or(0, |id| id.index));
        let index = index.min(snapshot);
        // Those that are sent a snapshot need what comes after it, unless the disk fills up.
        let index = if group.disk.is_tight() {
            index
        } else {
            group.held.allowed(index, |follower| matched(&group, follower))
        };
        if index > purged {
            purged = index;
            drop(group.raft.trigger().purge_log(index).await);
        }
    }
}

/// How far a follower is, if it is on its way to catch up with this node.
fn matched(group: &Group, follower: u64) -> Option<u64> {
    if !group.peers.is_reachable(follower) {
        return None;
    }
    group.metrics(|metrics| {
        let matched = metrics.replication.as_ref()?.get(&follower)?;
        Some(matched.map_or(0, |id| id.index))
    })
}

/// Tells a lane the time when nobody else did for a while, if this node leads it.
pub(super) async fn tell_time(group: Group, shared: Arc<LaneShared>) {
    let (mut known, mut since) = (LaneMillis(0), clock::now());
    loop {
        clock::beat(ROUND_PAUSE.min(group.settings.lane_tick)).await;
        let clock = shared.read(|rows| Ok(rows.clock())).unwrap_or(known);
        let now = clock::now();
        if clock > known {
            (known, since) = (clock, now);
        }
        // Looks are a whole number of pauses apart, but for their lateness.
        let is_silent = now.duration_since(since) + ROUND_PAUSE / 2 >= group.settings.lane_tick;
        if !is_silent || group.lease().is_none() {
            continue;
        }
        since = now;
        let batch = JournalBatch::of(Vec::new());
        if let Err(error) = group.write(Proposal::Journal(batch), STEP_TIMEOUT).await {
            tracing::debug!(lane = group.group, ?error, "lane was not told the time");
        }
    }
}
