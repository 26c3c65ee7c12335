//! The throttle view: which new activations would be refused, from the watched throttles table.
//!
//! An early answer only; the scheduler checks again on submission. Rule (spec A10): the action's flag decides
//! if there is one, then the namespace's; no flag means no limit.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{ActionName, Epoch, NamespaceName, QueueKey, ThrottleScope};

use crate::watch::{Queue, Throttle, WatchEvent};

/// Flags by namespace and by queue.
#[derive(Debug, Default)]
pub(crate) struct ThrottleView {
    namespaces: BTreeSet<NamespaceName>,
    actions: BTreeMap<QueueKey, bool>,
    /// Epoch in which an action's flag was set: the flag is gone with it.
    epochs: BTreeMap<QueueKey, Epoch>,
}

impl ThrottleView {
    /// Takes one change of the watched tables.
    pub(crate) fn apply(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::Throttle(throttle) => self.on_throttle(throttle),
            WatchEvent::Queue(queue) => self.on_queue(queue),
            _ => {}
        }
    }

    fn on_throttle(&mut self, throttle: &Throttle) {
        let namespace = throttle.namespace.clone();
        match (&throttle.action, throttle.throttled) {
            (None, true) => {
                self.namespaces.insert(namespace);
            }
            (None, false) => {
                self.namespaces.remove(&namespace);
            }
            (Some(action), throttled) => {
                let key = QueueKey {
                    namespace,
                    action: action.clone(),
                };
                self.actions.insert(key, throttled);
            }
        }
    }

    fn on_queue(&mut self, queue: &Queue) {
        if queue.removed {
            self.epochs.remove(&queue.key);
            self.actions.remove(&queue.key);
            return;
        }
        let before = self.epochs.insert(queue.key.clone(), queue.epoch);
        if before.is_some_and(|epoch| epoch != queue.epoch) {
            self.actions.remove(&queue.key);
        }
    }

    /// The limit that would refuse a new activation, if any.
    pub(crate) fn check(&self, namespace: &NamespaceName, action: &ActionName) -> Option<ThrottleScope> {
        let key = QueueKey {
            namespace: namespace.clone(),
            action: action.clone(),
        };
        match (self.actions.get(&key), self.namespaces.contains(namespace)) {
            (Some(true), _) => Some(ThrottleScope::Action),
            (Some(false), _) | (None, false) => None,
            (None, true) => Some(ThrottleScope::Namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::Revision;

    use super::*;

    fn key() -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "lib/hello".parse().unwrap(),
        }
    }

    fn view(action: Option<bool>, namespace: Option<bool>) -> ThrottleView {
        let mut view = ThrottleView::default();
        let throttle = |action, throttled| {
            WatchEvent::Throttle(Throttle {
                namespace: key().namespace,
                action,
                throttled,
            })
        };
        if let Some(throttled) = namespace {
            view.apply(&throttle(None, throttled));
        }
        if let Some(throttled) = action {
            view.apply(&throttle(Some(key().action), throttled));
        }
        view
    }

    fn check(view: &ThrottleView) -> Option<ThrottleScope> {
        view.check(&key().namespace, &key().action)
    }

    #[test]
    fn the_table_of_the_original_holds() {
        for namespace in [None, Some(false), Some(true)] {
            assert_eq!(check(&view(Some(true), namespace)), Some(ThrottleScope::Action));
            assert_eq!(
                check(&view(Some(false), namespace)),
                None,
                "containers exist: it may wait"
            );
        }
        assert_eq!(check(&view(None, Some(true))), Some(ThrottleScope::Namespace));
        assert_eq!(check(&view(None, Some(false))), None);
        assert_eq!(check(&view(None, None)), None);
    }

    #[test]
    fn an_action_flag_is_gone_with_its_epoch_and_its_queue() {
        let queue = |epoch, removed| {
            WatchEvent::Queue(Queue {
                key: key(),
                leader: None,
                epoch: Epoch(epoch),
                revision: Revision(1),
                removed,
            })
        };
        for end in [queue(2, false), queue(1, true)] {
            let mut view = ThrottleView::default();
            view.apply(&queue(1, false));
            view.apply(&WatchEvent::Throttle(Throttle {
                namespace: key().namespace,
                action: Some(key().action),
                throttled: true,
            }));
            view.apply(&queue(1, false));
            assert_eq!(check(&view), Some(ThrottleScope::Action));
            view.apply(&end);
            assert_eq!(check(&view), None);
        }
    }

    #[test]
    fn flags_of_others_do_not_count() {
        let view = view(Some(true), Some(true));
        assert_eq!(view.check(&"other".parse().unwrap(), &key().action), None);
    }
}
