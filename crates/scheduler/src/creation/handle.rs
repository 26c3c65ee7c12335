//! The near end of the creation actor.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};
use whiskraft_queue::{Observation, Suspicion};
use whiskraft_types::{ByteSize, ContainerId, CreationError, Epoch, InvokerId, QueueKey, Revision};

use crate::control::hello::Peer;
use crate::creation::suspects::SuspectsView;

/// Messages that wait. Wishes beyond it are refused and repeated by their queues; reports wait on their streams.
const MESSAGES_MAX: usize = 4096;

/// A queue's wish for containers.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) memory: ByteSize,
    pub(crate) instances: Option<u32>,
    pub(crate) blackbox: bool,
    pub(crate) count: u32,
}

/// What the creation actor is told.
#[derive(Debug)]
pub(crate) enum Message {
    Wish(Wish),
    /// The container pulls.
    Succeeded(ContainerId),
    /// An invoker could not create it; answered with whether anybody here waits for it.
    Failed {
        container: ContainerId,
        peer: Peer,
        error: CreationError,
        message: String,
        known: oneshot::Sender<bool>,
    },
    /// The table lost containers of ours.
    Gone(Vec<ContainerId>),
    /// What was seen of invokers.
    Observed(Vec<(InvokerId, Observation)>),
    /// Others lead these queues now.
    Released(Vec<QueueKey>),
}

/// A cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct CreationHandle {
    sender: mpsc::Sender<Message>,
    suspects: SuspectsView,
}

impl CreationHandle {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let suspects = SuspectsView::default();
        (Self { sender, suspects }, receiver)
    }

    /// Where the actor writes whom it suspects.
    pub(crate) fn suspects_view(&self) -> SuspectsView {
        self.suspects.clone()
    }

    /// Invokers that get no containers now while others can take them, and why.
    pub(crate) fn suspects(&self) -> BTreeMap<InvokerId, Suspicion> {
        self.suspects.suspects()
    }

    /// Takes a wish; false if there is no room.
    pub(crate) fn reserve(&self, wish: Wish) -> bool {
        self.sender.try_send(Message::Wish(wish)).is_ok()
    }

    /// An invoker says that a container pulls.
    pub(crate) async fn succeeded(&self, container: ContainerId) {
        let _ = self.sender.send(Message::Succeeded(container)).await;
    }

    /// An invoker says that it could not create a container; whether a job here takes care of that.
    pub(crate) async fn failed(
        &self,
        container: ContainerId,
        peer: Peer,
        error: CreationError,
        message: String,
    ) -> bool {
        let (known, answer) = oneshot::channel();
        let _ = self
            .sender
            .send(Message::Failed {
                container,
                peer,
                error,
                message,
                known,
            })
            .await;
        answer.await.unwrap_or(false)
    }

    /// The table lost containers that this scheduler reserved.
    pub(crate) async fn gone(&self, containers: Vec<ContainerId>) {
        let _ = self.sender.send(Message::Gone(containers)).await;
    }

    /// Other schedulers lead these queues now, by this one's wish.
    pub(crate) async fn released(&self, queues: Vec<QueueKey>) {
        let _ = self.sender.send(Message::Released(queues)).await;
    }

    /// Passes on what was seen of invokers; dropped when there is no room, as more will be seen.
    pub(crate) fn observed(&self, observed: Vec<(InvokerId, Observation)>) {
        if !observed.is_empty() {
            let _ = self.sender.try_send(Message::Observed(observed));
        }
    }
}
