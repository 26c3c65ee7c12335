//! Orders about the membership, backups and restores as a user meets them: text, JSON, exit codes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;
mod support;

use fake::{Fake, Seen, cluster};
use serde_json::Value;
use support::{run, says};
use whiskraft_proto::v1;
use whiskraft_proto::v1::change_members_response::Outcome;
use whiskraft_proto::v1::member_order::Kind;
use whiskraft_raft::{Node, NodeConfig, Settings};
use whiskraft_state::journal::UnixMillis;
use whiskraft_types::{MembershipError, SchedulerId};

const ID: SchedulerId = SchedulerId(2);

fn refused(error: MembershipError) -> Outcome {
    Outcome::Refusal(error.into())
}

fn lags(entries: u64) -> Outcome {
    refused(MembershipError::Lags { id: ID, entries })
}

fn answers(fake: &Fake, outcomes: Vec<Outcome>) {
    fake.with(|state| state.operations.members = outcomes);
}

/// The orders that a scheduler was given: kind, scheduler, force.
fn orders(fake: &Fake) -> Vec<(Kind, u64, bool)> {
    let seen = fake.with(|state| state.seen.clone()).into_iter();
    let orders = seen.filter_map(|seen| match seen {
        Seen::Members(order) => Some((order.kind(), order.scheduler, order.force)),
        _ => None,
    });
    orders.collect()
}

#[tokio::test]
async fn a_promotion_waits_until_the_learner_has_caught_up() {
    let (_, fakes) = cluster(1).await;
    answers(&fakes[0], vec![lags(9000), lags(700), Outcome::Scheduler(2)]);
    let (text, _) = run(&fakes, &["cluster", "promote", "2"], 0).await;
    assert_eq!(text, "scheduler 2 votes");
    assert_eq!(orders(&fakes[0]), [(Kind::Promote, 2, false); 3]);
    answers(&fakes[0], vec![lags(9000)]);
    let (_, error) = run(&fakes, &["cluster", "promote", "2", "--wait", "300ms"], 1).await;
    says(&error, &["is 9000 log entries behind", "--wait"]);
}

#[tokio::test]
async fn a_refusal_says_why_and_what_to_do_in_text_and_json() {
    let (_, fakes) = cluster(1).await;
    let cases: [(MembershipError, &str, i32, &[&str]); 5] = [
        (
            MembershipError::NoQuorum {
                voters: 2,
                answering: 1,
            },
            "no-quorum",
            1,
            &["of the 2 voters that would be left only 1 answer", "--force"],
        ),
        (
            MembershipError::NotMember(ID),
            "not-member",
            1,
            &["scheduler 2 is not a member", "--join"],
        ),
        (
            MembershipError::LastVoter(ID),
            "last-voter",
            1,
            &["the last voter", "promote"],
        ),
        (
            MembershipError::InProgress("the one before".to_owned()),
            "in-progress",
            1,
            &["another change of the membership is under way", "run it again"],
        ),
        (
            MembershipError::Unavailable("no leader is known".to_owned()),
            "unavailable",
            4,
            &["no leader is known", "cluster status"],
        ),
    ];
    for (error, reason, code, parts) in cases {
        answers(&fakes[0], vec![refused(error)]);
        let (_, text) = run(&fakes, &["cluster", "remove", "2"], code).await;
        says(&text, parts);
        let (json, _) = run(&fakes, &["cluster", "remove", "2", "--json"], code).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["done"], &json["reason"]), (&false.into(), &reason.into()));
    }
}

#[tokio::test]
async fn a_replacement_lets_the_new_one_vote_before_the_dead_one_goes() {
    let (_, fakes) = cluster(1).await;
    answers(&fakes[0], vec![Outcome::Scheduler(5), Outcome::Scheduler(2)]);
    let args = ["cluster", "replace", "2", "--with", "5"];
    let (text, _) = run(&fakes, &args, 0).await;
    says(&text, &["scheduler 5 votes in place of scheduler 2"]);
    let given = [(Kind::Promote, 5, false), (Kind::Remove, 2, false)];
    assert_eq!(orders(&fakes[0]), given);
    // Repeated after it was done, it is done.
    let gone = refused(MembershipError::NotMember(ID));
    answers(&fakes[0], vec![Outcome::Scheduler(5), gone]);
    run(&fakes, &args, 0).await;
    // The dead one stays while the new one has no vote.
    let silent = refused(MembershipError::Silent(SchedulerId(5)));
    answers(&fakes[0], vec![silent]);
    let (_, error) = run(&fakes, &args, 1).await;
    says(&error, &["scheduler 5 does not answer"]);
    assert_eq!(orders(&fakes[0]).last(), Some(&(Kind::Promote, 5, false)));
    run(&fakes, &["cluster", "replace", "2", "--with", "2"], 2).await;
}

#[tokio::test]
async fn demotion_removal_and_transfer_are_passed_on_as_they_are_given() {
    let (_, fakes) = cluster(1).await;
    answers(&fakes[0], vec![Outcome::Scheduler(2)]);
    run(&fakes, &["cluster", "demote", "2"], 0).await;
    run(&fakes, &["cluster", "remove", "2", "--force"], 0).await;
    let (text, _) = run(&fakes, &["cluster", "transfer-leader"], 0).await;
    assert_eq!(text, "scheduler 2 leads the log");
    run(&fakes, &["cluster", "transfer-leader", "2"], 0).await;
    let given = [
        (Kind::Demote, 2, false),
        (Kind::Remove, 2, true),
        (Kind::TransferLeader, 0, false),
        (Kind::TransferLeader, 2, false),
    ];
    assert_eq!(orders(&fakes[0]), given);
    run(&fakes, &["cluster", "remove", "0"], 2).await;
}

