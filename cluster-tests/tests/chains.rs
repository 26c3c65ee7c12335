//! F35: actions that call actions in a full namespace get on, or are told at once; nobody waits in silence.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use whiskraft_client::{ActionSpec, Client, Expect, InvokeOptions};
use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Done, Driver, Outcome, Tally, binary, machine, tenants, until,
};
use whiskraft_types::{ActionName, ActivationStatus, NamespaceLimits, NamespaceName};

const LIMIT: u32 = 10;
/// A slot for the called action.
const SLOT_LIMIT: Duration = Duration::from_secs(2);
/// What the start of ten processes at once takes longer on a busy machine.
const PROCESSES: Duration = Duration::from_secs(2);
/// A refusal, from the moment at which the scheduler takes the call.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// Until the queues of a killed leader are served again.
const FAILOVER: Duration = Duration::from_secs(4);
/// A call as its caller sees it, with the start of the process that makes it on a busy machine. Far below the caller's
/// own time limit of a minute: who comes near that has waited in silence.
const CALL_LIMIT: Duration = Duration::from_secs(25);
const WAIT_LIMIT: Duration = Duration::from_secs(60);

fn guest() -> NamespaceName {
    "guest".parse().expect("a valid name")
}

/// Python source of an action that calls the next one of `chain` through the command line, as part of its own
/// activation, and says how that went.
fn caller(endpoints: &str) -> String {
    format!(
        "import json, os, subprocess, time\n\
         def main(args):\n    \
             chain = args.get('chain', [])\n    \
             if not chain:\n        \
                 return {{'calls': []}}\n    \
             time.sleep(args.get('wait_ms', 0) / 1000)\n    \
             began = time.time()\n    \
             rest = json.dumps({{'chain': chain[1:]}})\n    \
             words = [{binary:?}, 'invoke', chain[0], '--json', '--param-file', '-', '--endpoints', {endpoints:?}]\n    \
             own = {{'HOME': '/tmp', '__OW_ACTIVATION_ID': os.environ['__OW_ACTIVATION_ID']}}\n    \
             out = subprocess.run(words, input=rest.encode(), capture_output=True, env=own)\n    \
             took = int((time.time() - began) * 1000)\n    \
             said = (out.stdout + out.stderr).decode()\n    \
             record = json.loads(out.stdout) if out.stdout else None\n    \
             below = record['response']['result'].get('calls', []) if out.returncode == 0 else []\n    \
             call = {{'code': out.returncode, 'took_ms': took, 'said': said[-600:]}}\n    \
             call['waited_ms'] = record['waitTime'] if record else None\n    \
             call['ended_at_ms'] = record['end'] if record else None\n    \
             return {{'calls': [call] + below}}\n",
        binary = binary().display().to_string(),
    )
}

/// How one call of an action went.
#[derive(Debug, Clone, Deserialize)]
struct Call {
    code: i32,
    /// As its caller saw it: with two processes that start.
    took_ms: u64,
    /// As the scheduler's record says: from the moment it took the call to the container, or to the refusal. `None` if
    /// it did not take it.
    waited_ms: Option<u64>,
    /// When it ended, by the scheduler's clock.
    ended_at_ms: Option<u64>,
    said: String,
}

