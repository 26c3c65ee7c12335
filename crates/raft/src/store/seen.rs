//! What this node has seen of the other members' disks, kept for its next start.
//!
//! Not synced: it becomes durable with the next sync of any group, and less of it is only less knowledge.

use std::io;
use std::sync::Arc;

use super::engine::{Engine, Table, Write};
use super::keys::{self, Meta};
use crate::codec;
use crate::types::META_GROUP;
use crate::witness::Seen;

/// The record. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SeenStore {
    engine: Arc<Engine>,
}

impl SeenStore {
    /// The record in an engine.
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// What was kept.
    pub(crate) fn load(&self) -> io::Result<Seen> {
        let bytes = self
            .engine
            .get(Table::Meta, &keys::meta(META_GROUP, Meta::Seen))?;
        Ok(bytes
            .map(|bytes| codec::decode(&bytes))
            .transpose()?
            .unwrap_or_default())
    }

    /// Keeps this in place of what was kept.
    pub(crate) fn save(&self, seen: &Seen) -> io::Result<()> {
        let key = keys::meta(META_GROUP, Meta::Seen).to_vec();
        self.engine
            .write(vec![Write::Put(Table::Meta, key, codec::encode(seen)?)])
    }
}
