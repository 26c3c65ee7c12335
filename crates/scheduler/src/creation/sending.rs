//! Tells an invoker to create a container, once the table shows that it goes there.

use std::time::Duration;

use whiskraft_proto::v1;
use whiskraft_queue::FairShares;
use whiskraft_state::ContainerState;
use whiskraft_types::{ContainerId, CreationError, Instant, InvokerId};

use crate::context::Context;
use crate::control::registry::ControlCommand;
use crate::creation::actor::CreationActor;
use crate::creation::job::Job;
use crate::creation::place;
use crate::creation::shares::evict_first;

impl CreationActor {
    /// The table shows where the container goes, if the invoker lives: now the invoker may be told.
    pub(super) async fn on_placed(&mut self, container: ContainerId, invoker: InvokerId) {
        self.placer.settle(container);
        let Some(job) = self
            .jobs
            .get_mut(container)
            .filter(|job| job.target == Some(invoker))
        else {
            return;
        };
        let (is_there, was_taken) = self.parts.context.node.read(|state| {
            let row = state
                .container(container)
                .filter(|row| row.state == ContainerState::InProgress);
            let on = row.and_then(|row| row.invoker).map(|(on, _)| on);
            let was_taken = row.is_some() && on.is_none() && state.invoker(invoker).is_some();
            (on == Some(invoker), was_taken)
        });
        if was_taken {
            // Another scheduler's entry came first. That is nobody's failure, and waits for the next place.
            job.target = None;
            tracing::debug!(%container, %invoker, "the place was taken, waits for another one");
            if self.wait(container).await {
                self.look_soon();
            }
            return;
        }
        let sent = match place::action(&self.parts.context, &job.wish) {
            Err((error, message)) => Err((error, message)),
            Ok(_) if !is_there => Err((CreationError::Unknown, format!("invoker {invoker} was lost"))),
            Ok(action) => {
                let shares = self.last_shares.as_ref().filter(|_| !self.waiting.is_empty());
                let create = create_container(&self.parts.context, job, action, self.now, shares);
                let sent = self
                    .parts
                    .streams
                    .send(invoker, ControlCommand::Create(Box::new(create)));
                sent.map_err(|error| (CreationError::Unknown, error.to_string()))
            }
        };
        match sent {
            Ok(()) => job.sent = true,
            Err((error, message)) => self.on_failure(container, Some(invoker), error, message).await,
        }
    }
}

fn create_container(
    context: &Context,
    job: &Job,
    action: v1::Action,
    now: Instant,
    shares: Option<&FairShares>,
) -> v1::CreateContainer {
    let left: Duration = job.job.deadline().saturating_since(now);
    let evict_first = job.target.filter(|_| job.resume.is_none()).map(|invoker| {
        let node = &context.node;
        node.read(|state| evict_first(state, invoker, job.wish.memory, shares))
    });
    v1::CreateContainer {
        container: Some(job.job.container().into()),
        key: Some((&job.wish.key).into()),
        epoch: job.wish.epoch.0,
        leader: context.node.id().0,
        revision: job.wish.revision.0,
        action: Some(action),
        resume: job.resume.map(|(old, _)| old.into()),
        deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        evict_first: evict_first
            .unwrap_or_default()
            .into_iter()
            .map(Into::into)
            .collect(),
    }
}
