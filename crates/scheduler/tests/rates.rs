//! Invocations per minute of a namespace, over the queues of all schedulers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(
    clippy::disallowed_methods,
    reason = "what may be accepted grows with the time the test takes"
)]

mod common;

use std::collections::BTreeMap;

use common::controller::{Answer, Controller};
use common::{Cluster, key, soon};
use tokio::time::Instant;
use whiskraft_proto::v1;
use whiskraft_proto::v1::documents_client::DocumentsClient;
use whiskraft_proto::v1::put_namespace_response::Outcome;
use whiskraft_proto::v1::rejection::Kind;
use whiskraft_types::{ActionLimits, NamespaceName, SchedulerId};

/// Limit of the tests: a burst of 100, then ten a second.
const PER_MINUTE: u32 = 600;
const BURST: u32 = 100;
/// Tokens in the stocks of three schedulers at most.
const STOCKS: u32 = 3 * (PER_MINUTE / 600);

/// Queues of one namespace that all three schedulers lead, and a controller at each.
struct Stage {
    cluster: Cluster,
    queues: Vec<v1::QueueLeadership>,
    controllers: BTreeMap<u64, Controller>,
    /// Ids are never used twice.
    next: u32,
}

/// What became of a number of offers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: u32,
    throttled: u32,
}

