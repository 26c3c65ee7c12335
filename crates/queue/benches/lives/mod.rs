//! Lives of activations, told to memory queues as a scheduler tells them: each input is followed by a look at the next
//! deadline, a deadline that has come by a tick. For benches and for the test that counts allocations.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use whiskraft_queue::{
    ActionProfile, ControllerId, Input, JournalEntry, MemoryQueue, NamespaceCounts, Outcome, Output,
    QueueSettings, RunEnd, Terms, Verdict,
};
use whiskraft_types::{
    ActivationId, ContainerId, Epoch, Instant, InvokerId, QueueKey, Rare, Revision, SessionId,
};

/// Handles, as in the scheduler: the queue copies nothing but them.
type Payload = Arc<[u8]>;
type Record = Arc<[u8]>;

/// Time between two lives.
const STEP: Duration = Duration::from_micros(50);
const CONTROLLER: ControllerId = ControllerId([7; 16]);
const COUNTS: NamespaceCounts = NamespaceCounts {
    limit: 100_000,
    limit_over: 100_000,
    running: 1,
    in_progress: 0,
};

/// What a life meets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    /// As in benches and reports.
    pub(crate) name: &'static str,
    /// Queues that take turns.
    pub(crate) queues: usize,
    /// Containers of each, each of which asks for one activation at a time.
    pub(crate) containers: usize,
    /// Activations of each that have always more than a container each.
    pub(crate) waiting: usize,
    /// Ids of ended ones that each remembers.
    pub(crate) remembered: usize,
    /// Whether the journal is asked.
    pub(crate) is_durable: bool,
}

impl Scene {
    const PLAIN: Self = Self {
        name: "credit first",
        queues: 1,
        containers: 1,
        waiting: 0,
        remembered: 128,
        is_durable: false,
    };

    /// All that are measured.
    pub(crate) const ALL: [Self; 8] = [
        Self::PLAIN,
        Self {
            name: "activation first",
            waiting: 1,
            ..Self::PLAIN
        },
        Self {
            name: "1,000 waiting",
            waiting: 1000,
            ..Self::PLAIN
        },
        Self {
            name: "10,000 ids remembered",
            remembered: 10_000,
            ..Self::PLAIN
        },
        Self {
            name: "480 containers, 10,000 ids remembered",
            containers: 480,
            remembered: 10_000,
            ..Self::PLAIN
        },
        Self {
            name: "1,000 queues",
            queues: 1000,
            ..Self::PLAIN
        },
        Self {
            name: "durable",
            is_durable: true,
            ..Self::PLAIN
        },
        Self {
            name: "durable, 480 containers, 10,000 ids remembered",
            containers: 480,
            remembered: 10_000,
            is_durable: true,
            ..Self::PLAIN
        },
    ];
}

/// A queue and what is under way there.
struct Lane {
    queue: MemoryQueue<Payload, Record>,
    running: VecDeque<(InvokerId, ContainerId, ActivationId, u32)>,
}

/// A scene under way.
pub(crate) struct Lives {
    scene: Scene,
    lanes: Vec<Lane>,
    turn: usize,
    now: Instant,
    ids: u64,
    payload: Payload,
    record: Record,
    out: Vec<Output<Payload, Record>>,
}

impl Lives {
    /// The scene as it is after many lives.
    pub(crate) fn new(scene: Scene) -> Self {
        let settings = Arc::new(QueueSettings {
            dedup_max: scene.remembered,
            // As many lives as are wanted pass without the end of these.
            dedup_window: Duration::from_secs(1_000_000),
            ..QueueSettings::default()
        });
        let lanes = (0..scene.queues).map(|number| Lane::new(number, scene, &settings));
        let mut lives = Self {
            scene,
            lanes: lanes.collect(),
            turn: 0,
            now: Instant::from_origin(Duration::from_secs(1)),
            ids: 0,
            payload: Arc::from([1_u8; 200]),
            record: Arc::from([2_u8; 200]),
            out: Vec::with_capacity(16),
        };
        for _ in 0..scene.queues {
            (0..scene.containers + scene.waiting).for_each(|_| lives.submit());
            lives.start_all();
            lives.end_turn();
        }
        for _ in 0..scene.queues * (scene.remembered + 1) {
            lives.live();
        }
        lives
    }

    /// One activation from its submission to the word of its controller that it has the outcome.
    pub(crate) fn live(&mut self) {
        if self.scene.waiting == 0 {
            // The container asks, then the activation comes.
            self.complete();
            self.submit();
        } else {
            self.submit();
            self.complete();
        }
        self.start_all();
        self.end_turn();
    }

