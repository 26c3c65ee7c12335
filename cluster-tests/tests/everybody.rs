//! F17: every process of the cluster ends in one moment and all of them come back, with durable work waiting in many queues.
//!
//! `WHISKRAFT_QUEUES` is the number of queues (1,000 unless set).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use whiskraft_client::InvokeOptions;
use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, Deadline, DurableLoad, Fate, Work, judge, machine, size, tenants,
};
use whiskraft_types::{ActivationStatus, NamespaceLimits};

const INVOKERS: u64 = 4;
const ACTIONS: usize = 50;
const LIMIT: Duration = Duration::from_secs(120);
const CALLS_AT_ONCE: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_stops_and_starts_with_work_in_every_queue() {
    let count = usize::try_from(size("WHISKRAFT_QUEUES", 1000)).expect("a number of queues");
    let mut cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "32GiB").recording_starts()).await;
    let (client, second) = (cluster.client().await, cluster.client().await);
    let namespaces: Vec<_> = (0..count.div_ceil(ACTIONS))
        .map(|n| tenants::namespace("e", n))
        .collect();
    let limits = namespaces
        .iter()
        .map(|name| (name.clone(), NamespaceLimits::containers(50)));
    tenants::put_namespaces(&client, limits).await;
    let queues: Vec<_> = (0..count)
        .map(|n| tenants::queue(&namespaces[n / ACTIONS], n % ACTIONS))
        .collect();
    let actions = queues.iter().map(|key| (key.clone(), tenants::small(128, 1)));
    tenants::put_actions(&client, actions).await;

    // Nothing runs: what is acknowledged now waits through the end of the world.
    (1..=INVOKERS).for_each(|id| cluster.kill_invoker(id));
    cluster.invokers_are(0).await;
    let work = Work::new(queues.clone(), 64, count as u64);
    let load = DurableLoad::start(vec![client.clone(), second], work);
    load.progress(count as u64, LIMIT).await;
    let accepting = load.elapsed();
    let history = load.finish().await;
    let accepted = history.iter().filter(|one| one.fate == Fate::Accepted).count();
    (1..=3).for_each(|id| cluster.kill_scheduler(id));
    (1..=3).for_each(|id| cluster.start_scheduler(id));
    (1..=INVOKERS).for_each(|id| cluster.start_invoker(id));
    let clock = Deadline::after(LIMIT);

    let calls = queues.iter().map(|key| {
        let (client, key) = (client.clone(), key.clone());
        async move {
            let options = InvokeOptions {
                deadline: LIMIT,
                ..InvokeOptions::default()
            };
            let record = client.invoke(&key.namespace, &key.action, "{}", options).await;
            let record = record.unwrap_or_else(|error| panic!("{}: {error}", key.action));
            assert_eq!(record.status, ActivationStatus::Success, "{}", key.action);
            clock.elapsed()
        }
    });
    let ended: Vec<Duration> = stream::iter(calls)
        .buffer_unordered(CALLS_AT_ONCE)
        .collect()
        .await;
    let judgement = judge(&cluster, &history, &BTreeMap::new()).await;
    println!(
        "everybody stopped and started ({}): {count} queues, {accepted} durable activations waiting (accepted within \
         {accepting:.1?}); first result {:.1?}, all queues usable {:.1?} after the start\n  {judgement}",
        machine(),
        ended.iter().min().copied().unwrap_or_default(),
        ended.iter().max().copied().unwrap_or_default()
    );
    judgement.assert_kept();
    assert_eq!(accepted, count, "every queue had one waiting");
}
