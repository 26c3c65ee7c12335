//! The journal as queue leaders use it: what a quorum's disks must have before it is so.
//!
//! Shards hand entries over and never wait; [`JournalActor`] looks ids up, appends to the lanes in groups, repeats what
//! must not get lost, and answers the shards. It also takes over the open activations of queues that moved here
//! (`recovery.rs`), and keeps records of activations that were not durable (`archive.rs`).
//!
//! Invariant: an acceptance is appended only under a leadership whose fence is applied on this node, in all lanes.
//! Invariant: one leadership never has acceptances of one id under way in two lanes.

mod actor;
mod append;
mod archive;
mod content;
mod due;
mod handle;
mod lanes;
mod order;
mod prepare;
mod recovery;
mod work;

pub(crate) use actor::JournalActor;
pub(crate) use archive::Archived;
pub(crate) use content::encode_record;
pub(crate) use handle::{JournalHandle, Message};
pub(crate) use order::{Entry, Order};
pub(crate) use prepare::{Answer, read_record};
pub(crate) use recovery::fence;
