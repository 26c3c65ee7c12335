//! What may become of a durable activation on its way: a delay, further runs, the list of dead letters, its caller's wish
//! to end it. And the records of those that are not durable.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::controller::{Controller, id};
use common::invoker::{Invoker, Said, record};
use common::{Cluster, key, soon};
use whiskraft_proto::v1;
use whiskraft_proto::v1::cancel_activation_response::Outcome;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_state::journal::{Accept, Digest, JournalBatch, JournalCommand, JournalOutcome, UnixMillis};
use whiskraft_state::{Command, Response};
use whiskraft_types::{ActionLimits, ActivationId, Epoch};

const ACTION: &str = "guest/hello";

async fn cluster(annotations: &[(&str, &str)]) -> (Cluster, v1::QueueLeadership, Controller) {
    let cluster = Cluster::start().await;
    cluster
        .put_annotated(ACTION, ActionLimits::default(), annotations)
        .await;
    let leadership = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let controller = Controller::connect(&leadership.client_address, 1).await;
    (cluster, leadership, controller)
}

#[expect(clippy::disallowed_methods, reason = "wall time is on the wire")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

async fn until(cluster: &Cluster, at: u64, number: u8, state: State) -> v1::FindActivationResponse {
    let wait = async {
        loop {
            let found = cluster.find(at, id(number)).await;
            if found.state() == state {
                return found;
            }
        }
    };
    soon("the state of an activation", wait).await
}

async fn cancel(cluster: &Cluster, at: u64, number: u8) -> Outcome {
    let mut client = ControllerClient::new(cluster.channel(at).await);
    let request = v1::CancelActivationRequest {
        id: id(number).to_vec().into(),
        namespace: "guest".to_owned(),
    };
    let answer = soon("an answer", client.cancel_activation(request)).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.rejection, None);
    answer.outcome()
}

async fn letters(cluster: &Cluster, at: u64) -> Vec<v1::DeadLetter> {
    let mut client = ControllerClient::new(cluster.channel(at).await);
    let request = v1::ListDeadLettersRequest {
        namespace: "guest".to_owned(),
        ..Default::default()
    };
    client
        .list_dead_letters(request)
        .await
        .unwrap()
        .into_inner()
        .letters
}