#[tokio::test]
async fn the_membership_is_a_table_and_json() {
    let (_, fakes) = cluster(1).await;
    fakes[0].with(|state| {
        let node = |scheduler| v1::NodeStatus {
            member: Some(v1::MemberInfo {
                scheduler,
                ..Default::default()
            }),
            voter: scheduler == 1,
            ..Default::default()
        };
        state.operations.nodes = (1..=2).map(node).collect();
    });
    let (text, _) = run(&fakes, &["cluster", "status"], 0).await;
    says(
        &text,
        &["scheduler 1 leads", "1 voters, so that 0 may fail; 1 learners"],
    );
    let (json, _) = run(&fakes, &["cluster", "status", "--json"], 0).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["quorum"], &json["leader"]), (&true.into(), &1.into()));
    assert_eq!(json["members"][1]["voter"], false);
}

/// A cluster that runs in this process, and one piece after the other of a backup of it.
async fn backup_pieces() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let peer_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = peer_listener.local_addr().unwrap().to_string();
    let node = Node::start(NodeConfig {
        id: Some(SchedulerId(1)),
        initial_cluster: [(SchedulerId(1), address)].into(),
        join: None,
        learner: false,
        cluster_name: "old".to_owned(),
        data_dir: dir.path().to_owned(),
        peer_listener,
        advertise_peer: None,
        advertise_client: "client:7401".to_owned(),
        zone: String::new(),
        version: "test".to_owned(),
        settings: Settings::default(),
    });
    let node = node.await.unwrap();
    let mut stream = loop {
        // The lanes elect their leaders after the tables have theirs.
        match node.backup(UnixMillis(1_700_000_000_000)).await {
            Ok(stream) => break stream,
            Err(error) => eprintln!("not yet: {error}"),
        }
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend(piece.unwrap());
    }
    node.shutdown().await;
    bytes.chunks(100).map(<[u8]>::to_vec).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_received_checked_and_restored() {
    let (_, fakes) = cluster(1).await;
    let pieces = backup_pieces().await;
    fakes[0].with(|state| state.operations.backup = pieces.clone());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.backup");
    let path = file.to_str().unwrap();
    let (text, _) = run(&fakes, &["cluster", "backup", path], 0).await;
    let parts = [
        "whole",
        "(\"old\") at revision",
        "taken 2023-11-14T22:13:20Z",
        "0 actions",
        "0 activations not ended",
        "cluster verify",
    ];
    says(&text, &parts);
    assert_eq!(std::fs::read(&file).unwrap(), pieces.concat());
    // It never replaces a file.
    let (_, error) = run(&fakes, &["cluster", "backup", path], 2).await;
    says(&error, &["is there already"]);
    let (json, _) = run(&[], &["cluster", "verify", path, "--json"], 0).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["cluster_name"], &json["actions"]),
        (&"old".into(), &0.into())
    );

    let data_dir = dir.path().join("new");
    let restore = [
        "cluster",
        "restore",
        path,
        "--id",
        "1",
        "--initial-cluster",
        "1=127.0.0.1:7400",
        "--cluster-name",
        "new",
        "--data-dir",
        data_dir.to_str().unwrap(),
    ];
    let (text, _) = run(&[], &restore, 0).await;
    let parts = [
        "for scheduler 1 of cluster",
        "whiskraft scheduler --id 1 --initial-cluster 1=127.0.0.1:7400 --cluster-name new",
    ];
    says(&text, &parts);
    let (_, error) = run(&[], &restore, 3).await;
    says(&error, &["nothing restored", "is in use by a scheduler already"]);
    let (_, error) = run(&[], &restore[..3], 2).await;
    says(&error, &["--id and --initial-cluster"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_or_is_altered_leaves_no_file() {
    let (_, fakes) = cluster(1).await;
    let mut pieces = backup_pieces().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.backup");
    let path = file.to_str().unwrap();
    let is_empty = || std::fs::read_dir(dir.path()).unwrap().next().is_none();

    fakes[0].with(|state| state.operations.backup = pieces[..pieces.len() - 1].to_vec());
    let (_, error) = run(&fakes, &["cluster", "backup", path], 1).await;
    says(&error, &["no usable backup", "damaged at byte", "cut off"]);
    assert!(is_empty());
    pieces[3][7] ^= 1;
    fakes[0].with(|state| state.operations.backup = pieces.clone());
    let (_, error) = run(&fakes, &["cluster", "backup", path], 1).await;
    says(&error, &["damaged at byte"]);
    assert!(is_empty());

    std::fs::write(&file, pieces.concat()).unwrap();
    let (_, error) = run(&[], &["cluster", "verify", path], 1).await;
    says(
        &error,
        &["damaged at byte", "the checksum of a chunk does not match"],
    );
    let (_, error) = run(&[], &["cluster", "verify", "/does/not/exist"], 2).await;
    says(&error, &["/does/not/exist"]);
}
