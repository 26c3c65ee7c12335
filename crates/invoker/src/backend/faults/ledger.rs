//! The memory that a host really has, where it says it had more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use whiskraft_types::{ByteSize, CreationError};

use crate::backend::spec::{CreateError, Instance};

/// What is taken, and by which container.
#[derive(Debug)]
pub(super) struct Ledger {
    capacity: Option<ByteSize>,
    used: Arc<Mutex<u64>>,
    kept: Mutex<BTreeMap<Instance, Taken>>,
}

/// Memory of one container; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Taken {
    bytes: u64,
    used: Arc<Mutex<u64>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
    }
}

impl Ledger {
    pub(super) fn new(capacity: Option<ByteSize>) -> Self {
        Self {
            capacity,
            used: Arc::default(),
            kept: Mutex::default(),
        }
    }

    /// Takes memory for a container that is about to be created.
    pub(super) fn take(&self, memory: ByteSize) -> Result<Taken, CreateError> {
        let bytes = memory.as_bytes();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = used.saturating_add(bytes);
        if self.capacity.is_some_and(|capacity| sum > capacity.as_bytes()) {
            return Err(CreateError {
                error: CreationError::ResourceNotEnough,
                message: "the host has less memory than it says".to_owned(),
            });
        }
        *used = sum;
        Ok(Taken {
            bytes,
            used: Arc::clone(&self.used),
        })
    }

    /// The container exists: it has the memory until it is removed.
    pub(super) fn keep(&self, instance: Instance, taken: Taken) {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(instance, taken);
    }

    /// The container is gone; whether it was there.
    pub(super) fn give_back(&self, instance: Instance) -> bool {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&instance)
            .is_some()
    }
}
