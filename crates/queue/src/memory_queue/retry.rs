//! Another run: whether there is one, and when.
//!
//! A failed run of a durable activation is followed by another one under the policy of its action; the journal has the
//! number and the earliest start of that one first, so the pause holds across changes of leader. A run that may have
//! begun and of which nobody can tell is followed by another one only with `on_loss`, at once, durable or not.

use std::time::Duration;

use whiskraft_types::{ActivationId, Instant};

use super::MemoryQueue;
use crate::ledger::{EndKind, Entry, Next, Stage};
use crate::{ActionProfile, Output, RetryPolicy};

/// Runs beyond those of the policy that one activation gets because runs were lost. An activation that takes its invoker
/// down with it must not take down many; three losses in a row by chance are rare.
const LOSS_RUNS_MAX: u32 = 3;

/// What follows the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// Another run at once, of an activation that no journal has.
    Again,
    /// The journal hears first, unless the activation is in memory only.
    Next(Next),
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// One that no journal has gets its place back for another run.
    pub(super) fn run_again(&mut self, now: Instant, id: ActivationId, out: &mut Vec<Output<P, R>>) {
        self.move_to(id, Stage::Waiting, out);
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        entry.run += 1;
        let ticket = entry.ticket;
        tracing::debug!(activation = %id, queue = %self.key, "run was lost; another one follows");
        self.waiting.insert(ticket);
        self.decide_for(now, &ticket);
        self.pump(now, out);
    }
}

/// What follows the end of the run under way.
pub(super) fn follow<P, R>(
    now: Instant,
    action: &ActionProfile,
    entry: &Entry<P, R>,
    kind: EndKind,
) -> Follow {
    let (policy, is_durable) = (&action.retry, entry.is_durable());
    let end = |dead_letter| Follow::Next(Next::End { dead_letter });
    let next = match kind {
        EndKind::Success | EndKind::Cancelled => return end(false),
        EndKind::Final => None,
        _ if action.deleted => None,
        EndKind::Failed if is_durable && entry.run < policy.runs_max => {
            next_run(entry, now + pause(policy, entry.ticket.id, entry.run), policy)
        }
        EndKind::Failed => None,
        EndKind::Lost if !policy.on_loss => None,
        EndKind::Lost if is_durable => {
            let is_left = entry.run < policy.runs_max.saturating_add(LOSS_RUNS_MAX);
            is_left.then(|| next_run(entry, now, policy)).flatten()
        }
        // What nobody has submitted here cannot be run.
        EndKind::Lost if entry.run <= LOSS_RUNS_MAX && entry.payload.is_some() => Some(Follow::Again),
        EndKind::Lost => None,
    };
    next.unwrap_or_else(|| end(policy.runs_max > 1))
}

/// The run after the one under way, unless the activation is too old by then.
fn next_run<P, R>(entry: &Entry<P, R>, not_before: Instant, policy: &RetryPolicy) -> Option<Follow> {
    let age = not_before.saturating_since(entry.ticket.accepted_at);
    let is_young = policy.age_max.is_none_or(|age_max| age <= age_max);
    is_young.then_some(Follow::Next(Next::Retry {
        run: entry.run.saturating_add(1),
        not_before,
    }))
}

/// Pause after a failed run: doubled for each, up to the longest, a tenth more or less.
fn pause(policy: &RetryPolicy, id: ActivationId, run: u32) -> Duration {
    // Doubling more often than this exceeds any longest pause, and a duration.
    let doublings = run.saturating_sub(1).min(30);
    let pause = policy.backoff.saturating_mul(1 << doublings);
    let pause = pause.min(policy.backoff_max);
    // From 900 to 1100 thousandths.
    let jitter = 900 + hash(id, run) % 201;
    let millis = pause.as_millis().saturating_mul(u128::from(jitter)) / 1000;
    let jittered = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
    jittered.min(policy.backoff_max)
}

/// Spreads runs: FNV-1a of id and run, the same on every scheduler.
fn hash(id: ActivationId, run: u32) -> u64 {
    let bytes = id.as_bytes().iter().copied().chain(run.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            runs_max: 100,
            backoff: Duration::from_secs(10),
            backoff_max: Duration::from_secs(100),
            ..RetryPolicy::default()
        }
    }

    fn id(number: u8) -> ActivationId {
        ActivationId::from_bytes([number; 16])
    }

    #[test]
    fn pauses_double_within_a_tenth_up_to_the_longest() {
        for number in 0..=u8::MAX {
            for (run, millis) in [
                (1, 10_000),
                (2, 20_000),
                (3, 40_000),
                (4, 80_000),
                (5, 100_000),
                (90, 100_000),
            ] {
                let pause = pause(&policy(), id(number), run);
                let (low, high) = (millis - millis / 10, (millis + millis / 10).min(100_000));
                let bounds = Duration::from_millis(low)..=Duration::from_millis(high);
                assert!(bounds.contains(&pause), "run {run}: {pause:?}");
            }
        }
    }

    #[test]
    fn what_failed_together_does_not_run_together() {
        let mut pauses: Vec<_> = (0..=u8::MAX)
            .map(|number| pause(&policy(), id(number), 1))
            .collect();
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 100, "{} different pauses", pauses.len());
        assert_eq!(pause(&policy(), id(1), 1), pause(&policy(), id(1), 1));
        assert_ne!(hash(id(1), 1), hash(id(1), 2));
    }

    #[test]
    fn policy_of_any_length_has_a_pause() {
        let policy = RetryPolicy {
            backoff: Duration::MAX,
            backoff_max: Duration::MAX,
            ..policy()
        };
        assert!(pause(&policy, id(1), u32::MAX) > Duration::from_secs(1 << 40));
    }
}
