//! Which new activations would be refused now: the two-level view of the throttles, kept from the watch.
//!
//! The actor feeds it, everybody may read it. It is an early answer only: the scheduler decides again on submission.
//! `view` holds the rule, without clock or lock; here is what callers see of it.

mod changes;
mod view;

use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::watch;
use whiskraft_types::{ActionName, Instant, NamespaceName, QueueKey, ThrottleScope};

pub use self::changes::{ThrottleChange, Throttles};
pub(crate) use self::view::{Found, ThrottleView};
use crate::Client;
use crate::clock::Clock;

/// A limit that would refuse a new activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Which limit: that of the action, of its namespace, or the namespace's invocations per minute.
    pub scope: ThrottleScope,
    /// Its value, if a refusal has told it.
    pub limit: Option<u32>,
    /// When trying again makes sense, counted from now.
    pub retry_after: Duration,
    /// When this client heard of it.
    pub since: StdInstant,
}

/// The view, and a bell for those who wait for its changes.
#[derive(Debug)]
pub(crate) struct ThrottleBoard {
    view: RwLock<ThrottleView>,
    changed: watch::Sender<()>,
    clock: Clock,
}

impl ThrottleBoard {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            view: RwLock::default(),
            changed: watch::Sender::default(),
            clock,
        }
    }

    /// Changes the view; rings if a throttle came or went.
    pub(crate) fn update<T>(&self, update: impl FnOnce(Instant, &mut ThrottleView) -> T) -> T {
        let now = self.clock.now();
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let before = view.changes();
        let result = update(now, &mut view);
        let has_changed = view.changes() != before;
        drop(view);
        if has_changed {
            self.changed.send_replace(());
        }
        result
    }

    fn check(&self, key: &QueueKey) -> Option<Throttle> {
        let now = self.clock.now();
        self.read().check(now, key).map(|found| self.throttle(found))
    }

    fn throttle(&self, found: Found) -> Throttle {
        Throttle {
            scope: found.scope,
            limit: found.limit,
            retry_after: found.retry_after,
            since: self.clock.to_std(found.since),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, ThrottleView> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// The limit that would refuse a new activation of this queue now, as far as this client has heard: that of the
    /// action first, then that of its namespace. Reads memory only.
    ///
    /// The action's limit counts first: a full queue refuses whatever the namespace has left, and an action that has
    /// containers may wait for them however full its namespace is.
    #[must_use]
    pub fn throttle(&self, key: &QueueKey) -> Option<Throttle> {
        self.shared().throttles.check(key)
    }

    /// The scope of [`throttle`](Self::throttle).
    #[must_use]
    pub fn check_throttle(&self, namespace: &NamespaceName, action: &ActionName) -> Option<ThrottleScope> {
        let key = QueueKey {
            namespace: namespace.clone(),
            action: action.clone(),
        };
        self.throttle(&key).map(|throttle| throttle.scope)
    }

    /// Tells of every throttle that comes or goes, at once; those that are on already come first.
    #[must_use]
    pub fn throttles(&self) -> Throttles {
        Throttles::new(std::sync::Arc::clone(self.shared()))
    }
}
