//! What the cluster agrees on: the replicated tables of Raft group 0 and the deterministic [`State::apply`].
//!
//! Commands go in, a [`Response`], [`Event`]s and [`Effect`]s come out. Nothing here does IO, reads a clock, draws a
//! random number or iterates in an order that differs between nodes: every node that applies the same log holds
//! the same bytes.

mod command;
mod event;
mod record;

pub use command::{
    BlobChunk, Command, ContainerChange, ContainerUpdate, DocumentKey, EnsureQueue, InvokerReport, OpenSession,
    PutDocument, SessionOwner, SlotRequest,
};
pub use event::{Applied, Effect, Event, Grant, GrantedContainer, Leadership, Refusal, Response};
pub use record::{
    BlobHash, BlobRecord, ContainerRecord, ContainerState, DocumentRecord, InvokerProfile, InvokerRecord,
    MemberRecord, NamespaceRecord, QueueRecord, SessionRecord,
};

/// Placeholder until the tables are written: see the module list above.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct State {}
