//! From a directory to a member: forms the cluster with the other initial members, or joins one.
//!
//! A fresh directory has no part in any vote. It becomes a member when every initial member has answered and none of
//! them has known this scheduler with another directory; so a wiped disk never comes back under its old id.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use whiskraft_proto::v1;
use whiskraft_types::MembershipError;

use crate::clock;
use crate::error::StartError;
use crate::identity::{Identity, Incarnation};
use crate::membership::{self, Change};
use crate::peers::{Class, Peers};
use crate::wire;

/// Pause between rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Pause between two lines that say what a start waits for.
pub(crate) const REPORT_PAUSE: Duration = Duration::from_secs(5);
/// How long a restart waits for members to contradict it before it goes on; it asks them again later.
const VERIFY_MAX: Duration = Duration::from_millis(1500);

/// What another scheduler says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) cluster_id: String,
    pub(crate) id: u64,
    pub(crate) incarnation: Incarnation,
    /// Whether its directory is a member's.
    pub(crate) formed: bool,
    /// Whether it leads with a lease.
    pub(crate) leads: bool,
    /// Lanes of its cluster, or of the one it wants to form.
    pub(crate) lanes: u32,
    /// Incarnation it knows for the asker.
    pub(crate) ours: Option<Incarnation>,
}

/// Asks the scheduler at an address who it is; `id` is who it should be.
pub(crate) async fn identify(peers: &Peers, address: &str, id: u64) -> Result<Answer, String> {
    let mut client = peers.client(address, Class::Forward)?;
    let request = v1::IdentifyRequest {
        cluster_id: peers.cluster_id(),
        from: peers.id(),
        to: id,
    };
    let reply = tokio::time::timeout(ANSWER_MAX, client.identify(request)).await;
    let reply = reply.map_err(|_| format!("no answer in {ANSWER_MAX:?}"))?;
    let reply = reply.map_err(|status| status.message().to_owned())?.into_inner();
    let incarnation = wire::parse_incarnation(&reply.incarnation).map_err(|error| error.to_string())?;
    Ok(Answer {
        cluster_id: reply.cluster_id,
        id: reply.scheduler,
        incarnation: incarnation.ok_or("it has no incarnation")?,
        formed: reply.initialized,
        leads: reply.leads,
        lanes: reply.lanes,
        ours: wire::parse_incarnation(&reply.incarnation_of_asker).map_err(|error| error.to_string())?,
    })
}

/// Text of the refusal of a directory that is not the one a member knows.
pub(crate) fn other_directory(id: u64, by: u64, address: &str) -> String {
    format!(
        "scheduler {id} was known to scheduler {by} ({address}) with another data directory; a wiped or swapped directory \
         cannot take part under its old number: remove scheduler {id} from the cluster and join as a new member"
    )
}

fn check(identity: &Identity, address: &str, wanted: u64, answer: &Answer) -> Result<(), StartError> {
    if answer.cluster_id != identity.cluster_id {
        return Err(StartError::Config(format!(
            "the scheduler at {address} belongs to cluster {}, this one to cluster {} ({:?}); cluster name and initial \
             cluster must be the same on all schedulers",
            answer.cluster_id, identity.cluster_id, identity.cluster_name
        )));
    }
    if answer.id != wanted {
        return Err(StartError::Config(format!(
            "the scheduler at {address} is number {}, not {wanted}; correct the initial cluster",
            answer.id
        )));
    }
    if answer.formed && answer.ours.is_some_and(|ours| ours != identity.incarnation) {
        return Err(StartError::Unknown(other_directory(identity.id, wanted, address)));
    }
    Ok(())
}

/// Says what a start waits for, once in a while.
#[derive(Debug)]
pub(crate) struct Reporter {
    next: Instant,
}

impl Reporter {
    /// Speaks first after one pause.
    pub(crate) fn new() -> Self {
        Self {
            next: clock::now() + REPORT_PAUSE,
        }
    }

    /// Whether it is time to say something.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = clock::now();
        let due = now >= self.next;
        if due {
            self.next = now + REPORT_PAUSE;
        }
        due
    }
}

