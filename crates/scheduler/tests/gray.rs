//! What becomes of an invoker's work reaches the judge of the scheduler that gave it, and his word the placement.
//!
//! Two invokers, one of which misbehaves in one way; the judge itself is tested in the queue crate.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::time::Duration;

use common::controller::Controller;
use common::invoker::{Invoker, Said};
use common::{Cluster, PATIENCE, config, key, soon};
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_report::Change;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_scheduler::SchedulerConfig;
use whiskraft_types::{ActionLimits, ByteSize, InvokerId};

const BAD: u64 = 7;
const GOOD: u64 = 8;
const ACTION: &str = "guest/a";
/// Activations offered at once; the next ones follow when these have ended.
const OFFERED: u32 = 20;
/// Activations without an answer, one after the other, that make a suspect; here each is in a container of its own.
const SUSPECT_AFTER: u32 = 2;

/// Silence shows early, and nothing else comes of a machine that is slow: no session ends, no creation is late, and what is
/// suspected stays so until somebody has looked.
fn impatient() -> SchedulerConfig {
    let mut config = config();
    config.queue.silent_after = Duration::from_millis(500);
    config.session.ttl = PATIENCE / 2;
    config.creation.deadline = PATIENCE;
    config.creation.judge.probation_min = config.creation.judge.probation_max;
    config
}

struct Rig {
    cluster: Cluster,
    bad: Invoker,
    good: Invoker,
    leadership: v1::QueueLeadership,
    controller: Controller,
    offered: u32,
    ended: u32,
    /// Whether a container of the good one asks.
    is_served: bool,
    /// Containers that the bad one was given.
    bad_containers: u32,
    /// What the good one is to create, while the bad one has too few.
    kept_back: Vec<(u64, v1::CreateContainer)>,
}

impl Rig {
    async fn start(config: SchedulerConfig) -> Self {
        let cluster = Cluster::start_with(config).await;
        let limits = ActionLimits {
            timeout: Duration::from_millis(100),
            memory: ByteSize::mib(128),
            ..ActionLimits::default()
        };
        cluster.put_action(ACTION, limits).await;
        let bad = Invoker::start(BAD, &cluster.addresses()).await;
        let good = Invoker::start(GOOD, &cluster.addresses()).await;
        cluster
            .until("both invokers are healthy", |state| {
                state.invokers().filter(|(_, row)| row.healthy).count() == 2
            })
            .await;
        let leadership = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
        let controller = Controller::connect(&leadership.client_address, 1).await;
        Self {
            cluster,
            bad,
            good,
            leadership,
            controller,
            offered: 0,
            ended: 0,
            is_served: false,
            bad_containers: 0,
            kept_back: Vec::new(),
        }
    }

    async fn offer(&mut self) {
        let ids = self.offered..self.offered + OFFERED;
        self.offered = ids.end;
        self.controller.offer(&self.leadership, ids).await;
    }

    /// The good one does its work, and the bad one takes what it gets and says nothing, for ever.
    async fn work(&mut self) {
        self.offer().await;
        loop {
            tokio::select! {
                said = self.bad.said() => if let Said::Create(scheduler, create) = said {
                    self.bad.run(scheduler, &create, 1).await;
                    self.bad_containers += 1;
                },
                said = self.good.said() => self.serve(said).await,
            }
            if self.bad_containers >= SUSPECT_AFTER {
                for (scheduler, create) in std::mem::take(&mut self.kept_back) {
                    self.serve(Said::Create(scheduler, create)).await;
                }
            }
            if self.ended + OFFERED / 2 >= self.offered {
                self.offer().await;
            }
        }
    }

    /// The good one has one activation at a time. So however long an answer takes, it comes before the next delivery: it
    /// lets no two activations go unanswered one after the other, which is what makes a suspect.
    ///
    /// It creates nothing before the bad one has what it takes to be suspected: one quick container would do all the work.
    async fn serve(&mut self, said: Said) {
        match said {
            Said::Create(scheduler, create) if self.bad_containers < SUSPECT_AFTER => {
                self.kept_back.push((scheduler, create));
            }
            Said::Create(scheduler, create) => {
                let asks = u32::from(!std::mem::replace(&mut self.is_served, true));
                self.good.run(scheduler, &create, asks).await;
            }
            Said::Deliver(scheduler, deliver) => {
                let key = key("guest", ACTION);
                self.good.complete(scheduler, &key, &deliver, 1).await;
                self.ended += 1;
            }
            _ => {}
        }
    }

