//! Between openraft's messages and those of `peer.proto`.
//!
//! Everything that arrives from a peer is checked here; past this point it is openraft's.

use std::io;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use whiskraft_proto::v1;

use crate::types::{self, Ballot, Entry, LogId, LogIdRecord, Types, Vote, VoteRecord};
use crate::witness::Shown;

/// A message lacks a field that it must have, or holds one that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("message of a peer: {0}")]
pub(crate) struct WireError(pub(crate) String);

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

fn missing(field: &str) -> WireError {
    WireError(format!("{field} is missing"))
}

pub(crate) fn vote(vote: Vote) -> v1::Vote {
    let record = VoteRecord::from(vote);
    v1::Vote {
        term: record.term,
        node: record.node,
        committed: record.committed,
    }
}

pub(crate) fn parse_vote(vote: Option<v1::Vote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or_else(|| missing("vote"))?;
    Ok(VoteRecord {
        term: vote.term,
        node: vote.node,
        committed: vote.committed,
    }
    .into())
}

pub(crate) fn log_id(id: LogId) -> v1::LogId {
    record(id.into())
}

pub(crate) fn parse_log_id(id: v1::LogId) -> LogId {
    parse_record(id).into()
}

fn entry(entry: &Entry) -> io::Result<v1::Entry> {
    Ok(v1::Entry {
        id: Some(log_id(entry.log_id)),
        payload: types::encode_payload(entry)?,
    })
}

fn parse_entry(entry: v1::Entry) -> Result<Entry, WireError> {
    let id = entry.id.ok_or_else(|| missing("id of an entry"))?;
    Ok(types::decode_entry(parse_log_id(id), entry.payload)?)
}

fn record(id: LogIdRecord) -> v1::LogId {
    v1::LogId {
        term: id.term,
        node: id.node,
        index: id.index,
    }
}

fn parse_record(id: v1::LogId) -> LogIdRecord {
    LogIdRecord {
        term: id.term,
        node: id.node,
        index: id.index,
    }
}

pub(crate) fn shown(shown: &Shown) -> v1::Shown {
    v1::Shown {
        term: shown.vote.term,
        node: shown.vote.node,
        last: shown.last.map(record),
        committed: shown.committed,
    }
}

pub(crate) fn parse_shown(shown: &v1::Shown) -> Shown {
    Shown {
        vote: Ballot {
            term: shown.term,
            node: shown.node,
        },
        last: shown.last.map(parse_record),
        committed: shown.committed,
    }
}

pub(crate) fn shown_in_groups(all: Vec<(u32, Shown)>) -> Vec<v1::GroupShown> {
    let group = |(group, one): (u32, Shown)| v1::GroupShown {
        group,
        shown: Some(shown(&one)),
    };
    all.into_iter().map(group).collect()
}

pub(crate) fn parse_shown_in_groups(all: &[v1::GroupShown]) -> Vec<(u32, Shown)> {
    let group = |one: &v1::GroupShown| Some((one.group, parse_shown(one.shown.as_ref()?)));
    all.iter().filter_map(group).collect()
}

/// What a leader shows of its own disk with a message.
pub(crate) fn shown_by_leader(request: &v1::AppendRequest) -> Option<Shown> {
    let (vote, last) = (request.vote.as_ref()?, parse_record(request.synced?));
    let vote = Ballot {
        term: vote.term,
        node: vote.node,
    };
    let committed = request.leader_commit.map_or(0, |id| id.index);
    Some(Shown::entry(vote, last, committed))
}

pub(crate) fn append(
    envelope: v1::Envelope,
    request: &AppendEntriesRequest<Types>,
    synced: Option<LogIdRecord>,
) -> io::Result<v1::AppendRequest> {
    Ok(v1::AppendRequest {
        envelope: Some(envelope),
        vote: Some(vote(request.vote)),
        prev: request.prev_log_id.map(log_id),
        entries: request.entries.iter().map(entry).collect::<io::Result<_>>()?,
        leader_commit: request.leader_commit.map(log_id),
        synced: synced.map(record),
    })
}

pub(crate) fn parse_append(request: v1::AppendRequest) -> Result<AppendEntriesRequest<Types>, WireError> {
    Ok(AppendEntriesRequest {
        vote: parse_vote(request.vote)?,
        prev_log_id: request.prev.map(parse_log_id),
        entries: request
            .entries
            .into_iter()
            .map(parse_entry)
            .collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(parse_log_id),
    })
}

pub(crate) fn append_response(response: AppendEntriesResponse<Types>) -> v1::AppendResponse {
    use v1::append_response::Outcome;

    let outcome = match response {
        AppendEntriesResponse::Success => Outcome::Ok(v1::AppendOk {
            matched: None,
            partial: false,
        }),
        AppendEntriesResponse::PartialSuccess(matched) => Outcome::Ok(v1::AppendOk {
            matched: matched.map(log_id),
            partial: true,
        }),
        AppendEntriesResponse::Conflict => Outcome::Conflict(v1::AppendConflict { at: None }),
        AppendEntriesResponse::HigherVote(higher) => Outcome::HigherVote(vote(higher)),
    };
    v1::AppendResponse {
        outcome: Some(outcome),
    }
}

