//! A later scheduler joins, catches up, votes, restarts under its identity; a member is removed.

mod support;

use support::{Cluster, eventually, limit, propose, put_namespace};
use whiskraft_raft::{MembershipError, Node, Settings, StopReason};
use whiskraft_types::SchedulerId;

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_scheduler_joins_votes_and_restarts() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let (revision, _) = propose(cluster.node(1), put_namespace("a", 3)).await;
    let config = cluster.joining(2, "fourth");
    let address = config.peer_listener.local_addr().unwrap();
    let fourth = Node::start(config).await.unwrap();
    let id = fourth.id();
    assert!(
        id.0 > revision.0,
        "its number is the index of an entry proposed for it: {id}"
    );
    assert_eq!(fourth.cluster_id(), cluster.node(1).cluster_id());
    fourth.wait_applied(revision).await.unwrap();
    eventually("it votes", async || {
        fourth
            .status()
            .peers
            .get(&id)
            .is_some_and(|peer| peer.voter)
            .then_some(())
    })
    .await;
    propose(&fourth, put_namespace("b", 4)).await;
    eventually("it is in the members table", async || {
        cluster
            .node(1)
            .read(|state| state.member(id).is_some_and(|row| row.version == "test"))
            .then_some(())
    })
    .await;

    fourth.shutdown().await;
    let mut config = cluster.joining(2, "fourth");
    config.peer_listener = std::net::TcpListener::bind(address).unwrap();
    let again = Node::start(config).await.unwrap();
    assert_eq!(again.id(), id);
    again.read_index().await.unwrap();
    assert_eq!(limit(&again, "b"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_scheduler_stops_and_the_rest_go_on() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let removed = cluster.follower().await;
    // Asked of any node; it finds the leader.
    let asked = cluster.node(removed);
    eventually("it is removed", async || {
        asked.remove_member(SchedulerId(removed)).await.ok()
    })
    .await;
    assert_eq!(
        cluster.node(removed).stopped().await,
        StopReason::Removed(SchedulerId(removed))
    );
    let rest = (1..=3).find(|id| *id != removed).unwrap();
    propose(cluster.node(rest), put_namespace("a", 1)).await;
    assert_eq!(cluster.node(rest).status().peers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_can_be_removed() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let leader = cluster.leader().await;
    let rest = cluster.follower().await;
    eventually("it is removed", async || {
        match cluster.node(rest).remove_member(SchedulerId(leader)).await {
            Ok(()) => Some(()),
            Err(MembershipError::Unavailable(_)) => None,
            Err(error @ MembershipError::Refused(_)) => panic!("{error}"),
        }
    })
    .await;
    propose(cluster.node(rest), put_namespace("a", 1)).await;
    assert!(
        !cluster
            .node(rest)
            .status()
            .peers
            .contains_key(&SchedulerId(leader))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_make_no_sense_are_refused_with_a_reason() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let node = cluster.node(1);
    let error = node.remove_member(SchedulerId(9)).await.unwrap_err();
    assert_eq!(
        error,
        MembershipError::Refused("scheduler 9 is not a member of the cluster".to_owned())
    );
    let error = node.remove_member(SchedulerId(1)).await.unwrap_err().to_string();
    assert!(error.contains("last voter"), "{error}");
    let taken = cluster.addresses[&SchedulerId(1)].to_string();
    let error = node
        .add_member(taken, String::new(), [9; 16])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("is the address of scheduler 1"), "{error}");
}
