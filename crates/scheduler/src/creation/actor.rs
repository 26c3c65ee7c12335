//! The creation actor: owns every container on its way that this scheduler's queues asked for.
//!
//! Order of a creation: slot granted by the log, place chosen and written to the log, and only then the invoker is
//! told; so an invoker whose session ends takes the container out of the table in the same apply.
//! Invariant: a job ends in exactly one of: the container pulls, the queue hears `CreationFailed` and the slot is given
//! back, or the table has lost the container by itself.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use whiskraft_proto::v1;
use whiskraft_queue::{Backoff, CreationJob, CreationSettings, CreationStep};
use whiskraft_state::{ContainerChange, ContainerState, GrantedContainer};
use whiskraft_types::{ContainerId, CreationError, Instant, InvokerId};

use crate::context::Context;
use crate::control::registry::{ControlCommand, ControlStreams};
use crate::creation::handle::{Message, Wish};
use crate::creation::job::{Job, Jobs};
use crate::creation::place::{self, Placer};
use crate::creation::reserve::{Numbers, Reserved, WISHES_MAX, reserve};
use crate::creation::sweep::Sweep;
use crate::message::Request;
use crate::shard::ShardsHandle;
use crate::updates::UpdatesHandle;

/// Messages taken per turn.
const MESSAGES_PER_TURN: usize = 256;

/// What the actor is made of.
pub(crate) struct CreationParts {
    pub(crate) context: Context,
    pub(crate) messages: mpsc::Receiver<Message>,
    pub(crate) shards: ShardsHandle,
    pub(crate) streams: ControlStreams,
    pub(crate) updates: UpdatesHandle,
    /// For the choice among equal invokers.
    pub(crate) seed: u64,
}

/// Something the log has answered.
enum Done {
    Reserved(Reserved),
    Placed(ContainerId, InvokerId),
}

type DoneFuture = futures::future::BoxFuture<'static, Done>;

/// The actor.
pub(crate) struct CreationActor {
    parts: CreationParts,
    settings: CreationSettings,
    jobs: Jobs,
    placer: Placer,
    numbers: Numbers,
    wishes: Vec<Wish>,
    reserving: bool,
    under_way: FuturesUnordered<DoneFuture>,
    sweep: Sweep,
    /// The moment of this turn.
    now: Instant,
}

