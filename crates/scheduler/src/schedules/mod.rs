//! Schedules: durable activations that begin by the clock (docs/design/0010-schedules.md).
//!
//! A schedule is a document, so it is replicated, listed and changed like an action. The scheduler that leads group 0 fires the
//! slots of all schedules. The activation of a slot has an id that is a function of the schedule and the slot, so that a slot
//! that two leaders fire around an election, or one leader twice, is one activation: the journal answers for the second.

mod actor;
mod document;
mod plan;

pub(crate) use actor::ScheduleActor;
pub(crate) use document::{SCHEDULE, stored};
