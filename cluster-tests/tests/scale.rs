//! Ten thousand actions under tight limits while invokers die, and what a hundred thousand idle queues cost.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Deadline, Driver, Tally, Usage, ensure_queues, machine, tenants, until,
};
use whiskraft_types::{NamespaceLimits, QueueKey};

const NAMESPACES: usize = 200;
const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// Limits from 1 to 50, spread over the namespaces.
fn limit(namespace: usize) -> u32 {
    u32::try_from(namespace * 7 % 50 + 1).expect("at most 50")
}

/// A number that looks drawn and is the same in every run (splitmix64).
fn drawn(n: u64) -> u64 {
    let mut state = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn index(drawn: u64, below: usize) -> usize {
    usize::try_from(drawn % below as u64).expect("below a usize")
}

fn print_usage(what: &str, before: &BTreeMap<u64, Usage>, after: &BTreeMap<u64, Usage>) {
    for (id, used) in after {
        let cpu = used
            .cpu
            .saturating_sub(before.get(id).map_or(Duration::ZERO, |used| used.cpu));
        println!(
            "  scheduler {id} {what}: cpu {cpu:.1?}, resident {} MiB",
            used.resident_mib()
        );
    }
}

mod load {
    //! The shape of the load: most calls go to a few actions of each namespace, the rest to all.

    use super::{Ask, NAMESPACES, QueueKey, drawn, index, tenants};

    pub(super) const ACTIONS: usize = 50;
    /// Actions of each namespace that get most of the calls.
    const HOT: usize = 3;
    /// Calls of a hundred that go to any action.
    const COLD_PERCENT: u64 = 10;
    const RUN_MS: u64 = 20;

    pub(super) fn key(namespace: usize, action: usize) -> QueueKey {
        tenants::queue(&tenants::namespace("n", namespace), action)
    }

    pub(super) fn ask(n: u64) -> Ask {
        let namespace = index(drawn(3 * n), NAMESPACES);
        let is_cold = drawn(3 * n + 1) % 100 < COLD_PERCENT;
        let action = index(drawn(3 * n + 2), if is_cold { ACTIONS } else { HOT });
        Ask::new(namespace, key(namespace, action), RUN_MS)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_actions_under_tight_limits() {
    const INVOKERS: u64 = 4;
    /// What two cores carry beside the driver.
    const RATE: f64 = 1000.0;
    const ROUND: Duration = Duration::from_secs(7);
    const DOWN: Duration = Duration::from_secs(3);
    const ROUNDS: u64 = 6;
    /// Time after the load in which everything must have ended.
    const STUCK: Duration = Duration::from_secs(10);

    let options = ClusterOptions::simulated(INVOKERS, "64GiB")
        .keeping_the_log()
        .with_invoker("backend.simulated.create=10ms");
    let mut cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let storing = Deadline::after(WAIT_LIMIT);
    let namespaces =
        (0..NAMESPACES).map(|n| (tenants::namespace("n", n), NamespaceLimits::containers(limit(n))));
    tenants::put_namespaces(&client, namespaces).await;
    let actions = (0..NAMESPACES)
        .flat_map(|namespace| (0..load::ACTIONS).map(move |action| load::key(namespace, action)));
    tenants::put_actions(&client, actions.map(|key| (key, tenants::small(128, 1)))).await;
    let stored = storing.elapsed();

    let before = cluster.scheduler_usage();
    let mut driver = Driver::new(&client);
    let mut made = 0;
    for round in 0..ROUNDS {
        let victim = round % INVOKERS + 1;
        for (time, is_kill) in [(ROUND, true), (DOWN, false)] {
            let first = made;
            driver
                .open_loop(RATE, time, |n| {
                    made = first + n + 1;
                    load::ask(first + n)
                })
                .await;
            match is_kill {
                true => cluster.kill_invoker(victim),
                false => cluster.start_invoker(victim),
            }
        }
    }
    let loaded = driver.elapsed();
    let ending = Deadline::after(STUCK);
    until(
        "ten seconds pass or all calls have ended",
        WAIT_LIMIT,
        async || (ending.is_past() || driver.ended() == made).then_some(()),
    )
    .await;
    let open = made - driver.ended();
    let (waiting, queues) = cluster.waiting().await;
    let after = cluster.scheduler_usage();
    let stuck: Vec<_> = queues
        .iter()
        .take(5)
        .map(|queue| (&queue.queue, &queue.wait_detail))
        .collect();
    println!(
        "scale ({}): {} actions in {NAMESPACES} namespaces stored in {stored:?}; {made} calls in {loaded:?}, {:.0}/s offered; \
         {ROUNDS} invokers killed",
        machine(),
        NAMESPACES * load::ACTIONS,
        RATE
    );
    print_usage("over the load", &before, &after);
    println!(
        "  {STUCK:?} after the load: {open} calls without an answer, {waiting} activations waiting {stuck:?}"
    );
    let all = driver.finish().await;
    let tally = Tally::of(&all);
    println!(
        "  {tally}\n  achieved {:.0}/s; latency {}; queueing {}",
        tally.success as f64 / loaded.as_secs_f64(),
        tally.latency(),
        tally.queueing()
    );
    println!("  log: {}", cluster.check_log(1).await);
    tally.assert_none_lost();
    assert_eq!(tally.total() as u64, made);
    let typed = tally
        .failed
        .keys()
        .all(|kind| kind.starts_with("whisk internal error"));
    assert!(typed, "{:?}", tally.failed);
    assert_eq!((waiting, open), (0, 0), "stuck");
    assert!(
        tally.success as u64 > made / 2,
        "too few successes to judge: {tally}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_idle_queues_cost_little() {
    const ACTIONS: usize = 500;
    const QUEUES: usize = ACTIONS * NAMESPACES;
    const IDLE: Duration = Duration::from_secs(10);
    /// Queues are led by one scheduler and known to all; most bytes that each of them may spend on one.
    const BYTES_MAX: u64 = 4096;
    /// Most processor time of a scheduler for which nothing happens, of one core.
    const IDLE_SHARE_MAX: f64 = 0.05;

    let cluster = Cluster::start(ClusterOptions::simulated(1, "2GiB")).await;
    let client = cluster.client().await;
    let shared = tenants::namespace("shared", 0);
    let actions: Vec<QueueKey> = (0..ACTIONS).map(|n| tenants::queue(&shared, n)).collect();
    tenants::put_actions(
        &client,
        actions.iter().map(|key| (key.clone(), tenants::small(128, 1))),
    )
    .await;
    let empty = cluster.scheduler_usage();

    let creating = Deadline::after(WAIT_LIMIT);
    let mut refused = 0;
    for namespace in 0..NAMESPACES {
        let namespace = tenants::namespace("n", namespace);
        let keys = actions.iter().map(|action| QueueKey {
            namespace: namespace.clone(),
            action: action.action.clone(),
        });
        refused += ensure_queues(&cluster.endpoints(), keys.collect()).await;
    }
    let created = creating.elapsed();
    let full = cluster.scheduler_usage();
    let waiting = Deadline::after(WAIT_LIMIT);
    until("nothing happens for a while", WAIT_LIMIT, async || {
        (waiting.elapsed() >= IDLE).then_some(())
    })
    .await;
    let idle = cluster.scheduler_usage();
    let status = client.status().await.expect("a scheduler answers");
    let bytes = |id: &u64| full[id].resident.saturating_sub(empty[id].resident) / QUEUES as u64;
    let share = |id: &u64| idle[id].cpu.saturating_sub(full[id].cpu).as_secs_f64() / IDLE.as_secs_f64();
    println!(
        "idle queues ({}): {} created in {created:.1?} ({:.0}/s), {refused} refused",
        machine(),
        status.queues_total,
        QUEUES as f64 / created.as_secs_f64()
    );
    for id in full.keys() {
        println!(
            "  scheduler {id}: resident {} -> {} MiB, {} bytes per queue, {:.1} % of a core over {IDLE:?} of rest",
            empty[id].resident_mib(),
            full[id].resident_mib(),
            bytes(id),
            share(id) * 100.0
        );
    }
    assert_eq!((refused, status.queues_total), (0, QUEUES as u64));
    for id in full.keys() {
        assert!(bytes(id) <= BYTES_MAX, "{} bytes", bytes(id));
        assert!(share(id) <= IDLE_SHARE_MAX, "{:.3} of a core", share(id));
    }
}
