//! Durable storage of a node: log and votes, document and blob bytes, snapshots.
//!
//! One key-value engine holds everything but snapshots, with the group number in front of every key; one thread syncs
//! it for all groups.

mod bodies;
mod engine;
mod group_machine;
mod keys;
mod lane_layers;
mod lane_machine;
mod lane_rows;
mod lane_time;
mod log_store;
mod log_view;
mod machine;
mod pressure;
mod retention;
mod ring;
mod seal;
mod seen;
mod snapshot_dir;
mod snapshot_file;
mod snapshot_source;
mod sync;
mod tail;
mod watchdog;

#[cfg(test)]
mod bodies_test;
#[cfg(test)]
mod lane_store_test;
#[cfg(test)]
mod store_test;
#[cfg(test)]
mod sync_test;

pub(crate) use bodies::{Bodies, TABLES as BODY_TABLES};
pub(crate) use engine::{Engine, Scan, Table, View, Write};
pub(crate) use group_machine::GroupMachine;
pub(crate) use keys::{group_range, installing as installing_key, lane_state as lane_key};
pub(crate) use lane_machine::{LaneMachine, LaneShared, batch_size};
pub(crate) use lane_rows::{Found, LANE_TABLES, LaneRows, LaneState, installing_write};
pub(crate) use lane_time::LaneTime;
pub(crate) use log_store::{LogStore, purged_write};
pub(crate) use log_view::LogView;
pub(crate) use machine::{Applied, Machine, Shared};
pub(crate) use retention::{Retention, split as split_expiry};
pub(crate) use ring::Ring;
pub(crate) use seen::SeenStore;
pub(crate) use snapshot_dir::{SnapshotDir, Temporary};
pub(crate) use snapshot_file::{SnapshotFile, SnapshotHeader, SnapshotWriter};
pub(crate) use snapshot_source::SnapshotSource;
pub(crate) use sync::SyncThread;
