//! How soon a controller sees that a limit refuses, and that it does no more.

use std::time::Duration;

use whiskraft_client::Client;
use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Deadline, Driver, Outcome, Spread, Tally, machine, tenants, until,
};
use whiskraft_types::{NamespaceLimits, NamespaceName, QueueKey};

const CYCLES: usize = 100;
/// After its cause has ended nothing is throttled for longer.
const CLEAR: Duration = Duration::from_secs(2);
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// Waiting activations at which a queue refuses.
const LEN_MAX: usize = 10;

fn guest() -> NamespaceName {
    "guest".parse().expect("a valid name")
}

/// Action 0 has containers, 1 has none, 2 is the one whose queue gets full.
fn key(action: usize) -> QueueKey {
    tenants::queue(&guest(), action)
}

/// Time until this client's view of a queue is so; the view is looked at every millisecond, nobody is asked.
async fn until_throttled(client: &Client, key: &QueueKey, wanted: bool) {
    let deadline = Deadline::after(WAIT_LIMIT);
    while client.check_throttle(&key.namespace, &key.action).is_some() != wanted {
        assert!(!deadline.is_past(), "throttled of {key} is not {wanted}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn set_limit(client: &Client, limit: u32) {
    client
        .put_namespace(&guest(), &NamespaceLimits::containers(limit))
        .await
        .expect("the limit is stored");
}

/// The limit is moved to the number of containers and away; times from the order to the view of another controller.
async fn namespace_cycles(client: &Client, watcher: &Client) -> (Vec<Duration>, Vec<Duration>) {
    let mut busy = Driver::new(client);
    busy.call(Ask::new(0, key(0), 1));
    until("it has run", WAIT_LIMIT, async || {
        (busy.ended() == 1).then_some(())
    })
    .await;
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for _ in 0..CYCLES {
        for (limit, is_full, times) in [(1, true, &mut on), (10, false, &mut off)] {
            let clock = Deadline::after(WAIT_LIMIT);
            tokio::join!(set_limit(client, limit), async {
                until_throttled(watcher, &key(1), is_full).await;
                times.push(clock.elapsed());
            });
        }
    }
    let tally = Tally::of(&busy.finish().await);
    assert_eq!(tally.success, 1, "{tally}");
    (on, off)
}

/// Callers keep a queue full until that is seen; times from their first call, and from the first result after their last.
async fn action_cycles(client: &Client, watcher: &Client) -> (Vec<Duration>, Vec<Duration>) {
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for _ in 0..CYCLES {
        let mut driver = Driver::new(client);
        driver.callers(LEN_MAX + 4, |_, _| Ask::new(0, key(2), 10));
        until_throttled(watcher, &key(2), true).await;
        on.push(driver.elapsed());
        driver.stop();
        let stopped = driver.elapsed();
        until_throttled(watcher, &key(2), false).await;
        let cleared = driver.elapsed();
        let all = driver.finish().await;
        Tally::of(&all).assert_none_lost();
        let ends = all
            .iter()
            .filter(|done| matches!(done.outcome, Outcome::Record(_)))
            .map(|done| done.began + done.took);
        let first = ends.filter(|end| *end >= stopped).min().unwrap_or(stopped);
        off.push(cleared.saturating_sub(first));
    }
    (on, off)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_sees_a_throttle_come_and_go() {
    let options = ClusterOptions::simulated(1, "4GiB")
        .with(&format!("scheduler.queue.len-max={LEN_MAX}"))
        .with_invoker("invoker.pool.pause-grace=60s");
    let cluster = Cluster::start(options).await;
    let (client, watcher) = (cluster.client().await, cluster.client().await);
    set_limit(&client, 10).await;
    let mut limits = tenants::small(128, 1);
    tenants::put_actions(&client, (0..2).map(|n| (key(n), limits.clone()))).await;
    limits.instances = Some(1);
    tenants::put_actions(&client, [(key(2), limits)]).await;

    let (namespace_on, namespace_off) = namespace_cycles(&client, &watcher).await;
    let (action_on, action_off) = action_cycles(&client, &watcher).await;
    println!(
        "throttle as a controller sees it ({}), {CYCLES} cycles\n  namespace on:  {}\n  namespace off: {}\n  \
         action on:  {}\n  action off: {}",
        machine(),
        Spread::of(namespace_on.iter().copied()),
        Spread::of(namespace_off.iter().copied()),
        Spread::of(action_on.iter().copied()),
        Spread::of(action_off.iter().copied()),
    );
    let waited = Deadline::after(CLEAR);
    until("two seconds pass", WAIT_LIMIT, async || {
        waited.is_past().then_some(())
    })
    .await;
    for action in 0..3 {
        let scope = watcher.check_throttle(&guest(), &key(action).action);
        assert!(scope.is_none(), "action {action} still throttled: {scope:?}");
    }
    let mut driver = Driver::new(&client);
    (0..3).for_each(|action| driver.call(Ask::new(0, key(action), 1)));
    let tally = Tally::of(&driver.finish().await);
    assert_eq!(tally.success, 3, "{tally}");
    for times in [&namespace_on, &namespace_off, &action_off] {
        assert!(times.iter().all(|time| *time < CLEAR), "{times:?}");
    }
}
