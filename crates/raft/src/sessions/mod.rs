//! Sessions on the Raft leader: who has been heard of, whose time is up.
//!
//! [`Deadlines`] decides, [`Keeper`] feeds it and carries its decisions into the log. [`Courier`] is the other end: it
//! takes the keepalives of everything that lives on a node to the leader in one call.

mod courier;
mod deadlines;
mod keeper;

pub(crate) use courier::{Courier, CourierHandle};
pub(crate) use deadlines::{Deadlines, Verdict};
pub(crate) use keeper::{Keeper, KeeperHandle, KeeperRefusal};
