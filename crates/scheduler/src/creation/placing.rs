//! Finds invokers for the creations of a batch whose slots came without a place. What finds no memory waits, in the order of fair
//! shares; `room.rs` has others make room for it.

use std::collections::BTreeSet;
use std::time::Duration;

use whiskraft_queue::{Candidates, Observation, PlacementRequest, Shortage};
use whiskraft_state::ContainerChange;
use whiskraft_types::{ByteSize, ContainerId, CreationError, Instant, InvokerId, QueueKey};

use crate::creation::actor::{CreationActor, Done};
use crate::creation::in_progress::PlacelessSum;
use crate::creation::place;
use crate::creation::pools::Pool;
use crate::creation::room::WAITS_MIN;
use crate::creation::turns::Starving;
use crate::creation::waiting::Obstacle;
use crate::message::Request;

/// Time after which what waits for memory is looked at again, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Shortest time between two looks, however much changes.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Creations looked at in one go; the rest come when some of these are served.
pub(super) const TRIES_MAX: usize = 512;
/// Creations whose queues hear in one go that they wait behind others.
const UNTOLD_MAX: usize = 256;
/// What a queue hears then.
const BEHIND_OTHERS: &str = "memory is short, and those that hold less of it come first";

/// What placement says about one creation.
enum Placed {
    On(InvokerId),
    /// It has to wait, and for what.
    Waits(Obstacle, PlacementRequest),
    Fails(CreationError, String),
}

impl CreationActor {
    /// Chooses invokers for a batch; every choice lowers what the next one finds.
    pub(super) async fn place(&mut self, containers: Vec<ContainerId>) {
        if containers.is_empty() {
            return;
        }
        if let Some(mut candidates) = self.unless_others_wait(PlacelessSum::default()) {
            for container in containers {
                let placed = self.try_place(container, &mut candidates, None);
                self.carry_out(container, placed, &candidates).await;
            }
        } else {
            for container in containers {
                self.wait(container).await;
            }
        }
        if !self.waiting.is_empty() {
            self.serve_waiting().await;
        }
    }

    /// The invokers, for containers that nobody has to come before: nothing waits for memory, or there is enough for all that
    /// does and for `more`, which has no slot yet.
    pub(super) fn unless_others_wait(&mut self, more: PlacelessSum) -> Option<Candidates> {
        match (self.waiting.is_empty(), self.waits_elsewhere()) {
            (false, _) => None,
            (true, false) => Some(self.candidates()),
            (true, true) => self.ample(more),
        }
    }

    /// Memory may have come free, or somebody else waits for some: what waits is looked at again soon.
    pub(super) fn look_soon(&mut self) {
        self.look_by(self.looked_at);
    }

    /// What waits is looked at by a moment, if that is not too soon after the last look.
    pub(super) fn look_by(&mut self, moment: Instant) {
        let at = moment.max(self.looked_at + LOOK_PAUSE);
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }

    /// Looks at what waits, if it is time to; with nothing that waits not again until something changes.
    pub(super) async fn look(&mut self) {
        if self.look_at.is_none() && self.makes_room() && self.parts.in_progress.waits() {
            // It may have come to lead just now.
            self.look_soon();
        }
        if self.look_at.is_none_or(|at| at > self.now) {
            return;
        }
        let needs_room =
            self.makes_room() && self.waits_elsewhere() && self.ample(PlacelessSum::default()).is_none();
        if needs_room || !self.waiting.is_empty() {
            return self.serve_waiting().await;
        }
        let youngest = self.makes_room() && self.parts.in_progress.waits();
        (self.looked_at, self.look_at) = (self.now, youngest.then(|| self.now + WAITS_MIN));
    }

    /// Gives free memory to those that wait, the namespace that holds least first, and has room made for those that are
    /// due more.
    pub(super) async fn serve_waiting(&mut self) {
        let mut candidates = self.candidates();
        let placeless = self.placeless();
        let mut pools = self.pools(&placeless, &candidates);
        let mut starving = self.parts.context.node.read(|state| {
            let counts = |key: &QueueKey| pools.of(key).is_some();
            Starving::of(state, &placeless, counts)
        });
        let (mut tried, mut done, mut tries) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut full = BTreeSet::new();
        while tries < TRIES_MAX
            && let Some(namespace) = pools.order.next(self.waiting.namespaces(&done))
        {
            let first = self.waiting.first(&namespace, &tried, |id| starving.contains(id));
            let Some(container) = first else {
                done.insert(namespace);
                continue;
            };
            tried.insert(container);
            let Some((key, memory)) = self.of_job(container).filter(|(key, _)| !full.contains(key)) else {
                continue;
            };
            tries += 1;
            let order = pools.of(&key).map(|pool| (pool, &starving));
            let placed = self.try_place(container, &mut candidates, order);
            match &placed {
                Placed::On(_) => {
                    pools.take(&key, memory);
                    starving.serve(container, &namespace, memory);
                }
                Placed::Waits(Obstacle::Turn, _) => drop(done.insert(namespace)),
                // The others of the queue need as much.
                Placed::Waits(Obstacle::Memory, _) => drop(full.insert(key)),
                Placed::Fails(..) => {}
            }
            if !matches!(placed, Placed::Waits(..)) {
                self.waiting.remove(container);
            }
            self.carry_out(container, placed, &candidates).await;
        }
        for container in self.waiting.untold(UNTOLD_MAX) {
            self.tell_obstacle(container, Obstacle::Turn, BEHIND_OTHERS.to_owned())
                .await;
        }
        self.turn = pools.last();
        self.last_shares = Some(pools.order.clone());
        // Pauses count from the end: a look that takes long must not be all that is done.
        self.looked_at = self.parts.context.clock.now();
        self.look_at = Some(self.looked_at + LOOK_AGAIN);
        // Nobody ends for memory that the answer to a reservation may give back in a moment.
        if self.makes_room() && !self.placer.has_promised_ahead() {
            self.make_room(&placeless, &candidates, &mut pools, &starving);
        }
    }

