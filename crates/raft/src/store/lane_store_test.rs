//! A lane on a real directory: openraft's suite beside group 0, restarts, installs that are cut off, expiry, damage.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, StreamExt};
use openraft::errors::ErrorSource;
use openraft::storage::{EntryResponder, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;
use whiskraft_state::journal::{
    Accept, Digest, End, EndKind, JournalBatch, JournalCommand, JournalRow, LaneMillis, UnixMillis,
};
use whiskraft_types::{ActivationId, Epoch, QueueKey};

use super::engine::Engine;
use super::retention::Clocks;
use super::{Found, GroupMachine, LaneMachine, LaneRows, LogStore, Retention, SnapshotSource, SyncThread};
use crate::fatal::Fatal;
use crate::identity::DataDir;
use crate::types::{Entry, LeaderId, LogId, META_GROUP, Proposal, Types};

const LANE: u32 = 2;

fn retention() -> Retention {
    Retention {
        clocks: Clocks::default(),
        margin: Duration::from_millis(10),
        gone: Duration::from_millis(1000),
    }
}

/// The store of a lane, and its engine.
struct Opened {
    engine: Arc<Engine>,
    rows: LaneRows,
    machine: LaneMachine,
}

fn open_group(dir: &Path, group: u32) -> io::Result<Opened> {
    let lock = DataDir::open(dir).map_err(io::Error::other)?.into_lock();
    let retention = retention();
    let engine = Arc::new(Engine::open(&dir.join("store"), lock, &retention)?);
    let rows = LaneRows::new(Arc::clone(&engine), group, retention);
    let machine = LaneMachine::open(rows.clone(), &dir.join("snapshots"), group)?;
    Ok(Opened {
        engine,
        rows,
        machine,
    })
}

fn open(dir: &Path) -> Opened {
    open_group(dir, LANE).unwrap()
}

struct Builder;

impl StoreBuilder<Types, LogStore, GroupMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, GroupMachine), StorageError<Types>> {
        let build = async {
            let dir = tempfile::tempdir()?;
            let opened = open_group(dir.path(), LANE)?;
            let engine = opened.engine;
            let (sync, syncs) = SyncThread::start(Arc::clone(&engine), Fatal::new(), Duration::ZERO)?;
            // It ends with the log store, whenever the suite drops that.
            std::mem::forget(sync);
            // Groups before and behind have logs of their own, which nobody may see.
            for group in [META_GROUP, LANE - 1, LANE + 1] {
                let mut other = LogStore::new(Arc::clone(&engine), syncs.clone(), group);
                other.blocking_append([accept(1, 1), accept(2, 2)]).await?;
            }
            let log = LogStore::new(engine, syncs, LANE);
            Ok((dir, log, GroupMachine::Lane(opened.machine)))
        };
        let built: io::Result<_> = build.await;
        built.map_err(|error| StorageError::read(openraft::impls::BoxedErrorSource::from_error(&error)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_passes_the_suite_of_openraft_beside_other_groups() {
    Suite::test_all(Builder).await.unwrap();
}

fn id(number: u8) -> ActivationId {
    ActivationId::from_bytes([number; 16])
}

fn key() -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "guest/hello".parse().unwrap(),
    }
}

fn log_id(index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term: 1, node_id: 1 },
        index,
    }
}

fn entry(index: u64, now: u64, commands: Vec<JournalCommand>) -> Entry {
    let now = LaneMillis(now);
    Entry {
        log_id: log_id(index),
        payload: EntryPayload::Normal(Proposal::Journal(JournalBatch { now, commands }).into()),
    }
}

fn accept_command(number: u8) -> JournalCommand {
    JournalCommand::Accept(Accept {
        id: id(number),
        key: key(),
        epoch: Epoch(5),
        digest: Digest([number; 16]),
        accepted: UnixMillis(1),
        waited: Duration::ZERO,
        not_before: None,
        payload: vec![number; 1000].into(),
    })
}

fn accept(index: u64, number: u8) -> Entry {
    entry(index, 100, vec![accept_command(number)])
}

fn end(index: u64, number: u8, kind: EndKind) -> Entry {
    let end = End {
        id: id(number),
        key: key(),
        epoch: Epoch(5),
        run: 1,
        at: UnixMillis(100),
        keep: Duration::from_millis(100),
        kind,
        record: vec![number; 500].into(),
    };
    entry(index, 100, vec![JournalCommand::End(end)])
}

async fn apply(machine: &mut LaneMachine, entries: Vec<Entry>) {
    let entries = entries
        .into_iter()
        .map(|entry| Ok::<EntryResponder<Types>, io::Error>((entry, None)));
    machine
        .apply(stream::iter(entries.collect::<Vec<_>>()))
        .await
        .unwrap();
}

