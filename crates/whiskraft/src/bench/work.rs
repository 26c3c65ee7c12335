//! What a load is made of: things that are begun by number, and end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::run_clock::RunClock;

/// What has begun and not ended.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    count: AtomicU32,
    idle: Notify,
}

/// Something that is done again and again; [`open`](super::open) and [`closed`](super::closed) say when.
pub(super) trait Work: Send + Sync + 'static {
    /// The clock by which it is due.
    fn clock(&self) -> RunClock;

    /// What of it has begun and not ended.
    fn under_way(&self) -> &UnderWay;

    /// Carries number `n` out, which was due at `due`, and counts it. Whether it ended well.
    fn carry_out(&self, n: u64, due: Duration) -> impl Future<Output = bool> + Send;

    /// Carries number `n` out, which has [begun](UnderWay::begin), and notes its end.
    fn call(&self, n: u64, due: Duration) -> impl Future<Output = bool> + Send {
        async move {
            let is_good = self.carry_out(n, due).await;
            self.under_way().end();
            is_good
        }
    }
}

impl UnderWay {
    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Notes that another one begins.
    pub(super) fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle.notify_one();
        }
    }

    /// Waits until there is none. Only sensible once nothing begins any more.
    pub(super) async fn idle(&self) {
        while self.count() > 0 {
            self.idle.notified().await;
        }
    }
}
