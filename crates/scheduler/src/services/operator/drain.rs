//! `Drain`: the order that a scheduler leads no queues, or leads some again. The order is a row of the members table;
//! the scheduler that it names reads it there and gives its queues away by itself.

use whiskraft_proto::v1;
use whiskraft_raft::ProposeError;
use whiskraft_state::{Command, Response, State};
use whiskraft_types::{Rejection, SchedulerId};

use super::OperatorService;
use crate::wire;

impl OperatorService {
    /// Gives the order or takes it back; harmless to repeat. Says how many queues the scheduler leads still.
    pub(super) async fn set_draining(&self, request: v1::DrainRequest) -> Result<v1::Drained, Rejection> {
        let (id, draining) = (SchedulerId(request.scheduler), !request.undo);
        let node = &self.context.node;
        self.context.available().await?;
        // Decided on tables as new as any answer that was given before.
        node.read_index().await.map_err(|error| Rejection::Unavailable {
            reason: error.to_string(),
        })?;
        let is_done = node.read(|state| check(state, id, draining))?;
        if !is_done {
            self.propose_draining(id, draining).await?;
            // Another order may have come between: never leave the queues without anybody who takes them.
            if let Err(rejection) = node.read(|state| check(state, id, draining)) {
                self.propose_draining(id, false).await?;
                return Err(rejection);
            }
            tracing::info!(scheduler = %id, draining, "order of an operator: drain");
        }
        let queues_left = node.read(|state| {
            let session = state.scheduler_session(id);
            session.map_or(0, |session| u64::from(state.queues_led(session)))
        });
        Ok(v1::Drained { queues_left })
    }

    async fn propose_draining(&self, id: SchedulerId, draining: bool) -> Result<(), Rejection> {
        let node = &self.context.node;
        let proposed = self.context.propose(Command::SetDraining { id, draining }).await;
        match proposed.map_err(|error: ProposeError| wire::propose_error(&error))? {
            (revision, Response::Done) => {
                // Fails only when the process stops.
                let _ = node.wait_applied(revision).await;
                Ok(())
            }
            (_, Response::Refused(refusal)) => Err(wire::refusal(refusal)),
            _ => Err(wire::unexpected("SetDraining")),
        }
    }
}

/// Whether the order stands already, if it may be given at all.
fn check(state: &State, id: SchedulerId, draining: bool) -> Result<bool, Rejection> {
    let invalid = |reason| Err(Rejection::Invalid { reason });
    let Some(member) = state.member(id) else {
        return invalid(format!("scheduler {id} is not a member of this cluster"));
    };
    let takes_queues = |other: SchedulerId, draining: bool| {
        other != id && !draining && state.scheduler_session(other).is_some()
    };
    if draining
        && !state
            .members()
            .any(|(other, member)| takes_queues(other, member.draining))
    {
        return invalid(format!(
            "no other live scheduler could take the queues of scheduler {id}; start one or end another drain first"
        ));
    }
    Ok(member.draining == draining)
}
