//! Which scheduler carries the keepalives, and when the next one is due. Pure: time comes in.
//!
//! The home scheduler carries them. When its link breaks, or it has not acknowledged for half a time to live, another
//! connected scheduler becomes home and gets one at once, so that a lost scheduler does not fence the invoker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_types::{Instant, SchedulerId};

/// Keepalives without answer that are remembered; more than fit into a time to live at any sane interval.
const SENT_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Keepalives {
    ttl: Duration,
    interval: Duration,
    home: Option<SchedulerId>,
    seq: u64,
    sent: BTreeMap<u64, Instant>,
    renewed_at: Option<Instant>,
    /// When the first keepalive that the home scheduler owes an answer for was sent.
    owed_since: Option<Instant>,
    next: Instant,
}

impl Keepalives {
    /// For a session just opened; the first keepalive is due with the first link.
    pub(crate) fn new(ttl: Duration, interval: Duration, now: Instant) -> Self {
        Self {
            ttl,
            interval,
            home: None,
            seq: 0,
            sent: BTreeMap::new(),
            renewed_at: None,
            owed_since: None,
            next: now,
        }
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(crate) fn home(&self) -> Option<SchedulerId> {
        self.home
    }

    /// When the newest keepalive that was acknowledged was sent.
    pub(crate) fn renewed_at(&self) -> Option<Instant> {
        self.renewed_at
    }

    /// When to look again.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.owed_since
            .map_or(self.next, |since| self.next.min(since + self.ttl / 2))
    }

    /// The keepalive to send now, if one is due. `linked` are the schedulers with an open stream.
    pub(crate) fn due(&mut self, now: Instant, linked: &BTreeSet<SchedulerId>) -> Option<(SchedulerId, u64)> {
        let silent = self.owed_since.is_some_and(|since| now >= since + self.ttl / 2);
        let lost = self.home.is_none_or(|home| !linked.contains(&home));
        let moved = (silent || lost) && self.move_home(linked);
        if silent && !moved {
            // Nobody else to ask: go on at the usual pace.
            self.owed_since = Some(now);
        }
        let home = self.home.filter(|home| linked.contains(home));
        if now < self.next && !moved {
            return None;
        }
        self.next = now + self.interval;
        let home = home?;
        self.seq += 1;
        self.sent.insert(self.seq, now);
        if self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        self.owed_since.get_or_insert(now);
        Some((home, self.seq))
    }

    /// A stream opened: if the home scheduler is back, or there is none yet, a keepalive is due at once.
    pub(crate) fn link_opened(&mut self, now: Instant, scheduler: SchedulerId) {
        if self.home.is_none_or(|home| home == scheduler) {
            self.next = now;
        }
    }

    /// The next connected scheduler in order after the present home; true if that is another one.
    fn move_home(&mut self, linked: &BTreeSet<SchedulerId>) -> bool {
        let after = self.home.map_or(SchedulerId(0), SchedulerId::next);
        let next = linked.range(after..).next().or_else(|| linked.first()).copied();
        if next.is_none() || next == self.home {
            return false;
        }
        tracing::info!(from = ?self.home.map(|id| id.0), to = ?next.map(|id| id.0), "keepalives go to another scheduler");
        self.home = next;
        self.owed_since = None;
        true
    }

    /// An answer; when the keepalive was sent, if it is known.
    pub(crate) fn acked(&mut self, from: SchedulerId, seq: u64) -> Option<Instant> {
        let sent_at = self.sent.get(&seq).copied()?;
        self.sent = self.sent.split_off(&(seq + 1));
        self.renewed_at = self.renewed_at.max(Some(sent_at));
        if self.home == Some(from) {
            self.owed_since = None;
        }
        Some(sent_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(2);
    const INTERVAL: Duration = Duration::from_millis(500);

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    fn linked(ids: &[u64]) -> BTreeSet<SchedulerId> {
        ids.iter().copied().map(SchedulerId).collect()
    }

    fn keepalives() -> Keepalives {
        Keepalives::new(TTL, INTERVAL, at(0))
    }

    #[test]
    fn home_gets_one_per_interval() {
        let mut keepalives = keepalives();
        let all = linked(&[1, 2]);
        assert_eq!(keepalives.due(at(0), &all), Some((SchedulerId(1), 1)));
        assert_eq!(keepalives.acked(SchedulerId(1), 1), Some(at(0)));
        assert_eq!(keepalives.due(at(499), &all), None);
        assert_eq!(keepalives.due(at(500), &all), Some((SchedulerId(1), 2)));
        assert_eq!(keepalives.acked(SchedulerId(1), 7), None);
    }

    #[test]
    fn first_link_gets_the_first_one_at_once() {
        let mut keepalives = keepalives();
        assert_eq!(keepalives.due(at(0), &linked(&[])), None);
        keepalives.link_opened(at(10), SchedulerId(3));
        assert_eq!(keepalives.next_deadline(), at(10));
        assert_eq!(keepalives.due(at(10), &linked(&[3])), Some((SchedulerId(3), 1)));
        keepalives.link_opened(at(20), SchedulerId(1));
        assert_eq!(keepalives.next_deadline(), at(510), "one is enough");
    }

    #[test]
    fn lost_home_is_replaced_at_once() {
        let mut keepalives = keepalives();
        keepalives.due(at(0), &linked(&[1, 2]));
        assert_eq!(keepalives.due(at(10), &linked(&[2])), Some((SchedulerId(2), 2)));
    }

    #[test]
    fn silent_home_is_replaced_after_half_a_time_to_live() {
        let mut keepalives = keepalives();
        let all = linked(&[1, 2, 3]);
        keepalives.due(at(0), &all);
        assert_eq!(keepalives.due(at(500), &all), Some((SchedulerId(1), 2)));
        assert_eq!(keepalives.next_deadline(), at(1000));
        assert_eq!(keepalives.due(at(1000), &all), Some((SchedulerId(2), 3)));
        assert_eq!(
            keepalives.acked(SchedulerId(1), 2),
            Some(at(500)),
            "a late answer is worth what it is"
        );
        assert_eq!(keepalives.home(), Some(SchedulerId(2)));
    }

    #[test]
    fn only_scheduler_is_asked_at_the_usual_pace() {
        let mut keepalives = keepalives();
        let one = linked(&[1]);
        keepalives.due(at(0), &one);
        keepalives.due(at(500), &one);
        assert_eq!(keepalives.due(at(1000), &one), Some((SchedulerId(1), 3)));
        assert_eq!(keepalives.due(at(1001), &one), None);
        assert_eq!(keepalives.due(at(1500), &linked(&[])), None);
    }
}
