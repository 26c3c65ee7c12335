//! Where a container is created: a pure choice over the invokers that the log knows as healthy.
//!
//! The scheduler builds [`Candidates`] from its local tables, already lowered by every promise that the invokers have
//! not reported yet, and places a whole batch over them: each placement is debited at once, so a batch never promises
//! memory twice. The invoker may still refuse.

use std::collections::BTreeMap;
use std::fmt;

use whiskraft_types::{ByteSize, CreationError, InvokerId, NamespaceName};

use crate::Random;

/// An invoker that may get containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub invoker: InvokerId,
    /// Memory not promised to anybody; that of paused containers counts as free.
    pub free: ByteSize,
    /// Resources it has.
    pub tags: Vec<String>,
    /// Namespaces it serves; empty is all.
    pub dedicated: Vec<NamespaceName>,
    /// Kinds it can start, whole (`python:3`) or by family (`python`); empty is any.
    pub kinds: Vec<String>,
    /// Failure zone; empty if none was given.
    pub zone: String,
}

/// What one container needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRequest {
    /// Namespace that invokes.
    pub namespace: NamespaceName,
    /// Kind of the action.
    pub kind: String,
    /// Memory of the container.
    pub memory: ByteSize,
    /// Resources it asks for.
    pub tags: Vec<String>,
    /// Whether it cannot do without them.
    pub strict: bool,
    /// Whether its image must be pulled.
    pub blackbox: bool,
    /// Containers of the same queue per zone; zones with fewer are preferred among the invokers that fit.
    pub zones: BTreeMap<String, u32>,
    /// Invokers that failed this creation before; used again only if nothing else fits.
    pub failed: Vec<InvokerId>,
}

/// How untagged invokers are divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacementSettings {
    /// Part of the untagged invokers, from the lowest id, for actions of managed kinds. Default 0.9.
    pub managed_fraction: f64,
    /// Part, from the highest id, for actions with images of their own. Default 0.1.
    pub blackbox_fraction: f64,
    /// Smallest container there is: an invoker with less left takes part no more. Default 128 MiB.
    pub memory_min: ByteSize,
}

impl Default for PlacementSettings {
    fn default() -> Self {
        Self {
            managed_fraction: 0.9,
            blackbox_fraction: 0.1,
            memory_min: ByteSize::mib(128),
        }
    }
}

/// Chooses invokers.
pub trait Placement: fmt::Debug + Send + Sync {
    /// Chooses an invoker for one container and debits it.
    ///
    /// # Errors
    /// `NoAvailableInvokers` if nobody may run it, `NoAvailableResources` if those who may lack memory or tags.
    fn place(
        &self,
        request: &PlacementRequest,
        candidates: &mut Candidates,
        random: &mut Random,
    ) -> Result<InvokerId, CreationError>;
}

/// The built-in placement: dedicated namespaces, tags, the managed and black-box parts, then any that fits.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltInPlacement {
    /// How the invokers are divided.
    pub settings: PlacementSettings,
}

impl Placement for BuiltInPlacement {
    fn place(
        &self,
        request: &PlacementRequest,
        candidates: &mut Candidates,
        random: &mut Random,
    ) -> Result<InvokerId, CreationError> {
        let usable = candidates.usable(request);
        let (untagged, tagged): (Vec<&Candidate>, Vec<&Candidate>) = usable
            .iter()
            .copied()
            .partition(|candidate| candidate.tags.is_empty());
        let chosen = if request.tags.is_empty() {
            let part = self.part(candidates, request);
            let wanted: Vec<_> = untagged
                .into_iter()
                .filter(|c| part.contains(&c.invoker))
                .collect();
            choose(&wanted, request, random).or_else(|_| choose(&tagged, request, random))
        } else {
            let has_all = |c: &&Candidate| request.tags.iter().all(|tag| c.tags.contains(tag));
            let wanted: Vec<_> = usable.iter().copied().filter(has_all).collect();
            match choose(&wanted, request, random) {
                Ok(invoker) => Ok(invoker),
                Err(_) if request.strict => Err(CreationError::NoAvailableResources),
                Err(_) => choose(&untagged, request, random)
                    .or_else(|_| choose(&tagged, request, random))
                    .or_else(|_| choose(&usable, request, random)),
            }
        };
        let invoker = chosen?;
        candidates.debit(invoker, request.memory, self.settings.memory_min);
        Ok(invoker)
    }
}

impl BuiltInPlacement {
    /// The untagged invokers that serve this kind of request. Taken over all of them, full ones included, by id: the
    /// parts must not move while invokers fill up.
    fn part(&self, candidates: &Candidates, request: &PlacementRequest) -> Vec<InvokerId> {
        let untagged: Vec<InvokerId> = candidates
            .all
            .iter()
            .filter(|(candidate, _)| candidate.tags.is_empty() && serves(candidate, request))
            .map(|(candidate, _)| candidate.invoker)
            .collect();
        let PlacementSettings {
            managed_fraction,
            blackbox_fraction,
            ..
        } = self.settings;
        let (managed, blackbox) = partition(untagged.len(), managed_fraction, blackbox_fraction);
        if request.blackbox {
            untagged[untagged.len().saturating_sub(blackbox)..].to_vec()
        } else {
            untagged[..managed.min(untagged.len())].to_vec()
        }
    }
}

