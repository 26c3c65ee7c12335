//! Finds an activation by its id.

use std::sync::Arc;

use tonic::Status;
use whiskraft_proto::v1;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_queue::ActivationState;
use whiskraft_raft::{Journal, Journaled, Lookup};
use whiskraft_state::journal::{JournalRow, LaneMillis, RowState, UnixMillis};
use whiskraft_types::{ActivationId, NamespaceName};

use super::{ASK_WAIT_MAX, Cluster, named};
use crate::clock::unix_ms;
use crate::journal::read_record;
use crate::message::Found;
use crate::shard::record_of;

impl Cluster {
    /// State and, when it ended, record of an activation.
    ///
    /// # Errors
    /// If the request is none, or nothing can be said for sure.
    pub(crate) async fn find(
        &self,
        request: v1::FindActivationRequest,
    ) -> Result<v1::FindActivationResponse, Status> {
        let (id, namespace) = named(&request.id, &request.namespace)?;
        if let Some(found) = self.find_here(id, &namespace).await? {
            return Ok(found);
        }
        let mut lookup = self.look_up(id, &namespace)?;
        if let Lookup::Found(Journaled { row, .. }) = &lookup
            && let Some(found) = self.ask_leader(&request, row).await
        {
            return Ok(found);
        }
        if !has_ended(&lookup) {
            self.catch_up().await?;
            lookup = self.look_up(id, &namespace)?;
        }
        answer_of(self.context.node.journal(), lookup)
    }

    /// The same as far as the queues know that are led here.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn find_here(
        &self,
        id: ActivationId,
        namespace: &NamespaceName,
    ) -> Result<Option<v1::FindActivationResponse>, Status> {
        let Some(found) = self.find_in_queues(id, namespace).await else {
            return Ok(None);
        };
        let mut response = found_response(id, found);
        if matches!(response.state(), State::Delayed | State::Done)
            && let Lookup::Found(Journaled { lane, row }) = self.look_up(id, namespace)?
            && row.is_open()
        {
            response.durable = true;
            match response.state() {
                State::Delayed => {
                    let clock = self.context.node.journal().clock(lane);
                    response.not_before_ms = begins_ms(&row, clock, unix_ms());
                }
                // An invoker has told a new leader of its end: nobody hears of it before the journal has it.
                _ => {
                    response.set_state(State::Started);
                    response.record = None;
                }
            }
        }
        Ok(Some(response))
    }

    /// How far an open one is, by the scheduler that leads its queue; `None` if it does not say.
    async fn ask_leader(
        &self,
        request: &v1::FindActivationRequest,
        row: &JournalRow,
    ) -> Option<v1::FindActivationResponse> {
        let is_open = matches!(row.state, RowState::Open { .. });
        let me = self.context.node.id();
        let leader = self.leader(&row.key).filter(|leader| is_open && *leader != me)?;
        let mut client = self.peers.client(leader)?;
        let answer = client.find_here(request.clone());
        let answer = tokio::time::timeout(ASK_WAIT_MAX, answer).await.ok()?.ok()?;
        Some(answer.into_inner()).filter(|found| found.state() != State::Unknown)
    }
}

fn has_ended(lookup: &Lookup) -> bool {
    match lookup {
        Lookup::Missing => false,
        Lookup::Gone => true,
        Lookup::Found(journaled) => matches!(journaled.row.state, RowState::Ended { .. }),
    }
}

/// What the journal says, as callers read it.
///
/// # Errors
/// If the record cannot be read.
pub(crate) fn answer_of(journal: &Journal, lookup: Lookup) -> Result<v1::FindActivationResponse, Status> {
    let mut response = v1::FindActivationResponse::default();
    let Journaled { lane, row } = match lookup {
        Lookup::Found(journaled) => journaled,
        Lookup::Missing => {
            response.set_state(State::Unknown);
            return Ok(response);
        }
        Lookup::Gone => {
            response.set_state(State::Gone);
            return Ok(response);
        }
    };
    describe(&mut response, &row, journal.clock(lane));
    if response.state() == State::Done {
        let record = read_record(journal, lane, row.id).map_err(Status::data_loss)?;
        match record {
            Some(record) => response.record = Some(Arc::unwrap_or_clone(record).into()),
            None => response.set_state(State::Gone),
        }
    }
    Ok(response)
}

/// When its next run may begin, by the wall clock; 0 if it need not wait.
fn begins_ms(row: &JournalRow, clock: LaneMillis, wall: u64) -> u64 {
    let RowState::Open { not_before, due } = row.state else {
        return 0;
    };
    let by_lane = not_before.map(|at| wall.saturating_add(at.0).saturating_sub(clock.0));
    due.map(|due| due.0).or(by_lane).unwrap_or_default()
}

/// What a row says.
fn describe(response: &mut v1::FindActivationResponse, row: &JournalRow, clock: LaneMillis) {
    let wall = unix_ms();
    response.key = Some((&row.key).into());
    response.durable = row.digest.is_some();
    response.runs = row.run;
    response.accepted_ms = row.accepted.0;
    match &row.state {
        RowState::Open { .. } => {
            response.not_before_ms = begins_ms(row, clock, wall);
            response.set_state(if row.due_in(clock, UnixMillis(wall)).is_zero() {
                State::Waiting
            } else {
                State::Delayed
            });
        }
        RowState::Ended { dead_letter, .. } => {
            response.dead_letter = *dead_letter;
            response.set_state(State::Done);
        }
    }
}

/// What a queue knows of an activation, as callers read it.
pub(crate) fn found_response(id: ActivationId, found: Found) -> v1::FindActivationResponse {
    let Found {
        key,
        epoch,
        state,
        durable,
        run,
        accepted_ms,
        end,
    } = found;
    let (state, record) = match state {
        ActivationState::Journaling | ActivationState::Waiting => (State::Waiting, None),
        ActivationState::Delayed(_) => (State::Delayed, None),
        ActivationState::Delivered(_) => (State::Delivered, None),
        // It has run, and nobody may hear how it ended before the journal has it.
        ActivationState::Started(_) | ActivationState::Ending => (State::Started, None),
        ActivationState::Done(outcome) => (State::Done, Some(record_of(id, outcome, run, end))),
    };
    v1::FindActivationResponse {
        state: state.into(),
        record: record.map(|record| Arc::unwrap_or_clone(record).into()),
        key: Some((&key).into()),
        epoch: epoch.0,
        durable,
        runs: run,
        accepted_ms,
        ..Default::default()
    }
}
