//! Hot path: an invoker's Pull stream, both directions in one task.
//! Budget per activation: one look-up of the container's queue, one allocation for the shared record, one for the id;
//! payload and result are the buffers they came in. No lock that it waits for, no Raft, no disk; a frame carries
//! what is ready. Only to forget containers that are gone, which is rare, it waits for the tables.
//!
//! Like the Submit stream the task never waits for its peer to read before it reads itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tonic::{Status, Streaming};
use whiskraft_proto::{InvalidMessage, activation_id, activation_id_bytes, required, v1};
use whiskraft_queue::RegisteredContainer;
use whiskraft_types::{ActivationRecord, ActivationStatus, ContainerId, Epoch, QueueKey, Revision};

use crate::context::Context;
use crate::control::hello::Peer;
use crate::failpoint::failpoint;
use crate::intern::Keys;
use crate::message::{PullInput, PullItem, PullKind, Record, Request, StreamEnd};
use crate::shard::ShardsHandle;

/// Batches that wait for one stream. Deliveries are bounded by credits; an invoker that lets more pile up is cut and
/// registers again.
const BATCHES_MAX: usize = 1024;
/// Batches put into one frame.
const BATCHES_PER_FRAME: usize = 64;
/// Bytes of payloads after which a frame is full; its last delivery may exceed it.
const FRAME_LEN: usize = 1 << 20;
/// Containers known per stream before those that the table has lost are forgotten.
const ROUTES_SLACK: usize = 1024;

type Frames = mpsc::Sender<Result<v1::PullDown, Status>>;

/// Where the frames of a container go.
#[derive(Debug, Clone)]
struct Route {
    key: QueueKey,
    shard: usize,
    epoch: Epoch,
}

/// One stream.
pub(crate) struct PullStream {
    context: Context,
    shards: ShardsHandle,
    peer: Peer,
    frames: Frames,
    end: StreamEnd<PullItem>,
    batches: mpsc::Receiver<Vec<PullItem>>,
    keys: Keys,
    routes: HashMap<ContainerId, Route>,
    routes_max: usize,
    ready: VecDeque<PullItem>,
    /// Per shard, the inputs of the frame under way.
    outgoing: Vec<Vec<PullInput>>,
}

impl PullStream {
    pub(crate) fn new(context: Context, shards: ShardsHandle, peer: Peer, frames: Frames) -> Self {
        let (items, batches) = mpsc::channel(BATCHES_MAX);
        let end = StreamEnd {
            stream: context.next_stream(),
            items,
            cut: Arc::new(Notify::new()),
        };
        let outgoing = (0..shards.len()).map(|_| Vec::new()).collect();
        Self {
            context,
            shards,
            peer,
            frames,
            end,
            batches,
            keys: Keys::default(),
            routes: HashMap::new(),
            routes_max: ROUTES_SLACK,
            ready: VecDeque::new(),
            outgoing,
        }
    }

    /// Runs until either end closes, the stream is cut or the process stops.
    pub(crate) async fn run(mut self, first: v1::PullUp, mut incoming: Streaming<v1::PullUp>) {
        let (peer, stream) = (self.peer, self.end.stream);
        let end = self.end.clone();
        self.shards
            .send_all(|| Request::PullOpened {
                peer,
                end: end.clone(),
            })
            .await;
        let context = self.context.clone();
        let cut = Arc::clone(&self.end.cut);
        tokio::select! {
            biased;
            () = context.stopping() => {}
            () = cut.notified() => {}
            () = self.serve(first, &mut incoming) => {}
        }
        self.shards
            .send_all(|| Request::PullClosed { peer, stream })
            .await;
        tracing::debug!(invoker = %peer.invoker, "pull stream ended");
    }