fn open_ids(rows: &LaneRows) -> Vec<ActivationId> {
    let open = rows.open(&key(), None, 100).unwrap();
    open.into_iter().map(|row| row.id).collect()
}

fn found(rows: &LaneRows, number: u8) -> JournalRow {
    match rows.find(id(number)).unwrap() {
        Found::Row(row) => row,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_goes_on_where_it_was_without_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    apply(
        &mut opened.machine,
        vec![
            accept(1, 1),
            accept(2, 2),
            end(3, 1, EndKind::Record),
            accept(4, 3),
            end(5, 3, EndKind::DeadLetter),
        ],
    )
    .await;
    opened.rows.flush().unwrap();
    drop(opened);
    let opened = open(dir.path());
    assert_eq!(opened.machine.last(), Some(log_id(5)));
    assert_eq!(opened.rows.clock(), LaneMillis(100));
    assert_eq!(open_ids(&opened.rows), [id(2)]);
    assert_eq!(opened.rows.open_queues().unwrap(), [key()]);
    assert!(!found(&opened.rows, 1).is_open());
    assert_eq!(opened.rows.payload(id(1)).unwrap(), None);
    assert_eq!(opened.rows.record(id(1)).unwrap().unwrap(), vec![1; 500]);
    assert_eq!(opened.rows.payload(id(3)).unwrap().unwrap(), vec![3; 1000]);
    let dead = opened.rows.dead_letters(&key().namespace, None, 10).unwrap();
    assert_eq!(dead, [found(&opened.rows, 3)]);
    let after = Some((UnixMillis(100), id(3)));
    assert_eq!(opened.rows.dead_letters(&key().namespace, after, 10).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_written_is_readable_and_is_applied_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let entries = || {
        vec![
            accept(2, 1),
            accept(3, 2),
            end(4, 1, EndKind::Record),
            accept(5, 4),
        ]
    };
    let mut opened = open(dir.path());
    // The clock leaps by more than the margin: written at once.
    apply(&mut opened.machine, vec![entry(1, 100, Vec::new())]).await;
    apply(&mut opened.machine, entries()).await;
    let check = |opened: &Opened| {
        assert_eq!(opened.machine.last(), Some(log_id(5)));
        assert_eq!(open_ids(&opened.rows), [id(2), id(4)]);
        assert!(!found(&opened.rows, 1).is_open());
        assert_eq!(opened.rows.payload(id(1)).unwrap(), None);
        assert_eq!(opened.rows.payload(id(2)).unwrap().unwrap(), vec![2; 1000]);
        assert_eq!(opened.rows.record(id(1)).unwrap().unwrap(), vec![1; 500]);
    };
    check(&opened);
    drop(opened);
    // Killed: the log is all there is, and it is given again.
    let mut opened = open(dir.path());
    assert_eq!(opened.machine.last(), Some(log_id(1)));
    assert_eq!(opened.rows.find(id(1)).unwrap(), Found::Missing);
    apply(&mut opened.machine, entries()).await;
    check(&opened);
    opened.rows.flush().unwrap();
    check(&opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_written_before_the_clock_reaches_what_compactions_drop() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let written = |opened: &Opened| {
        let state = opened.rows.state().unwrap().unwrap_or_default();
        (state.index(), state.clock)
    };
    // One piece of the log that spans more than the margin.
    apply(&mut opened.machine, vec![entry(1, 0, Vec::new()), accept(2, 1)]).await;
    assert_eq!(written(&opened), (2, LaneMillis(100)));
    apply(&mut opened.machine, vec![accept(3, 2)]).await;
    apply(&mut opened.machine, vec![entry(4, 104, Vec::new())]).await;
    assert_eq!(written(&opened), (2, LaneMillis(100)));
    // Half of the margin.
    apply(&mut opened.machine, vec![entry(5, 105, Vec::new())]).await;
    assert_eq!(written(&opened), (5, LaneMillis(105)));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_in_order_wherever_their_places_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    apply(
        &mut opened.machine,
        vec![accept(1, 1), accept(2, 3), accept(3, 5)],
    )
    .await;
    opened.rows.flush().unwrap();
    let more = vec![
        accept(4, 2),
        end(5, 3, EndKind::Record),
        accept(6, 6),
        accept(7, 4),
    ];
    apply(&mut opened.machine, more).await;
    assert_eq!(open_ids(&opened.rows), [1, 2, 4, 5, 6].map(id));
    for after in [1, 2, 4, 5] {
        let page = opened.rows.open(&key(), Some(id(after)), 1).unwrap();
        let next = if after == 2 { 4 } else { after + 1 };
        assert_eq!(page[0].id, id(next));
    }
    assert_eq!(opened.rows.open_queues().unwrap(), [key()]);
    let ends = [1, 2, 5, 6, 4].map(|number| end(7 + u64::from(number), number, EndKind::Record));
    apply(&mut opened.machine, ends.into()).await;
    assert_eq!(open_ids(&opened.rows), []);
    assert_eq!(opened.rows.open_queues().unwrap(), []);
    opened.rows.flush().unwrap();
    assert_eq!(opened.rows.open_queues().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_activations_are_paged_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let all: Vec<_> = (1..=9).map(|number| accept(u64::from(number), number)).collect();
    apply(&mut opened.machine, all).await;
    let mut seen = Vec::new();
    loop {
        let page = opened.rows.open(&key(), seen.last().copied(), 4).unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!(seen, (1..=9).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_of_one_moment_and_replaces_everything() {
    let (source_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(source_dir.path());
    apply(&mut source.machine, vec![accept(1, 1), accept(2, 2)]).await;
    let mut builder = source.machine.get_snapshot_builder().await;
    apply(
        &mut source.machine,
        vec![end(3, 1, EndKind::Record), accept(4, 4)],
    )
    .await;
    let built = builder.build_snapshot().await.unwrap();

    let mut target = open(dir.path());
    apply(&mut target.machine, vec![accept(1, 9)]).await;
    target
        .machine
        .install_snapshot(&built.meta, built.snapshot)
        .await
        .unwrap();
    assert_eq!(target.machine.last(), Some(log_id(2)));
    assert_eq!(open_ids(&target.rows), [id(1), id(2)]);
    assert_eq!(target.rows.find(id(9)).unwrap(), Found::Missing);
    apply(&mut target.machine, vec![end(3, 1, EndKind::Record)]).await;
    target.rows.flush().unwrap();
    drop(target);
    assert_eq!(open_ids(&open(dir.path()).rows), [id(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_that_was_cut_off_is_completed_at_the_next_start() {
    let (source_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(source_dir.path());
    apply(&mut source.machine, vec![accept(1, 1), accept(2, 2)]).await;
    let built = source.machine.get_snapshot_builder().await.build_snapshot().await;
    let SnapshotSource::View(view) = built.unwrap().snapshot else {
        panic!("a lane has no file");
    };
    let (file, temporary) = SnapshotSource::View(view).into_file().await.unwrap();
    assert!(temporary.is_some());

    let mut target = open(dir.path());
    apply(&mut target.machine, vec![accept(1, 9)]).await;
    let snapshots = target.machine.dir();
    let name = super::SnapshotDir::name(file.header.last);
    fs::copy(&file.path, snapshots.path(&name)).unwrap();
    target.rows.begin_replace(&name).unwrap();
    drop(target);

    let target = open(dir.path());
    assert_eq!(target.machine.last(), Some(log_id(2)));
    assert_eq!(open_ids(&target.rows), [id(1), id(2)]);
    assert_eq!(target.rows.installing().unwrap(), None);
    assert_eq!(
        target.machine.dir().list().unwrap(),
        Vec::<std::path::PathBuf>::new()
    );
}

/// A view of a lane whose snapshot has several pieces.
async fn long_view(opened: &mut Opened) -> SnapshotSource {
    let long = |number: u8| {
        let JournalCommand::Accept(accept) = accept_command(number) else {
            unreachable!()
        };
        let payload = vec![number; 1 << 20].into();
        let accept = JournalCommand::Accept(Accept { payload, ..accept });
        entry(u64::from(number), 100, vec![accept])
    };
    apply(&mut opened.machine, (1..=5).map(long).collect()).await;
    let built = opened.machine.get_snapshot_builder().await.build_snapshot().await;
    built.unwrap().snapshot
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pieces_of_a_snapshot_are_its_file_and_are_in_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let (header, pieces) = long_view(&mut opened).await.into_pieces().unwrap();
    let pieces: Vec<_> = pieces.map(Result::unwrap).collect().await;
    assert!(pieces.iter().all(|piece| piece.len() <= 1 << 20));
    let snapshots = dir.path().join("snapshots");
    assert_eq!(fs::read_dir(&snapshots).unwrap().count(), 0);

    let again = opened.machine.get_current_snapshot().await.unwrap().unwrap();
    let (file, temporary) = again.snapshot.into_file().await.unwrap();
    assert_eq!(file.header, header);
    assert_eq!(fs::read(&file.path).unwrap(), pieces.concat());
    let (_, of_file) = SnapshotSource::File(file).into_pieces().unwrap();
    let of_file: Vec<_> = of_file.map(Result::unwrap).collect().await;
    assert_eq!(of_file.concat(), pieces.concat());
    drop(temporary);
    assert_eq!(
        fs::read_dir(snapshots).unwrap().count(),
        0,
        "its file went with its place"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_nobody_takes_to_its_end_lets_go_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let engine = Arc::downgrade(&opened.engine);
    let (_, mut pieces) = long_view(&mut opened).await.into_pieces().unwrap();
    assert!(pieces.next().await.is_some_and(|piece| piece.is_ok()));
    drop((pieces, opened));
    closed(&engine).await;
}

/// Waits until nobody holds the store.
async fn closed(engine: &Weak<Engine>) {
    let closed = async {
        while engine.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, closed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_nobody_waits_for_any_more_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let engine = Arc::downgrade(&opened.engine);
    let source = long_view(&mut opened).await;
    assert!(source.into_file().now_or_never().is_none(), "it takes a while");
    let files = opened.machine.dir();
    drop(opened);
    closed(&engine).await;
    let next = files.temporary();
    assert!(next.path().ends_with("1.tmp"), "it was written");
    let snapshots = dir.path().join("snapshots");
    assert_eq!(fs::read_dir(&snapshots).unwrap().count(), 0);
}

#[cfg(feature = "rocks")]
mod on_disk {
    use super::super::engine::{Scan, Table};
    use super::super::{keys, seal};
    use super::*;

    fn keys_in(engine: &Engine, table: Table) -> usize {
        let mut count = 0;
        let (from, to) = (keys::group_start(LANE), keys::group_end(LANE));
        engine
            .scan(table, &from, &to, |_, _| {
                count += 1;
                Ok(Scan::Continue)
            })
            .unwrap();
        count
    }

    fn compact(engine: &Engine) {
        let (from, to) = (keys::group_start(LANE), keys::group_end(LANE));
        for table in [
            Table::JournalRows,
            Table::JournalPayloads,
            Table::JournalRecords,
            Table::JournalIndex,
            Table::JournalFences,
        ] {
            engine.compact(table, &from, &to).unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_expired_leaves_the_disk_and_is_remembered_as_gone_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path());
        let entries = vec![
            accept(1, 1),
            accept(2, 2),
            accept(3, 3),
            end(4, 1, EndKind::Record),
            end(5, 2, EndKind::DeadLetter),
        ];
        apply(&mut opened.machine, entries).await;
        let (engine, rows) = (opened.engine.clone(), opened.rows.clone());
        rows.flush().unwrap();
        compact(&engine);
        let counts = |engine: &Engine| {
            let tables = [Table::JournalRows, Table::JournalPayloads, Table::JournalRecords];
            tables.map(|table| keys_in(engine, table))
        };
        assert_eq!(counts(&engine), [3, 2, 2], "nothing has expired");

        // Expired, but within the margin.
        apply(&mut opened.machine, vec![entry(6, 205, Vec::new())]).await;
        rows.flush().unwrap();
        compact(&engine);
        assert_eq!(counts(&engine), [3, 2, 2]);
        assert_eq!(rows.find(id(1)).unwrap(), Found::Gone);
        assert_eq!(rows.record(id(1)).unwrap(), None);
        assert_eq!(rows.payload(id(2)).unwrap(), None);
        assert_eq!(rows.dead_letters(&key().namespace, None, 9).unwrap(), []);

        apply(&mut opened.machine, vec![entry(7, 210, Vec::new())]).await;
        compact(&engine);
        assert_eq!(counts(&engine), [3, 1, 0], "rows tell what is gone");
        assert_eq!(rows.find(id(2)).unwrap(), Found::Gone);

        apply(&mut opened.machine, vec![entry(8, 1210, Vec::new())]).await;
        compact(&engine);
        assert_eq!(counts(&engine), [1, 1, 0], "what is open stays");
        assert_eq!(rows.find(id(1)).unwrap(), Found::Missing);
        assert_eq!(open_ids(&rows), [id(3)]);
        assert_eq!(keys_in(&engine, Table::JournalIndex), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_row_that_is_not_what_was_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path());
        apply(&mut opened.machine, vec![accept(1, 1), accept(2, 2)]).await;
        opened.rows.flush().unwrap();
        // The value of another key: every checksum of the engine fits, ours does not.
        let (one, two) = (keys::activation(LANE, id(1)), keys::activation(LANE, id(2)));
        let value = opened.engine.get(Table::JournalRows, &two).unwrap().unwrap();
        let sealed = seal::seal(&two, value);
        opened
            .engine
            .write_unsealed(Table::JournalRows, &one, &sealed)
            .unwrap();
        let error = opened.rows.find(id(1)).unwrap_err().to_string();
        assert!(error.ends_with("its checksum does not match"), "{error}");
        assert_eq!(found(&opened.rows, 2).id, id(2));
    }
}