impl Call {
    /// When the scheduler took it.
    fn taken_at_ms(&self) -> Option<u64> {
        self.ended_at_ms?.checked_sub(self.waited_ms?)
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    calls: Vec<Call>,
}

/// An activation of ours: how long its container took, and how its calls went.
struct Ran {
    waited: Duration,
    calls: Vec<Call>,
}

async fn chain_cluster() -> (Cluster, Client) {
    let cluster = Cluster::start(ClusterOptions {
        invoker_set: vec!["invoker.pool.memory=6GiB".to_owned()],
        ..ClusterOptions::default()
    })
    .await;
    let client = cluster.client().await;
    tenants::put_namespaces(&client, [(guest(), NamespaceLimits::containers(LIMIT))]).await;
    let source = caller(&cluster.endpoints().join(","));
    for name in ["guest/a", "guest/b", "guest/c", "guest/self"] {
        let mut spec = ActionSpec::new(name.parse().expect("a valid name"), "python:3", source.clone());
        spec.limits = tenants::small(128, 1);
        client
            .put_action(&spec, Expect::Anything)
            .await
            .expect("it is stored");
    }
    (cluster, client)
}

/// Starts `count` activations of `action` at once; each waits `wait_ms`, so that all run, and then calls `chain`.
fn start(client: &Client, count: u32, action: &str, chain: &[&str], wait_ms: u64) -> JoinSet<Ran> {
    let mut set = JoinSet::new();
    for _ in 0..count {
        let (client, action) = (
            client.clone(),
            action.parse::<ActionName>().expect("a valid name"),
        );
        let arguments = json!({"chain": chain, "wait_ms": wait_ms});
        set.spawn(async move {
            let record = client
                .invoke(&guest(), &action, arguments, InvokeOptions::default())
                .await
                .expect("a record");
            let text = String::from_utf8_lossy(&record.result).into_owned();
            assert_eq!(record.status, ActivationStatus::Success, "{text}");
            let answer = serde_json::from_str::<Answer>(&text).expect("the action's answer");
            Ran {
                waited: Duration::from_millis(record.wait_ms),
                calls: answer.calls,
            }
        });
    }
    set
}

/// How long calls may wait.
#[derive(Clone, Copy)]
struct Bars {
    /// For a container.
    container: Duration,
    /// For a refusal.
    refusal: Duration,
    /// Whether a refused call may first have waited for one that ran: until the last of those that were refused with it was
    /// made, some container could still come free.
    may_hope: bool,
}

impl Bars {
    /// A slot in time, and the start of the container in it, which took so long where nobody had to wait for a slot.
    fn with_start(start: Duration) -> Self {
        Self {
            container: SLOT_LIMIT + start + PROCESSES,
            refusal: REFUSAL_LIMIT,
            may_hope: false,
        }
    }

    fn hopeful(self) -> Self {
        Self {
            may_hope: true,
            ..self
        }
    }

    /// How long a call waited for its container, or in vain for its refusal.
    fn waited_ms(self, call: &Call, refused: &[&Call]) -> Option<u64> {
        if call.code == 0 || !self.may_hope {
            return call.waited_ms;
        }
        let ended = call.ended_at_ms?;
        let taken = refused.iter().filter_map(|other| other.taken_at_ms());
        let last = taken.filter(|at| *at <= ended).max()?;
        Some(ended - last)
    }

    fn later(self, by: Duration) -> Self {
        Self {
            container: self.container + by,
            refusal: self.refusal + by,
            ..self
        }
    }
}

/// Checks that each call was served or refused in time; prints how many of each.
fn judge(what: &str, ran: Vec<Ran>, bars: Bars) {
    let calls: Vec<_> = ran.into_iter().flat_map(|ran| ran.calls).collect();
    let (served, refused): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.code == 0);
    let slowest = |calls: &[&Call]| {
        let waited = calls
            .iter()
            .filter_map(|call| bars.waited_ms(call, &refused))
            .max();
        let took = calls.iter().map(|call| call.took_ms).max();
        format!(
            "{} ms, for the caller {} ms",
            waited.unwrap_or(0),
            took.unwrap_or(0)
        )
    };
    println!(
        "F35 {what} ({}): served {} (slowest {}), refused {} (slowest {}), bars {:?} and {:?}",
        machine(),
        served.len(),
        slowest(&served),
        refused.len(),
        slowest(&refused),
        bars.container,
        bars.refusal,
    );
    assert!(!calls.is_empty(), "nobody called anybody");
    let is_within = |ms: u64, bar: Duration| u128::from(ms) <= bar.as_millis();
    for call in &calls {
        let bar = if call.code == 0 {
            bars.container
        } else {
            bars.refusal
        };
        let waited = bars.waited_ms(call, &refused);
        let is_in_time = waited.is_none_or(|waited| is_within(waited, bar));
        assert!(is_in_time, "{what}: waited longer than {bar:?}: {call:?}");
        assert!(
            is_within(call.took_ms, CALL_LIMIT),
            "{what}: a silent wait: {call:?}"
        );
    }
    for call in &refused {
        let is_typed = call.said.to_lowercase().contains("too many concurrent requests");
        assert!(is_typed, "{what}: a refusal without its reason: {call:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_a_full_namespace_are_served_or_refused() {
    let (mut cluster, client) = chain_cluster().await;
    let ran = start(&client, LIMIT, "guest/a", &["guest/b"], 2000)
        .join_all()
        .await;
    let start_up = ran.iter().map(|ran| ran.waited).max().unwrap_or_default();
    let bars = Bars::with_start(start_up);
    judge("ten call one action", ran, bars);

    let ran = start(&client, LIMIT / 2, "guest/a", &["guest/b", "guest/c"], 1000)
        .join_all()
        .await;
    judge("chains of three", ran, bars);

    // Two of four levels fit into the ten slots.
    let recursion = ["guest/self", "guest/self", "guest/self"];
    let ran = start(&client, 2, "guest/self", &recursion, 500).join_all().await;
    judge("recursion", ran, bars);

    let under_way = start(&client, LIMIT, "guest/a", &["guest/b"], 2000);
    let victim = cluster.leader_of(&client, "guest/b").await;
    until("the calls are under way", WAIT_LIMIT, async || {
        let status = client.status().await.ok()?;
        (status.containers_running >= u64::from(LIMIT) / 2).then_some(())
    })
    .await;
    cluster.kill_scheduler(victim);
    let ran = under_way.join_all().await;
    judge("the leader killed", ran, bars.later(FAILOVER));
}

/// Recursion that needs more containers than there may be: every one is at work for a caller that waits for the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recursion_beyond_the_limit_is_refused() {
    let (_cluster, client) = chain_cluster().await;
    // Actions that end at once: what starting as many containers as there may be costs on this machine.
    let ran = start(&client, LIMIT, "guest/c", &[], 0).join_all().await;
    let start_up = ran.iter().map(|ran| ran.waited).max().unwrap_or_default();
    let bars = Bars::with_start(start_up);

    let of_itself = ["guest/self", "guest/self", "guest/self"];
    let ran = start(&client, LIMIT / 2, "guest/self", &of_itself, 500)
        .join_all()
        .await;
    judge("recursion beyond the limit", ran, bars.hopeful());
}

/// Two actions that call each other; their queues are led by any of the schedulers: none of them alone sees the knot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_two_that_wait_for_each_other_are_refused() {
    let (_cluster, client) = chain_cluster().await;
    let ran = start(&client, LIMIT / 2, "guest/a", &["guest/b"], 0)
        .join_all()
        .await;
    let start_up = ran.iter().map(|ran| ran.waited).max().unwrap_or_default();
    let bars = Bars::with_start(start_up);

