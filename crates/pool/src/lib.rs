//! What an invoker decides: the life of its containers, its memory account, which activations it starts, which
//! results it keeps, whether it is healthy and whether it is fenced.
//!
//! Start at [`Pool::step`]. No IO, clock, async or randomness: the shell (crate `invoker`) brings time and
//! messages as [`Input`]s and carries [`Output`]s out, in order. Three types pass through unread: `A` (what a
//! container is created from), `D` (what is delivered) and `R` (the record of a finished activation).
//!
//! Invariant: the memory of everything that exists (removing containers included) never exceeds the total.
//! Invariant: an activation that is in flight is never started again, and one with an unacknowledged result only in a later run.
//! Invariant: a result is forgotten only when it was acknowledged, or the leader's next run of the activation was taken in.
//! Invariant: a container is asked to pause only when nothing runs in it and the leader holds no ask of it.
//! Invariant: whatever is delivered ends as completed or refused.

mod activation;
mod container;
mod create;
mod health;
mod idle;
mod input;
mod memory;
mod outbox;
mod output;
mod pool;
mod queues;
mod register;
mod remove;
mod results;
mod settings;
mod timers;

pub use container::{Life, WorkerId};
pub use input::{CreateContainer, Deliver, Finished, Input};
pub use memory::MemoryUse;
pub use output::{Change, Completed, Output, RegisteredContainer, Registration, Report};
pub use pool::{ContainerView, Pool};
pub use settings::PoolSettings;
