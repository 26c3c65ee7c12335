//! The peer service of a node that runs: where it works.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use whiskraft_proto::v1;
use whiskraft_types::SchedulerId;

use super::Served;
use super::snapshot::Incoming;
use crate::core::Group;
use crate::disk::DiskSpace;
use crate::runtime::Runtime;
use crate::store::SnapshotDir;
use crate::types::Types;
use crate::{Node, NodeConfig, Settings};

async fn node(dir: &Path) -> Node {
    let peer_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = peer_listener.local_addr().unwrap().to_string();
    let config = NodeConfig {
        id: Some(SchedulerId(1)),
        initial_cluster: BTreeMap::from([(SchedulerId(1), address)]),
        join: None,
        learner: false,
        cluster_name: "test".to_owned(),
        data_dir: dir.join("node"),
        peer_listener,
        advertise_peer: None,
        advertise_client: "client:7401".to_owned(),
        zone: String::new(),
        version: "test".to_owned(),
        settings: Settings::default(),
    };
    Node::start(config).await.unwrap()
}

fn served(dir: &Path, group: &Group, runtime: &Runtime) -> Served {
    let snapshots = SnapshotDir::open(&dir.join("received")).unwrap();
    Served::new(group.clone(), snapshots, runtime.handle())
}

/// Name of the thread that reads the requests of a replication stream.
async fn reader(served: &Served) -> Option<String> {
    let (seen, mut threads) = mpsc::channel(1);
    let requests = stream::poll_fn(move |_| {
        let thread = std::thread::current().name().map(str::to_owned);
        seen.try_send(thread).unwrap();
        Poll::Ready(None::<AppendEntriesRequest<Types>>)
    });
    let replies: Vec<_> = served.append(requests).collect().await;
    assert!(replies.is_empty());
    threads.recv().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_group_are_decoded_on_the_runtime_of_its_core() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let (runtime, lane_runtime) = (Runtime::start("raft").unwrap(), Runtime::start("lanes").unwrap());
    let meta = served(dir.path(), &node.core().group, &runtime);
    assert_eq!(reader(&meta).await.as_deref(), Some("raft"));
    for lane in node.journal().groups() {
        let lane = served(dir.path(), lane, &lane_runtime);
        assert_eq!(reader(&lane).await.as_deref(), Some("lanes"));
    }
    node.shutdown().await;
}

const PAUSE: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

fn incoming(dir: &Path, pause: Duration, disk_reserve: u64) -> Incoming {
    Incoming {
        pause,
        disk: Some(DiskSpace::new(dir, disk_reserve)),
        temporary: SnapshotDir::open(dir).unwrap().temporary(),
    }
}

/// A part of a snapshot, and then nothing for ever.
fn part() -> impl Stream<Item = Result<v1::SnapshotChunk, Status>> + Unpin {
    let chunk = v1::SnapshotChunk {
        data: vec![1; 1000].into(),
        ..v1::SnapshotChunk::default()
    };
    stream::iter([Ok(chunk)]).chain(stream::pending())
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test]
async fn a_snapshot_that_stops_coming_is_given_up_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let given_up = incoming(dir.path(), PAUSE, 0).receive(part()).await.unwrap_err();
    assert_eq!(given_up.code(), Code::DeadlineExceeded, "{given_up}");
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn nothing_is_left_of_a_snapshot_whose_sender_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut receiving = Box::pin(incoming(dir.path(), LONG, 0).receive(part()));
    while files(dir.path()) == 0 {
        assert!((&mut receiving).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(receiving);
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn rows_are_refused_while_the_disk_is_almost_full() {
    let dir = tempfile::tempdir().unwrap();
    let refused = incoming(dir.path(), LONG, u64::MAX)
        .receive(part())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(files(dir.path()), 0);
}
