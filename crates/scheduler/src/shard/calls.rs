//! Who waits for whom in the queues of this shard, for the judgement over all queues of a namespace.

use tokio::sync::oneshot;
use whiskraft_queue::Calls;
use whiskraft_types::{NamespaceName, QueueKey};

use crate::message::Request;
use crate::shard::actor::Shard;
use crate::shard::handle::ShardsHandle;
use crate::shard::local::LocalQueue;

/// Activations looked at for one answer: well below a millisecond. Queues beyond it count as coming free.
const WORK_MAX: usize = 10_000;

impl Shard {
    /// What the queues of a namespace know of calls.
    pub(crate) fn calls(&self, namespace: &NamespaceName) -> Vec<(QueueKey, Calls)> {
        let mut work = 0;
        let slots = self.queues.in_namespace(namespace).into_iter();
        let queues = slots.filter_map(|slot| self.queues.get(slot));
        let of = |local: &LocalQueue| {
            work += local.queue.open_len();
            let calls = if work <= WORK_MAX {
                local.queue.calls()
            } else {
                Calls {
                    is_free: true,
                    ..Calls::default()
                }
            };
            (local.key().clone(), calls)
        };
        queues.map(of).collect()
    }
}

impl ShardsHandle {
    /// What all queues of a namespace that are led here know of calls; `None` only when the process stops.
    pub(crate) async fn calls(&self, namespace: &NamespaceName) -> Option<Vec<(QueueKey, Calls)>> {
        let mut all = Vec::new();
        for shard in 0..self.len() {
            let (answer, answered) = oneshot::channel();
            let namespace = namespace.clone();
            self.send(shard, Request::Calls { namespace, answer }).await;
            all.extend(answered.await.ok()?);
        }
        Some(all)
    }
}
