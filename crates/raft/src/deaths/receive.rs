//! What a member does when it is told that a process of another one has ended.

use futures::future::join_all;
use whiskraft_proto::v1;
use whiskraft_state::{Command, Refusal, Response};
use whiskraft_types::{SchedulerId, SessionId};

use super::elect::succeed;
use super::{EndAnswer, RETRY_PAUSE};
use crate::clock;
use crate::core::{Core, Group};
use crate::error::ProposeError;
use crate::propose::Proposer;
use crate::types::Proposal;

/// What this node's tables say about a process.
enum Held {
    /// It holds this session.
    Session(SessionId),
    /// Another process of the scheduler holds one.
    Other,
    /// The scheduler has none.
    Nothing,
}

impl Held {
    fn of(core: &Core, scheduler: SchedulerId, incarnation: [u8; 16]) -> Self {
        core.shared.read(|state| {
            let Some(id) = state.scheduler_session(scheduler) else {
                return Self::Nothing;
            };
            match state.session(id) {
                Some(session) if session.incarnation == incarnation => Self::Session(id),
                _ => Self::Other,
            }
        })
    }
}

/// Ends the session of a process, and has the groups that it led get another leader. Answers when both is done. What
/// is left of it ends with the call: then the time-outs decide.
pub(crate) async fn receive(
    core: &Core,
    groups: impl Iterator<Item = &Group>,
    scheduler: SchedulerId,
    incarnation: [u8; 16],
) -> EndAnswer {
    let proposer = Proposer::new(core.group.clone());
    let mut held = Held::of(core, scheduler, incarnation);
    // This node may be behind, and be told of a session that it has not heard of.
    if !matches!(held, Held::Session(_)) {
        if let Err(error) = up_to_date(core, &proposer).await {
            return EndAnswer::Unavailable(error);
        }
        held = Held::of(core, scheduler, incarnation);
    }
    let session = match held {
        Held::Session(session) => session,
        Held::Other => return EndAnswer::OtherProcess,
        Held::Nothing => return EndAnswer::NoSession,
    };
    tracing::info!(%scheduler, %session, "process of a scheduler has ended, and so does its session");
    let elections = join_all(groups.map(|group| succeed(group, scheduler.0)));
    let (answer, _) = tokio::join!(end(core, &proposer, session), elections);
    answer
}

async fn up_to_date(core: &Core, proposer: &Proposer) -> Result<(), String> {
    let revision = proposer.read_index().await.map_err(|error| error.to_string())?;
    let mut applied = core.shared.applied.subscribe();
    let reached = applied.wait_for(|applied| applied.revision >= revision);
    match tokio::time::timeout(core.settings.propose_timeout, reached).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(format!(
            "revision {revision} has not reached this scheduler in time"
        )),
    }
}

/// Ends this session through the log. Harmless to repeat: no other one is ever called so.
async fn end(core: &Core, proposer: &Proposer, session: SessionId) -> EndAnswer {
    let deadline = clock::now() + core.settings.propose_timeout;
    loop {
        match proposer
            .propose(Proposal::Command(Command::CloseSession { session }))
            .await
        {
            Ok((revision, answer)) => {
                return match answer.response() {
                    // Refused: the report to another member was first, or the time was up.
                    Response::Done | Response::Refused(Refusal::NoSession { .. }) => {
                        EndAnswer::Ended(revision)
                    }
                    other => EndAnswer::Unavailable(format!("the log answered {other:?}")),
                };
            }
            // The call was on its way to the dead one, as like as not.
            Err(ProposeError::Unknown(_)) if clock::now() < deadline => {}
            Err(error) => return EndAnswer::Unavailable(error.to_string()),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

impl From<EndAnswer> for v1::ReportEndResponse {
    fn from(answer: EndAnswer) -> Self {
        use v1::report_end_response::Outcome;

        let outcome = match answer {
            EndAnswer::Ended(revision) => Outcome::Ended(revision.0),
            EndAnswer::OtherProcess => Outcome::OtherProcess(true),
            EndAnswer::NoSession => Outcome::NoSession(true),
            EndAnswer::Unavailable(reason) => Outcome::Unavailable(reason),
        };
        Self {
            outcome: Some(outcome),
        }
    }
}
