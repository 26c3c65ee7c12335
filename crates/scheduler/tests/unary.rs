//! The unary pull service over real gRPC: what each kind of call is answered.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::{Controller, id};
use common::invoker::Invoker;
use common::{Cluster, connect, key, soon};
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;
use whiskraft_proto::activation::activation_service_client::ActivationServiceClient;
use whiskraft_proto::activation::{CompleteRequest, FetchRequest, RescheduleRequest};
use whiskraft_proto::v1;
use whiskraft_types::{ActionLimits, ContainerId};

const ACTION: &str = "guest/hello";
const FQN: &str = r#"{"path":"guest","name":"hello","version":"0.0.1"}"#;

struct Stage {
    cluster: Cluster,
    leadership: v1::QueueLeadership,
    controller: Controller,
    invoker: Invoker,
    client: ActivationServiceClient<Channel>,
    container: String,
    revision: u64,
}

/// A queue with one running container that asks by single calls; the activation that caused it is 1, and waits.
async fn stage() -> Stage {
    let cluster = Cluster::start().await;
    let revision = cluster.put_action(ACTION, ActionLimits::default()).await;
    let leadership = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&leadership, 1, 1, r#"{"a":1}"#).await;
    controller.accepted(1).await;
    let (scheduler, create) = invoker.next_create().await;
    let running = v1::container_report::Change::Running(v1::ContainerRunning {});
    invoker.report(scheduler, &create, running).await;
    invoker.all_acked().await;
    let known = ContainerId::from(create.container.unwrap());
    cluster
        .until_on(leadership.leader, "the container runs", |state| {
            state
                .container(known)
                .is_some_and(|row| row.state == whiskraft_state::ContainerState::Running)
        })
        .await;
    let client = ActivationServiceClient::new(connect(&leadership.client_address).await);
    Stage {
        cluster,
        leadership,
        controller,
        invoker,
        client,
        container: known.to_string(),
        revision,
    }
}

impl Stage {
    fn fetch(&self) -> FetchRequest {
        FetchRequest {
            transaction_id: "[\"t\",1]".to_owned(),
            invocation_namespace: "guest".to_owned(),
            fqn: FQN.to_owned(),
            rev: format!("\"{}\"", self.revision),
            container_id: self.container.clone(),
            warmed: false,
            last_duration: None,
            alive: true,
        }
    }

    async fn answer(&mut self, request: FetchRequest) -> Value {
        let answer = soon("answer to a fetch", self.client.fetch_activation(request)).await;
        let text = answer.unwrap().into_inner().activation_message;
        serde_json::from_str::<Value>(&text).unwrap()["message"].clone()
    }

    /// Fetches until there is an activation: the shard may hear of the container a moment later than the tables.
    async fn activation(&mut self) -> Value {
        loop {
            let answer = self.answer(self.fetch()).await;
            if answer["type"] != "NoActivationMessage" {
                return answer;
            }
        }
    }

    fn complete(&self, number: u8) -> CompleteRequest {
        CompleteRequest {
            invocation_namespace: "guest".to_owned(),
            fqn: FQN.to_owned(),
            container_id: self.container.clone(),
            activation_id: hex(number),
            status_code: 0,
            result: r#"{"b":2}"#.to_owned(),
            logs: vec!["line".to_owned()],
            start_ms: 1000,
            end_ms: 1010,
            init_ms: Some(4),
        }
    }

