//! Schedulers stand still and wake up as if nothing had happened: F14 (the leader of the Raft group) and F18 (a leader of
//! queues that sleeps for twice its session's life and wakes with deliveries in its hands).

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_client::Client;
use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Deadline, Driver, DurableLoad, Spread, Tally, Work, judge, machine, pass,
    size, tenants, until,
};
use whiskraft_types::QueueKey;

const LIMIT: Duration = Duration::from_secs(60);
const QUEUES: usize = 6;
const INVOKERS: u64 = 4;
const STEP: u64 = 200;
/// Life of a session without a keepalive.
const TTL: Duration = Duration::from_millis(1200);

struct Setup {
    cluster: Cluster,
    client: Client,
    queues: Vec<QueueKey>,
    durable: DurableLoad,
    blocking: Driver,
}

impl Setup {
    async fn new() -> Self {
        let cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts()).await;
        let clients = cluster.clients(2).await;
        let client = clients[0].clone();
        let queues = tenants::put_queues(&client, "p", QUEUES, 10).await;
        let mut work = Work::new(queues.clone(), 16, u64::MAX);
        work.run_ms_max = 50;
        let durable = DurableLoad::start(clients, work);
        let mut blocking = Driver::new(&client);
        let asked = queues.clone();
        blocking.callers(16, move |caller, n| {
            let place = usize::try_from(n).unwrap_or(0) + caller;
            Ask::new(caller, asked[place % asked.len()].clone(), 20)
        });
        durable.progress(STEP, LIMIT).await;
        Self {
            cluster,
            client,
            queues,
            durable,
            blocking,
        }
    }

    fn pause(&mut self, id: u64) {
        self.cluster
            .schedulers
            .get_mut(&id)
            .expect("a scheduler")
            .process()
            .pause();
    }

    fn resume(&mut self, id: u64) {
        self.cluster
            .schedulers
            .get_mut(&id)
            .expect("a scheduler")
            .process()
            .resume();
    }

    /// Lets these sleep for so long; the time from their waking until work goes on everywhere.
    async fn sleep(&mut self, ids: &[u64], length: Duration) -> Duration {
        ids.iter().for_each(|id| self.pause(*id));
        pass(length).await;
        ids.iter().for_each(|id| self.resume(*id));
        self.durable.progress(STEP, LIMIT).await
    }

    async fn check(self) {
        let history = self.durable.finish().await;
        let calls = self.blocking.finish().await;
        let tally = Tally::of(&calls);
        self.cluster.invokers_are(INVOKERS).await;
        let judgement = judge(&self.cluster, &history, &BTreeMap::new()).await;
        println!(
            "  durable: {judgement}\n  blocking: {tally} latency {}",
            tally.latency()
        );
        judgement.assert_kept();
        tally.assert_none_lost();
        assert_eq!((tally.failures(), tally.refusals()), (0, 0), "{tally}");
        let twice = self
            .cluster
            .starts
            .by_id()
            .into_values()
            .filter(|starts| starts.len() > 1);
        let twice: Vec<_> = twice.take(3).collect();
        assert!(twice.is_empty(), "started twice: {twice:?}");
    }
}

/// F14: the leader of the Raft group sleeps for less, for about and for more than a session's life; then all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_raft_leader_is_replaced_and_harms_nothing() {
    let mut setup = Setup::new().await;
    println!("Raft leader paused ({}):", machine());
    for millis in [500, 2000, 5000] {
        let length = Duration::from_millis(millis);
        let leader = setup.cluster.raft_leader().await;
        let back = setup.sleep(&[leader], length).await;
        let now = setup.cluster.raft_leader().await;
        println!(
            "  scheduler {leader} slept {length:?}: Raft leader {now}, {STEP} acknowledged {back:.1?} after it woke"
        );
        if length > TTL {
            assert_ne!(leader, now, "who slept so long does not lead any more");
        }
    }
    let sessions = |status: &whiskraft_client::Status| {
        let mut sessions: Vec<_> = status.nodes.iter().filter_map(|node| node.session).collect();
        sessions.sort_unstable();
        sessions
    };
    let before = sessions(&setup.client.status().await.expect("a status"));
    let back = setup.sleep(&[1, 2, 3], 2 * TTL).await;
    let after = sessions(&setup.client.status().await.expect("a status"));
    println!(
        "  all slept {:?}: {STEP} acknowledged {back:.1?} after they woke",
        2 * TTL
    );
    assert_eq!(before, after, "nobody's session ended while nobody counted");
    setup.check().await;
}

/// F18: a leader of queues sleeps for twice its session's life. When it wakes others lead them: it knows, and what it still
/// sends is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_wakes_too_late_starts_nothing() {
    let rounds = size("WHISKRAFT_ROUNDS", 4);
    let mut setup = Setup::new().await;
    let (mut known, mut back) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let key = setup.queues[usize::try_from(round).unwrap_or(0) % QUEUES].clone();
        let leader = setup.cluster.leader_of(&setup.client, key.action.as_str()).await;
        back.push(setup.sleep(&[leader], 2 * TTL).await);
        let clock = Deadline::after(LIMIT);
        until("the one that slept knows that others lead", LIMIT, async || {
            let status = setup.cluster.status_of(leader).await?;
            let queue = status.queues.into_iter().find(|queue| queue.queue.key == key)?;
            (queue.queue.leader?.0 != leader).then_some(())
        })
        .await;
        known.push(clock.elapsed());
        setup.cluster.healed().await;
        setup.durable.progress(STEP, LIMIT).await;
    }
    println!(
        "leader of queues slept {:?} ({}), {rounds} rounds: {STEP} acknowledged after it woke {}, it knew after {}",
        2 * TTL,
        machine(),
        Spread::of(back),
        Spread::of(known)
    );
    setup.check().await;
}
