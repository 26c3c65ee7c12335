//! The scheduler's right to act for its queues, as everybody in this process sees it.
//!
//! The session task moves the end of the lease with every acknowledged keepalive; whoever accepts or delivers asks
//! [`Fence::allows`] with the moment of its turn. A check against the clock, not a flag: when the process was paused
//! the first turn after the pause already sees that the lease is over. The flag wakes up those who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use whiskraft_types::{Instant, SessionId};

/// Shared view of the lease; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// End of the lease in microseconds since the clock's origin; zero is fenced.
    until: AtomicU64,
    /// The session it is about, and whether it is fenced; changes wake the shards.
    view: watch::Sender<FenceView>,
}

/// What the shards are told when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FenceView {
    /// The session that this process holds; `None` before the first and between two.
    pub(crate) session: Option<SessionId>,
    /// The newest session of this process that has ended; older ones have as well.
    pub(crate) ended: Option<SessionId>,
    /// Whether the lease has run out.
    pub(crate) fenced: bool,
}

impl Fence {
    /// A fence that nobody has opened yet.
    pub(crate) fn closed() -> Self {
        let view = watch::Sender::new(FenceView {
            session: None,
            ended: None,
            fenced: true,
        });
        Self {
            inner: Arc::new(Inner {
                until: AtomicU64::new(0),
                view,
            }),
        }
    }

    /// Whether a turn that began at `now` may accept and deliver.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        now.since_origin() < self.until()
    }

    /// Since the origin: when the lease ends.
    pub(crate) fn until(&self) -> Duration {
        Duration::from_micros(self.inner.until.load(Ordering::Acquire))
    }

    /// Wakes up whenever session or fencing changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<FenceView> {
        self.inner.view.subscribe()
    }

    /// Session and flag as they are now.
    pub(crate) fn view(&self) -> FenceView {
        *self.inner.view.borrow()
    }

    /// The session that this process holds.
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.inner.view.borrow().session
    }

    /// A session was opened; it may act after its first acknowledged keepalive.
    pub(crate) fn open(&self, session: SessionId) {
        self.inner.until.store(0, Ordering::Release);
        self.inner
            .view
            .send_modify(|view| (view.session, view.fenced) = (Some(session), true));
    }

    /// The lease holds until this moment.
    pub(crate) fn extend(&self, until: Instant) {
        let until = u64::try_from(until.since_origin().as_micros()).unwrap_or(u64::MAX);
        self.inner.until.fetch_max(until, Ordering::AcqRel);
        self.set_fenced(false);
    }

    /// Nobody may act from now on, the session may still be there.
    pub(crate) fn close(&self) {
        self.inner.until.store(0, Ordering::Release);
        self.set_fenced(true);
    }

    /// The session is gone.
    pub(crate) fn end(&self) {
        self.inner.until.store(0, Ordering::Release);
        self.inner.view.send_modify(|view| {
            let ended = view.session.take().or(view.ended);
            *view = FenceView {
                session: None,
                ended,
                fenced: true,
            };
        });
    }

    fn set_fenced(&self, fenced: bool) {
        self.inner
            .view
            .send_if_modified(|view| std::mem::replace(&mut view.fenced, fenced) != fenced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn a_turn_past_the_lease_may_not_act_even_if_nobody_closed_the_fence() {
        let fence = Fence::closed();
        assert!(!fence.allows(at(0)));
        fence.open(SessionId(7));
        fence.extend(at(1500));
        assert!(fence.allows(at(1499)) && !fence.allows(at(1500)));
    }

    #[test]
    fn an_ended_session_takes_its_lease_with_it() {
        let fence = Fence::closed();
        fence.open(SessionId(7));
        fence.extend(at(1500));
        fence.end();
        assert!(!fence.allows(at(1)) && fence.session().is_none());
    }

    #[test]
    fn an_old_acknowledgement_does_not_shorten_the_lease() {
        let fence = Fence::closed();
        fence.open(SessionId(7));
        fence.extend(at(1500));
        fence.extend(at(1000));
        assert!(fence.allows(at(1400)));
    }
}
