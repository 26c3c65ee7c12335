//! Changes of documents on their way: what is asked for while calls are under way goes along with the next.
//!
//! One try of one caller is one change here; who tries again, and where, is decided in `calls`.
//!
//! - **Invariant:** what becomes of a call becomes of every change in it; whoever stops waiting changes nothing for the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::Status;
use tonic::transport::Channel;
use whiskraft_proto::gather::{CallBounds, Line, Load};
use whiskraft_proto::v1::document_change::Change;
use whiskraft_proto::v1::document_changed::Outcome;
use whiskraft_proto::{MESSAGE_LEN_MAX, Message, v1};

use crate::calls::Tried;
use crate::directory::Directory;
use crate::documents::outcome;

/// Changes that wait or are in a call; more wait outside.
const CHANGES_MAX: usize = 4096;
/// Calls to one scheduler: with two it always has the next one at hand, and the more there are the less is in each.
const CALLS: CallBounds = CallBounds {
    calls_max: 2,
    count_max: 512,
    bytes_max: 1 << 20,
};

/// A change for one scheduler, which is tried once.
struct Asked {
    address: String,
    channel: Channel,
    change: v1::DocumentChange,
    answer: oneshot::Sender<Result<v1::DocumentChanged, Status>>,
    _permit: OwnedSemaphorePermit,
}

impl Load for Asked {
    fn bytes(&self) -> usize {
        self.change.encoded_len()
    }

    fn is_unwanted(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The way to the changes of a client.
#[derive(Debug, Clone)]
pub(crate) struct ChangesHandle {
    asked: mpsc::Sender<Asked>,
    permits: Arc<Semaphore>,
}

impl ChangesHandle {
    /// Tries a change once, at this scheduler.
    pub(crate) async fn change(&self, address: String, channel: Channel, change: Change) -> Tried<Outcome> {
        let ended = || Status::cancelled("the client has ended");
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            address,
            channel,
            change: v1::DocumentChange { change: Some(change) },
            answer,
            _permit: permit.map_err(|_| ended())?,
        };
        self.asked.send(asked).await.map_err(|_| ended())?;
        outcome(answered.await.map_err(|_| ended())??)
    }
}

/// The actor; one per client.
pub(crate) struct Changes {
    directory: Arc<Directory>,
    /// For one call.
    deadline: Duration,
    asked: mpsc::Receiver<Asked>,
    /// By address.
    lines: BTreeMap<String, Line<Asked>>,
    /// Each ends with the address that was called.
    calls: FuturesUnordered<BoxFuture<'static, String>>,
}

impl Changes {
    /// The actor and the way to it.
    pub(crate) fn new(directory: Arc<Directory>, deadline: Duration) -> (Self, ChangesHandle) {
        let (sender, asked) = mpsc::channel(CHANGES_MAX);
        let handle = ChangesHandle {
            asked: sender,
            permits: Arc::new(Semaphore::new(CHANGES_MAX)),
        };
        let changes = Self {
            directory,
            deadline,
            asked,
            lines: BTreeMap::new(),
            calls: FuturesUnordered::new(),
        };
        (changes, handle)
    }

    /// Runs until every handle is gone.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(address) = self.calls.next() => {
                    if let Some(line) = self.lines.get_mut(&address) {
                        line.end();
                    }
                }
                asked = self.asked.recv() => match asked {
                    Some(asked) => {
                        // Whoever is about to ask as well, after an answer of the same call above all, does so first.
                        tokio::task::yield_now().await;
                        self.on_asked(asked);
                    }
                    None => return,
                },
            }
            self.call();
            self.lines.retain(|_, line| !line.is_idle());
        }
    }

    /// Takes all that is there, so that it goes together.
    fn on_asked(&mut self, first: Asked) {
        let mut next = Some(first);
        while let Some(asked) = next {
            let line = self.lines.entry(asked.address.clone());
            line.or_insert_with(|| Line::new(CALLS)).push(asked);
            next = self.asked.try_recv().ok();
        }
    }

    /// Begins as many calls as there may and need be.
    fn call(&mut self) {
        for (address, line) in &mut self.lines {
            while let Some(batch) = line.begin() {
                let call = call(Arc::clone(&self.directory), self.deadline, batch);
                let address = address.clone();
                self.calls.push(Box::pin(async move {
                    call.await;
                    address
                }));
            }
        }
    }
}

/// One call with all of these.
async fn call(directory: Arc<Directory>, deadline: Duration, batch: Vec<Asked>) {
    let Some(channel) = batch.first().map(|asked| asked.channel.clone()) else {
        return;
    };
    let (changes, answers): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|asked| (asked.change, (asked.answer, asked._permit)))
        .unzip();
    let mut client =
        v1::documents_client::DocumentsClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    let request = v1::ChangeDocumentsRequest { changes };
    let changed = match tokio::time::timeout(deadline, client.change_documents(request)).await {
        Ok(changed) => changed.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    };
    let mut outcomes = changed.map(|changed| {
        directory.note_log_leader(changed.log_leader);
        changed.outcomes.into_iter()
    });
    for (answer, _permit) in answers {
        let outcome = match &mut outcomes {
            Ok(outcomes) => outcomes
                .next()
                .ok_or_else(|| Status::data_loss("fewer outcomes than changes")),
            Err(status) => Err(status.clone()),
        };
        // Whoever has stopped waiting does not know.
        drop(answer.send(outcome));
    }
}
