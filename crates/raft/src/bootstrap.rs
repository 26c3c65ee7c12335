//! From a directory to a member: forms the cluster with the other initial members, or joins one.
//!
//! A fresh directory has no part in any vote. It becomes a member when every initial member has answered and none of
//! them has known this scheduler with another directory; so a wiped disk never comes back under its old id.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use whiskraft_proto::v1;
use whiskraft_types::MembershipError;

use crate::clock;
use crate::error::StartError;
use crate::identity::{Identity, Incarnation};
use crate::membership::{self, Change};
use crate::peers::{Class, Peers};
use crate::wire::{self, WireError};
use crate::witness::Shown;

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
    /// Incarnations of the initial members, if it has formed.
    pub(crate) members: BTreeMap<u64, Incarnation>,
    /// What it knows that the asker's disk had, by group.
    pub(crate) shown: Vec<(u32, Shown)>,
}

impl Answer {
    /// The refusal of the asker, if its disk lacks what it has shown.
    pub(crate) fn loss(&self, peers: &Peers, address: &str) -> Option<String> {
        let mut losses = self
            .shown
            .iter()
            .filter_map(|(group, shown)| peers.witness().lost(*group, shown));
        losses
            .next()
            .map(|loss| loss.refusal(peers.id(), self.id, address))
    }
}

/// Asks the scheduler at an address who it is; `id` is who it should be.
pub(crate) async fn identify(peers: &Peers, address: &str, id: u64) -> Result<Answer, String> {
    let mut client = peers.client(address, Class::Forward)?;
    let request = v1::IdentifyRequest {
        cluster_id: peers.cluster_id(),
        from: peers.id(),
        to: id,
        incarnation: peers.incarnation().to_vec().into(),
        shown: wire::shown_in_groups(peers.witness().claims()),
    };
    let reply = tokio::time::timeout(ANSWER_MAX, client.identify(request)).await;
    let reply = reply.map_err(|_| format!("no answer in {ANSWER_MAX:?}"))?;
    let reply = reply.map_err(|status| status.message().to_owned())?.into_inner();
    parse(reply).map_err(|error| error.to_string())
}

