//! Makes sure that a queue exists, and says who leads it.

use whiskraft_proto::{required, v1};
use whiskraft_state::{Command, DocumentKey, EnsureQueue, Leadership, Response};
use whiskraft_types::{QueueKey, Rejection};

use crate::context::Context;
use crate::wire;

/// Ensures a queue at a controller's wish.
///
/// # Errors
/// Why there is none.
pub(crate) async fn ensure(
    context: &Context,
    request: v1::EnsureQueueRequest,
) -> Result<v1::QueueLeadership, Rejection> {
    let v1::EnsureQueueRequest { key, resubmits } = request;
    let key = required(key, "key").and_then(QueueKey::try_from);
    let key = key.map_err(|error| Rejection::Invalid {
        reason: error.to_string(),
    })?;
    let known = ensure_queue(context, &key, resubmits).await?;
    Ok(leadership(context, &key, &known))
}

/// Ensures a queue. One of a deleted action is found only by who submits again.
///
/// # Errors
/// Why there is none.
pub(crate) async fn ensure_queue(
    context: &Context,
    key: &QueueKey,
    resubmits: bool,
) -> Result<Leadership, Rejection> {
    context.available().await?;
    if let Some(known) = known(context, key, resubmits)? {
        return Ok(known);
    }
    let command = Command::EnsureQueue(EnsureQueue { key: key.clone() });
    let proposed = context.propose(command).await;
    let (revision, answer) = proposed.map_err(|error| wire::propose_error(&error))?;
    match answer {
        Response::Leadership(leadership) => {
            // So that a Submit which follows at once finds what this answer says.
            let _ = context.node.wait_applied(revision).await;
            Ok(leadership)
        }
        Response::Refused(refusal) => Err(wire::refusal(refusal)),
        _ => Err(wire::unexpected("EnsureQueue")),
    }
}

/// The leadership as this node's tables have it, if there is one. A queue of a deleted action finishes what it has and
/// takes nothing new: whoever asks for it has to hear that, but for what may have begun.
///
/// # Errors
/// If nobody leads a queue of a deleted action now: somebody will.
fn known(context: &Context, key: &QueueKey, resubmits: bool) -> Result<Option<Leadership>, Rejection> {
    let document = DocumentKey::action(&key.action);
    let (is_deleted, queue) = context.node.read(|state| {
        let document = document.and_then(|document| state.document(&document));
        (document.is_none(), state.queue(key).cloned())
    });
    let Some(queue) = queue.filter(|_| !is_deleted || resubmits) else {
        return Ok(None);
    };
    match queue.leader {
        Some((leader, _)) => {
            let (epoch, revision) = (queue.epoch, queue.revision);
            Ok(Some(Leadership {
                leader,
                epoch,
                revision,
            }))
        }
        None if is_deleted => {
            let reason = format!("nobody leads queue {key} now; try again");
            Err(Rejection::Unavailable { reason })
        }
        None => Ok(None),
    }
}

fn leadership(context: &Context, key: &QueueKey, leadership: &Leadership) -> v1::QueueLeadership {
    let member = context
        .node
        .read(|state| state.member(leadership.leader).cloned());
    v1::QueueLeadership {
        key: Some(key.into()),
        leader: leadership.leader.0,
        epoch: leadership.epoch.0,
        revision: leadership.revision.0,
        client_address: member.map(|member| member.client_address).unwrap_or_default(),
    }
}
