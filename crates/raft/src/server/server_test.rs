//! The peer service of a node that runs: where it works.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::task::Poll;

use futures::stream::{self, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;
use whiskraft_types::SchedulerId;

use super::Served;
use crate::core::Group;
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
