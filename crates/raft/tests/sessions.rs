//! Sessions: kept alive through any node, ended by silence, granted anew by a new leader.

mod support;

use std::time::{Duration, Instant};

use support::{Cluster, eventually, open_session, propose};
use whiskraft_raft::{KeepaliveError, Node, Settings};
use whiskraft_state::Command;
use whiskraft_types::SessionId;

const TTL: Duration = Duration::from_millis(1200);

fn lives(node: &Node, session: SessionId) -> bool {
    node.read(|state| state.session(session).is_some())
}

#[expect(clippy::disallowed_methods, reason = "these tests are about time")]
fn now() -> Instant {
    Instant::now()
}

/// Sends keepalives for a time; returns the longest pause between two that were acknowledged.
async fn keep(node: &Node, session: SessionId, time: Duration) -> Duration {
    let (start, mut last, mut longest) = (now(), now(), Duration::ZERO);
    let mut seq = 0;
    while start.elapsed() < time {
        seq += 1;
        match node.keepalive(session, seq).await {
            Ok(()) => {
                longest = longest.max(last.elapsed());
                last = now();
            }
            Err(KeepaliveError::Unavailable(_)) => {}
            Err(error @ KeepaliveError::Expired(_)) => panic!("{error} although it was kept"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_while_it_is_kept_and_ends_when_it_is_not() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let node = cluster.node(cluster.follower().await);
    let session = open_session(node, 1, TTL).await;
    keep(node, session, TTL * 3).await;
    assert!(lives(node, session));

    let silent = now();
    eventually("the session ends", async || (!lives(node, session)).then_some(())).await;
    assert!(
        silent.elapsed() > TTL / 2,
        "ended {:?} after its last keepalive",
        silent.elapsed()
    );
    assert_eq!(
        node.keepalive(session, 1_000).await,
        Err(KeepaliveError::Expired(session))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_on_one_node_are_kept_together() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let node = cluster.node(cluster.follower().await);
    let ended = SessionId(999_999);
    let mut sessions = Vec::new();
    for other in cluster.nodes.values() {
        sessions.push(open_session(other, 7, TTL).await);
    }
    for round in 1..=40 {
        let calls = sessions
            .iter()
            .chain([&ended])
            .map(|session| async move { (*session, node.keepalive(*session, round).await) });
        for (session, kept) in futures::future::join_all(calls).await {
            if session == ended {
                assert_ne!(kept, Ok(()), "a session that never was is not kept");
            } else {
                assert!(!matches!(kept, Err(KeepaliveError::Expired(_))), "{kept:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_grants_every_session_a_whole_ttl() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let session = open_session(cluster.node(follower), 1, TTL * 2).await;
    keep(cluster.node(follower), session, TTL / 2).await;
    cluster.stop(leader).await;
    keep(cluster.node(follower), session, TTL * 3).await;
    assert!(lives(cluster.node(follower), session));
    eventually("the session ends with its keepalives", async || {
        (!lives(cluster.node(follower), session)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_quorum_acknowledges_nothing() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    let leader = cluster.leader().await;
    let session = open_session(cluster.node(leader), 1, Duration::from_secs(60)).await;
    eventually("it is kept", async || {
        cluster.node(leader).keepalive(session, 1).await.ok()
    })
    .await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.stop(id).await;
    }
    // Its lease outlives the quorum by less than an election timeout, and never comes back.
    let refused = eventually("it is refused", async || {
        cluster.node(leader).keepalive(session, 2).await.err()
    })
    .await;
    assert!(matches!(refused, KeepaliveError::Unavailable(_)), "{refused:?}");
    for seq in 3..6 {
        cluster.node(leader).keepalive(session, seq).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_a_keepalive_has_overtaken_changes_nothing() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let node = cluster.node(1);
    let session = open_session(node, 1, Duration::from_secs(60)).await;
    propose(
        node,
        Command::RenewSessions {
            sessions: vec![(session, 5)],
        },
    )
    .await;
    propose(
        node,
        Command::ExpireSessions {
            sessions: vec![(session, 4)],
        },
    )
    .await;
    assert!(lives(node, session));
    eventually("it is kept", async || node.keepalive(session, 6).await.ok()).await;
    propose(
        node,
        Command::ExpireSessions {
            sessions: vec![(session, 5)],
        },
    )
    .await;
    assert!(!lives(node, session));
    assert_eq!(
        node.keepalive(session, 7).await,
        Err(KeepaliveError::Expired(session))
    );
}
