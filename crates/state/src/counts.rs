//! Containers by state, counted per queue and per namespace. Derived from the containers table, never stored.

use whiskraft_types::ByteSize;

use crate::record::{ContainerRecord, ContainerState};

/// How many containers are in which state; those that have ended count no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Reserved, being created or resumed.
    pub in_progress: u32,
    /// Pulling.
    pub running: u32,
    /// Paused.
    pub warm: u32,
    /// Memory of those in progress and running: what shares are compared by.
    pub memory: ByteSize,
}

impl Counts {
    /// Slots in use: what limits are compared with.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.in_progress.saturating_add(self.running)
    }

    /// All containers that live.
    #[must_use]
    pub const fn total(self) -> u32 {
        self.slots().saturating_add(self.warm)
    }

    /// Whether nothing is counted.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.total() == 0
    }

    pub(crate) fn add(&mut self, container: &ContainerRecord) {
        if let Some(count) = self.of(container.state) {
            *count = count.saturating_add(1);
        }
        if container.state.holds_slot() {
            self.memory = self.memory.saturating_add(container.memory);
        }
    }

    pub(crate) fn subtract(&mut self, container: &ContainerRecord) {
        if let Some(count) = self.of(container.state) {
            *count = count.saturating_sub(1);
        }
        if container.state.holds_slot() {
            self.memory = self.memory.saturating_sub(container.memory);
        }
    }

    fn of(&mut self, state: ContainerState) -> Option<&mut u32> {
        match state {
            ContainerState::InProgress => Some(&mut self.in_progress),
            ContainerState::Running => Some(&mut self.running),
            ContainerState::Warm => Some(&mut self.warm),
            ContainerState::Ended => None,
        }
    }
}
