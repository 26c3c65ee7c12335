//! One container on its way, and the agenda of all.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_queue::{CreationJob, PlacementRequest};
use whiskraft_types::{ContainerId, Instant, InvokerId, QueueKey};

use crate::creation::handle::Wish;

/// A container on its way.
#[derive(Debug)]
pub(crate) struct Job {
    /// Deadline and retries.
    pub(crate) job: CreationJob,
    /// What its queue asked for.
    pub(crate) wish: Wish,
    /// The paused container that it continues, until that has failed.
    pub(crate) resume: Option<(ContainerId, InvokerId)>,
    /// The invoker that has it in hand.
    pub(crate) target: Option<InvokerId>,
    /// Whether its creation was sent there.
    pub(crate) sent: bool,
    /// What placement needs to know, until an invoker has failed.
    pub(crate) request: Option<PlacementRequest>,
    wake: Instant,
}

impl Job {
    /// Whether an invoker was told to create it and has not failed since.
    pub(crate) fn is_with(&self, invoker: InvokerId) -> bool {
        self.sent && self.target == Some(invoker)
    }

    /// One whose slot came with the place `target`, if with any.
    pub(crate) fn new(
        job: CreationJob,
        wish: Wish,
        resume: Option<(ContainerId, InvokerId)>,
        target: Option<InvokerId>,
    ) -> Self {
        let wake = job.deadline();
        Self {
            job,
            wish,
            resume,
            target,
            sent: false,
            request: None,
            wake,
        }
    }
}

/// All jobs, and when each wants attention.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: BTreeMap<ContainerId, Job>,
    agenda: BTreeSet<(Instant, ContainerId)>,
}

impl Jobs {
    pub(crate) fn insert(&mut self, job: Job) {
        self.agenda.insert((job.wake, job.job.container()));
        self.jobs.insert(job.job.container(), job);
    }

    pub(crate) fn get_mut(&mut self, container: ContainerId) -> Option<&mut Job> {
        self.jobs.get_mut(&container)
    }

    /// Those that no invoker has in hand, whatever place the table shows from an earlier try.
    pub(crate) fn without_place(&self) -> impl Iterator<Item = ContainerId> {
        let jobs = self.jobs.iter().filter(|(_, job)| job.target.is_none());
        jobs.map(|(container, _)| *container)
    }

    pub(crate) fn contains(&self, container: ContainerId) -> bool {
        self.jobs.contains_key(&container)
    }

    /// Containers of these queues.
    pub(crate) fn of(&self, queues: &BTreeSet<QueueKey>) -> Vec<ContainerId> {
        let jobs = self.jobs.iter();
        let of_them = jobs.filter(|(_, job)| queues.contains(&job.wish.key));
        of_them.map(|(container, _)| *container).collect()
    }

    pub(crate) fn remove(&mut self, container: ContainerId) -> Option<Job> {
        let job = self.jobs.remove(&container)?;
        self.agenda.remove(&(job.wake, container));
        Some(job)
    }

    /// The job wants attention at `wake`, or at its deadline if that is earlier.
    pub(crate) fn wake_at(&mut self, container: ContainerId, wake: Instant) {
        if let Some(job) = self.jobs.get_mut(&container) {
            self.agenda.remove(&(job.wake, container));
            job.wake = wake.min(job.job.deadline());
            self.agenda.insert((job.wake, container));
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.agenda.first().map(|(wake, _)| *wake)
    }

    /// Containers whose moment has come; each is next woken at its deadline.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<ContainerId> {
        let due: Vec<_> = self
            .agenda
            .iter()
            .take_while(|(wake, _)| *wake <= now)
            .map(|(_, id)| *id)
            .collect();
        for container in &due {
            self.wake_at(*container, Instant::from_origin(std::time::Duration::MAX));
        }
        due
    }
}