    fn reschedule(&self, number: u8) -> RescheduleRequest {
        RescheduleRequest {
            invocation_namespace: "guest".to_owned(),
            fqn: FQN.to_owned(),
            rev: self.revision.to_string(),
            activation_message: format!(r#"{{"activationId":"{}"}}"#, hex(number)),
        }
    }

    async fn is_rescheduled(&mut self, number: u8) -> bool {
        let request = self.reschedule(number);
        let answer = self.client.reschedule_activation(request).await;
        answer.unwrap().into_inner().is_rescheduled
    }
}

fn hex(number: u8) -> String {
    id(number).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetched_activation_runs_and_its_result_comes_back() {
    let mut stage = stage().await;
    let message = stage.activation().await;
    assert_eq!(message["activationId"], hex(1));
    assert_eq!(message["content"]["a"], 1);
    assert_eq!(message["action"]["name"], "hello");
    for field in [
        "transid",
        "revision",
        "user",
        "rootControllerIndex",
        "blocking",
        "initArgs",
        "lockedArgs",
    ] {
        assert!(!message[field].is_null(), "{field} is missing");
    }
    let request = stage.complete(1);
    let mut client = stage.client.clone();
    // Answered when the controller has the result, so that a puller may forget it then.
    let reported =
        tokio::spawn(async move { client.complete_activation(request).await.unwrap().into_inner() });
    let record = stage.controller.record(1).await;
    assert_eq!(
        (&record.result[..], record.init_ms),
        (&br#"{"b":2}"#[..], Some(4))
    );
    stage.controller.confirm(1).await;
    assert!(soon("report answered", reported).await.unwrap().is_accepted);
    // A repetition changes nothing.
    let request = stage.complete(1);
    assert!(
        stage
            .client
            .complete_activation(request)
            .await
            .unwrap()
            .into_inner()
            .is_accepted
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_without_work_is_held_and_a_later_activation_answers_it() {
    let mut stage = stage().await;
    stage.activation().await;
    assert_eq!(stage.answer(stage.fetch()).await["type"], "NoActivationMessage");
    let request = stage.fetch();
    let mut client = stage.client.clone();
    let fetched = tokio::spawn(async move { client.fetch_activation(request).await });
    stage.controller.submit(&stage.leadership, 2, 1, "{}").await;
    stage.controller.accepted(2).await;
    let text = soon("fetch answered", fetched)
        .await
        .unwrap()
        .unwrap()
        .into_inner()
        .activation_message;
    if !text.contains(&hex(2)) {
        assert_eq!(stage.activation().await["activationId"], hex(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_has_its_own_answer() {
    let mut stage = stage().await;
    let fetch = stage.fetch();
    let warm_up = FetchRequest {
        fqn: r#""whisk.system/warmUp""#.to_owned(),
        ..fetch.clone()
    };
    assert_eq!(stage.answer(warm_up).await["type"], "NoActivationMessage");
    let other = FetchRequest {
        fqn: r#""guest/other""#.to_owned(),
        ..fetch.clone()
    };
    assert_eq!(stage.answer(other).await["type"], "NoMemoryQueue");
    let stranger = FetchRequest {
        container_id: "c1-1".to_owned(),
        ..fetch.clone()
    };
    assert_eq!(stage.answer(stranger).await["type"], "ActionMismatch");
    let older = FetchRequest {
        rev: "0".to_owned(),
        ..fetch.clone()
    };
    assert_eq!(stage.answer(older).await["type"], "ActionMismatch");
    let dying = FetchRequest {
        alive: false,
        ..fetch.clone()
    };
    assert_eq!(stage.answer(dying).await["type"], "NoActivationMessage");
    let bad: [fn(&mut FetchRequest); 4] = [
        |request| request.fqn = "hello".to_owned(),
        |request| request.rev = "\"1-a\"".to_owned(),
        |request| request.container_id = "x".to_owned(),
        |request| request.invocation_namespace = String::new(),
    ];
    for spoil in bad {
        let mut request = fetch.clone();
        spoil(&mut request);
        let status = stage.client.fetch_activation(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    // Nobody was given the activation by any of these.
    assert_eq!(stage.activation().await["activationId"], hex(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_given_back_is_delivered_again_and_only_what_was_delivered_here() {
    let mut stage = stage().await;
    assert!(!stage.is_rescheduled(1).await, "it was never delivered");
    stage.activation().await;
    assert!(stage.is_rescheduled(1).await);
    assert!(!stage.is_rescheduled(1).await, "it waits again");
    assert_eq!(stage.activation().await["activationId"], hex(1));
    assert!(!stage.is_rescheduled(9).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_no_more_open_fetches_than_it_may_run_activations() {
    let mut stage = stage().await;
    stage.activation().await;
    let (request, mut client) = (stage.fetch(), stage.client.clone());
    let mut other = stage.client.clone();
    let both = futures::future::join(
        client.fetch_activation(request.clone()),
        other.fetch_activation(request),
    );
    let (a, b) = soon("both fetches answered", both).await;
    let codes: Vec<Code> = [a, b]
        .into_iter()
        .filter_map(Result::err)
        .map(|status| status.code())
        .collect();
    assert_eq!(codes, [Code::ResourceExhausted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_whose_caller_went_away_takes_nothing_along() {
    let mut stage = stage().await;
    stage.activation().await;
    let (request, mut client) = (stage.fetch(), stage.client.clone());
    let fetch = tokio::spawn(async move {
        loop {
            let _ = client.fetch_activation(request.clone()).await;
        }
    });
    // Held for sure while the container may have no second one.
    loop {
        let second = stage.client.fetch_activation(stage.fetch()).await;
        if second.is_err_and(|status| status.code() == Code::ResourceExhausted) {
            break;
        }
    }
    fetch.abort();
    // An answer that left before the scheduler hears of the end counts as delivered, so there must be none yet.
    while let Err(status) = stage.client.fetch_activation(stage.fetch()).await {
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
    stage.controller.submit(&stage.leadership, 2, 1, "{}").await;
    stage.controller.accepted(2).await;
    assert_eq!(stage.activation().await["activationId"], hex(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_does_not_lead_says_so() {
    let mut stage = stage().await;
    let other = stage.cluster.other_than(stage.leadership.leader);
    stage.client = ActivationServiceClient::new(stage.cluster.channel(other).await);
    assert_eq!(stage.answer(stage.fetch()).await["type"], "NoMemoryQueue");
    assert!(!stage.is_rescheduled(1).await);
    let request = stage.complete(1);
    assert!(
        !stage
            .client
            .complete_activation(request)
            .await
            .unwrap()
            .into_inner()
            .is_accepted
    );
    let unnamed = CompleteRequest {
        activation_id: "x".to_owned(),
        ..stage.complete(1)
    };
    let status = stage.client.complete_activation(unnamed).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    drop(stage.invoker);
}
