//! What a set of calls shows: outcomes by kind, times, and how many containers were at work at any instant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use whiskraft_client::ActivationRecord;
use whiskraft_types::{ActivationStatus, ContainerId, Rejection};

use crate::driver::{Done, Outcome};
use crate::figures::Spread;

/// Result of an activation that a full namespace left without a container, as OpenWhisk's.
const TOO_MANY: &str = "Too many concurrent requests in flight";

/// Calls by how they ended.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records of success.
    pub success: usize,
    /// Records of anything else, by status and result.
    pub failed: BTreeMap<String, usize>,
    /// Refusals, by reason.
    pub refused: BTreeMap<String, usize>,
    /// Of these, accepted first and ended without a run.
    pub gave_up: usize,
    /// Refusals because of a limit that say when to come back.
    pub hinted: usize,
    /// Calls nobody can say anything about.
    pub lost: BTreeMap<String, usize>,
    /// Ids that came back more than once.
    pub twice: usize,
    /// Time of each successful call, as the caller saw it.
    pub latencies: Vec<Duration>,
    /// From acceptance to the start of the run, of the same calls.
    pub waits: Vec<Duration>,
}

impl Tally {
    /// Of these calls.
    #[must_use]
    pub fn of<'a>(calls: impl IntoIterator<Item = &'a Done>) -> Self {
        let (mut tally, mut ids) = (Self::default(), BTreeSet::new());
        for done in calls {
            match &done.outcome {
                Outcome::Record(record) => {
                    tally.twice += usize::from(!ids.insert(record.id));
                    tally.add_record(record, done.took);
                }
                Outcome::Refused(rejection) => {
                    let hinted = matches!(rejection, Rejection::Throttled { retry_after, .. } if !retry_after.is_zero());
                    tally.hinted += usize::from(hinted);
                    let text = match rejection {
                        // Without the pause, which differs.
                        Rejection::Throttled { scope, limit, .. } => scope.reached(*limit).to_string(),
                        other => other.to_string(),
                    };
                    *tally.refused.entry(text).or_default() += 1;
                }
                Outcome::Lost(reason) => *tally.lost.entry(without_ids(reason)).or_default() += 1,
            }
        }
        tally
    }

    fn add_record(&mut self, record: &ActivationRecord, took: Duration) {
        if record.status == ActivationStatus::Success {
            self.success += 1;
            self.latencies.push(took);
            self.waits.push(Duration::from_millis(record.wait_ms));
            return;
        }
        let text = String::from_utf8_lossy(&record.result);
        if text.contains(TOO_MANY) {
            // What a queue without a container in a full namespace says of what it took before it knew.
            *self.refused.entry(TOO_MANY.to_owned()).or_default() += 1;
            self.gave_up += 1;
            return;
        }
        let kind = format!("{}: {}", record.status.text(), without_ids(&text));
        *self.failed.entry(kind).or_default() += 1;
    }

    /// Times of the successful calls.
    #[must_use]
    pub fn latency(&self) -> Spread {
        Spread::of(self.latencies.iter().copied())
    }

    /// Their times in the queue.
    #[must_use]
    pub fn queueing(&self) -> Spread {
        Spread::of(self.waits.iter().copied())
    }

    /// Records of failures.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// Refusals.
    #[must_use]
    pub fn refusals(&self) -> usize {
        self.refused.values().sum()
    }

    /// All calls.
    #[must_use]
    pub fn total(&self) -> usize {
        self.success + self.failures() + self.refusals() + self.lost.values().sum::<usize>()
    }

    /// Checks that every call has an outcome that says what happened, and none has two.
    ///
    /// # Panics
    /// With what was found.
    pub fn assert_none_lost(&self) {
        assert!(self.lost.is_empty(), "calls without an outcome: {:?}", self.lost);
        assert_eq!(self.twice, 0, "ids with two outcomes");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "calls={} success={} failed={:?} refused={:?} lost={:?}",
            self.total(),
            self.success,
            self.failed,
            self.refused,
            self.lost
        )
    }
}

/// The text without what differs between activations: every word with a digit becomes `#`.
fn without_ids(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        if word.bytes().any(|byte| byte.is_ascii_digit()) {
            "#"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The most containers that were at work in one instant, by the start and end that the records name.
#[must_use]
pub fn containers_at_once<'a>(calls: impl IntoIterator<Item = &'a Done>) -> usize {
    most_at_once(calls.into_iter().filter_map(|done| match &done.outcome {
        Outcome::Record(record) => {
            let (_, container) = record.ran_on?;
            Some((container, record.start_ms, record.end_ms))
        }
        Outcome::Refused(_) | Outcome::Lost(_) => None,
    }))
}

fn most_at_once(runs: impl Iterator<Item = (ContainerId, u64, u64)>) -> usize {
    // Ends before starts in the same millisecond: that one container follows another is no overlap.
    let mut edges: Vec<(u64, bool, ContainerId)> = runs
        .filter(|(_, start, end)| start < end)
        .flat_map(|(container, start, end)| [(start, true, container), (end, false, container)])
        .collect();
    edges.sort_unstable();
    let (mut busy, mut most) = (BTreeMap::<ContainerId, u32>::new(), 0);
    for (_, starts, container) in edges {
        let runs = busy.entry(container).or_default();
        *runs = if starts { *runs + 1 } else { runs.saturating_sub(1) };
        if *runs == 0 {
            busy.remove(&container);
        }
        most = most.max(busy.len());
    }
    most
}

#[cfg(test)]
mod tests {
    use whiskraft_types::SessionId;

    use super::*;

    fn container(seq: u64) -> ContainerId {
        ContainerId {
            session: SessionId(1),
            seq,
        }
    }

    #[test]
    fn overlapping_runs_of_one_container_count_once() {
        let runs = [
            (container(1), 0, 10),
            (container(1), 5, 15),
            (container(2), 14, 20),
            (container(3), 20, 30),
        ];
        assert_eq!(most_at_once(runs.into_iter()), 2);
    }

    #[test]
    fn ids_do_not_split_a_reason() {
        assert_eq!(without_ids("container 7-3 is gone"), "container # is gone");
    }
}
