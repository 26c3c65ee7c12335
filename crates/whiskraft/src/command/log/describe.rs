//! An entry of the log in words. Bodies of documents and blobs are told by their length.

use std::fmt::Display;

use serde_json::{Value, json};
use whiskraft_raft::{Content, Step};
use whiskraft_state::{
    Command, ContainerChange, ContainerUpdate, Grant, Response, SessionOwner, SlotRequest,
};

/// One line.
pub(super) fn line(step: &Step) -> String {
    let mark = if step.committed {
        ""
    } else {
        " (not known to be committed)"
    };
    let (what, answer) = texts(&step.content);
    let kind = kind(&step.content);
    let arrow = if answer.is_empty() { "" } else { " -> " };
    let gap = if what.is_empty() { "" } else { " " };
    format!(
        "{} term {} {kind}{gap}{what}{arrow}{answer}{mark}",
        step.revision, step.term
    )
}

/// The same for machines.
pub(super) fn json(step: &Step) -> Value {
    let (what, answer) = texts(&step.content);
    let events = match &step.content {
        Content::Command { applied, .. } => applied.events.len(),
        Content::Blank | Content::Membership { .. } => 0,
    };
    json!({
        "revision": step.revision.0,
        "term": step.term,
        "leader": step.leader.0,
        "committed": step.committed,
        "entry": kind(&step.content),
        "what": what,
        "answer": answer,
        "events": events,
    })
}

/// Name of an entry's kind.
pub(super) const fn kind(content: &Content) -> &'static str {
    let command = match content {
        Content::Blank => return "term",
        Content::Membership { .. } => return "membership",
        Content::Command { command, .. } => command,
    };
    match **command {
        Command::PutMember { .. } => "put-member",
        Command::RemoveMember { .. } => "remove-member",
        Command::OpenSession(_) => "open-session",
        Command::RenewSessions { .. } => "renew-sessions",
        Command::ExpireSessions { .. } => "expire-sessions",
        Command::CloseSession { .. } => "close-session",
        Command::EnsureQueue(_) => "ensure-queue",
        Command::RemoveQueue { .. } => "remove-queue",
        Command::MoveQueues { .. } => "move-queues",
        Command::HandOver { .. } => "hand-over",
        Command::SetActionThrottle { .. } => "set-action-throttle",
        Command::ReserveSlots { .. } => "reserve-slots",
        Command::ReservePlaces { .. } => "reserve-places",
        Command::UpdateContainers { .. } => "update-containers",
        Command::ReportInvokers { .. } => "report-invokers",
        Command::PutNamespace { .. } => "put-namespace",
        Command::DeleteNamespace { .. } => "delete-namespace",
        Command::PutDocument(_) => "put-document",
        Command::DeleteDocument { .. } => "delete-document",
        Command::PutBlobChunk(_) => "put-blob-chunk",
        Command::SweepBlobs { .. } => "sweep-blobs",
        Command::SetDraining { .. } => "set-draining",
    }
}

/// What was asked for and what came of it; the latter is empty if there is nothing to say.
fn texts(content: &Content) -> (String, String) {
    match content {
        Content::Blank => Default::default(),
        Content::Membership { voters } => (format!("voters {}", list(voters)), String::new()),
        Content::Command { command, applied } => (asked(command), answered(&applied.response)),
    }
}

