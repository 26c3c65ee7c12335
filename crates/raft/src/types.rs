//! The types that openraft is instantiated with, and our own records for those that reach disk or wire.
//!
//! openraft's layout changes with its releases; ours does not. Everything stored goes through the records here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use openraft::entry::RaftEntry;
use openraft::{BasicNode, EntryPayload, StoredMembership};
use serde::{Deserialize, Serialize};
use whiskraft_state::{Command, Response};

use crate::codec;

/// Raft group 0: the replicated tables. Journal groups get the numbers above.
pub(crate) const META_GROUP: u32 = 0;

/// A command on its way through the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // openraft puts this into its messages; commands may carry bodies, which are never logged.
        f.write_str("command")
    }
}

openraft::declare_raft_types!(
    /// openraft's parameters.
    pub(crate) Types:
        D = Proposal,
        R = Response,
        NodeId = u64,
        Node = BasicNode,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type Stored = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;

/// Where an entry is: the term and node that proposed it, and its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdRecord {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) index: u64,
}

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        Self {
            leader_id: LeaderId {
                term: record.term,
                node_id: record.node,
            },
            index: record.index,
        }
    }
}

/// A vote as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) committed: bool,
}

impl From<Vote> for VoteRecord {
    fn from(vote: Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        Self {
            leader_id: LeaderId {
                term: record.term,
                node_id: record.node,
            },
            committed: record.committed,
        }
    }
}

/// Voters (two sets while a change is under way) and the addresses of all members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    pub(crate) log: Option<LogIdRecord>,
    pub(crate) voters: Vec<BTreeSet<u64>>,
    pub(crate) addresses: BTreeMap<u64, String>,
}

impl MembershipRecord {
    fn new(log: Option<LogId>, membership: &Membership) -> Self {
        Self {
            log: log.map(LogIdRecord::from),
            voters: membership.get_joint_config().clone(),
            addresses: membership
                .nodes()
                .map(|(id, node)| (*id, node.addr.clone()))
                .collect(),
        }
    }

    fn membership(self) -> io::Result<Membership> {
        let nodes: BTreeMap<u64, BasicNode> = self
            .addresses
            .into_iter()
            .map(|(id, addr)| (id, BasicNode { addr }))
            .collect();
        Membership::new(self.voters, nodes).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("stored membership contradicts itself: {error}"),
            )
        })
    }
}

impl From<&Stored> for MembershipRecord {
    fn from(stored: &Stored) -> Self {
        Self::new(*stored.log_id(), stored.membership())
    }
}

impl TryFrom<MembershipRecord> for Stored {
    type Error = io::Error;

    fn try_from(record: MembershipRecord) -> io::Result<Self> {
        let log = record.log.map(LogId::from);
        // A node that has applied nothing yet has no voters, which is not a membership that could be in the log.
        if log.is_none() && record.voters.iter().all(BTreeSet::is_empty) {
            return Ok(StoredMembership::default());
        }
        Ok(StoredMembership::new(log, record.membership()?))
    }
}

/// What an entry carries, as it is stored and sent.
#[derive(Deserialize)]
enum Payload {
    Blank,
    Command(Command),
    Membership(MembershipRecord),
}

/// [`Payload`] without a copy of the command; the same bytes.
#[derive(Serialize)]
enum PayloadRef<'a> {
    Blank,
    Command(&'a Command),
    Membership(MembershipRecord),
}

/// The record of an entry's payload.
pub(crate) fn encode_payload(entry: &Entry) -> io::Result<Vec<u8>> {
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadRef::Blank,
        EntryPayload::Normal(proposal) => PayloadRef::Command(&proposal.0),
        EntryPayload::Membership(membership) => {
            PayloadRef::Membership(MembershipRecord::new(None, membership))
        }
    };
    Ok(codec::encode(&payload)?)
}

/// An entry from its place and the record of its payload.
pub(crate) fn decode_entry(id: LogId, payload: &[u8]) -> io::Result<Entry> {
    let payload = match codec::decode(payload)? {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(command) => EntryPayload::Normal(Proposal(command)),
        Payload::Membership(record) => EntryPayload::Membership(record.membership()?),
    };
    Ok(Entry::new(id, payload))
}
