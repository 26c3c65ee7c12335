//! The window of one Submit stream: which submissions were handed to shards and are not answered yet.
//!
//! Invariant: an answer to something that does not wait for one opens nothing. What the stream itself refused was never
//! handed on, and a rejection after an acceptance is the second answer.

use std::collections::HashSet;
use std::num::NonZeroU32;

use whiskraft_types::ActivationId;

/// The window.
#[derive(Debug)]
pub(crate) struct Window {
    unanswered: HashSet<ActivationId>,
    len_max: usize,
}

impl Window {
    pub(crate) fn new(len_max: NonZeroU32) -> Self {
        Self {
            unanswered: HashSet::new(),
            len_max: usize::try_from(len_max.get()).unwrap_or(usize::MAX),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unanswered.len() >= self.len_max
    }

    /// A submission goes to its shard.
    pub(crate) fn on_submitted(&mut self, id: ActivationId) {
        self.unanswered.insert(id);
    }

    /// A shard has accepted or rejected it.
    pub(crate) fn on_answered(&mut self, id: ActivationId) {
        self.unanswered.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_answers_to_what_shards_were_given_open_the_window() {
        let id = |number: u8| ActivationId::from_bytes([number; 16]);
        let mut window = Window::new(NonZeroU32::new(2).unwrap());
        window.on_submitted(id(1));
        window.on_submitted(id(2));
        assert!(window.is_full());
        window.on_answered(id(1)); // Accepted,
        window.on_submitted(id(3));
        window.on_answered(id(1)); // and rejected when its leader gave up.
        assert!(window.is_full());
        window.on_answered(id(2));
        assert!(!window.is_full());
    }
}
