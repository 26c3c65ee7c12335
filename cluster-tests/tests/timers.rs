//! F24: delayed activations across the death of their queue's leader and of the whole cluster.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, stream};
use whiskraft_client::{Client, InvokeOptions};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, Spread, drawn, machine, pass, size, tenants, until};
use whiskraft_types::{ActivationId, QueueKey};

const INVOKERS: u64 = 4;
const QUEUES: usize = 3;
const AT_ONCE: usize = 64;
/// All are due within this time after the first may be.
const SPAN_MS: u64 = 6000;
/// The first is due so long after the submissions began.
const LEAD: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(60);
/// Two clocks read one after the other may differ by this.
const EARLY_MS: u64 = 5;

#[expect(clippy::disallowed_methods, reason = "due times are wall times")]
fn wall() -> SystemTime {
    SystemTime::now()
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Submits `count` activations, due one after the other; when each is due.
async fn submit(client: &Client, queues: &[QueueKey], count: u64, seed: u64) -> BTreeMap<ActivationId, u64> {
    let first = wall() + LEAD;
    let all = (0..count).map(|n| async move {
        let key = &queues[usize::try_from(n).unwrap_or(0) % queues.len()];
        let due = first + Duration::from_millis(drawn(seed + n) % SPAN_MS);
        let options = InvokeOptions {
            not_before: Some(due),
            ..InvokeOptions::default()
        };
        let submitted = client.submit(&key.namespace, &key.action, "{}", options).await;
        (submitted.expect("accepted").id(), millis(due))
    });
    stream::iter(all).buffer_unordered(AT_ONCE).collect().await
}

/// Waits until all have started, and checks that none did twice or early; how late they were.
async fn check(cluster: &Cluster, due: &BTreeMap<ActivationId, u64>) -> Spread {
    let started = async || {
        let starts = cluster.starts.by_id();
        due.keys()
            .all(|id| starts.contains_key(&id.to_string()))
            .then_some(starts)
    };
    let (starts, _) = until("everything that was due has started", LIMIT, started).await;
    let late = due.iter().map(|(id, due)| {
        let starts = &starts[&id.to_string()];
        assert_eq!(starts.len(), 1, "{id} started {starts:?}");
        let at = starts[0].at_ms;
        assert!(at + EARLY_MS >= *due, "{id} started {} ms early", due - at);
        Duration::from_millis(at.saturating_sub(*due))
    });
    Spread::of(late)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_work_starts_once_and_on_time_whoever_dies() {
    let count = size("WHISKRAFT_DELAYED", 1000);
    let mut cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts()).await;
    let client = cluster.client().await;
    let queues = tenants::put_queues(&client, "t", QUEUES, 10).await;

    let due = submit(&client, &queues, count, 0).await;
    let calm = check(&cluster, &due).await;

    let due = submit(&client, &queues, count, count).await;
    // In the middle of what is due.
    pass(LEAD + Duration::from_millis(SPAN_MS / 3)).await;
    let leader = cluster.leader_of(&client, queues[0].action.as_str()).await;
    cluster.kill_scheduler(leader);
    let killed = check(&cluster, &due).await;
    cluster.start_scheduler(leader);
    cluster.healed().await;

    let due = submit(&client, &queues, count, 2 * count).await;
    (1..=3).for_each(|id| cluster.kill_scheduler(id));
    pass(LEAD + Duration::from_millis(SPAN_MS / 2)).await;
    (1..=3).for_each(|id| cluster.start_scheduler(id));
    let away = check(&cluster, &due).await;
    println!(
        "delayed ({}): {count} each, none early or twice; late without a fault {calm}, leader killed while they were due \
         {killed}, everybody away for the first half {away}",
        machine()
    );
}
