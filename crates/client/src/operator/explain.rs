//! Where one activation is, and why it is there: asked of every scheduler, the one that knows most is believed.

use std::time::Duration;

use futures::future::join_all;
use tonic::transport::Channel;
use whiskraft_proto::{InvalidMessage, activation_id_bytes, v1};
use whiskraft_types::{ActivationId, ContainerId, Epoch, InvokerId, NamespaceName, SchedulerId};

use super::{Operator, ms, operator, unreadable};
use crate::calls::{Call, Tried};
use crate::find::read_found;
use crate::{CallError, FoundActivation, Progress, QueueStatus};

/// What a scheduler knows of an activation.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// How far it is, in which queue, and who says so.
    pub found: FoundActivation,
    /// While it waits: how many are served before it.
    pub position: Option<u64>,
    /// Time since its acceptance, while it waits.
    pub waited: Duration,
    /// From 1; above 1 it was submitted again after something was lost.
    pub attempt: u32,
    /// The container that has it.
    pub container: Option<ContainerId>,
    /// Where that container is.
    pub invoker: Option<InvokerId>,
    /// Its queue, with the reason why what waits there waits.
    pub queue: Option<QueueStatus>,
}

impl Explanation {
    /// The further it is the more is known of it; then what the newest leadership says counts.
    fn rank(&self) -> (u8, Epoch) {
        let far = match self.found.progress {
            Progress::Delayed | Progress::Waiting => 0,
            Progress::Delivered => 1,
            Progress::Started => 2,
            Progress::Gone => 3,
            Progress::Done(_) => 4,
        };
        (far, self.found.epoch)
    }
}

/// The answers of all schedulers put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// `None`: nobody who answered knows the activation, or knows it any more.
    pub best: Option<Explanation>,
    /// Who answered.
    pub answered: Vec<SchedulerId>,
    /// Who did not answer, and why; it may be known there.
    pub silent: Vec<(SchedulerId, CallError)>,
}

impl Operator {
    /// Where an activation is and why. With a namespace only an activation of that one is found, and sooner.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answered.
    pub async fn explain(
        &self,
        id: ActivationId,
        namespace: Option<&NamespaceName>,
    ) -> Result<Explained, CallError> {
        let request = v1::ExplainRequest {
            id: activation_id_bytes(id),
            namespace: namespace.map(ToString::to_string).unwrap_or_default(),
        };
        let shared = self.client.shared();
        let call = Call::quick(shared, "explain");
        let members = self.client.members();
        let mut explained = Explained {
            best: None,
            answered: Vec::new(),
            silent: Vec::new(),
        };
        if members.is_empty() {
            // Asks the endpoints, so that the error says why nobody is known.
            let answer = call.ask(shared, |channel| ask(channel, request.clone())).await?;
            explained.take(answer.value);
        }
        let request = &request;
        let answers = join_all(members.into_iter().map(|(scheduler, _)| async move {
            let answer = call.ask_member(shared, scheduler, |channel| ask(channel, request.clone()));
            (scheduler, answer.await)
        }));
        for (scheduler, answer) in answers.await {
            match answer {
                Ok(answer) => explained.take(answer),
                Err(error) => explained.silent.push((scheduler, error)),
            }
        }
        if explained.answered.is_empty()
            && let Some((_, error)) = explained.silent.pop()
        {
            return Err(error);
        }
        Ok(explained)
    }
}

impl Explained {
    fn take(&mut self, (scheduler, found): (SchedulerId, Option<Explanation>)) {
        self.answered.push(scheduler);
        if let Some(found) = found
            && self.best.as_ref().is_none_or(|best| found.rank() > best.rank())
        {
            self.best = Some(found);
        }
    }
}

async fn ask(channel: Channel, request: v1::ExplainRequest) -> Tried<(SchedulerId, Option<Explanation>)> {
    let response = operator(channel).explain(request).await?.into_inner();
    let scheduler = SchedulerId(response.scheduler);
    Ok(Ok((scheduler, read(response).map_err(unreadable)?)))
}

fn read(response: v1::ExplainResponse) -> Result<Option<Explanation>, InvalidMessage> {
    let scheduler = SchedulerId(response.scheduler);
    let found = response.found.map(|found| read_found(found, scheduler));
    let Some(found) = found.transpose()?.flatten() else {
        return Ok(None);
    };
    Ok(Some(Explanation {
        found,
        position: response.position,
        waited: ms(response.waited_ms),
        attempt: response.attempt,
        container: response.container.map(Into::into),
        invoker: (response.invoker != 0).then_some(InvokerId(response.invoker)),
        queue: response.queue.map(QueueStatus::try_from).transpose()?,
    }))
}