const fn durable() -> v1::Durability {
    v1::Durability::Quorum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_activation_says_so_and_begins_at_its_time_under_the_next_leader() {
    let (mut cluster, old, mut controller) = cluster(&[]).await;
    let not_before_ms = unix_ms() + 4000;
    let submission = v1::Submission {
        attempt: 1,
        payload: "{}".into(),
        durability: durable().into(),
        not_before_ms,
        ..Default::default()
    };
    controller.submit_as(&old, 1, submission.clone()).await;
    controller.accepted(1).await;
    for at in 1..=3 {
        let found = cluster.find(at, id(1)).await;
        assert_eq!(found.state(), State::Delayed);
        let later = found.not_before_ms.checked_sub(not_before_ms);
        assert!(later.is_some_and(|ms| ms < 1000), "never earlier: {found:?}");
    }
    let in_memory = v1::Submission {
        durability: v1::Durability::Memory.into(),
        ..submission
    };
    controller.submit_as(&old, 2, in_memory).await;
    let refused = controller.rejection(2).await;
    assert!(matches!(refused, v1::rejection::Kind::Invalid(_)), "{refused:?}");
    drop(controller);
    cluster.crash(old.leader).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert!(unix_ms() >= not_before_ms, "not before its time");
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    until(&cluster, cluster.any(), 1, State::Done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_activation_runs_again_becomes_a_dead_letter_and_is_redriven_once() {
    let policy = [("retry-attempts", "2"), ("retry-backoff", "\"50ms\"")];
    let (cluster, leadership, mut controller) = cluster(&policy).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let queue = key("guest", ACTION);
    controller.submit_durable(&leadership, 1, r#"{"n":1}"#).await;
    controller.accepted(1).await;
    invoker.serve_create().await;
    for run in 1..=2 {
        let (scheduler, deliver) = invoker.next_deliver().await;
        assert_eq!(deliver.run, run);
        invoker.fail(scheduler, &queue, &deliver, 1).await;
    }
    let last = controller.record(1).await;
    assert_eq!((last.run, last.status()), (2, v1::Status::ApplicationError));
    let found = cluster.find(cluster.other_than(leadership.leader), id(1)).await;
    assert_eq!(
        (found.state(), found.runs, found.dead_letter),
        (State::Done, 2, true)
    );

    for at in 1..=3 {
        let listed = letters(&cluster, at).await;
        assert_eq!(listed.len(), 1, "from scheduler {at}");
        assert_eq!((listed[0].id.as_ref(), listed[0].runs), (id(1).as_slice(), 2));
        assert_eq!(
            (listed[0].error.as_str(), listed[0].key.clone()),
            ("boom", Some(queue.clone()))
        );
    }

    // Through a scheduler that does not lead the queue, twice.
    let at = cluster.other_than(leadership.leader);
    let mut client = ControllerClient::new(cluster.channel(at).await);
    let request = v1::RedriveDeadLettersRequest {
        namespace: "guest".to_owned(),
        ids: vec![id(1).to_vec().into(), id(9).to_vec().into()],
    };
    let first = client
        .redrive_dead_letters(request.clone())
        .await
        .unwrap()
        .into_inner();
    let second = client.redrive_dead_letters(request).await.unwrap().into_inner();
    assert_eq!(first.redriven[0].error, "");
    assert_eq!(first.redriven[0].new_id, second.redriven[0].new_id);
    assert!(first.redriven[1].error.contains("is not known"), "{first:?}");
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!(
        (deliver.id.clone(), deliver.run),
        (first.redriven[0].new_id.clone(), 1)
    );
    assert_eq!(
        (deliver.payload.as_ref(), deliver.cause.as_str()),
        (br#"{"n":1}"#.as_slice(), "01".repeat(16).as_str())
    );
    invoker.complete(scheduler, &queue, &deliver, 1).await;
    assert_eq!(letters(&cluster, 1).await, []);
    let found = cluster.find(at, id(1)).await;
    assert!(found.record.is_some() && !found.dead_letter, "its record stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_purged_and_its_record_stays() {
    let (cluster, leadership, mut controller) =
        cluster(&[("retry-attempts", "2"), ("retry-backoff", "\"1ms\"")]).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&leadership, 1, "{}").await;
    invoker.serve_create().await;
    for _ in 1..=2 {
        let (scheduler, deliver) = invoker.next_deliver().await;
        invoker.fail(scheduler, &key("guest", ACTION), &deliver, 1).await;
    }
    controller.record(1).await;
    let mut client = ControllerClient::new(cluster.channel(2).await);
    let purge = |namespace: &str| v1::PurgeDeadLettersRequest {
        namespace: namespace.to_owned(),
        ids: vec![id(1).to_vec().into()],
    };
    let other = client
        .purge_dead_letters(purge("other"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(other.purged, 0, "of another namespace");
    let purged = client
        .purge_dead_letters(purge("guest"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((purged.purged, purged.rejection), (1, None));
    assert_eq!(letters(&cluster, 3).await, []);
    let found = until(&cluster, 3, 1, State::Done).await;
    assert!(!found.dead_letter);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_between_two_runs_is_kept_by_the_next_leader() {
    let policy = [("retry-attempts", "3"), ("retry-backoff", "\"4s\"")];
    let (mut cluster, old, mut controller) = cluster(&policy).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&old, 1, "{}").await;
    controller.accepted(1).await;
    let (_, create) = invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    let failed_at = unix_ms();
    invoker.fail(scheduler, &key("guest", ACTION), &deliver, 1).await;
    let found = until(&cluster, cluster.other_than(old.leader), 1, State::Delayed).await;
    assert_eq!(found.runs, 2);
    drop(controller);
    cluster.crash(old.leader).await;
    let (new, reregister) = invoker.next_reregister().await;
    let container = v1::RegisteredContainer {
        container: create.container,
        revision: create.revision,
        credits: 1,
        warmed: true,
        ..Default::default()
    };
    let register = v1::Register {
        key: Some(key("guest", ACTION)),
        epoch: reregister.epoch,
        containers: vec![container],
        unacknowledged: Vec::new(),
    };
    let registers = vec![register];
    let up = v1::PullUp {
        registers,
        ..Default::default()
    };
    invoker.pull(new, up).await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!((scheduler, deliver.run), (new, 2));
    // Less the jitter of a tenth.
    assert!(
        unix_ms() >= failed_at + 3600,
        "the pause began with the first failure"
    );
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    let found = until(&cluster, cluster.any(), 1, State::Done).await;
    assert_eq!((found.record.unwrap().run, found.dead_letter), (2, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waits_is_cancelled_through_any_scheduler_and_never_starts() {
    let (cluster, leadership, mut controller) = cluster(&[]).await;
    controller.submit_durable(&leadership, 1, "{}").await;
    controller.accepted(1).await;
    controller.submit(&leadership, 2, 1, "{}").await;
    controller.accepted(2).await;
    let at = cluster.other_than(leadership.leader);
    assert_eq!(cancel(&cluster, at, 1).await, Outcome::BeforeStart);
    assert_eq!(cancel(&cluster, at, 2).await, Outcome::BeforeStart);
    let record = controller.record(1).await;
    assert!(record.cancelled);
    assert_eq!(cancel(&cluster, at, 1).await, Outcome::Ended);
    assert_eq!(cancel(&cluster, at, 9).await, Outcome::Unknown);
    let found = cluster.find(at, id(1)).await;
    assert_eq!(found.record, Some(record));
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&leadership, 3, "{}").await;
    invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    assert_eq!(deliver.id.as_ref(), id(3), "the cancelled ones never start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_runs_is_stopped_where_it_runs_and_ends_as_cancelled() {
    let (cluster, leadership, mut controller) = cluster(&[("retry-attempts", "5")]).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&leadership, 1, "{}").await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker.started(scheduler, &deliver).await;
    until(&cluster, leadership.leader, 1, State::Started).await;
    let at = cluster.other_than(leadership.leader);
    assert_eq!(cancel(&cluster, at, 1).await, Outcome::Stopping);
    let stop = loop {
        if let Said::Stop(_, stop) = invoker.said().await {
            break stop;
        }
    };
    assert_eq!(
        (stop.id.clone(), stop.container),
        (deliver.id.clone(), deliver.container)
    );
    let cancelled = v1::ActivationRecord {
        status: v1::Status::ApplicationError.into(),
        cancelled: true,
        ..record(invoker.id, &deliver)
    };
    invoker
        .complete_with(scheduler, &key("guest", ACTION), &deliver, 1, cancelled)
        .await;
    assert!(controller.record(1).await.cancelled);
    assert_eq!(cancel(&cluster, at, 1).await, Outcome::Ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_to_stop_is_stopped_by_the_next_leader_and_ends_as_cancelled_whatever_its_record_says() {
    let (mut cluster, old, controller) = cluster(&[("retry-attempts", "5")]).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&old, 1, "{}").await;
    let (_, create) = invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker.started(scheduler, &deliver).await;
    until(&cluster, old.leader, 1, State::Started).await;
    let at = cluster.other_than(old.leader);
    assert_eq!(cancel(&cluster, at, 1).await, Outcome::Stopping);
    drop(controller);
    cluster.crash(old.leader).await;
    let (new, reregister) = invoker.next_reregister().await;
    let container = v1::RegisteredContainer {
        container: create.container,
        revision: create.revision,
        in_flight: vec![deliver.id.clone()],
        warmed: true,
        ..Default::default()
    };
    let register = v1::Register {
        key: Some(key("guest", ACTION)),
        epoch: reregister.epoch,
        containers: vec![container],
        unacknowledged: Vec::new(),
    };
    let up = v1::PullUp {
        registers: vec![register],
        ..Default::default()
    };
    invoker.pull(new, up).await;
    let told = soon("the next leader's word to stop", async {
        loop {
            if let Said::Stop(from, stop) = invoker.said().await
                && from == new
            {
                break stop.id;
            }
        }
    });
    assert_eq!(told.await, deliver.id);
    // It failed, for which another run would follow.
    let deliver = v1::Deliver {
        epoch: reregister.epoch,
        ..deliver
    };
    invoker.fail(new, &key("guest", ACTION), &deliver, 1).await;
    let found = until(&cluster, cluster.any(), 1, State::Done).await;
    assert!(found.record.unwrap().cancelled);
    assert_eq!((found.runs, found.dead_letter), (1, false));
}

/// Puts an activation into the journal whose payload nobody can read.
async fn accept_damaged(cluster: &Cluster, led: &v1::QueueLeadership, number: u8) {
    let accept = Accept {
        id: ActivationId::from_bytes(id(number)),
        key: key("guest", ACTION).try_into().unwrap(),
        epoch: Epoch(led.epoch),
        digest: Digest([number; 16]),
        accepted: UnixMillis(unix_ms()),
        waited: Duration::ZERO,
        not_before: None,
        payload: bytes::Bytes::from_static(b"\xff\xff"),
    };
    let journal = cluster.members[&led.leader].node.journal().clone();
    let append = async {
        loop {
            let batch = JournalBatch::of(vec![JournalCommand::Accept(accept.clone())]);
            if let Ok((_, outcomes)) = journal.append(journal.home(), batch).await {
                return outcomes;
            }
        }
    };
    let outcomes = soon("an acceptance", append).await;
    assert!(
        matches!(outcomes[..], [JournalOutcome::Written | JournalOutcome::Known(_)]),
        "{outcomes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_payload_cannot_be_read_ends_with_a_record_that_says_so() {
    let (mut cluster, old, mut controller) = cluster(&[]).await;
    controller.submit_durable(&old, 1, r#"{"n":1}"#).await;
    controller.accepted(1).await;
    accept_damaged(&cluster, &old, 2).await;
    drop(controller);
    cluster.crash(old.leader).await;
    let at = cluster.any();
    let record = until(&cluster, at, 2, State::Done).await.record.unwrap();
    assert_eq!((record.status(), record.run), (v1::Status::WhiskError, 1));
    let text = String::from_utf8(record.result.to_vec()).unwrap();
    assert!(
        text.contains("its arguments in the journal cannot be read"),
        "{text}"
    );
    // The other one is none the worse for it.
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!(deliver.id.as_ref(), id(1));
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    until(&cluster, cluster.any(), 1, State::Done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_of_one_in_memory_is_kept_and_found_from_every_scheduler() {
    let (cluster, leadership, mut controller) = cluster(&[]).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&leadership, 1, 1, r#"{"n":1}"#).await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    let record = controller.record(1).await;
    controller.confirm(1).await;
    for at in 1..=3 {
        let found = until(&cluster, at, 1, State::Done).await;
        assert_eq!(found.record.as_ref(), Some(&record));
        assert!(!found.durable);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_activation_of_a_deleted_action_ends_in_the_journal() {
    let (mut cluster, old, mut controller) = cluster(&[]).await;
    controller.submit_durable(&old, 1, "{}").await;
    controller.accepted(1).await;
    drop(controller);
    let at = cluster.other_than(old.leader);
    cluster.crash(old.leader).await;
    cluster.delete_action(at, ACTION).await;
    let found = until(&cluster, at, 1, State::Done).await;
    let record = found.record.unwrap();
    let text = String::from_utf8(record.result.to_vec()).unwrap();
    assert!(text.contains("The action was deleted"), "{text}");
    tokio::time::timeout(Duration::from_secs(30), async {
        cluster
            .until_on(at, "its queue goes", |state| state.queues().next().is_none())
            .await;
    })
    .await
    .unwrap();
}

/// Takes a queue out of the tables as if it had been idle.
async fn remove_queue(cluster: &Cluster, leadership: &v1::QueueLeadership) {
    let node = &cluster.members[&cluster.any()].node;
    let command = Command::RemoveQueue {
        key: key("guest", ACTION).try_into().unwrap(),
        epoch: Epoch(leadership.epoch),
    };
    let (_, response) = soon("removal of a queue", node.propose(command)).await.unwrap();
    assert_eq!(response, Response::Done);
    cluster
        .until("the queue is gone", |state| state.queues().next().is_none())
        .await;
}

/// Ends the scheduler that leads the log; the next one looks through the journal at once.
async fn crash_log_leader(cluster: &mut Cluster) {
    let leader = cluster.members[&cluster.any()].node.status().leader;
    cluster.crash(leader.unwrap().0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_only_the_journal_knows_is_led_again() {
    let (mut cluster, old, mut controller) = cluster(&[]).await;
    controller.submit_durable(&old, 1, "{}").await;
    controller.accepted(1).await;
    drop(controller);
    remove_queue(&cluster, &old).await;
    crash_log_leader(&mut cluster).await;
    cluster
        .until("the queue is back", |state| {
            state.queues().any(|(_, queue)| queue.epoch.0 > old.epoch)
        })
        .await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!(deliver.id.as_ref(), id(1));
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    until(&cluster, cluster.any(), 1, State::Done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_journal_knows_of_an_action_that_is_gone_ends() {
    let (mut cluster, old, mut controller) = cluster(&[]).await;
    controller.submit_durable(&old, 1, "{}").await;
    controller.accepted(1).await;
    drop(controller);
    remove_queue(&cluster, &old).await;
    cluster.delete_action(old.leader, ACTION).await;
    crash_log_leader(&mut cluster).await;
    let at = cluster.any();
    let record = until(&cluster, at, 1, State::Done).await.record.unwrap();
    let text = String::from_utf8(record.result.to_vec()).unwrap();
    assert!(text.contains("The action was deleted"), "{text}");
    assert!(
        cluster.read(|state| state.queues().next().is_none()),
        "for that no queue came back"
    );
}
