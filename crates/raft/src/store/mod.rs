//! Durable storage of a node: log and votes, document and blob bytes, snapshots.
//!
//! One key-value engine holds everything but snapshots, with the group number in front of every key; one thread syncs
//! it for all groups.

mod bodies;
mod engine;
mod keys;
mod log_store;
mod log_view;
mod machine;
mod ring;
mod snapshot_dir;
mod snapshot_file;
mod sync;

#[cfg(test)]
mod store_test;

pub(crate) use bodies::Bodies;
pub(crate) use engine::Engine;
pub(crate) use log_store::LogStore;
pub(crate) use log_view::LogView;
pub(crate) use machine::{Machine, Shared};
pub(crate) use ring::Ring;
pub(crate) use snapshot_dir::SnapshotDir;
pub(crate) use snapshot_file::{SnapshotFile, SnapshotHeader};
pub(crate) use sync::SyncThread;