    pub(super) fn candidates(&mut self) -> Candidates {
        self.suspects.refresh(self.now);
        let around = (&self.parts.context, &self.parts.streams);
        self.placer.candidates(around, self.suspects.all(), &self.jobs)
    }

    fn of_job(&mut self, container: ContainerId) -> Option<(QueueKey, ByteSize)> {
        let job = self.jobs.get_mut(container)?;
        Some((job.wish.key.clone(), job.wish.memory))
    }

    fn try_place(
        &mut self,
        container: ContainerId,
        candidates: &mut Candidates,
        order: Option<(&Pool, &Starving)>,
    ) -> Placed {
        let Some(job) = self.jobs.get_mut(container) else {
            return Placed::Fails(CreationError::Unknown, "the creation has ended".to_owned());
        };
        (job.sent, job.target) = (false, None);
        let request = match place::request(&self.parts.context, self.now, job) {
            Ok(request) => request,
            Err((error, message)) => return Placed::Fails(error, message),
        };
        let namespace = &job.wish.key.namespace;
        if let Some((pool, starving)) = order {
            let free = pool.free(candidates, request.memory);
            // Within a namespace those that have a container leave what is free to those that have none.
            let kept = match starving.contains(container) {
                true => ByteSize::ZERO,
                false => starving.kept(namespace),
            };
            let has_turn = kept == ByteSize::ZERO || free >= request.memory.saturating_add(kept);
            if !has_turn || !pool.shares.may_take(namespace, request.memory, free) {
                return Placed::Waits(Obstacle::Turn, request);
            }
        }
        match self.placer.place(container, &request, candidates) {
            Ok(invoker) => Placed::On(invoker),
            Err(Shortage::Memory) if !self.placer.able(&request, candidates).is_empty() => {
                Placed::Waits(Obstacle::Memory, request)
            }
            Err(shortage) => Placed::Fails(shortage.error(), self.placer.explain(&request, candidates)),
        }
    }

    async fn carry_out(&mut self, container: ContainerId, placed: Placed, candidates: &Candidates) {
        match placed {
            Placed::On(invoker) => {
                self.suspects.observe(self.now, invoker, Observation::Placed);
                self.send_to(container, invoker).await;
            }
            Placed::Waits(obstacle, request) => {
                if self.wait(container).await {
                    let message = match obstacle {
                        Obstacle::Memory => self.placer.explain(&request, candidates),
                        Obstacle::Turn => BEHIND_OTHERS.to_owned(),
                    };
                    self.tell_obstacle(container, obstacle, message).await;
                }
            }
            // What nobody may run holds no slot meanwhile: its queue asks again, after longer and longer pauses.
            Placed::Fails(error, message) => self.give_up(container, error, message).await,
        }
    }

    /// Writes the place to the log; only then the invoker is told.
    async fn send_to(&mut self, container: ContainerId, invoker: InvokerId) {
        if let Some(job) = self.jobs.get_mut(container) {
            job.target = Some(invoker);
        }
        let placed = ContainerChange::Placed { invoker };
        let applied = self.parts.updates.apply(container, placed, None).await;
        self.under_way.push(Box::pin(async move {
            let _ = applied.await;
            Done::Placed(container, invoker)
        }));
    }

    /// Puts a creation on the list; whether it is there. Without room it fails like any other.
    pub(super) async fn wait(&mut self, container: ContainerId) -> bool {
        let Some(job) = self.jobs.get_mut(container) else {
            return false;
        };
        let namespace = job.wish.key.namespace.clone();
        let waits = self.waiting.push(&namespace, container);
        if !waits {
            let message = format!("too many containers of {namespace} wait for memory");
            self.on_failure(container, None, CreationError::ResourceNotEnough, message)
                .await;
        }
        waits
    }

    /// Why a creation ends that has waited for memory until its deadline.
    pub(super) fn waited_in_vain(&mut self, container: ContainerId) -> String {
        if self.waiting.obstacle(container) != Some(Obstacle::Memory) {
            return format!("no memory came free in time: {BEHIND_OTHERS}");
        }
        let candidates = self.candidates();
        let request = self.jobs.get_mut(container).and_then(|job| job.request.clone());
        let detail = request.map_or_else(String::new, |request| {
            format!(": {}", self.placer.explain(&request, &candidates))
        });
        format!("no memory came free in time{detail}")
    }

    /// Tells a queue once per change what its creation waits for.
    async fn tell_obstacle(&mut self, container: ContainerId, obstacle: Obstacle, message: String) {
        if !self.waiting.is_news(container, obstacle) {
            return;
        }
        let Some(key) = self.jobs.get_mut(container).map(|job| job.wish.key.clone()) else {
            return;
        };
        tracing::debug!(%container, queue = %key, message, "creation waits for memory");
        let request = Request::CreationDelayed {
            key: key.clone(),
            container,
            error: CreationError::NoAvailableResources,
            message,
        };
        self.parts.shards.send_to(&key, request).await;
    }
}
