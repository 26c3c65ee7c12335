//! Writes to the tables one after the other, to see when the cluster takes none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use whiskraft_client::Client;
use whiskraft_types::{NamespaceLimits, NamespaceName};

use crate::wait::Deadline;

/// Pause after a write that failed, and between two.
const PAUSE: Duration = Duration::from_millis(5);

/// A writer at work; ends when dropped.
#[derive(Debug)]
pub struct Writes {
    acknowledged: Arc<Mutex<Vec<Duration>>>,
    task: JoinHandle<()>,
}

impl Writes {
    /// Starts a writer that tells the time by this clock.
    #[must_use]
    pub fn start(client: &Client, clock: Deadline) -> Self {
        let namespace: NamespaceName = "written".parse().expect("a valid name");
        let (client, acknowledged) = (client.clone(), Arc::<Mutex<Vec<Duration>>>::default());
        let times = Arc::clone(&acknowledged);
        let task = tokio::spawn(async move {
            for n in 0_u32.. {
                let limits = NamespaceLimits::containers(1 + n % 2);
                if client.put_namespace(&namespace, &limits).await.is_ok() {
                    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
                    times.push(clock.elapsed());
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { acknowledged, task }
    }

    /// When each write was acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Duration> {
        let times = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        times.clone()
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The longest time without one of these moments, which are in order, that overlaps the time from `from` to `to`.
#[must_use]
pub fn longest_gap(moments: &[Duration], from: Duration, to: Duration) -> Duration {
    let pairs = moments.windows(2).filter(|pair| pair[0] < to && pair[1] > from);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_where_it_overlaps() {
        let moments = [0, 1, 5, 6, 16].map(Duration::from_secs);
        let gap =
            |from, to| longest_gap(&moments, Duration::from_secs(from), Duration::from_secs(to)).as_secs();
        assert_eq!((gap(0, 1), gap(4, 5), gap(5, 6), gap(2, 7)), (1, 4, 1, 10));
        assert_eq!(
            longest_gap(&moments[..1], Duration::ZERO, Duration::from_secs(9)),
            Duration::MAX,
            "nothing was written"
        );
    }
}