fn asked(command: &Command) -> String {
    match command {
        Command::PutMember { id, member } => format!("{id} at {}", member.client_address),
        Command::RemoveMember { id } => id.to_string(),
        Command::OpenSession(open) => match &open.owner {
            SessionOwner::Scheduler(id) => format!("of scheduler {id}"),
            SessionOwner::Invoker { id, .. } => format!("of invoker {id}"),
        },
        Command::RenewSessions { sessions } | Command::ExpireSessions { sessions } => {
            list(sessions.iter().map(|(session, _)| session))
        }
        Command::CloseSession { session } => session.to_string(),
        Command::EnsureQueue(ensure) => ensure.key.to_string(),
        Command::RemoveQueue { key, epoch } => format!("{key} epoch {epoch}"),
        Command::MoveQueues { session, queues } => {
            let keys = list(queues.iter().map(|(key, _)| key));
            format!("of session {session}: {keys}")
        }
        Command::HandOver { session, queues } => {
            let keys = list(queues.iter().map(|(key, _, to)| format!("{key} to {to}")));
            format!("of session {session}: {keys}")
        }
        Command::SetActionThrottle {
            key, throttled: true, ..
        } => format!("{key} is full"),
        Command::SetActionThrottle { key, .. } => format!("{key} has room"),
        Command::ReserveSlots { session, requests } => {
            format!("session {session}: {}", list(requests.iter().map(request)))
        }
        Command::ReservePlaces { session, requests } => {
            let requests = requests.iter().map(|(slots, chosen)| match chosen.as_slice() {
                [] => request(slots),
                chosen => format!("{} on [{}]", request(slots), list(chosen)),
            });
            format!("session {session}: {}", list(requests))
        }
        Command::UpdateContainers { updates } => list(updates.iter().map(update)),
        Command::ReportInvokers { reports } => list(reports.iter().map(|report| {
            let health = if report.healthy { "healthy" } else { "unhealthy" };
            format!("{} {health} busy {}", report.invoker, report.busy)
        })),
        Command::PutNamespace { name, limits } => format!(
            "{name} containers {} over-provision {}% weight {}",
            limits.containers, limits.over_provision_percent, limits.weight
        ),
        Command::DeleteNamespace { name } => name.to_string(),
        Command::PutDocument(put) => {
            let (key, len) = (&put.key, put.body.len());
            format!("{} {}/{} of {len} bytes", key.kind, key.namespace, key.name)
        }
        Command::DeleteDocument { key, .. } => format!("{} {}/{}", key.kind, key.namespace, key.name),
        Command::PutBlobChunk(chunk) => format!("{} of {} bytes", chunk.index, chunk.data.len()),
        Command::SweepBlobs { before } => format!("before {before}"),
        Command::SetDraining { id, draining: true } => format!("{id} drains"),
        Command::SetDraining { id, .. } => format!("{id} takes queues"),
    }
}

fn request(request: &SlotRequest) -> String {
    let SlotRequest {
        key,
        epoch,
        first_seq,
        count,
        ..
    } = request;
    format!("{key} epoch {epoch} wants {count} from {first_seq}")
}

fn update(update: &ContainerUpdate) -> String {
    let change = match &update.change {
        ContainerChange::Placed { invoker } => format!("placed on {invoker}"),
        ContainerChange::Running => "running".to_owned(),
        ContainerChange::Warm => "warm".to_owned(),
        ContainerChange::Ended => "ended, results kept".to_owned(),
        ContainerChange::Removed => "removed".to_owned(),
        ContainerChange::Unplaced { invoker } => format!("came back from {invoker}"),
    };
    format!("{} {change}", update.container)
}

fn answered(response: &Response) -> String {
    match response {
        Response::Done => String::new(),
        Response::Session(session) => format!("session {session}"),
        Response::Leadership(leadership) => {
            format!("scheduler {} epoch {}", leadership.leader, leadership.epoch)
        }
        Response::Grants(grants) => list(grants.iter().map(|grant| match grant {
            Grant::StaleEpoch => "stale epoch".to_owned(),
            Grant::Granted(granted) => {
                let ids = list(granted.iter().map(|granted| granted.container));
                format!("granted {} [{ids}]", granted.len())
            }
        })),
        Response::Revision(revision) => format!("revision {revision}"),
        Response::HandedOver(moved) => format!("{} moved", moved.len()),
        Response::Missing(missing) => format!("{} chunks missing", missing.len()),
        Response::Refused(refusal) => format!("refused: {refusal}"),
    }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}
