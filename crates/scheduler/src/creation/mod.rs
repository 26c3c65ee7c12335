//! Containers from a queue's wish to the first ask: placement, reservation through the log, creation on an invoker,
//! retries elsewhere, and the slot given back when it comes to nothing.

mod actor;
mod ahead;
mod handle;
mod in_progress;
mod job;
mod place;
mod placing;
mod pools;
mod reserve;
mod room;
mod sending;
mod shares;
mod suspects;
mod sweep;
mod turns;
mod waiting;
mod warnings;

pub(crate) use actor::{CreationActor, CreationParts};
pub(crate) use handle::{CreationHandle, Wish};
pub(crate) use in_progress::InProgress;

/// Whether containers of a kind come from an image of the user that must be pulled first.
pub(crate) fn is_blackbox(kind: &str) -> bool {
    kind == "blackbox" || kind.starts_with("blackbox:")
}
