//! Namespaces and actions by number, stored many at a time.

use futures::{StreamExt as _, stream};
use whiskraft_client::{ActionSpec, Client, Expect};
use whiskraft_types::{ActionLimits, ByteSize, NamespaceLimits, NamespaceName, QueueKey};

/// Writes under way at once: enough to fill the batches of the log.
const WRITES: usize = 64;

/// Namespace number `n`.
#[must_use]
pub fn namespace(prefix: &str, n: usize) -> NamespaceName {
    format!("{prefix}{n}").parse().expect("a valid name")
}

/// The queue of action number `action` in its own namespace.
#[must_use]
pub fn queue(namespace: &NamespaceName, action: usize) -> QueueKey {
    QueueKey {
        namespace: namespace.clone(),
        action: format!("{namespace}/a{action}").parse().expect("a valid name"),
    }
}

/// Limits of a simulated action with this memory.
#[must_use]
pub fn small(mib: u64, concurrency: u32) -> ActionLimits {
    ActionLimits {
        memory: ByteSize::mib(mib),
        concurrency,
        ..ActionLimits::default()
    }
}

/// Stores namespaces.
///
/// # Panics
/// When one is refused.
pub async fn put_namespaces(
    client: &Client,
    all: impl IntoIterator<Item = (NamespaceName, NamespaceLimits)>,
) {
    stream::iter(all)
        .for_each_concurrent(WRITES, |(name, limits)| async move {
            client
                .put_namespace(&name, &limits)
                .await
                .unwrap_or_else(|error| panic!("namespace {name}: {error}"));
        })
        .await;
}

/// Stores actions without code, for the simulated backend.
///
/// # Panics
/// When one is refused.
pub async fn put_actions(client: &Client, all: impl IntoIterator<Item = (QueueKey, ActionLimits)>) {
    stream::iter(all)
        .for_each_concurrent(WRITES, |(key, limits)| async move {
            let mut spec = ActionSpec::new(key.action.clone(), "python:3", "");
            spec.limits = limits;
            client
                .put_action(&spec, Expect::Anything)
                .await
                .unwrap_or_else(|error| panic!("action {}: {error}", key.action));
        })
        .await;
}

/// Stores `count` namespaces that may have so many containers, each with one simulated action; the queues of these.
///
/// # Panics
/// When something is refused.
pub async fn put_queues(client: &Client, prefix: &str, count: usize, containers: u32) -> Vec<QueueKey> {
    let namespaces: Vec<_> = (0..count).map(|n| namespace(prefix, n)).collect();
    let limits = |name: &NamespaceName| (name.clone(), NamespaceLimits::containers(containers));
    put_namespaces(client, namespaces.iter().map(limits)).await;
    let keys: Vec<QueueKey> = namespaces.iter().map(|name| queue(name, 0)).collect();
    put_actions(client, keys.iter().map(|key| (key.clone(), small(128, 1)))).await;
    keys
}
