//! `whiskraft cluster status`: who votes, who leads, who answers, and how far each is behind.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;
use whiskraft_client::Status;
use whiskraft_types::SchedulerId;

use super::super::{call_failure, connect};
use crate::config::Config;
use crate::exit::Failure;
use crate::output;

/// The membership as its members describe it; what `--json` prints.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Membership {
    cluster: String,
    /// Raft leader by the newest term anybody reported.
    leader: Option<u64>,
    term: u64,
    voters: usize,
    /// Voters that answered this command.
    voters_answered: usize,
    /// Whether those are a majority.
    quorum: bool,
    members: Vec<Member>,
}

/// A scheduler.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Member {
    id: u64,
    voter: bool,
    answered: bool,
    /// As it says itself; `null` if it did not answer.
    role: Option<String>,
    /// Log entries that it lacks, as the leader knows.
    lag: Option<u64>,
    applied: Option<u64>,
    draining: bool,
    queues: u64,
    peer_address: String,
    version: String,
}

/// Asks every scheduler; one answer is enough for a view of the membership.
pub(super) async fn run(config: &Config, json: bool) -> Result<(), Failure> {
    let client = connect(config).await?;
    let first = client.status().await.map_err(call_failure)?;
    let others = client.status_all().await.into_iter();
    let answers = others.filter_map(|(_, answer)| answer.ok()).chain([first]);
    let membership = Membership::new(answers.map(|status| (status.scheduler, status)).collect());
    if json {
        output::json(&serde_json::to_value(&membership).expect("the membership is plain data"));
    } else {
        output::line(render(&membership));
    }
    Ok(())
}

impl Membership {
    /// Puts the answers, of which there is one at least, together; the membership is as the leader knows it, else as
    /// whoever has applied most.
    fn new(answers: BTreeMap<SchedulerId, Status>) -> Self {
        let newest = answers
            .values()
            .max_by_key(|status| {
                (
                    status.raft.term,
                    status.raft.role == "leader",
                    status.raft.applied,
                )
            })
            .expect("somebody answered");
        let (term, leader) = (newest.raft.term, newest.raft.leader);
        let log = leader.and_then(|leader| answers.get(&leader));
        let members: Vec<Member> = newest
            .nodes
            .iter()
            .map(|node| {
                let own = answers.get(&node.member.scheduler);
                let matched = match node.matched {
                    None if leader == Some(node.member.scheduler) => log.map(|log| log.raft.last_log),
                    matched => matched,
                };
                Member {
                    id: node.member.scheduler.0,
                    voter: node.voter,
                    answered: own.is_some(),
                    role: own.map(|status| status.raft.role.clone()),
                    lag: log.and_then(|log| Some(log.raft.last_log.saturating_sub(matched?))),
                    applied: own.map(|status| status.raft.applied),
                    draining: node.member.draining,
                    queues: node.queues,
                    peer_address: node.member.peer_address.clone(),
                    version: node.member.version.clone(),
                }
            })
            .collect();
        let voters = members.iter().filter(|member| member.voter);
        let voters_answered = voters.clone().filter(|member| member.answered).count();
        let voters = voters.count();
        Self {
            cluster: newest.cluster_id.clone(),
            leader: leader.map(|id| id.0),
            term,
            voters,
            voters_answered,
            quorum: voters_answered * 2 > voters,
            members,
        }
    }
}

fn render(membership: &Membership) -> String {
    let mut parts = vec![header(membership)];
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header("SCHEDULER, VOTES, ROLE, LAG, APPLIED, QUEUES, PEER, VERSION".split(", "));
    table.add_rows(membership.members.iter().map(row));
    parts.push(table.trim_fmt());
    parts.extend(
        membership
            .members
            .iter()
            .filter_map(|member| hint(membership, member)),
    );
    parts.join("\n")
}

