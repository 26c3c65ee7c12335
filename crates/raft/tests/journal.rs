//! The journal on real nodes: appends from anywhere, what every node then knows, fences, lanes and their leaders.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use whiskraft_raft::{Journaled, LaneId, Lookup, Node, Settings};
use whiskraft_state::journal::{
    Accept, Digest, End, EndKind, JournalBatch, JournalCommand, JournalOutcome, KnownActivation, RowState,
    UnixMillis,
};
use whiskraft_types::{ActivationId, Epoch, LogRevision, QueueKey};

use support::{Cluster, eventually};

const NOW: UnixMillis = UnixMillis(1_000_000);

fn id(number: u8) -> ActivationId {
    ActivationId::from_bytes([number; 16])
}

fn key(action: &str) -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: format!("guest/{action}").parse().unwrap(),
    }
}

fn accept(number: u8, action: &str, epoch: u64) -> JournalCommand {
    JournalCommand::Accept(Accept {
        id: id(number),
        key: key(action),
        epoch: Epoch(epoch),
        digest: Digest([number; 16]),
        accepted: NOW,
        not_before: None,
        payload: vec![number; 100],
    })
}

fn end(number: u8, action: &str, epoch: u64) -> JournalCommand {
    JournalCommand::End(End {
        id: id(number),
        key: key(action),
        epoch: Epoch(epoch),
        run: 1,
        at: NOW,
        expires: UnixMillis(NOW.0 + 1_000_000),
        kind: EndKind::Record,
        record: vec![number; 10],
    })
}

fn batch(commands: Vec<JournalCommand>) -> JournalBatch {
    JournalBatch { now: NOW, commands }
}

/// Appends until the outcome is known; the commands of these tests may be repeated.
async fn append(
    node: &Node,
    lane: LaneId,
    commands: Vec<JournalCommand>,
) -> (LogRevision, Vec<JournalOutcome>) {
    eventually("a batch is written", async || {
        let appended = node.journal().append(lane, batch(commands.clone())).await;
        appended
            .inspect_err(|error| eprintln!("lane {}: {error}", lane.0))
            .ok()
    })
    .await
}

