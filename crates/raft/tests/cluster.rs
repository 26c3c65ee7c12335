//! Three nodes: forming, proposing from anywhere, losing and getting back leader and followers, catching up.

mod support;

use std::time::Duration;

use support::{Cluster, document_key, eventually, limit, namespace, propose, put_document, put_namespace};
use whiskraft_raft::{Role, Settings, StopReason, WatchStart};
use whiskraft_types::{LogRevision, SchedulerId};

#[tokio::test(flavor = "multi_thread")]
async fn proposals_from_every_node_reach_every_node() {
    let cluster = Cluster::running(3, Settings::default()).await;
    for id in 1..=3 {
        let (revision, _) = propose(cluster.node(id), put_namespace(&format!("from-{id}"), id as u32)).await;
        for reader in 1..=3 {
            cluster.node(reader).wait_applied(revision).await.unwrap();
            assert_eq!(limit(cluster.node(reader), &format!("from-{id}")), id as u32);
        }
    }
    let ids: Vec<_> = cluster
        .nodes
        .values()
        .map(|node| node.cluster_id().to_owned())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_made_together_share_an_append_wherever_they_are_made() {
    let cluster = Cluster::running(3, Settings::default()).await;
    for id in 1..=3 {
        let commands = (0..50).map(|n| put_namespace(&format!("n{id}-{n}"), 1));
        let node = cluster.node(id);
        let mut outcomes = node.propose_many(commands.collect()).await;
        // A leader that is new may refuse them all, for sure, until it has time.
        while outcomes.iter().any(Result::is_err) {
            let commands = (0..50).map(|n| put_namespace(&format!("n{id}-{n}"), 1));
            outcomes = node.propose_many(commands.collect()).await;
        }
        let revisions: Vec<u64> = outcomes.into_iter().map(|outcome| outcome.unwrap().0.0).collect();
        let (first, last) = (revisions[0], revisions[49]);
        assert_eq!(revisions, (first..=last).collect::<Vec<_>>(), "node {id}");
        node.wait_applied(LogRevision(last)).await.unwrap();
        assert!((0..50).all(|n| limit(node, &format!("n{id}-{n}")) == 1));
    }
    assert!(cluster.node(1).propose_many(Vec::new()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_for_a_proposal_hurts_nobody() {
    let cluster = Cluster::running(3, Settings::default()).await;
    propose(cluster.node(1), put_namespace("first", 1)).await;
    let mut waiting = Vec::new();
    for n in 0..300 {
        let node = cluster.node(1 + n % 3).clone();
        let command = put_namespace(&format!("n{n}"), 1);
        let proposed = tokio::spawn(async move { node.propose(command).await });
        match n % 5 {
            0 => proposed.abort(),
            _ => waiting.push(proposed),
        }
    }
    for proposed in waiting {
        proposed.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_announce_themselves_and_are_reachable() {
    let cluster = Cluster::running(3, Settings::default()).await;
    eventually("all members are in the table", async || {
        let addresses = cluster.node(1).read(|state| {
            state
                .members()
                .map(|(_, member)| member.client_address.clone())
                .collect::<Vec<_>>()
        });
        (addresses == ["client-1:7401", "client-2:7401", "client-3:7401"]).then_some(())
    })
    .await;
    for from in 1..=3 {
        for to in cluster.addresses.keys() {
            eventually("members reach each other", async || {
                cluster.node(from).reachable(*to).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_index_covers_a_write_acknowledged_elsewhere() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let (follower, leader) = (cluster.follower().await, cluster.leader().await);
    for round in 1..=20 {
        let (revision, _) = propose(cluster.node(leader), put_namespace("a", round)).await;
        let read = cluster.node(follower).read_index().await.unwrap();
        assert!(read >= revision);
        assert_eq!(limit(cluster.node(follower), "a"), round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_after_the_leader_stops_and_nothing_is_lost() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    let leader = cluster.leader().await;
    propose(cluster.node(leader), put_namespace("a", 7)).await;
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    // It has the entry, and may not have applied it when it is elected.
    cluster.node(next).read_index().await.unwrap();
    assert_eq!(limit(cluster.node(next), "a"), 7);
    let (revision, _) = propose(cluster.node(next), put_namespace("a", 8)).await;

    cluster.start(leader).await;
    cluster.node(leader).wait_applied(revision).await.unwrap();
    assert_eq!(limit(cluster.node(leader), "a"), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_after_the_leader_vanishes() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    for round in 1..=4 {
        let leader = cluster.leader().await;
        propose(cluster.node(leader), put_namespace("a", round)).await;
        // Without a word to the others, unlike a stop.
        drop(cluster.nodes.remove(&SchedulerId(leader)));
        let next = cluster.leader().await;
        assert_ne!(next, leader);
        cluster.node(next).read_index().await.unwrap();
        assert_eq!(limit(cluster.node(next), "a"), round);
        cluster.start(leader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_all_nodes_restart() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    for round in 0..50 {
        propose(cluster.node(1 + round % 3), put_namespace("a", round as u32)).await;
    }
    propose(cluster.node(1), put_document("d", b"body")).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    cluster.start_all(&[1, 2, 3]).await;
    for id in 1..=3 {
        cluster.node(id).read_index().await.unwrap();
        assert_eq!(limit(cluster.node(id), "a"), 49);
        let (revision, body) = cluster.node(id).document(&document_key("d")).unwrap().unwrap();
        assert_eq!(&body[..], b"body");
        assert_eq!(
            cluster
                .node(id)
                .read(|state| state.document(&document_key("d")).unwrap().revision),
            revision
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_answers_unavailable_and_recovers_by_itself() {
    let settings = Settings {
        propose_timeout: Duration::from_millis(800),
        ..Settings::default()
    };
    let mut cluster = Cluster::running(3, settings).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.stop(*id).await;
    }
    // What was proposed without a quorum may or may not take effect; what is read must not be stale.
    cluster
        .node(leader)
        .propose(put_namespace("a", 1))
        .await
        .unwrap_err();
    cluster.node(leader).read_index().await.unwrap_err();
    cluster.start(others[0]).await;
    propose(cluster.node(leader), put_namespace("b", 2)).await;
    cluster.node(others[0]).read_index().await.unwrap();
    assert_eq!(limit(cluster.node(others[0]), "b"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_catches_up_by_snapshot() {
    let settings = Settings {
        snapshot_logs: 200,
        logs_kept: 50,
        ..Settings::default()
    };
    let mut cluster = Cluster::running(3, settings).await;
    let away = cluster.follower().await;
    let body = vec![7; 300_000];
    propose(cluster.node(away), put_document("old", b"x")).await;
    cluster.stop(away).await;
    let leader = cluster.leader().await;
    for round in 0..900 {
        propose(
            cluster.node(leader),
            put_namespace(&format!("n{}", round % 40), round),
        )
        .await;
    }
    for name in ["a", "b", "c", "d"] {
        propose(cluster.node(leader), put_document(name, &body)).await;
    }
    propose(
        cluster.node(leader),
        whiskraft_state::Command::DeleteDocument {
            key: document_key("old"),
            expected: None,
        },
    )
    .await;
    let (revision, _) = propose(cluster.node(leader), put_namespace("last", 5)).await;
    eventually("the log the follower needs is purged", async || {
        (cluster.node(leader).status().purged > LogRevision(400)).then_some(())
    })
    .await;

    cluster.start(away).await;
    cluster.node(away).wait_applied(revision).await.unwrap();
    let status = cluster.node(away).status();
    assert!(status.snapshot > LogRevision(400), "{status:?}");
    assert_eq!(limit(cluster.node(away), "last"), 5);
    assert_eq!(limit(cluster.node(away), "n39"), 879);
    for name in ["a", "b", "c", "d"] {
        let (_, found) = cluster.node(away).document(&document_key(name)).unwrap().unwrap();
        assert!(found == body, "document {name} differs");
    }
    assert_eq!(cluster.node(away).document(&document_key("old")).unwrap(), None);
    assert_eq!(
        cluster.node(away).read(Clone::clone),
        cluster.node(leader).read(Clone::clone),
        "tables differ after a snapshot"
    );

    // The installed snapshot is what a restart begins with.
    cluster.stop(away).await;
    cluster.start(away).await;
    assert_eq!(limit(cluster.node(away), "last"), 5);
    assert!(cluster.node(away).document(&document_key("d")).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_between_snapshots_give_the_same_tables() {
    let settings = Settings {
        snapshot_logs: 50,
        logs_kept: 200,
        ..Settings::default()
    };
    let mut cluster = Cluster::running(1, settings).await;
    for round in 0..4_u32 {
        for step in 0..90 {
            propose(
                cluster.node(1),
                put_namespace(&format!("n{step}"), round * 100 + step),
            )
            .await;
        }
        propose(cluster.node(1), put_document("d", &round.to_le_bytes())).await;
        let before = cluster.node(1).read(Clone::clone);
        cluster.stop(1).await;
        cluster.start(1).await;
        assert_eq!(cluster.node(1).read(Clone::clone), before);
        let (_, body) = cluster.node(1).document(&document_key("d")).unwrap().unwrap();
        assert_eq!(body[..], round.to_le_bytes());
    }
    assert!(cluster.node(1).status().snapshot > LogRevision(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_resumes_where_it_ended_and_is_cut_when_it_falls_behind() {
    let settings = Settings {
        watch_batches: 20,
        ..Settings::default()
    };
    let cluster = Cluster::running(1, settings).await;
    let node = cluster.node(1);
    let (state, mut stream) = node.subscribe();
    assert_eq!(state.namespace_limits(&namespace("a")).containers, 30);
    let mut revisions = Vec::new();
    for round in 0..5 {
        let (revision, _) = propose(node, put_namespace("a", round)).await;
        revisions.push(revision);
    }
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let batch = stream.next().await.unwrap();
        if revisions.contains(&batch.revision) {
            seen.push(batch.revision);
        }
    }
    assert_eq!(seen, revisions);

    let WatchStart::Resume(mut resumed) = node.watch(revisions[2]) else {
        panic!("not retained")
    };
    assert_eq!(resumed.next().await.unwrap().revision, revisions[3]);
    assert_eq!(resumed.next().await.unwrap().revision, revisions[4]);

    for round in 0..40 {
        propose(node, put_namespace("a", 100 + round)).await;
    }
    assert_eq!(
        resumed.next().await.unwrap_err(),
        whiskraft_raft::StreamEnd::Lagged
    );
    let WatchStart::Snapshot(state, _) = node.watch(revisions[4]) else {
        panic!("retained for ever")
    };
    assert_eq!(state.namespace_limits(&namespace("a")).containers, 139);
    assert!(matches!(node.watch(LogRevision(0)), WatchStart::Snapshot(..)));
    assert!(matches!(
        node.watch(LogRevision(u64::MAX)),
        WatchStart::Snapshot(..)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_says_so_everywhere() {
    let mut cluster = Cluster::running(1, Settings::default()).await;
    let node = cluster.node(1).clone();
    let (_, mut stream) = node.subscribe();
    cluster.stop(1).await;
    assert_eq!(node.stopped().await, StopReason::Requested);
    assert_eq!(node.status().role, Role::Stopped);
    while stream.next().await.is_ok() {}
    node.propose(put_namespace("a", 1)).await.unwrap_err();
    node.wait_applied(LogRevision(1_000_000)).await.unwrap_err();
    node.document(&document_key("d")).unwrap_err();
    // The directory is free again, whoever still holds a handle of the old node.
    cluster.start(1).await;
}
