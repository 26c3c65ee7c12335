//! F27, F28: invokers with durable work are killed, or cut off from everybody while they live.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::json;
use whiskraft_client::{ActionSpec, ActivationRecord, Client, Expect, InvokeOptions};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, Deadline, Spread, machine, pass, tenants, until};
use whiskraft_types::{ActivationId, ActivationStatus, NamespaceLimits, QueueKey};

const INVOKERS: u64 = 4;
const CONTAINERS: u32 = 32;
const COUNT: u64 = 160;
const AT_ONCE: usize = 64;
const RUN_MS: u64 = 1500;
const LIMIT: Duration = Duration::from_secs(60);
/// Life of a session without a keepalive.
const TTL: Duration = Duration::from_millis(1200);

async fn queue(client: &Client, retries: bool) -> QueueKey {
    let namespace = tenants::namespace(if retries { "again" } else { "once" }, 0);
    tenants::put_namespaces(
        client,
        [(namespace.clone(), NamespaceLimits::containers(CONTAINERS))],
    )
    .await;
    let key = tenants::queue(&namespace, 0);
    let mut spec = ActionSpec::new(key.action.clone(), "python:3", "");
    spec.limits = tenants::small(128, 1);
    if retries {
        spec.annotations.insert("retry-on-loss".to_owned(), json!(true));
    }
    client
        .put_action(&spec, Expect::Anything)
        .await
        .expect("the action is stored");
    key
}

async fn submit(client: &Client, key: &QueueKey) -> Vec<ActivationId> {
    let all = (0..COUNT).map(|n| async move {
        let arguments = json!({"n": n, "sleep_ms": RUN_MS});
        let submitted = client
            .submit(&key.namespace, &key.action, arguments, InvokeOptions::default())
            .await;
        submitted.expect("accepted").id()
    });
    stream::iter(all).buffer_unordered(AT_ONCE).collect().await
}

async fn records(
    client: &Client,
    key: &QueueKey,
    ids: &[ActivationId],
) -> BTreeMap<ActivationId, ActivationRecord> {
    let all = ids.iter().map(|id| async move {
        let record = client.result(&key.namespace, *id, LIMIT).await;
        (*id, record.unwrap_or_else(|error| panic!("{id}: {error}")))
    });
    stream::iter(all).buffer_unordered(AT_ONCE).collect().await
}

/// Waits until so many runs have begun on an invoker.
async fn busy(cluster: &Cluster, invoker: u64, runs: usize) {
    let enough = async || {
        let starts = cluster.starts.all();
        (starts.iter().filter(|start| start.invoker == invoker).count() >= runs).then_some(())
    };
    until("the invoker is busy", LIMIT, enough).await;
}

/// F27: what an invoker ran when it died ends with an error soon after, or runs once more if the action says so; the rest runs
/// elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_invoker_ends_what_it_ran_and_nothing_else() {
    for retries in [false, true] {
        let mut cluster =
            Cluster::start(ClusterOptions::simulated(INVOKERS, "1GiB").recording_starts()).await;
        let client = cluster.client().await;
        let key = queue(&client, retries).await;
        let ids = submit(&client, &key).await;
        busy(&cluster, 1, 4).await;
        cluster.kill_invoker(1);
        let clock = Deadline::after(LIMIT);
        let lost = async || {
            let status = client.status().await.ok()?;
            (!status
                .invokers
                .iter()
                .any(|invoker| invoker.invoker.0 == 1 && invoker.healthy))
            .then_some(())
        };
        until("its loss is known", LIMIT, lost).await;
        let known = clock.elapsed();
        let records = records(&client, &key, &ids).await;
        let starts = cluster.starts.by_id();
        let failed = records
            .values()
            .filter(|record| record.status != ActivationStatus::Success)
            .count();
        let again = starts.values().filter(|starts| starts.len() > 1).count();
        println!(
            "invoker killed, retry-on-loss {retries} ({}): of {COUNT} {failed} ended with an error, {again} ran twice; loss known \
             after {known:.1?}",
            machine()
        );
        for (id, record) in &records {
            let starts = &starts.get(&id.to_string()).map_or(&[][..], Vec::as_slice);
            let on_dead = starts.iter().any(|start| start.invoker == 1);
            let runs: Vec<u32> = starts.iter().map(|start| start.run).collect();
            match (record.status, retries) {
                (ActivationStatus::Success, false) => assert_eq!(runs, [1], "{id}"),
                (ActivationStatus::Success, true) => {
                    assert!(runs == [1] || on_dead && runs == [1, 2], "{id} {starts:?}")
                }
                (ActivationStatus::WhiskError, false) => assert!(runs.len() <= 1, "{id} {starts:?}"),
                (status, _) => panic!("{id} ended with {status:?}: {record:?}"),
            }
        }
        assert!(failed + again > 0, "the invoker died idle");
        assert!(retries || again == 0, "nobody allowed a second run");
        assert!(!retries || failed == 0, "the action allows to run it again");
    }
}

/// F28: an invoker that nobody hears starts nothing more when its session may be over, and what it finishes late changes no
/// record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoker_that_is_cut_off_stops_starting() {
    const ROUNDS: u64 = 3;

    let cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "2GiB").recording_starts()).await;
    let client = cluster.client().await;
    let key = queue(&client, false).await;
    let mut ended = Vec::new();
    for round in 0..ROUNDS {
        let victim = round % INVOKERS + 1;
        let before = cluster.starts.all().len();
        let ids = submit(&client, &key).await;
        let fresh = async || {
            let starts = cluster.starts.all();
            (starts[before..]
                .iter()
                .filter(|start| start.invoker == victim)
                .count()
                >= 4)
                .then_some(())
        };
        until("the invoker is busy", LIMIT, fresh).await;
        let schedulers: Vec<String> = (1..=3).map(|id| format!("scheduler-{id}")).collect();
        cluster
            .switchboard
            .isolate(&format!("invoker-{victim}"), &schedulers);
        pass(TTL).await;
        let fenced = cluster.starts.all().len();
        let clock = Deadline::after(LIMIT);
        let early = records(&client, &key, &ids).await;
        ended.push(clock.elapsed());
        let late: Vec<_> = cluster.starts.all()[fenced..]
            .iter()
            .filter(|start| start.invoker == victim)
            .cloned()
            .collect();
        assert!(late.is_empty(), "started after its session was over: {late:?}");
        cluster.switchboard.heal();
        cluster.invokers_are(INVOKERS).await;
        let after = records(&client, &key, &ids).await;
        assert_eq!(early, after, "a late result changed a record");
        let failed = early
            .values()
            .filter(|record| record.status != ActivationStatus::Success)
            .count();
        println!("invoker {victim} cut off: of {COUNT} {failed} ended with an error");
        assert!(failed > 0, "the cut missed the work");
        assert!(early.values().all(|record| matches!(
            record.status,
            ActivationStatus::Success | ActivationStatus::WhiskError
        )));
    }
    let twice: Vec<_> = cluster
        .starts
        .by_id()
        .into_values()
        .filter(|starts| starts.len() > 1)
        .collect();
    assert!(twice.is_empty(), "started twice: {twice:?}");
    println!(
        "  all ended {} after the session was over ({})",
        Spread::of(ended),
        machine()
    );
}
