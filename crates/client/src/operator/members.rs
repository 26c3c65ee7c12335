//! Orders about the membership: who votes, who leads the log, who goes.

use std::time::Duration;

use tonic::transport::Channel;
use whiskraft_proto::{required, v1};
use whiskraft_types::{MemberOrder, MembershipError, SchedulerId};

use super::{Operator, operator, unreadable};
use crate::CallError;
use crate::calls::{Call, Tried};
use crate::directory::Class;

/// Shown in errors.
const OPERATION: &str = "membership";
/// Longest wait for one scheduler: it answers within 8 s.
const TRY_DEADLINE: Duration = Duration::from_millis(9500);
/// Longest wait for all that are asked.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why an order about the membership came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberChangeError {
    /// The cluster says why.
    #[error(transparent)]
    Refused(#[from] MembershipError),
    /// Nobody answered.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Operator {
    /// Changes who votes or who leads the log. Says whom it was about; after a transfer, who leads now. Answers within
    /// 10 s, and is harmless to repeat.
    ///
    /// # Errors
    /// See [`MemberChangeError`]; [`MembershipError::is_passing`] tells what may come right by itself.
    pub async fn change_members(&self, order: MemberOrder) -> Result<SchedulerId, MemberChangeError> {
        let shared = self.client.shared();
        let call = Call {
            operation: OPERATION,
            class: Class::Bulk,
            try_deadline: TRY_DEADLINE,
            deadline: DEADLINE,
            writes: false,
        };
        let answer = call.ask(shared, |channel| ask(channel, order)).await?;
        match answer.value {
            // An earlier try has removed it.
            Err(MembershipError::NotMember(id))
                if answer.is_repeated && matches!(order, MemberOrder::Remove { .. }) =>
            {
                Ok(id)
            }
            changed => Ok(changed?),
        }
    }
}

async fn ask(channel: Channel, order: MemberOrder) -> Tried<Result<SchedulerId, MembershipError>> {
    use v1::change_members_response::Outcome;

    let response = operator(channel)
        .change_members(v1::MemberOrder::from(order))
        .await?;
    let outcome = required(response.into_inner().outcome, "change_members.outcome");
    Ok(Ok(match outcome.map_err(unreadable)? {
        Outcome::Scheduler(id) => Ok(SchedulerId(id)),
        Outcome::Refusal(refusal) => Err(refusal.into()),
    }))
}
