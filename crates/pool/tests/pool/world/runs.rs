//! What has become of the runs that were delivered: the book that the promises about runs are checked against.

use std::collections::{BTreeMap, BTreeSet};

use super::{In, Out, Record, World};
use whiskraft_pool::{Completed, Deliver, Input, Output, Registration, WorkerId};
use whiskraft_types::{ActivationId, ContainerId, Epoch};

/// A run of an activation, as the leader of one epoch counts them.
type Run = (ActivationId, Epoch, u32);

#[derive(Default)]
pub(crate) struct Runs {
    /// The newest epoch of each queue that the pool was told of.
    pub(crate) told: BTreeMap<usize, Epoch>,
    /// Everything that was delivered.
    pub(crate) delivered: Vec<Deliver<u32>>,
    /// The delivery of the present step.
    delivering: Option<Deliver<u32>>,
    /// Starts, less those that came back as not started.
    starts: BTreeMap<Run, u32>,
    /// The one of each activation that was started last.
    last: BTreeMap<ActivationId, (Epoch, u32)>,
    /// Told as started.
    told_started: BTreeSet<Run>,
    /// What a leader waits for, and the container where it looks for the answer; `None`: it will look where it is told.
    owed: BTreeMap<ActivationId, Option<ContainerId>>,
    /// The last run of which a leader has the record.
    ended: BTreeMap<ActivationId, u32>,
    /// Runs whose results the pool has to keep.
    kept: BTreeMap<ActivationId, u32>,
    /// Owners of containers of a session that is over.
    orphans: BTreeSet<WorkerId>,
}

impl Runs {
    /// Which run of it was started last.
    pub(crate) fn last(&self, id: ActivationId) -> u32 {
        self.last[&id].1
    }

    /// Whether its last run was told as started.
    pub(crate) fn is_told_started(&self, id: ActivationId) -> bool {
        let (epoch, run) = self.last[&id];
        self.told_started.contains(&(id, epoch, run))
    }

    /// The last run of which a leader has the record; 0 if of none.
    pub(crate) fn ended(&self, id: ActivationId) -> u32 {
        self.ended.get(&id).copied().unwrap_or(0)
    }

    fn tell(&mut self, queue: usize, epoch: Epoch) {
        let told = self.told.entry(queue).or_insert(epoch);
        *told = epoch.max(*told);
    }

    pub(super) fn not_started(&mut self, id: ActivationId) {
        let (epoch, run) = self.last[&id];
        *self.starts.get_mut(&(id, epoch, run)).unwrap() -= 1;
    }

    fn answered(&mut self, record: Record) {
        self.owed.remove(&record.id);
        let ended = self.ended.entry(record.id).or_default();
        *ended = (*ended).max(record.run);
    }
}

impl World {
    /// Before the pool takes the input in.
    pub(super) fn note_input(&mut self, input: &In) {
        let runs = &mut self.runs;
        runs.delivering = None;
        match input {
            Input::Create(create) => {
                runs.tell(super::queue_of(&create.key), create.epoch);
            }
            Input::Reregister { key, epoch, .. } => runs.tell(super::queue_of(key), *epoch),
            Input::Deliver(deliver) => {
                let is_awaited = self.is_awaited(deliver);
                let runs = &mut self.runs;
                runs.delivering = Some(deliver.clone());
                runs.delivered.push(deliver.clone());
                if is_awaited {
                    runs.owed.insert(deliver.id, Some(deliver.container));
                }
            }
            Input::Finished(finished) if !runs.orphans.contains(&finished.worker) => {
                let (worker, id) = (finished.worker, finished.id);
                let mut views = self.pool.containers();
                if views.any(|view| view.worker == worker && view.running.contains(&id)) {
                    runs.kept.insert(id, finished.record.run);
                }
            }
            Input::ResultsAcked { ids } => runs.kept.retain(|id, _| !ids.contains(id)),
            Input::QueueGone { from, key } => {
                let queue = super::queue_of(key);
                if self.leaders[queue].id == *from {
                    let of_queue =
                        |deliver: &&Deliver<u32>| self.containers.get(&deliver.container) == Some(&queue);
                    let delivered = runs.delivered.iter().filter(of_queue);
                    let gone: BTreeSet<_> = delivered.map(|deliver| deliver.id).collect();
                    runs.kept.retain(|id, _| !gone.contains(id));
                }
            }
            Input::SessionExpired => {
                runs.orphans.extend(self.hosts.keys());
                // The cluster has ended what was delivered here.
                runs.owed.clear();
                runs.kept.clear();
                runs.told.clear();
            }
            _ => {}
        }
    }

