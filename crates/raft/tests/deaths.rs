//! Proof of death: a report ends the session of the process that it names, has another leader elected, and does nothing else.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use support::{Cluster, eventually, open_session};
use whiskraft_raft::{EndAnswer, Obituary, Settings, report_end};
use whiskraft_types::{SchedulerId, SessionId};

/// No session ends by itself in these tests.
const TTL: Duration = Duration::from_secs(60);

/// Nobody is elected because a leader is silent: a report is answered within a second, and its lease lasts ten.
fn patient() -> Settings {
    Settings {
        election_min: Duration::from_secs(5),
        election_max: Duration::from_secs(10),
        ..Settings::default()
    }
}

/// Answers that say that the session has ended.
fn ended(answers: impl IntoIterator<Item = EndAnswer>) -> usize {
    let ended = answers
        .into_iter()
        .filter(|answer| matches!(answer, EndAnswer::Ended(_)));
    ended.count()
}

/// Ends a node without a word to anybody; gives what is to be told of it.
async fn crash(cluster: &mut Cluster, id: u64, incarnation: u8) -> Obituary {
    let node = cluster.nodes.remove(&SchedulerId(id)).unwrap();
    let obituary = node.obituary([incarnation; 16]);
    tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
    obituary
}

fn session_of(cluster: &Cluster, at: u64, scheduler: u64) -> Option<SessionId> {
    let state = |state: &whiskraft_state::State| state.scheduler_session(SchedulerId(scheduler));
    cluster.node(at).read(state)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_leader_is_followed_by_an_election_and_by_the_end_of_its_session() {
    let mut cluster = Cluster::running(3, patient()).await;
    let leader = cluster.leader().await;
    open_session(cluster.node(leader), 1, TTL).await;
    let obituary = crash(&mut cluster, leader, 1).await;
    assert_eq!(obituary.others.len(), 2);
    let answers = report_end(&obituary).await;
    assert!(ended(answers.clone().into_values()) > 0, "{answers:?}");
    assert_ne!(cluster.leader().await, leader);
    for id in obituary.others.keys() {
        eventually("the session has ended", async || {
            session_of(&cluster, id.0, leader).is_none().then_some(())
        })
        .await;
        let lanes = async || {
            let lanes = cluster.node(id.0).status().lanes;
            let led = |lane: &whiskraft_raft::LaneStatus| lane.leader.is_some_and(|id| id.0 != leader);
            lanes.iter().all(led).then_some(())
        };
        eventually("every lane has a leader that lives", lanes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_through_any_member_ends_the_session_of_one_that_leads_nothing() {
    let mut cluster = Cluster::running(3, patient()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let term = cluster.node(leader).status().term;
    let (kept, _) = (
        open_session(cluster.node(leader), 2, TTL).await,
        open_session(cluster.node(follower), 1, TTL).await,
    );
    let mut obituary = crash(&mut cluster, follower, 1).await;
    // The leader hears of it through the one that follows.
    obituary.others.remove(&SchedulerId(leader));
    let answers = report_end(&obituary).await;
    assert_eq!(
        (ended(answers.clone().into_values()), answers.len()),
        (1, 1),
        "{answers:?}"
    );
    assert_eq!(session_of(&cluster, leader, follower), None);
    assert_eq!(session_of(&cluster, leader, leader), Some(kept));
    assert_eq!(cluster.node(leader).status().term, term, "nobody was elected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_about_another_process_changes_nothing_and_says_so() {
    let cluster = Cluster::running(3, patient()).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    let session = open_session(cluster.node(leader), 2, TTL).await;
    let answers = report_end(&cluster.node(leader).obituary([1; 16])).await;
    assert!(
        answers.values().all(|answer| *answer == EndAnswer::OtherProcess),
        "{answers:?}"
    );
    let follower = cluster.follower().await;
    let of_none = report_end(&cluster.node(follower).obituary([1; 16])).await;
    assert!(
        of_none.values().all(|answer| *answer == EndAnswer::NoSession),
        "{of_none:?}"
    );
    let elsewhere = Obituary {
        cluster_id: "other".to_owned(),
        ..cluster.node(leader).obituary([2; 16])
    };
    let refused = report_end(&elsewhere).await;
    assert!(
        refused
            .values()
            .all(|answer| matches!(answer, EndAnswer::Unavailable(_))),
        "{refused:?}"
    );
    let status = cluster.node(leader).status();
    assert_eq!((status.term, status.leader), (term, Some(SchedulerId(leader))));
    assert_eq!(session_of(&cluster, leader, leader), Some(session));
}
