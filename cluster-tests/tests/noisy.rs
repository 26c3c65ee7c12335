//! F32: a namespace that offers a hundred times its share, with a failover in the middle, and the shares of equals and
//! unequals when memory is short.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_client::Client;
use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Done, Driver, Outcome, Spread, Tally, jain, machine, tenants, until,
};
use whiskraft_types::{NamespaceLimits, QueueKey};

const STEADY: usize = 20;
/// Calls a second of each steady namespace, which keep one container at work for a fifth of the time.
const STEADY_RATE: f64 = 2.0;
const STEADY_MS: u64 = 100;
/// Tenant numbers of the others.
const NOISY: usize = 100;
const RARE: usize = 101;
const NOISY_ACTIONS: usize = 20;
const NOISY_RATE: f64 = STEADY_RATE * 100.0;
const NOISY_MS: u64 = 800;
const NOISY_BALLAST: usize = 20_000;
const COLD_START: Duration = Duration::from_millis(100);
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// What a machine of two cores with eight busy processes adds to any time.
const NOISE: Duration = Duration::from_millis(25);
/// Session TTL, detection, registration: the time in which calls of a killed leader's queues may be late.
const FAILOVER: Duration = Duration::from_secs(5);

fn steady(tenant: usize) -> QueueKey {
    tenants::queue(&tenants::namespace("steady", tenant), 0)
}

fn noisy(action: usize) -> QueueKey {
    tenants::queue(&tenants::namespace("noisy", 0), action)
}

fn rare() -> QueueKey {
    tenants::queue(&tenants::namespace("rare", 0), 0)
}

fn steady_ask(n: u64) -> Ask {
    let tenant = usize::try_from(n).unwrap_or(0) % STEADY;
    Ask::new(tenant, steady(tenant), STEADY_MS)
}

/// Both kinds mixed in the proportion of their rates.
fn mixed_ask(n: u64) -> Ask {
    let all_steady = STEADY_RATE * STEADY as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small ratio"
    )]
    let every = ((NOISY_RATE + all_steady) / all_steady) as u64;
    if n.is_multiple_of(every) {
        return steady_ask(n / every);
    }
    let action = usize::try_from(n).unwrap_or(0) % NOISY_ACTIONS;
    Ask {
        ballast: NOISY_BALLAST,
        ..Ask::new(NOISY, noisy(action), NOISY_MS)
    }
}

async fn short_cluster() -> Cluster {
    // 32 containers in all, for 22 namespaces.
    let options = ClusterOptions::simulated(4, "1GiB")
        .with("scheduler.queue.len-max=20")
        .with_invoker("backend.simulated.create=100ms");
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let keys: Vec<QueueKey> = (0..STEADY)
        .map(steady)
        .chain((0..NOISY_ACTIONS).map(noisy))
        .chain([rare()])
        .collect();
    let names: BTreeSet<_> = keys.iter().map(|key| key.namespace.clone()).collect();
    tenants::put_namespaces(
        &client,
        names
            .into_iter()
            .map(|name| (name, NamespaceLimits::containers(200))),
    )
    .await;
    tenants::put_actions(&client, keys.into_iter().map(|key| (key, tenants::small(128, 1)))).await;
    cluster
}

/// Queues by the scheduler that leads them.
async fn led(client: &Client) -> BTreeMap<QueueKey, u64> {
    let status = client.status().await.expect("a scheduler answers");
    let led = status.queues.into_iter().map(|queue| queue.queue);
    led.filter_map(|queue| Some((queue.key, queue.leader?.0)))
        .collect()
}

