//! The journal on real nodes: appends from anywhere, what every node then knows, fences, lanes and their leaders.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

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
        waited: Duration::ZERO,
        not_before: None,
        payload: vec![number; 100].into(),
    })
}

fn end(number: u8, action: &str, epoch: u64) -> JournalCommand {
    JournalCommand::End(End {
        id: id(number),
        key: key(action),
        epoch: Epoch(epoch),
        run: 1,
        at: NOW,
        // They never expire here.
        keep: Duration::MAX,
        kind: EndKind::Record,
        record: vec![number; 10].into(),
    })
}

fn batch(commands: Vec<JournalCommand>) -> JournalBatch {
    JournalBatch::of(commands)
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
            assert_eq!(
                journaled.row.state,
                RowState::Open {
                    not_before: None,
                    due: None
                }
            );
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
    long.payload = vec![0; whiskraft_raft::JOURNAL_BATCH_BYTES_MAX + 1].into();
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
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scheduler_leads_one_lane_and_gets_it_back_after_it_was_away() {
    let settings = Settings {
        lane_calm: Duration::from_millis(500),
        ..Settings::default()
    };
    let mut cluster = Cluster::running(3, settings).await;
    let leaders = |cluster: &Cluster| [1, 2, 3].map(|lane| lane_leader(cluster, lane));
    let spread = [Some(1), Some(2), Some(3)];
    eventually("lanes are spread", async || {
        (leaders(&cluster) == spread).then_some(())
    })
    .await;
    for node in 1..=3 {
        let home = cluster.node(node).journal().home();
        assert_eq!(u64::from(home.0), node, "each appends to its own lane");
    }
    cluster.stop(2).await;
    let others = [Some(1), Some(3)];
    eventually("another leads the lane", async || {
        others.contains(&lane_leader(&cluster, 2)).then_some(())
    })
    .await;
    append(cluster.node(1), LaneId(2), vec![accept(1, "hello", 5)]).await;
    cluster.start(2).await;
    eventually("the lane has moved back", async || {
        (leaders(&cluster) == spread).then_some(())
    })
    .await;
    let journal = cluster.node(2).journal();
    eventually("the journal catches up", async || journal.catch_up().await.ok()).await;
    assert!(found(cluster.node(2), 1).unwrap().row.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_too_long_is_sent_all_rows() {
    let settings = Settings {
        lane_snapshot_bytes: 64 << 10,
        lane_log_bytes: 1,
        ..Settings::default()
    };
    let mut cluster = Cluster::running(3, settings).await;
    append(cluster.node(1), LaneId(1), vec![accept(1, "hello", 5)]).await;
    cluster.stop(3).await;
    // More than the marks in a log are apart, so that some of it goes.
    let filler = |number: u8| {
        let JournalCommand::Accept(accept) = accept(number, "filler", 5) else {
            unreachable!()
        };
        JournalCommand::Accept(Accept {
            payload: vec![number; 1 << 20].into(),
            ..accept
        })
    };
    for number in 2..=20 {
        append(cluster.node(1), LaneId(1), vec![filler(number)]).await;
    }
    let purged = |node: &Node| node.status().lanes[0].purged;
    eventually("the log was purged", async || {
        let all = cluster.nodes.values().all(|node| purged(node) > LogRevision(5));
        all.then_some(())
    })
    .await;
    cluster.start(3).await;
    let journal = cluster.node(3).journal();
    eventually("the journal catches up", async || journal.catch_up().await.ok()).await;
    for number in 1..=20 {
        let journaled = found(cluster.node(3), number).unwrap();
        assert!(journaled.row.is_open());
        assert!(journal.payload(LaneId(1), id(number)).unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_joins_gets_the_lanes_of_the_cluster_and_one_that_goes_leaves_them() {
    let formed = Settings {
        lanes: 2,
        ..Settings::default()
    };
    let mut cluster = Cluster::running(1, formed).await;
    append(cluster.node(1), LaneId(2), vec![accept(1, "hello", 5)]).await;
    // What the setting says now is of no interest any more.
    cluster.settings.lanes = 7;
    let joined = Node::start(cluster.joining(1, "joined")).await.unwrap();
    assert_eq!(joined.journal().lanes(), [LaneId(1), LaneId(2)]);
    eventually("the journal catches up", async || {
        joined.journal().catch_up().await.ok()
    })
    .await;
    assert!(found(&joined, 1).unwrap().row.is_open());
    eventually("lanes are led by both", async || {
        let home = joined.journal().home();
        let status = joined.status();
        let led = status
            .lanes
            .iter()
            .find(|lane| lane.leader == Some(joined.id()))?;
        (led.lane == home).then_some(())
    })
    .await;
    append(&joined, joined.journal().home(), vec![accept(2, "hello", 5)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedulers_that_count_lanes_differently_do_not_form_a_cluster() {
    let mut cluster = Cluster::new(2, Settings::default());
    let first = cluster.config(1);
    cluster.settings.lanes = 5;
    let second = cluster.config(2);
    let starts = [first, second].map(|config| tokio::spawn(Node::start(config)));
    let mut refusals = Vec::new();
    for start in starts {
        let started = tokio::time::timeout(Duration::from_secs(20), start).await;
        if let Ok(Ok(Err(error))) = started {
            refusals.push(error.to_string());
            break;
        }
    }
    assert!(
        refusals[0].contains("the setting lanes must be the same"),
        "{refusals:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_but_one_leaves_the_lanes_before_it_stops() {
    let mut cluster = Cluster::running(2, Settings::default()).await;
    append(cluster.node(1), LaneId(1), vec![accept(1, "hello", 5)]).await;
    append(cluster.node(1), LaneId(2), vec![accept(2, "hello", 5)]).await;
    let gone = cluster.leader().await;
    let stays = 3 - gone;
    eventually("it is removed", async || {
        let order = whiskraft_types::MemberOrder::Remove {
            id: whiskraft_types::SchedulerId(gone),
            force: true,
        };
        let removed = cluster.node(stays).change_members(order);
        removed.await.ok()
    })
    .await;
    let reason = tokio::time::timeout(Duration::from_secs(20), cluster.node(gone).stopped()).await;
    assert!(
        matches!(reason, Ok(whiskraft_raft::StopReason::Removed(_))),
        "{reason:?}"
    );
    cluster.stop(gone).await;
    // Alone it is a quorum of every lane.
    for lane in 1..=3 {
        append(
            cluster.node(stays),
            LaneId(lane),
            vec![accept(10 + lane as u8, "hello", 5)],
        )
        .await;
    }
    assert!(found(cluster.node(stays), 1).unwrap().row.is_open());
    assert!(found(cluster.node(stays), 2).unwrap().row.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_a_file_of_every_group() {
    let cluster = Cluster::running(1, Settings::default()).await;
    let (revision, _) = append(cluster.node(1), LaneId(2), vec![accept(1, "hello", 5)]).await;
    let dir = tempfile::tempdir().unwrap();
    let files = cluster.node(1).export(dir.path()).await.unwrap();
    let lanes: Vec<_> = files.iter().map(|file| file.lane).collect();
    assert_eq!(lanes, [None, Some(LaneId(1)), Some(LaneId(2)), Some(LaneId(3))]);
    assert_eq!(files[2].revision, revision);
    for file in &files {
        let bytes = std::fs::read(&file.path).unwrap();
        assert!(bytes.starts_with(b"WKRSNAP1"), "{file:?}");
    }
    let payload = [1_u8; 100];
    let bytes = std::fs::read(&files[2].path).unwrap();
    assert!(bytes.windows(payload.len()).any(|window| window == payload));
}
