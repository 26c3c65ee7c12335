//! The Whiskraft SDK: what a controller links to run actions on a cluster.
//!
//! A [`Client`] keeps one stream to every scheduler and knows from a watch which of them leads which queue, so an
//! activation goes straight to the one that runs it. Lost schedulers, changes of leader and overload are handled
//! inside: an activation is sent again under the same id, and the cluster takes care that it does not start twice.
//! What a caller sees is a record, or a typed error that says what to do.
//!
//! ```no_run
//! use whiskraft_client::{ActionSpec, Client, Expect, InvokeOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(["127.0.0.1:7401"]).await?;
//!
//! // Store an action …
//! let hello = "guest/hello".parse()?;
//! let code = "def main(args): return {'text': 'Hello ' + args['name']}";
//! client.put_action(&ActionSpec::new("guest/hello".parse()?, "python:3", code), Expect::Anything).await?;
//!
//! // … run it and wait for the record …
//! let namespace = "guest".parse()?;
//! let arguments = serde_json::json!({"name": "Ada"});
//! let record = client.invoke(&namespace, &hello, arguments, InvokeOptions::default()).await?;
//! println!("{}", String::from_utf8_lossy(&record.result));
//!
//! // … or only start it: it is on the disks of a majority of the schedulers then, and runs whatever becomes of us.
//! let mut invocation = client.submit(&namespace, &hello, r#"{"name": "Eve"}"#, InvokeOptions::default()).await?;
//! println!("accepted as {}", invocation.id());
//! println!("{:?}", invocation.result().await?.status);
//! # Ok(())
//! # }
//! ```
//!
//! Start reading at `core::Router`, which decides everything about activations without doing any of it, then
//! `actor`, which does it.
//!
//! - **Invariant:** an activation is settled at most once, and never sent after that.
//! - **Invariant:** whatever is buffered has a bound: unfinished activations, their bytes, frames, questions.
//! - **Invariant:** nothing here waits for a fuller batch.

mod action;
mod actor;
mod backoff;
mod builder;
mod caches;
mod calls;
mod cancel;
mod changes;
mod client;
mod clock;
mod core;
mod directory;
mod documents;
mod durability;
mod ensure;
mod error;
mod find;
mod forgotten;
mod handle;
mod health;
mod idempotency;
mod invocation;
mod letters;
mod namespaces;
mod operator;
mod options;
mod outbox;
mod payload;
mod schedule;
mod schedules;
mod settings;
mod shared;
mod stats;
mod status;
mod stream;
mod throttle;
mod wait;
pub mod watch;
mod wire;

pub use whiskraft_types::{
    ActionLimits, ActionName, ActivationId, ActivationStatus, ByteSize, MemberOrder, MembershipError,
    NamespaceLimits, NamespaceName, QueueKey, Rejection, Revision, SchedulerId, ThrottleScope, WaitReason,
};

pub use self::action::{ActionPage, ActionSpec, ActionSummary, Expect, StoredAction};
pub use self::builder::ClientBuilder;
pub use self::cancel::CancelOutcome;
pub use self::client::Client;
pub use self::durability::{Durability, OptionsError};
pub use self::error::{ActionError, CallError, ConnectError, InvokeError, ResultError, ScheduleError};
pub use self::find::{FoundActivation, Progress};
pub use self::health::{Health, InvokerHealth};
pub use self::idempotency::{IDEMPOTENCY_KEY_LEN_MAX, idempotent_id};
pub use self::invocation::Invocation;
pub use self::letters::{DeadLetter, DeadLetterPage, PageCursor, Redriven};
pub use self::operator::{
    BackupPieces, Explained, Explanation, MemberChangeError, MovedQueue, Operator, QueueFilter,
    QueuesSnapshot, QueuesWatch,
};
pub use self::options::{DEADLINE_DEFAULT, InvokeOptions};
pub use self::payload::{Payload, PayloadError};
pub use self::schedule::{
    MissedPolicy, SchedulePage, ScheduleProgress, ScheduleSpec, ScheduleSummary, StoredSchedule,
};
pub use self::settings::{GivingUp, Settings};
pub use self::stats::Stats;
pub use self::status::{LaneStatus, NodeStatus, QueueStatus, RaftStatus, Status};
pub use self::throttle::{Throttle, ThrottleChange, Throttles};

/// The record of a finished activation; [`result`](whiskraft_types::ActivationRecord::result) is JSON text.
pub type ActivationRecord = whiskraft_types::ActivationRecord<bytes::Bytes>;
