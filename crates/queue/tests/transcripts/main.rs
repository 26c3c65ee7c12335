//! Behaviour of the memory queue as transcripts: what it is told, and what it then wants done.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on fails the test"
)]

mod ages;
mod calls;
mod durable;
mod faults;
mod ledger;
mod life;
mod policies;
mod reasons;
mod rig;
mod scaling;
mod throttle;
