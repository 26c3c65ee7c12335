//! Hand-over of queues from one live scheduler to another: nothing lost, nothing twice, order kept, and no wait for
//! submissions to come again.
//!
//! The giver's shard freezes a queue and exports what is in it; the sender streams that to the next leader, which keeps it and
//! says so; only then the log is asked to change the leader. The next leader begins with what it was sent, the giver answers
//! whatever it held with where to go. If anything fails before the log is asked, the queue goes on where it is.
//!
//! Invariant: a frozen queue goes on only when the change of leader certainly was not, and can no more be, applied with what
//! was exported of it.

mod order;
mod sender;
mod settle;
mod wire;

pub(crate) use order::{Bare, Settled, Targets};
pub(crate) use sender::HandOver;
pub(crate) use wire::{MovedActivation, from_wire, len_of};