pub(crate) fn parse_append_response(
    response: v1::AppendResponse,
) -> Result<AppendEntriesResponse<Types>, WireError> {
    use v1::append_response::Outcome;

    Ok(match response.outcome.ok_or_else(|| missing("outcome"))? {
        Outcome::Ok(ok) if ok.partial => AppendEntriesResponse::PartialSuccess(ok.matched.map(parse_log_id)),
        Outcome::Ok(_) => AppendEntriesResponse::Success,
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(higher) => AppendEntriesResponse::HigherVote(parse_vote(Some(higher))?),
    })
}

pub(crate) fn stream_result(result: StreamAppendResult<Types>) -> v1::AppendResponse {
    use v1::append_response::Outcome;

    let outcome = match result {
        Ok(matched) => Outcome::Ok(v1::AppendOk {
            matched: matched.map(log_id),
            partial: false,
        }),
        Err(StreamAppendError::Conflict(at)) => {
            Outcome::Conflict(v1::AppendConflict { at: Some(log_id(at)) })
        }
        Err(StreamAppendError::HigherVote(higher)) => Outcome::HigherVote(vote(higher)),
    };
    v1::AppendResponse {
        outcome: Some(outcome),
    }
}

pub(crate) fn parse_stream_result(
    response: v1::AppendResponse,
) -> Result<StreamAppendResult<Types>, WireError> {
    use v1::append_response::Outcome;

    Ok(match response.outcome.ok_or_else(|| missing("outcome"))? {
        Outcome::Ok(ok) => Ok(ok.matched.map(parse_log_id)),
        Outcome::Conflict(conflict) => {
            let at = conflict.at.ok_or_else(|| missing("log id of a conflict"))?;
            Err(StreamAppendError::Conflict(parse_log_id(at)))
        }
        Outcome::HigherVote(higher) => Err(StreamAppendError::HigherVote(parse_vote(Some(higher))?)),
    })
}

pub(crate) fn vote_request(envelope: v1::Envelope, request: &VoteRequest<Types>) -> v1::VoteRequest {
    v1::VoteRequest {
        envelope: Some(envelope),
        vote: Some(vote(request.vote)),
        last_log: request.last_log_id.map(log_id),
        leader_transfer: request.leadership_transfer,
    }
}

pub(crate) fn parse_vote_request(request: v1::VoteRequest) -> Result<VoteRequest<Types>, WireError> {
    let mut parsed = VoteRequest::new(parse_vote(request.vote)?, request.last_log.map(parse_log_id));
    parsed.leadership_transfer = request.leader_transfer;
    Ok(parsed)
}

pub(crate) fn vote_response(response: &VoteResponse<Types>) -> v1::VoteResponse {
    v1::VoteResponse {
        vote: Some(vote(response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.map(log_id),
    }
}

pub(crate) fn parse_vote_response(response: v1::VoteResponse) -> Result<VoteResponse<Types>, WireError> {
    let last = response.last_log.map(parse_log_id);
    Ok(VoteResponse::new(
        parse_vote(response.vote)?,
        last,
        response.granted,
    ))
}

pub(crate) fn transfer(
    envelope: v1::Envelope,
    request: &TransferLeaderRequest<Types>,
) -> v1::TransferLeaderRequest {
    v1::TransferLeaderRequest {
        envelope: Some(envelope),
        from_leader: Some(vote(*request.from_leader())),
        to: *request.to_node_id(),
        last_log: request.last_log_id().copied().map(log_id),
    }
}

pub(crate) fn parse_transfer(
    request: v1::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<Types>, WireError> {
    let last = request.last_log.map(parse_log_id);
    Ok(TransferLeaderRequest::new(
        parse_vote(request.from_leader)?,
        request.to,
        last,
    ))
}

pub(crate) fn transfer_response(response: TransferLeaderResponse<Types>) -> v1::TransferLeaderResponse {
    use v1::transfer_leader_response::Refusal;

    let refusal = response.err().map(|error| match error {
        TransferLeaderError::VoteChanged { actual, .. } => Refusal::VoteChanged(vote(actual)),
        TransferLeaderError::LogNotFlushed { actual, .. } => {
            Refusal::LogBehind(actual.map(log_id).unwrap_or_default())
        }
    });
    v1::TransferLeaderResponse { refusal }
}

/// The answer to `request`, which is repeated in openraft's errors.
pub(crate) fn parse_transfer_response(
    request: &TransferLeaderRequest<Types>,
    response: v1::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<Types>, WireError> {
    use v1::transfer_leader_response::Refusal;

    Ok(match response.refusal {
        None => Ok(()),
        Some(Refusal::VoteChanged(actual)) => Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: parse_vote(Some(actual))?,
        }),
        Some(Refusal::LogBehind(actual)) => Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: (actual != v1::LogId::default()).then(|| parse_log_id(actual)),
        }),
    })
}

/// Bytes that are an incarnation.
pub(crate) fn parse_incarnation(bytes: &Bytes) -> Result<Option<[u8; 16]>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let incarnation = <[u8; 16]>::try_from(bytes.as_ref());
    incarnation
        .map(Some)
        .map_err(|_| WireError(format!("incarnation of {} bytes, not 16", bytes.len())))
}
