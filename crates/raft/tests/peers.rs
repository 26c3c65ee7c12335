//! The peer listener: who is refused, and how a dead peer is called.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{Cluster, PATIENCE, propose, put_namespace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use whiskraft_proto::v1;
use whiskraft_proto::v1::peer_client::PeerClient;
use whiskraft_raft::Settings;
use whiskraft_types::SchedulerId;

fn vote_request(cluster_id: &str, to: u64, group: u32) -> v1::VoteRequest {
    let envelope = Some(v1::Envelope {
        shown: None,
        cluster_id: cluster_id.to_owned(),
        group,
        from: 2,
        to,
    });
    let vote = Some(v1::Vote {
        term: 1_000,
        node: 2,
        committed: false,
    });
    v1::VoteRequest {
        envelope,
        vote,
        last_log: None,
        leader_transfer: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_another_cluster_group_or_target_are_refused() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let node = cluster.node(1);
    let term = node.status().term;
    let address = cluster.addresses[&SchedulerId(1)];
    let mut client = PeerClient::connect(format!("http://{address}")).await.unwrap();
    let ours = node.cluster_id();
    for (request, said) in [
        (vote_request("other", 1, 0), "the message is for cluster other"),
        (vote_request(ours, 7, 0), "the message is for scheduler 7"),
        (vote_request(ours, 1, 9), "raft group 9"),
        (
            v1::VoteRequest {
                envelope: None,
                ..vote_request(ours, 1, 0)
            },
            "no envelope",
        ),
    ] {
        let status = client.vote(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains(said), "{status}");
    }
    let incomplete = v1::VoteRequest {
        vote: None,
        ..vote_request(ours, 1, 0)
    };
    assert_eq!(
        client.vote(incomplete).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let envelope = Some(v1::Envelope {
        shown: None,
        cluster_id: ours.to_owned(),
        group: 0,
        from: 2,
        to: 1,
    });
    let garbage = v1::ProposeRequest {
        envelope,
        commands: vec![vec![9, 9, 9].into(); 2],
    };
    let outcomes = client.propose(garbage).await.unwrap().into_inner().outcomes;
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        let invalid = matches!(outcome.outcome, Some(v1::propose_outcome::Outcome::Invalid(_)));
        assert!(invalid, "{outcome:?}");
    }
    assert_eq!(node.status().term, term, "nothing of it reached consensus");
    propose(node, put_namespace("a", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_not_installed() {
    let cluster = Cluster::running(1, Settings::default()).await;
    propose(cluster.node(1), put_namespace("a", 1)).await;
    let before = cluster.node(1).read(Clone::clone);
    let address = cluster.addresses[&SchedulerId(1)];
    let mut client = PeerClient::connect(format!("http://{address}")).await.unwrap();
    let cluster_id = cluster.node(1).cluster_id().to_owned();
    let head = v1::SnapshotChunk {
        envelope: Some(v1::Envelope {
            shown: None,
            cluster_id,
            group: 0,
            from: 2,
            to: 1,
        }),
        vote: Some(v1::Vote {
            term: 1_000,
            node: 2,
            committed: true,
        }),
        // A header that can be read: group 0, nothing in it, no members.
        meta: vec![1, 1, 0, 0, 0, 0, 0].into(),
        data: bytes::Bytes::new(),
    };
    let body = v1::SnapshotChunk {
        data: b"WKRSNAP1 and then nonsense".to_vec().into(),
        ..v1::SnapshotChunk::default()
    };
    let status = client
        .install_snapshot(futures::stream::iter([head, body]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("snapshot is damaged"), "{status}");
    assert_eq!(cluster.node(1).read(Clone::clone), before);
}

/// openraft repeats a call that fails at once without a pause unless its back-off is given the chance to wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_is_not_called_without_a_pause() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    let dead = cluster.follower().await;
    cluster.stop(dead).await;
    let listener = tokio::net::TcpListener::bind(cluster.addresses[&SchedulerId(dead)])
        .await
        .unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let accepting = tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Time has to pass for attempts to be made; the pause is what is measured.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = cluster.leader().await;
    propose(cluster.node(leader), put_namespace("a", 1)).await;
    accepting.abort();
    let made = attempts.load(Ordering::Relaxed);
    assert!((1..200).contains(&made), "{made} connections in two seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_without_a_word_loses_its_connection() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let mut silent = TcpStream::connect(cluster.addresses[&SchedulerId(1)])
        .await
        .unwrap();
    // The preface of HTTP/2 and empty settings; no ping is answered.
    silent
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut said = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut said)).await;
    assert!(closed.is_ok(), "still open after {} bytes", said.len());
    assert!(!said.is_empty(), "it was understood");
}
