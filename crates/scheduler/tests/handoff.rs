//! A queue is handed over with everything in it: nothing is submitted again, nothing runs twice, and the order stays.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::num::NonZeroU32;
use std::sync::Arc;

use common::controller::{Answer, Controller, id};
use common::invoker::{Invoker, Said, record};
use common::{Cluster, config, key, rejection_kind, soon};
use tokio::sync::Notify;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1;
use whiskraft_proto::v1::hand_off_client::HandOffClient;
use whiskraft_proto::v1::hand_off_server::{HandOff, HandOffServer};
use whiskraft_proto::v1::move_queue_response::Outcome;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_state::State;
use whiskraft_types::{ActionLimits, SchedulerId};

const ACTION: &str = "guest/hello";

/// One container that runs so many at a time.
fn limits(concurrency: u32) -> ActionLimits {
    ActionLimits {
        concurrency,
        instances: Some(1),
        ..ActionLimits::default()
    }
}

/// Asks one scheduler to move the queue.
async fn move_queue(cluster: &Cluster, at: u64, to: u64) -> Outcome {
    let mut client = OperatorClient::new(cluster.channel(at).await);
    let request = v1::MoveQueueRequest {
        key: Some(key("guest", ACTION)),
        to,
        passed_on: false,
    };
    let answer = soon("answer to MoveQueue", client.move_queue(request)).await;
    answer.unwrap().into_inner().outcome.unwrap()
}

fn moved(outcome: Outcome) -> v1::MovedTo {
    match outcome {
        Outcome::Moved(moved) => moved,
        Outcome::Rejection(rejection) => panic!("not moved: {rejection:?}"),
    }
}

/// The leadership as a scheduler other than its old leader has it.
async fn leadership(cluster: &Cluster, at: u64) -> v1::QueueLeadership {
    cluster.ensure(at, &key("guest", ACTION)).await.unwrap()
}

/// What an invoker answers to the question of a new leader.
fn register(
    epoch: u64,
    create: &v1::CreateContainer,
    in_flight: &[[u8; 16]],
    credits: u32,
    unacknowledged: Vec<v1::ActivationRecord>,
) -> v1::PullUp {
    let container = v1::RegisteredContainer {
        container: create.container,
        revision: create.revision,
        in_flight: in_flight.iter().map(|id| id.to_vec().into()).collect(),
        credits,
        warmed: true,
    };
    let register = v1::Register {
        key: Some(key("guest", ACTION)),
        epoch,
        containers: vec![container],
        unacknowledged,
    };
    v1::PullUp {
        registers: vec![register],
        ..Default::default()
    }
}

fn numbered(number: u32) -> [u8; 16] {
    [[0; 12].as_slice(), &number.to_be_bytes()]
        .concat()
        .try_into()
        .unwrap()
}

