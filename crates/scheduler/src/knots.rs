//! Judges whether the containers of a queue come free, where that depends on queues led by other shards or schedulers.
//!
//! Asked by a queue in which calls wait that no container can be added for. All that lead queues with containers in the
//! namespace say who waits for whom there; if one does not, there is no judgement, and the calls go on waiting. The
//! answers are not of one moment: the queue acts only on judgements that stay the same while it serves nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_proto::{InvalidMessage, activation_id, activation_id_bytes, required, v1};
use whiskraft_queue::{Call, Calls, comes_free};
use whiskraft_types::{Epoch, NamespaceName, QueueKey};

use crate::context::Context;
use crate::message::Request;
use crate::neighbours::{Channels, leaders_beside};
use crate::shard::ShardsHandle;

/// Queues that wait to be judged; one that finds no room asks again.
const ASKED_MAX: usize = 256;
/// Queues judged at a time.
const JUDGED_MAX: usize = 16;
/// Longest wait for another scheduler.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(300);

/// The near end; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct KnotsHandle {
    sender: mpsc::Sender<(QueueKey, Epoch)>,
}

impl KnotsHandle {
    /// Asks for a judgement, which comes as [`Request::Knotted`].
    pub(crate) fn ask(&self, key: &QueueKey, epoch: Epoch) {
        let _ = self.sender.try_send((key.clone(), epoch));
    }
}

/// Judges.
pub(crate) struct Knots {
    context: Context,
    shards: ShardsHandle,
    asked: mpsc::Receiver<(QueueKey, Epoch)>,
    channels: Channels,
    /// Queues that are being judged.
    busy: BTreeSet<QueueKey>,
}

impl Knots {
    pub(crate) fn new(context: Context, shards: ShardsHandle) -> (Self, KnotsHandle) {
        let (sender, asked) = mpsc::channel(ASKED_MAX);
        let knots = Self {
            context,
            shards,
            asked,
            channels: Channels::default(),
            busy: BTreeSet::new(),
        };
        (knots, KnotsHandle { sender })
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let mut judged = FuturesUnordered::new();
        let context = self.context.clone();
        let stopping = context.stopping();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => return,
                Some(key) = judged.next() => drop(self.busy.remove(&key)),
                asked = self.asked.recv(), if judged.len() < JUDGED_MAX => match asked {
                    Some((key, epoch)) if self.busy.insert(key.clone()) => judged.push(self.judge(key, epoch)),
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    /// Judges one queue and tells it; gives the queue back.
    fn judge(&mut self, key: QueueKey, epoch: Epoch) -> BoxFuture<'static, QueueKey> {
        let addresses = leaders_beside(&self.context, &key.namespace).into_iter();
        let others: Option<Vec<_>> = addresses.map(|address| self.channels.get(&address)).collect();
        let shards = self.shards.clone();
        async move {
            if let Some(others) = others
                && let Some(is_knotted) = is_knotted(&shards, others, &key).await
            {
                let told = Request::Knotted {
                    key: key.clone(),
                    epoch,
                    is_knotted,
                };
                shards.try_send_to(&key, told);
            }
            key
        }
        .boxed()
    }
}

/// Whether no container of the queue comes free; `None` if not everybody answered.
async fn is_knotted(shards: &ShardsHandle, others: Vec<Channel>, key: &QueueKey) -> Option<bool> {
    let namespace = &key.namespace;
    let own = shards.calls(namespace).await?;
    let asks = others.into_iter().map(|channel| calls_at(channel, namespace));
    let others: Option<Vec<_>> = join_all(asks).await.into_iter().collect();
    let all: Vec<_> = own.into_iter().chain(others?.into_iter().flatten()).collect();
    let len = all.len();
    let by_key: BTreeMap<QueueKey, Calls> = all.into_iter().collect();
    // A queue that two answered for has just moved.
    if by_key.len() < len {
        return None;
    }
    let whose = by_key.keys().position(|other| other == key)?;
    let all: Vec<Calls> = by_key.into_values().collect();
    Some(!comes_free(&all, whose))
}

/// What another scheduler knows; `None` if it does not say in time.
async fn calls_at(channel: Channel, namespace: &NamespaceName) -> Option<Vec<(QueueKey, Calls)>> {
    let request = v1::CallsRequest {
        namespace: namespace.to_string(),
    };
    let mut client = OperatorClient::new(channel);
    let answer = tokio::time::timeout(ANSWER_WAIT_MAX, client.calls(request)).await;
    let queues = match answer {
        Ok(Ok(answer)) => answer.into_inner().queues,
        Ok(Err(status)) => {
            tracing::debug!(%namespace, error = &status as &dyn std::error::Error, "calls are not known");
            return None;
        }
        Err(_elapsed) => return None,
    };
    let read: Result<Vec<_>, _> = queues.into_iter().map(from_wire).collect();
    read.ok()
}

fn from_wire(queue: v1::QueueCalls) -> Result<(QueueKey, Calls), InvalidMessage> {
    let key = QueueKey::try_from(required(queue.key, "key")?)?;
    let in_flight = queue.in_flight.iter().map(|id| activation_id(id));
    let calls = queue.calls.iter().map(|call| {
        Ok::<_, InvalidMessage>(Call {
            caller: activation_id(&call.caller)?,
            id: activation_id(&call.id)?,
            waits: call.waits,
        })
    });
    let calls = Calls {
        is_free: queue.is_free,
        in_flight: in_flight.collect::<Result<_, _>>()?,
        calls: calls.collect::<Result<_, _>>()?,
    };
    Ok((key, calls))
}

/// The answer to another scheduler.
pub(crate) fn to_wire(queues: &[(QueueKey, Calls)]) -> v1::CallsResponse {
    let call = |call: &Call| v1::Call {
        caller: activation_id_bytes(call.caller),
        id: activation_id_bytes(call.id),
        waits: call.waits,
    };
    let queue = |(key, calls): &(QueueKey, Calls)| v1::QueueCalls {
        key: Some(key.into()),
        is_free: calls.is_free,
        in_flight: calls
            .in_flight
            .iter()
            .map(|id| activation_id_bytes(*id))
            .collect(),
        calls: calls.calls.iter().map(call).collect(),
    };
    v1::CallsResponse {
        queues: queues.iter().map(queue).collect(),
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::ActivationId;

    use super::*;

    #[test]
    fn calls_are_read_as_they_were_written() {
        let id = |byte| ActivationId::from_bytes([byte; 16]);
        let key = QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/hello".parse().unwrap(),
        };
        let call = Call {
            caller: id(1),
            id: id(2),
            waits: true,
        };
        let calls = Calls {
            is_free: true,
            in_flight: vec![id(3), id(4)],
            calls: vec![call],
        };
        let queues = vec![(key, calls)];
        let read: Result<Vec<_>, _> = to_wire(&queues).queues.into_iter().map(from_wire).collect();
        assert_eq!(read.unwrap(), queues);
    }
}
