//! The store on a real directory: openraft's suite, reopening after every call, torn and damaged files.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use openraft::errors::ErrorSource;
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftLogStorageExt,
    RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig, StorageError};
use tempfile::TempDir;
use whiskraft_state::{Command, DocumentKey, PutDocument};
use whiskraft_types::NamespaceLimits;

use super::engine::Engine;
use super::{Bodies, LogStore, Machine, Retention, Ring, SnapshotDir, SyncThread};
use crate::fatal::Fatal;
use crate::identity::DataDir;
use crate::types::{Entry, LeaderId, LogId, META_GROUP, Proposal, Types, Vote};

pub(super) fn engine(dir: &Path) -> io::Result<Arc<Engine>> {
    let lock = DataDir::open(dir).map_err(io::Error::other)?.into_lock();
    Ok(Arc::new(Engine::open(
        &dir.join("store"),
        lock,
        &Retention::default(),
    )?))
}

/// An open store; its fields go in this order.
struct Open {
    log: LogStore,
    _sync: SyncThread,
}

impl Open {
    fn new(dir: &Path) -> io::Result<Self> {
        Self::of(dir, META_GROUP)
    }

    fn of(dir: &Path, group: u32) -> io::Result<Self> {
        let engine = engine(dir)?;
        let (sync, syncs) = SyncThread::start(Arc::clone(&engine), Fatal::new(), Duration::ZERO)?;
        Ok(Self {
            log: LogStore::new(engine, syncs, group),
            _sync: sync,
        })
    }

    fn close(self) {
        drop(self);
    }
}

pub(super) fn machine(dir: &Path) -> io::Result<Machine> {
    let bodies = Bodies::new(engine(dir)?, META_GROUP);
    Machine::open(
        bodies,
        &dir.join("snapshots"),
        META_GROUP,
        Ring::new(100, 1 << 20),
    )
}

fn storage_error(error: &io::Error) -> StorageError<Types> {
    StorageError::read(openraft::impls::BoxedErrorSource::from_error(error))
}

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let build = || {
            let dir = tempfile::tempdir()?;
            let engine = engine(dir.path())?;
            let (sync, syncs) = SyncThread::start(Arc::clone(&engine), Fatal::new(), Duration::ZERO)?;
            // It ends with the log store, whenever the suite drops that.
            std::mem::forget(sync);
            let bodies = Bodies::new(Arc::clone(&engine), META_GROUP);
            let ring = Ring::new(100, 1 << 20);
            let machine = Machine::open(bodies, &dir.path().join("snapshots"), META_GROUP, ring)?;
            let log = LogStore::new(engine, syncs, META_GROUP);
            Ok((dir, log, machine))
        };
        build().map_err(|error: io::Error| storage_error(&error))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

/// A log store that is opened for every call and closed after it.
#[derive(Clone)]
struct Reopened {
    dir: Arc<PathBuf>,
}

impl RaftLogReader<Types> for Reopened {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut open = Open::new(&self.dir)?;
        let entries = open.log.try_get_log_entries(range).await;
        open.close();
        entries
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let open = Open::new(&self.dir)?;
        let vote = open.log.vote();
        open.close();
        vote
    }
}

impl RaftLogStorage<Types> for Reopened {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let mut open = Open::new(&self.dir)?;
        let state = open.log.get_log_state().await;
        open.close();
        state
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut open = Open::new(&self.dir)?;
        let saved = open.log.save_vote(vote).await;
        open.close();
        saved
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut open = Open::new(&self.dir)?;
        let saved = open.log.save_committed(committed).await;
        open.close();
        saved
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let mut open = Open::new(&self.dir)?;
        let committed = open.log.read_committed().await;
        open.close();
        committed
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut open = Open::new(&self.dir)?;
        let appended = open.log.append(entries, callback).await;
        open.close();
        appended
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let mut open = Open::new(&self.dir)?;
        let truncated = open.log.truncate_after(last).await;
        open.close();
        truncated
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        let mut open = Open::new(&self.dir)?;
        let purged = open.log.purge(id).await;
        open.close();
        purged
    }
}

