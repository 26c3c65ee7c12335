//! Changes of the membership on the wire between schedulers.

use whiskraft_proto::v1;
use whiskraft_types::MemberOrder;

use super::Change;
use crate::bootstrap::Newcomer;
use crate::wire::{self, WireError};

type Wire = v1::change_membership_request::Change;

/// The message of a change.
pub(crate) fn to_wire(change: &Change) -> Wire {
    match change {
        Change::Add(newcomer) => Wire::Add(v1::AddMember {
            peer_address: newcomer.peer_address.clone(),
            client_address: newcomer.client_address.clone(),
            incarnation: newcomer.incarnation.to_vec().into(),
            scheduler: newcomer.id,
            cluster_name: newcomer.cluster_name.clone(),
            learner: newcomer.learner,
        }),
        Change::Order(order) => Wire::Order((*order).into()),
    }
}

/// The change in a message.
pub(crate) fn parse(change: Option<Wire>) -> Result<Change, WireError> {
    let missing = |field: &str| WireError(format!("{field} is missing"));
    match change.ok_or_else(|| missing("change"))? {
        Wire::Add(add) => Ok(Change::Add(Newcomer {
            id: add.scheduler,
            cluster_name: add.cluster_name,
            peer_address: add.peer_address,
            client_address: add.client_address,
            incarnation: wire::parse_incarnation(&add.incarnation)?
                .ok_or_else(|| missing("incarnation of the new member"))?,
            learner: add.learner,
        })),
        Wire::Order(order) => {
            let order = MemberOrder::try_from(order).map_err(|error| WireError(error.to_string()))?;
            Ok(Change::Order(order))
        }
    }
}
