//! Measures proposals per second of three nodes in one process: `propose_rate [directory] [seconds per step]`.
//!
//! Every proposal is acknowledged after it is synced to two of the three stores below the directory.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use whiskraft_raft::{Node, NodeConfig, Role, Settings};
use whiskraft_state::Command;
use whiskraft_types::{NamespaceLimits, SchedulerId};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Proposers at a time, step by step.
const STEPS: [usize; 3] = [1, 64, 1024];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let dir = args
        .next()
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let seconds = args.next().map_or(Ok(5), |text| text.parse())?;
    let nodes = start(&dir).await?;
    let leader = nodes
        .iter()
        .find(|node| node.status().role == Role::Leader)
        .unwrap_or(&nodes[0]);
    let follower = nodes
        .iter()
        .find(|node| node.status().role == Role::Follower)
        .unwrap_or(&nodes[0]);
    for (name, node) in [("leader", leader), ("follower", follower)] {
        for proposers in STEPS {
            measure(name, node, proposers, Duration::from_secs(seconds)).await?;
        }
    }
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

async fn start(dir: &Path) -> Result<Vec<Node>, Failure> {
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
            cluster_name: "rate".to_owned(),
            learner: false,
            data_dir: dir.join(id.to_string()),
            peer_listener,
            advertise_peer: None,
            advertise_client: "localhost:7401".to_owned(),
            zone: String::new(),
            version: String::new(),
            settings: Settings::default(),
        };
        starts.push(tokio::spawn(Node::start(config)));
    }
    let mut nodes = Vec::new();
    for start in starts {
        let node = start.await??;
        let watched = node.clone();
        tokio::spawn(async move {
            let reason = watched.stopped().await;
            println!("scheduler {} stopped: {reason}", watched.id());
        });
        nodes.push(node);
    }
    Ok(nodes)
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Proposes for a time and prints rate and latencies.
async fn measure(name: &str, node: &Node, proposers: usize, time: Duration) -> Result<(), Failure> {
    let start = now();
    let propose = |proposer: usize| {
        let node = node.clone();
        async move {
            let (mut waits, mut failures) = (Vec::new(), 0_u32);
            while start.elapsed() < time {
                let limits = NamespaceLimits::containers(30);
                let command = Command::PutNamespace {
                    name: format!("n{proposer}").parse()?,
                    limits,
                };
                let asked = now();
                match node.propose(command).await {
                    Ok(_) => waits.push(asked.elapsed()),
                    Err(_) => failures += 1,
                }
            }
            Ok::<_, Failure>((waits, failures))
        }
    };
    let running: Vec<_> = (0..proposers)
        .map(|proposer| tokio::spawn(propose(proposer)))
        .collect();
    let (mut waits, mut failures) = (Vec::new(), 0);
    for proposer in running {
        let (some, failed) = proposer.await??;
        waits.extend(some);
        failures += failed;
    }
    waits.sort_unstable();
    let at = |share: f64| {
        waits
            .get((waits.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    let rate = waits.len() as f64 / start.elapsed().as_secs_f64();
    println!(
        "{name} {proposers:>5} proposers: {rate:>8.0}/s  p50 {:?}  p99 {:?}  failed {failures}",
        at(0.5),
        at(0.99)
    );
    Ok(())
}
