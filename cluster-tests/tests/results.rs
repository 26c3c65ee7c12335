//! F26: whoever asked is gone; the result is found by id, at any scheduler, before, during and after the run.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use whiskraft_client::{Client, InvokeOptions};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, Deadline, Spread, machine, pass, tenants, until};
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_proto::{activation_id_bytes, v1};
use whiskraft_types::{ActivationId, QueueKey};

const LIMIT: Duration = Duration::from_secs(60);
/// Shortest one that may be configured.
const RETENTION: Duration = Duration::from_secs(60);
const ASKED: u64 = 60;
/// Result by id after the end, at any scheduler.
const RESULT_WITHIN: Duration = Duration::from_secs(1);

async fn ask(endpoint: &str, key: &QueueKey, id: ActivationId) -> Option<v1::FindActivationResponse> {
    let mut client = ControllerClient::connect(format!("http://{endpoint}"))
        .await
        .ok()?
        .max_decoding_message_size(64 << 20);
    let request = v1::FindActivationRequest {
        id: activation_id_bytes(id),
        namespace: key.namespace.to_string(),
    };
    Some(client.find_activation(request).await.ok()?.into_inner())
}

/// Waits until this scheduler says so.
async fn becomes(endpoint: &str, key: &QueueKey, id: ActivationId, wanted: State) -> Duration {
    let is = async || {
        ask(endpoint, key, id)
            .await
            .filter(|answer| answer.state() == wanted)
            .map(|_| ())
    };
    until(&format!("{id} is {wanted:?}"), LIMIT, is).await.1
}

async fn submit(client: &Client, key: &QueueKey, arguments: serde_json::Value) -> ActivationId {
    let submitted = client
        .submit(&key.namespace, &key.action, arguments, InvokeOptions::default())
        .await;
    submitted.expect("accepted").id()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_found_by_id_when_nobody_waits_for_it() {
    let mut cluster = Cluster::start(ClusterOptions::simulated(2, "1GiB").recording_starts()).await;
    let client = cluster.client().await;
    let key = tenants::put_queues(&client, "r", 1, 1).await.remove(0);
    let endpoints = cluster.endpoints();

    // One container: the second waits while the first runs. Who submitted them is gone at once.
    let asker = cluster.client().await;
    let running = submit(&asker, &key, json!({"sleep_ms": 4000})).await;
    becomes(&endpoints[0], &key, running, State::Started).await;
    let waiting = submit(&asker, &key, json!({"sleep_ms": 1})).await;
    asker.close().await;
    drop(asker);
    for endpoint in &endpoints {
        becomes(endpoint, &key, waiting, State::Waiting).await;
        becomes(endpoint, &key, running, State::Started).await;
    }
    for endpoint in &endpoints {
        becomes(endpoint, &key, running, State::Done).await;
        becomes(endpoint, &key, waiting, State::Done).await;
    }

    // How soon a result is there, at the scheduler that is asked last.
    let mut times = Vec::new();
    for n in 0..ASKED {
        let id = submit(&client, &key, json!({"n": n, "sleep_ms": 0})).await;
        let started = async || cluster.starts.by_id().contains_key(&id.to_string()).then_some(());
        until("it started", LIMIT, started).await;
        let clock = Deadline::after(LIMIT);
        for endpoint in &endpoints {
            becomes(endpoint, &key, id, State::Done).await;
        }
        times.push(clock.elapsed());
    }

    // A large one, and a blocking call whose caller dies in the middle.
    let large = submit(&client, &key, json!({"text": "x".repeat(900 << 10)})).await;
    becomes(&endpoints[2], &key, large, State::Done).await;
    let answer = ask(&endpoints[2], &key, large)
        .await
        .and_then(|answer| answer.record)
        .expect("a record");
    assert!(answer.result.len() > 900 << 10, "{} bytes", answer.result.len());
    let blocking = Client::draw_id();
    let caller = cluster.client().await;
    let options = InvokeOptions {
        id: Some(blocking),
        deadline: Duration::from_millis(300),
        ..InvokeOptions::default()
    };
    let late = caller
        .invoke(&key.namespace, &key.action, json!({"sleep_ms": 1000}), options)
        .await;
    assert!(late.is_err(), "its deadline is sooner than its end");
    caller.close().await;
    drop(caller);
    for endpoint in &endpoints {
        becomes(endpoint, &key, blocking, State::Done).await;
    }

    // The leader dies right after the end: the others know it.
    let mut after = BTreeSet::new();
    let last = submit(&client, &key, json!({"sleep_ms": 0})).await;
    let leader = cluster.leader_of(&client, key.action.as_str()).await;
    becomes(
        &endpoints[usize::try_from(leader).unwrap_or(1) - 1],
        &key,
        last,
        State::Done,
    )
    .await;
    cluster.kill_scheduler(leader);
    for (n, endpoint) in (1..).zip(&endpoints) {
        if n != leader {
            becomes(endpoint, &key, last, State::Done).await;
            becomes(endpoint, &key, blocking, State::Done).await;
            after.insert(n);
        }
    }
    let spread = Spread::of(times);
    println!(
        "results by id ({}): at all three schedulers {spread} after the start; read at {after:?} after the death of {leader}",
        machine()
    );
    assert!(spread.p99 < RESULT_WITHIN, "{spread}");
}

/// An expired record is gone, not unknown, and its id may be used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_record_answers_gone() {
    let options = ClusterOptions::simulated(1, "1GiB").with("scheduler.journal.retention=1m");
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let key = tenants::put_queues(&client, "g", 1, 1).await.remove(0);
    let id = submit(&client, &key, json!({})).await;
    becomes(&cluster.endpoints()[0], &key, id, State::Done).await;
    pass(RETENTION).await;
    // The journal's clock goes on with what is written.
    for endpoint in cluster.endpoints() {
        submit(&client, &key, json!({})).await;
        becomes(&endpoint, &key, id, State::Gone).await;
    }
}
