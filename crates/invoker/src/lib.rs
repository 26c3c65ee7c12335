//! The invoker role: a host whose containers pull activations from the schedulers that lead their queues.
//!
//! Start at [`Invoker`], then the actor: it feeds crate `whiskraft-pool`, which decides, and carries out what that
//! wants. One task per link to a scheduler moves frames, one owner task per container drives the [`backend`].
//! **Invariant:** no decision about containers, memory, asks or results is taken in this crate.
//! **Invariant:** the actor never waits for a link or a container.
//!
//! Hot path, one file each: `outgoing`, `frames`, `run`.

pub mod backend;

mod actor;
mod backoff;
mod clock;
mod code;
mod config;
mod event;
mod frames;
mod http;
mod invoker;
mod keepalives;
mod link;
mod metrics;
mod outgoing;
mod run;
mod session;
mod steering;
mod wire;
mod words;
mod worker;

pub use config::{InvokerConfig, LinkConfig, PoolConfig};
pub use invoker::{Invoker, StartError, StopReason};
pub use session::OpenError;