    let of_each_other = ["guest/b", "guest/a", "guest/b"];
    let ran = start(&client, LIMIT / 2, "guest/a", &of_each_other, 500)
        .join_all()
        .await;
    judge("two that call each other", ran, bars.hopeful());
}

/// Longest time between two successes of each action.
fn gaps(all: &[Done], actions: usize, from: Duration, to: Duration) -> Vec<Duration> {
    let mut last: BTreeMap<usize, Duration> = (0..actions).map(|action| (action, from)).collect();
    let mut gaps = vec![Duration::ZERO; actions];
    let mut ends: Vec<(Duration, usize)> = all
        .iter()
        .filter(|done| matches!(&done.outcome, Outcome::Record(record) if record.status == ActivationStatus::Success))
        .map(|done| (done.began + done.took, done.tenant))
        .collect();
    ends.sort_unstable();
    for (at, action) in ends.into_iter().chain((0..actions).map(|action| (to, action))) {
        if let Some(before) = last.insert(action, at) {
            gaps[action] = gaps[action].max(at.saturating_sub(before));
        }
    }
    gaps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_actions_share_ten_slots() {
    const ACTIONS: usize = 50;
    const LOAD: Duration = Duration::from_secs(25);
    const PROGRESS: Duration = Duration::from_secs(5);

    let options = ClusterOptions::simulated(2, "4GiB").with_invoker("backend.simulated.create=20ms");
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    tenants::put_namespaces(&client, [(guest(), NamespaceLimits::containers(LIMIT))]).await;
    let keys = (0..ACTIONS).map(|n| tenants::queue(&guest(), n));
    tenants::put_actions(&client, keys.map(|key| (key, tenants::small(128, 1)))).await;
    let mut driver = Driver::new(&client);
    driver.callers(ACTIONS, |caller, _| {
        Ask::new(caller, tenants::queue(&guest(), caller), 30)
    });
    until("the load ends", WAIT_LIMIT, async || {
        (driver.elapsed() >= LOAD).then_some(())
    })
    .await;
    let all = driver.finish().await;
    let tally = Tally::of(&all);
    let mut gaps = gaps(&all, ACTIONS, Duration::ZERO, LOAD);
    gaps.sort_unstable();
    println!(
        "F35 fifty actions, ten slots ({}): longest time without progress of an action: median {:?}, worst {:?}\n  {tally}",
        machine(),
        gaps[ACTIONS / 2],
        gaps[ACTIONS - 1]
    );
    tally.assert_none_lost();
    assert_eq!(tally.failures(), 0, "{:?}", tally.failed);
    assert!(gaps[ACTIONS - 1] <= PROGRESS, "{gaps:?}");
}