    fn submit(&mut self) {
        self.ids += 1;
        let durable = self.scene.is_durable;
        let id = activation(self.ids);
        self.tell(Input::Submit {
            controller: CONTROLLER,
            id,
            attempt: 1,
            waited: Duration::ZERO,
            caller: None,
            payload: self.payload.clone(),
            terms: Terms {
                durable,
                not_before: None,
            },
        });
        if durable {
            self.write(id);
        }
    }

    /// The oldest run ends, and its controller hears of it.
    fn complete(&mut self) {
        let (invoker, container, id, run) = self.lanes[self.turn]
            .running
            .pop_front()
            .expect("as many run as there are containers");
        self.tell(Input::Completed {
            invoker,
            container,
            id,
            run,
            end: RunEnd::Success,
            record: self.record.clone(),
            duration: Some(Duration::from_millis(20)),
            credits: 1,
        });
        if self.scene.is_durable {
            self.write(id);
        }
        let controller = CONTROLLER;
        self.tell(Input::Received { controller, id });
    }

    /// The journal has it.
    fn write(&mut self, id: ActivationId) {
        let verdict = Verdict::Written;
        self.tell(Input::Journaled { id, verdict });
    }

    /// What was delivered begins.
    fn start_all(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Deliver {
                    invoker,
                    container,
                    id,
                    run,
                    ..
                } => {
                    self.lanes[self.turn]
                        .running
                        .push_back((invoker, container, id, run));
                    self.tell(Input::Started { container, id });
                }
                Output::Complete {
                    outcome: Outcome::Record(_),
                    ..
                }
                | Output::Journal {
                    entry: JournalEntry::Accept { .. } | JournalEntry::End { .. },
                    ..
                }
                | Output::Accept { .. }
                | Output::Archive { .. }
                | Output::AcknowledgeInvoker { .. } => {}
                other => panic!("a life is never answered with {other:?}"),
            }
        }
        // A start is answered with nothing.
        self.out = out;
    }

    fn tell(&mut self, input: Input<Payload, Record>) {
        let lane = &mut self.lanes[self.turn];
        lane.queue.step(self.now, input, &mut self.out);
        if lane.queue.next_deadline().is_some_and(|at| at <= self.now) {
            lane.queue.step(self.now, Input::Tick(COUNTS), &mut self.out);
            // More containers are not to be had.
            self.out
                .retain(|output| !matches!(output, Output::Reserve { .. }));
        }
    }

    fn end_turn(&mut self) {
        self.turn = (self.turn + 1) % self.lanes.len();
        self.now = self.now + STEP;
    }
}

impl Lane {
    fn new(number: usize, scene: Scene, settings: &Arc<QueueSettings>) -> Self {
        let key = QueueKey {
            namespace: "guest".parse().expect("a name"),
            action: format!("guest/hello{number}").parse().expect("a name"),
        };
        let now = Instant::from_origin(Duration::from_secs(1));
        let mut queue = MemoryQueue::new(key, Epoch(1), PROFILE, settings.clone(), now);
        let mut out = Vec::new();
        let containers = (1..=scene.containers as u64).map(|seq| ContainerId {
            session: SessionId(3),
            seq,
        });
        let granted = Input::Granted {
            asked: 0,
            containers: containers.clone().map(|container| (container, None)).collect(),
            revision: PROFILE.revision,
        };
        queue.step(now, granted, &mut out);
        for container in containers {
            let credit = Input::Credit {
                invoker: InvokerId(container.seq % 8),
                container,
                count: 1,
                warmed: true,
            };
            queue.step(now, credit, &mut out);
        }
        Self {
            queue,
            running: VecDeque::new(),
        }
    }
}

pub(crate) const PROFILE: ActionProfile = ActionProfile {
    revision: Revision(1),
    concurrency: 1,
    instances: None,
    blackbox: false,
    timeout: Duration::from_secs(60),
    deleted: false,
    retry: Rare::new(),
};

/// Ids as the SDK draws them: any bytes, here the same in every run.
fn activation(number: u64) -> ActivationId {
    let halves = [number * 2, number * 2 + 1].map(|seed| {
        let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_be_bytes()
    });
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&halves[0]);
    bytes[8..].copy_from_slice(&halves[1]);
    ActivationId::from_bytes(bytes)
}
