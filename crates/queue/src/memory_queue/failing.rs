//! Creations that fail while no container runs: who is told, what is tried again and when (`Flushing`).
//!
//! A failure of the platform keeps the activations until their retention ends, with the latest reason as their text; a
//! failure of the action ends them at once, and new ones on arrival. Either way another creation is tried after a pause
//! that doubles, but only for somebody: without an activation nothing is tried, and after the grace it is forgotten.
//! Beside a running container a failed creation changes nothing.

use std::time::Duration;

use whiskraft_types::{ActivationStatus, ContainerId, CreationError, CreationErrorClass, Instant};

use super::MemoryQueue;
use crate::Output;
use crate::ledger::EndKind;

/// Pause after the first failed creation.
const CREATION_PAUSE: Duration = Duration::from_millis(100);

/// A failed creation, while the queue has no running container.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: CreationError,
    pub(super) text: String,
    /// Failures in a row.
    count: u32,
    /// No creation before this.
    pub(super) retry_at: Instant,
    /// Last time that an activation came or waited.
    pub(super) active_at: Instant,
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_creation_failed(
        &mut self,
        now: Instant,
        container: ContainerId,
        error: CreationError,
        message: String,
        out: &mut Vec<Output<P, R>>,
    ) {
        self.on_container_left(now, container, Some(now));
        if self.containers.counts().running > 0 {
            return;
        }
        tracing::debug!(queue = %self.key, %container, ?error, message, "creation failed");
        if error.class() == CreationErrorClass::Developer {
            let ids = self.waiting.ids_where(|_| true);
            self.note_failure(now, error, message.clone());
            let why = (
                EndKind::Failed,
                ActivationStatus::DeveloperError,
                message.as_str(),
            );
            self.fail_all(now, ids, why, out);
            // The next activation asks for another try; until then there is none.
            self.decide_at = self.decide_at.filter(|_| !self.waiting.is_empty());
        } else {
            self.note_failure(now, error, message);
        }
    }

    /// The text with which activations fail because the action cannot be started. Notes that somebody still wants it,
    /// so that another creation is tried.
    pub(super) fn developer_failure(&mut self, now: Instant) -> Option<String> {
        let failure = self.failure.as_mut()?;
        failure.active_at = now;
        if failure.error.class() == CreationErrorClass::Whisk {
            return None;
        }
        let (text, retry_at) = (failure.text.clone(), failure.retry_at);
        self.decide_at.get_or_insert(retry_at);
        Some(text)
    }

    pub(super) fn note_failure(&mut self, now: Instant, error: CreationError, text: String) {
        let before = self.failure.take();
        let count = before.as_ref().map_or(0, |failure| failure.count);
        // Doubling beyond sixteen-fold never matters below the largest pause.
        let pause = (CREATION_PAUSE * (1 << count.min(10))).min(self.settings.creation_pause_max);
        let active_at = before.map_or(now, |failure| failure.active_at);
        let active_at = if self.waiting.is_empty() { active_at } else { now };
        let retry_at = now + pause;
        self.failure = Some(Box::new(Failure {
            error,
            text,
            count: count + 1,
            retry_at,
            active_at,
        }));
    }

    /// Forgets a failure that nobody has asked about for a while.
    pub(super) fn forget_failure(&mut self, now: Instant) {
        let grace = self.settings.flush_grace;
        let Some(failure) = &mut self.failure else { return };
        if !self.waiting.is_empty() {
            failure.active_at = now;
        } else if now.saturating_since(failure.active_at) >= grace {
            self.failure = None;
        }
    }
}