    /// Whether the sender is the leader of now: nobody else waits for what becomes of it.
    fn is_awaited(&self, deliver: &Deliver<u32>) -> bool {
        let queue = self.containers.get(&deliver.container);
        let leader = queue.map(|queue| &self.leaders[*queue]);
        leader.is_some_and(|leader| (leader.id, leader.epoch) == (deliver.from, deliver.epoch))
    }

    /// What an output says of runs.
    pub(super) fn note_output(&mut self, output: &Out) {
        match output {
            Output::Run { id, content, .. } => self.note_start(*id, *content),
            Output::Started { id, .. } => {
                let (epoch, run) = self.runs.last[id];
                self.runs.told_started.insert((*id, epoch, run));
            }
            Output::Completed(Completed { record, .. }) => {
                self.runs.answered(*record);
                self.completed.push(record.id);
            }
            Output::Refused {
                id, container, epoch, ..
            } => self.note_refusal(*id, *container, *epoch),
            _ => {}
        }
    }

    fn note_start(&mut self, id: ActivationId, run: u32) {
        let is_here = |(here, _): &(ActivationId, bool)| *here == id;
        let is_running = self.hosts.values().any(|host| host.runs.iter().any(is_here));
        assert!(!is_running, "{id} is started while it runs");
        *self.starts.entry(id).or_default() += 1;
        let deliver = self.runs.delivering.clone().expect("a start answers a delivery");
        assert_eq!(
            (deliver.id, deliver.run),
            (id, run),
            "what was delivered is started"
        );
        let queue = self.containers[&deliver.container];
        assert_eq!(
            self.runs.told.get(&queue),
            Some(&deliver.epoch),
            "{id} of another epoch is started"
        );
        let kept = self.runs.kept.remove(&id);
        assert!(
            kept.is_none_or(|kept| kept < run),
            "run {run} of {id} is started where the result of run {kept:?} is kept"
        );
        let before = self.runs.last.insert(id, (deliver.epoch, run));
        assert!(
            before.is_none_or(|before| before <= (deliver.epoch, run)),
            "{id} went back"
        );
        let count = self.runs.starts.entry((id, deliver.epoch, run)).or_default();
        *count += 1;
        assert!(*count <= 1, "run {run} of {id} is started twice");
        self.runs.owed.entry(id).or_insert(None);
    }

    fn note_refusal(&mut self, id: ActivationId, container: ContainerId, epoch: Epoch) {
        self.refused.push(id);
        let queue = self.containers.get(&container);
        // Whatever a former leader makes of it is refused everywhere.
        let is_heard = queue.is_some_and(|queue| self.leaders[*queue].epoch == epoch);
        let runs = &mut self.runs;
        let place = runs.owed.get(&id).copied();
        let is_answer = match &runs.delivering {
            Some(deliver) => {
                let run = (id, deliver.epoch, deliver.run);
                assert!(
                    !is_heard || !runs.told_started.contains(&run),
                    "{id} is refused after its start"
                );
                is_heard && place == Some(Some(container))
            }
            None => {
                assert!(
                    !is_heard || !runs.is_told_started(id),
                    "{id} is refused after its start"
                );
                !is_heard || place == Some(None) || place == Some(Some(container))
            }
        };
        if is_answer {
            runs.owed.remove(&id);
        }
    }

    /// Another leader is told by registrations where what its predecessor delivered is.
    pub(super) fn forget_places(&mut self, queue: usize) {
        let runs = &mut self.runs;
        for deliver in &runs.delivered {
            if self.containers.get(&deliver.container) == Some(&queue)
                && let Some(place) = runs.owed.get_mut(&deliver.id)
            {
                *place = None;
            }
        }
    }

    /// What a registration says of runs; a place that the leader knows better stays.
    pub(super) fn note_registered(&mut self, registration: &Registration<Record>, is_heard: bool) {
        for record in &registration.unacknowledged {
            self.runs.answered(*record);
            if !self.completed.contains(&record.id) {
                self.completed.push(record.id);
            }
        }
        for registered in registration.containers.iter().filter(|_| is_heard) {
            for id in &registered.in_flight {
                let place = self.runs.owed.entry(*id).or_insert(None);
                place.get_or_insert(registered.container);
            }
        }
    }

    pub(super) fn invariant_results_are_kept_until_acknowledged(&self) {
        assert_eq!(
            self.pool.unacknowledged_len(),
            self.runs.kept.len(),
            "results that nobody has acknowledged: {:?}",
            self.runs.kept
        );
    }

    /// For the end of a test, after [`World::settle`].
    pub(crate) fn invariant_every_delivery_is_answered(&self) {
        assert!(self.runs.owed.is_empty(), "never answered: {:?}", self.runs.owed);
    }
}
