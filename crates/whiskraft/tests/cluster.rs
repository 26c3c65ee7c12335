//! Orders about the membership as a user gives them, against scripted schedulers: text, JSON, exit codes.

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
