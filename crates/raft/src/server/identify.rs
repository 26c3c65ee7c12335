//! Who are you, and who do you think I am?

use std::sync::PoisonError;

use whiskraft_proto::v1;
use whiskraft_types::SchedulerId;

use super::{PeerService, Running};
use crate::wire;

impl PeerService {
    /// The answer to a scheduler that asks.
    pub(super) fn describe(&self, request: &v1::IdentifyRequest) -> v1::IdentifyResponse {
        let identity = self
            .inner
            .identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let running = self.inner.running.get();
        let same_cluster = request.cluster_id == identity.cluster_id;
        let known = match running.filter(|_| same_cluster) {
            Some(running) => known_to(running, request.from),
            None => Known::NoRecord,
        };
        let of_asker = match known {
            Known::Incarnation(incarnation) => Some(incarnation),
            Known::Stranger => None,
            Known::NoRecord => identity
                .members
                .get(&request.from)
                .copied()
                .filter(|_| same_cluster),
        };
        let witness = self.inner.peers.witness();
        // What it says of itself counts only if it is who it says it is: a directory of an earlier life of the cluster
        // may have come further.
        if of_asker.is_some_and(|incarnation| request.incarnation == incarnation.as_slice()) {
            for (group, shown) in wire::parse_shown_in_groups(&request.shown) {
                witness.note(group, request.from, &shown);
            }
        }
        let known = |(scheduler, incarnation): (&u64, &[u8; 16])| v1::KnownMember {
            scheduler: *scheduler,
            incarnation: incarnation.to_vec().into(),
        };
        let shown_by_asker = if same_cluster {
            witness.seen_of(request.from)
        } else {
            Vec::new()
        };
        v1::IdentifyResponse {
            cluster_id: identity.cluster_id.clone(),
            scheduler: identity.id,
            incarnation: identity.incarnation.to_vec().into(),
            initialized: identity.is_formed(),
            incarnation_of_asker: of_asker
                .map(|incarnation| incarnation.to_vec().into())
                .unwrap_or_default(),
            leads: running.is_some_and(|running| running.core.lease().is_some()),
            lanes: identity.lanes,
            members: identity.members.iter().map(known).collect(),
            shown_by_asker: wire::shown_in_groups(shown_by_asker),
        }
    }
}

/// What the replicated tables say about a scheduler.
enum Known {
    /// It is a member with this data directory.
    Incarnation([u8; 16]),
    /// It is no member.
    Stranger,
    /// It is a member that has not announced itself yet, or nothing is known of the membership.
    NoRecord,
}

fn known_to(running: &Running, id: u64) -> Known {
    let (is_known, is_member) = running.core.metrics(|metrics| {
        let mut nodes = metrics.membership_config.nodes();
        (
            nodes.next().is_some(),
            metrics.membership_config.get_node(&id).is_some(),
        )
    });
    let row = running
        .core
        .shared
        .read(|state| state.member(SchedulerId(id)).map(|member| member.incarnation));
    match row {
        Some(incarnation) => Known::Incarnation(incarnation),
        None if is_known && !is_member => Known::Stranger,
        None => Known::NoRecord,
    }
}
