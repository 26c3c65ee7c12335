//! A world around the pool: queue leaders that hand out activations, and a host that runs containers.
//!
//! Used by the case tests and by the property tests.

mod host;
mod leaders;
mod runs;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use whiskraft_pool::{Completed, Input, Life, Output, Pool, PoolSettings, Report, WorkerId};
use whiskraft_types::{
    ActivationId, ByteSize, ContainerId, Epoch, Instant, QueueKey, SchedulerId, SessionId,
};

pub(crate) use host::Host;
pub(crate) use leaders::Leader;
pub(crate) use runs::Runs;

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

fn queue_of(of: &QueueKey) -> usize {
    (0..2).find(|at| key(*at) == *of).expect("one of two queues")
}

/// The pool and everything that speaks with it.
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
    pub(crate) runs: Runs,
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
            runs: Runs::default(),
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
        self.note_input(&input);
        let mut out = Vec::new();
        self.pool.step(self.now, input, &mut out);
        for output in &out {
            self.carry_out(output);
        }
        self.out = out;
        self.invariant_memory_is_never_over_total();
        self.invariant_results_are_kept_until_acknowledged();
        self.invariant_never_paused_while_running();
    }

    fn carry_out(&mut self, output: &Out) {
        self.note_output(output);
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
                ..
            } => {
                assert!(self.now < *start_by, "started while fenced");
                self.host(*worker).runs.push((*id, *init));
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
            Output::Started { .. } | Output::Refused { .. } | Output::Memory(_) => {}
            Output::Completed(Completed {
                container,
                key,
                epoch,
                credits,
                ..
            }) => self.on_asks(*container, key, *epoch, *credits),
            Output::Withdraw { to, container } => self.on_withdraw(*to, *container),
            Output::Register(registration) => self.on_register(registration),
            Output::Report(report) => self.on_report(report),
            Output::Emptied => {
                assert!(self.hosts.is_empty(), "emptied with containers");
                self.emptied += 1;
            }
        }
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

    fn invariant_memory_is_never_over_total(&self) {
        let real: u64 = self.hosts.values().map(|host| host.memory).sum();
        assert!(real <= TOTAL_MIB, "{real} MiB exist");
        assert_eq!(
            self.pool.memory_real(),
            ByteSize::mib(real),
            "the account counts what exists"
        );
    }

    fn invariant_never_paused_while_running(&self) {
        for view in self.pool.containers() {
            let resting = matches!(view.life, Life::Pausing | Life::Paused | Life::Resuming);
            assert!(!resting || view.running.is_empty(), "{view:?}");
        }
    }
}
