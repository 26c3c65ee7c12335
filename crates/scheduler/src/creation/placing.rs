//! Finds invokers for the creations of a batch. What finds no memory waits, in the order of fair shares; `room.rs` has
//! others make room for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_queue::{Candidates, FairShares, PlacementRequest, Shortage};
use whiskraft_state::ContainerChange;
use whiskraft_types::{ByteSize, ContainerId, CreationError, InvokerId, QueueKey};

use crate::creation::actor::{CreationActor, Done};
use crate::creation::place;
use crate::creation::room::WAITS_MIN;
use crate::creation::rotation::Starving;
use crate::creation::shares::shares;
use crate::creation::waiting::Obstacle;
use crate::message::Request;

/// Time after which what waits for memory is looked at again, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Shortest time between two looks, however much changes.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Creations looked at in one go; the rest come first the next time their namespaces do.
const TRIES_MAX: usize = 512;

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
        let (resumed, cold): (Vec<_>, Vec<_>) = containers.into_iter().partition(|container| {
            let job = self.jobs.get_mut(*container);
            job.is_some_and(|job| job.resume.is_some())
        });
        for container in resumed {
            self.place_resumed(container).await;
        }
        if self.waiting.is_empty() && !self.waits_elsewhere() {
            let mut candidates = self.candidates();
            for container in cold {
                let placed = self.try_place(container, &mut candidates, None);
                self.carry_out(container, placed).await;
            }
        } else {
            for container in cold {
                self.wait(container).await;
            }
        }
        if !self.waiting.is_empty() {
            self.serve_waiting().await;
        }
    }

    /// Memory may have come free, or somebody else waits for some: what waits is looked at again soon.
    pub(super) fn look_soon(&mut self) {
        let soon = self.looked_at + LOOK_PAUSE;
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
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
        let needs_room = self.makes_room() && self.waits_elsewhere();
        if needs_room || !self.waiting.is_empty() {
            return self.serve_waiting().await;
        }
        let youngest = self.makes_room() && self.parts.in_progress.waits();
        (self.looked_at, self.look_at) = (self.now, youngest.then(|| self.now + WAITS_MIN));
    }

    /// Gives free memory to those that wait, the namespace that holds least first, and has room made for those that are
    /// due more.
    pub(super) async fn serve_waiting(&mut self) {
        (self.looked_at, self.look_at) = (self.now, Some(self.now + LOOK_AGAIN));
        let mut candidates = self.candidates();
        let foreign = self.servable(&candidates);
        let mut shares = self.shares(&foreign);
        let mut starving = self.starving(&foreign);
        let (mut tried, mut done) = (BTreeSet::new(), BTreeSet::new());
        while tried.len() < TRIES_MAX
            && let Some(namespace) = shares.next(self.waiting.namespaces(&done))
        {
            let first = self.waiting.first(&namespace, &tried, |id| starving.contains(id));
            let Some(container) = first else {
                done.insert(namespace);
                continue;
            };
            tried.insert(container);
            let placed = self.try_place(container, &mut candidates, Some((&shares, &starving)));
            match &placed {
                Placed::On(_) => {
                    let memory = self.memory_of(container);
                    shares.take(&namespace, memory);
                    starving.serve(container, &namespace, memory);
                }
                Placed::Waits(Obstacle::Turn, _) => drop(done.insert(namespace)),
                Placed::Waits(Obstacle::Memory, _) | Placed::Fails(..) => {}
            }
            if !matches!(placed, Placed::Waits(..)) {
                self.waiting.remove(container);
            }
            self.carry_out(container, placed).await;
        }
        if self.makes_room() {
            self.make_room(&candidates, &shares);
        }
        self.turn = shares.last().cloned();
        self.last_shares = Some(shares);
    }

    fn shares(&mut self, foreign: &BTreeMap<QueueKey, bool>) -> FairShares {
        let wanted = {
            let (jobs, waiting) = (&self.jobs, &self.waiting);
            let age_max = self.settings.timeout(true);
            self.parts.in_progress.wanted(self.now, age_max, |id, row| {
                if jobs.contains(id) {
                    waiting.contains(id)
                } else {
                    row.invoker.is_none() && foreign.get(&row.key).copied().unwrap_or(true)
                }
            })
        };
        let (now, reclaiming) = (self.now, &mut self.reclaiming);
        let shares = self.parts.context.node.read(|state| {
            reclaiming.prune(now, state);
            shares(state, &wanted, reclaiming)
        });
        shares.after(self.turn.take())
    }

    pub(super) fn candidates(&mut self) -> Candidates {
        self.suspects.refresh(self.now);
        let around = (&self.parts.context, &self.parts.streams);
        self.placer.candidates(around, self.suspects.all(), &self.jobs)
    }

    fn memory_of(&mut self, container: ContainerId) -> ByteSize {
        let job = self.jobs.get_mut(container);
        job.map_or(ByteSize::ZERO, |job| job.wish.memory)
    }

    fn try_place(
        &mut self,
        container: ContainerId,
        candidates: &mut Candidates,
        order: Option<(&FairShares, &Starving)>,
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
        let free = || {
            candidates
                .iter()
                .filter(|one| one.usable)
                .fold(ByteSize::ZERO, |sum, one| sum.saturating_add(one.free))
        };
        if let Some((shares, starving)) = order {
            // Within a namespace those that have a container leave what is free to those that have none.
            let kept = match starving.contains(container) {
                true => ByteSize::ZERO,
                false => starving.kept(namespace),
            };
            let has_turn = kept == ByteSize::ZERO || free() >= request.memory.saturating_add(kept);
            if !has_turn || !shares.may_take(namespace, request.memory, free()) {
                return Placed::Waits(Obstacle::Turn, request);
            }
        }
        match self.placer.place(container, &request, candidates) {
            Ok(invoker) => Placed::On(invoker),
            Err(Shortage::Memory) => Placed::Waits(Obstacle::Memory, request),
            Err(shortage) => Placed::Fails(shortage.error(), self.placer.explain(&request, candidates)),
        }
    }

    async fn carry_out(&mut self, container: ContainerId, placed: Placed) {
        match placed {
            Placed::On(invoker) => self.send_to(container, invoker).await,
            Placed::Waits(obstacle, request) => {
                if self.wait(container).await && self.waiting.is_news(container, obstacle) {
                    self.tell_delayed(container, obstacle, &request).await;
                }
            }
            Placed::Fails(error, message) => self.on_failure(container, None, error, message).await,
        }
    }

    /// A paused container continues: its place is known.
    async fn place_resumed(&mut self, container: ContainerId) {
        let Some(job) = self.jobs.get_mut(container) else {
            return;
        };
        (job.sent, job.target) = (false, None);
        match (job.resume, place::action(&self.parts.context, &job.wish)) {
            (Some((_, invoker)), Ok(_)) => self.send_to(container, invoker).await,
            (_, Err((error, message))) => self.on_failure(container, None, error, message).await,
            (None, Ok(_)) => {}
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
    async fn wait(&mut self, container: ContainerId) -> bool {
        let Some(job) = self.jobs.get_mut(container) else {
            return false;
        };
        let namespace = job.wish.key.namespace.clone();
        let waits = self.waiting.push(&namespace, container);
        if !waits {
            let message = format!("too many containers of {namespace} wait for memory");
            self.on_failure(container, None, CreationError::NoAvailableResources, message)
                .await;
        }
        waits
    }

    async fn tell_delayed(&mut self, container: ContainerId, obstacle: Obstacle, request: &PlacementRequest) {
        let message = match obstacle {
            Obstacle::Memory => {
                let candidates = self.candidates();
                self.placer.explain(request, &candidates)
            }
            Obstacle::Turn => "memory is short, and namespaces that hold less of it come first".to_owned(),
        };
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
