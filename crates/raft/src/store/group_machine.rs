//! The state machine of any group, so that all groups are driven by the same consensus core.

use std::io;

use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::lane_machine::{LaneBuilder, LaneMachine};
use super::machine::{Builder, Machine};
use super::snapshot_source::SnapshotSource;
use crate::types::{LogId, SnapshotMeta, Stored, Types};

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotSource>;
type FileSnapshot = openraft::alias::SnapshotOf<Types, super::SnapshotFile>;

fn of_file(snapshot: FileSnapshot) -> Snapshot {
    Snapshot {
        meta: snapshot.meta,
        snapshot: SnapshotSource::File(snapshot.snapshot),
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) enum GroupMachine {
    /// Of group 0.
    Meta(Machine),
    /// Of a lane.
    Lane(LaneMachine),
}

impl RaftStateMachine<Types> for GroupMachine {
    type SnapshotData = SnapshotSource;
    type SnapshotBuilder = GroupBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Stored)> {
        match self {
            Self::Meta(machine) => machine.applied_state().await,
            Self::Lane(machine) => machine.applied_state().await,
        }
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        match self {
            Self::Meta(machine) => machine.apply(entries).await,
            Self::Lane(machine) => machine.apply(entries).await,
        }
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<GroupBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> GroupBuilder {
        match self {
            Self::Meta(machine) => GroupBuilder::Meta(machine.get_snapshot_builder().await),
            Self::Lane(machine) => GroupBuilder::Lane(machine.get_snapshot_builder().await),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotSource) -> io::Result<()> {
        match self {
            Self::Meta(machine) => {
                let (file, _temporary) = snapshot.into_file().await?;
                machine.install_snapshot(meta, file).await
            }
            Self::Lane(machine) => machine.install_snapshot(meta, snapshot).await,
        }
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        match self {
            Self::Meta(machine) => Ok(machine.get_current_snapshot().await?.map(of_file)),
            Self::Lane(machine) => machine.get_current_snapshot().await,
        }
    }
}

/// Builds a snapshot of any group.
#[derive(Debug)]
pub(crate) enum GroupBuilder {
    /// Of group 0.
    Meta(Builder),
    /// Of a lane.
    Lane(LaneBuilder),
}

impl RaftSnapshotBuilder<Types> for GroupBuilder {
    type SnapshotData = SnapshotSource;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        match self {
            Self::Meta(builder) => builder.build_snapshot().await.map(of_file),
            Self::Lane(builder) => builder.build_snapshot().await,
        }
    }
}
