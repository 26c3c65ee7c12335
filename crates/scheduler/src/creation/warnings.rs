//! Says which creations failed: one warning per queue and while, with a count, however many fail.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_types::{CreationError, Instant, QueueKey};

/// Time between two warnings about one queue.
const PAUSE: Duration = Duration::from_secs(10);
/// Queues that are kept apart; beyond it failures of further ones are not warned of until others have calmed down.
const QUEUES_MAX: usize = 1024;

/// What was not said yet.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    queues: BTreeMap<QueueKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    said_at: Instant,
    unsaid: u64,
}

impl Warnings {
    /// Counts a failure; gives the number of failures to warn of now, if it is time to.
    pub(crate) fn count(&mut self, now: Instant, queue: &QueueKey) -> Option<u64> {
        if let Some(entry) = self.queues.get_mut(queue) {
            entry.unsaid += 1;
            if now.saturating_since(entry.said_at) < PAUSE {
                return None;
            }
            entry.said_at = now;
            return Some(std::mem::take(&mut entry.unsaid));
        }
        if self.queues.len() >= QUEUES_MAX {
            self.queues
                .retain(|_, entry| now.saturating_since(entry.said_at) < PAUSE);
        }
        if self.queues.len() >= QUEUES_MAX {
            return None;
        }
        let entry = Entry {
            said_at: now,
            unsaid: 0,
        };
        self.queues.insert(queue.clone(), entry);
        Some(1)
    }

    /// A container was given up.
    pub(crate) fn not_created(
        &mut self,
        now: Instant,
        queue: &QueueKey,
        error: CreationError,
        message: &str,
    ) {
        if let Some(count) = self.count(now, queue) {
            tracing::warn!(%queue, ?error, count, message, "containers not created");
        } else {
            tracing::debug!(%queue, ?error, message, "container not created");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_within_ten_seconds_are_one_warning() {
        let at = |secs| Instant::from_origin(Duration::from_secs(secs));
        let key = |action: &str| QueueKey {
            namespace: "guest".parse().unwrap(),
            action: action.parse().unwrap(),
        };
        let mut warnings = Warnings::default();
        let counts: Vec<_> = [0, 1, 2, 10, 11]
            .into_iter()
            .map(|secs| warnings.count(at(secs), &key("guest/a")))
            .collect();
        assert_eq!(counts, [Some(1), None, None, Some(3), None]);
        assert_eq!(warnings.count(at(11), &key("guest/b")), Some(1));
    }
}
