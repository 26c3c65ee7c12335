//! One member of the Raft cluster, as the shells see it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft::ServerState;
use tokio::runtime::Handle;
use whiskraft_state::journal::UnixMillis;
use whiskraft_state::{BlobHash, Command, DocumentKey, Response, State};
use whiskraft_types::{LogRevision, MemberOrder, MembershipError, Revision, SchedulerId, SessionId};

use crate::backup;
use crate::bootstrap::Newcomer;
use crate::clock;
use crate::config::Settings;
use crate::core::Core;
use crate::export;
use crate::journal::{Journal, OpenJournal};
use crate::membership::{self, Change};
use crate::propose::Proposer;
use crate::runtime::Runtime;
use crate::sessions::CourierHandle;
use crate::start;
use crate::store::{Bodies, SeenStore, SyncThread};
use crate::types::Proposal;
use crate::{
    BackupStream, EventStream, Exported, KeepaliveError, NewMember, NodeConfig, Obituary, PeerStatus,
    ProposeError, RaftStatus, Role, StartError, StopReason, Stopped, StoreError, Unavailable, WatchStart,
};

/// A running member. Cheap to clone. [`Node::shutdown`] stops it in order; when the last clone goes it stops at once.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// Everything a node owns.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) core: Core,
    pub(crate) cluster_id: String,
    pub(crate) incarnation: [u8; 16],
    pub(crate) proposer: Proposer,
    pub(crate) courier: CourierHandle,
    pub(crate) journal: Journal,
    pub(crate) owned: Mutex<Option<Owned>>,
}

/// What a stop takes apart. Dropped, it ends all tasks, then the sync thread, and closes the store before it returns: a
/// process that exits while the store is closing on another thread crashes on its way out.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) bodies: Bodies,
    pub(crate) seen: SeenStore,
    pub(crate) _journal: OpenJournal,
    pub(crate) lane_runtime: Runtime,
    pub(crate) runtime: Runtime,
    pub(crate) _sync: SyncThread,
}

impl Inner {
    fn settings(&self) -> &Settings {
        &self.core.settings
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.fatal.stop(StopReason::Requested);
        self.core.shared.ring.close();
        drop(self.owned.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Node {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Checks who this directory belongs to, opens it, forms or rejoins the cluster, and serves peers. Returns when the
    /// tables are as new as they were when the process last stopped; says in the log what it waits for.
    ///
    /// # Errors
    /// Says what is wrong and what to do.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        start::start(config).await
    }

    /// This scheduler.
    #[must_use]
    pub fn id(&self) -> SchedulerId {
        SchedulerId(self.inner.core.id())
    }

    /// Identity of the cluster.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.inner.cluster_id
    }

    /// Puts a command into the log, through the leader, and waits until it is applied there.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<(LogRevision, Response), ProposeError> {
        let proposed = self.inner.proposer.propose(Proposal::Command(command)).await;
        proposed.map(|(revision, answer)| (revision, answer.response()))
    }

    /// Puts commands into the log, together as far as it goes, and waits until they are applied on the leader; an outcome
    /// for each. Together they count as so many proposals, of which 4096 may be under way.
    pub async fn propose_many(
        &self,
        commands: Vec<Command>,
    ) -> Vec<Result<(LogRevision, Response), ProposeError>> {
        let proposals = commands.into_iter().map(Proposal::Command).collect();
        let proposed = self.inner.proposer.propose_many(proposals).await;
        let proposed = proposed.into_iter();
        proposed
            .map(|proposed| proposed.map(|(revision, answer)| (revision, answer.response())))
            .collect()
    }

    /// The journal of durable activations.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Waits until this node has applied `revision`.
    ///
    /// # Errors
    /// If the node stops first.
    pub async fn wait_applied(&self, revision: LogRevision) -> Result<(), Stopped> {
        let mut applied = self.inner.core.shared.applied.subscribe();
        tokio::select! {
            biased;
            reached = applied.wait_for(|applied| applied.revision >= revision) => {
                reached.map(|_| ()).map_err(|_| Stopped)
            }
            _ = self.inner.core.fatal.wait() => Err(Stopped),
        }
    }

