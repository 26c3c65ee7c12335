//! The router's side of the stream to one scheduler: its window and what waits for it.

use std::collections::{BTreeSet, VecDeque};

use whiskraft_types::ActivationId;

/// State of the stream to one scheduler.
#[derive(Debug, Default)]
pub(super) struct Link {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    generation: u64,
    window: usize,
    payload_len_max: u64,
    /// Sent on this stream and neither accepted, rejected nor completed. Kept even for activations that have ended
    /// otherwise: the scheduler still counts them.
    unanswered: BTreeSet<ActivationId>,
    /// Waits for room in the window, in order. May hold ids that went elsewhere; whoever takes one checks.
    backlog: VecDeque<ActivationId>,
}

impl Link {
    pub(super) fn on_opened(&mut self, generation: u64, window: u32, payload_len_max: u64) {
        self.open = Some(Open {
            generation,
            // A window of zero would stop the stream for good; one at a time is the least that works.
            window: usize::try_from(window).unwrap_or(usize::MAX).max(1),
            payload_len_max,
            unanswered: BTreeSet::new(),
            backlog: VecDeque::new(),
        });
    }

    pub(super) fn on_lost(&mut self) {
        self.open = None;
    }

    /// The generation, while it is open.
    pub(super) fn generation(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.generation)
    }

    pub(super) fn payload_len_max(&self) -> u64 {
        self.open.as_ref().map_or(u64::MAX, |open| open.payload_len_max)
    }

    pub(super) fn has_room(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.unanswered.len() < open.window)
    }

    pub(super) fn on_sent(&mut self, id: ActivationId) {
        if let Some(open) = &mut self.open {
            open.unanswered.insert(id);
        }
    }

    pub(super) fn on_answered(&mut self, generation: u64, id: ActivationId) {
        if let Some(open) = self.open.as_mut().filter(|open| open.generation == generation) {
            open.unanswered.remove(&id);
        }
    }

    pub(super) fn push_backlog(&mut self, id: ActivationId) {
        if let Some(open) = &mut self.open {
            open.backlog.push_back(id);
        }
    }

    pub(super) fn pop_backlog(&mut self) -> Option<ActivationId> {
        self.open.as_mut()?.backlog.pop_front()
    }
}
