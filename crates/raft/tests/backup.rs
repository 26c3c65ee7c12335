//! A backup holds everything that was acknowledged before it; what is restored from it is another cluster.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Cluster, eventually, limit, open_session, propose, put_document, put_namespace};
use whiskraft_raft::{
    Backup, BackupError, LaneId, Lookup, Node, NodeConfig, Restore, RestoreError, Settings, StartError,
    restore, verify,
};
use whiskraft_state::journal::{
    Accept, Digest, End, EndKind, JournalBatch, JournalCommand, JournalOutcome, RowState, UnixMillis,
};
use whiskraft_state::{Command, EnsureQueue, Leadership, Response};
use whiskraft_types::{ActionLimits, ActivationId, Epoch, LogRevision, QueueKey, SchedulerId};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn key() -> QueueKey {
    QueueKey {
        namespace: support::namespace("guest"),
        action: "guest/hello".parse().unwrap(),
    }
}

const fn id(byte: u8) -> ActivationId {
    ActivationId::from_bytes([byte; 16])
}

async fn ensure(node: &Node) -> Leadership {
    match propose(node, Command::EnsureQueue(EnsureQueue { key: key() })).await {
        (_, Response::Leadership(leadership)) => leadership,
        other => panic!("no leadership: {other:?}"),
    }
}

async fn put_action(node: &Node) {
    let Command::PutDocument(mut put) = put_document("hello", b"code") else {
        unreachable!("it is a document")
    };
    put.key.kind = "action".to_owned();
    put.limits = Some(ActionLimits::default());
    propose(node, Command::PutDocument(put)).await;
}

async fn append(node: &Node, lane: LaneId, command: JournalCommand) -> JournalOutcome {
    eventually("an entry of the journal", async || {
        let batch = JournalBatch::of(vec![command.clone()]);
        let (revision, outcomes) = node.journal().append(lane, batch).await.ok()?;
        node.journal().wait_applied(lane, revision).await.unwrap();
        outcomes.into_iter().next()
    })
    .await
}

fn accept(byte: u8, epoch: Epoch) -> JournalCommand {
    JournalCommand::Accept(Accept {
        id: id(byte),
        key: key(),
        epoch,
        digest: Digest([byte; 16]),
        accepted: NOW,
        waited: Duration::ZERO,
        not_before: None,
        payload: vec![byte; 1000].into(),
    })
}

fn end(byte: u8, epoch: Epoch) -> JournalCommand {
    JournalCommand::End(End {
        id: id(byte),
        key: key(),
        epoch,
        run: 1,
        at: NOW,
        keep: Duration::from_secs(1_000_000),
        kind: EndKind::Record,
        record: bytes::Bytes::from_static(b"done"),
    })
}

/// Fills a cluster with something of everything; gives the epoch of its queue.
async fn fill(node: &Node) -> Epoch {
    put_action(node).await;
    propose(node, put_namespace("guest", 7)).await;
    open_session(node, 1, Duration::from_secs(60)).await;
    let epoch = ensure(node).await.epoch;
    let lanes = node.journal().lanes();
    for (lane, byte) in lanes.iter().zip(1..) {
        assert_eq!(
            append(node, *lane, accept(byte, epoch)).await,
            JournalOutcome::Written
        );
    }
    append(node, lanes[0], accept(101, epoch)).await;
    append(node, lanes[0], end(101, epoch)).await;
    epoch
}

/// Takes a backup of a node into a file.
async fn back_up(node: &Node, path: &Path) {
    let mut stream = eventually("a backup begins", async || node.backup(NOW).await.ok()).await;
    let mut file = std::fs::File::create(path).unwrap();
    while let Some(piece) = stream.next().await {
        file.write_all(&piece.unwrap()).unwrap();
    }
}

/// Addresses and listeners of a cluster that does not run yet.
struct Target {
    root: tempfile::TempDir,
    listeners: BTreeMap<u64, TcpListener>,
    initial: BTreeMap<SchedulerId, String>,
}

impl Target {
    fn new(size: u64) -> Self {
        let listeners: BTreeMap<u64, TcpListener> = (1..=size)
            .map(|id| (id, TcpListener::bind("127.0.0.1:0").unwrap()))
            .collect();
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let initial = listeners
            .iter()
            .map(|(id, listener)| (SchedulerId(*id), address(listener)))
            .collect();
        Self {
            root: tempfile::tempdir().unwrap(),
            listeners,
            initial,
        }
    }

