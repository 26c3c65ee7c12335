//! The scheduler role: leads queues, holds their activations in memory, decides when containers are added, and hands
//! activations to containers that pull. Start at [`Scheduler::start`].
//!
//! An activation's way is `submit.rs` → `shard/hot.rs` → the queue of crate `queue` → `shard/outputs.rs` → `pull.rs` and
//! back; nothing else is on it. What the log has to decide goes through `creation/`, `updates.rs` and `proposals.rs`; what
//! it has decided comes in through `follower.rs`.
//!
//! Invariant: nothing is accepted or delivered in a turn that began past the lease (`fence.rs`).
//! Invariant: no shard ever waits for a stream, a disk or the log.

mod annotations;
mod balance;
mod clock;
mod cluster;
mod config;
mod context;
mod control;
mod creation;
mod deaf;
mod delivered;
mod drain;
mod ensure;
mod failpoint;
mod fence;
mod follower;
mod handoff;
mod http;
mod intern;
mod internal;
mod journal;
mod knots;
mod letters;
mod message;
mod metrics;
mod neighbours;
mod orphans;
mod profiles;
mod proposals;
mod pull;
mod rate;
mod reports;
mod scheduler;
mod schedules;
mod services;
mod session;
mod shard;
mod submit;
mod together;
mod updates;
mod window;
mod wire;

pub use config::{
    BalanceConfig, ConfigError, CreationConfig, DocumentsConfig, HandOffConfig, JournalConfig, QueueConfig,
    SchedulerConfig, SessionConfig, SubmitConfig,
};
pub use scheduler::{Scheduler, StartError};
