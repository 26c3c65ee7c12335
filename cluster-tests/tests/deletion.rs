//! An action is deleted while it runs: what runs finishes, what waits hears why it does not begin, and nothing is left of it.

use std::time::Duration;

use serde_json::{Value, json};
use whiskraft_client::{ActivationRecord, Client, Expect, InvokeError, InvokeOptions};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, tenants, until};
use whiskraft_types::{ActionName, ActivationStatus, NamespaceLimits, NamespaceName, Rejection};

const WAIT_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_of_a_deleted_action_finishes_and_nothing_begins() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let client = cluster.client().await;
    let guest: NamespaceName = "guest".parse().unwrap();
    let action: ActionName = "guest/record".parse().unwrap();
    tenants::put_namespaces(&client, [(guest.clone(), NamespaceLimits::containers(1))]).await;
    cluster.put_recorder(&client).await;
    let running = invoke(&client, &guest, &action, json!({"n": 1, "sleep_ms": 3000}));
    until("it runs", WAIT_LIMIT, async || {
        (!cluster.recorder.runs().is_empty()).then_some(())
    })
    .await;
    let waiting = invoke(&client, &guest, &action, json!({"n": 2}));
    until("the other one waits", WAIT_LIMIT, async || {
        (cluster.waiting().await.0 == 1).then_some(())
    })
    .await;

    client.delete_action(&action, Expect::Anything).await.unwrap();
    let record = waiting.await.unwrap().expect("a record that says why");
    assert_eq!(record.status, ActivationStatus::DeveloperError);
    let said = String::from_utf8_lossy(&record.result).into_owned();
    assert!(said.contains("was deleted"), "{said}");
    let refused = client
        .invoke(&guest, &action, json!({"n": 3}), InvokeOptions::default())
        .await;
    let refused = refused.expect_err("there is no such action");
    assert!(
        matches!(
            &refused,
            InvokeError::Rejected {
                rejection: Rejection::NoAction { .. },
                ..
            }
        ),
        "{refused:?}"
    );
    let record = running.await.unwrap().expect("the record of its run");
    assert_eq!(record.status, ActivationStatus::Success, "{record:?}");
    assert_eq!(cluster.recorder.runs().len(), 1);

    until("its queue and its container are gone", WAIT_LIMIT, async || {
        let status = client.status().await.ok()?;
        (status.queues_total == 0 && status.containers_running == 0).then_some(())
    })
    .await;

    // Under the same name it begins anew.
    cluster.put_recorder(&client).await;
    let record = invoke(&client, &guest, &action, json!({"n": 4}))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.status, ActivationStatus::Success, "{record:?}");
}

fn invoke(
    client: &Client,
    namespace: &NamespaceName,
    action: &ActionName,
    arguments: Value,
) -> tokio::task::JoinHandle<Result<ActivationRecord, InvokeError>> {
    let (client, namespace, action) = (client.clone(), namespace.clone(), action.clone());
    tokio::spawn(async move {
        client
            .invoke(&namespace, &action, arguments, InvokeOptions::default())
            .await
    })
}
