//! Throttles as they come and go, for a controller that refuses early or shows them.
//!
//! Level-triggered: each reader compares what it has told with what holds now. So a slow reader misses a throttle that
//! came and went meanwhile, never the state it is in, and nothing has to be buffered for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;
use whiskraft_types::{ActionName, Instant, NamespaceName};

use super::{Found, Throttle};
use crate::shared::Shared;

/// A throttle that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleChange {
    /// Invocation namespace.
    pub namespace: NamespaceName,
    /// The action; `None`: the namespace as a whole, which refuses actions that have no container.
    pub action: Option<ActionName>,
    /// What holds now; `None`: new activations are taken again.
    pub throttle: Option<Throttle>,
}

/// What one throttle is about; the namespace as a whole sorts before its actions.
pub(super) type Subject = (NamespaceName, Option<ActionName>);

/// Changes of the throttles. Never ends; dropping it costs nothing.
///
/// A throttle by rate ends by itself and is told to those whose activations it refuses, so it is not listed here.
#[derive(Debug)]
pub struct Throttles {
    shared: Arc<Shared>,
    changed: watch::Receiver<()>,
    /// What the reader knows to be on, and since when.
    told: BTreeMap<Subject, Instant>,
    pending: VecDeque<ThrottleChange>,
}

impl Throttles {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut changed = shared.throttles.changed.subscribe();
        // What is on already counts as a change.
        changed.mark_changed();
        Self {
            shared,
            changed,
            told: BTreeMap::new(),
            pending: VecDeque::new(),
        }
    }

    /// The next change; waits for one. May be cancelled and called again.
    pub async fn next(&mut self) -> ThrottleChange {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return change;
            }
            if self.changed.changed().await.is_err() {
                // The sender lives in what this holds, so it cannot be gone.
                std::future::pending::<()>().await;
            }
            self.compare();
        }
    }

    fn compare(&mut self) {
        let shared = Arc::clone(&self.shared);
        let board = &shared.throttles;
        let now: BTreeMap<Subject, Found> = board.read().flags().collect();
        let gone: Vec<Subject> = self
            .told
            .keys()
            .filter(|subject| !now.contains_key(*subject))
            .cloned()
            .collect();
        for subject in gone {
            self.told.remove(&subject);
            self.push(subject, None);
        }
        for (subject, found) in now {
            if self.told.insert(subject.clone(), found.since) != Some(found.since) {
                self.push(subject, Some(board.throttle(found)));
            }
        }
    }

    fn push(&mut self, (namespace, action): Subject, throttle: Option<Throttle>) {
        self.pending.push_back(ThrottleChange {
            namespace,
            action,
            throttle,
        });
    }
}
