//! Whoever supervised a process says that it has ended: its queues are led by others at once, and nobody else's are touched.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::time::Duration;

use common::{Cluster, config, key};
use whiskraft_raft::{EndAnswer, Obituary, report_end};
use whiskraft_state::State;
use whiskraft_types::{ActionLimits, SchedulerId};

const ACTION: &str = "guest/hello";

/// What is to be told when a member dies: its process is the one that has its session.
fn obituary(cluster: &Cluster, id: u64) -> Obituary {
    let node = &cluster.members[&id].node;
    let incarnation = node.read(|state| {
        let session = state.scheduler_session(SchedulerId(id)).unwrap();
        state.session(session).unwrap().incarnation
    });
    node.obituary(incarnation)
}

fn sessions(state: &State) -> Vec<whiskraft_types::SessionId> {
    state.sessions().map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_ends_the_session_of_that_process_and_its_queues_move() {
    let mut config = config();
    // Nothing ends by itself here.
    config.session.ttl = Duration::from_secs(60);
    config.creation.deadline = Duration::from_secs(61);
    let mut cluster = Cluster::start_with(config).await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let obituary = obituary(&cluster, old.leader);
    cluster.crash(old.leader).await;

    let before = cluster.read(sessions);
    let stale = Obituary {
        incarnation: [7; 16],
        ..obituary.clone()
    };
    for answer in report_end(&stale).await.into_values() {
        assert_eq!(answer, EndAnswer::OtherProcess);
    }
    assert_eq!(cluster.read(sessions), before);

    let answers = report_end(&obituary).await;
    let ended = |answer: &EndAnswer| matches!(answer, EndAnswer::Ended(_));
    assert!(answers.values().any(ended), "{answers:?}");
    cluster
        .until("another one leads the queue in a higher epoch", |state| {
            let queue = state.queues().next().map(|(_, queue)| queue);
            queue.is_some_and(|queue| {
                let leader = queue.leader.map(|(id, _)| id.0);
                queue.epoch.0 > old.epoch && leader.is_some_and(|leader| leader != old.leader)
            })
        })
        .await;
    assert_eq!(cluster.read(sessions).len(), before.len() - 1);
    for answer in report_end(&obituary).await.into_values() {
        assert_eq!(answer, EndAnswer::NoSession, "told again");
    }
}
