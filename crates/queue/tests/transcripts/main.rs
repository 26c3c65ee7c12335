//! Behaviour of the memory queue as transcripts: what it is told, and what it then wants done.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on fails the test"
)]

mod ages;
mod calls;
mod cancel;
mod durable;
mod faults;
mod handoff;
mod ledger;
mod life;
mod policies;
mod reasons;
mod recovery;
mod retries;
mod rig;
mod scaling;
mod throttle;