    fn dir(&self, id: u64) -> PathBuf {
        self.root.path().join(format!("new-{id}"))
    }

    fn restore(&self, id: u64, file: &Path) -> Restore {
        Restore {
            file: file.to_owned(),
            data_dir: self.dir(id),
            id: SchedulerId(id),
            initial_cluster: self.initial.clone(),
            cluster_name: "restored".to_owned(),
            token: String::new(),
        }
    }

    fn config(&self, id: u64) -> NodeConfig {
        NodeConfig {
            id: Some(SchedulerId(id)),
            initial_cluster: self.initial.clone(),
            join: None,
            learner: false,
            cluster_name: "restored".to_owned(),
            data_dir: self.dir(id),
            peer_listener: self.listeners[&id].try_clone().unwrap(),
            advertise_peer: None,
            advertise_client: format!("new-{id}:7401"),
            zone: String::new(),
            version: "test".to_owned(),
            settings: Settings::default(),
        }
    }

    /// Restores every node from a file and starts all.
    async fn start(&self, file: &Path) -> Vec<Node> {
        let mut ids = std::collections::BTreeSet::new();
        for id in self.listeners.keys() {
            let restored = restore(&self.restore(*id, file)).unwrap();
            ids.insert(restored.cluster_id);
        }
        assert_eq!(ids.len(), 1, "all compute the same identity");
        let starts = self.listeners.keys().map(|id| Node::start(self.config(*id)));
        let nodes = tokio::time::timeout(support::PATIENCE, futures::future::join_all(starts));
        nodes.await.unwrap().into_iter().map(Result::unwrap).collect()
    }
}

/// Everything of [`fill`] is there, and nothing of the processes.
async fn check(node: &Node) {
    assert_eq!(limit(node, "guest"), 7);
    let mut document = support::document_key("hello");
    document.kind = "action".to_owned();
    let (_, body) = node.document(&document).unwrap().unwrap();
    assert_eq!(&body[..], b"code");
    assert!(node.read(|state| state.containers_len() == 0 && state.invokers().count() == 0));
    eventually("the journal is there", async || {
        node.journal().catch_up().await.ok()
    })
    .await;
    for (lane, byte) in node.journal().lanes().into_iter().zip(1..) {
        match node.journal().find(id(byte)).unwrap() {
            Lookup::Found(found) if found.lane == lane => {
                assert!(matches!(found.row.state, RowState::Open { .. }));
            }
            other => panic!("{other:?}"),
        }
        let payload = node.journal().payload(lane, id(byte)).unwrap().unwrap();
        assert_eq!(&payload[..], &[byte; 1000][..]);
        assert_eq!(node.journal().open(lane, &key(), None, 10).unwrap().len(), 1);
    }
    let record = node.journal().record(LaneId(1), id(101)).unwrap().unwrap();
    assert_eq!(&record[..], b"done");
}

