//! What the supervisor of a process does when it has ended: tells all other members, at once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use whiskraft_proto::v1;
use whiskraft_proto::v1::peer_client::PeerClient;
use whiskraft_types::{LogRevision, SchedulerId};

use super::{EndAnswer, Obituary, RETRY_PAUSE};
use crate::clock;
use crate::types::META_GROUP;

/// Longest time for all of it: an election, and a second one if the first came to nothing. Beyond it the session's own time
/// is about to end.
const REPORT_MAX: Duration = Duration::from_secs(1);
/// Time for the others once one has answered for sure: they have elections to hold, or are as dead.
const LATE_MAX: Duration = Duration::from_millis(300);
/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_millis(300);
/// Attempts with one member.
const ATTEMPTS_MAX: u32 = 20;

/// Tells the other members that a process has ended; gives what each has said within about a second. Those that cannot be
/// reached are tried again meanwhile.
pub async fn report(obituary: &Obituary) -> BTreeMap<SchedulerId, EndAnswer> {
    let mut calls: FuturesUnordered<_> = obituary
        .others
        .iter()
        .map(|(to, address)| async move { (*to, tell(obituary, *to, address).await) })
        .collect();
    let late = |to: &SchedulerId| (*to, EndAnswer::Unavailable("no answer in time".to_owned()));
    let mut answers: BTreeMap<_, _> = obituary.others.keys().map(late).collect();
    let mut deadline = clock::now() + REPORT_MAX;
    while let Ok(Some((from, answer))) = tokio::time::timeout_at(deadline, calls.next()).await {
        if !matches!(answer, EndAnswer::Unavailable(_)) {
            deadline = deadline.min(clock::now() + LATE_MAX);
        }
        answers.insert(from, answer);
    }
    answers
}

/// Asks one member until it has an answer.
async fn tell(obituary: &Obituary, to: SchedulerId, address: &str) -> EndAnswer {
    let mut last = EndAnswer::Unavailable("it was not asked".to_owned());
    for _ in 0..ATTEMPTS_MAX {
        last = match ask(obituary, to, address).await {
            Ok(answer) => parse(answer),
            Err(status) => {
                let answer = EndAnswer::Unavailable(status.message().to_owned());
                match status.code() {
                    // Said by one that is there and will say it again: another cluster, an older release.
                    Code::PermissionDenied
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::Unimplemented => return answer,
                    _ => answer,
                }
            }
        };
        if !matches!(last, EndAnswer::Unavailable(_)) {
            return last;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    last
}

async fn ask(obituary: &Obituary, to: SchedulerId, address: &str) -> Result<v1::ReportEndResponse, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let channel = endpoint.connect_timeout(CONNECT_MAX).connect().await;
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = v1::ReportEndRequest {
        envelope: Some(v1::Envelope {
            cluster_id: obituary.cluster_id.clone(),
            group: META_GROUP,
            from: obituary.scheduler.0,
            to: to.0,
            shown: None,
        }),
        incarnation: obituary.incarnation.to_vec().into(),
    };
    let answer = PeerClient::new(channel).report_end(request).await?;
    Ok(answer.into_inner())
}

fn parse(response: v1::ReportEndResponse) -> EndAnswer {
    use v1::report_end_response::Outcome;

    match response.outcome {
        Some(Outcome::Ended(revision)) => EndAnswer::Ended(LogRevision(revision)),
        Some(Outcome::OtherProcess(_)) => EndAnswer::OtherProcess,
        Some(Outcome::NoSession(_)) => EndAnswer::NoSession,
        Some(Outcome::Unavailable(reason)) => EndAnswer::Unavailable(reason),
        None => EndAnswer::Unavailable("it answered nothing".to_owned()),
    }
}
