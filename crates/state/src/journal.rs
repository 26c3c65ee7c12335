//! The journal: what a quorum's disks remember of durable activations. Replicated by the lanes, Raft groups beside
//! group 0.
//!
//! One row per activation, found by id. A lane decides about its own rows only; the scheduler that leads a queue looks
//! into all lanes before it accepts, and fences all lanes before it takes over. Payloads and records are opaque here.
//!
//! Invariant: an id has at most one terminal record in a lane, the first one.
//! Invariant: what names an older epoch of a queue than a lane has been told of changes nothing there.
//! Invariant: a decision depends on the rows, the command and the lane's own clock, which is the newest time that any
//! batch carried: never on the clock of the node that applies it.
//! Invariant: what a command says of time is how long something lasts, and the lane's clock says from when. Wall times are
//! passed through, for people; the one that counts is bounded by the lane's clock.

mod clock;
#[cfg(test)]
mod clock_test;
mod command;
mod lane;
#[cfg(test)]
mod lane_test;
mod raw;
mod row;
mod rows;

pub use clock::{LaneClock, LaneMillis};
pub use command::{
    Accept, Archive, Cancel, Delay, End, EndKind, JournalBatch, JournalCommand, JournalOutcome,
    KnownActivation, Retry,
};
pub use lane::{FENCE_KEPT, Turn};
pub use row::{Digest, JournalRow, RowState, UnixMillis, WALL_TRUST};
pub use rows::{Fence, JournalRows, RowChange};