impl CreationActor {
    pub(crate) fn new(parts: CreationParts) -> Self {
        let config = &parts.context.config.creation;
        let backoff = Backoff {
            base: config.retry_pause,
            retries_max: config.retries_max,
        };
        let settings = CreationSettings {
            timeout: config.deadline,
            backoff,
            ..CreationSettings::default()
        };
        let now = parts.context.clock.now();
        Self {
            placer: Placer::new(config, parts.seed),
            sweep: Sweep::new(now),
            parts,
            settings,
            jobs: Jobs::default(),
            numbers: Numbers::default(),
            wishes: Vec::new(),
            reserving: false,
            under_way: FuturesUnordered::new(),
            now,
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.parts.context.clone();
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
        loop {
            let wake = self
                .jobs
                .next_wake()
                .into_iter()
                .chain([self.sweep.next()])
                .min()
                .unwrap_or(self.now);
            tokio::select! {
                biased;
                () = context.stopping() => return,
                () = context.clock.sleep_until(wake) => {
                    self.begin();
                    self.on_wake().await;
                }
                Some(done) = self.under_way.next() => {
                    self.begin();
                    self.on_done(done).await;
                }
                count = self.parts.messages.recv_many(&mut messages, MESSAGES_PER_TURN) => {
                    if count == 0 {
                        return;
                    }
                    self.begin();
                    for message in messages.drain(..) {
                        self.on_message(message).await;
                    }
                }
            }
            self.reserve().await;
        }
    }

    fn begin(&mut self) {
        self.now = self.parts.context.clock.now();
    }

    async fn on_message(&mut self, message: Message) {
        match message {
            Message::Wish(wish) => self.wishes.push(wish),
            Message::Succeeded(container) => {
                self.placer.settle(container);
                self.jobs.remove(container);
            }
            Message::Failed {
                container,
                peer,
                error,
                message,
                known,
            } => {
                let _ = known.send(self.jobs.contains(container));
                // A late failure of an earlier attempt says nothing about this one.
                let is_current = self
                    .jobs
                    .get_mut(container)
                    .is_some_and(|job| job.is_with(peer.invoker))
                    && peer.has(&self.parts.context, container);
                if is_current {
                    self.on_failure(container, Some(peer.invoker), error, message)
                        .await;
                }
            }
            Message::Gone(containers) => containers
                .into_iter()
                .for_each(|container| self.on_gone(container)),
        }
    }

    /// The table has lost the container: with its invoker's session, or by another scheduler's word.
    fn on_gone(&mut self, container: ContainerId) {
        self.placer.settle(container);
        if let Some(job) = self.jobs.remove(container) {
            self.call_off(&job);
        }
    }

    /// Sends the wishes that wait, unless a reservation is under way.
    async fn reserve(&mut self) {
        if self.reserving || self.wishes.is_empty() {
            return;
        }
        let count = self.wishes.len().min(WISHES_MAX);
        let wishes: Vec<Wish> = self.wishes.drain(..count).collect();
        let Some(session) = self.parts.context.fence.session() else {
            // Without a session there are no queues any more; whoever still asks is told no.
            let nothing = wishes.into_iter().map(|wish| (wish, Vec::new())).collect();
            return self.on_reserved(nothing).await;
        };
        let requests = wishes
            .iter()
            .map(|wish| self.numbers.request(session, wish))
            .collect();
        self.reserving = true;
        let reservation = reserve(self.parts.context.clone(), session, wishes, requests);
        self.under_way
            .push(Box::pin(async move { Done::Reserved(reservation.await) }));
    }

    async fn on_done(&mut self, done: Done) {
        match done {
            Done::Reserved(reserved) => {
                self.reserving = false;
                self.on_reserved(reserved).await;
            }
            Done::Placed(container, invoker) => self.on_placed(container, invoker).await,
        }
    }

    async fn on_reserved(&mut self, reserved: Reserved) {
        let mut granted = Vec::new();
        for (wish, containers) in reserved {
            let request = Request::Granted {
                key: wish.key.clone(),
                epoch: wish.epoch,
                asked: wish.count,
                containers: containers.iter().map(|granted| granted.container).collect(),
                revision: wish.revision,
            };
            // The queue first: it has to know its containers before it can hear of their failure.
            self.parts.shards.send_to(&wish.key, request).await;
            for GrantedContainer { container, resume } in containers {
                let job = CreationJob::new(container, self.now, wish.blackbox, &self.settings);
                self.jobs.insert(Job::new(job, wish.clone(), resume));
                granted.push(container);
            }
        }
        self.place(granted).await;
    }

    /// Chooses invokers for a batch; every choice lowers what the next one finds.
    async fn place(&mut self, containers: Vec<ContainerId>) {
        if containers.is_empty() {
            return;
        }
        let mut candidates = self.placer.candidates(&self.parts.context, &self.parts.streams);
        for container in containers {
            let Some(job) = self.jobs.get_mut(container) else {
                continue;
            };
            (job.sent, job.target) = (false, None);
            let (context, wish) = (&self.parts.context, &job.wish);
            let resume_on = job.resume.map(|(_, invoker)| invoker);
            let chosen = match (resume_on, place::action(context, wish)) {
                (_, Err(failure)) => Err(failure),
                (Some(invoker), Ok(_)) => Ok(invoker),
                (None, Ok(action)) => {
                    let request = place::request(context, wish, &action, job.job.failed());
                    let placed = self
                        .placer
                        .place(container, wish.memory, &request, &mut candidates);
                    placed.map_err(|error| (error, no_invoker(error, &request.kind)))
                }
            };
            match chosen {
                Ok(invoker) => {
                    job.target = Some(invoker);
                    let applied = self
                        .parts
                        .updates
                        .apply(container, ContainerChange::Placed { invoker }, None)
                        .await;
                    self.under_way.push(Box::pin(async move {
                        let _ = applied.await;
                        Done::Placed(container, invoker)
                    }));
                }
                Err((error, message)) => self.on_failure(container, None, error, message).await,
            }
        }
    }

    /// The table shows where the container goes, if the invoker lives: now the invoker may be told.
    async fn on_placed(&mut self, container: ContainerId, invoker: InvokerId) {
        self.placer.settle(container);
        let Some(job) = self
            .jobs
            .get_mut(container)
            .filter(|job| job.target == Some(invoker))
        else {
            return;
        };
        let is_there = self.parts.context.node.read(|state| {
            let row = state
                .container(container)
                .filter(|row| row.state == ContainerState::InProgress);
            row.is_some_and(|row| row.invoker.is_some_and(|(on, _)| on == invoker))
        });
        let sent = match place::action(&self.parts.context, &job.wish) {
            Err((error, message)) => Err((error, message)),
            Ok(_) if !is_there => Err((CreationError::Unknown, format!("invoker {invoker} was lost"))),
            Ok(action) => {
                let create = create_container(&self.parts.context, job, action, self.now);
                let sent = self
                    .parts
                    .streams
                    .send(invoker, ControlCommand::Create(Box::new(create)));
                sent.map_err(|error| (CreationError::Unknown, error.to_string()))
            }
        };
        match sent {
            Ok(()) => job.sent = true,
            Err((error, message)) => self.on_failure(container, Some(invoker), error, message).await,
        }
    }

    async fn on_failure(
        &mut self,
        container: ContainerId,
        invoker: Option<InvokerId>,
        error: CreationError,
        message: String,
    ) {
        self.placer.settle(container);
        let Some(job) = self.jobs.get_mut(container) else {
            return;
        };
        // A second attempt starts from nothing, wherever it is.
        (job.resume, job.target, job.sent) = (None, None, false);
        match job.job.on_error(self.now, invoker, error) {
            CreationStep::Retry { after } if self.is_wanted(container) => {
                tracing::debug!(%container, ?invoker, ?error, ?after, message, "creation failed, tries again");
                self.jobs.wake_at(container, self.now + after);
            }
            CreationStep::Retry { .. } => self.give_up(container, error, message).await,
            CreationStep::Failed(error) => self.give_up(container, error, message).await,
        }
    }

    /// Whether the slot is still there, and its queue led by us in the job's epoch.
    fn is_wanted(&mut self, container: ContainerId) -> bool {
        let Some(job) = self.jobs.get_mut(container) else {
            return false;
        };
        let (key, epoch) = (&job.wish.key, job.wish.epoch);
        self.parts.context.node.read(|state| {
            state.container(container).is_some() && state.queue(key).is_some_and(|queue| queue.epoch == epoch)
        })
    }

    /// Gives the slot back and tells the queue.
    async fn give_up(&mut self, container: ContainerId, error: CreationError, message: String) {
        self.placer.settle(container);
        let Some(job) = self.jobs.remove(container) else {
            return;
        };
        tracing::warn!(%container, queue = %job.wish.key, ?error, message, "container not created");
        self.call_off(&job);
        self.parts.updates.push(container, ContainerChange::Removed).await;
        let key = job.wish.key;
        self.parts
            .shards
            .send_to(
                &key.clone(),
                Request::CreationFailed {
                    key,
                    container,
                    error,
                    message,
                },
            )
            .await;
    }

    /// Tells the invoker that may still be at it to stop.
    fn call_off(&self, job: &Job) {
        if let Some(invoker) = job.target.filter(|_| job.sent) {
            remove_now(&self.parts.streams, invoker, job.job.container());
        }
    }

    async fn on_wake(&mut self) {
        let mut again = Vec::new();
        for container in self.jobs.take_due(self.now) {
            let Some(job) = self.jobs.get_mut(container) else {
                continue;
            };
            if job.job.is_overdue(self.now) {
                let action = job.wish.key.action.clone();
                let waited = self.settings.timeout(job.wish.blackbox);
                let message =
                    format!("[{action}] timeout waiting for the ack of {container} after {waited:?}");
                self.give_up(container, CreationError::Timeout, message).await;
            } else {
                again.push(container);
            }
        }
        self.place(again).await;
        for (container, invoker) in
            self.sweep
                .run(&self.parts.context, &self.jobs, self.settings.timeout, self.now)
        {
            tracing::info!(%container, "slot of an abandoned creation given back");
            if let Some(invoker) = invoker {
                remove_now(&self.parts.streams, invoker, container);
            }
            self.parts.updates.push(container, ContainerChange::Removed).await;
        }
    }
}

fn remove_now(streams: &ControlStreams, invoker: InvokerId, container: ContainerId) {
    let command = v1::RemoveContainer {
        container: Some(container.into()),
        now: true,
    };
    if let Err(error) = streams.send(invoker, ControlCommand::Remove(command)) {
        tracing::debug!(%container, %error, "removal not sent");
    }
}

fn create_container(context: &Context, job: &Job, action: v1::Action, now: Instant) -> v1::CreateContainer {
    let left: Duration = job.job.deadline().saturating_since(now);
    v1::CreateContainer {
        container: Some(job.job.container().into()),
        key: Some((&job.wish.key).into()),
        epoch: job.wish.epoch.0,
        leader: context.node.id().0,
        revision: job.wish.revision.0,
        action: Some(action),
        resume: job.resume.map(|(old, _)| old.into()),
        deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
    }
}

fn no_invoker(error: CreationError, kind: &str) -> String {
    match error {
        CreationError::NoAvailableResources => {
            format!("no invoker has the memory or resources for this {kind} action")
        }
        _ => format!("no healthy invoker can run {kind} actions"),
    }
}