/// Its queue goes on in an epoch that the old cluster never had.
async fn check_epochs(node: &Node, backup: &Backup, old: Epoch) {
    let far = backup.revision.0 + (1 << 32);
    open_session(node, 9, Duration::from_secs(60)).await;
    let epoch = ensure(node).await.epoch;
    assert!(epoch.0 > far && epoch > old, "{epoch}");
    // What the old leader still wants to say is stale once the new one has been heard.
    assert_eq!(
        append(node, LaneId(1), accept(77, epoch)).await,
        JournalOutcome::Written
    );
    assert!(matches!(
        append(node, LaneId(1), accept(78, old)).await,
        JournalOutcome::Stale { .. }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_three_is_restored_to_one_and_to_three() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let old = fill(cluster.node(1)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    // Any of them will do; what it lacks it waits for.
    let follower = cluster.follower().await;
    back_up(cluster.node(follower), &file).await;
    let backup = verify(&file).unwrap();
    let lanes = cluster.node(1).journal().lanes().len() as u64;
    assert_eq!(backup.cluster_id, cluster.node(1).cluster_id());
    assert_eq!((backup.actions, backup.documents, backup.queues), (1, 1, 1));
    assert_eq!((backup.open, backup.records, backup.namespaces), (lanes, 1, 1));
    assert!(backup.revision.0 > 0 && backup.bytes == file.metadata().unwrap().len());
    // What comes later is not in it.
    propose(cluster.node(1), put_namespace("guest", 8)).await;

    for size in [1, 3] {
        let target = Target::new(size);
        let nodes = target.start(&file).await;
        for node in &nodes {
            assert_ne!(node.cluster_id(), backup.cluster_id);
            check(node).await;
        }
        check_epochs(&nodes[0], &backup, old).await;
        // It is a cluster like any other: it writes, restarts, and grows.
        let (revision, _) = propose(&nodes[0], put_namespace("new", 1)).await;
        assert!(revision > LogRevision(backup.revision.0 + (1 << 32)));
        for node in nodes {
            node.shutdown().await;
        }
        let starts = target.listeners.keys().map(|id| Node::start(target.config(*id)));
        let nodes: Vec<Node> = futures::future::join_all(starts)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(limit(&nodes[0], "new"), 1);
        let joining = NodeConfig {
            id: None,
            initial_cluster: BTreeMap::new(),
            join: Some(vec![target.initial[&SchedulerId(1)].clone()]),
            data_dir: target.dir(9),
            peer_listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            ..target.config(1)
        };
        let joined = Node::start(joining).await.unwrap();
        joined.read_index().await.unwrap();
        assert_eq!(limit(&joined, "new"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_of_the_old_cluster_has_a_part_in_the_restored_one() {
    let mut cluster = Cluster::running(1, Settings::default()).await;
    fill(cluster.node(1)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    back_up(cluster.node(1), &file).await;
    cluster.stop(1).await;

    // Even under the same name, number and address it is another cluster.
    let mut same = Target::new(1);
    same.initial = cluster.initial();
    let again = Restore {
        cluster_name: cluster.name.clone(),
        ..same.restore(1, &file)
    };
    let restored = restore(&again).unwrap();
    assert_ne!(restored.cluster_id, restored.backup.cluster_id);
    let other_token = Restore {
        token: "second try".to_owned(),
        data_dir: same.root.path().join("other"),
        ..again.clone()
    };
    assert_ne!(restore(&other_token).unwrap().cluster_id, restored.cluster_id);

    // A fresh scheduler with the same configuration does not mix with restored ones.
    let target = Target::new(2);
    restore(&target.restore(1, &file)).unwrap();
    let starts = [1, 2].map(|id| Node::start(target.config(id)));
    let ended = tokio::time::timeout(support::PATIENCE, futures::future::join_all(starts))
        .await
        .unwrap();
    for start in ended {
        match start {
            Err(StartError::Config(reason)) => assert!(reason.contains("belongs to cluster"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_refused_and_leaves_no_directory_that_starts() {
    let cluster = Cluster::running(1, Settings::default()).await;
    fill(cluster.node(1)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    back_up(cluster.node(1), &file).await;
    let bytes = std::fs::read(&file).unwrap();
    let target = Target::new(1);
    let damaged = dir.path().join("damaged");
    let refused = |what: &str| {
        assert!(
            matches!(verify(&damaged), Err(BackupError::Damaged { .. })),
            "{what} passes"
        );
        let restored = restore(&target.restore(1, &damaged));
        assert!(
            matches!(restored, Err(RestoreError::Backup(BackupError::Damaged { .. }))),
            "{what}"
        );
        assert!(!target.dir(1).exists(), "{what}");
    };
    for len in (0..bytes.len()).step_by(bytes.len() / 150) {
        std::fs::write(&damaged, &bytes[..len]).unwrap();
        refused(&format!("cut at {len}"));
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&damaged, flipped).unwrap();
        refused(&format!("bit flipped in byte {at}"));
    }
    // The whole file, into a directory that is in use, or for a scheduler that is none.
    restore(&target.restore(1, &file)).unwrap();
    assert!(matches!(
        restore(&target.restore(1, &file)),
        Err(RestoreError::Target(StartError::Identity(_)))
    ));
    let nobody = Restore {
        id: SchedulerId(9),
        ..target.restore(1, &file)
    };
    assert!(matches!(
        restore(&nobody),
        Err(RestoreError::Target(StartError::Config(_)))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_nobody_reads_ends_with_its_node() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let node = cluster.node(1).clone();
    // More than the pieces written ahead can hold.
    for number in 0..8 {
        propose(&node, put_document(&format!("d{number}"), &vec![7; 900_000])).await;
    }
    let mut stream = eventually("a backup begins", async || node.backup(NOW).await.ok()).await;
    assert!(stream.next().await.unwrap().is_ok());
    tokio::time::timeout(support::PATIENCE, node.shutdown())
        .await
        .unwrap();
    let mut last = None;
    while let Some(piece) = stream.next().await {
        last = Some(piece);
    }
    assert!(last.unwrap().is_err(), "it is not taken for a whole one");
}
