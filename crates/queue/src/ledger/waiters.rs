//! Who waits for one activation.

use crate::ControllerId;

/// Controllers that wait for one activation. More than one is a retry through another SDK instance; beyond this
/// many the longest waiting is dropped and has to submit again.
const WAITERS_MAX: usize = 8;

/// Controllers that wait for one activation, without memory of its own for the first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiters {
    first: Option<ControllerId>,
    others: Vec<ControllerId>,
}

impl Waiters {
    /// One controller.
    pub(crate) const fn one(controller: ControllerId) -> Self {
        Self {
            first: Some(controller),
            others: Vec::new(),
        }
    }

    /// Adds one; a known one changes nothing.
    pub(crate) fn add(&mut self, controller: ControllerId) {
        if self.iter().any(|known| known == controller) {
            return;
        }
        if self.first.is_none() {
            self.first = Some(controller);
            return;
        }
        if self.others.len() + 1 == WAITERS_MAX {
            self.first = Some(self.others.remove(0));
        }
        self.others.push(controller);
    }

    /// Removes one; `false` if it did not wait.
    pub(crate) fn remove(&mut self, controller: ControllerId) -> bool {
        if self.first == Some(controller) {
            self.first = (!self.others.is_empty()).then(|| self.others.remove(0));
            return true;
        }
        let before = self.others.len();
        self.others.retain(|known| *known != controller);
        self.others.len() < before
    }

    /// Whether nobody waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// All of them, the longest waiting first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ControllerId> {
        self.first.into_iter().chain(self.others.iter().copied())
    }
}
