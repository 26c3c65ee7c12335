//! Proposes what became of containers: everything that waits at that moment shares one log entry, one is in flight.
//!
//! One at a time keeps the changes of a container in order, and a proposal whose outcome is not known is repeated
//! before anything later goes out. Whoever asked is answered once the change is applied on this node.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use whiskraft_state::{Command, ContainerChange, ContainerUpdate};
use whiskraft_types::{ContainerId, InvokerId, SessionId};

use crate::context::Context;

/// Updates that wait; a full channel holds back the control streams that report them.
const UPDATES_MAX: usize = 4096;
/// Updates in one log entry: some 100 KiB.
const BATCH_MAX: usize = 1024;
/// Pause before an entry whose outcome is unknown is proposed again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A change and whoever waits for it.
struct Waiting {
    update: ContainerUpdate,
    applied: Option<oneshot::Sender<()>>,
}

/// The near end of the batcher; a cheap copy.
#[derive(Clone)]
pub(crate) struct UpdatesHandle {
    sender: mpsc::Sender<Waiting>,
}

impl UpdatesHandle {
    /// Proposes a change, after everything passed in before, with the invoker that reported it if one did; the receiver hears when this node has applied it.
    pub(crate) async fn apply(
        &self,
        container: ContainerId,
        change: ContainerChange,
        reporter: Option<(InvokerId, SessionId)>,
    ) -> oneshot::Receiver<()> {
        let (applied, done) = oneshot::channel();
        let update = ContainerUpdate {
            container,
            change,
            reporter,
        };
        // Fails only when the process stops, and then the receiver hears that.
        let _ = self
            .sender
            .send(Waiting {
                update,
                applied: Some(applied),
            })
            .await;
        done
    }

    /// Proposes a change of this scheduler's own that nobody waits for.
    pub(crate) async fn push(&self, container: ContainerId, change: ContainerChange) {
        let _ = self
            .sender
            .send(Waiting {
                update: ContainerUpdate {
                    container,
                    change,
                    reporter: None,
                },
                applied: None,
            })
            .await;
    }
}

/// The batcher.
pub(crate) struct UpdatesActor {
    context: Context,
    waiting: mpsc::Receiver<Waiting>,
}

impl UpdatesActor {
    pub(crate) fn new(context: Context) -> (Self, UpdatesHandle) {
        let (sender, waiting) = mpsc::channel(UPDATES_MAX);
        (Self { context, waiting }, UpdatesHandle { sender })
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let updates: Vec<_> = batch.iter().map(|waiting| waiting.update.clone()).collect();
            self.propose(updates).await;
            for waiting in batch.drain(..) {
                if let Some(applied) = waiting.applied {
                    let _ = applied.send(());
                }
            }
        }
    }

    async fn propose(&self, updates: Vec<ContainerUpdate>) {
        loop {
            match self
                .context
                .propose(Command::UpdateContainers {
                    updates: updates.clone(),
                })
                .await
            {
                Ok((revision, _)) => {
                    let _ = self.context.node.wait_applied(revision).await;
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, updates = updates.len(), "container updates not proposed, tries again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}
