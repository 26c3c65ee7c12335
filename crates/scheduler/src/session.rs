//! Keeps this scheduler's session: opens it, renews it, fences the process when renewals fail, and opens a new one
//! when it has ended.
//!
//! Invariant: [`Fence::extend`](crate::fence::Fence::extend) is called only with a moment that counts from the
//! sending of an acknowledged keepalive of the session that is open.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;
use whiskraft_raft::KeepaliveError;
use whiskraft_state::{Command, OpenSession, Response, SessionOwner};
use whiskraft_types::{Instant, Lease, SessionId};

use crate::context::Context;

/// Pause between two attempts to open a session.
const OPEN_PAUSE: Duration = Duration::from_millis(50);
/// Keepalives without answer at a time; the node gives each up by itself after its own deadline.
const KEEPALIVES_MAX: usize = 32;
/// Longest wait for the log to take the end of the session at shutdown; after it the others wait for the TTL.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);

/// The session task.
pub(crate) struct SessionTask {
    context: Context,
    /// Drawn at process start: a repeated open finds the same session.
    incarnation: [u8; 16],
    lease: Lease,
    seq: u64,
}

/// Why a session is held no more.
enum End {
    Expired,
    Stopping,
}

impl SessionTask {
    pub(crate) fn new(context: Context, incarnation: [u8; 16]) -> Self {
        let lease = Lease::new(context.config.session.ttl);
        Self {
            context,
            incarnation,
            lease,
            seq: 0,
        }
    }

    /// Runs until the process drains; then closes the session so that its queues move at once.
    pub(crate) async fn run(mut self) {
        while let Some(session) = self.open().await {
            tracing::info!(%session, "session opened");
            self.context.fence.open(session);
            let end = self.hold(session).await;
            self.lease.revoke();
            // Fenced first: once the end is in the log another leader may act.
            self.context.fence.close();
            match end {
                End::Expired => tracing::warn!(%session, "session ended, its queues are led by others now"),
                End::Stopping => self.close(session).await,
            }
            self.context.fence.end();
            if self.context.is_draining() {
                return;
            }
        }
    }

    /// A session in the log; `None` if the process drains first.
    async fn open(&mut self) -> Option<SessionId> {
        let open = OpenSession {
            owner: SessionOwner::Scheduler(self.context.node.id()),
            incarnation: self.incarnation,
            ttl: self.context.config.session.ttl,
        };
        loop {
            // The node announces this member first: whoever is told that it leads must learn where it is.
            if self.is_announced() {
                let proposed = tokio::select! {
                    biased;
                    () = self.context.draining() => return None,
                    proposed = self.context.propose(Command::OpenSession(open.clone())) => proposed,
                };
                match proposed {
                    Ok((revision, Response::Session(session))) => {
                        // Before the fence opens this node has to know how its earlier sessions ended.
                        tokio::select! {
                            biased;
                            () = self.context.draining() => {} // The session is closed again by its holder.
                            _ = self.context.node.wait_applied(revision) => {}
                        }
                        return Some(session);
                    }
                    Ok((_, answer)) => tracing::warn!(?answer, "session refused, tries again"),
                    Err(error) => tracing::debug!(%error, "session not opened, tries again"),
                }
            }
            tokio::select! {
                biased;
                () = self.context.draining() => return None,
                () = tokio::time::sleep(OPEN_PAUSE) => {}
            }
        }
    }

    fn is_announced(&self) -> bool {
        let node = &self.context.node;
        node.read(|state| {
            state
                .member(node.id())
                .is_some_and(|member| !member.client_address.is_empty())
        })
    }

    /// Keeps the session until it ends or the process drains. A slow answer still counts, from when it was asked.
    async fn hold(&mut self, session: SessionId) -> End {
        let context = self.context.clone();
        let mut answers = FuturesUnordered::new();
        let mut next = context.clock.now();
        loop {
            tokio::select! {
                biased;
                () = context.draining() => return End::Stopping,
                Some((sent_at, answer)) = answers.next() => {
                    context.metrics.keepalive(matches!(answer, Ok(())));
                    match answer {
                        Ok(()) => self.on_acknowledged(sent_at),
                        Err(KeepaliveError::Expired(_)) => return End::Expired,
                        Err(error) => tracing::debug!(%session, %error, "keepalive not acknowledged"),
                    }
                }
                () = self.pause(next) => {
                    let sent_at = context.clock.now();
                    next = sent_at + context.config.session.keepalive;
                    if answers.len() < KEEPALIVES_MAX {
                        self.seq += 1;
                        let (node, seq) = (context.node.clone(), self.seq);
                        answers.push(async move { (sent_at, node.keepalive(session, seq).await) });
                    }
                }
            }
        }
    }

    fn on_acknowledged(&mut self, sent_at: Instant) {
        self.lease.acknowledge(sent_at);
        if let Some(until) = self.lease.fenced_at() {
            self.context.fence.extend(until);
        }
    }

    /// Waits for a moment, and closes the fence when the lease runs out meanwhile.
    async fn pause(&self, until: Instant) {
        let clock = self.context.clock;
        if let Some(fenced_at) = self.lease.fenced_at().filter(|fenced_at| *fenced_at <= until) {
            clock.sleep_until(fenced_at).await;
            if !self.context.fence.view().fenced {
                tracing::warn!("lease ran out: fenced until a keepalive is acknowledged");
            }
            self.context.fence.close();
        }
        clock.sleep_until(until).await;
    }

    async fn close(&self, session: SessionId) {
        let closing = self.context.propose(Command::CloseSession { session });
        match timeout(CLOSE_WAIT_MAX, closing).await {
            Ok(Ok((revision, _))) => {
                // The queues' new leaders are in the tables now: whoever waits here can be told.
                let _ = timeout(CLOSE_WAIT_MAX, self.context.node.wait_applied(revision)).await;
                tracing::info!(%session, "session closed");
            }
            Ok(Err(error)) => tracing::warn!(%session, %error, "session not closed, it ends with its time"),
            Err(_) => tracing::warn!(%session, "session not closed in time, it ends with its time"),
        }
    }
}
