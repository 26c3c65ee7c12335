//! The creation actor: owns every container on its way that this scheduler's queues asked for.
//!
//! Order of a creation: place chosen, slot and place granted by the log in one entry, and only then the invoker is told; so an
//! invoker whose session ends takes the container out of the table in the same apply. What finds no memory gets its slot
//! alone, waits, and has its place written to the log when it is chosen.
//! Invariant: a job ends in exactly one of: the container pulls, the queue hears `CreationFailed` and the slot is given
//! back, or the table has lost the container by itself.

use std::collections::BTreeSet;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use whiskraft_queue::{Backoff, CreationJob, CreationSettings, CreationStep, FairShares, Observation};
use whiskraft_state::{ContainerChange, ContainerState, GrantedContainer};
use whiskraft_types::{
    ContainerId, CreationError, CreationErrorClass, Instant, InvokerId, NamespaceName, QueueKey,
};

use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::handle::{Message, Wish};
use crate::creation::in_progress::InProgress;
use crate::creation::job::{Job, Jobs};
use crate::creation::place::{self, Placer};
use crate::creation::reserve::{Numbers, Reserved, WISHES_MAX, reserve};
use crate::creation::shares::Reclaiming;
use crate::creation::suspects::{Suspects, SuspectsView};
use crate::creation::sweep::Sweep;
use crate::creation::turns::Turns;
use crate::creation::waiting::Waiting;
use crate::creation::warnings::Warnings;
use crate::message::Request;
use crate::profiles::Profiles;
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
    pub(crate) in_progress: InProgress,
    pub(crate) suspects: SuspectsView,
    pub(crate) profiles: Profiles,
    /// For the choice among equal invokers.
    pub(crate) seed: u64,
}

/// Something the log has answered.
pub(super) enum Done {
    Reserved(Reserved),
    Placed(ContainerId, InvokerId),
}

type DoneFuture = futures::future::BoxFuture<'static, Done>;

