//! An action is deleted while it runs: its caller hears that nobody knows how it ended, never that it did not run.

use std::time::Duration;

use serde_json::json;
use whiskraft_client::{Expect, InvokeOptions};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, until};
use whiskraft_types::{ActionName, ActivationStatus, NamespaceName};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_activation_of_a_deleted_action_is_not_rejected() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let client = cluster.client().await;
    cluster.put_recorder(&client).await;
    let guest: NamespaceName = "guest".parse().unwrap();
    let action: ActionName = "guest/record".parse().unwrap();
    let call = {
        let (client, guest, action) = (client.clone(), guest.clone(), action.clone());
        let arguments = json!({"n": 1, "sleep_ms": 3000});
        tokio::spawn(async move {
            client
                .invoke(&guest, &action, arguments, InvokeOptions::default())
                .await
        })
    };
    until("it runs", Duration::from_secs(30), async || {
        (!cluster.recorder.runs().is_empty()).then_some(())
    })
    .await;
    client.delete_action(&action, Expect::Anything).await.unwrap();
    let record = call.await.unwrap().expect("a record, not a rejection");
    assert_eq!(record.status, ActivationStatus::WhiskError);
    assert!(
        String::from_utf8_lossy(&record.result).contains("deleted"),
        "{record:?}"
    );
    assert_eq!(cluster.recorder.runs().len(), 1);
}