/// Waits until every initial member is known and none contradicts; returns their incarnations and the number of lanes.
pub(crate) async fn form(
    peers: &Peers,
    identity: &Identity,
    cluster: &BTreeMap<u64, String>,
) -> Result<(BTreeMap<u64, Incarnation>, u32), StartError> {
    let mut known = BTreeMap::from([(identity.id, identity.incarnation)]);
    let mut reporter = Reporter::new();
    loop {
        let mut missing = Vec::new();
        for (id, address) in cluster.iter().filter(|(id, _)| **id != identity.id) {
            match identify(peers, address, *id).await {
                Ok(answer) => {
                    check(identity, address, *id, &answer)?;
                    if answer.formed && answer.ours.is_none() {
                        // It has formed with a directory that is not ours.
                        return Err(StartError::Unknown(other_directory(identity.id, *id, address)));
                    }
                    known.insert(*id, answer.incarnation);
                    if answer.formed {
                        // The others knew this very directory when they formed.
                        return Ok((known, answer.lanes));
                    }
                    if answer.lanes != identity.lanes {
                        return Err(StartError::Config(format!(
                            "scheduler {id} at {address} wants a cluster of {} lanes, this one of {}; the setting lanes \
                             must be the same on all schedulers when the cluster forms",
                            answer.lanes, identity.lanes
                        )));
                    }
                }
                Err(error) => {
                    known.remove(id);
                    missing.push(format!("scheduler {id} at {address}: {error}"));
                }
            }
        }
        if missing.is_empty() {
            return Ok((known, identity.lanes));
        }
        if reporter.is_due() {
            tracing::info!(?missing, "waiting for the other initial members");
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// Asks members, as far as they answer soon, whether this directory is the one they know.
pub(crate) async fn verify(
    peers: &Peers,
    identity: &Identity,
    cluster: &BTreeMap<u64, String>,
) -> Result<(), StartError> {
    let others = cluster.iter().filter(|(id, _)| **id != identity.id);
    let questions =
        others.map(|(id, address)| async move { (id, address, identify(peers, address, *id).await) });
    let answers = tokio::time::timeout(VERIFY_MAX, futures::future::join_all(questions)).await;
    for (id, address, answer) in answers.unwrap_or_default() {
        match answer {
            Ok(answer) => check(identity, address, *id, &answer)?,
            Err(error) => tracing::debug!(scheduler = id, %error, "member not asked"),
        }
    }
    Ok(())
}

/// What a scheduler that joins says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Newcomer {
    /// Its number, once it was given one; else 0.
    pub(crate) id: u64,
    /// Name of the cluster that it is configured for.
    pub(crate) cluster_name: String,
    /// `host:port` of its peer listener.
    pub(crate) peer_address: String,
    /// `host:port` of its client listener.
    pub(crate) client_address: String,
    /// Identity of its data directory.
    pub(crate) incarnation: Incarnation,
    /// Whether it shall not vote until an operator says so.
    pub(crate) learner: bool,
}

impl Newcomer {
    /// Asks the member at an address to take a joining scheduler a step further; returns its id.
    ///
    /// # Errors
    /// `Ok(Err(reason))` is worth trying again, `Err` is final.
    pub(crate) async fn ask(&self, peers: &Peers, address: &str) -> Result<Result<u64, String>, StartError> {
        use v1::change_membership_response::Outcome;

        let cluster_id = peers.cluster_id();
        let envelope = Some(v1::Envelope {
            cluster_id,
            ..v1::Envelope::default()
        });
        let change = Some(membership::to_wire(&Change::Add(self.clone())));
        let request = v1::ChangeMembershipRequest { envelope, change };
        let mut client = match peers.client(address, Class::Forward) {
            Ok(client) => client,
            Err(error) => return Err(StartError::Config(error)),
        };
        let reply = match tokio::time::timeout(ANSWER_MAX * 10, client.change_membership(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return Ok(Err(status.message().to_owned())),
            Err(_) => return Ok(Err("no answer".to_owned())),
        };
        match reply.outcome {
            Some(Outcome::Scheduler(id)) => Ok(Ok(id)),
            Some(Outcome::Refusal(refusal)) => match MembershipError::from(refusal) {
                error if error.is_passing() => Ok(Err(error.to_string())),
                error => Err(StartError::Config(format!(
                    "the cluster does not let this scheduler join: {error}"
                ))),
            },
            Some(Outcome::NotLeader(_)) | None => Ok(Err("it knows no leader".to_owned())),
        }
    }
}

/// Joins through any of the given members; returns cluster id, own id and the number of lanes.
pub(crate) async fn join(
    peers: &Peers,
    newcomer: &Newcomer,
    members: &[String],
) -> Result<(String, u64, u32), StartError> {
    let mut reporter = Reporter::new();
    loop {
        let mut failures = Vec::new();
        for address in members {
            match identify(peers, address, 0).await {
                Ok(answer) if answer.formed => {
                    peers.set_identity(answer.cluster_id.clone(), 0);
                    match newcomer.ask(peers, address).await? {
                        Ok(id) => return Ok((answer.cluster_id, id, answer.lanes)),
                        Err(error) => failures.push(format!("{address}: {error}")),
                    }
                }
                Ok(_) => failures.push(format!("{address}: its cluster has not formed yet")),
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
        if reporter.is_due() {
            tracing::info!(?failures, "waiting for a member that lets this scheduler join");
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}