    async fn serve(&mut self, first: v1::PullUp, incoming: &mut Streaming<v1::PullUp>) {
        let welcome = v1::ControlWelcome {
            scheduler: self.context.node.id().0,
        };
        let welcome = v1::PullDown {
            welcome: Some(welcome),
            ..Default::default()
        };
        if self.frames.send(Ok(welcome)).await.is_err() {
            return;
        }
        self.on_frame(first).await;
        let frames = self.frames.clone();
        let mut batches = Vec::with_capacity(BATCHES_PER_FRAME);
        loop {
            tokio::select! {
                biased;
                permit = frames.reserve(), if !self.ready.is_empty() => match permit {
                    Ok(permit) => {
                        let frame = self.next_frame();
                        if !frame.deliver.is_empty() {
                            failpoint!("deliver-before-sent");
                        }
                        permit.send(Ok(frame));
                    }
                    Err(_closed) => return,
                },
                count = self.batches.recv_many(&mut batches, BATCHES_PER_FRAME), if self.ready.is_empty() => {
                    if count == 0 {
                        return;
                    }
                    self.ready.extend(batches.drain(..).flatten());
                }
                frame = incoming.message() => match frame {
                    Ok(Some(frame)) => self.on_frame(frame).await,
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    /// Registers first: they say what the rest of the frame is about. Then in the order of an activation's life.
    async fn on_frame(&mut self, frame: v1::PullUp) {
        for register in frame.registers {
            self.take(|this| this.register(register));
        }
        for started in frame.started {
            self.take(|this| this.started(&started));
        }
        for completed in frame.completed {
            self.take(|this| this.completed(completed));
        }
        for refused in frame.refused {
            self.take(|this| this.refused(&refused));
        }
        for withdraw in frame.withdraw {
            self.take(|this| this.withdraw(withdraw));
        }
        for credit in frame.credits {
            self.take(|this| this.credit(credit));
        }
        for shard in 0..self.outgoing.len() {
            let inputs = std::mem::take(&mut self.outgoing[shard]);
            if !inputs.is_empty() {
                let request = Request::Pull {
                    peer: self.peer,
                    stream: self.end.stream,
                    inputs,
                };
                self.shards.send(shard, request).await;
            }
        }
        if self.routes.len() > self.routes_max {
            self.forget_routes();
        }
    }

    /// Parses one message; a bad one is dropped by itself, as a status would end the stream for all containers.
    fn take(&mut self, parse: impl FnOnce(&mut Self) -> Result<(Route, PullKind), InvalidMessage>) {
        match parse(self) {
            Ok((Route { key, shard, epoch }, kind)) => {
                self.outgoing[shard].push(PullInput { key, epoch, kind })
            }
            Err(error) => {
                tracing::warn!(invoker = %self.peer.invoker, %error, "message on pull stream dropped")
            }
        }
    }

    fn route(&self, container: ContainerId, epoch: u64) -> Result<Route, InvalidMessage> {
        let route = self
            .routes
            .get(&container)
            .ok_or_else(|| InvalidMessage::Invalid {
                field: "container",
                reason: format!("{container} has not named its queue on this stream yet"),
            })?;
        Ok(Route {
            epoch: Epoch(epoch),
            ..route.clone()
        })
    }

    fn learn(
        &mut self,
        container: ContainerId,
        key: Option<v1::QueueKey>,
        epoch: u64,
    ) -> Result<Route, InvalidMessage> {
        let epoch = Epoch(epoch);
        let is_same = |route: &Route| {
            key.as_ref().is_none_or(|key| {
                key.namespace == route.key.namespace.as_str() && key.action == route.key.action.as_str()
            })
        };
        if let Some(route) = self.routes.get_mut(&container).filter(|route| is_same(route)) {
            route.epoch = epoch;
            return Ok(route.clone());
        }
        let (key, shard) = self.keys.parse(&self.shards, &self.context.node, key)?;
        let route = Route { key, shard, epoch };
        self.routes.insert(container, route.clone());
        Ok(route)
    }

    fn credit(&mut self, credit: v1::Credit) -> Result<(Route, PullKind), InvalidMessage> {
        let container = ContainerId::from(required(credit.container, "credit.container")?);
        let route = self.learn(container, credit.key, credit.epoch)?;
        Ok((
            route,
            PullKind::Credit {
                container,
                count: credit.count,
                warmed: credit.warmed,
            },
        ))
    }

    fn started(&self, started: &v1::Started) -> Result<(Route, PullKind), InvalidMessage> {
        let container = ContainerId::from(required(started.container, "started.container")?);
        let id = activation_id(&started.id)?;
        Ok((
            self.route(container, started.epoch)?,
            PullKind::Started { container, id },
        ))
    }

    fn completed(&mut self, completed: v1::Completed) -> Result<(Route, PullKind), InvalidMessage> {
        let container = ContainerId::from(required(completed.container, "completed.container")?);
        let route = self.learn(container, completed.key, completed.epoch)?;
        let record = record(completed.record)?;
        let duration = duration(&record, completed.run_us);
        Ok((
            route,
            PullKind::Completed {
                container,
                record,
                duration,
                credits: completed.credits,
            },
        ))
    }

    fn refused(&self, refused: &v1::Refused) -> Result<(Route, PullKind), InvalidMessage> {
        let container = ContainerId::from(required(refused.container, "refused.container")?);
        let id = activation_id(&refused.id)?;
        tracing::trace!(activation = %id, %container, reason = refused.reason, "refused");
        Ok((
            self.route(container, refused.epoch)?,
            PullKind::Refused { container, id },
        ))
    }

    fn withdraw(&self, withdraw: v1::Withdraw) -> Result<(Route, PullKind), InvalidMessage> {
        let container = ContainerId::from(required(withdraw.container, "withdraw.container")?);
        let epoch = self.routes.get(&container).map_or(0, |route| route.epoch.0);
        Ok((self.route(container, epoch)?, PullKind::Withdraw { container }))
    }

    fn register(&mut self, register: v1::Register) -> Result<(Route, PullKind), InvalidMessage> {
        let (key, shard) = self.keys.parse(&self.shards, &self.context.node, register.key)?;
        let route = Route {
            key,
            shard,
            epoch: Epoch(register.epoch),
        };
        let containers = register.containers.into_iter().map(registered);
        let containers = containers.collect::<Result<Vec<_>, InvalidMessage>>()?;
        for container in &containers {
            self.routes.insert(container.container, route.clone());
        }
        let unacknowledged = register
            .unacknowledged
            .into_iter()
            .map(|message| record(Some(message)));
        let unacknowledged = unacknowledged.collect::<Result<_, _>>()?;
        Ok((
            route,
            PullKind::Register {
                containers,
                unacknowledged,
            },
        ))
    }

    /// Forgets containers that are gone: rarely, and at a cost in proportion to those that came since.
    fn forget_routes(&mut self) {
        let routes = &mut self.routes;
        self.context
            .node
            .read(|state| routes.retain(|id, _| state.container(*id).is_some()));
        self.routes_max = self.routes.len() * 2 + ROUTES_SLACK;
    }

    /// A frame of what is ready, up to its length.
    fn next_frame(&mut self) -> v1::PullDown {
        let mut frame = v1::PullDown::default();
        let mut len = 0;
        while len < FRAME_LEN
            && let Some(item) = self.ready.pop_front()
        {
            match item {
                PullItem::Deliver {
                    id,
                    container,
                    epoch,
                    attempt,
                    run,
                    waited,
                    payload,
                } => {
                    len += payload.arguments.len();
                    frame.deliver.push(v1::Deliver {
                        id: activation_id_bytes(id),
                        container: Some(container.into()),
                        epoch: epoch.0,
                        payload: payload.arguments.clone(),
                        attempt,
                        waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                        transaction: payload.transaction.clone(),
                        subject: payload.subject.clone(),
                        api_key: payload.api_key.clone(),
                        cause: payload.cause.clone(),
                        run,
                    });
                }
                PullItem::Stop { id, container, epoch } => frame.stops.push(v1::StopActivation {
                    id: activation_id_bytes(id),
                    container: Some(container.into()),
                    epoch: epoch.0,
                }),
                PullItem::CompletedAck(id) => frame.completed_acks.push(activation_id_bytes(id)),
                PullItem::WithdrawAck(container) => {
                    frame.withdraw_acks.push(v1::WithdrawAck {
                        container: Some(container.into()),
                    });
                }
                PullItem::Reregister(key, epoch) => {
                    frame.reregister.push(v1::Reregister {
                        key: Some((&key).into()),
                        epoch: epoch.0,
                    });
                }
                PullItem::Rejected {
                    container,
                    key,
                    rejection,
                } => frame.rejected.push(v1::PullRejected {
                    container: container.map(Into::into),
                    key: Some((&key).into()),
                    rejection: Some(rejection.into()),
                }),
            }
        }
        frame
    }
}

fn record(record: Option<v1::ActivationRecord>) -> Result<Record, InvalidMessage> {
    Ok(Arc::new(ActivationRecord::try_from(required(record, "record")?)?))
}

/// Length of the run; one that the platform failed says nothing about the action.
fn duration(record: &Record, run_us: u64) -> Option<Duration> {
    let is_telling = run_us > 0 && record.status != ActivationStatus::WhiskError;
    is_telling.then(|| Duration::from_micros(run_us))
}

fn registered(container: v1::RegisteredContainer) -> Result<RegisteredContainer, InvalidMessage> {
    let in_flight = container.in_flight.iter().map(|id| activation_id(id));
    Ok(RegisteredContainer {
        container: required(container.container, "register.container")?.into(),
        revision: Revision(container.revision),
        in_flight: in_flight.collect::<Result<_, _>>()?,
        credits: container.credits,
        warmed: container.warmed,
    })
}