async fn limit(cluster: &Cluster, name: &str, per_minute: Option<u32>) {
    let request = v1::PutNamespaceRequest {
        name: name.to_owned(),
        containers: 30,
        invocations_per_minute: per_minute,
        ..Default::default()
    };
    let mut client = DocumentsClient::new(cluster.channel(cluster.any()).await);
    // On a busy machine a scheduler may have to open its session again.
    let stored = async {
        loop {
            match client
                .put_namespace(request.clone())
                .await
                .unwrap()
                .into_inner()
                .outcome
            {
                Some(Outcome::Revision(_)) => return,
                Some(Outcome::Rejection(v1::Rejection {
                    kind: Some(Kind::Unavailable(_)),
                })) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    soon("limits stored", stored).await;
    let name: NamespaceName = name.parse().unwrap();
    for id in cluster.members.keys() {
        let is_limited = |state: &whiskraft_state::State| {
            state.namespace_limits(&name).invocations_per_minute == per_minute
        };
        cluster.until_on(*id, "the limit is known", is_limited).await;
    }
}

impl Stage {
    async fn new(namespace: &str, per_minute: Option<u32>) -> Self {
        let cluster = Cluster::start().await;
        limit(&cluster, namespace, per_minute).await;
        let mut stage = Self {
            cluster,
            queues: Vec::new(),
            controllers: BTreeMap::new(),
            next: 0,
        };
        stage.lead(namespace).await;
        stage
    }

    /// Makes queues until each scheduler leads one.
    async fn lead(&mut self, namespace: &str) {
        for n in 0.. {
            let action = format!("guest/{namespace}{n}");
            self.cluster.put_action(&action, ActionLimits::default()).await;
            let queue = self.cluster.ensure(1, &key(namespace, &action)).await.unwrap();
            self.queues.push(queue);
            let leaders: std::collections::BTreeSet<u64> =
                self.queues.iter().map(|queue| queue.leader).collect();
            if leaders.len() == 3 {
                break;
            }
        }
        for (id, address) in self.cluster.addresses() {
            let controller = Controller::connect(&address, id as u8).await;
            self.controllers.insert(id, controller);
        }
    }

    /// Offers a number of new activations to each of the queues; the answers of all.
    async fn offer(&mut self, queues: &[v1::QueueLeadership], each: u32) -> Tally {
        let mut expected: BTreeMap<u64, u32> = BTreeMap::new();
        for queue in queues {
            let ids = self.next..self.next + each;
            self.next = ids.end;
            self.controllers[&queue.leader].offer(queue, ids).await;
            *expected.entry(queue.leader).or_default() += each;
        }
        let mut tally = Tally::default();
        for (leader, count) in expected {
            let controller = self.controllers.get_mut(&leader).unwrap();
            for _ in 0..count {
                match controller.answer().await.1 {
                    Answer::Accepted => tally.accepted += 1,
                    Answer::Rejected(Kind::Throttled(throttled)) => {
                        assert_eq!(throttled.scope(), v1::throttled::Scope::Rate);
                        assert!(throttled.retry_after_ms <= 60_000 && throttled.limit.is_some());
                        tally.throttled += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        tally
    }

    /// Waits until each queue accepts: its shard has heard of the new limit.
    async fn eventually(&mut self, queues: &[v1::QueueLeadership]) {
        for queue in queues {
            let accepts = async { while self.offer(std::slice::from_ref(queue), 1).await.accepted == 0 {} };
            soon("the new limit counts", accepts).await;
        }
    }

    /// What may be accepted since a moment, a burst included.
    fn most(since: Instant, homes: u32) -> u32 {
        let leaked = since.elapsed().as_secs_f64() * f64::from(PER_MINUTE) / 60.0;
        homes * BURST + leaked.ceil() as u32 + STOCKS
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_over_the_queues_of_all_schedulers() {
    let mut stage = Stage::new("guest", Some(PER_MINUTE)).await;
    let (queues, began) = (stage.queues.clone(), Instant::now());
    let each = 10 * PER_MINUTE / queues.len() as u32 / 5;
    let mut accepted = 0;
    for _ in 0..5 {
        let tally = stage.offer(&queues, each).await;
        assert_eq!(tally.accepted + tally.throttled, each * queues.len() as u32);
        accepted += tally.accepted;
    }
    let most = Stage::most(began, 1);
    assert!(
        (BURST - STOCKS..=most).contains(&accepted),
        "{accepted} accepted, {BURST} to {most} may be"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_queue_alone_gets_the_whole_limit() {
    let mut stage = Stage::new("guest", Some(PER_MINUTE)).await;
    let home: NamespaceName = "guest".parse().unwrap();
    let home = stage.cluster.read(|state| state.rate_home(&home)).unwrap();
    let mut queues = stage.queues.clone();
    queues.retain(|queue| queue.leader != home.0);
    let began = Instant::now();
    // As many as the burst, at once: none of them is refused although nothing is in stock.
    let first = stage.offer(&queues[..1], BURST - 1).await;
    assert_eq!(first.throttled, 0, "{first:?}");
    let rest = stage.offer(&queues[..1], 1000).await;
    assert!(rest.throttled > 0);
    assert!(first.accepted + rest.accepted <= Stage::most(began, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_namespaces_are_not_limited_and_a_known_activation_takes_no_token() {
    let mut stage = Stage::new("limited", Some(1)).await;
    stage.lead("free").await;
    let (limited, free): (Vec<_>, Vec<_>) = stage
        .queues
        .clone()
        .into_iter()
        .partition(|queue| queue.key.as_ref().unwrap().namespace == "limited");
    assert_eq!(
        stage.offer(&free, 500).await,
        Tally {
            accepted: 500 * free.len() as u32,
            throttled: 0
        }
    );
    let id = stage.next;
    assert_eq!(stage.offer(&limited[..1], 1).await.accepted, 1);
    assert_eq!(stage.offer(&limited[..1], 1).await.throttled, 1);
    stage.next = id;
    assert_eq!(stage.offer(&limited[..1], 1).await.accepted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_raised_or_removed_counts_at_once() {
    let mut stage = Stage::new("guest", Some(1)).await;
    let queues = stage.queues.clone();
    let tally = stage.offer(&queues, 10).await;
    assert_eq!(tally.accepted, 1, "{tally:?}");
    limit(&stage.cluster, "guest", Some(600_000)).await;
    stage.eventually(&queues).await;
    limit(&stage.cluster, "guest", None).await;
    stage.eventually(&queues).await;
    assert_eq!(stage.offer(&queues, 1000).await.throttled, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_after_none_begins_with_its_burst() {
    let mut stage = Stage::new("guest", Some(1)).await;
    let queues = stage.queues.clone();
    assert_eq!(
        stage.offer(&queues, 1).await.accepted,
        1,
        "the burst of one is used"
    );
    limit(&stage.cluster, "guest", None).await;
    let free = async { while stage.offer(&queues, 2 * BURST).await.throttled > 0 {} };
    soon("no limit counts", free).await;
    limit(&stage.cluster, "guest", Some(PER_MINUTE)).await;
    assert_eq!(stage.offer(&queues[..1], BURST - 2).await.throttled, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_the_home_refuses_nobody_under_the_limit() {
    let mut stage = Stage::new("guest", Some(PER_MINUTE)).await;
    let name: NamespaceName = "guest".parse().unwrap();
    let home = stage.cluster.read(|state| state.rate_home(&name)).unwrap();
    let mut queues = stage.queues.clone();
    queues.retain(|queue| queue.leader != home.0);
    let began = Instant::now();
    assert_eq!(stage.offer(&queues, 1).await.throttled, 0);
    stage.cluster.crash(home.0).await;
    assert_eq!(stage.offer(&queues, 5).await.throttled, 0);
    let survivor = stage.cluster.any();
    stage
        .cluster
        .until_on(survivor, "the home has moved", |state| {
            state.rate_home(&name).is_some_and(|id: SchedulerId| id != home)
        })
        .await;
    let tally = stage.offer(&queues, 1000).await;
    // The bucket of the former home, the shares while nobody answered, the bucket of the new one.
    assert!(
        tally.throttled > 0 && tally.accepted <= Stage::most(began, 3),
        "{tally:?}"
    );
}