/// Answers of the next leader's question, whoever asks.
async fn asked_by(invoker: &mut Invoker, leader: u64) -> v1::Reregister {
    loop {
        let (scheduler, reregister) = invoker.next_reregister().await;
        if scheduler == leader {
            return reregister;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_wait_are_delivered_by_the_next_leader_in_their_order_without_being_submitted_again()
 {
    const COUNT: u32 = 10_000;
    let mut config = config();
    config.queue.len_max = NonZeroU32::new(2 * COUNT).unwrap();
    let cluster = Cluster::start_with(config).await;
    cluster.put_action(ACTION, limits(100)).await;
    let old = leadership(&cluster, 1).await;
    let mut controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    for first in (0..COUNT).step_by(1000) {
        controller.offer(&old, first..first + 1000).await;
        for _ in 0..1000 {
            assert!(matches!(controller.answer().await, (_, Answer::Accepted)));
        }
    }
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 1).await;
    let (_, first) = invoker.next_deliver().await;
    assert_eq!(first.id[..], numbered(0));

    let to = cluster.other_than(old.leader);
    // Asked of one that neither leads it nor will.
    let via = (1..=3).find(|id| ![old.leader, to].contains(id)).unwrap();
    let new = moved(move_queue(&cluster, via, to).await);
    assert_eq!(new.activations, u64::from(COUNT));
    println!("{COUNT} waiting activations handed over in {} us", new.took_us);
    let led = leadership(&cluster, to).await;
    assert_eq!((led.leader, led.epoch), (to, new.epoch));
    let reregister = asked_by(&mut invoker, to).await;
    assert_eq!(reregister.epoch, new.epoch);
    invoker
        .pull(
            to,
            register(new.epoch, &create, &[numbered(0)], COUNT, Vec::new()),
        )
        .await;
    for number in 1..COUNT {
        let (from, deliver) = invoker.next_deliver().await;
        assert_eq!((from, deliver.epoch), (to, new.epoch));
        assert_eq!(deliver.id[..], numbered(number), "out of order");
    }
    // Its controller hears where to go, for each of them.
    for _ in 0..COUNT {
        match controller.answer().await {
            (_, Answer::Rejected(v1::rejection::Kind::NotLeader(not_leader))) => {
                assert_eq!((not_leader.leader, not_leader.epoch), (to, new.epoch));
            }
            other => panic!("not told where to go: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_started_and_finished_is_where_it_was() {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(3)).await;
    let old = leadership(&cluster, 1).await;
    let mut controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    for number in 1..=4 {
        controller.submit(&old, number, 1, "{}").await;
    }
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 3).await;
    let mut delivered = Vec::new();
    for _ in 0..3 {
        delivered.push(invoker.next_deliver().await.1);
    }
    // 1 is started, 2 finished and unconfirmed, 3 delivered and lost on its way, 4 waits.
    invoker.started(scheduler, &delivered[0]).await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &delivered[1], 0)
        .await;
    controller.record(2).await;

    let to = cluster.other_than(old.leader);
    let new = moved(move_queue(&cluster, old.leader, to).await);
    let led = leadership(&cluster, to).await;
    let mut controller = Controller::connect(&led.client_address, 1).await;
    // Before any invoker has said a word: the outcome came along.
    controller.submit(&led, 2, 2, "{}").await;
    controller.record(2).await;
    asked_by(&mut invoker, to).await;
    let unacknowledged = vec![record(7, &delivered[1])];
    invoker
        .pull(to, register(new.epoch, &create, &[id(1)], 2, unacknowledged))
        .await;
    let mut again = Vec::new();
    for _ in 0..2 {
        let (from, deliver) = invoker.next_deliver().await;
        assert_eq!(from, to);
        again.push(deliver.id[0]);
    }
    assert_eq!(again, [3, 4], "what its invoker did not have comes first");
    for number in [1, 3, 4] {
        let deliver = v1::Deliver {
            id: id(number).to_vec().into(),
            epoch: new.epoch,
            ..delivered[0].clone()
        };
        // Nobody but the ledger that moved told the new leader who waits for it.
        invoker.complete(to, &key("guest", ACTION), &deliver, 0).await;
        controller.record(number).await;
    }
    controller.confirm(2).await;
    loop {
        if let Said::CompletedAck(from, acknowledged) = invoker.said().await {
            assert_eq!((from, acknowledged), (to, id(2)));
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_next_leader_is_dead_goes_on_where_it_is() {
    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(1)).await;
    let old = leadership(&cluster, 1).await;
    let mut controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&old, 1, 1, "{}").await;
    controller.accepted(1).await;
    let (scheduler, create) = invoker.next_create().await;
    let to = cluster.other_than(old.leader);
    cluster.crash(to).await;
    let outcome = move_queue(&cluster, old.leader, to).await;
    let Outcome::Rejection(rejection) = outcome else {
        panic!("moved to a dead scheduler: {outcome:?}")
    };
    assert!(
        matches!(
            rejection_kind(Some(rejection)),
            v1::rejection::Kind::Unavailable(_) | v1::rejection::Kind::Invalid(_)
        ),
        "the queue stays"
    );
    controller.submit(&old, 2, 1, "{}").await;
    controller.accepted(2).await;
    invoker.run(scheduler, &create, 2).await;
    for number in [1, 2] {
        let (from, deliver) = invoker.next_deliver().await;
        assert_eq!(
            (from, deliver.id[0], deliver.epoch),
            (old.leader, number, old.epoch)
        );
    }
}

/// Stands in for a scheduler that takes its time with an import, and then does not keep it.
#[derive(Clone)]
struct Slow {
    asked: Arc<Notify>,
    answers: Arc<Notify>,
}

#[tonic::async_trait]
impl HandOff for Slow {
    async fn import(
        &self,
        _: Request<Streaming<v1::ImportFrame>>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        self.asked.notify_one();
        self.answers.notified().await;
        Err(Status::unavailable("changed its mind"))
    }

    async fn forget_import(
        &self,
        _: Request<v1::ForgetImportRequest>,
    ) -> Result<Response<v1::ForgetImportResponse>, Status> {
        Ok(Response::new(v1::ForgetImportResponse {}))
    }

    async fn give_queues(
        &self,
        _: Request<v1::GiveQueuesRequest>,
    ) -> Result<Response<v1::GiveQueuesResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_a_queue_stands_still_is_held_and_served_when_it_goes_on() {
    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(3)).await;
    let old = leadership(&cluster, 1).await;
    let mut controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&old, 1, 1, "{}").await;
    controller.accepted(1).await;
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 1).await;
    let (_, first) = invoker.next_deliver().await;
    controller.submit(&old, 2, 1, "{}").await;
    controller.accepted(2).await;

    let to = cluster.other_than(old.leader);
    let address = cluster.members[&to].address.clone();
    cluster.crash(to).await;
    let slow = Slow {
        asked: Arc::default(),
        answers: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(HandOffServer::new(slow.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);
    let (moving, ()) = tokio::join!(move_queue(&cluster, old.leader, to), async {
        soon("the queue is sent", slow.asked.notified()).await;
        // It stands still now: neither is answered, and nothing is delivered.
        controller.submit(&old, 3, 1, "{}").await;
        invoker
            .complete(scheduler, &key("guest", ACTION), &first, 2)
            .await;
        let walk = soon("it is looked at", waiting(&cluster, old.leader)).await;
        assert_eq!(walk, 1, "3 is not in the queue");
        assert!(invoker.heard().is_empty(), "nothing is delivered");
        slow.answers.notify_one();
    });
    let Outcome::Rejection(rejection) = moving else {
        panic!("moved to one that did not take it")
    };
    let kind = rejection_kind(Some(rejection));
    assert!(matches!(kind, v1::rejection::Kind::Unavailable(_)), "{kind:?}");
    controller.record(1).await;
    controller.accepted(3).await;
    for number in [2, 3] {
        let (from, deliver) = invoker.next_deliver().await;
        assert_eq!((from, deliver.id[0]), (old.leader, number));
    }
    server.abort();
}

/// How many wait in all queues of a scheduler.
async fn waiting(cluster: &Cluster, at: u64) -> u64 {
    let mut client = OperatorClient::new(cluster.channel(at).await);
    let mut answers = client
        .queues(v1::QueuesRequest::default())
        .await
        .unwrap()
        .into_inner();
    answers.message().await.unwrap().unwrap().waiting_total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_moves_at_a_time_one_is_carried_out_and_everything_is_still_there() {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(1)).await;
    let old = leadership(&cluster, 1).await;
    let controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&old, 1, 1, "{}").await;
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 0).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != old.leader).collect();
    let (first, second) = tokio::join!(
        move_queue(&cluster, old.leader, others[0]),
        move_queue(&cluster, old.leader, others[1])
    );
    let moves: Vec<_> = [first, second]
        .into_iter()
        .filter_map(|outcome| match outcome {
            Outcome::Moved(moved) => Some(moved),
            Outcome::Rejection(_) => None,
        })
        .collect();
    assert!(!moves.is_empty());
    let epoch = moves.iter().map(|moved| moved.epoch).max().unwrap();
    cluster
        .until("the last of them leads", |state| {
            state.queues().any(|(_, row)| row.epoch.0 == epoch)
        })
        .await;
    let leader = cluster.read(|state| state.queues().next().unwrap().1.leader.unwrap().0.0);
    asked_by(&mut invoker, leader).await;
    invoker
        .pull(leader, register(epoch, &create, &[], 1, Vec::new()))
        .await;
    let (from, deliver) = invoker.next_deliver().await;
    assert_eq!((from, deliver.id[0]), (leader, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_not_used_if_the_leader_dies_before_the_change_and_its_queue_moves_by_itself() {
    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(1)).await;
    let old = leadership(&cluster, 1).await;
    let session = cluster.read(|state| state.scheduler_session(SchedulerId(old.leader)).unwrap().0);
    // Both others have it: whoever leads next.
    for to in (1..=3).filter(|id| *id != old.leader) {
        let activation = v1::MovedActivation {
            id: id(1).to_vec().into(),
            place: v1::MovedPlace::Waiting.into(),
            attempt: 1,
            content: Some(v1::MovedContent::default()),
            ..Default::default()
        };
        let frame = v1::ImportFrame {
            session,
            attempt: 1,
            queues: vec![v1::MovedQueue {
                key: old.key.clone(),
                epoch: old.epoch,
                activations: vec![activation],
                last: true,
            }],
            ..Default::default()
        };
        let mut client = HandOffClient::new(cluster.channel(to).await);
        let answer = client.import(futures::stream::iter([frame])).await.unwrap();
        assert_eq!(answer.into_inner().queues[0].rejection, None);
    }
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    cluster
        .until("the invoker takes containers", |state| {
            state.invokers().any(|(_, row)| row.healthy)
        })
        .await;
    cluster.crash(old.leader).await;
    cluster
        .until("another one leads", |state| {
            state
                .queues()
                .any(|(_, row)| row.epoch.0 > old.epoch && row.leader.is_some())
        })
        .await;
    // The old leader went on after it had sent this, for all that the next one can know.
    let new = leadership(&cluster, cluster.any()).await;
    let controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 2, 1, "{}").await;
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 2).await;
    let (_, deliver) = invoker.next_deliver().await;
    assert_eq!(deliver.id[0], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_stops_hands_its_queues_over_first() {
    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(1)).await;
    let old = leadership(&cluster, 1).await;
    let controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.offer(&old, 0..50).await;
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 1).await;
    invoker.next_deliver().await;
    cluster.shutdown_role(old.leader).await;
    let at = cluster.other_than(old.leader);
    let new = leadership(&cluster, at).await;
    assert_ne!(new.leader, old.leader);
    let reregister = asked_by(&mut invoker, new.leader).await;
    let asks = register(reregister.epoch, &create, &[numbered(0)], 49, Vec::new());
    invoker.pull(new.leader, asks).await;
    for number in 1..50 {
        let (from, deliver) = invoker.next_deliver().await;
        assert_eq!((from, &deliver.id[..]), (new.leader, &numbered(number)[..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_that_dies_right_after_the_change_is_followed_as_any_other() {
    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(1)).await;
    let old = leadership(&cluster, 1).await;
    let controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&old, 1, 1, "{}").await;
    controller.submit(&old, 2, 1, "{}").await;
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 1).await;
    let (_, first) = invoker.next_deliver().await;
    invoker.started(scheduler, &first).await;
    let to = cluster.other_than(old.leader);
    let second = moved(move_queue(&cluster, old.leader, to).await);
    cluster.crash(to).await;
    cluster
        .until("a third leadership begins", |state| {
            state
                .queues()
                .any(|(_, row)| row.epoch.0 > second.epoch && row.leader.is_some())
        })
        .await;
    let third = leadership(&cluster, cluster.any()).await;
    let mut controller = Controller::connect(&third.client_address, 1).await;
    for number in [1, 2] {
        controller.submit(&third, number, 2, "{}").await;
        controller.accepted(number).await;
    }
    asked_by(&mut invoker, third.leader).await;
    invoker
        .pull(
            third.leader,
            register(third.epoch, &create, &[id(1)], 0, Vec::new()),
        )
        .await;
    let end = v1::Deliver {
        epoch: third.epoch,
        ..first
    };
    invoker
        .complete(third.leader, &key("guest", ACTION), &end, 1)
        .await;
    controller.record(1).await;
    let (_, deliver) = invoker.next_deliver().await;
    assert_eq!(deliver.id[0], 2, "1 has run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_is_asked_to_gives_as_many_queues_as_it_is_asked_for() {
    let cluster = Cluster::start().await;
    let names: Vec<String> = (0..12).map(|n| format!("guest/a{n}")).collect();
    for name in &names {
        cluster.put_action(name, ActionLimits::default()).await;
        cluster.ensure(1, &key("guest", name)).await.unwrap();
    }
    let led = |state: &State, id| {
        let session = state.scheduler_session(SchedulerId(id)).unwrap();
        state.queues_led(session)
    };
    let from = cluster.read(|state| (1..=3).max_by_key(|id| led(state, *id)).unwrap());
    let to = cluster.other_than(from);
    let (before, there) = cluster.read(|state| (led(state, from), led(state, to)));
    let mut client = HandOffClient::new(cluster.channel(from).await);
    let give = |to, count| v1::GiveQueuesRequest { to, count };
    let given = client.give_queues(give(to, 2)).await.unwrap().into_inner().moved;
    assert_eq!(given, 2);
    cluster
        .until("they are led there", |state| {
            (led(state, from), led(state, to)) == (before - given, there + given)
        })
        .await;
    // To one that takes none it gives none.
    let given = client.give_queues(give(9, 2)).await.unwrap().into_inner().moved;
    assert_eq!(given, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_cannot_be_carried_out_says_why() {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, limits(1)).await;
    let refused = |outcome| match outcome {
        Outcome::Rejection(rejection) => rejection_kind(Some(rejection)),
        Outcome::Moved(_) => panic!("moved"),
    };
    let none = refused(move_queue(&cluster, 1, 2).await);
    assert!(matches!(none, v1::rejection::Kind::NoQueue(_)), "{none:?}");
    let old = leadership(&cluster, 1).await;
    for (to, expected) in [(old.leader, "leads queue"), (9, "is not a member")] {
        match refused(move_queue(&cluster, 1, to).await) {
            v1::rejection::Kind::Invalid(invalid) => {
                assert!(invalid.reason.contains(expected), "{}", invalid.reason);
            }
            other => panic!("{other:?}"),
        }
    }
}
