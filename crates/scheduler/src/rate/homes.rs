//! The buckets that this scheduler keeps: of namespaces whose rate home it is, and of its own shares of others whose home
//! does not answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use whiskraft_queue::{Taken, TokenBucket};
use whiskraft_types::{Instant, NamespaceName};

/// Buckets by namespace. One that nobody used for a while is full again and need not be kept.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    buckets: Mutex<BTreeMap<NamespaceName, (TokenBucket, Instant)>>,
}

/// Buckets kept before idle ones are looked for.
const BUCKETS_SLACK: usize = 1024;
/// Time after which every bucket is as good as new: it holds ten seconds' worth, or one token of a minute.
const IDLE_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

impl Buckets {
    /// Grants up to `wanted` under a limit.
    pub(crate) fn take(
        &self,
        now: Instant,
        namespace: &NamespaceName,
        per_minute: u32,
        wanted: u32,
    ) -> Taken {
        // Nothing in here panics; a poisoned lock would only mean that another task was cut off between two grants.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_SLACK && !buckets.contains_key(namespace) {
            buckets.retain(|_, (_, used)| now.saturating_since(*used) < IDLE_AFTER);
        }
        let (bucket, used) = buckets
            .entry(namespace.clone())
            .or_insert_with(|| (TokenBucket::new(per_minute, now), now));
        *used = now;
        bucket.set_rate(per_minute, now);
        bucket.take(now, wanted)
    }

    /// Forgets what a namespace has used: it has no limit now, and the next one begins with its whole burst.
    pub(crate) fn forget(&self, namespace: &NamespaceName) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.remove(namespace);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn a_namespace_keeps_its_bucket_when_its_limit_changes() {
        let buckets = Buckets::default();
        let name: NamespaceName = "guest".parse().unwrap();
        assert_eq!(buckets.take(at(0), &name, 60, 99).granted, 10);
        assert_eq!(buckets.take(at(0), &name, 600, 99).granted, 0);
        assert_eq!(buckets.take(at(1), &name, 600, 99).granted, 10);
    }

    #[test]
    fn a_limit_after_none_begins_with_its_burst() {
        let buckets = Buckets::default();
        let name: NamespaceName = "guest".parse().unwrap();
        assert_eq!(buckets.take(at(0), &name, 60, 99).granted, 10);
        buckets.forget(&name);
        assert_eq!(buckets.take(at(0), &name, 600, 999).granted, 100);
    }

    #[test]
    fn buckets_that_are_as_good_as_new_make_room() {
        let buckets = Buckets::default();
        let name = |n: usize| format!("n{n}").parse().unwrap();
        for n in 0..BUCKETS_SLACK {
            buckets.take(at(0), &name(n), 60, 1);
        }
        buckets.take(at(61), &name(BUCKETS_SLACK), 60, 1);
        assert_eq!(buckets.buckets.lock().unwrap().len(), 1);
    }
}