/// The actor.
pub(crate) struct CreationActor {
    pub(super) parts: CreationParts,
    pub(super) settings: CreationSettings,
    pub(super) jobs: Jobs,
    pub(super) placer: Placer,
    pub(super) suspects: Suspects,
    /// What waits for memory, when it was and will be looked at, and who has got some last.
    pub(super) waiting: Waiting,
    pub(super) looked_at: Instant,
    pub(super) look_at: Option<Instant>,
    pub(super) turn: Option<NamespaceName>,
    /// Shares of the last look; none while memory was not short.
    pub(super) last_shares: Option<FairShares>,
    pub(super) reclaiming: Reclaiming,
    pub(super) turns: Turns,
    numbers: Numbers,
    wishes: Vec<Wish>,
    reserving: bool,
    pub(super) under_way: FuturesUnordered<DoneFuture>,
    sweep: Sweep,
    warnings: Warnings,
    /// The moment of this turn.
    pub(super) now: Instant,
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
            blackbox_multiple: config.blackbox_multiple,
            backoff,
        };
        let now = parts.context.clock.now();
        Self {
            placer: Placer::new(config, parts.seed),
            sweep: Sweep::new(now),
            suspects: Suspects::new(config.judge.clone(), parts.suspects.clone()),
            waiting: Waiting::default(),
            looked_at: now,
            look_at: None,
            turn: None,
            last_shares: None,
            reclaiming: Reclaiming::default(),
            turns: Turns::default(),
            warnings: Warnings::default(),
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
        let (context, in_progress) = (self.parts.context.clone(), self.parts.in_progress.clone());
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
        loop {
            let wakes = [
                self.jobs.next_wake(),
                self.look_at,
                self.suspects.next_change(self.now),
                Some(self.sweep.next()),
            ];
            let wake = wakes.into_iter().flatten().min().unwrap_or(self.now);
            tokio::select! {
                () = context.stopping() => return,
                () = context.clock.sleep_until(wake) => {
                    self.begin();
                    self.on_wake().await;
                }
                () = in_progress.changed() => self.look_soon(),
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
                if let Some(invoker) = self.forget(container).and_then(|job| job.target) {
                    self.suspects.observe(self.now, invoker, Observation::Created);
                }
            }
            Message::Observed(observed) => {
                for (invoker, observation) in observed {
                    self.suspects.observe(self.now, invoker, observation);
                }
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
                    if self.is_its_fault(peer.invoker, error) {
                        self.suspects
                            .observe(self.now, peer.invoker, Observation::CreationFailed);
                    }
                    self.on_failure(container, Some(peer.invoker), error, message)
                        .await;
                }
            }
            Message::Gone(containers) => containers
                .into_iter()
                .for_each(|container| self.on_gone(container)),
            Message::Released(queues) => self.on_released(queues.into_iter().collect()).await,
        }
    }

    /// Not if the action is to blame, nor if somebody else may have taken the memory that it has not.
    fn is_its_fault(&self, invoker: InvokerId, error: CreationError) -> bool {
        let may_be_taken = || !place::has_room(&self.parts.context, invoker);
        error.class() == CreationErrorClass::Whisk
            && !(error == CreationError::ResourceNotEnough && may_be_taken())
    }

    /// The table has lost the container: with its invoker's session, or by another scheduler's word.
    fn on_gone(&mut self, container: ContainerId) {
        if let Some(job) = self.forget(container) {
            self.call_off(&job);
        }
    }

    /// The job is over, here at least.
    fn forget(&mut self, container: ContainerId) -> Option<Job> {
        self.placer.settle(container);
        self.waiting.remove(container);
        self.jobs.remove(container)
    }

    /// Other schedulers lead these queues now. What no invoker has been told of gives its slot back; the rest is theirs:
    /// it pulls from them, or they miss it.
    async fn on_released(&mut self, queues: BTreeSet<QueueKey>) {
        for container in self.jobs.of(&queues) {
            let unsent = self.forget(container).filter(|job| !job.sent);
            if unsent.is_some() {
                self.parts.updates.push(container, ContainerChange::Removed).await;
            }
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
        let slots = wishes.iter().map(|wish| self.numbers.request(session, wish));
        let slots = slots.collect();
        let requests = self.choose(session, slots);
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
        // Whatever became of them: the table has the memory of those that have a place.
        if self.placer.settle_ahead() {
            self.look_soon();
        }
        let (mut placed, mut placeless) = (Vec::new(), Vec::new());
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
            if !self.is_led(&wish) {
                // It moved on meanwhile: its new leader asks for its own.
                for GrantedContainer { container, .. } in containers {
                    self.parts.updates.push(container, ContainerChange::Removed).await;
                }
                continue;
            }
            for GrantedContainer { container, resume } in containers {
                // One that was lost with its invoker meanwhile its queue hears of by its shard.
                let Some(target) = self.place_of(container) else {
                    continue;
                };
                let job = CreationJob::new(container, self.now, wish.blackbox, &self.settings);
                self.jobs.insert(Job::new(job, wish.clone(), resume, target));
                match target {
                    Some(invoker) => placed.push((container, invoker, resume.is_some())),
                    None => placeless.push(container),
                }
            }
        }
        for (container, invoker, resumes) in placed {
            if !resumes {
                self.suspects.observe(self.now, invoker, Observation::Placed);
            }
            self.on_placed(container, invoker).await;
        }
        self.place(placeless).await;
    }

    /// Where a container is that was just granted, if it has a place; none if the table has it no longer.
    fn place_of(&self, container: ContainerId) -> Option<Option<InvokerId>> {
        self.parts.context.node.read(|state| {
            let row = state.container(container)?;
            (row.state != ContainerState::Ended).then(|| row.invoker.map(|(invoker, _)| invoker))
        })
    }

    pub(super) async fn on_failure(
        &mut self,
        container: ContainerId,
        invoker: Option<InvokerId>,
        error: CreationError,
        message: String,
    ) {
        self.placer.settle(container);
        self.waiting.remove(container);
        let Some(job) = self.jobs.get_mut(container) else {
            return;
        };
        // A second attempt starts from nothing, wherever it is.
        let target = job.target.take();
        (job.resume, job.sent, job.request) = (None, false, None);
        let step = job.job.on_error(self.now, invoker, error);
        // One that resumes has a place before it is sent.
        let placed = self
            .parts
            .context
            .node
            .read(|state| state.container(container)?.invoker);
        let came_from = target.or(placed.map(|(invoker, _)| invoker));
        if let Some(invoker) = came_from.filter(|_| !matches!(step, CreationStep::Failed(_))) {
            // All schedulers have to see that it takes no memory there any more.
            let unplaced = ContainerChange::Unplaced { invoker };
            self.parts.updates.push(container, unplaced).await;
        }
        match step {
            CreationStep::Retry { after } if self.is_wanted(container) => {
                tracing::debug!(%container, ?invoker, ?error, ?after, message, "creation failed, tries again");
                self.jobs.wake_at(container, self.now + after);
            }
            CreationStep::Wait if self.is_wanted(container) && self.waits(container) => {
                tracing::debug!(%container, ?invoker, message, "creation was refused for want of memory, waits for it");
                self.look_soon();
            }
            CreationStep::Retry { .. } | CreationStep::Wait => self.give_up(container, error, message).await,
            CreationStep::Failed(error) => self.give_up(container, error, message).await,
        }
    }

    /// Puts a creation on the list of those that wait for memory; false if there is no room.
    fn waits(&mut self, container: ContainerId) -> bool {
        let Some(job) = self.jobs.get_mut(container) else {
            return false;
        };
        self.waiting.push(&job.wish.key.namespace, container)
    }

    /// Whether the slot is still there, and its queue led by us in the job's epoch.
    fn is_wanted(&mut self, container: ContainerId) -> bool {
        let Some(job) = self.jobs.get_mut(container) else {
            return false;
        };
        let wish = job.wish.clone();
        let node = &self.parts.context.node;
        self.is_led(&wish) && node.read(|state| state.container(container).is_some())
    }

    /// Whether the queue is in the epoch in which it wished.
    fn is_led(&self, wish: &Wish) -> bool {
        let node = &self.parts.context.node;
        node.read(|state| {
            state
                .queue(&wish.key)
                .is_some_and(|queue| queue.epoch == wish.epoch)
        })
    }

    /// Gives the slot back and tells the queue.
    pub(super) async fn give_up(&mut self, container: ContainerId, error: CreationError, message: String) {
        let Some(job) = self.forget(container) else {
            return;
        };
        self.warnings
            .not_created(self.now, &job.wish.key, error, &message);
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
            self.parts.streams.remove(invoker, job.job.container(), true);
        }
    }

    async fn on_wake(&mut self) {
        let mut again = Vec::new();
        for container in self.jobs.take_due(self.now) {
            let Some(job) = self.jobs.get_mut(container) else {
                continue;
            };
            if !job.job.is_overdue(self.now) {
                if !self.waiting.contains(container) {
                    again.push(container);
                }
            } else if self.waiting.contains(container) {
                let message = self.waited_in_vain(container);
                self.give_up(container, CreationError::ResourceNotEnough, message)
                    .await;
            } else {
                let action = job.wish.key.action.clone();
                let waited = self.settings.timeout(job.wish.blackbox);
                let message =
                    format!("[{action}] timeout waiting for the ack of {container} after {waited:?}");
                self.give_up(container, CreationError::Timeout, message).await;
            }
        }
        self.place(again).await;
        self.look().await;
        self.suspects.refresh(self.now);
        self.sweep().await;
    }

    /// Gives back slots that nobody will use.
    async fn sweep(&mut self) {
        let abandoned = self.sweep.run(&self.parts, &self.jobs, &self.settings, self.now);
        for (container, invoker) in abandoned {
            tracing::info!(%container, "slot of an abandoned creation given back");
            if let Some(invoker) = invoker {
                self.parts.streams.remove(invoker, container, true);
            }
            self.parts.updates.push(container, ContainerChange::Removed).await;
        }
    }
}
