//! A world around the pool: queue leaders that hand out activations, and a host that runs containers.
//!
//! Leaders read what the pool sends at once; what they send waits in a queue and arrives in order. The host's
//! operations end when a test says so. Used by the case tests and by the property tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use whiskraft_pool::{
    Change, Completed, CreateContainer, Deliver, Finished, Input, Life, Output, Pool, PoolSettings,
    Registration, Report, WorkerId,
};
use whiskraft_types::{
    ActivationId, ByteSize, ContainerId, CreationError, Epoch, Instant, QueueKey, Revision, SchedulerId,
    SessionId,
};

/// The content of a delivery is its run, for the record.
pub(crate) type In = Input<&'static str, u32, Record>;
pub(crate) type Out = Output<&'static str, u32, Record>;

/// The record of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: ActivationId,
    pub(crate) run: u32,
}

impl PartialEq<ActivationId> for Record {
    fn eq(&self, id: &ActivationId) -> bool {
        self.id == *id
    }
}

pub(crate) const TTL: Duration = Duration::from_secs(2);
pub(crate) const TOTAL_MIB: u64 = 1024;

pub(crate) fn id(number: u8) -> ActivationId {
    ActivationId::from_bytes([number; 16])
}

pub(crate) fn container(seq: u64) -> ContainerId {
    ContainerId {
        session: SessionId(7),
        seq,
    }
}

pub(crate) fn key(number: usize) -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: format!("guest/action{number}").parse().unwrap(),
    }
}

/// What the host does with one container.
#[derive(Debug, Default, Clone)]
pub(crate) struct Host {
    pub(crate) creating: bool,
    pub(crate) pausing: bool,
    pub(crate) resuming: bool,
    pub(crate) removing: bool,
    /// Activation, and whether it loads the code first.
    pub(crate) runs: Vec<(ActivationId, bool)>,
    pub(crate) memory: u64,
}

/// One queue, as its leader of now sees it.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) id: SchedulerId,
    pub(crate) epoch: Epoch,
    pub(crate) asks: BTreeMap<ContainerId, u32>,
    /// It waits for the registration that says what there is; later ones of the same stream change nothing.
    pub(crate) waits: bool,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) pool: Pool<&'static str, u32, Record>,
    pub(crate) hosts: BTreeMap<WorkerId, Host>,
    pub(crate) leaders: Vec<Leader>,
    /// Messages from schedulers that have not arrived; those of one scheduler keep their order.
    pub(crate) down: VecDeque<(SchedulerId, In)>,
    pub(crate) next_container: u64,
    /// What the next creation asks to evict first.
    pub(crate) evict_first: Vec<ContainerId>,
    pub(crate) containers: BTreeMap<ContainerId, usize>,
    pub(crate) memory_of: BTreeMap<ContainerId, u64>,
    pub(crate) warm: Vec<ContainerId>,
    pub(crate) reports: Vec<Report>,
    /// Ids in `Run` outputs, less those that came back as not started.
    pub(crate) starts: BTreeMap<ActivationId, u32>,
    /// The same of each run.
    pub(crate) run_starts: BTreeMap<(ActivationId, u32), u32>,
    /// The run that was started last.
    pub(crate) run_of: BTreeMap<ActivationId, u32>,
    /// Told as started.
    pub(crate) told_started: BTreeSet<(ActivationId, u32)>,
    /// Runs delivered to the pool and not answered, by themselves or by a later one.
    pub(crate) owed: BTreeSet<(ActivationId, u32)>,
    /// The last run of which a leader has the record.
    pub(crate) ended: BTreeMap<ActivationId, u32>,
    /// The delivery of the present step.
    delivering: Option<(ActivationId, u32)>,
    /// Told to stop.
    pub(crate) stopped: Vec<ActivationId>,
    pub(crate) completed: Vec<ActivationId>,
    pub(crate) refused: Vec<ActivationId>,
    pub(crate) emptied: u32,
    /// Outputs of the last step.
    pub(crate) out: Vec<Out>,
}

