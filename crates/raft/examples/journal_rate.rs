//! Measures durable acceptances per second of three nodes in one process, and what they cost group 0:
//! `journal_rate [lanes] [seconds per step] [directory]`.
//!
//! Every acceptance has 200 bytes and is acknowledged after it is synced to two of the three stores below the directory.
//! Clients are spread over the nodes, and each appends to the lane its node leads. Meanwhile a proposer writes to group
//! 0 every 5 ms.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use whiskraft_raft::{Node, NodeConfig, Role, Settings};
use whiskraft_state::Command;
use whiskraft_state::journal::{Accept, Digest, JournalBatch, JournalCommand, UnixMillis};
use whiskraft_types::{ActivationId, Epoch, NamespaceLimits, QueueKey, SchedulerId};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Clients at a time, step by step; none shows group 0 alone.
const STEPS: [usize; 4] = [0, 1, 64, 1024];
/// Payload of an acceptance.
const PAYLOAD_LEN: usize = 200;
/// Pause between two writes to group 0.
const META_PAUSE: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let lanes = args.next().map_or(Ok(3), |text| text.parse())?;
    let seconds = args.next().map_or(Ok(5), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = args
        .next()
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let nodes = start(&dir, lanes).await?;
    settle(&nodes).await;
    let ids = Arc::new(AtomicU64::new(0));
    for clients in STEPS {
        measure(&nodes, clients, Duration::from_secs(seconds), &ids).await?;
    }
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

async fn start(dir: &Path, lanes: u32) -> Result<Vec<Node>, Failure> {
    let listeners = (1..=3)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>()?;
    let mut initial_cluster = BTreeMap::new();
    for (id, listener) in (1..).zip(&listeners) {
        initial_cluster.insert(SchedulerId(id), listener.local_addr()?.to_string());
    }
    let mut starts = Vec::new();
    for (id, peer_listener) in (1..).zip(listeners) {
        let config = NodeConfig {
            id: Some(SchedulerId(id)),
            initial_cluster: initial_cluster.clone(),
            join: None,
            learner: false,
            cluster_name: "rate".to_owned(),
            data_dir: dir.join(id.to_string()),
            peer_listener,
            advertise_peer: None,
            advertise_client: "localhost:7401".to_owned(),
            zone: String::new(),
            version: String::new(),
            settings: Settings {
                lanes,
                lane_calm: Duration::from_millis(500),
                ..Settings::default()
            },
        };
        starts.push(tokio::spawn(Node::start(config)));
    }
    let mut nodes = Vec::new();
    for start in starts {
        nodes.push(start.await??);
    }
    Ok(nodes)
}

/// Gives the lanes time to move to where they belong.
async fn settle(nodes: &[Node]) {
    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in nodes {
        let status = node.status();
        let led = status.lanes.iter().filter(|lane| lane.leader == Some(node.id()));
        let led: Vec<u32> = led.map(|lane| lane.lane.0).collect();
        println!("scheduler {} leads lanes {led:?}", node.id());
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn batch(number: u64) -> Result<JournalBatch, Failure> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    let accept = Accept {
        id: ActivationId::from_bytes(id),
        key: QueueKey {
            namespace: "guest".parse()?,
            action: format!("guest/a{}", number % 100).parse()?,
        },
        epoch: Epoch(5),
        digest: Digest([1; 16]),
        accepted: UnixMillis(1),
        waited: Duration::ZERO,
        not_before: None,
        payload: vec![7; PAYLOAD_LEN].into(),
    };
    Ok(JournalBatch::of(vec![JournalCommand::Accept(accept)]))
}

/// Appends for a time, writes to group 0 meanwhile, and prints rates and latencies of both.
async fn measure(
    nodes: &[Node],
    clients: usize,
    time: Duration,
    ids: &Arc<AtomicU64>,
) -> Result<(), Failure> {
    let start = now();
    let append = |client: usize| {
        let (node, ids) = (nodes[client % nodes.len()].clone(), Arc::clone(ids));
        async move {
            let (mut waits, mut failures) = (Vec::new(), 0_u32);
            while start.elapsed() < time {
                let batch = batch(ids.fetch_add(1, Ordering::Relaxed))?;
                let asked = now();
                match node.journal().append(node.journal().home(), batch).await {
                    Ok(_) => waits.push(asked.elapsed()),
                    Err(_) => failures += 1,
                }
            }
            Ok::<_, Failure>((waits, failures))
        }
    };
    let running: Vec<_> = (0..clients).map(|client| tokio::spawn(append(client))).collect();
    let leader = nodes.iter().find(|node| node.status().role == Role::Leader);
    let meta = tokio::spawn(write_meta(leader.unwrap_or(&nodes[0]).clone(), start, time));
    let (mut waits, mut failures) = (Vec::new(), 0);
    for client in running {
        let (some, failed) = client.await??;
        waits.extend(some);
        failures += failed;
    }
    let (mut meta_waits, meta_failures) = meta.await??;
    let rate = waits.len() as f64 / start.elapsed().as_secs_f64();
    println!(
        "{clients:>5} clients: {rate:>8.0}/s  {}  failed {failures};  group 0: {}  failed {meta_failures}",
        quantiles(&mut waits),
        quantiles(&mut meta_waits)
    );
    Ok(())
}

async fn write_meta(node: Node, start: Instant, time: Duration) -> Result<(Vec<Duration>, u32), Failure> {
    let (mut waits, mut failures) = (Vec::new(), 0_u32);
    while start.elapsed() < time {
        let command = Command::PutNamespace {
            name: "meta".parse()?,
            limits: NamespaceLimits::containers(30),
        };
        let asked = now();
        match node.propose(command).await {
            Ok(_) => waits.push(asked.elapsed()),
            Err(_) => failures += 1,
        }
        tokio::time::sleep(META_PAUSE).await;
    }
    Ok((waits, failures))
}

fn quantiles(waits: &mut [Duration]) -> String {
    waits.sort_unstable();
    let at = |share: f64| {
        waits
            .get((waits.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    format!("p50 {:.1?}  p99 {:.1?}", at(0.5), at(0.99))
}