/// A directory in memory where there is one: a thousand openings sync a lot, and this is not about that.
fn memory_dir() -> io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

struct ReopenedBuilder;

impl StoreBuilder<Types, Reopened, Machine, (TempDir, TempDir)> for ReopenedBuilder {
    async fn build(&self) -> Result<((TempDir, TempDir), Reopened, Machine), StorageError<Types>> {
        let build = || {
            let (log_dir, machine_dir) = (memory_dir()?, tempfile::tempdir()?);
            let machine = machine(machine_dir.path())?;
            let log = Reopened {
                dir: Arc::new(log_dir.path().to_owned()),
            };
            Ok(((log_dir, machine_dir), log, machine))
        };
        build().map_err(|error: io::Error| storage_error(&error))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_passes_the_suite_when_it_is_reopened_after_every_call() {
    Suite::test_all(ReopenedBuilder).await.unwrap();
}

pub(super) fn id(index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term: 1, node_id: 1 },
        index,
    }
}

fn entry(index: u64, command: Command) -> Entry {
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(Proposal::Command(command).into()),
    }
}

pub(super) fn put_namespace(index: u64) -> Entry {
    let name = format!("n{index}").parse().unwrap();
    entry(
        index,
        Command::PutNamespace {
            name,
            limits: NamespaceLimits::containers(5),
        },
    )
}

pub(super) fn key(name: &str) -> DocumentKey {
    DocumentKey {
        kind: "note".to_owned(),
        namespace: "guest".parse().unwrap(),
        name: name.to_owned(),
    }
}

pub(super) fn put_document(index: u64, name: &str, body: &[u8]) -> Entry {
    let put = PutDocument {
        key: key(name),
        body: body.to_vec(),
        expected: None,
        blobs: Vec::new(),
        limits: None,
    };
    entry(index, Command::PutDocument(put))
}

#[cfg(feature = "rocks")]
mod on_disk {
    use whiskraft_state::journal::{JournalBatch, JournalCommand, LaneMillis};

    use super::*;

    /// The write-ahead log that is being written.
    fn wal(dir: &Path) -> PathBuf {
        let files = fs::read_dir(dir.join("store"))
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .max()
            .unwrap()
    }

