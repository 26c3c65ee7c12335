//! What the actor shares with the handles and with the other tasks of a client.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::changes::ChangesHandle;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::throttle::ThrottleBoard;
use crate::{Settings, Stats};

/// Payload limit until a scheduler has announced one.
const PAYLOAD_LEN_MAX: u64 = 1 << 20;

/// How far the client is: enough to connect with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// The first snapshot is in.
    pub(crate) knows_members: bool,
    /// At least one stream has been opened.
    pub(crate) has_stream: bool,
    /// Cluster that was found in place of the wanted one.
    pub(crate) wrong_cluster: Option<String>,
    /// The newest failure.
    pub(crate) cause: String,
}

/// What the actor shares with everybody, beside the channels.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) directory: Arc<Directory>,
    pub(crate) changes: ChangesHandle,
    pub(crate) throttles: ThrottleBoard,
    pub(crate) stats: Mutex<Stats>,
    pub(crate) payload_len_max: AtomicU64,
    /// Cluster asked for, or the first one found.
    pub(crate) cluster_id: RwLock<Option<String>>,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        directory: Arc<Directory>,
        changes: ChangesHandle,
        cluster_id: Option<String>,
    ) -> Self {
        let clock = Clock::start();
        Self {
            settings,
            clock,
            directory,
            changes,
            throttles: ThrottleBoard::new(clock),
            stats: Mutex::default(),
            payload_len_max: AtomicU64::new(PAYLOAD_LEN_MAX),
            cluster_id: RwLock::new(cluster_id),
        }
    }

    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.cluster_id
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
