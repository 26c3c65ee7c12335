//! How long many queues take to be usable again after a restart of all schedulers.
//!
//! Three nodes in one process, real disks and sockets. Each queue has one open durable activation when all stop; it is
//! usable again when it has accepted another one, which it does only after all that was open has been recovered.
//! `cargo run --release -p whiskraft-scheduler --example recovery -- 10000`

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on panics")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;

use common::{Cluster, connect, key};
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_raft::Settings;
use whiskraft_types::ActionLimits;

const ACTION: &str = "guest/hello";
/// Queues ensured at a time.
const ENSURES: usize = 64;
/// Activations in one frame.
const FRAME: usize = 500;

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "this measures")]
async fn main() {
    let queues: u32 = std::env::args()
        .nth(1)
        .map_or(10_000, |text| text.parse().unwrap());
    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let began = std::time::Instant::now();
    submit_to_all(&cluster, queues, 1).await;
    println!(
        "{queues} queues made and one activation accepted in each: {:?}",
        began.elapsed()
    );
    let stopped = std::time::Instant::now();
    cluster.restart_all(Settings::default()).await;
    println!(
        "all schedulers stopped and started, sessions open: {:?}",
        stopped.elapsed()
    );
    let started = std::time::Instant::now();
    submit_to_all(&cluster, queues, 2).await;
    println!(
        "another activation accepted in each of {queues} recovered queues: {:?}",
        started.elapsed()
    );
}

/// Submits one durable activation to each queue, and waits until all are accepted.
async fn submit_to_all(cluster: &Cluster, queues: u32, round: u32) {
    let mut left: Vec<u32> = (0..queues).collect();
    while !left.is_empty() {
        let at = cluster.any();
        let channel = cluster.channel(at).await;
        let ensured = stream::iter(left.clone()).map(|queue| {
            let mut client = ControllerClient::new(channel.clone());
            async move {
                let wanted = v1::EnsureQueue {
                    key: Some(key(&format!("ns{queue}"), ACTION)),
                    resubmits: false,
                };
                let request = v1::EnsureQueuesRequest { queues: vec![wanted] };
                let answer = client.ensure_queues(request).await.ok()?.into_inner();
                match answer.outcomes.into_iter().next()?.outcome? {
                    v1::queue_ensured::Outcome::Leadership(leadership) => Some((queue, leadership)),
                    v1::queue_ensured::Outcome::Rejection(_) => None,
                }
            }
        });
        let mut by_leader: BTreeMap<String, Vec<(u32, v1::QueueLeadership)>> = BTreeMap::new();
        let mut ensured = ensured.buffer_unordered(ENSURES);
        while let Some(answer) = ensured.next().await {
            if let Some((queue, leadership)) = answer {
                let of = by_leader.entry(leadership.client_address.clone()).or_default();
                of.push((queue, leadership));
            }
        }
        drop(ensured);
        let submitted = by_leader
            .into_iter()
            .map(|(address, queues)| submit(address, queues, round));
        let accepted: Vec<u32> = futures::future::join_all(submitted).await.concat();
        let accepted: std::collections::BTreeSet<u32> = accepted.into_iter().collect();
        left.retain(|queue| !accepted.contains(queue));
    }
}

/// Submits to queues of one leader; gives those that have accepted.
async fn submit(address: String, queues: Vec<(u32, v1::QueueLeadership)>, round: u32) -> Vec<u32> {
    let (frames, receiver) = mpsc::channel(64);
    let hello = v1::SubmitHello {
        controller: vec![round as u8; 16].into(),
        cluster_id: String::new(),
    };
    let hello = v1::SubmitFrame {
        hello: Some(hello),
        ..Default::default()
    };
    frames.send(hello).await.unwrap();
    let mut client = ControllerClient::new(connect(&address).await);
    let mut results = client
        .submit(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    results.message().await.unwrap();
    let mut accepted = Vec::new();
    for group in queues.chunks(FRAME) {
        let submission = |(queue, leadership): &(u32, v1::QueueLeadership)| v1::Submission {
            id: [[0; 8].as_slice(), &round.to_be_bytes(), &queue.to_be_bytes()]
                .concat()
                .into(),
            key: leadership.key.clone(),
            epoch: leadership.epoch,
            attempt: 1,
            payload: "{}".into(),
            durability: v1::Durability::Quorum.into(),
            ..Default::default()
        };
        let frame = v1::SubmitFrame {
            submissions: group.iter().map(submission).collect(),
            ..Default::default()
        };
        frames.send(frame).await.unwrap();
        let mut answers = 0;
        while answers < group.len() {
            let Ok(Some(frame)) = results.message().await else {
                return accepted;
            };
            answers += frame.accepted.len() + frame.rejected.len();
            let queue = |id: &[u8]| u32::from_be_bytes(id[12..].try_into().unwrap());
            accepted.extend(frame.accepted.iter().map(|id| queue(id)));
        }
    }
    accepted
}
