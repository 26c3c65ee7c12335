//! The replicated log of group 0, and the journal beside it: openraft on RocksDB, the peer network, sessions and the
//! watch ring.
//!
//! Start at [`Node`]: it proposes commands, reads the tables from memory, follows their changes and keeps sessions
//! alive. The shells use nothing else of this crate.
//!
//! Invariant: no type of openraft or RocksDB is part of the public API.
//! Invariant: nothing is acknowledged to anybody before it is synced to the disk it was promised on.

mod backup;
mod bootstrap;
mod clock;
mod codec;
mod config;
mod core;
mod deaths;
mod disk;
mod error;
mod export;
mod fatal;
mod held;
mod history;
mod identity;
mod journal;
mod lanes;
mod membership;
mod network;
mod node;
mod peers;
mod propose;
mod runtime;
mod server;
mod sessions;
mod start;
mod status;
mod store;
mod types;
mod watch;
mod watchman;
mod wire;
mod witness;

pub use backup::{Backup, BackupError, BackupStream, Restore, RestoreError, Restored, restore, verify};
pub use config::{NodeConfig, Settings, SettingsError};
pub use deaths::{EndAnswer, Obituary, report as report_end};
pub use error::{KeepaliveError, ProposeError, StartError, StopReason, Stopped, StoreError, Unavailable};
pub use export::Exported;
pub use history::{Content, History, HistoryError, Replayed, Step};
pub use journal::{JOURNAL_BATCH_BYTES_MAX, Journal, Journaled, LaneId, Lookup};
pub use membership::NewMember;
pub use node::Node;
pub use status::{LaneStatus, PeerStatus, RaftStatus, Role};
pub use watch::{Batch, EventStream, StreamEnd, WatchStart};