fn parse(reply: v1::IdentifyResponse) -> Result<Answer, WireError> {
    let incarnation = |bytes| {
        let incarnation = wire::parse_incarnation(bytes)?;
        incarnation.ok_or_else(|| WireError("it has no incarnation".to_owned()))
    };
    let members = reply.members.iter();
    let members = members.map(|member| Ok((member.scheduler, incarnation(&member.incarnation)?)));
    Ok(Answer {
        id: reply.scheduler,
        incarnation: incarnation(&reply.incarnation)?,
        formed: reply.initialized,
        leads: reply.leads,
        lanes: reply.lanes,
        ours: wire::parse_incarnation(&reply.incarnation_of_asker)?,
        members: members.collect::<Result<_, WireError>>()?,
        shown: wire::parse_shown_in_groups(&reply.shown_by_asker),
        cluster_id: reply.cluster_id,
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

/// What a directory knows when its cluster has formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Formed {
    /// Incarnations of all initial members.
    pub(crate) members: BTreeMap<u64, Incarnation>,
    /// Lanes of the journal.
    pub(crate) lanes: u32,
}

/// What an initial member has heard of the others so far.
struct Forming<'a> {
    identity: &'a Identity,
    cluster: &'a BTreeMap<u64, String>,
    known: BTreeMap<u64, Incarnation>,
    /// Who is waited for in this round, and why.
    missing: Vec<String>,
}

impl<'a> Forming<'a> {
    fn new(identity: &'a Identity, cluster: &'a BTreeMap<u64, String>) -> Self {
        Self {
            identity,
            cluster,
            known: BTreeMap::from([(identity.id, identity.incarnation)]),
            missing: Vec::new(),
        }
    }

    /// Begins to ask all of them once more.
    fn begin_round(&mut self) {
        self.missing.clear();
    }

    /// Ends a round: complete if all have answered in it.
    fn end_round(&self) -> Option<Formed> {
        self.missing.is_empty().then(|| Formed {
            members: self.known.clone(),
            lanes: self.identity.lanes,
        })
    }

    /// Takes what one of them said. One that has formed knows all; it formed with this very directory, or refuses it.
    fn on_answer(
        &mut self,
        id: u64,
        address: &str,
        answer: Result<Answer, String>,
    ) -> Result<Option<Formed>, StartError> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.known.remove(&id);
                self.wait_for(id, address, &error);
                return Ok(None);
            }
        };
        check(self.identity, address, id, &answer)?;
        if answer.formed {
            return self.on_formed(id, address, answer);
        }
        if answer.lanes != self.identity.lanes {
            return Err(StartError::Config(format!(
                "scheduler {id} at {address} wants a cluster of {} lanes, this one of {}; the setting lanes must be the same \
                 on all schedulers when the cluster forms",
                answer.lanes, self.identity.lanes
            )));
        }
        self.known.insert(id, answer.incarnation);
        Ok(None)
    }

    fn on_formed(&mut self, id: u64, address: &str, answer: Answer) -> Result<Option<Formed>, StartError> {
        // Only of the whole list an absence says something: a release before this one could form with a part of it.
        let is_whole = self.cluster.keys().all(|id| answer.members.contains_key(id));
        match answer.ours {
            Some(_) if is_whole => Ok(Some(Formed {
                members: answer.members,
                lanes: answer.lanes,
            })),
            Some(_) => {
                self.known.insert(id, answer.incarnation);
                Ok(None)
            }
            None if is_whole => Err(StartError::Unknown(other_directory(
                self.identity.id,
                id,
                address,
            ))),
            None => {
                self.wait_for(id, address, "it has formed, and has not heard of this one");
                Ok(None)
            }
        }
    }

    fn wait_for(&mut self, id: u64, address: &str, why: &str) {
        self.missing.push(format!("scheduler {id} at {address}: {why}"));
    }
}

/// Waits until every initial member is known and none contradicts.
pub(crate) async fn form(
    peers: &Peers,
    identity: &Identity,
    cluster: &BTreeMap<u64, String>,
) -> Result<Formed, StartError> {
    let mut forming = Forming::new(identity, cluster);
    let mut reporter = Reporter::new();
    loop {
        forming.begin_round();
        for (id, address) in cluster.iter().filter(|(id, _)| **id != identity.id) {
            let answer = identify(peers, address, *id).await;
            if let Some(formed) = forming.on_answer(*id, address, answer)? {
                return Ok(formed);
            }
        }
        if let Some(formed) = forming.end_round() {
            return Ok(formed);
        }
        if reporter.is_due() {
            tracing::info!(missing = ?forming.missing, "waiting for the other initial members");
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// Asks members, as far as they answer soon, whether this directory is the one they know and has all that it has shown them.
/// `members` may name some whose number is not known (0).
pub(crate) async fn verify(
    peers: &Peers,
    identity: &Identity,
    members: &[(u64, String)],
) -> Result<(), StartError> {
    let others = members.iter().filter(|(id, _)| *id != identity.id);
    let questions =
        others.map(|(id, address)| async move { (*id, address, identify(peers, address, *id).await) });
    let mut questions: FuturesUnordered<_> = questions.collect();
    let deadline = clock::now() + VERIFY_MAX;
    while let Ok(Some((id, address, answer))) = tokio::time::timeout_at(deadline, questions.next()).await {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(scheduler = id, %error, "member not asked");
                continue;
            }
        };
        if id == 0 && answer.cluster_id != identity.cluster_id {
            continue; // Somebody else lives there now.
        }
        check(identity, address, if id == 0 { answer.id } else { id }, &answer)?;
        if let Some(refusal) = answer.loss(peers, address) {
            return Err(StartError::Unknown(refusal));
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

#[cfg(test)]
mod bootstrap_test;
