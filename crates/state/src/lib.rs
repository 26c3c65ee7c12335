//! What the cluster agrees on: the replicated tables of Raft group 0 and the deterministic [`State::apply`].
//!
//! Commands go in, a [`Response`], [`Event`]s and [`Effect`]s come out. Nothing here does IO, reads a clock, draws a
//! random number or iterates in an order that differs between nodes: every node that applies the same log holds
//! the same bytes.

mod audit;
mod blobs;
mod bounds;
mod command;
mod containers;
mod counts;
mod documents;
mod election;
mod event;
mod hash;
mod home;
mod index;
mod invokers;
pub mod journal;
mod members;
mod names;
mod namespaces;
mod octets;
mod queues;
mod record;
mod restored;
mod rows;
mod sessions;
mod slots;
mod state;
mod table_kind;
mod tables;
mod turn;
mod view;
#[cfg(test)]
mod world;

pub use audit::{Audit, VIOLATIONS_MAX, Violation, ViolationKind};
pub use bounds::{BLOB_LEN_MAX, DOCUMENT_LEN_MAX, SLOTS_PER_REQUEST_MAX, TTL_MAX, TTL_MIN};
pub use command::{
    BlobChunk, Command, ContainerChange, ContainerUpdate, DocumentKey, EnsureQueue, InvokerReport,
    OpenSession, PutDocument, SessionOwner, SlotRequest,
};
pub use counts::Counts;
pub use event::{Applied, Effect, Event, Grant, GrantedContainer, Leadership, Refusal, Response};
pub use record::{
    BlobHash, BlobRecord, ContainerRecord, ContainerState, DocumentRecord, InvokerProfile, InvokerRecord,
    MemberRecord, NamespaceRecord, QueueRecord, SessionRecord,
};
pub use state::State;
pub use table_kind::TableKind;
