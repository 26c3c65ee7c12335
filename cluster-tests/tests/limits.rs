//! F30: container limits hold at every log revision and at every instant, whoever dies and whatever is lost.

use std::time::Duration;

use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Deadline, Done, Driver, PlacementWatch, SlotWatch, Tally,
    containers_at_once, machine, tenants, until,
};
use whiskraft_types::{NamespaceLimits, NamespaceName, QueueKey};

const ACTIONS: usize = 100;
const LIMIT: u32 = 20;
const LOWERED: u32 = 8;
const RAISED: u32 = 30;
/// Longest simulated run.
const RUN_MAX: u64 = 90;
/// Containers end after their run, and queues without containers have their turn; far above both.
const SHRINK_LIMIT: Duration = Duration::from_secs(15);
const WAIT_LIMIT: Duration = Duration::from_secs(60);

fn tight() -> NamespaceName {
    "tight".parse().expect("a valid name")
}

/// Each caller has an action of its own and calls it again and again.
fn ask(caller: usize, n: u64) -> Ask {
    let run_ms = 10 + (n * 7 + caller as u64 * 13) % (RUN_MAX - 10);
    Ask::new(caller, tenants::queue(&tight(), caller % ACTIONS), run_ms)
}

async fn progress(driver: &Driver, calls: u64) {
    let wanted = driver.ended() + calls;
    until("calls end", WAIT_LIMIT, async || {
        (driver.ended() >= wanted).then_some(())
    })
    .await;
}

/// A hundred actions; every other one runs ten activations in a container. The memory of one invoker is less than a
/// batch of containers takes.
async fn tight_cluster() -> Cluster {
    let options = ClusterOptions::simulated(4, "1GiB")
        .keeping_the_log()
        .with("scheduler.creation.deadline=3s")
        .with_invoker("invoker.pool.pause-grace=500ms")
        .with_invoker("backend.simulated.create=20ms")
        .with_invoker("backend.simulated.ack-losses=0.1")
        .with_invoker("backend.simulated.ack-delay=1s");
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    tenants::put_namespaces(&client, [(tight(), NamespaceLimits::containers(LIMIT))]).await;
    let actions = (0..ACTIONS).map(|n| {
        let concurrency = if n % 2 == 0 { 1 } else { 10 };
        (tenants::queue(&tight(), n), tenants::small(128, concurrency))
    });
    tenants::put_actions(&client, actions).await;
    cluster
}

