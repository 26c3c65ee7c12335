//! Calls that only the Raft leader can answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use tonic::Status;
use whiskraft_proto::v1;
use whiskraft_proto::v1::propose_outcome::Outcome;
use whiskraft_types::SessionId;

use super::{PeerService, Running, invalid};
use crate::core::{Group, NotDone, Written};
use crate::membership::{self, ChangeRefusal};
use crate::sessions::KeeperRefusal;
use crate::types::Proposal;

fn not_leader(leader: Option<u64>) -> v1::PeerNotLeader {
    v1::PeerNotLeader {
        leader: leader.unwrap_or_default(),
    }
}

/// Writes forwarded proposals together; one outcome for each.
pub(super) async fn propose(group: &Group, commands: &[Bytes]) -> v1::ProposeResponse {
    let mut proposals = Vec::with_capacity(commands.len());
    let mut unread = BTreeMap::new();
    for (place, command) in commands.iter().enumerate() {
        match Proposal::decode(group.group, command) {
            Ok(proposal) => proposals.push(proposal),
            // The others of the call are of other callers, who have done nothing wrong.
            Err(error) => {
                unread.insert(place, error);
            }
        }
    }
    let written = group.write_many(proposals, group.settings.propose_timeout).await;
    let mut written = written.into_iter().map(outcome);
    let outcomes = (0..commands.len()).filter_map(|place| match unread.remove(&place) {
        Some(error) => Some(Outcome::Invalid(error.to_string())),
        None => written.next(),
    });
    v1::ProposeResponse {
        outcomes: outcomes
            .map(|outcome| v1::ProposeOutcome {
                outcome: Some(outcome),
            })
            .collect(),
    }
}

fn outcome(written: Written) -> Outcome {
    match written {
        Ok((revision, answer)) => match answer.encode() {
            Ok(response) => Outcome::Ok(v1::ProposeOk {
                revision: revision.0,
                response: response.into(),
            }),
            Err(error) => Outcome::Unknown(format!("applied, but its answer cannot be sent: {error}")),
        },
        Err(NotDone::NotLeader(leader)) => Outcome::NotLeader(not_leader(leader)),
        Err(NotDone::Busy(reason)) => Outcome::Refused(reason),
        Err(NotDone::Full(reason)) => Outcome::Full(reason),
        Err(NotDone::Unknown(reason)) => Outcome::Unknown(reason),
    }
}

/// Answers with a revision that covers everything acknowledged so far.
pub(super) async fn read_index(group: &Group) -> v1::ReadIndexResponse {
    use v1::read_index_response::Outcome;

    let outcome = match group.read_index(group.settings.election_max * 2).await {
        Ok(revision) => Outcome::Revision(revision.0),
        Err(NotDone::NotLeader(leader)) => Outcome::NotLeader(not_leader(leader)),
        Err(NotDone::Busy(reason) | NotDone::Full(reason) | NotDone::Unknown(reason)) => {
            Outcome::Unavailable(reason)
        }
    };
    v1::ReadIndexResponse {
        outcome: Some(outcome),
    }
}

/// Takes the keepalives of a node.
pub(super) async fn keepalives(
    running: &Running,
    sessions: &[v1::SessionKeepalive],
) -> v1::KeepalivesResponse {
    use v1::keepalives_response::Outcome;

    let sessions = sessions
        .iter()
        .map(|keepalive| (SessionId(keepalive.session), keepalive.seq))
        .collect();
    let outcome = match running.keeper.keepalives(sessions).await {
        Ok(expired) => Outcome::Ok(v1::KeepalivesOk {
            expired: expired.into_iter().map(|session| session.0).collect(),
        }),
        Err(KeeperRefusal::NotLeader(leader)) => Outcome::NotLeader(not_leader(leader)),
        Err(KeeperRefusal::Unavailable(reason)) => Outcome::Unavailable(reason),
    };
    v1::KeepalivesResponse {
        outcome: Some(outcome),
    }
}

impl PeerService {
    /// Adds or removes a member. One that joins is no member yet and names no target; its request may arrive
    /// anywhere and is passed on to the leader, once.
    pub(super) async fn on_change_membership(
        &self,
        request: v1::ChangeMembershipRequest,
    ) -> Result<v1::ChangeMembershipResponse, Status> {
        use v1::change_membership_response::Outcome;

        let from_member = request
            .envelope
            .as_ref()
            .is_some_and(|envelope| envelope.from != 0);
        let running = if from_member {
            self.admit(request.envelope.as_ref())?
        } else {
            self.admit_stranger(request.envelope.as_ref())?
        };
        let change = membership::parse(request.change).map_err(invalid)?;
        let changed = if from_member {
            membership::lead(&running.core, change).await
        } else {
            membership::change(&running.core, change)
                .await
                .map_err(ChangeRefusal::Failed)
        };
        let outcome = match changed {
            Ok(id) => Outcome::Scheduler(id),
            Err(ChangeRefusal::NotLeader(leader)) => Outcome::NotLeader(not_leader(leader)),
            Err(ChangeRefusal::Failed(error)) => Outcome::Refusal(error.into()),
        };
        Ok(v1::ChangeMembershipResponse {
            outcome: Some(outcome),
        })
    }

    fn admit_stranger(&self, envelope: Option<&v1::Envelope>) -> Result<&Running, Status> {
        let theirs = envelope
            .map(|envelope| envelope.cluster_id.as_str())
            .unwrap_or_default();
        let ours = self.inner.peers.cluster_id();
        if theirs == ours {
            self.running()
        } else {
            Err(Status::permission_denied(format!(
                "this is a scheduler of cluster {ours}, not of {theirs:?}"
            )))
        }
    }
}