    #[test]
    fn a_table_that_is_not_flushed_does_not_soon_stop_all_others() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).unwrap();
        assert_eq!(engine.backlog(), 0);
        drop(engine);
        let files = fs::read_dir(dir.path().join("store")).unwrap();
        let names = files.map(|file| file.unwrap().path());
        let is_options = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("OPTIONS");
        let options = fs::read_to_string(names.filter(is_options).max().unwrap()).unwrap();
        let count = |line: &str| options.lines().filter(|found| found.trim() == line).count();
        assert_eq!(count("max_background_flushes=2"), 1, "{options}");
        // Nine tables and the one that every database has.
        assert_eq!(count("max_write_buffer_number=6"), 9, "{options}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_torn_tail_loses_at_most_the_torn_entry() {
        torn_tail(META_GROUP, &put_namespace).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_torn_tail_of_a_lane_loses_at_most_the_torn_entry() {
        torn_tail(1, &journal_entry).await;
    }

    fn journal_entry(index: u64) -> Entry {
        let ids = vec![whiskraft_types::ActivationId::from_bytes([7; 16])];
        let batch = JournalBatch {
            now: LaneMillis(index),
            commands: vec![JournalCommand::Purge { ids }],
        };
        Entry {
            log_id: id(index),
            payload: EntryPayload::Normal(Proposal::Journal(batch).into()),
        }
    }

    /// Cuts the write-ahead log at every byte of its last record.
    async fn torn_tail(group: u32, entry: &dyn Fn(u64) -> Entry) {
        let dir = tempfile::tempdir().unwrap();
        let mut open = Open::of(dir.path(), group).unwrap();
        open.log.save_vote(&Vote::new(1, 1)).await.unwrap();
        for index in 1..=4 {
            open.log.blocking_append([entry(index)]).await.unwrap();
        }
        let path = wal(dir.path());
        let before = fs::metadata(&path).unwrap().len();
        open.log.blocking_append([entry(5)]).await.unwrap();
        let after = fs::metadata(&path).unwrap().len();
        assert!(after > before);

        let name = path.file_name().unwrap().to_owned();
        for len in before..=after {
            let copy = tempfile::tempdir().unwrap();
            copy_files(&dir.path().join("store"), &copy.path().join("store"));
            let torn = copy.path().join("store").join(&name);
            fs::File::options()
                .write(true)
                .open(&torn)
                .unwrap()
                .set_len(len)
                .unwrap();
            let mut again = Open::of(copy.path(), group).unwrap();
            let entries = again.log.try_get_log_entries(..).await.unwrap();
            let wanted = if len == after { 5 } else { 4 };
            assert_eq!(entries.len(), wanted, "cut at byte {len} of {after}");
            assert_eq!(again.log.vote().unwrap(), Some(Vote::new(1, 1)));
            again.close();
        }
        open.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn damage_before_the_tail_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = Open::new(dir.path()).unwrap();
        for index in 1..=200 {
            open.log.blocking_append([put_namespace(index)]).await.unwrap();
        }
        let copy = tempfile::tempdir().unwrap();
        copy_files(&dir.path().join("store"), &copy.path().join("store"));
        open.close();
        let path = wal(copy.path());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let error = Open::new(copy.path()).map(Open::close).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }

    fn copy_files(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[cfg(feature = "rocks")]
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_is_an_error_and_not_another_entry() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).unwrap();
    let (_sync, syncs) = SyncThread::start(Arc::clone(&engine), Fatal::new(), Duration::ZERO).unwrap();
    let mut log = LogStore::new(Arc::clone(&engine), syncs, META_GROUP);
    log.blocking_append([put_namespace(1)]).await.unwrap();
    let mut value = engine
        .get(super::engine::Table::Log, &super::keys::log(META_GROUP, 1))
        .unwrap()
        .unwrap();
    value[20] ^= 1;
    engine
        .write_unsealed(
            super::engine::Table::Log,
            &super::keys::log(META_GROUP, 1),
            &value,
        )
        .unwrap();
    let error = log.try_get_log_entries(..).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "value of log 000000000000000000000001 is damaged: its checksum does not match"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_for_replication_are_bounded_and_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = Open::new(dir.path()).unwrap();
    let entries: Vec<Entry> = (1..=2500).map(put_namespace).collect();
    open.log.blocking_append(entries).await.unwrap();
    assert_eq!(
        open.log.limited_get_log_entries(1, 2501).await.unwrap().len(),
        1000
    );
    open.log
        .blocking_append([put_document(2501, "big", &vec![1; 3 << 20])])
        .await
        .unwrap();
    assert_eq!(
        open.log.limited_get_log_entries(2501, 2502).await.unwrap().len(),
        1
    );
    assert_eq!(
        open.log.limited_get_log_entries(2500, 2502).await.unwrap().len(),
        1
    );
    let streamed: Vec<_> = futures::StreamExt::collect(open.log.entries_stream(1..2502).await).await;
    assert_eq!(streamed.len(), 2501);
    assert!(streamed.iter().all(Result::is_ok));
    open.close();
}

pub(super) async fn apply(machine: &mut Machine, entries: Vec<Entry>) {
    let entries = entries
        .into_iter()
        .map(|entry| Ok::<EntryResponder<Types>, io::Error>((entry, None)));
    machine
        .apply(stream::iter(entries.collect::<Vec<_>>()))
        .await
        .unwrap();
}

pub(super) async fn snapshot(machine: &mut Machine) {
    machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
}

