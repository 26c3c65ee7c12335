//! Creation: admission, eviction for it, resuming a paused container, deadlines.

use std::fmt::Debug;

use whiskraft_types::{ContainerId, CreationError, Instant, QueueKey};

use crate::container::{Container, Farewell};
use crate::pool::Mode;
use crate::{Change, CreateContainer, Life, Output, Pool, WorkerId};

impl<A, D, R> Pool<A, D, R>
where
    A: Debug,
    R: Clone,
{
    pub(crate) fn on_create(
        &mut self,
        now: Instant,
        create: CreateContainer<A>,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let known = self.by_id.contains_key(&create.container)
            || self.removals_held.contains_key(&create.container)
            || self.outbox.find(&create.container).is_some();
        if self.mode == Mode::Closed || known {
            return;
        }
        if let Some(warm) = create.resume {
            // In the tables the new id has taken the place of the old one, whatever becomes of it here: it is what
            // leads a new leader to the results.
            self.results.rename(warm, create.container);
            self.removals_held.remove(&warm);
        }
        let newer = self
            .queues
            .find(&create.key)
            .is_some_and(|queue| queue.epoch < create.epoch);
        if !self.queues.lead(&create.key, create.epoch, create.leader) {
            let message = format!(
                "creation of {} comes from an earlier leader of its queue",
                create.container
            );
            self.fail_creation(
                create.container,
                &create.key,
                CreationError::Unknown,
                message,
                out,
            );
            return;
        }
        if newer {
            self.lead_containers(&create.key);
            self.register(now, &create.key, out);
        }
        if let Err((error, message)) = self.may_create(now, &create) {
            if error == CreationError::ResourceNotEnough {
                self.report_memory_now();
            }
            self.fail_creation(create.container, &create.key, error, message, out);
            return;
        }
        match self.resumable(&create) {
            Some(worker) => self.resume(worker, create, out),
            None => self.admit_evicting(now, create, out),
        }
    }

    /// Admits; who goes for it is first the leader's choice.
    fn admit_evicting(
        &mut self,
        now: Instant,
        mut create: CreateContainer<A>,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let evict_first = std::mem::take(&mut create.evict_first);
        self.admit(now, create);
        for id in evict_first {
            if !self.memory.must_evict() {
                return;
            }
            let worker = self.by_id.get(&id).copied();
            let is_paused = |worker: &WorkerId| {
                self.containers
                    .get(worker)
                    .is_some_and(|container| container.life == Life::Paused)
            };
            if let Some(worker) = worker.filter(is_paused) {
                self.evict(worker, out);
            }
        }
    }

    fn evict(&mut self, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let farewell = Farewell::Removed("evicted for another container".to_owned());
        self.remove(worker, farewell, out);
    }

    fn may_create(&self, now: Instant, create: &CreateContainer<A>) -> Result<(), (CreationError, String)> {
        let id = create.container;
        if self.mode == Mode::Draining {
            return Err((
                CreationError::ShuttingDown,
                format!("the invoker shuts down and does not create {id}"),
            ));
        }
        if self.is_fenced(now) {
            return Err((
                CreationError::Whisk,
                format!("the invoker is fenced and does not create {id}"),
            ));
        }
        if create.deadline <= now {
            return Err((
                CreationError::Timeout,
                format!("the deadline for creating {id} has passed"),
            ));
        }
        if self.resumable(create).is_none() && !self.memory.admits(create.memory) {
            let message = format!("the invoker has no {} left for {id}", create.memory);
            return Err((CreationError::ResourceNotEnough, message));
        }
        Ok(())
    }

    fn resumable(&self, create: &CreateContainer<A>) -> Option<WorkerId> {
        let worker = *self.by_id.get(&create.resume?)?;
        let container = self.containers.get(&worker)?;
        let same = container.life == Life::Paused
            && container.key == create.key
            && container.revision == create.revision
            && container.memory == create.memory;
        same.then_some(worker)
    }

    fn fail_creation(
        &mut self,
        container: ContainerId,
        key: &QueueKey,
        error: CreationError,
        message: String,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        tracing::debug!(%container, queue = %key, ?error, message, "creation failed");
        self.report(container, key, Change::Failed { error, message }, out);
    }

    fn resume(&mut self, worker: WorkerId, create: CreateContainer<A>, out: &mut Vec<Output<A, D, R>>) {
        self.enter(worker, Life::Resuming);
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        self.by_id.remove(&container.id);
        // The warm container of the old id is gone from the tables since its grant.
        self.outbox.forget(&container.id);
        self.by_id.insert(create.container, worker);
        container.id = create.container;
        container.leader = create.leader;
        container.epoch = create.epoch;
        container.concurrency = create.concurrency.max(1);
        container.deadline = create.deadline;
        container.action = Some(create.action);
        container.farewell = Farewell::Removed("removed".to_owned());
        self.arm_container(worker, create.deadline);
        out.push(Output::Resume {
            worker,
            container: create.container,
        });
    }

    /// Takes a container in that will be created as soon as its memory is free, and evicts for it.
    fn admit(&mut self, now: Instant, create: CreateContainer<A>) {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let container = Container {
            id: create.container,
            key: create.key,
            leader: create.leader,
            epoch: create.epoch,
            revision: create.revision,
            memory: create.memory,
            concurrency: create.concurrency.max(1),
            life: Life::Waiting,
            running: Vec::new(),
            asks: 0,
            withdrawing: false,
            retired: None,
            orphaned: false,
            farewell: Farewell::Removed("removed".to_owned()),
            used_at: now,
            timer: None,
            deadline: create.deadline,
            action: Some(create.action),
        };
        self.memory.enter(Life::Waiting, container.memory);
        self.queues.link(&container.key, worker);
        self.by_id.insert(container.id, worker);
        self.waiting.insert(worker);
        self.containers.insert(worker, container);
        self.arm_container(worker, create.deadline);
    }

    /// Evicts for containers that wait, and creates those whose memory is free. Ends every step.
    pub(crate) fn start_waiting(&mut self, out: &mut Vec<Output<A, D, R>>) {
        while self.memory.must_evict() {
            let Some((_, oldest)) = self.paused.first().copied() else {
                break;
            };
            self.evict(oldest, out);
        }
        while let Some(worker) = self.waiting.first().copied() {
            let Some(container) = self.containers.get_mut(&worker) else {
                return;
            };
            if !self.memory.fits(container.memory) {
                return;
            }
            let (container_id, key) = (container.id, container.key.clone());
            let action = container.action.take();
            self.enter(worker, Life::Creating);
            if let Some(action) = action {
                out.push(Output::Create {
                    worker,
                    container: container_id,
                    key,
                    action,
                });
            }
        }
    }

    pub(crate) fn on_created(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        if self
            .containers
            .get(&worker)
            .is_some_and(|container| container.life == Life::Creating)
        {
            self.judge(now, true);
            self.open(now, worker, Life::Fresh, out);
        }
    }

    /// A container exists (again): it pulls, unless it was retired meanwhile.
    fn open(&mut self, now: Instant, worker: WorkerId, life: Life, out: &mut Vec<Output<A, D, R>>) {
        self.enter(worker, life);
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        container.used_at = now;
        container.action = None;
        container.asks = 0;
        container.withdrawing = false;
        if container.retired.is_some() {
            let farewell = container.farewell.clone();
            self.remove(worker, farewell, out);
            return;
        }
        let (id, key) = (container.id, container.key.clone());
        self.report(id, &key, Change::Running, out);
        self.top_up(now, worker, out);
        self.arm_container(worker, now + self.settings.pause_grace);
    }

    pub(crate) fn on_creation_failed(
        &mut self,
        now: Instant,
        worker: WorkerId,
        error: CreationError,
        message: String,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        if container.retired.is_none() && container.life == Life::Creating {
            container.farewell = Farewell::Failed(error, message);
        }
        if matches!(
            error,
            CreationError::Whisk | CreationError::Unknown | CreationError::Timeout
        ) {
            self.judge(now, false);
        }
        self.vanish(worker, out);
    }

    pub(crate) fn on_resumed(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        if self
            .containers
            .get(&worker)
            .is_some_and(|container| container.life == Life::Resuming)
        {
            self.open(now, worker, Life::Ready, out);
        }
    }

    /// Serves the command again with a new container; the old one goes unheard, since its id is the new one's now.
    pub(crate) fn on_resume_failed(
        &mut self,
        now: Instant,
        worker: WorkerId,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        self.judge(now, false);
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        if container.life != Life::Resuming {
            return;
        }
        let Some(action) = container.action.take().filter(|_| container.retired.is_none()) else {
            let farewell = container.farewell.clone();
            self.remove(worker, farewell, out);
            return;
        };
        let create = CreateContainer {
            container: container.id,
            key: container.key.clone(),
            epoch: container.epoch,
            leader: container.leader,
            revision: container.revision,
            memory: container.memory,
            concurrency: container.concurrency,
            resume: None,
            evict_first: Vec::new(),
            deadline: container.deadline,
            action,
        };
        self.remove(worker, Farewell::Nothing, out);
        if let Err((error, message)) = self.may_create(now, &create) {
            self.fail_creation(create.container, &create.key, error, message, out);
            self.by_id.remove(&create.container);
            return;
        }
        self.admit(now, create);
    }

    pub(crate) fn on_creation_deadline(&mut self, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        let message = format!("{} was not ready before its deadline", container.id);
        let farewell = Farewell::Failed(CreationError::Timeout, message.clone());
        if container.life == Life::Waiting {
            self.remove(worker, farewell, out);
        } else {
            // The slot is not free before nothing is left; the owner task is told when it has finished.
            container.retired = Some(message);
            container.farewell = farewell;
        }
    }
}
