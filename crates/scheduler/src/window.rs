//! The window of one Submit stream: which submissions were handed to shards and are not answered yet.
//!
//! Invariant: an answer to something that does not wait for one opens nothing. What the stream itself refused was never
//! handed on, and a rejection after an acceptance is the second answer.

use std::collections::HashMap;
use std::num::NonZeroU32;

use whiskraft_types::ActivationId;

/// The window.
#[derive(Debug)]
pub(crate) struct Window {
    /// Each with whether its caller does not wait for the acceptance.
    unanswered: HashMap<ActivationId, bool>,
    len_max: usize,
}

impl Window {
    pub(crate) fn new(len_max: NonZeroU32) -> Self {
        Self {
            unanswered: HashMap::new(),
            len_max: usize::try_from(len_max.get()).unwrap_or(usize::MAX),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unanswered.len() >= self.len_max
    }

    /// A submission goes to its shard; whether its caller waits for the end only, and not for the acceptance.
    pub(crate) fn on_submitted(&mut self, id: ActivationId, is_quiet: bool) {
        self.unanswered.insert(id, is_quiet);
    }

    /// Whether nobody waits for the acceptance of this one.
    pub(crate) fn is_quiet(&self, id: ActivationId) -> bool {
        self.unanswered.get(&id).copied().unwrap_or_default()
    }

    /// How many acceptances may be held back: so many that the peer can go on meanwhile.
    pub(crate) const fn quiet_max(&self) -> usize {
        self.len_max / 2
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
        window.on_submitted(id(1), false);
        window.on_submitted(id(2), false);
        assert!(window.is_full());
        window.on_answered(id(1)); // Accepted,
        window.on_submitted(id(3), false);
        window.on_answered(id(1)); // and rejected when its leader gave up.
        assert!(window.is_full());
        window.on_answered(id(2));
        assert!(!window.is_full());
    }
    #[test]
    fn acceptances_are_held_back_for_those_who_do_not_wait_and_never_more_than_half_a_window() {
        let id = |number: u8| ActivationId::from_bytes([number; 16]);
        let mut window = Window::new(NonZeroU32::new(5).unwrap());
        window.on_submitted(id(1), true);
        window.on_submitted(id(2), false);
        assert_eq!([1, 2, 3].map(|n| window.is_quiet(id(n))), [true, false, false]);
        window.on_answered(id(1));
        assert!(!window.is_quiet(id(1)), "an answer to it is news");
        assert_eq!(window.quiet_max(), 2);
        assert_eq!(Window::new(NonZeroU32::MIN).quiet_max(), 0, "each is waited for");
    }
}
