//! What a queue leader decides: the memory queue with its dispatch ledger, when it wants containers, where they go.
//!
//! Pure: no IO, no clock, no chance but a seeded generator, no task. Start at [`MemoryQueue::step`]. The scheduler
//! drives one [`MemoryQueue`] per queue it leads; the simulator drives the very same code.
//!
//! Invariant: an activation is in exactly one of journaling, held back, waiting, delayed, delivered, started, ending, done.
//! Invariant: nobody is told that a durable activation is accepted, or how it ended, before the journal has that.
//! Invariant: activations and credits never wait at the same time.
//! Invariant: containers and invokers are known by id only; nothing here can reach one.

mod age;
mod average;
mod calls;
mod containers;
mod creation;
mod decision;
mod fair;
mod input;
mod judge;
mod ledger;
mod memory_queue;
mod moved;
mod order;
mod output;
mod placement;
mod random;
mod rate;
mod settings;
mod waiting;

pub use age::{is_expired, is_too_old};
pub use average::AverageRing;
pub use calls::{Call, Calls, comes_free};
pub use creation::{Backoff, CreationJob, CreationSettings, CreationStep};
pub use decision::{BuiltInRule, Decision, DecisionRule, QueueState, Snapshot, action_limit};
pub use fair::{FairShares, Holding, HoldingKind, NamespaceUse, Room, useful_memory};
pub use input::{
    ActionProfile, ControllerId, Input, KnownContainer, NamespaceCounts, Recovered, RegisteredContainer,
    RetryPolicy, RunEnd, Terms, Unacknowledged, Verdict,
};
pub use judge::{
    FailingSettings, Judge, JudgeSettings, Observation, SlowSettings, Standing, Suspicion, SuspicionReason,
    TrialSettings,
};
pub use ledger::ActivationState;
pub use memory_queue::{ActivationEnd, MemoryQueue, QueueView, Wait};
pub use moved::{Moved, MovedPlace};
pub use order::{DequeueOrder, Line, OldestFirst};
pub use output::{CancelAnswer, JournalEntry, Outcome, Output};
pub use placement::{
    BuiltInPlacement, Candidate, Candidates, LeastLoaded, ParsePolicyError, Placement, PlacementPolicy,
    PlacementRequest, PlacementSettings, Shortage, WarmContainer, match_warm, partition,
};
pub use random::Random;
pub use rate::{Taken, TokenBucket, burst, per_minute_max};
pub use settings::QueueSettings;
