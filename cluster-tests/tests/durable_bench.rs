//! What a durable acknowledgement costs, beside one sync of the same disk, and what the cluster's own log feels of it.
//!
//! `WHISKRAFT_BENCH_SECONDS` is the length of each measurement (5 unless set), `WHISKRAFT_LANES` the number of lanes (3).

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use whiskraft_client::Client;
use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, Deadline, DurableLoad, Fate, Spread, Work, machine, pass, size, tenants,
};
use whiskraft_types::{NamespaceLimits, NamespaceName};

const CLIENTS: usize = 4;
const QUEUES: usize = 6;
const SYNCS: usize = 300;
const WAIT_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two writes to the cluster's own log that are measured.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// Times of appending 4 KiB and syncing it.
fn syncs(dir: &Path) -> Spread {
    let mut file = File::create(dir.join("syncs")).expect("a file");
    Spread::of((0..SYNCS).map(|_| {
        file.write_all(&[7; 4096]).expect("written");
        let clock = Deadline::after(Duration::MAX);
        file.sync_data().expect("synced");
        clock.elapsed()
    }))
}

/// Writes to the cluster's own log until stopped; the times they took.
fn probe(client: &Client) -> (watch::Sender<bool>, JoinHandle<Vec<Duration>>) {
    let (stop, stopped) = watch::channel(false);
    let client = client.clone();
    let task = tokio::spawn(async move {
        let namespace: NamespaceName = "probe".parse().expect("a valid name");
        let mut times = Vec::new();
        while !*stopped.borrow() {
            let clock = Deadline::after(Duration::MAX);
            let limits = NamespaceLimits::containers(1 + u32::try_from(times.len() % 1000).unwrap_or(0));
            client.put_namespace(&namespace, &limits).await.expect("written");
            times.push(clock.elapsed());
            tokio::time::sleep(PROBE_EVERY).await;
        }
        times
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_acknowledgements_beside_one_sync() {
    let time = Duration::from_secs(size("WHISKRAFT_BENCH_SECONDS", 5));
    let lanes = size("WHISKRAFT_LANES", 3);
    let options = ClusterOptions::simulated(2, "32GiB").with(&format!("raft.lanes={lanes}"));
    let cluster = Cluster::start(options).await;
    let clients = cluster.clients(CLIENTS).await;
    let queues = tenants::put_queues(&clients[0], "b", QUEUES, 40).await;

    println!(
        "durable acknowledgement ({}), {lanes} lanes, {time:?} each:",
        machine()
    );
    println!(
        "  one write and fdatasync of 4 KiB, idle: {}",
        syncs(cluster.dir())
    );
    let (stop, task) = probe(&clients[0]);
    pass(time).await;
    stop.send_replace(true);
    println!(
        "  write to the cluster's own log, idle: {}",
        Spread::of(task.await.expect("the probe ends"))
    );
    let before = clients[0].status().await.expect("status").raft.term;
    for submitters in [1, 64, 1024] {
        let mut work = Work::new(queues.clone(), submitters, u64::MAX);
        (work.run_ms_max, work.twice_every) = (0, 0);
        let load = DurableLoad::start(clients.clone(), work);
        load.progress(20 * QUEUES as u64, WAIT_LIMIT).await;
        let (first, from) = (load.accepted(), load.elapsed());
        let (stop, task) = probe(&clients[0]);
        pass(time).await;
        let (count, to) = (load.accepted() - first, load.elapsed());
        stop.send_replace(true);
        let meta = Spread::of(task.await.expect("the probe ends"));
        let history = load.finish().await;
        let measured = history
            .iter()
            .filter(|one| one.began >= from && one.fate == Fate::Accepted);
        println!(
            "  {submitters:>4} submitters: {:>6.0}/s, {}; log beside it {meta}",
            count as f64 / (to - from).as_secs_f64(),
            Spread::of(measured.map(|one| one.took))
        );
        let failed = history.iter().filter(|one| one.fate != Fate::Accepted).count();
        assert_eq!(failed, 0, "every one is acknowledged");
    }
    let after = clients[0].status().await.expect("status").raft.term;
    println!(
        "  one write and fdatasync of 4 KiB, after: {}",
        syncs(cluster.dir())
    );
    assert_eq!(before, after, "the load made no scheduler lose its leadership");
}
