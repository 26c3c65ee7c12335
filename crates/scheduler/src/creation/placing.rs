//! Finds invokers for the creations of a batch. What finds no memory waits, in the order of fair shares, and others make
//! room for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use whiskraft_queue::{Candidates, FairShares, Observation, PlacementRequest, Shortage};
use whiskraft_state::ContainerChange;
use whiskraft_types::{ByteSize, ContainerId, CreationError, Instant, InvokerId, NamespaceName};

use crate::creation::actor::{CreationActor, Done};
use crate::creation::place;
use crate::creation::shares::shares;
use crate::creation::waiting::Obstacle;
use crate::message::Request;

/// Time after which what waits for memory is looked at again, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Shortest time between two looks, however much changes.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Creations looked at in one go; the rest come first the next time their namespaces do.
const TRIES_MAX: usize = 512;
/// Creations of one namespace that room is looked for in one go.
const NEEDY_MAX: usize = 4;

/// What found no memory, by namespace and in order.
type Needy = BTreeMap<NamespaceName, VecDeque<PlacementRequest>>;

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
        if self.waiting.is_empty() && !self.waits_elsewhere(&cold) {
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

    /// When what waits for memory is looked at again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.waiting.is_empty())
    }

    /// Memory may have come free: what waits is looked at again soon.
    pub(super) fn look_soon(&mut self) {
        let soon = self.looked_at + LOOK_PAUSE;
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    /// Gives free memory to those that wait, the namespace that holds least first, and makes room for those that are due
    /// more.
    pub(super) async fn serve_waiting(&mut self) {
        (self.looked_at, self.look_at) = (self.now, Some(self.now + LOOK_AGAIN));
        let mut candidates = self.candidates();
        let mut shares = self.shares();
        let (mut tried, mut done) = (BTreeSet::new(), BTreeSet::new());
        let mut needy = Needy::new();
        while tried.len() < TRIES_MAX
            && let Some(namespace) = shares.next(self.waiting.namespaces(&done))
        {
            let Some(container) = self.waiting.first(&namespace, &tried) else {
                done.insert(namespace);
                continue;
            };
            tried.insert(container);
            let placed = self.try_place(container, &mut candidates, Some(&shares));
            match &placed {
                Placed::On(_) => shares.take(&namespace, self.memory_of(container)),
                Placed::Waits(obstacle, request) => {
                    if *obstacle == Obstacle::Turn {
                        done.insert(namespace);
                    } else {
                        note(&mut needy, request);
                    }
                }
                Placed::Fails(..) => {}
            }
            if !matches!(placed, Placed::Waits(..)) {
                self.waiting.remove(container);
            }
            self.carry_out(container, placed).await;
        }
        self.make_room(needy, &candidates, &shares);
        self.turn = shares.last().cloned();
        self.last_shares = Some(shares);
    }

    fn shares(&mut self) -> FairShares {
        let wanted = {
            let (jobs, waiting) = (&self.jobs, &self.waiting);
            let age_max = self.settings.timeout(true);
            // Of our own only what waits for memory counts; of others' that cannot be told.
            self.parts.in_progress.wanted(self.now, age_max, |id, row| {
                if jobs.contains(id) {
                    waiting.contains(id)
                } else {
                    row.invoker.is_none()
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

    /// One creation at a time gets room, so that no more ends than is needed: the next one sees what that one left. Those
    /// for whom room was made before count as served.
    fn make_room(&mut self, mut needy: Needy, candidates: &Candidates, shares: &FairShares) {
        let (mut planned, mut shares) = (self.reclaiming.planned(candidates), shares.clone());
        while let Some(namespace) = shares.next(needy.keys()) {
            let request = needy.get_mut(&namespace).and_then(VecDeque::pop_front);
            let Some(request) = request.filter(|_| shares.may_reclaim(&namespace)) else {
                needy.remove(&namespace);
                continue;
            };
            if self.placer.plan(&request, &mut planned) {
                shares.take(&namespace, request.memory);
                continue;
            }
            let around = (&self.parts.context, &self.parts.streams);
            let (now, placer) = (self.now, &mut self.placer);
            if self
                .reclaiming
                .make_room(now, around, placer, &shares, &request, &planned)
            {
                return self.look_soon();
            }
        }
    }

    fn candidates(&mut self) -> Candidates {
        self.suspects.refresh(self.now);
        let around = (&self.parts.context, &self.parts.streams);
        self.placer.candidates(around, self.suspects.all(), &self.jobs)
    }

    /// Whether others wait for memory, as far as the tables tell.
    fn waits_elsewhere(&self, batch: &[ContainerId]) -> bool {
        let age_max = self.settings.timeout(true);
        self.parts.in_progress.waits_elsewhere(self.now, age_max, |id| {
            batch.contains(&id) || self.jobs.contains(id)
        })
    }

    fn memory_of(&mut self, container: ContainerId) -> ByteSize {
        let job = self.jobs.get_mut(container);
        job.map_or(ByteSize::ZERO, |job| job.wish.memory)
    }

    fn try_place(
        &mut self,
        container: ContainerId,
        candidates: &mut Candidates,
        shares: Option<&FairShares>,
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
        if shares.is_some_and(|shares| !shares.may_take(namespace, request.memory, free())) {
            return Placed::Waits(Obstacle::Turn, request);
        }
        match self.placer.place(container, &request, candidates) {
            Ok(invoker) => Placed::On(invoker),
            Err(Shortage::Memory) => Placed::Waits(Obstacle::Memory, request),
            Err(shortage) => Placed::Fails(shortage.error(), self.placer.explain(&request, candidates)),
        }
    }

    async fn carry_out(&mut self, container: ContainerId, placed: Placed) {
        match placed {
            Placed::On(invoker) => {
                self.suspects.observe(self.now, invoker, Observation::Placed);
                self.send_to(container, invoker).await;
            }
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

fn note(needy: &mut Needy, request: &PlacementRequest) {
    let own = needy.entry(request.namespace.clone()).or_default();
    if own.len() < NEEDY_MAX {
        own.push_back(request.clone());
    }
}
