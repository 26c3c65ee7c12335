//! Changes of documents on their way: what is asked for while calls are under way goes along with the next.
//!
//! One try of one caller is one change here; who tries again, and where, is decided in `calls`.
//!
//! - **Invariant:** what becomes of a call becomes of every change in it; whoever stops waiting changes nothing for the others.
//! - **Invariant:** a call ends no later than the first try in it is given up: what is given up is not carried out long after,
//!   over what its caller wrote since.

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
use whiskraft_types::Instant;

use crate::calls::{Tried, Try};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::documents::outcome;

/// Changes that wait or are in a call; more wait outside.
const CHANGES_MAX: usize = 4096;
/// The part of a try's time that must be left when it leaves: with less it would end the call early for all the others.
const LEFT_PART: u32 = 3;
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
    once: Try,
    /// When the try is given up.
    deadline: Instant,
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
    clock: Clock,
    asked: mpsc::Sender<Asked>,
    permits: Arc<Semaphore>,
}

impl ChangesHandle {
    /// Tries a change once, at this scheduler.
    pub(crate) async fn change(
        &self,
        address: String,
        channel: Channel,
        once: Try,
        change: Change,
    ) -> Tried<Outcome> {
        let deadline = self.clock.now() + once.limit;
        let ended = || Status::cancelled("the client has ended");
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            address,
            channel,
            once,
            deadline,
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
    clock: Clock,
    directory: Arc<Directory>,
    /// Of a try that leaves, at least.
    left_min: Duration,
    asked: mpsc::Receiver<Asked>,
    /// By address.
    lines: BTreeMap<String, Line<Asked>>,
    /// Each ends with the address that was called.
    calls: FuturesUnordered<BoxFuture<'static, String>>,
}

impl Changes {
    /// The actor and the way to it; `try_deadline` is the longest time that a try has.
    pub(crate) fn new(directory: Arc<Directory>, try_deadline: Duration) -> (Self, ChangesHandle) {
        let (sender, asked) = mpsc::channel(CHANGES_MAX);
        let clock = Clock::start();
        let handle = ChangesHandle {
            clock,
            asked: sender,
            permits: Arc::new(Semaphore::new(CHANGES_MAX)),
        };
        let changes = Self {
            clock,
            directory,
            left_min: try_deadline / LEFT_PART,
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
                let Some((limit, batch)) = leaving(self.clock.now(), self.left_min, batch) else {
                    line.end();
                    continue;
                };
                let call = call(Arc::clone(&self.directory), limit, batch);
                let address = address.clone();
                self.calls.push(Box::pin(async move {
                    call.await;
                    address
                }));
            }
        }
    }
}

/// What leaves now, and how long the call may take. What has too little time left fails as a try that never left.
fn leaving(now: Instant, left_min: Duration, batch: Vec<Asked>) -> Option<(Duration, Vec<Asked>)> {
    let mut leaving = Vec::with_capacity(batch.len());
    for asked in batch {
        if asked.deadline.saturating_since(now) < left_min {
            let late = Status::deadline_exceeded("too little time was left for a call");
            drop(asked.answer.send(Err(late)));
        } else if asked.once.leave() {
            leaving.push(asked);
        }
    }
    let first = leaving.iter().map(|asked| asked.deadline).min()?;
    Some((first.saturating_since(now), leaving))
}

/// One call with all of these.
async fn call(directory: Arc<Directory>, limit: Duration, batch: Vec<Asked>) {
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
    let changed = match tokio::time::timeout(limit, client.change_documents(request)).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    type Answered = oneshot::Receiver<Result<v1::DocumentChanged, Status>>;

    fn at(ms: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(ms))
    }

    fn asked(deadline: u64) -> (Asked, Answered) {
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            address: "h:1".to_owned(),
            channel: tonic::transport::Endpoint::from_static("http://h:1").connect_lazy(),
            once: Try::new(Duration::ZERO),
            deadline: at(deadline),
            change: v1::DocumentChange::default(),
            answer,
            _permit: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        };
        (asked, answered)
    }

    #[tokio::test]
    async fn a_call_ends_with_its_first_try_and_what_is_late_or_given_up_never_leaves() {
        let (now, left_min) = (at(1000), Duration::from_millis(100));
        let (batch, mut answers): (Vec<_>, Vec<_>) =
            [1900, 1099, 1300, 1600, 900].map(asked).into_iter().unzip();
        assert!(batch[3].once.leave(), "given up meanwhile");
        let tries: Vec<_> = batch.iter().map(|asked| asked.once.clone()).collect();
        let (limit, leaving) = leaving(now, left_min, batch).unwrap();
        let deadlines: Vec<_> = leaving.iter().map(|asked| asked.deadline).collect();
        assert_eq!(
            (limit, deadlines),
            (Duration::from_millis(300), vec![at(1900), at(1300)])
        );
        for late in [1, 4] {
            assert!(answers[late].try_recv().unwrap().is_err());
            assert!(tries[late].leave(), "it had not left");
        }
        assert!(!tries[0].leave() && !tries[2].leave());
    }

    #[tokio::test]
    async fn no_call_is_made_with_nothing() {
        let (late, _answer) = asked(1000);
        assert!(leaving(at(1000), Duration::from_millis(1), vec![late]).is_none());
    }
}
