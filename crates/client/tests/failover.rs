//! Lost streams, dead schedulers, changes of leader: nothing is lost, nothing is settled twice.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fake::{Fake, Mode, World, builder, cluster, key, leadership, queue_event};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use whiskraft_client::{ActivationRecord, Client, InvokeError, InvokeOptions};

fn spawn_invoke(client: &Client) -> JoinHandle<Result<ActivationRecord, InvokeError>> {
    let client = client.clone();
    let call = async move {
        client
            .invoke(
                &key().namespace,
                &key().action,
                json!({"a": 1}),
                InvokeOptions::default(),
            )
            .await
    };
    tokio::spawn(call)
}

#[tokio::test]
async fn a_cut_stream_resubmits_under_the_same_id_with_the_next_attempt() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let calls = [spawn_invoke(&client), spawn_invoke(&client)];
    let first = fakes[0].submissions(2).await;
    fakes[0].accept(&first[0].id).await;
    fakes[0].cut().await;
    let all = fakes[0].submissions(4).await;
    let ids =
        |sent: &[whiskraft_proto::v1::Submission]| sent.iter().map(|s| s.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&all[2..]), ids(&first), "same ids in the same order");
    assert!(all[2..].iter().all(|sent| sent.attempt == 2));
    for sent in &first {
        fakes[0].complete(&sent.id).await;
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let stats = client.stats();
    assert_eq!(
        (stats.resubmitted, stats.completed, stats.streams_lost),
        (2, 2, 1)
    );
}

#[tokio::test]
async fn what_has_a_result_is_not_sent_again_after_a_cut() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let calls = [spawn_invoke(&client), spawn_invoke(&client)];
    let first = fakes[0].submissions(2).await;
    fakes[0].complete(&first[0].id).await;
    fakes[0].received(1).await;
    fakes[0].cut().await;
    let all = fakes[0].submissions(3).await;
    assert_eq!((&all[2].id, all[2].attempt), (&first[1].id, 2));
    fakes[0].complete(&first[1].id).await;
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(fakes[0].submissions_now().len(), 3);
}

#[tokio::test]
async fn a_new_leader_on_the_watch_takes_over_at_once() {
    let (world, fakes) = cluster(3).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    fakes[2].connected().await;
    let call = spawn_invoke(&client);
    let sent = fakes[0].submissions(1).await[0].clone();
    fakes[0].accept(&sent.id).await;
    world.change(&fakes, queue_event(3, 2)).await;
    let again = fakes[2].submissions(1).await[0].clone();
    assert_eq!(
        (again.id.clone(), again.attempt, again.epoch),
        (sent.id.clone(), 2, 2)
    );
    // The old leader was alive after all: its result counts, the second one is dropped.
    fakes[0].complete(&sent.id).await;
    assert!(call.await.unwrap().is_ok());
    fakes[2].complete(&sent.id).await;
    fakes[2].received(1).await;
    assert_eq!(client.stats().results_late, 1);
}

#[tokio::test]
async fn a_dead_leader_is_replaced_when_the_cluster_says_so() {
    let (world, fakes) = cluster(3).await;
    world.log(queue_event(1, 1));
    for fake in &fakes {
        fake.with(|state| state.ensure = Some(leadership(&fakes[0], 1)));
    }
    let client = builder(&fakes).connect().await.unwrap();
    fakes[1].connected().await;
    let call = spawn_invoke(&client);
    let sent = fakes[0].submissions(1).await[0].clone();
    fakes[0].accept(&sent.id).await;
    fakes[0].die().await;
    // Asked, and still told of the dead one: it asks again.
    fakes[1]
        .until("a question", |_| (fakes[1].ensures_of(&fakes) >= 2).then_some(()))
        .await;
    assert!(fakes[1].submissions_now().is_empty() && fakes[2].submissions_now().is_empty());
    for fake in &fakes {
        fake.with(|state| state.ensure = Some(leadership(&fakes[1], 2)));
    }
    let again = fakes[1].submissions(1).await[0].clone();
    assert_eq!(
        (again.id.clone(), again.attempt, again.epoch),
        (sent.id.clone(), 2, 2)
    );
    fakes[1].complete(&sent.id).await;
    assert!(call.await.unwrap().is_ok());
}

impl Fake {
    /// Questions at the schedulers that are alive.
    fn ensures_of(&self, fakes: &[Self]) -> usize {
        fakes
            .iter()
            .filter(|fake| fake.id != self.id)
            .map(Fake::ensures)
            .sum()
    }
}

#[tokio::test]
async fn new_activations_of_other_queues_do_not_wait_for_a_dead_scheduler() {
    let (world, fakes) = cluster(2).await;
    world.log(queue_event(2, 1));
    fakes[1].with(|state| state.mode = Mode::Echo);
    let client = builder(&fakes).connect().await.unwrap();
    fakes[1].connected().await;
    fakes[0].die().await;
    assert!(spawn_invoke(&client).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_blackholed_scheduler_is_noticed_within_about_a_second() {
    let world = World::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hidden = listener.local_addr().unwrap().to_string();
    let relay = Relay::start(hidden).await;
    let blackholed = Fake::serve(1, &world, listener, relay.address.clone());
    world.log(fake::member_event(1, &relay.address));
    let other = Fake::start(2, &world).await;
    world.log(queue_event(1, 1));
    let fakes = [blackholed, other];
    for fake in &fakes {
        fake.with(|state| state.ensure = Some(leadership(&fakes[1], 2)));
    }
    let client = builder(&fakes).connect().await.unwrap();
    fakes[1].connected().await;
    fakes[0].connected().await;
    // It has said welcome, and the client has heard it.
    fakes[0].with(|state| state.mode = Mode::Echo);
    assert!(spawn_invoke(&client).await.unwrap().is_ok());
    relay.is_open.store(false, Ordering::SeqCst);
    let call = spawn_invoke(&client);
    // The connection stays up and silent: only the keepalive can tell.
    let sent = tokio::time::timeout(Duration::from_secs(4), fakes[1].submissions(1)).await;
    let sent = sent.expect("the blackhole was not noticed")[0].clone();
    assert_eq!(
        (sent.attempt, sent.epoch),
        (2, 2),
        "it may have reached the silent scheduler"
    );
    fakes[1].complete(&sent.id).await;
    assert!(call.await.unwrap().is_ok());
    assert_eq!(client.stats().streams_lost, 1);
}

/// A TCP relay that can stop moving bytes without closing anything.
struct Relay {
    address: String,
    is_open: Arc<AtomicBool>,
}

impl Relay {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let is_open = Arc::new(AtomicBool::new(true));
        let gate = Arc::clone(&is_open);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&to).await else {
                    return;
                };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(pump(near_read, far_write, Arc::clone(&gate)));
                tokio::spawn(pump(far_read, near_write, Arc::clone(&gate)));
            }
        });
        Self { address, is_open }
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    is_open: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(len) = from.read(&mut buffer).await {
        if len == 0 {
            return;
        }
        // Closed: swallows everything, and keeps both connections open.
        if is_open.load(Ordering::SeqCst) && to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
