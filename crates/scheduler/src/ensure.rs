//! Makes sure that queues exist, and says who leads them.

use std::time::Duration;

use whiskraft_proto::{required, v1};
use whiskraft_state::{Command, DocumentKey, EnsureQueue, Leadership, Response};
use whiskraft_types::{LogRevision, QueueKey, Rejection};

use crate::context::{Context, Proposing};
use crate::together::together;
use crate::wire;

/// Longest time that queues which are there wait for those that are made for the same call.
const MAKING_WAIT_MAX: Duration = Duration::from_millis(300);

/// A queue that somebody wants, and whether it is for what was submitted before.
type Wanted = (QueueKey, bool);

/// Ensures queues at a controller's wish; for each its leadership, or why there is none.
pub(crate) async fn ensure(
    context: &Context,
    queues: Vec<v1::EnsureQueue>,
) -> Vec<Result<v1::QueueLeadership, Rejection>> {
    let wanted = queues.into_iter().map(wanted).collect();
    together(wanted, |wanted| async move {
        let ensured = ensure_queues(context, &wanted).await;
        let ensured = wanted.iter().zip(ensured);
        ensured
            .map(|((key, _), known)| known.map(|known| leadership(context, key, &known)))
            .collect()
    })
    .await
}

fn wanted(asked: v1::EnsureQueue) -> Result<Wanted, Rejection> {
    let key = required(asked.key, "key").and_then(QueueKey::try_from);
    let key = key.map_err(|error| Rejection::Invalid {
        reason: error.to_string(),
    })?;
    Ok((key, asked.resubmits))
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
    let mut ensured = ensure_queues(context, &[(key.clone(), resubmits)]).await;
    ensured
        .pop()
        .unwrap_or_else(|| Err(wire::unexpected("EnsureQueue")))
}

/// Ensures queues, those that are not there with one write to the log. Those that are there do not wait long for it: whoever
/// asked for the others hears to ask again.
async fn ensure_queues(context: &Context, wanted: &[Wanted]) -> Vec<Result<Leadership, Rejection>> {
    if let Err(no) = context.available().await {
        return wanted.iter().map(|_| Err(no.clone())).collect();
    }
    let known = wanted
        .iter()
        .map(|(key, resubmits)| known(context, key, *resubmits));
    let known: Vec<_> = known.collect();
    let missing = wanted
        .iter()
        .zip(&known)
        .filter(|(_, known)| matches!(known, Ok(None)));
    let commands = missing.map(|((key, _), _)| Command::EnsureQueue(EnsureQueue { key: key.clone() }));
    let commands: Vec<_> = commands.collect();
    let count = commands.len();
    let making = make(context, commands);
    let mut made = match known.iter().any(|known| matches!(known, Ok(Some(_)))) {
        true => made_soon(making, count).await,
        false => making.await,
    }
    .into_iter();
    let mut next = || {
        made.next()
            .unwrap_or_else(|| Err(wire::unexpected("EnsureQueue")))
    };
    known
        .into_iter()
        .map(|known| known?.map_or_else(&mut next, Ok))
        .collect()
}

/// Puts them into the log and waits until this node knows, so that a Submit which follows at once finds what the answer
/// says.
async fn make(context: &Context, commands: Vec<Command>) -> Vec<Result<Leadership, Rejection>> {
    let mut newest = LogRevision(0);
    let made = context.propose_many(commands).await.into_iter().map(|proposed| {
        let (revision, leadership) = read(proposed)?;
        newest = newest.max(revision);
        Ok(leadership)
    });
    let made = made.collect();
    let _ = context.node.wait_applied(newest).await;
    made
}

/// What is made, so many; `Unavailable` for all if that takes long: whoever asks again finds what has left by then.
async fn made_soon<T>(
    making: impl Future<Output = Vec<Result<T, Rejection>>>,
    count: usize,
) -> Vec<Result<T, Rejection>> {
    let made = tokio::time::timeout(MAKING_WAIT_MAX, making).await;
    made.unwrap_or_else(|_| {
        let late = || {
            let reason = "the queue is not made yet; try again".to_owned();
            Err(Rejection::Unavailable { reason })
        };
        (0..count).map(|_| late()).collect()
    })
}

fn read(proposed: Proposing) -> Result<(LogRevision, Leadership), Rejection> {
    match proposed.map_err(|error| wire::propose_error(&error))? {
        (revision, Response::Leadership(leadership)) => Ok((revision, leadership)),
        (_, Response::Refused(refusal)) => Err(wire::refusal(refusal)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_does_not_wait_for_a_log_that_does_not_answer() {
        let made = made_soon(async { vec![Ok(1), Ok(2)] }, 2).await;
        assert_eq!(made, [Ok(1), Ok(2)]);
        let late = made_soon::<u8>(std::future::pending(), 2).await;
        assert_eq!(late.len(), 2);
        assert!(
            late.iter()
                .all(|late| matches!(late, Err(Rejection::Unavailable { .. })))
        );
    }
}