    async fn work_until_suspected(mut self, reason: &str) {
        let shown = until_shown(&self.cluster, self.leadership.leader, reason).await;
        tokio::select! {
            () = soon(reason, shown) => {}
            () = self.work() => {}
        }
    }
}

/// Ends when a scheduler suspects the bad one for this reason, and the good one for none.
async fn until_shown(cluster: &Cluster, scheduler: u64, reason: &str) -> impl Future<Output = ()> + use<> {
    let mut operator = OperatorClient::new(cluster.channel(scheduler).await);
    let wanted = [(BAD, reason.to_owned()), (GOOD, String::new())];
    async move {
        loop {
            let status = operator.status(v1::StatusRequest {}).await.unwrap().into_inner();
            let shown = status.invokers.into_iter();
            let shown: Vec<_> = shown.map(|one| (one.invoker, one.suspicion)).collect();
            if shown == wanted {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_seen() {
    let rig = Rig::start(impatient()).await;
    rig.work_until_suspected("silent").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_come_and_go_are_seen_by_every_scheduler() {
    let cluster = Cluster::start().await;
    let addresses = cluster.addresses();
    let _good = Invoker::start(GOOD, &addresses).await;
    for _ in 0..2 {
        let bad = Invoker::start(BAD, &addresses).await;
        drop(bad);
        cluster
            .until("its session ends", |state| {
                state.invoker(InvokerId(BAD)).is_none()
            })
            .await;
    }
    let _bad = Invoker::start(BAD, &addresses).await;
    for (scheduler, _) in addresses {
        soon("flapping", until_shown(&cluster, scheduler, "flapping").await).await;
    }
}

fn not_now() -> Change {
    Change::Failed(v1::ContainerCreationFailed {
        error: v1::CreationError::Whisk.into(),
        message: "not now".to_owned(),
    })
}

/// A container that runs one activation and goes; whether this was its creation.
async fn serve_once(invoker: &mut Invoker, said: Said) -> bool {
    let key = key("guest", ACTION);
    match said {
        Said::Create(scheduler, create) => {
            invoker.run(scheduler, &create, 1).await;
            true
        }
        Said::Deliver(scheduler, deliver) => {
            invoker.complete(scheduler, &key, &deliver, 0).await;
            let gone = v1::CreateContainer {
                container: deliver.container,
                key: Some(key),
                ..Default::default()
            };
            let reason = "it has run once".to_owned();
            let removed = Change::Removed(v1::ContainerRemoved { reason });
            invoker.report(scheduler, &gone, removed).await;
            false
        }
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_suspicion_there_is_one_container_until_it_has_come_to_something() {
    const ELSEWHERE: u32 = 12;

    let mut config = config();
    config.creation.judge.probation_min = Duration::from_millis(500);
    let mut rig = Rig::start(config).await;
    let mut failed = 0;
    // One at a time, so that no creation is on its way when the suspicion begins.
    for number in 0.. {
        if failed == 3 {
            break;
        }
        rig.controller.offer(&rig.leadership, number..number + 1).await;
        let mut is_over = false;
        while !is_over {
            tokio::select! {
                said = rig.bad.said() => if let Said::Create(scheduler, create) = said {
                    failed += 1;
                    rig.bad.report(scheduler, &create, not_now()).await;
                },
                said = rig.good.said() => {
                    is_over = matches!(said, Said::Deliver(..));
                    serve_once(&mut rig.good, said).await;
                }
            }
        }
    }
    rig.controller.offer(&rig.leadership, 1_000..3_000).await;
    let (mut elsewhere, mut probe) = (0, None);
    while elsewhere < ELSEWHERE {
        tokio::select! {
            said = rig.bad.said() => if matches!(said, Said::Create(..)) {
                assert!(probe.is_none(), "a second one before anything was heard of the first");
                probe = Some(said);
            },
            said = rig.good.said() => {
                elsewhere += u32::from(serve_once(&mut rig.good, said).await && probe.is_some());
            }
        }
    }
    // What it shows now is good.
    serve_once(&mut rig.bad, probe.unwrap()).await;
    let trusted = until_shown(&rig.cluster, rig.leadership.leader, "").await;
    let work = async {
        loop {
            tokio::select! {
                said = rig.bad.said() => serve_once(&mut rig.bad, said).await,
                said = rig.good.said() => serve_once(&mut rig.good, said).await,
            };
        }
    };
    tokio::select! {
        () = soon("it is trusted again", trusted) => {}
        () = work => {}
    }
}
