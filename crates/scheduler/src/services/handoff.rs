//! HandOff service: takes what other schedulers send of queues that this one is about to lead, and gives some of its own when
//! the balance asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1::{self, hand_off_server::HandOff};
use whiskraft_proto::{InvalidMessage, required};
use whiskraft_types::{Epoch, QueueKey, Rejection, SchedulerId, SessionId};

use crate::balance;
use crate::context::Context;
use crate::control::hello::check_cluster;
use crate::handoff::{HandOver, MovedActivation, from_wire, len_of};
use crate::message::Request as ShardRequest;
use crate::shard::{Import, ShardsHandle};

/// Unit of the memory that imports take.
const UNIT: usize = 1024;
/// Memory of all imports at a time, in units: 256 MiB.
const UNITS_MAX: usize = 256 << 10;

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct HandOffService {
    context: Context,
    shards: ShardsHandle,
    hand_over: HandOver,
    room: Arc<Semaphore>,
}

/// A queue of which parts have come.
struct Arriving {
    epoch: Epoch,
    activations: Vec<MovedActivation>,
    room: OwnedSemaphorePermit,
    is_whole: bool,
}

type Arrived = BTreeMap<QueueKey, Result<Arriving, Rejection>>;

impl HandOffService {
    pub(crate) fn new(context: Context, shards: ShardsHandle, hand_over: HandOver) -> Self {
        Self {
            context,
            shards,
            hand_over,
            room: Arc::new(Semaphore::new(UNITS_MAX)),
        }
    }

    /// Whether this scheduler would lead what it is sent.
    fn check(&self) -> Result<(), Status> {
        if self.context.is_leaving() {
            return Err(Status::unavailable("it is going itself"));
        }
        if !self.context.fence.allows(self.context.clock.now()) {
            return Err(Status::unavailable("it has lost touch with the others"));
        }
        Ok(())
    }

    fn add(&self, arrived: &mut Arrived, part: v1::MovedQueue) -> Result<(), InvalidMessage> {
        let key = QueueKey::try_from(required(part.key, "queue.key")?)?;
        let activations = part.activations.into_iter().map(from_wire);
        let activations: Vec<_> = activations.collect::<Result<_, _>>()?;
        let entry = arrived
            .entry(key)
            .or_insert_with(|| self.begin(Epoch(part.epoch)));
        let Ok(queue) = entry else {
            return Ok(()); // The rest of one that is too large.
        };
        let units = activations.iter().map(len_of).sum::<usize>().div_ceil(UNIT);
        match self.take_room(units) {
            Ok(room) => {
                queue.room.merge(room);
                queue.activations.extend(activations);
                queue.is_whole |= part.last;
            }
            Err(rejection) => *entry = Err(rejection),
        }
        Ok(())
    }

    fn begin(&self, epoch: Epoch) -> Result<Arriving, Rejection> {
        Ok(Arriving {
            epoch,
            activations: Vec::new(),
            room: self.take_room(1)?,
            is_whole: false,
        })
    }

    fn take_room(&self, units: usize) -> Result<OwnedSemaphorePermit, Rejection> {
        let wanted = u32::try_from(units).unwrap_or(u32::MAX);
        Arc::clone(&self.room)
            .try_acquire_many_owned(wanted)
            .map_err(|_| Rejection::TooLarge {
                len: (units * UNIT) as u64,
                len_max: (self.room.available_permits() * UNIT) as u64,
            })
    }

    /// Puts what came whole where the leadership finds it when it begins.
    async fn keep(&self, session: SessionId, attempt: u64, arrived: Arrived) -> Vec<v1::ImportedQueue> {
        let mut answers = Vec::with_capacity(arrived.len());
        for (key, queue) in arrived {
            let rejection = match queue {
                Err(rejection) => Some(rejection),
                Ok(queue) if !queue.is_whole => Some(Rejection::Invalid {
                    reason: format!("the end of queue {key} is missing"),
                }),
                Ok(queue) => {
                    let import = Import {
                        epoch: queue.epoch,
                        session,
                        attempt,
                        activations: queue.activations,
                        _room: queue.room,
                    };
                    self.put(&key, import).await
                }
            };
            answers.push(v1::ImportedQueue {
                key: Some((&key).into()),
                rejection: rejection.map(Into::into),
            });
        }
        answers
    }

    async fn put(&self, key: &QueueKey, import: Import) -> Option<Rejection> {
        let (answer, kept) = oneshot::channel();
        let request = ShardRequest::Import {
            key: key.clone(),
            import,
            answer,
        };
        self.shards.send_to(key, request).await;
        kept.await.err().map(|_| Rejection::Unavailable {
            reason: "the scheduler is stopping".to_owned(),
        })
    }
}

#[tonic::async_trait]
impl HandOff for HandOffService {
    async fn import(
        &self,
        request: Request<Streaming<v1::ImportFrame>>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        self.check()?;
        let mut frames = request.into_inner();
        let mut arrived = Arrived::new();
        let mut hello = None;
        while let Some(frame) = frames.message().await? {
            if hello.is_none() {
                check_cluster(&self.context, &frame.cluster_id)?;
                hello = Some((SessionId(frame.session), frame.attempt));
            }
            for part in frame.queues {
                self.add(&mut arrived, part)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
            }
        }
        let Some((session, attempt)) = hello else {
            return Err(Status::invalid_argument("the first frame is missing"));
        };
        let queues = self.keep(session, attempt, arrived).await;
        Ok(Response::new(v1::ImportResponse { queues }))
    }

    async fn forget_import(
        &self,
        request: Request<v1::ForgetImportRequest>,
    ) -> Result<Response<v1::ForgetImportResponse>, Status> {
        let request = request.into_inner();
        for key in request.keys {
            let key = QueueKey::try_from(key).map_err(|error| Status::invalid_argument(error.to_string()))?;
            let forget = ShardRequest::ForgetImport {
                session: SessionId(request.session),
                attempt: request.attempt,
                key: key.clone(),
            };
            self.shards.send_to(&key, forget).await;
        }
        // Its shards have done it when they answer this.
        for shard in 0..self.shards.len() {
            let (answer, done) = oneshot::channel();
            self.shards.send(shard, ShardRequest::Barrier { answer }).await;
            done.await
                .map_err(|_| Status::unavailable("the scheduler is stopping"))?;
        }
        Ok(Response::new(v1::ForgetImportResponse {}))
    }

    async fn give_queues(
        &self,
        request: Request<v1::GiveQueuesRequest>,
    ) -> Result<Response<v1::GiveQueuesResponse>, Status> {
        let request = request.into_inner();
        let moved = balance::give(
            &self.context,
            &self.hand_over,
            SchedulerId(request.to),
            request.count,
        )
        .await;
        Ok(Response::new(v1::GiveQueuesResponse { moved }))
    }
}