    /// Waits until this node's tables hold every write that was acknowledged before the call.
    ///
    /// # Errors
    /// If no leader confirms in time.
    pub async fn read_index(&self) -> Result<LogRevision, Unavailable> {
        let deadline = clock::now() + self.inner.settings().propose_timeout;
        let revision = self.inner.proposer.read_index().await?;
        match tokio::time::timeout_at(deadline, self.wait_applied(revision)).await {
            Ok(Ok(())) => Ok(revision),
            Ok(Err(stopped)) => Err(Unavailable(stopped.to_string())),
            Err(_) => Err(Unavailable(format!(
                "revision {revision} has not reached this scheduler in time"
            ))),
        }
    }

    /// Reads the tables of this node; keep it short, applying waits meanwhile.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.inner.core.shared.read(read)
    }

    /// Reads the tables, unless something is being applied to them just now: for what can do without and must not wait.
    pub fn try_read<T>(&self, read: impl FnOnce(&State) -> T) -> Option<T> {
        self.inner.core.shared.try_read(read)
    }

    /// The tables, and every change after them.
    #[must_use]
    pub fn subscribe(&self) -> (State, EventStream) {
        let (state, revision) = self.inner.core.shared.clone_state();
        (
            state,
            EventStream::after(Arc::clone(&self.inner.core.shared.ring), revision),
        )
    }

    /// Every change after a revision, or the tables first if those are not retained any more.
    #[must_use]
    pub fn watch(&self, after: LogRevision) -> WatchStart {
        let ring = &self.inner.core.shared.ring;
        if after > LogRevision(0) && ring.retains(after) {
            return WatchStart::Resume(EventStream::after(Arc::clone(ring), after));
        }
        let (state, stream) = self.subscribe();
        WatchStart::Snapshot(state, stream)
    }

    fn bodies(&self, what: &str) -> Result<Bodies, StoreError> {
        let owned = self.inner.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let bodies = owned.as_ref().map(|owned| owned.bodies.clone());
        bodies.ok_or_else(|| StoreError {
            what: what.to_owned(),
            reason: "the node has stopped".to_owned(),
        })
    }

    /// Body of a document on this node.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn document(&self, key: &DocumentKey) -> Result<Option<(Revision, Bytes)>, StoreError> {
        let read = self.bodies("a document")?.document(key);
        read.map_err(|error| StoreError {
            what: format!("document {}/{}", key.namespace, key.name),
            reason: error.to_string(),
        })
    }

    /// A chunk of a blob on this node.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn blob_chunk(&self, hash: &BlobHash, index: u32) -> Result<Option<Bytes>, StoreError> {
        let read = self.bodies("a blob")?.blob_chunk(hash, index);
        read.map_err(|error| StoreError {
            what: format!("chunk {index} of a blob"),
            reason: error.to_string(),
        })
    }

    /// Writes all that this node holds into a directory that is there, one file for each group: see [`Exported`].
    ///
    /// # Errors
    /// If a snapshot cannot be taken or a file not be written.
    pub async fn export(&self, dir: &Path) -> Result<Vec<Exported>, StoreError> {
        let exported = export::export(&self.inner.core.group, &self.inner.journal, dir).await;
        exported.map_err(|error| StoreError {
            what: format!("everything, to be copied to {},", dir.display()),
            reason: error.to_string(),
        })
    }

    /// Tells the Raft leader that the holder of a session is alive; many at once share one call.
    ///
    /// # Errors
    /// See [`KeepaliveError`].
    pub async fn keepalive(&self, session: SessionId, seq: u64) -> Result<(), KeepaliveError> {
        self.inner.courier.keepalive(session, seq).await
    }

    /// What its supervisor has to tell the others when this process, which opens its sessions with this incarnation, has
    /// ended. The members are those of now.
    #[must_use]
    pub fn obituary(&self, incarnation: [u8; 16]) -> Obituary {
        let own = self.id();
        let others = self.inner.core.metrics(|metrics| {
            let nodes = metrics.membership_config.nodes();
            let nodes = nodes.map(|(id, node)| (SchedulerId(*id), node.addr.clone()));
            nodes.filter(|(id, _)| *id != own).collect()
        });
        Obituary {
            cluster_id: self.inner.cluster_id.clone(),
            scheduler: own,
            incarnation,
            others,
        }
    }

    /// Raft as this node sees it.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let core = &self.inner.core;
        let index = |id: Option<crate::types::LogId>| LogRevision(id.map_or(0, |id| id.index));
        core.metrics(|metrics| RaftStatus {
            id: self.id(),
            role: if core.fatal.reason().is_some() {
                Role::Stopped
            } else {
                role(metrics.state)
            },
            term: metrics.current_term,
            leader: metrics.current_leader.map(SchedulerId),
            last_log: LogRevision(metrics.last_log_index.unwrap_or_default()),
            applied: core.shared.applied.borrow().revision,
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            peers: metrics
                .membership_config
                .nodes()
                .map(|(id, node)| {
                    let matched = metrics
                        .replication
                        .as_ref()
                        .and_then(|replication| *replication.get(id)?);
                    let status = PeerStatus {
                        address: node.addr.clone(),
                        voter: metrics.membership_config.voter_ids().any(|voter| voter == *id),
                        reachable: self.reachable(SchedulerId(*id)),
                        matched: matched.map(|matched| LogRevision(matched.index)),
                    };
                    (SchedulerId(*id), status)
                })
                .collect(),
            lanes: self.inner.journal.status(),
        })
    }

    /// Whether this node leads the Raft group, as far as it knows; cheap.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.id())
    }

    /// Who leads the Raft group, as far as this node knows; cheap.
    #[must_use]
    pub fn leader(&self) -> Option<SchedulerId> {
        self.inner.core.leader().map(SchedulerId)
    }

    /// Whether calls to another scheduler succeed.
    #[must_use]
    pub fn reachable(&self, id: SchedulerId) -> bool {
        id == self.id() || self.inner.core.peers.is_reachable(id.0)
    }

    /// Adds a scheduler (or finds the one with this incarnation) as a learner, and makes it a voter once it has caught
    /// up and is asked for again, unless it shall stay a learner.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_member(&self, member: NewMember) -> Result<SchedulerId, MembershipError> {
        let change = Change::Add(Newcomer {
            id: 0,
            cluster_name: member.cluster_name,
            peer_address: member.peer_address,
            client_address: member.client_address,
            incarnation: member.incarnation,
            learner: member.learner,
        });
        let added = membership::change(&self.inner.core, change).await;
        added.map(SchedulerId)
    }

    /// Carries out an operator's order about the membership, here or through the leader, within some 10 s. Says whom it
    /// was about; after a transfer, who leads now. Harmless to repeat.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn change_members(&self, order: MemberOrder) -> Result<SchedulerId, MembershipError> {
        let changed = membership::change(&self.inner.core, Change::Order(order)).await;
        changed.map(SchedulerId)
    }

    /// Begins a backup of everything that was acknowledged before this call, as of now; `taken` is the wall clock. It is
    /// written as fast as it is read; several at a time each hold a view of the store, which then forgets nothing.
    ///
    /// # Errors
    /// If a leader does not confirm in time how far this scheduler is.
    pub async fn backup(&self, taken: UnixMillis) -> Result<BackupStream, Unavailable> {
        backup::take(self, taken).await
    }

    pub(crate) fn core(&self) -> &Core {
        &self.inner.core
    }

    /// The store, and the runtime that is waited for before it is closed.
    pub(crate) fn parts_for_backup(&self) -> Result<(Bodies, Handle), Unavailable> {
        let owned = self.inner.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = owned
            .as_ref()
            .map(|owned| (owned.bodies.clone(), owned.runtime.handle()));
        parts.ok_or_else(|| Unavailable(crate::Stopped.to_string()))
    }

    /// Waits until the node has stopped and says why.
    pub async fn stopped(&self) -> StopReason {
        self.inner.core.fatal.wait().await
    }

    /// Hands leadership over, stops serving, and closes the store.
    pub async fn shutdown(self) {
        let owned = self
            .inner
            .owned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(owned) = owned {
            start::stop(&self.inner.core, &self.inner.journal, owned).await;
        }
    }
}

pub(crate) const fn role(state: ServerState) -> Role {
    match state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}