fn within(all: &[Done], from: Duration, to: Duration) -> impl Iterator<Item = &Done> {
    all.iter()
        .filter(move |done| done.began >= from && done.began + done.took <= to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_while_they_change_and_leaders_die() {
    let mut cluster = tight_cluster().await;
    let client = cluster.client().await;
    let slots = SlotWatch::start(&client, &tight()).await;
    let mut driver = Driver::new(&client);
    driver.callers(ACTIONS, ask);
    progress(&driver, 1000).await;
    assert_eq!(slots.slots().most, LIMIT as usize, "the limit is reached");

    let lowering = Deadline::after(SHRINK_LIMIT);
    set_limit(&client, LOWERED).await;
    until(
        "containers end until the new limit holds",
        SHRINK_LIMIT,
        async || (slots.slots().now <= LOWERED as usize).then_some(()),
    )
    .await;
    let (shrunk, lowered_at) = (lowering.elapsed(), driver.elapsed());
    progress(&driver, 300).await;
    let raised_at = driver.elapsed();
    set_limit(&client, RAISED).await;
    let (_, grown) = until("the raised limit is used", WAIT_LIMIT, async || {
        (slots.slots().now == RAISED as usize).then_some(())
    })
    .await;
    progress(&driver, 500).await;

    let mut faults = Vec::new();
    for (fault, victim) in [
        ("kill", cluster.leader_of(&client, "tight/a1").await),
        ("kill", cluster.raft_leader().await),
        ("cut", cluster.leader_of(&client, "tight/a2").await),
        ("cut", cluster.raft_leader().await),
    ] {
        break_and_mend(&mut cluster, &driver, fault, victim).await;
        faults.push(format!("{fault} {victim}"));
    }
    let all = driver.finish().await;
    let tally = Tally::of(&all);
    until("every slot is given back", WAIT_LIMIT, async || {
        (slots.slots().now == 0).then_some(())
    })
    .await;
    let (busy, busy_lowered) = (
        containers_at_once(&all),
        containers_at_once(within(&all, lowered_at, raised_at)),
    );
    let seen = slots.slots();
    println!(
        "F30 limits ({}): {ACTIONS} actions, limit {LIMIT} -> {LOWERED} -> {RAISED}, faults {faults:?}\n  {tally}\n  \
         revisions seen {} over the limit {}; most slots {}; most containers at work {busy}, while lowered {busy_lowered}\n  \
         lowered limit reached after {shrunk:?}, raised one after {grown:?}",
        machine(),
        seen.revisions,
        seen.over,
        seen.most,
    );
    println!("  log: {}", cluster.check_log(1).await);
    tally.assert_none_lost();
    assert_eq!(tally.failures(), 0, "nothing is killed: {:?}", tally.failed);
    assert_eq!(seen.over, 0, "{seen:?}");
    assert_eq!(seen.most, RAISED as usize);
    assert!(busy <= RAISED as usize && busy_lowered <= LOWERED as usize);
    assert!(tally.success > 3000, "too few calls to judge: {}", tally.success);
}

async fn set_limit(client: &whiskraft_client::Client, limit: u32) {
    client
        .put_namespace(&tight(), &NamespaceLimits::containers(limit))
        .await
        .expect("the limit is stored");
}

/// Kills a scheduler and starts it again, or cuts it off and heals, with calls ending meanwhile and afterwards.
async fn break_and_mend(cluster: &mut Cluster, driver: &Driver, fault: &str, victim: u64) {
    if fault == "kill" {
        cluster.kill_scheduler(victim);
        progress(driver, 300).await;
        cluster.start_scheduler(victim);
    } else {
        cluster.cut_off(victim);
        progress(driver, 300).await;
        cluster.switchboard.heal();
    }
    until("all schedulers hold a session", WAIT_LIMIT, async || {
        let status = cluster.status_of(victim).await?;
        (!status.fenced && status.nodes.iter().all(|node| node.session.is_some())).then_some(())
    })
    .await;
    progress(driver, 300).await;
}

/// Creations that take longer than their deadline give their slots back in time, also when their leader died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_reservation_returns_in_time() {
    const DEADLINE: Duration = Duration::from_secs(3);
    /// Session TTL.
    const TTL: Duration = Duration::from_millis(1200);
    /// Time of the machine and of the log.
    const SLACK: Duration = Duration::from_secs(1);

    let options = ClusterOptions::simulated(2, "2GiB")
        .with("scheduler.creation.deadline=3s")
        .with("scheduler.creation.retries-max=1")
        .with("scheduler.queue.retention=8s")
        .with_invoker("backend.simulated.create-delay=40s");
    let mut cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    tenants::put_namespaces(&client, [(tight(), NamespaceLimits::containers(LIMIT))]).await;
    let keys: Vec<QueueKey> = (0..8).map(|n| tenants::queue(&tight(), n)).collect();
    tenants::put_actions(
        &client,
        keys.iter().map(|key| (key.clone(), tenants::small(128, 1))),
    )
    .await;
    let placements = PlacementWatch::start(&client).await;
    let mut driver = Driver::new(&client);
    keys.iter()
        .for_each(|key| driver.call(Ask::new(0, key.clone(), 1)));
    until("every queue has a slot", WAIT_LIMIT, async || {
        (placements.in_progress() >= keys.len()).then_some(())
    })
    .await;
    let victim = cluster.leader_of(&client, "tight/a0").await;
    cluster.kill_scheduler(victim);
    let calls = Tally::of(&driver.finish().await);
    let (_, gone) = until("no slot is left", WAIT_LIMIT, async || {
        (placements.rows() == 0).then_some(())
    })
    .await;
    let longest = placements.longest_in_progress();
    println!(
        "F30 reservations ({}): longest without a container {longest:?}, none {gone:?} after the last answer; {calls}",
        machine()
    );
    assert_eq!(calls.success, 0);
    calls.assert_none_lost();
    // A reservation that outlives its leader gets one more deadline from the next one.
    assert!(longest <= DEADLINE * 2 + TTL + SLACK, "{longest:?}");
    assert!(gone <= DEADLINE + TTL + SLACK, "{gone:?}");
}