fn header(membership: &Membership) -> String {
    let Membership {
        cluster,
        voters,
        voters_answered,
        term,
        ..
    } = membership;
    if !membership.quorum {
        return format!(
            "cluster {cluster}   NO QUORUM: {voters_answered} of {voters} voters answered; nothing changes without a majority"
        );
    }
    let leader = match membership.leader {
        Some(leader) => format!("scheduler {leader} leads"),
        None => "a leader is being elected".to_owned(),
    };
    let failures = (voters - 1) / 2;
    let learners = membership.members.len() - voters;
    format!(
        "cluster {cluster}   {leader}, term {term}; {voters} voters, so that {failures} may fail; {learners} learners"
    )
}

fn row(member: &Member) -> Vec<Cell> {
    let number = |value: Option<u64>| {
        let text = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        Cell::new(text).set_alignment(CellAlignment::Right)
    };
    let role = match &member.role {
        Some(role) if member.draining => Cell::new(format!("{role}, draining")).fg(Color::Yellow),
        Some(role) => Cell::new(role).fg(Color::Green),
        None => Cell::new("no answer").fg(Color::Red),
    };
    vec![
        Cell::new(member.id),
        Cell::new(if member.voter { "yes" } else { "no" }),
        role,
        number(member.lag),
        number(member.applied),
        number(Some(member.queues)),
        Cell::new(&member.peer_address),
        Cell::new(&member.version),
    ]
}

/// What can be done about a member that is not as it should be.
fn hint(membership: &Membership, member: &Member) -> Option<String> {
    let id = member.id;
    match (member.voter, member.answered) {
        (true, false) if membership.quorum => Some(format!(
            "scheduler {id} does not answer: start it again, or, if it is gone for good, join another and run `whiskraft cluster replace {id} --with NEW`"
        )),
        (false, true) => Some(format!(
            "scheduler {id} has no vote: `whiskraft cluster promote {id}` gives it one"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::status::tests::status;
    use super::*;

    fn answers(statuses: Vec<Status>) -> BTreeMap<SchedulerId, Status> {
        let by_id = |status: Status| (status.scheduler, status);
        statuses.into_iter().map(by_id).collect()
    }

    /// Scheduler 2 leads in term 5, 1 follows two entries behind, 3 does not answer, 4 is a learner.
    fn membership() -> Membership {
        let mut leader = status(2, 5, 2, vec![]);
        leader.nodes[0].matched = Some(48);
        leader.nodes[2].matched = Some(10);
        let mut learner = leader.nodes[0].clone();
        learner.member.scheduler = SchedulerId(4);
        learner.voter = false;
        leader.nodes.push(learner);
        let mut own = status(4, 5, 2, vec![]);
        own.raft.role = "learner".to_owned();
        Membership::new(answers(vec![status(1, 5, 2, vec![]), leader, own]))
    }

    #[test]
    fn lag_is_what_the_leader_says() {
        let lags: Vec<_> = membership().members.iter().map(|member| member.lag).collect();
        assert_eq!(lags, [Some(2), Some(0), Some(40), Some(2)]);
        // Nobody knows it without the leader's answer.
        let without = Membership::new(answers(vec![status(1, 5, 2, vec![])]));
        assert!(without.members.iter().all(|member| member.lag.is_none()));
    }

    #[test]
    fn who_votes_and_what_to_do_is_seen_at_a_glance() {
        let text = render(&membership());
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows: Vec<_> = text.lines().map(line).collect();
        assert_eq!(
            rows[0],
            "cluster c1 scheduler 2 leads, term 5; 3 voters, so that 1 may fail; 1 learners"
        );
        assert!(
            rows.iter().any(|row| row.starts_with("1 yes follower 2 50 1")),
            "{text}"
        );
        assert!(
            rows.iter().any(|row| row.starts_with("3 yes no answer 40 -")),
            "{text}"
        );
        assert!(
            text.contains("replace 3 --with NEW") && text.contains("promote 4"),
            "{text}"
        );
    }

    #[test]
    fn without_a_quorum_nothing_is_advised_that_needs_one() {
        let text = render(&Membership::new(answers(vec![status(1, 5, 2, vec![])])));
        assert!(text.contains("NO QUORUM: 1 of 3 voters answered"), "{text}");
        assert!(!text.contains("replace"), "{text}");
    }
}
