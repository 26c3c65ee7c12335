//! Watch: a snapshot, then every change once, in order, and on from where the watcher was.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::Controller;
use common::{Cluster, key, soon};
use tonic::Streaming;
use whiskraft_proto::v1;
use whiskraft_proto::v1::watch_client::WatchClient;
use whiskraft_proto::v1::watch_event::Event;
use whiskraft_proto::v1::watch_frame::Frame;
use whiskraft_types::ActionLimits;

async fn watch(cluster: &Cluster, at: u64, tables: &[v1::Table], after: u64) -> Streaming<v1::WatchFrame> {
    let tables = tables.iter().map(|table| i32::from(*table)).collect();
    let mut client = WatchClient::new(cluster.channel(at).await);
    client
        .watch(v1::WatchRequest { tables, after })
        .await
        .unwrap()
        .into_inner()
}

async fn next(stream: &mut Streaming<v1::WatchFrame>) -> Frame {
    soon("watch frame", stream.message())
        .await
        .unwrap()
        .expect("stream ended")
        .frame
        .unwrap()
}

fn names(batch: &v1::WatchBatch) -> Vec<String> {
    let name = |event: &v1::WatchEvent| match event.event.as_ref().unwrap() {
        Event::Document(document) => document.name.clone(),
        other => panic!("not asked for: {other:?}"),
    };
    batch.events.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_goes_on_where_it_was_also_at_another_scheduler() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    let mut stream = watch(&cluster, 1, &[v1::Table::Documents], 0).await;
    let Frame::Snapshot(snapshot) = next(&mut stream).await else {
        panic!("no snapshot")
    };
    assert!(snapshot.last);
    assert_eq!(names(&snapshot), ["a"]);
    cluster.put_action("guest/b", ActionLimits::default()).await;
    let Frame::Events(first) = next(&mut stream).await else {
        panic!("no events")
    };
    assert_eq!(names(&first), ["b"]);
    drop(stream);

    cluster.put_action("guest/c", ActionLimits::default()).await;
    cluster.ensure(1, &key("guest", "guest/a")).await.unwrap();
    let mut resumed = watch(&cluster, 2, &[v1::Table::Documents], first.revision).await;
    let Frame::Events(second) = next(&mut resumed).await else {
        panic!("not resumed")
    };
    assert_eq!(names(&second), ["c"]);
    assert!(second.revision > first.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_must_name_known_tables() {
    let cluster = Cluster::start().await;
    let mut client = WatchClient::new(cluster.channel(1).await);
    for tables in [vec![], vec![0], vec![99]] {
        let status = client
            .watch(v1::WatchRequest { tables, after: 0 })
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_members_queues_and_who_leads_them() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/a")).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;
    controller.accepted(1).await;
    let mut client = v1::operator_client::OperatorClient::new(cluster.channel(leadership.leader).await);
    let status = soon("status", client.status(v1::StatusRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.nodes.len(), status.queues_total, status.scheduler),
        (3, 1, leadership.leader)
    );
    assert_eq!(status.nodes.iter().map(|node| node.queues).sum::<u64>(), 1);
    let queue = status.queues[0].queue.clone().unwrap();
    assert_eq!((queue.leader, queue.epoch), (leadership.leader, leadership.epoch));
    assert_eq!(
        (status.queues[0].waiting, status.queues[0].state.is_empty()),
        (1, false),
        "the leader knows its state"
    );
}