fn body(dir: &Path, name: &str) -> Option<Vec<u8>> {
    let bodies = Bodies::new(engine(dir).unwrap(), META_GROUP);
    bodies
        .document(&key(name))
        .unwrap()
        .map(|(_, body)| body.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_falls_back_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = machine(dir.path()).unwrap();
    apply(&mut first, (1..=10).map(put_namespace).collect()).await;
    snapshot(&mut first).await;
    apply(&mut first, (11..=20).map(put_namespace).collect()).await;
    snapshot(&mut first).await;
    apply(&mut first, (21..=30).map(put_namespace).collect()).await;
    snapshot(&mut first).await;
    let files = SnapshotDir::open(&dir.path().join("snapshots"))
        .unwrap()
        .list()
        .unwrap();
    assert_eq!(files.len(), 2, "two are kept");
    drop(first);

    let mut bytes = fs::read(&files[0]).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    fs::write(&files[0], bytes).unwrap();
    assert_eq!(machine(dir.path()).unwrap().last(), Some(id(20)));

    let len = fs::metadata(&files[1]).unwrap().len();
    fs::File::options()
        .write(true)
        .open(&files[1])
        .unwrap()
        .set_len(len - 1)
        .unwrap();
    assert_eq!(machine(dir.path()).unwrap().last(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_after_a_restart_does_not_write_old_bodies_over_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = machine(dir.path()).unwrap();
    apply(
        &mut first,
        vec![put_document(1, "d", b"one"), put_document(2, "d", b"two")],
    )
    .await;
    drop(first);
    let mut again = machine(dir.path()).unwrap();
    apply(&mut again, vec![put_document(1, "d", b"one")]).await;
    drop(again);
    assert_eq!(body(dir.path(), "d"), Some(b"two".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_that_was_cut_off_is_completed_at_the_next_start() {
    let (source_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = machine(source_dir.path()).unwrap();
    apply(
        &mut source,
        vec![
            put_document(1, "kept", b"k"),
            put_document(2, "new", &vec![3; 1 << 20]),
        ],
    )
    .await;
    snapshot(&mut source).await;
    let built = source.get_current_snapshot().await.unwrap().unwrap();

    let mut target = machine(dir.path()).unwrap();
    apply(&mut target, vec![put_document(1, "old", b"o")]).await;
    drop(target);
    // What an install has done when the process ends right after it removed the old bodies.
    let snapshots = SnapshotDir::open(&dir.path().join("snapshots")).unwrap();
    let name = SnapshotDir::name(built.snapshot.header.last);
    fs::copy(&built.snapshot.path, snapshots.path(&name)).unwrap();
    let bodies = Bodies::new(engine(dir.path()).unwrap(), META_GROUP);
    bodies.begin_replace(&name).unwrap();
    drop(bodies);

    let target = machine(dir.path()).unwrap();
    assert_eq!(target.last(), Some(id(2)));
    assert_eq!(
        target.shared().read(Clone::clone),
        source.shared().read(Clone::clone)
    );
    drop(target);
    assert_eq!(body(dir.path(), "old"), None);
    assert_eq!(body(dir.path(), "kept"), Some(b"k".to_vec()));
    assert!(body(dir.path(), "new").is_some_and(|body| body == vec![3; 1 << 20]));
    assert_eq!(
        Bodies::new(engine(dir.path()).unwrap(), META_GROUP)
            .installing()
            .unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_of_one_moment_although_applying_goes_on() {
    let (source_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = machine(source_dir.path()).unwrap();
    apply(&mut source, vec![put_document(1, "d", b"before")]).await;
    let mut builder = source.get_snapshot_builder().await;
    apply(
        &mut source,
        vec![put_document(2, "d", b"after"), put_document(3, "e", b"after")],
    )
    .await;
    let built = builder.build_snapshot().await.unwrap();

    let mut target = machine(dir.path()).unwrap();
    target
        .install_snapshot(&built.meta, built.snapshot)
        .await
        .unwrap();
    assert_eq!(target.last(), Some(id(1)));
    assert!(target.shared().read(|state| state.document(&key("e")).is_none()));
    drop(target);
    assert_eq!(body(dir.path(), "d"), Some(b"before".to_vec()));
    assert_eq!(body(dir.path(), "e"), None);
}
