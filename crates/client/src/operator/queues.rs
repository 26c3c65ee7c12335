//! The queues of all schedulers: one snapshot, or one after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tonic::transport::Channel;
use whiskraft_proto::v1;
use whiskraft_types::{ActionName, NamespaceName, QueueKey, SchedulerId};

use super::{Operator, operator, unreadable};
use crate::calls::{Call, Tried};
use crate::{CallError, Client, QueueStatus};

/// Queues of a snapshot if the filter names no number.
const LIMIT_DEFAULT: usize = 1000;
/// Shown in errors.
const OPERATION: &str = "queues";

/// Which queues are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueFilter {
    /// Of this namespace only.
    pub namespace: Option<NamespaceName>,
    /// Of this action only.
    pub action: Option<ActionName>,
    /// Only those in which something waits.
    pub waiting_only: bool,
    /// Most queues of a snapshot; `None` is 1000. Those whose oldest activation waits longest come first.
    pub limit: Option<usize>,
}

/// The queues of all schedulers that answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueuesSnapshot {
    /// Longest waiting first, each as its leader describes it.
    pub queues: Vec<QueueStatus>,
    /// Queues led by those that answered, listed or not.
    pub queues_total: u64,
    /// Those of them that the filter lets through, in the snapshot or cut off by its limit.
    pub queues_matching: u64,
    /// Activations that wait in all of them.
    pub waiting_total: u64,
    /// Who answered.
    pub answered: Vec<SchedulerId>,
    /// Which of them may not act.
    pub fenced: Vec<SchedulerId>,
    /// Who did not answer, and why; their queues are missing.
    pub silent: Vec<(SchedulerId, CallError)>,
}

impl QueuesSnapshot {
    fn take(&mut self, response: Answer) {
        self.answered.push(response.scheduler);
        self.queues_total += response.queues_total;
        self.queues_matching += response.queues_matching;
        self.waiting_total += response.waiting_total;
        if response.is_fenced {
            self.fenced.push(response.scheduler);
        }
        self.queues.extend(response.queues);
    }

    /// Two schedulers may name a queue while it moves: the newer leadership counts.
    fn finish(&mut self, limit: usize) {
        let named = self.queues.len();
        let mut newest: BTreeMap<QueueKey, QueueStatus> = BTreeMap::new();
        for status in self.queues.drain(..) {
            let known = newest.get(&status.queue.key);
            if known.is_none_or(|known| known.queue.epoch < status.queue.epoch) {
                newest.insert(status.queue.key.clone(), status);
            }
        }
        let twice = (named - newest.len()) as u64;
        self.queues_matching = self.queues_matching.saturating_sub(twice);
        self.queues = newest.into_values().collect();
        // Stable: queues that wait equally long stay in the order of their names.
        self.queues
            .sort_by_key(|status| std::cmp::Reverse((status.oldest, status.waiting + status.held_back)));
        self.queues.truncate(limit);
    }
}

/// Snapshots one after the other. Dropping it ends it.
#[derive(Debug)]
pub struct QueuesWatch {
    operator: Operator,
    filter: QueueFilter,
    interval: tokio::time::Interval,
}

impl QueuesWatch {
    /// The next snapshot: the first at once, later ones an interval apart, none while nobody asks. Every one asks anew
    /// who the schedulers are.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answered; ask again, a cluster that elects a leader is back soon.
    pub async fn next(&mut self) -> Result<QueuesSnapshot, CallError> {
        self.interval.tick().await;
        self.operator.queues(&self.filter).await
    }
}

impl Operator {
    /// The queues of all schedulers now, each as its leader describes it.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answered. If some did, the snapshot names the others.
    pub async fn queues(&self, filter: &QueueFilter) -> Result<QueuesSnapshot, CallError> {
        let limit = filter.limit.unwrap_or(LIMIT_DEFAULT);
        let text = |name: Option<String>| name.unwrap_or_default();
        let request = v1::QueuesRequest {
            namespace: text(filter.namespace.as_ref().map(ToString::to_string)),
            action: text(filter.action.as_ref().map(ToString::to_string)),
            waiting_only: filter.waiting_only,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            interval_ms: 0,
        };
        let shared = self.client.shared();
        let call = Call::quick(shared, OPERATION);
        let members = self.client.members();
        let mut snapshot = QueuesSnapshot::default();
        if members.is_empty() {
            // Asks the endpoints, so that the error says why nobody is known.
            let answer = call.ask(shared, |channel| ask(channel, request.clone())).await?;
            snapshot.take(answer.value);
        }
        for (scheduler, answer) in ask_all(&self.client, call, members, &request).await {
            match answer {
                Ok(answer) => snapshot.take(answer),
                Err(error) => snapshot.silent.push((scheduler, error)),
            }
        }
        if snapshot.answered.is_empty()
            && let Some((_, error)) = snapshot.silent.pop()
        {
            return Err(error);
        }
        snapshot.finish(limit);
        Ok(snapshot)
    }

    /// Snapshots of [`queues`](Self::queues), so far apart. An interval of zero counts as a millisecond.
    #[must_use]
    pub fn watch_queues(&self, filter: QueueFilter, interval: Duration) -> QueuesWatch {
        let mut interval = tokio::time::interval(interval.max(Duration::from_millis(1)));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        QueuesWatch {
            operator: self.clone(),
            filter,
            interval,
        }
    }
}

/// What one scheduler says.
struct Answer {
    scheduler: SchedulerId,
    queues: Vec<QueueStatus>,
    queues_total: u64,
    queues_matching: u64,
    waiting_total: u64,
    is_fenced: bool,
}

async fn ask_all(
    client: &Client,
    call: Call,
    members: Vec<(SchedulerId, String)>,
    request: &v1::QueuesRequest,
) -> Vec<(SchedulerId, Result<Answer, CallError>)> {
    join_all(members.into_iter().map(|(scheduler, _)| async move {
        let answer = call.ask_member(client.shared(), scheduler, |channel| {
            ask(channel, request.clone())
        });
        (scheduler, answer.await)
    }))
    .await
}

async fn ask(channel: Channel, request: v1::QueuesRequest) -> Tried<Answer> {
    let mut answers = operator(channel).queues(request).await?.into_inner();
    let Some(answer) = answers.message().await? else {
        return Err(tonic::Status::unavailable("the stream ended before its answer"));
    };
    let queues: Result<_, _> = answer.queues.into_iter().map(QueueStatus::try_from).collect();
    Ok(Ok(Answer {
        scheduler: SchedulerId(answer.scheduler),
        queues: queues.map_err(unreadable)?,
        queues_total: answer.queues_total,
        queues_matching: answer.queues_matching,
        waiting_total: answer.waiting_total,
        is_fenced: answer.fenced,
    }))
}