/// The invokers of one batch of placements.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// By id, each with what is left of it; `None` once too little is.
    all: Vec<(Candidate, Option<ByteSize>)>,
}

impl Candidates {
    /// Candidates in any order.
    #[must_use]
    pub fn new(candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let mut all: Vec<_> = candidates
            .into_iter()
            .map(|candidate| (candidate.free, candidate))
            .collect();
        all.sort_by_key(|(_, candidate)| candidate.invoker);
        Self {
            all: all
                .into_iter()
                .map(|(free, candidate)| (candidate, Some(free)))
                .collect(),
        }
    }

    /// Takes memory from an invoker; it drops out when less than `memory_min` is left.
    pub fn debit(&mut self, invoker: InvokerId, memory: ByteSize, memory_min: ByteSize) {
        if let Ok(at) = self
            .all
            .binary_search_by_key(&invoker, |(candidate, _)| candidate.invoker)
        {
            let (candidate, left) = &mut self.all[at];
            *left = left
                .map(|left| left.saturating_sub(memory))
                .filter(|left| *left >= memory_min);
            candidate.free = left.unwrap_or(ByteSize::ZERO);
        }
    }

    /// Memory left of an invoker; `None` if it has dropped out or is not a candidate.
    #[must_use]
    pub fn left(&self, invoker: InvokerId) -> Option<ByteSize> {
        let at = self
            .all
            .binary_search_by_key(&invoker, |(candidate, _)| candidate.invoker)
            .ok()?;
        self.all[at].1
    }

    /// A random one of those that have the memory.
    ///
    /// # Errors
    /// `NoAvailableInvokers` if there is no candidate, `NoAvailableResources` if none has the memory.
    pub fn choose(
        &self,
        request: &PlacementRequest,
        random: &mut Random,
    ) -> Result<InvokerId, CreationError> {
        choose(&self.usable(request), request, random)
    }

    fn usable(&self, request: &PlacementRequest) -> Vec<&Candidate> {
        self.all
            .iter()
            .filter(|(candidate, left)| left.is_some() && serves(candidate, request))
            .map(|(candidate, _)| candidate)
            .collect()
    }
}

fn serves(candidate: &Candidate, request: &PlacementRequest) -> bool {
    let family = request.kind.split(':').next().unwrap_or_default();
    let starts = |kind: &String| *kind == request.kind || kind == family;
    (candidate.dedicated.is_empty() || candidate.dedicated.contains(&request.namespace))
        && (candidate.kinds.is_empty() || candidate.kinds.iter().any(starts))
}

fn choose(
    group: &[&Candidate],
    request: &PlacementRequest,
    random: &mut Random,
) -> Result<InvokerId, CreationError> {
    if group.is_empty() {
        return Err(CreationError::NoAvailableInvokers);
    }
    let zone_load = |candidate: &Candidate| request.zones.get(&candidate.zone).copied().unwrap_or(0);
    let rank = |candidate: &Candidate| (request.failed.contains(&candidate.invoker), zone_load(candidate));
    let fits = || group.iter().filter(|candidate| candidate.free >= request.memory);
    let best = fits()
        .map(|candidate| rank(candidate))
        .min()
        .ok_or(CreationError::NoAvailableResources)?;
    let equals: Vec<_> = fits().filter(|candidate| rank(candidate) == best).collect();
    Ok(equals[random.below(equals.len())].invoker)
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

/// A paused container with its code loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmContainer<A, V> {
    /// What it runs.
    pub action: A,
    /// Which revision of it.
    pub revision: V,
    /// Where it is.
    pub invoker: InvokerId,
}

/// Gives each request a paused container of the same action and revision on a usable invoker, each at most once;
/// `None` is a cold start. The log grants slots by this rule; here it serves whoever plans without the log.
pub fn match_warm<A: PartialEq, V: PartialEq>(
    warm: &[WarmContainer<A, V>],
    usable: &[InvokerId],
    requests: &[(A, V)],
) -> Vec<Option<InvokerId>> {
    let mut free: Vec<Option<&WarmContainer<A, V>>> = warm.iter().map(Some).collect();
    let mut take = |action: &A, revision: &V| {
        let matches = |slot: &&mut Option<&WarmContainer<A, V>>| {
            slot.is_some_and(|warm| {
                warm.action == *action && warm.revision == *revision && usable.contains(&warm.invoker)
            })
        };
        free.iter_mut()
            .find(matches)
            .and_then(Option::take)
            .map(|warm| warm.invoker)
    };
    requests
        .iter()
        .map(|(action, revision)| take(action, revision))
        .collect()
}
