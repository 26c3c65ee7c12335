//! F25: actions that fail are run again as often as their policy says, whoever dies in between, and end as dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use whiskraft_client::{ActionSpec, Client, Expect, InvokeOptions, Progress};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, Start, machine, pass, size, tenants, until};
use whiskraft_types::{ActivationId, ActivationStatus, NamespaceLimits, QueueKey};

const INVOKERS: u64 = 4;
const RUNS: u32 = 3;
const BACKOFF_MS: u64 = 1000;
/// Back-off is kept within this share.
const JITTER_PERCENT: u64 = 10;
const AT_ONCE: usize = 64;
const LIMIT: Duration = Duration::from_secs(60);
/// Every so many activations fail for good; the others fail once less than they may.
const POISON_EVERY: u64 = 5;

async fn queue(client: &Client) -> QueueKey {
    let namespace = tenants::namespace("retry", 0);
    tenants::put_namespaces(client, [(namespace.clone(), NamespaceLimits::containers(20))]).await;
    let key = tenants::queue(&namespace, 0);
    let mut spec = ActionSpec::new(key.action.clone(), "python:3", "");
    spec.limits = tenants::small(128, 1);
    let policy = [
        ("retry-attempts", json!(RUNS)),
        ("retry-backoff", json!(format!("{BACKOFF_MS}ms"))),
    ];
    spec.annotations
        .extend(policy.map(|(name, value)| (name.to_owned(), value)));
    client
        .put_action(&spec, Expect::Anything)
        .await
        .expect("the action is stored");
    key
}

fn fails(n: u64) -> u32 {
    if n.is_multiple_of(POISON_EVERY) {
        u32::MAX
    } else {
        RUNS - 1
    }
}

async fn submit(client: &Client, key: &QueueKey, arguments: Value) -> ActivationId {
    let submitted = client
        .submit(&key.namespace, &key.action, arguments, InvokeOptions::default())
        .await;
    submitted.expect("accepted").id()
}

/// Ids of the dead letters, all pages.
async fn letters(client: &Client, key: &QueueKey) -> BTreeSet<ActivationId> {
    let (mut all, mut after) = (BTreeSet::new(), None);
    loop {
        let page = client
            .dead_letters(&key.namespace, Some(&key.action), after.as_ref(), 100)
            .await;
        let page = page.expect("the list");
        all.extend(page.letters.iter().map(|letter| letter.id));
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

/// Checks that the runs are 1, 2, … and that each waited for its back-off.
fn check_runs(id: ActivationId, starts: &[Start]) {
    let runs: Vec<u32> = starts.iter().map(|start| start.run).collect();
    assert_eq!(runs, (1..=RUNS).collect::<Vec<_>>(), "runs of {id}: {starts:?}");
    for (pair, doubled) in starts.windows(2).zip(0..) {
        let waited = pair[1].at_ms - pair[0].at_ms;
        let least = (BACKOFF_MS << doubled) * (100 - JITTER_PERCENT) / 100;
        assert!(
            waited >= least,
            "{id} run {} after {waited} ms, not {least}",
            pair[1].run
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_runs_are_repeated_exactly_and_end_as_dead_letters() {
    let count = size("WHISKRAFT_RETRIED", 200);
    let mut cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts()).await;
    let client = cluster.client().await;
    let key = queue(&client).await;
    let all = (0..count).map(|n| {
        let (client, key) = (&client, &key);
        async move { (submit(client, key, json!({"fail_runs": fails(n)})).await, n) }
    });
    let all: BTreeMap<ActivationId, u64> = stream::iter(all).buffer_unordered(AT_ONCE).collect().await;
    // While most of them wait for their second run, and again for the third.
    for _ in 0..2 {
        let leader = cluster.leader_of(&client, key.action.as_str()).await;
        cluster.kill_scheduler(leader);
        pass(Duration::from_millis(BACKOFF_MS)).await;
        cluster.start_scheduler(leader);
        cluster.healed().await;
    }
    let (mut poison, mut good) = (BTreeSet::new(), 0);
    for (id, n) in &all {
        let record = client.result(&key.namespace, *id, LIMIT).await.expect("a record");
        let ends_well = fails(*n) < RUNS;
        let status = if ends_well {
            ActivationStatus::Success
        } else {
            ActivationStatus::ApplicationError
        };
        assert_eq!((record.status, record.run), (status, RUNS), "{id}: {record:?}");
        good += u64::from(ends_well);
        if !ends_well {
            poison.insert(*id);
        }
    }
    let starts = cluster.starts.by_id();
    all.keys()
        .for_each(|id| check_runs(*id, &starts[&id.to_string()]));
    assert_eq!(
        letters(&client, &key).await,
        poison,
        "the dead letters are the ones that failed for good"
    );

    let ids: Vec<ActivationId> = poison.iter().copied().collect();
    let redriven = client.redrive(&key.namespace, &ids).await.expect("redriven");
    let new: BTreeSet<ActivationId> = redriven
        .iter()
        .map(|one| one.outcome.clone().expect("a new one"))
        .collect();
    assert_eq!(new.len(), ids.len(), "each has a successor of its own");
    let again = async || (letters(&client, &key).await == new).then_some(());
    let (_, took) = until("the successors failed as well", LIMIT, again).await;
    let starts = cluster.starts.by_id();
    new.iter()
        .for_each(|id| check_runs(*id, &starts[&id.to_string()]));
    let found = client
        .find_activation(&key.namespace, ids[0])
        .await
        .expect("an answer")
        .expect("known");
    assert!(
        matches!(found.progress, Progress::Done(_)) && !found.dead_letter,
        "{found:?}"
    );
    let new: Vec<ActivationId> = new.into_iter().collect();
    let purged = client.purge(&key.namespace, &new).await.expect("purged");
    println!(
        "retries ({}): {count} activations with {RUNS} runs each, 2 leaders killed; {good} ended well, {} dead letters, redriven \
         and dead again within {took:.1?}, {purged} purged",
        machine(),
        ids.len()
    );
    assert_eq!(
        (purged, letters(&client, &key).await.len()),
        (new.len() as u64, 0)
    );
}
