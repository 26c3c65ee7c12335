//! Orders about the membership and why they come to nothing, between messages and `types`.

use whiskraft_types::{MemberOrder, MembershipError, SchedulerId};

use crate::convert::InvalidMessage;
use crate::v1;

impl From<MemberOrder> for v1::MemberOrder {
    fn from(order: MemberOrder) -> Self {
        use v1::member_order::Kind;

        let (kind, scheduler, force) = match order {
            MemberOrder::Promote(id) => (Kind::Promote, id.0, false),
            MemberOrder::Demote { id, force } => (Kind::Demote, id.0, force),
            MemberOrder::Remove { id, force } => (Kind::Remove, id.0, force),
            MemberOrder::TransferLeader(to) => (Kind::TransferLeader, to.map_or(0, |id| id.0), false),
        };
        Self {
            kind: kind.into(),
            scheduler,
            force,
        }
    }
}

impl TryFrom<v1::MemberOrder> for MemberOrder {
    type Error = InvalidMessage;

    fn try_from(order: v1::MemberOrder) -> Result<Self, InvalidMessage> {
        use v1::member_order::Kind;

        let invalid = |field, reason: &str| InvalidMessage::Invalid {
            field,
            reason: reason.to_owned(),
        };
        let (id, force) = (SchedulerId(order.scheduler), order.force);
        if order.scheduler == 0 && order.kind() != Kind::TransferLeader {
            return Err(invalid("order.scheduler", "0 is not a scheduler number"));
        }
        Ok(match order.kind() {
            Kind::Unspecified => return Err(invalid("order.kind", "it is unknown here")),
            Kind::Promote => Self::Promote(id),
            Kind::Demote => Self::Demote { id, force },
            Kind::Remove => Self::Remove { id, force },
            Kind::TransferLeader => Self::TransferLeader((order.scheduler != 0).then_some(id)),
        })
    }
}

impl From<MembershipError> for v1::MemberRefusal {
    fn from(error: MembershipError) -> Self {
        use v1::member_refusal::Reason;

        let about = |reason: Reason, id: SchedulerId| Self {
            reason: reason.into(),
            scheduler: id.0,
            ..Self::default()
        };
        let said = |reason: Reason, text| Self {
            reason: reason.into(),
            text,
            ..Self::default()
        };
        match error {
            MembershipError::NotMember(id) => about(Reason::NotMember, id),
            MembershipError::LastVoter(id) => about(Reason::LastVoter, id),
            MembershipError::NotVoter(id) => about(Reason::NotVoter, id),
            MembershipError::Silent(id) => about(Reason::Silent, id),
            MembershipError::Lags { id, entries } => Self {
                lag: entries,
                ..about(Reason::Lags, id)
            },
            MembershipError::NoQuorum { voters, answering } => Self {
                reason: Reason::NoQuorum.into(),
                voters,
                answering,
                ..Self::default()
            },
            MembershipError::InProgress(text) => said(Reason::InProgress, text),
            MembershipError::Refused(text) => said(Reason::Invalid, text),
            MembershipError::Unavailable(text) => said(Reason::Unavailable, text),
        }
    }
}

impl From<v1::MemberRefusal> for MembershipError {
    /// A reason that a newer release added is final, with its text.
    fn from(refusal: v1::MemberRefusal) -> Self {
        use v1::member_refusal::Reason;

        let id = SchedulerId(refusal.scheduler);
        match refusal.reason() {
            Reason::NotMember => Self::NotMember(id),
            Reason::LastVoter => Self::LastVoter(id),
            Reason::NotVoter => Self::NotVoter(id),
            Reason::Silent => Self::Silent(id),
            Reason::Lags => Self::Lags {
                id,
                entries: refusal.lag,
            },
            Reason::NoQuorum => Self::NoQuorum {
                voters: refusal.voters,
                answering: refusal.answering,
            },
            Reason::InProgress => Self::InProgress(refusal.text),
            Reason::Unavailable => Self::Unavailable(refusal.text),
            Reason::Invalid | Reason::Unspecified => Self::Refused(refusal.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SchedulerId = SchedulerId(7);

    #[test]
    fn every_order_arrives_as_it_was_given() {
        let orders = [
            MemberOrder::Promote(ID),
            MemberOrder::Demote { id: ID, force: true },
            MemberOrder::Remove { id: ID, force: false },
            MemberOrder::TransferLeader(None),
            MemberOrder::TransferLeader(Some(ID)),
        ];
        for order in orders {
            assert_eq!(MemberOrder::try_from(v1::MemberOrder::from(order)), Ok(order));
        }
        let unknown = v1::MemberOrder {
            kind: 99,
            scheduler: 7,
            force: false,
        };
        assert!(MemberOrder::try_from(unknown).is_err());
        let nobody = v1::MemberOrder::from(MemberOrder::Promote(SchedulerId(0)));
        assert!(MemberOrder::try_from(nobody).is_err());
    }

    #[test]
    fn every_refusal_arrives_as_it_was_made() {
        let text = "because".to_owned();
        let refusals = [
            MembershipError::NotMember(ID),
            MembershipError::LastVoter(ID),
            MembershipError::NotVoter(ID),
            MembershipError::Silent(ID),
            MembershipError::Lags { id: ID, entries: 9 },
            MembershipError::NoQuorum {
                voters: 4,
                answering: 2,
            },
            MembershipError::InProgress(text.clone()),
            MembershipError::Refused(text.clone()),
            MembershipError::Unavailable(text),
        ];
        for refusal in refusals {
            assert_eq!(
                MembershipError::from(v1::MemberRefusal::from(refusal.clone())),
                refusal
            );
        }
    }
}
