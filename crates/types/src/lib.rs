//! The words every other crate speaks: ids, names, epochs, limits, sizes and error classes.
//!
//! Nothing here does IO, reads a clock or draws a random number; values come in from the shells.
//! A newtype per concept keeps two bare integers out of every signature.

mod activation;
mod creation;
mod id;
mod lease;
mod limits;
mod membership;
mod name;
mod rare;
mod rejection;
mod size;
mod small_map;
mod time;
mod wait;

pub use activation::{ActivationRecord, ActivationStatus};
pub use creation::{CreationError, CreationErrorClass};
pub use id::{
    ActivationId, ContainerId, Epoch, InvokerId, LogRevision, ParseIdError, Revision, SchedulerId, SessionId,
};
pub use lease::Lease;
pub use limits::{ActionLimits, NamespaceLimits};
pub use membership::{MemberOrder, MembershipError};
pub use name::{ActionName, NameError, NamespaceName, QueueKey};
pub use rare::{Blank, Rare};
pub use rejection::{NotLeader, Reached, Rejection, ThrottleScope};
pub use size::{ByteSize, ParseSizeError};
pub use small_map::{SmallMap, SmallSet};
pub use time::Instant;
pub use wait::WaitReason;