fn of_tenant(all: &[Done], wanted: impl Fn(usize) -> bool) -> impl Iterator<Item = &Done> {
    all.iter().filter(move |done| wanted(done.tenant))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooding_namespace_does_not_delay_the_others() {
    let mut cluster = short_cluster().await;
    let client = cluster.client().await;
    let steady_rate = STEADY_RATE * STEADY as f64;
    let mut warm_up = Driver::new(&client);
    warm_up
        .open_loop(steady_rate, Duration::from_secs(3), steady_ask)
        .await;
    warm_up.finish().await;
    let mut solo = Driver::new(&client);
    solo.open_loop(steady_rate, Duration::from_secs(12), steady_ask)
        .await;
    let solo = Tally::of(&solo.finish().await);

    let all_rate = NOISY_RATE + steady_rate;
    let mut driver = Driver::new(&client);
    driver
        .open_loop(all_rate, Duration::from_secs(10), mixed_ask)
        .await;
    driver.call(Ask::new(RARE, rare(), 1));
    driver
        .open_loop(all_rate, Duration::from_secs(4), mixed_ask)
        .await;
    let leaders = led(&client).await;
    let victim = leaders.get(&noisy(0)).copied().unwrap_or(1);
    cluster.kill_scheduler(victim);
    let killed = driver.elapsed();
    driver
        .open_loop(all_rate, Duration::from_secs(8), mixed_ask)
        .await;
    cluster.start_scheduler(victim);
    driver
        .open_loop(all_rate, Duration::from_secs(6), mixed_ask)
        .await;
    let offered = driver.elapsed();
    let all = driver.finish().await;

    let touched = |done: &Done| {
        leaders.get(&done.key) == Some(&victim)
            && done.began + done.took >= killed
            && done.began <= killed + FAILOVER
    };
    let steady_all = Tally::of(of_tenant(&all, |tenant| tenant < STEADY));
    let untouched = Tally::of(of_tenant(&all, |tenant| tenant < STEADY).filter(|done| !touched(done)));
    let noisy = Tally::of(of_tenant(&all, |tenant| tenant == NOISY));
    let rare = Tally::of(of_tenant(&all, |tenant| tenant == RARE));
    println!(
        "F32 noisy neighbour ({}): {offered:?} of load, scheduler {victim} killed after {killed:?}\n  steady alone: queueing {}\n  \
         steady beside it: queueing {}; with the queues of the killed leader {}\n  steady {steady_all}\n  \
         rare: first activation {:?}, queueing {:?}\n  noisy {noisy}\n  refusals with a time to come back: {} of {}",
        machine(),
        solo.queueing(),
        untouched.queueing(),
        steady_all.queueing(),
        rare.latency().max,
        rare.queueing().max,
        noisy.hinted,
        noisy.refusals() - noisy.gave_up,
    );
    assert_eq!(
        steady_all.success,
        steady_all.total(),
        "no steady call fails: {steady_all}"
    );
    steady_all.assert_none_lost();
    noisy.assert_none_lost();
    let bar = (solo.queueing().p99 * 2).max(solo.queueing().p99 + NOISE);
    assert!(
        untouched.queueing().p99 <= bar,
        "{} above {bar:?}",
        untouched.queueing()
    );
    assert_eq!(rare.success, 1, "{rare}");
    assert!(rare.latency().max <= Duration::from_secs(1) + COLD_START + NOISE);
    assert!(noisy.refusals() > 0 && noisy.hinted + noisy.gave_up == noisy.refusals());
}

/// Success of each tenant in the part of the run in which all of them wanted more than there was.
fn shares(all: &[Done], tenants: usize, from: Duration, to: Duration) -> Vec<f64> {
    let mut got = vec![0.0; tenants];
    for done in all {
        let ended = done.began + done.took;
        if matches!(done.outcome, Outcome::Record(_)) && ended >= from && ended < to {
            got[done.tenant] += 1.0;
        }
    }
    got
}

/// Namespaces with these weights offer more than there is; what each gets.
async fn contend(weights: &'static [u32]) -> (Vec<f64>, Tally) {
    const RUN_MS: u64 = 100;
    const CALLERS: usize = 40;
    const SETTLE: Duration = Duration::from_secs(6);
    const MEASURE: Duration = Duration::from_secs(12);

    let options = ClusterOptions::simulated(4, "1GiB").with_invoker("backend.simulated.create=20ms");
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let key = |tenant| tenants::queue(&tenants::namespace("n", tenant), 0);
    let limits = weights.iter().enumerate().map(|(tenant, weight)| {
        let limits = NamespaceLimits {
            weight: *weight,
            ..NamespaceLimits::containers(64)
        };
        (tenants::namespace("n", tenant), limits)
    });
    tenants::put_namespaces(&client, limits).await;
    tenants::put_actions(
        &client,
        (0..weights.len()).map(|n| (key(n), tenants::small(128, 1))),
    )
    .await;
    let mut driver = Driver::new(&client);
    driver.callers(CALLERS * weights.len(), move |caller, _| {
        let tenant = caller % weights.len();
        Ask::new(tenant, key(tenant), RUN_MS)
    });
    let wait = async |time| {
        until("the time passes", WAIT_LIMIT, async || {
            (driver.elapsed() >= time).then_some(())
        })
        .await;
    };
    wait(SETTLE).await;
    wait(SETTLE + MEASURE).await;
    let all = driver.finish().await;
    (
        shares(&all, weights.len(), SETTLE, SETTLE + MEASURE),
        Tally::of(&all),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equals_get_equal_shares_of_short_memory() {
    let (got, tally) = contend(&[100, 100, 100, 100]).await;
    let index = jain(&got);
    println!(
        "fair shares, equal weights ({}): runs {got:?}, Jain index {index:.4}; latency {}; {tally}",
        machine(),
        Spread::of(tally.latencies.iter().copied())
    );
    tally.assert_none_lost();
    assert!(index >= 0.95, "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_of_short_memory_follow_the_weights() {
    const WEIGHTS: [u32; 3] = [100, 200, 400];

    let (got, tally) = contend(&WEIGHTS).await;
    let (sum, weights): (f64, u32) = (got.iter().sum(), WEIGHTS.iter().sum());
    let parts: Vec<f64> = got
        .iter()
        .zip(WEIGHTS)
        .map(|(got, weight)| (got / sum) / (f64::from(weight) / f64::from(weights)))
        .collect();
    println!(
        "fair shares, weights {WEIGHTS:?} ({}): runs {got:?}, of the share by weight {parts:.3?}; {tally}",
        machine()
    );
    tally.assert_none_lost();
    assert!(parts.iter().all(|part| (part - 1.0).abs() <= 0.15), "{parts:?}");
}

/// More namespaces than places: each gets one in its turn, and nobody waits for those that hold idle ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_namespaces_share_sixty_four_places() {
    const NAMESPACES: usize = 500;
    const RUN_MS: u64 = 200;
    const BAR: Duration = Duration::from_secs(15);

    let options = ClusterOptions::simulated(4, "2GiB").with_invoker("backend.simulated.create=20ms");
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let key = |tenant| tenants::queue(&tenants::namespace("n", tenant), 0);
    let names = (0..NAMESPACES).map(|n| (tenants::namespace("n", n), NamespaceLimits::containers(10)));
    tenants::put_namespaces(&client, names).await;
    tenants::put_actions(&client, (0..NAMESPACES).map(|n| (key(n), tenants::small(128, 1)))).await;
    let mut driver = Driver::new(&client);
    for tenant in 0..NAMESPACES {
        driver.call(Ask::new(tenant, key(tenant), RUN_MS));
    }
    until("all have ended", WAIT_LIMIT, async || {
        (driver.ended() == NAMESPACES as u64).then_some(())
    })
    .await;
    let took = driver.elapsed();
    let tally = Tally::of(&driver.finish().await);
    println!(
        "one call of each of {NAMESPACES} namespaces on 64 places ({}): all ended after {took:?}; latency {}; {tally}",
        machine(),
        tally.latency()
    );
    tally.assert_none_lost();
    assert_eq!(tally.success, NAMESPACES, "{tally}");
    assert!(took <= BAR, "{took:?}");
}
