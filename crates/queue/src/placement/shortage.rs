//! Why a container gets no place.

use std::fmt::Write as _;

use whiskraft_types::{ByteSize, CreationError, WaitReason};

use crate::placement::eligible::{Eligible, Obstacle, obstacle};
use crate::placement::{Candidate, Candidates, PlacementRequest, PlacementSettings};

/// What there is too little of, the most basic first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shortage {
    /// Nobody may run it: no healthy and connected invoker starts its kind and serves its namespace.
    Invokers,
    /// Of those that may, none has the tags that it cannot do without.
    Tags,
    /// Those that may run it lack memory.
    Memory,
}

impl Shortage {
    /// The error of a creation that fails for it.
    #[must_use]
    pub const fn error(self) -> CreationError {
        match self {
            Self::Invokers => CreationError::NoAvailableInvokers,
            Self::Tags | Self::Memory => CreationError::NoAvailableResources,
        }
    }

    /// What activations wait for that wait for it.
    #[must_use]
    pub const fn wait_reason(self) -> WaitReason {
        match self {
            Self::Invokers | Self::Tags => WaitReason::NoInvoker,
            Self::Memory => WaitReason::NoMemory,
        }
    }
}

impl From<Shortage> for CreationError {
    fn from(shortage: Shortage) -> Self {
        shortage.error()
    }
}

/// The sentence for people.
pub(super) fn explain(
    settings: &PlacementSettings,
    request: &PlacementRequest,
    candidates: &Candidates,
) -> String {
    let PlacementRequest { kind, namespace, .. } = request;
    match Eligible::of(settings, request, candidates) {
        Err(Shortage::Tags) => {
            let able = candidates.iter().filter(|c| obstacle(c, request).is_none());
            let (count, tags) = (able.count(), request.tags.join(", "));
            format!(
                "none of {} that may run {kind} actions of {namespace} has the tags {tags}",
                invokers(count)
            )
        }
        Err(_) => no_invoker(request, candidates),
        Ok(eligible) => match eligible.turns(request).flatten().next() {
            Some(candidate) => format!("invoker {} has room for it now", candidate.invoker),
            None => no_memory(request, &eligible),
        },
    }
}

fn no_invoker(request: &PlacementRequest, candidates: &Candidates) -> String {
    let PlacementRequest { kind, namespace, .. } = request;
    let mut text = format!("no invoker may run {kind} actions of {namespace}");
    let mut separator = ": ";
    for (reason, what) in [
        (Obstacle::Unusable, "unhealthy or not connected"),
        (Obstacle::Dedicated, "dedicated to other namespaces"),
        (Obstacle::Kind, "of other kinds"),
    ] {
        let count = candidates
            .iter()
            .filter(|candidate| obstacle(candidate, request) == Some(reason))
            .count();
        if count > 0 {
            // Writing to a text cannot fail.
            let _ = write!(text, "{separator}{count} {what}");
            separator = ", ";
        }
    }
    if separator == ": " {
        text.push_str(": none has a session");
    }
    text
}

fn no_memory(request: &PlacementRequest, eligible: &Eligible<'_>) -> String {
    let mut able: Vec<&Candidate> = eligible.all().collect();
    able.sort_by_key(|candidate| candidate.invoker);
    able.dedup_by_key(|candidate| candidate.invoker);
    let most = |of: fn(&Candidate) -> ByteSize| able.iter().map(|c| of(c)).max().unwrap_or_default();
    let (free, total) = (most(|c| c.free), most(|c| c.total));
    let who = invokers(able.len());
    if total < request.memory {
        return format!(
            "{} is needed and the largest of {who} has {total} in all",
            request.memory
        );
    }
    format!(
        "{} is needed and the freest of {who} has {free} left",
        request.memory
    )
}

fn invokers(count: usize) -> String {
    match count {
        1 => "1 invoker".to_owned(),
        _ => format!("{count} invokers"),
    }
}
