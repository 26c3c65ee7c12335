//! The memory account. Every container counts at its full size from admission until nothing is left of it.
//!
//! Invariant: `busy + leaving + reclaimable <= total`, and `waiting + busy <= total`: what is admitted fits once
//! everything that leaves, and every paused container, has gone.

use whiskraft_types::ByteSize;

use crate::Life;

/// What schedulers are told about this invoker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Memory that containers may take together.
    pub total: ByteSize,
    /// Taken or promised: starting, running and leaving containers.
    pub busy: ByteSize,
    /// Paused containers.
    pub reclaimable: ByteSize,
    /// Whether new containers may be placed here.
    pub healthy: bool,
}

#[derive(Debug)]
pub(crate) struct MemoryAccount {
    total: u64,
    waiting: u64,
    busy: u64,
    reclaimable: u64,
    leaving: u64,
}

impl MemoryAccount {
    pub(crate) fn new(total: ByteSize) -> Self {
        Self {
            total: total.as_bytes(),
            waiting: 0,
            busy: 0,
            reclaimable: 0,
            leaving: 0,
        }
    }

    fn class(&mut self, life: Life) -> &mut u64 {
        match life {
            Life::Waiting => &mut self.waiting,
            Life::Paused => &mut self.reclaimable,
            Life::Removing => &mut self.leaving,
            Life::Creating
            | Life::Fresh
            | Life::Initialising
            | Life::Ready
            | Life::Pausing
            | Life::Resuming => &mut self.busy,
        }
    }

    pub(crate) fn enter(&mut self, life: Life, memory: ByteSize) {
        *self.class(life) += memory.as_bytes();
    }

    pub(crate) fn leave(&mut self, life: Life, memory: ByteSize) {
        *self.class(life) -= memory.as_bytes();
    }

    /// Whether a new container may be admitted, given that every paused one can be evicted for it.
    pub(crate) fn admits(&self, memory: ByteSize) -> bool {
        self.waiting
            .saturating_add(self.busy)
            .saturating_add(memory.as_bytes())
            <= self.total
    }

    /// Whether a waiting container can be created now.
    pub(crate) fn fits(&self, memory: ByteSize) -> bool {
        let real = self.busy + self.reclaimable + self.leaving;
        real.saturating_add(memory.as_bytes()) <= self.total
    }

    /// Whether paused containers have to go for those that wait.
    pub(crate) fn must_evict(&self) -> bool {
        self.waiting + self.busy + self.reclaimable > self.total
    }

    /// Bytes that exist now.
    pub(crate) fn real(&self) -> ByteSize {
        ByteSize::bytes(self.busy + self.reclaimable + self.leaving)
    }

    pub(crate) fn report(&self, healthy: bool) -> MemoryUse {
        MemoryUse {
            total: ByteSize::bytes(self.total),
            // Those that wait will take the place of those that leave.
            busy: ByteSize::bytes(self.busy + self.leaving.max(self.waiting)),
            reclaimable: ByteSize::bytes(self.reclaimable),
            healthy,
        }
    }
}
