//! The lanes wait while unflushed writes pile up in the engine, so that it never makes all writers wait.
//!
//! The engine stops every write, group 0's too, as soon as one table has too much that is not flushed, and it blocks the
//! thread. Long before that the lanes, which write almost everything, stop by themselves, and block no thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::engine::Engine;
use crate::clock;

/// Full write buffers of one table that wait for their flush, at which the lanes wait: one that is being flushed, and
/// another.
const BACKLOG_MAX: u64 = 2;
/// Bytes that a lane writes between two questions, each of which takes a lock of the engine.
const ASK_BYTES: u64 = 1 << 20;
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait before a write: if the flush does not come to an end at all, the engine shall say so.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Where a lane asks before it writes; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pressure<S = Arc<Engine>> {
    source: S,
    written: Arc<AtomicU64>,
    is_high: Arc<AtomicBool>,
}

/// What knows how many write buffers wait for their flush.
pub(crate) trait Backlog {
    /// Full write buffers of the table that has most.
    fn backlog(&self) -> u64;
}

impl Backlog for Arc<Engine> {
    fn backlog(&self) -> u64 {
        Engine::backlog(self)
    }
}

impl<S: Backlog> Pressure<S> {
    /// That of an engine.
    pub(crate) fn new(source: S) -> Self {
        Self {
            source,
            written: Arc::default(),
            is_high: Arc::default(),
        }
    }

    /// Waits until there is room for so many bytes, but not for ever.
    pub(crate) async fn wait(&self, bytes: u64) {
        if !self.is_time(bytes) {
            return;
        }
        let deadline = clock::now() + WAIT_MAX;
        while self.is_high() && clock::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The same, on a thread that may block.
    pub(crate) fn wait_blocking(&self, bytes: u64) {
        if !self.is_time(bytes) {
            return;
        }
        let deadline = clock::now() + WAIT_MAX;
        while self.is_high() && clock::now() < deadline {
            clock::pause(PAUSE);
        }
    }

    /// Whether to ask before so many bytes are written: once in a while, and always after the pressure was high.
    fn is_time(&self, bytes: u64) -> bool {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        let is_next = before / ASK_BYTES != before.saturating_add(bytes) / ASK_BYTES;
        is_next || self.is_high.load(Ordering::Relaxed)
    }

    fn is_high(&self) -> bool {
        let is_high = self.source.backlog() >= BACKLOG_MAX;
        self.is_high.store(is_high, Ordering::Relaxed);
        is_high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says one number after the other, the last one for ever.
    #[derive(Debug)]
    struct Script {
        backlogs: &'static [u64],
        asked: AtomicU64,
    }

    impl Backlog for &Script {
        fn backlog(&self) -> u64 {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            let last = self.backlogs.len() - 1;
            self.backlogs[usize::try_from(asked).unwrap().min(last)]
        }
    }

    fn script(backlogs: &'static [u64]) -> Script {
        Script {
            backlogs,
            asked: AtomicU64::new(0),
        }
    }

    fn asked(script: &Script) -> u64 {
        script.asked.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_lane_waits_until_a_flush_has_ended() {
        let script = script(&[1, 2, 3, 2, 1]);
        let pressure = Pressure::new(&script);
        pressure.wait(ASK_BYTES).await;
        assert_eq!(asked(&script), 1);
        pressure.wait(ASK_BYTES).await;
        assert_eq!(asked(&script), 5, "it went on before");
        pressure.wait(1).await;
        assert_eq!(asked(&script), 5, "all is well");
    }

    #[tokio::test]
    async fn short_writes_do_not_ask_each_time() {
        let script = script(&[0]);
        let pressure = Pressure::new(&script);
        for _ in 0..2048 {
            pressure.wait(1024).await;
        }
        assert_eq!(asked(&script), 2);
    }

    #[tokio::test]
    async fn a_flush_that_never_ends_does_not_hold_a_lane_for_ever() {
        let script = script(&[5]);
        let pressure = Pressure::new(&script);
        let start = clock::now();
        pressure.wait(ASK_BYTES).await;
        assert!(clock::now().duration_since(start) >= WAIT_MAX);
        let before = asked(&script);
        pressure.wait(1).await;
        assert!(asked(&script) > before, "asked at once");
    }
}