fn found(node: &Node, number: u8) -> Option<Journaled> {
    match node.journal().find(id(number)).unwrap() {
        Lookup::Found(journaled) => Some(journaled),
        Lookup::Missing | Lookup::Gone => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_appends_every_node_finds() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let lanes = cluster.node(1).journal().lanes();
    assert_eq!(lanes, [LaneId(1), LaneId(2), LaneId(3)]);
    for (node, lane) in (1..=3).zip(lanes) {
        let number = u8::try_from(node).unwrap();
        let (_, outcomes) = append(cluster.node(node), lane, vec![accept(number, "hello", 5)]).await;
        assert!(matches!(
            outcomes[..],
            [JournalOutcome::Written | JournalOutcome::Known(_)]
        ));
    }
    for node in 1..=3 {
        let journal = cluster.node(node).journal();
        eventually("the journal catches up", async || journal.catch_up().await.ok()).await;
        for number in 1..=3 {
            let journaled = found(cluster.node(node), number).unwrap();
            assert_eq!(journaled.lane, LaneId(u32::from(number)));
            assert_eq!(journaled.row.state, RowState::Open { not_before: None });
            let payload = journal.payload(journaled.lane, id(number)).unwrap();
            assert_eq!(payload.as_deref(), Some(&[number; 100][..]));
            let open = journal
                .open(LaneId(u32::from(number)), &key("hello"), None, 10)
                .unwrap();
            assert_eq!(open, [journaled.row]);
        }
        assert_eq!(journal.open_queues().unwrap(), [key("hello")]);
        assert_eq!(journal.find(id(9)).unwrap(), Lookup::Missing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_ends_what_the_former_leader_may_do_and_shows_all_it_was_answered() {
    let cluster = Cluster::running(3, Settings::default()).await;
    let lane = LaneId(2);
    append(cluster.node(1), lane, vec![accept(1, "hello", 5)]).await;
    append(cluster.node(1), lane, vec![accept(2, "other", 5)]).await;
    let fence = JournalCommand::Fence {
        queues: vec![(key("hello"), Epoch(9))],
    };
    let (revision, _) = append(cluster.node(2), lane, vec![fence]).await;
    let journal = cluster.node(2).journal();
    journal.wait_applied(lane, revision).await.unwrap();
    let open = journal.open(lane, &key("hello"), None, 10).unwrap();
    assert_eq!(open.iter().map(|row| row.id).collect::<Vec<_>>(), [id(1)]);

    let stale = JournalOutcome::Stale { current: Epoch(9) };
    let late = vec![
        accept(3, "hello", 5),
        end(1, "hello", 5),
        end(2, "other", 5),
        end(1, "hello", 9),
    ];
    let (_, outcomes) = append(cluster.node(1), lane, late).await;
    assert_eq!(outcomes[..2], [stale.clone(), stale]);
    let ended = JournalOutcome::Known(KnownActivation { run: 1, ended: true });
    for outcome in &outcomes[2..] {
        assert!(
            *outcome == JournalOutcome::Written || *outcome == ended,
            "{outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_are_where_they_were_after_a_restart_of_all() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    append(cluster.node(1), LaneId(3), vec![accept(1, "hello", 5)]).await;
    append(cluster.node(1), LaneId(3), vec![end(1, "hello", 5)]).await;
    append(cluster.node(1), LaneId(1), vec![accept(2, "hello", 5)]).await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    cluster.start_all(&[1, 2, 3]).await;
    for node in 1..=3 {
        let journal = cluster.node(node).journal();
        eventually("the journal catches up", async || journal.catch_up().await.ok()).await;
        let journaled = found(cluster.node(node), 1).unwrap();
        assert!(matches!(journaled.row.state, RowState::Ended { .. }));
        let record = journal.record(journaled.lane, id(1)).unwrap();
        assert_eq!(record.as_deref(), Some(&[1; 10][..]));
        assert_eq!(journal.payload(journaled.lane, id(1)).unwrap(), None);
        assert!(found(cluster.node(node), 2).unwrap().row.is_open());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_of_a_lane_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    append(cluster.node(1), LaneId(1), vec![accept(1, "hello", 5)]).await;
    let lost = eventually("lane 1 has a leader", async || lane_leader(&cluster, 1)).await;
    drop(cluster.nodes.remove(&whiskraft_types::SchedulerId(lost)));
    let rest: Vec<u64> = cluster.nodes.keys().map(|id| id.0).collect();
    append(cluster.node(rest[0]), LaneId(1), vec![accept(2, "hello", 5)]).await;
    for node in rest {
        let journal = cluster.node(node).journal();
        eventually("the journal catches up", async || journal.catch_up().await.ok()).await;
        let open = journal.open(LaneId(1), &key("hello"), None, 10).unwrap();
        let ids: BTreeSet<_> = open.iter().map(|row| row.id).collect();
        assert_eq!(ids, BTreeSet::from([id(1), id(2)]));
    }
}

fn lane_leader(cluster: &Cluster, lane: u32) -> Option<u64> {
    let leads = |node: &&Node| {
        let status = node.status();
        let lane = status.lanes.iter().find(|status| status.lane == LaneId(lane));
        lane.is_some_and(|lane| lane.leader == Some(node.id()))
    };
    cluster.nodes.values().find(leads).map(|node| node.id().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_long_is_refused_before_it_goes_anywhere() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let JournalCommand::Accept(mut long) = accept(1, "hello", 5) else {
        unreachable!()
    };
    long.payload = vec![0; whiskraft_raft::JOURNAL_BATCH_BYTES_MAX + 1];
    let refused = cluster
        .node(1)
        .journal()
        .append(LaneId(1), batch(vec![JournalCommand::Accept(long)]))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("split it"), "{refused}");
    let unknown = cluster
        .node(1)
        .journal()
        .append(LaneId(9), batch(Vec::new()))
        .await;
    assert!(unknown.unwrap_err().to_string().contains("has lanes 1 to 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_acceptances_stop_while_the_disk_is_almost_full_and_ends_go_on() {
    let mut cluster = Cluster::running(1, Settings::default()).await;
    append(cluster.node(1), LaneId(1), vec![accept(1, "hello", 5)]).await;
    cluster.stop(1).await;
    cluster.settings.disk_reserve = u64::MAX;
    cluster.start(1).await;
    let journal = cluster.node(1).journal();
    let refused = journal
        .append(LaneId(1), batch(vec![accept(2, "hello", 5)]))
        .await;
    assert!(
        matches!(refused, Err(whiskraft_raft::ProposeError::Full(_))),
        "{refused:?}"
    );
    append(cluster.node(1), LaneId(1), vec![end(1, "hello", 5)]).await;
    assert!(!found(cluster.node(1), 1).unwrap().row.is_open());
    let _ = Duration::ZERO;
}
