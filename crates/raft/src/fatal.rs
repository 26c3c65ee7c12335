//! The first reason for which a node stops, and a way to wait for it.

use tokio::sync::watch;

use crate::error::StopReason;

/// Set once, by whoever finds the node unable to go on; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fatal {
    reason: watch::Sender<Option<StopReason>>,
}

impl Fatal {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        Self {
            reason: watch::Sender::new(None),
        }
    }

    /// Stops the node; only the first reason is kept.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.reason.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            if reason != StopReason::Requested {
                tracing::error!(error = %reason, "node stops");
            }
            *known = Some(reason);
            true
        });
    }

    /// A write or sync failed.
    pub(crate) fn storage(&self, what: &str) {
        let hint = if what.contains("No space left") {
            "; free space on the disk and start again"
        } else {
            ""
        };
        self.stop(StopReason::Storage(format!("{what}{hint}")));
    }

    /// The reason, if there is one.
    pub(crate) fn reason(&self) -> Option<StopReason> {
        self.reason.borrow().clone()
    }

    /// Waits for the reason.
    pub(crate) async fn wait(&self) -> StopReason {
        let mut reasons = self.reason.subscribe();
        match reasons.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Requested),
            // The sender is part of `self`, so it cannot be gone.
            Err(_) => StopReason::Requested,
        }
    }
}
