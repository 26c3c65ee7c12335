//! `MoveQueue`: an operator gives a queue to a named scheduler.

use std::time::Duration;

use tokio::time::timeout;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_proto::{required, v1};
use whiskraft_state::State;
use whiskraft_types::{NotLeader, QueueKey, Rejection, SchedulerId, SessionId};

use super::OperatorService;
use crate::handoff::{Bare, Settled, Targets};
use crate::neighbours::Channels;
use crate::shard::Pick;

/// Longest wait for the leader of the queue, on top of the time that it may take itself.
const PASS_ON_WAIT: Duration = Duration::from_secs(5);

/// Who leads a queue that shall move.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leader {
    id: SchedulerId,
    session: SessionId,
    address: String,
}

impl OperatorService {
    pub(super) async fn move_one(&self, request: v1::MoveQueueRequest) -> Result<v1::MovedTo, Rejection> {
        let invalid = |reason| Rejection::Invalid { reason };
        let key = required(request.key.clone(), "key").and_then(QueueKey::try_from);
        let key = key.map_err(|error| invalid(error.to_string()))?;
        let node = &self.context.node;
        self.context.available().await?;
        let leader = node.read(|state| check(state, &key, SchedulerId(request.to)))?;
        if leader.id != node.id() {
            if request.passed_on {
                return Err(not_leader(&self.context.node.read(State::clone), &key));
            }
            return self.pass_on(&leader, request).await;
        }
        let began = self.context.clock.now();
        let to = SchedulerId(request.to);
        let pick = Pick::Named(key.clone());
        let moving = self
            .hand_over
            .run(leader.session, pick, Targets::Only(to), Bare::Never);
        match moving.await.into_iter().next().map(|(_, settled)| settled) {
            Some(Settled::Moved { epoch, activations }) => {
                let stood = self.context.clock.now().saturating_since(began);
                tracing::info!(queue = %key, %to, %epoch, activations, "order of an operator: queue moved");
                Ok(v1::MovedTo {
                    epoch: epoch.0,
                    activations: activations as u64,
                    took_us: u32::try_from(stood.as_micros()).unwrap_or(u32::MAX),
                })
            }
            Some(Settled::Stayed(Rejection::TooLarge { .. })) => Err(Rejection::Unavailable {
                reason: format!("queue {key} holds more than scheduler {to} has room for now; try again"),
            }),
            Some(Settled::Stayed(rejection)) => Err(rejection),
            Some(Settled::Gone) => Err(Rejection::Unavailable {
                reason: format!("the leader of queue {key} lost its session; another one leads it now"),
            }),
            None => Err(Rejection::Unavailable {
                reason: format!("queue {key} is on its way to another scheduler, or fenced; try again"),
            }),
        }
    }

    async fn pass_on(
        &self,
        leader: &Leader,
        request: v1::MoveQueueRequest,
    ) -> Result<v1::MovedTo, Rejection> {
        use v1::move_queue_response::Outcome;

        let unavailable = |reason: String| Rejection::Unavailable { reason };
        let id = leader.id;
        let channel = Channels::default().get(&leader.address);
        let channel = channel.ok_or_else(|| unavailable(format!("scheduler {id} has no address yet")))?;
        let request = v1::MoveQueueRequest {
            passed_on: true,
            ..request
        };
        let wait_max = self.context.config.handoff.deadline + PASS_ON_WAIT;
        let mut client = OperatorClient::new(channel);
        let answer = timeout(wait_max, client.move_queue(request))
            .await
            .map_err(|_| unavailable(format!("scheduler {id}, which leads the queue, did not answer")))?
            .map_err(|status| {
                unavailable(format!(
                    "scheduler {id}, which leads the queue: {}",
                    status.message()
                ))
            })?;
        match answer.into_inner().outcome {
            Some(Outcome::Moved(moved)) => Ok(moved),
            Some(Outcome::Rejection(rejection)) => {
                Err(Rejection::try_from(rejection).map_err(|error| unavailable(error.to_string()))?)
            }
            None => Err(unavailable(format!("scheduler {id} said nothing"))),
        }
    }
}

/// Who leads a queue that can be moved to a scheduler.
fn check(state: &State, key: &QueueKey, to: SchedulerId) -> Result<Leader, Rejection> {
    let invalid = |reason| Err(Rejection::Invalid { reason });
    let Some(queue) = state.queue(key) else {
        return Err(Rejection::NoQueue);
    };
    let Some((id, session)) = queue.leader else {
        return Err(not_leader(state, key));
    };
    if id == to {
        return invalid(format!("scheduler {to} leads queue {key} already"));
    }
    let Some(member) = state.member(to) else {
        return invalid(format!("scheduler {to} is not a member of this cluster"));
    };
    if member.draining {
        return invalid(format!(
            "scheduler {to} drains; take that back with `whiskraft drain {to} --undo` first"
        ));
    }
    if state.scheduler_session(to).is_none() {
        return invalid(format!("scheduler {to} is not live; start it first"));
    }
    let member = state.member(id);
    let address = member.map(|member| member.client_address.clone());
    Ok(Leader {
        id,
        session,
        address: address.unwrap_or_default(),
    })
}

fn not_leader(state: &State, key: &QueueKey) -> Rejection {
    let queue = state.queue(key);
    Rejection::NotLeader(NotLeader {
        leader: queue.and_then(|queue| Some(queue.leader?.0)),
        epoch: queue.map(|queue| queue.epoch).unwrap_or_default(),
    })
}
