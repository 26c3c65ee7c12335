//! The types that openraft is instantiated with, and our own records for those that reach disk or wire.
//!
//! openraft's layout changes with its releases; ours does not. Everything stored goes through the records here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::{BasicNode, EntryPayload, StoredMembership};
use serde::{Deserialize, Serialize};
use whiskraft_state::journal::{JournalBatch, JournalOutcome};
use whiskraft_state::{Command, Response};

use crate::codec::{self, CodecError};

/// Raft group 0: the replicated tables. Journal lanes get the numbers above.
pub(crate) const META_GROUP: u32 = 0;
/// Lanes of a cluster at most.
pub(crate) const LANES_MAX: u32 = 16;

/// What is on its way through a log: a command through that of group 0, a batch through that of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Proposal {
    /// Of group 0.
    Command(Command),
    /// Of a lane.
    Journal(JournalBatch),
}

impl Proposal {
    /// How many commands of the journal and queues in them it has. Those of group 0 name few: of moves and of places at most
    /// some hundred.
    pub(crate) fn names(&self) -> usize {
        match self {
            Self::Command(_) => 0,
            Self::Journal(batch) => batch.names(),
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // openraft puts this into its messages; commands may carry bodies, which are never logged.
        f.write_str(match self {
            Self::Command(_) => "command",
            Self::Journal(_) => "journal batch",
        })
    }
}

impl Proposal {
    /// The record that goes to the leader of a group.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Command(command) => codec::encode(command),
            Self::Journal(batch) => codec::encode(batch),
        }
    }

    /// What a record asks of a group.
    pub(crate) fn decode(group: u32, record: &[u8]) -> Result<Self, CodecError> {
        if group == META_GROUP {
            codec::decode(record).map(Self::Command)
        } else {
            codec::decode(record).map(Self::Journal)
        }
    }
}

/// A proposal in the log. Its record is made once and shared by the disk, every follower and every reader of the log, and so
/// is what it says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Packed(Arc<Parts>);

#[derive(Debug, Serialize, Deserialize)]
struct Parts {
    proposal: Proposal,
    /// As an entry's payload.
    #[serde(skip)]
    record: OnceLock<Bytes>,
}

impl Packed {
    fn with_record(proposal: Proposal, record: Bytes) -> Self {
        let record = OnceLock::from(record);
        Self(Arc::new(Parts { proposal, record }))
    }

    /// What it says.
    pub(crate) fn get(&self) -> &Proposal {
        &self.0.proposal
    }

    fn record(&self) -> Result<Bytes, CodecError> {
        if let Some(record) = self.0.record.get() {
            return Ok(record.clone());
        }
        let record: Bytes = match &self.0.proposal {
            Proposal::Command(command) => codec::encode(&PayloadRef::Command(command))?.into(),
            Proposal::Journal(batch) => codec::encode(&PayloadRef::Journal(batch))?.into(),
        };
        Ok(self.0.record.get_or_init(|| record).clone())
    }
}

impl From<Proposal> for Packed {
    fn from(proposal: Proposal) -> Self {
        let record = OnceLock::new();
        Self(Arc::new(Parts { proposal, record }))
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Packed {}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// What applying an entry has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To a command, or to an entry that is none.
    Response(Response),
    /// To a batch, one for each of its commands.
    Outcomes(Vec<JournalOutcome>),
}

impl Answer {
    /// The record that goes back to a proposer.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Response(response) => codec::encode(response),
            Self::Outcomes(outcomes) => codec::encode(outcomes),
        }
    }

    /// What a record of a group's leader says.
    pub(crate) fn decode(group: u32, record: &[u8]) -> Result<Self, CodecError> {
        if group == META_GROUP {
            codec::decode(record).map(Self::Response)
        } else {
            codec::decode(record).map(Self::Outcomes)
        }
    }

    /// Of group 0.
    pub(crate) fn response(self) -> Response {
        match self {
            Self::Response(response) => response,
            Self::Outcomes(_) => Response::Done,
        }
    }

    /// Of a lane.
    pub(crate) fn outcomes(self) -> Vec<JournalOutcome> {
        match self {
            Self::Response(_) => Vec::new(),
            Self::Outcomes(outcomes) => outcomes,
        }
    }
}

openraft::declare_raft_types!(
    /// openraft's parameters.
    pub(crate) Types:
        D = Packed,
        R = Answer,
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

/// Where an entry is: the term and node that proposed it, and its index. The order is that of openraft's log ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogIdRecord {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) index: u64,
}

impl LogIdRecord {
    /// Who proposed it.
    pub(crate) fn ballot(self) -> Ballot {
        Ballot {
            term: self.term,
            node: self.node,
        }
    }
}

/// Whom a vote is for, in which term; a later one counts. openraft lets several candidates of one term win one after the
/// other, so the node is part of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Ballot {
    pub(crate) term: u64,
    pub(crate) node: u64,
}

impl From<Vote> for Ballot {
    fn from(vote: Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    pub(crate) log: Option<LogIdRecord>,
    pub(crate) voters: Vec<BTreeSet<u64>>,
    pub(crate) addresses: BTreeMap<u64, String>,
}

impl MembershipRecord {
    pub(crate) fn new(log: Option<LogId>, membership: &Membership) -> Self {
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
    Journal(JournalBatch),
}

/// [`Payload`] without a copy of the command; the same bytes.
#[derive(Serialize)]
enum PayloadRef<'a> {
    Blank,
    Command(&'a Command),
    Membership(MembershipRecord),
    Journal(&'a JournalBatch),
}

/// The record of an entry's payload.
pub(crate) fn encode_payload(entry: &Entry) -> io::Result<Bytes> {
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadRef::Blank,
        EntryPayload::Normal(packed) => return Ok(packed.record()?),
        EntryPayload::Membership(membership) => {
            PayloadRef::Membership(MembershipRecord::new(None, membership))
        }
    };
    Ok(codec::encode(&payload)?.into())
}

/// An entry from its place and the record of its payload.
pub(crate) fn decode_entry(id: LogId, payload: Bytes) -> io::Result<Entry> {
    let packed = |proposal| EntryPayload::Normal(Packed::with_record(proposal, payload.clone()));
    let payload = match codec::decode(&payload)? {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(command) => packed(Proposal::Command(command)),
        Payload::Journal(batch) => packed(Proposal::Journal(batch)),
        Payload::Membership(record) => EntryPayload::Membership(record.membership()?),
    };
    Ok(Entry::new(id, payload))
}
