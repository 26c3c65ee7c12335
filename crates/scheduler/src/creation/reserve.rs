//! Turns wishes into slots, with places where some were chosen: all that wait share one entry of the log, one is in flight.
//!
//! A proposal whose outcome is not known is repeated with the same numbers; the table answers a repetition with what
//! it granted the first time.

use std::time::Duration;

use whiskraft_state::{Command, Grant, GrantedContainer, Response, SLOTS_PER_REQUEST_MAX, SlotRequest};
use whiskraft_types::{InvokerId, SessionId};

use crate::context::Context;
use crate::creation::handle::Wish;

/// Wishes in one log entry: some 50 KiB, and a few bytes for each place.
pub(crate) const WISHES_MAX: usize = 256;
/// Pause before a proposal without outcome is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Numbers the containers of one session.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    session: Option<SessionId>,
    used: u64,
}

impl Numbers {
    /// The request for a wish, with numbers that this session has not used.
    pub(crate) fn request(&mut self, session: SessionId, wish: &Wish) -> SlotRequest {
        if self.session != Some(session) {
            *self = Self {
                session: Some(session),
                used: 0,
            };
        }
        let count = wish.count.clamp(1, SLOTS_PER_REQUEST_MAX);
        let first_seq = self.used + 1;
        self.used += u64::from(count);
        SlotRequest {
            key: wish.key.clone(),
            epoch: wish.epoch,
            first_seq,
            count,
            revision: wish.revision,
            memory: wish.memory,
            instances: wish.instances,
        }
    }
}

/// What became of a batch: each wish with what it was granted.
pub(crate) type Reserved = Vec<(Wish, Vec<GrantedContainer>)>;

/// Proposes a batch, each request with the invokers that were chosen for it, until its outcome is known, or the session has
/// ended and nobody may have anything.
pub(crate) async fn reserve(
    context: Context,
    session: SessionId,
    wishes: Vec<Wish>,
    requests: Vec<(SlotRequest, Vec<InvokerId>)>,
) -> Reserved {
    let mut command = Command::ReservePlaces { session, requests };
    let grants = loop {
        match context.propose(command.clone()).await {
            Ok((revision, Response::Grants(grants))) => {
                // Placement reads the local table; it has to see these, and where they are.
                let _ = context.node.wait_applied(revision).await;
                break grants;
            }
            Ok((_, answer)) => {
                tracing::debug!(?answer, "reservation refused");
                break Vec::new();
            }
            Err(error) if context.fence.session() == Some(session) => {
                tracing::debug!(%error, "reservation not proposed, tries again");
                // By then others may wait for memory, and come first.
                if let Command::ReservePlaces { requests, .. } = &mut command {
                    requests.iter_mut().for_each(|(_, chosen)| chosen.clear());
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(%error, "reservation given up with its session");
                break Vec::new();
            }
        }
    };
    let mut grants = grants.into_iter().map(|grant| match grant {
        Grant::Granted(containers) => containers,
        Grant::StaleEpoch => Vec::new(),
    });
    wishes
        .into_iter()
        .map(|wish| (wish, grants.next().unwrap_or_default()))
        .collect()
}
