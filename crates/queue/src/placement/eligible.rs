//! Who may run a container, and in which order they are asked: the same for every policy.

use crate::placement::{Candidate, Candidates, PlacementRequest, PlacementSettings, Shortage};

/// The candidates that may run a container, in groups; a group is asked if none before it has the memory.
#[derive(Debug)]
pub(super) struct Eligible<'a> {
    groups: Vec<Vec<&'a Candidate>>,
}

impl<'a> Eligible<'a> {
    /// Groups by the rules for tags and parts. Suspects are left out while anybody else is in a group, whatever memory
    /// it has: to wait for a good invoker is better than to be lost on a bad one.
    ///
    /// # Errors
    /// `Invokers` or `Tags` if there is nobody.
    pub(super) fn of(
        settings: &PlacementSettings,
        request: &PlacementRequest,
        candidates: &'a Candidates,
    ) -> Result<Self, Shortage> {
        let able: Vec<_> = candidates
            .iter()
            .filter(|candidate| obstacle(candidate, request).is_none())
            .collect();
        if able.is_empty() {
            return Err(Shortage::Invokers);
        }
        let mut groups = if request.tags.is_empty() {
            without_tags(settings, request, candidates, able)
        } else {
            with_tags(request, able)?
        };
        if groups.iter().flatten().any(|candidate| !candidate.suspect) {
            let keep_good = |group: &mut Vec<&Candidate>| group.retain(|candidate| !candidate.suspect);
            groups.iter_mut().for_each(keep_good);
        }
        Ok(Self { groups })
    }

    /// Those that have the memory, group by group; first without the ones that failed this creation before.
    pub(super) fn turns(&self, request: &PlacementRequest) -> impl Iterator<Item = Vec<&'a Candidate>> {
        let has_failed = |candidate: &Candidate| request.failed.contains(&candidate.invoker);
        let turn = move |group: &Vec<&'a Candidate>, again: bool| {
            let has_memory =
                |c: &Candidate| c.free >= request.memory && !request.refused.contains(&c.invoker);
            let fits = |c: &&&Candidate| has_memory(c) && has_failed(c) == again;
            group.iter().filter(fits).copied().collect::<Vec<_>>()
        };
        [false, true]
            .into_iter()
            .flat_map(move |again| self.groups.iter().map(move |group| turn(group, again)))
    }

    /// Everybody in a group, some of them twice.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Candidate> {
        self.groups.iter().flatten().copied()
    }
}

/// What keeps an invoker from running a container, whatever memory it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    Unusable,
    Dedicated,
    Kind,
}

pub(super) fn obstacle(candidate: &Candidate, request: &PlacementRequest) -> Option<Obstacle> {
    let starts =
        |kind: &String| *kind == request.kind || request.kind.split(':').next() == Some(kind.as_str());
    if !candidate.usable {
        Some(Obstacle::Unusable)
    } else if !candidate.dedicated.is_empty() && !candidate.dedicated.contains(&request.namespace) {
        Some(Obstacle::Dedicated)
    } else if !candidate.kinds.is_empty() && !candidate.kinds.iter().any(starts) {
        Some(Obstacle::Kind)
    } else {
        None
    }
}

/// The request's part of the untagged ones, then the tagged ones. If nobody of the part may run it (all are down, or of
/// other kinds), the other part does: the parts are for shelter, and nobody is left to be sheltered from.
fn without_tags<'a>(
    settings: &PlacementSettings,
    request: &PlacementRequest,
    candidates: &Candidates,
    able: Vec<&'a Candidate>,
) -> Vec<Vec<&'a Candidate>> {
    let untagged: Vec<_> = candidates.iter().filter(|c| c.tags.is_empty()).collect();
    let (managed, blackbox) = partition(
        untagged.len(),
        settings.managed_fraction,
        settings.blackbox_fraction,
    );
    let part = if request.blackbox {
        &untagged[untagged.len().saturating_sub(blackbox)..]
    } else {
        &untagged[..managed.min(untagged.len())]
    };
    // Candidates ascend by id, so a part is a range of ids.
    let ids = part.first().zip(part.last());
    let is_in_part = |candidate: &Candidate| {
        ids.is_some_and(|(first, last)| (first.invoker..=last.invoker).contains(&candidate.invoker))
    };
    let (untagged, tagged): (Vec<_>, Vec<_>) = able.into_iter().partition(|c| c.tags.is_empty());
    let (own, other): (Vec<_>, Vec<_>) = untagged.into_iter().partition(|c| is_in_part(c));
    let other = if own.is_empty() { other } else { Vec::new() };
    vec![own, tagged, other]
}

/// Those with all tags. A strict request knows no other; else the untagged ones follow, then the rest.
fn with_tags<'a>(
    request: &PlacementRequest,
    able: Vec<&'a Candidate>,
) -> Result<Vec<Vec<&'a Candidate>>, Shortage> {
    let has_all = |candidate: &Candidate| request.tags.iter().all(|tag| candidate.tags.contains(tag));
    let (wanted, rest): (Vec<_>, Vec<_>) = able.into_iter().partition(|c| has_all(c));
    match (request.strict, wanted.is_empty()) {
        (true, true) => Err(Shortage::Tags),
        (true, false) => Ok(vec![wanted]),
        (false, _) => {
            let (untagged, tagged) = rest.into_iter().partition(|c| c.tags.is_empty());
            Ok(vec![wanted, untagged, tagged])
        }
    }
}

/// How many of `untagged` invokers take managed and black-box actions; for few invokers the parts overlap.
#[must_use]
pub fn partition(untagged: usize, managed_fraction: f64, blackbox_fraction: f64) -> (usize, usize) {
    let managed_fraction = managed_fraction.clamp(0.0, 1.0);
    let blackbox_fraction = (1.0 - managed_fraction).max(blackbox_fraction.min(1.0));
    let managed = (untagged as f64 * managed_fraction).ceil() as usize;
    let blackbox = (untagged as f64 * blackbox_fraction).floor() as usize;
    (managed.max(1), blackbox.max(1))
}