impl World {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        let leaders = (0..2).map(|at| Leader {
            id: SchedulerId(1 + at),
            epoch: Epoch(1),
            asks: BTreeMap::new(),
            waits: false,
        });
        let mut world = Self {
            now: Instant::from_origin(Duration::from_secs(1)),
            pool: Pool::new(settings),
            hosts: BTreeMap::new(),
            leaders: leaders.collect(),
            down: VecDeque::new(),
            next_container: 1,
            evict_first: Vec::new(),
            containers: BTreeMap::new(),
            memory_of: BTreeMap::new(),
            warm: Vec::new(),
            reports: Vec::new(),
            starts: BTreeMap::new(),
            run_starts: BTreeMap::new(),
            run_of: BTreeMap::new(),
            told_started: BTreeSet::new(),
            owed: BTreeSet::new(),
            ended: BTreeMap::new(),
            delivering: None,
            stopped: Vec::new(),
            completed: Vec::new(),
            refused: Vec::new(),
            emptied: 0,
            out: Vec::new(),
        };
        world.open_session();
        world
    }

    pub(crate) fn with_memory_mib(memory: u64) -> Self {
        Self::new(PoolSettings {
            memory: ByteSize::mib(memory),
            ..PoolSettings::default()
        })
    }

    pub(crate) fn open_session(&mut self) {
        self.step(Input::SessionOpened);
        self.renew();
    }

    pub(crate) fn renew(&mut self) {
        self.step(Input::LeaseRenewed {
            sent_at: self.now,
            ttl: TTL,
        });
    }

    /// Lets time pass, with every timer at its time. The lease is kept unless `fenced`.
    pub(crate) fn pass(&mut self, time: Duration, fenced: bool) {
        let end = self.now + time;
        while let Some(at) = self.pool.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            if !fenced {
                self.renew();
            }
            self.step(Input::Tick);
        }
        self.now = end;
        if !fenced {
            self.renew();
        }
    }

    pub(crate) fn step(&mut self, input: In) {
        self.delivering = match &input {
            Input::Deliver(deliver) => Some((deliver.id, deliver.run)),
            _ => None,
        };
        if let Some((id, run)) = self.delivering
            && self.ended.get(&id).is_none_or(|ended| *ended < run)
        {
            self.owed.insert((id, run));
        }
        let mut out = Vec::new();
        self.pool.step(self.now, input, &mut out);
        for output in &out {
            self.carry_out(output);
        }
        self.out = out;
        self.invariant_memory_is_never_over_total();
        self.invariant_a_run_is_started_at_most_once();
        self.invariant_never_paused_while_running();
    }

    fn carry_out(&mut self, output: &Out) {
        match output {
            Output::Create {
                worker, container, ..
            } => {
                let memory = self.memory_of[container];
                self.hosts.insert(
                    *worker,
                    Host {
                        creating: true,
                        memory,
                        ..Host::default()
                    },
                );
            }
            Output::Run {
                worker,
                id,
                init,
                start_by,
                content,
            } => {
                assert!(self.now < *start_by, "started while fenced");
                self.host(*worker).runs.push((*id, *init));
                *self.starts.entry(*id).or_default() += 1;
                *self.run_starts.entry((*id, *content)).or_default() += 1;
                let before = self.run_of.insert(*id, *content);
                assert!(before.is_none_or(|before| before <= *content), "{id} went back");
            }
            Output::Stop { worker, id } => {
                let runs = &self.hosts[worker].runs;
                assert!(matches!(&runs[..], [(alone, _)] if alone == id), "stops {runs:?}");
                self.stopped.push(*id);
            }
            Output::Pause { worker } => self.on_pause(*worker),
            Output::Resume { worker, .. } => self.host(*worker).resuming = true,
            Output::Remove { worker } => self.host(*worker).removing = true,
            Output::Credit {
                container,
                key,
                epoch,
                count,
                ..
            } => self.on_asks(*container, key, *epoch, *count),
            Output::Started { id, .. } => _ = self.told_started.insert((*id, self.run_of[id])),
            Output::Memory(_) => {}
            Output::Completed(Completed {
                container,
                key,
                epoch,
                record,
                credits,
                ..
            }) => {
                self.answered(*record);
                self.completed.push(record.id);
                self.on_asks(*container, key, *epoch, *credits);
            }
            Output::Refused {
                id, container, epoch, ..
            } => {
                // Whatever a former leader makes of it is refused everywhere.
                let queue = self.containers.get(container).map(|queue| &self.leaders[*queue]);
                let matters = queue.is_some_and(|leader| leader.epoch == *epoch);
                let run = self.delivering.map_or_else(|| self.run_of[id], |(_, run)| run);
                assert!(
                    !matters || !self.told_started.contains(&(*id, run)),
                    "{id} is refused after its start"
                );
                self.owed.remove(&(*id, run));
                self.refused.push(*id);
            }
            Output::Withdraw { to, container } => self.on_withdraw(*to, *container),
            Output::Register(registration) => self.on_register(registration),
            Output::Report(report) => self.on_report(report),
            Output::Emptied => {
                assert!(self.hosts.is_empty(), "emptied with containers");
                self.emptied += 1;
            }
        }
    }

    /// A leader has the record of a run: earlier ones are answered too.
    fn answered(&mut self, record: Record) {
        self.owed
            .retain(|(id, run)| *id != record.id || *run > record.run);
        let ended = self.ended.entry(record.id).or_default();
        *ended = (*ended).max(record.run);
    }

    fn host(&mut self, worker: WorkerId) -> &mut Host {
        self.hosts
            .get_mut(&worker)
            .expect("an order for a container that exists")
    }

    fn on_pause(&mut self, worker: WorkerId) {
        assert!(self.host(worker).runs.is_empty(), "pause while running");
        self.host(worker).pausing = true;
        let view = self.pool.containers().find(|view| view.worker == worker).unwrap();
        for leader in &self.leaders {
            assert_eq!(
                leader.asks.get(&view.container).copied().unwrap_or(0),
                0,
                "pause with open asks"
            );
        }
        let coming = self.down.iter().any(|(_, input)| {
            matches!(input, Input::Deliver(deliver) if deliver.container == view.container
                && self.leaders.iter().any(|leader| leader.id == deliver.from && leader.epoch == deliver.epoch))
        });
        assert!(!coming, "pause while an activation is being fetched");
    }

    fn on_asks(&mut self, container: ContainerId, key_: &QueueKey, epoch: Epoch, count: u32) {
        let queue = (0..self.leaders.len()).find(|at| key(*at) == *key_).unwrap();
        if self.leaders[queue].epoch == epoch && count > 0 {
            *self.leaders[queue].asks.entry(container).or_default() += count;
        }
    }

    fn on_withdraw(&mut self, to: SchedulerId, container: ContainerId) {
        let Some(queue) = self.containers.get(&container).copied() else {
            return;
        };
        if self.leaders[queue].id == to {
            self.leaders[queue].asks.remove(&container);
            self.down
                .push_back((to, Input::WithdrawAcked { from: to, container }));
        }
    }

    fn on_register(&mut self, registration: &Registration<Record>) {
        let queue = (0..self.leaders.len())
            .find(|at| key(*at) == registration.key)
            .unwrap();
        for record in &registration.unacknowledged {
            self.answered(*record);
            if !self.completed.contains(&record.id) {
                self.completed.push(record.id);
            }
        }
        let leader = &mut self.leaders[queue];
        if leader.epoch == registration.epoch && std::mem::take(&mut leader.waits) {
            let asks = registration
                .containers
                .iter()
                .map(|registered| (registered.container, registered.credits));
            leader.asks = asks.collect();
        }
    }

    fn on_report(&mut self, report: &Report) {
        self.reports.push(report.clone());
        match report.change {
            Change::Warm => self.warm.push(report.container),
            Change::Running => {}
            Change::Ended { .. } | Change::Removed { .. } | Change::Failed { .. } => {
                self.warm.retain(|container| *container != report.container);
                for leader in &mut self.leaders {
                    leader.asks.remove(&report.container);
                }
            }
        }
    }

    /// A leader wants a container; its id.
    pub(crate) fn create(
        &mut self,
        queue: usize,
        memory: u64,
        concurrency: u32,
        resume: Option<ContainerId>,
    ) -> ContainerId {
        let id = container(self.next_container);
        self.next_container += 1;
        self.containers.insert(id, queue);
        self.memory_of.insert(id, memory);
        let leader = &self.leaders[queue];
        let create = CreateContainer {
            container: id,
            key: key(queue),
            epoch: leader.epoch,
            leader: leader.id,
            revision: Revision(1),
            memory: ByteSize::mib(memory),
            concurrency,
            resume,
            evict_first: std::mem::take(&mut self.evict_first),
            deadline: self.now + Duration::from_secs(20),
            action: "action",
        };
        self.step(Input::Create(create));
        id
    }

    /// A container that exists, from its leader's wish to its first ask.
    pub(crate) fn running(&mut self, queue: usize, memory: u64, concurrency: u32) -> ContainerId {
        let id = self.create(queue, memory, concurrency, None);
        let worker = self.worker(id);
        self.created(worker);
        id
    }

    pub(crate) fn worker(&self, container: ContainerId) -> WorkerId {
        self.pool
            .containers()
            .find(|view| view.container == container)
            .expect("it is here")
            .worker
    }

    pub(crate) fn life(&self, container: ContainerId) -> Option<Life> {
        self.pool
            .containers()
            .find(|view| view.container == container)
            .map(|view| view.life)
    }

    /// Containers that could be evicted.
    pub(crate) fn evictable(&self) -> Vec<ContainerId> {
        let paused = self.pool.containers().filter(|view| view.life == Life::Paused);
        paused.map(|view| view.container).collect()
    }

    pub(crate) fn asks(&self, container: ContainerId) -> u32 {
        self.leaders
            .iter()
            .filter_map(|leader| leader.asks.get(&container))
            .sum()
    }

    pub(crate) fn created(&mut self, worker: WorkerId) {
        self.host(worker).creating = false;
        self.step(Input::Created { worker });
    }

    pub(crate) fn delivery(&self, queue: usize, activation: ActivationId, container: ContainerId) -> In {
        self.delivery_of(queue, (activation, 1), container)
    }

    pub(crate) fn delivery_of(
        &self,
        queue: usize,
        (activation, run): (ActivationId, u32),
        container: ContainerId,
    ) -> In {
        let leader = &self.leaders[queue];
        let (from, epoch) = (leader.id, leader.epoch);
        Input::Deliver(Deliver {
            from,
            id: activation,
            container,
            epoch,
            run,
            content: run,
        })
    }

    /// The leader answers an ask, and the activation arrives.
    pub(crate) fn deliver(&mut self, activation: ActivationId, container: ContainerId) {
        self.deliver_run(activation, 1, container);
    }

    /// The same with a run of it.
    pub(crate) fn deliver_run(&mut self, activation: ActivationId, run: u32, container: ContainerId) {
        let queue = self.containers[&container];
        let asks = self.leaders[queue].asks.entry(container).or_default();
        *asks = asks.saturating_sub(1);
        let delivery = self.delivery_of(queue, (activation, run), container);
        self.step(delivery);
    }

    /// The first run of a container ends well.
    pub(crate) fn finish(&mut self, worker: WorkerId, reusable: bool) {
        let (id, init) = self.host(worker).runs.remove(0);
        if init {
            self.step(Input::Initialised { worker });
        }
        self.step(Input::Finished(Finished {
            worker,
            id,
            record: Record {
                id,
                run: self.run_of[&id],
            },
            len: 100,
            reusable,
            healthy: true,
        }));
    }

    pub(crate) fn not_started(&mut self, worker: WorkerId, reusable: bool) {
        let (id, _) = self.host(worker).runs.remove(0);
        *self.starts.get_mut(&id).unwrap() -= 1;
        *self.run_starts.get_mut(&(id, self.run_of[&id])).unwrap() -= 1;
        self.step(Input::NotStarted {
            worker,
            id,
            reusable,
            reason: "test".to_owned(),
        });
    }

    pub(crate) fn paused(&mut self, worker: WorkerId) {
        self.host(worker).pausing = false;
        self.step(Input::Paused { worker });
    }

    /// The removal ends, after everything that runs.
    pub(crate) fn gone(&mut self, worker: WorkerId) {
        while !self.host(worker).runs.is_empty() {
            self.finish(worker, false);
        }
        self.hosts.remove(&worker);
        self.step(Input::Gone { worker });
    }

    /// Another scheduler leads the queue and says so; what the former leader sent may arrive before or after that.
    pub(crate) fn change_leader(&mut self, queue: usize) {
        let leader = &mut self.leaders[queue];
        leader.id = SchedulerId(leader.id.0 % 3 + 1);
        leader.epoch = leader.epoch.next();
        leader.asks.clear();
        leader.waits = true;
        let (from, epoch) = (leader.id, leader.epoch);
        let reregister = Input::Reregister {
            from,
            key: key(queue),
            epoch,
        };
        self.down.push_back((from, reregister));
    }

    /// A scheduler says which queues it leads, as it does on every new stream.
    pub(crate) fn announce(&mut self, from: SchedulerId) {
        for (queue, leader) in self
            .leaders
            .iter()
            .enumerate()
            .filter(|(_, leader)| leader.id == from)
        {
            self.down.push_back((
                from,
                Input::Reregister {
                    from,
                    key: key(queue),
                    epoch: leader.epoch,
                },
            ));
        }
    }

    /// The messages of leaders arrive.
    pub(crate) fn arrive(&mut self) {
        while let Some((_, input)) = self.down.pop_front() {
            self.step(input);
        }
    }

    /// The leader says that an activation was cancelled.
    pub(crate) fn stop(&mut self, activation: ActivationId, container: ContainerId) {
        let stop = self.stopping(activation, container);
        self.step(stop);
    }

    pub(crate) fn stopping(&self, activation: ActivationId, container: ContainerId) -> In {
        let leader = &self.leaders[self.containers[&container]];
        Input::Stop {
            from: leader.id,
            id: activation,
            container,
            epoch: leader.epoch,
        }
    }

    /// The next message of one scheduler arrives.
    pub(crate) fn arrive_one(&mut self, pick: usize) {
        let senders: BTreeSet<SchedulerId> = self.down.iter().map(|(from, _)| *from).collect();
        let Some(from) = senders.iter().nth(pick % senders.len().max(1)) else {
            return;
        };
        let at = self.down.iter().position(|(sender, _)| sender == from);
        if let Some((_, input)) = at.and_then(|at| self.down.remove(at)) {
            self.step(input);
        }
    }

    /// Ends everything that is under way, until nothing is.
    pub(crate) fn settle(&mut self) {
        loop {
            self.arrive();
            let busy = self.hosts.iter().find(|(_, host)| {
                host.creating || host.pausing || host.resuming || host.removing || !host.runs.is_empty()
            });
            let Some((worker, host)) = busy.map(|(worker, host)| (*worker, host.clone())) else {
                return;
            };
            self.end_one(worker, &host);
        }
    }

    pub(crate) fn end_one(&mut self, worker: WorkerId, host: &Host) {
        if host.creating {
            self.created(worker);
        } else if host.removing {
            self.gone(worker);
        } else if host.pausing {
            self.paused(worker);
        } else if host.resuming {
            self.host(worker).resuming = false;
            self.step(Input::Resumed { worker });
        } else if !host.runs.is_empty() {
            self.finish(worker, true);
        }
    }

    pub(crate) fn fail_one(&mut self, worker: WorkerId, host: &Host) {
        if host.creating {
            self.hosts.remove(&worker);
            self.step(Input::CreationFailed {
                worker,
                error: CreationError::Whisk,
                message: "test".to_owned(),
            });
        } else if host.pausing {
            self.host(worker).pausing = false;
            self.step(Input::PauseFailed { worker });
        } else if host.resuming {
            self.host(worker).resuming = false;
            self.step(Input::ResumeFailed { worker });
        } else if !host.runs.is_empty() {
            self.finish(worker, false);
        } else if !host.removing {
            self.step(Input::Died {
                worker,
                reason: "test".to_owned(),
            });
        }
    }

    fn invariant_memory_is_never_over_total(&self) {
        let real: u64 = self.hosts.values().map(|host| host.memory).sum();
        assert!(real <= TOTAL_MIB, "{real} MiB exist");
        assert_eq!(
            self.pool.memory_real(),
            ByteSize::mib(real),
            "the account counts what exists"
        );
    }

    fn invariant_a_run_is_started_at_most_once(&self) {
        for ((id, run), count) in &self.run_starts {
            assert!(*count <= 1, "run {run} of {id} was started {count} times");
        }
    }

    fn invariant_never_paused_while_running(&self) {
        for view in self.pool.containers() {
            let resting = matches!(view.life, Life::Pausing | Life::Paused | Life::Resuming);
            assert!(!resting || view.running.is_empty(), "{view:?}");
        }
    }

    /// For the end of a test, after [`World::settle`].
    pub(crate) fn invariant_every_delivered_id_is_answered(&self) {
        assert!(self.owed.is_empty(), "never answered: {:?}", self.owed);
    }
}
