//! The self-fencing rule: until when the holder of a session may act on it.
//!
//! Used by schedulers for their queues and by invokers for their containers. The Raft leader measures the TTL from
//! the arrival of a keepalive, which is later than its sending; so a holder that counts from the *sending* of the
//! last acknowledged keepalive, less a margin for clocks that run apart, stops before anybody else may take over.

use std::time::Duration;

use crate::Instant;

/// Allowance for the way of an answer, and for the time between the check and the act.
const ONE_WAY: Duration = Duration::from_millis(100);
/// Clock rates of two hosts differ by at most 1/10; both directions count, so the margin takes 2/10 of the TTL.
const DRIFT_PARTS: u32 = 5;

/// A lease as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    ttl: Duration,
    margin: Duration,
    sent_at: Option<Instant>,
}

impl Lease {
    /// A lease of this TTL that nobody has acknowledged yet: the holder is fenced.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self::with_margin(ttl, ttl / DRIFT_PARTS + ONE_WAY)
    }

    /// The same with a margin of the caller's choice; at least the whole TTL as margin fences for good.
    #[must_use]
    pub const fn with_margin(ttl: Duration, margin: Duration) -> Self {
        Self {
            ttl,
            margin,
            sent_at: None,
        }
    }

    /// The keepalive that was sent at `sent_at` was acknowledged. An older one than the newest known changes nothing.
    /// The opening of a session counts as one only where it is sure that this request opened it: a repeated one finds
    /// the session and renews nothing.
    pub fn acknowledge(&mut self, sent_at: Instant) {
        self.sent_at = self.sent_at.max(Some(sent_at));
    }

    /// Forgets all acknowledgements: the session has ended.
    pub const fn revoke(&mut self) {
        self.sent_at = None;
    }

    /// The first moment at which the holder may no longer act; `None` if it may not act at all.
    #[must_use]
    pub fn fenced_at(&self) -> Option<Instant> {
        Some(self.sent_at? + self.ttl.saturating_sub(self.margin))
    }

    /// Whether the holder may not act at `now`.
    #[must_use]
    pub fn is_fenced(&self, now: Instant) -> bool {
        self.fenced_at().is_none_or(|deadline| now >= deadline)
    }

    /// Time without keepalive after which the session may end.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn is_fenced_until_the_first_acknowledgement() {
        let mut lease = Lease::new(TTL);
        assert!(lease.is_fenced(at(0)));
        lease.acknowledge(at(100));
        assert!(!lease.is_fenced(at(100)));
    }

    #[test]
    fn ends_a_margin_before_the_ttl_counted_from_sending() {
        let mut lease = Lease::new(TTL);
        lease.acknowledge(at(1_000));
        // 2 s less 2 * 10 % less 100 ms.
        assert_eq!(lease.fenced_at(), Some(at(2_500)));
        assert!(!lease.is_fenced(at(2_499)));
        assert!(lease.is_fenced(at(2_500)));
    }

    #[test]
    fn late_acknowledgement_of_an_old_keepalive_changes_nothing() {
        let mut lease = Lease::new(TTL);
        lease.acknowledge(at(1_000));
        lease.acknowledge(at(500));
        assert_eq!(lease.fenced_at(), Some(at(2_500)));
    }

    #[test]
    fn revoked_lease_is_fenced() {
        let mut lease = Lease::new(TTL);
        lease.acknowledge(at(1_000));
        lease.revoke();
        assert!(lease.is_fenced(at(1_000)));
    }

    #[test]
    fn margin_as_long_as_the_ttl_never_lets_act() {
        let mut lease = Lease::with_margin(TTL, TTL);
        lease.acknowledge(at(1_000));
        assert!(lease.is_fenced(at(1_000)));
    }
}
