//! Where a container goes: builds the placement's view of the invokers from the local tables, lowered by what this
//! scheduler has promised and the tables do not show yet.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_proto::Message;
use whiskraft_proto::v1;
use whiskraft_queue::{
    Candidate, Candidates, Placement, PlacementRequest, PlacementSettings, Random, Shortage, Standing,
    Suspicion,
};
use whiskraft_state::{ContainerState, DocumentKey, State};
use whiskraft_types::{ByteSize, ContainerId, CreationError, Instant, InvokerId, QueueKey, Revision};

use crate::config::CreationConfig;
use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::handle::Wish;
use crate::creation::job::{Job, Jobs};
use crate::profiles::Needs;

/// Chooses invokers.
#[derive(Debug)]
pub(crate) struct Placer {
    placement: Box<dyn Placement>,
    random: Random,
    memory_min: ByteSize,
    /// Memory promised to containers whose place is on its way to the table.
    promised: Promises,
    /// Memory promised to containers of the reservation that is under way: some of them will never be.
    ahead: Promises,
}

/// Who was promised how much, and where.
type Promises = BTreeMap<ContainerId, (InvokerId, ByteSize)>;

impl Placer {
    pub(crate) fn new(config: &CreationConfig, seed: u64) -> Self {
        let settings = PlacementSettings {
            managed_fraction: config.managed_fraction,
            blackbox_fraction: config.blackbox_fraction,
            memory_min: config.memory_min,
        };
        Self {
            placement: config.placement.placement(settings),
            random: Random::seeded(seed),
            memory_min: config.memory_min,
            promised: Promises::new(),
            ahead: Promises::new(),
        }
    }

    /// The invokers of one batch: all that have a session. What came back from one holds nothing there.
    pub(crate) fn candidates(
        &self,
        (context, streams): (&Context, &ControlStreams),
        suspects: &BTreeMap<InvokerId, Suspicion>,
        jobs: &Jobs,
    ) -> Candidates {
        let (all, promised): (Vec<_>, Vec<_>) = context.node.read(|state| {
            let back = came_back(state, jobs);
            let came_back = |id: &InvokerId| back.get(id).copied().unwrap_or_default();
            let rows = state.invokers();
            let rows = rows.map(|(id, row)| (row.session, candidate(state, id, row, came_back(&id))));
            let on = |id| state.container(id)?.invoker.map(|(on, _)| on);
            (rows.collect(), self.unseen(on).collect())
        });
        let mut candidates = Candidates::new(all.into_iter().map(|(session, mut candidate)| {
            candidate.usable &= streams.is_connected(candidate.invoker, session);
            let standing = suspects
                .get(&candidate.invoker)
                .map(|suspicion| suspicion.standing);
            candidate.on_trial = standing == Some(Standing::OnTrial);
            candidate.suspect = standing.is_some() && !candidate.on_trial;
            candidate
        }));
        for (invoker, memory) in promised {
            // One on trial has got its container with that.
            candidates.give(invoker, memory, self.memory_min);
        }
        candidates
    }

    /// Promises that the table does not show: `on` says where it has a container. Of the reservation under way all, with
    /// nothing for those that it shows: whether an invoker on trial has got its container is noted with the answer.
    fn unseen(
        &self,
        on: impl Fn(ContainerId) -> Option<InvokerId> + Copy,
    ) -> impl Iterator<Item = (InvokerId, ByteSize)> {
        let promised = self.promised.iter();
        let promised = promised.filter(move |(id, (invoker, _))| on(**id) != Some(*invoker));
        let ahead = self.ahead.iter().map(move |(id, (invoker, memory))| {
            let is_seen = on(*id) == Some(*invoker);
            (*invoker, if is_seen { ByteSize::ZERO } else { *memory })
        });
        promised.map(|(_, promise)| *promise).chain(ahead)
    }

    /// Chooses an invoker and remembers the promise.
    ///
    /// # Errors
    /// What there is too little of.
    pub(crate) fn place(
        &mut self,
        container: ContainerId,
        request: &PlacementRequest,
        candidates: &mut Candidates,
    ) -> Result<InvokerId, Shortage> {
        let invoker = self.placement.place(request, candidates, &mut self.random)?;
        self.promised.insert(container, (invoker, request.memory));
        Ok(invoker)
    }

    /// Chooses an invoker for a container whose reservation is about to be proposed, and remembers the promise until that is
    /// answered.
    ///
    /// # Errors
    /// What there is too little of.
    pub(crate) fn place_ahead(
        &mut self,
        container: ContainerId,
        request: &PlacementRequest,
        candidates: &mut Candidates,
    ) -> Result<InvokerId, Shortage> {
        let invoker = self.placement.place(request, candidates, &mut self.random)?;
        self.ahead.insert(container, (invoker, request.memory));
        Ok(invoker)
    }

    /// No reservation is under way: the table shows what came of the last one, and nothing else will. Returns whether
    /// anything was promised for it.
    pub(crate) fn settle_ahead(&mut self) -> bool {
        let has_promised = self.has_promised_ahead();
        self.ahead.clear();
        has_promised
    }

    /// Whether a reservation is under way that may need less than was promised for it.
    pub(crate) fn has_promised_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Whether a container would find a place among candidates; it is debited there and promised nowhere.
    pub(crate) fn plan(&mut self, request: &PlacementRequest, planned: &mut Candidates) -> bool {
        self.placement.place(request, planned, &mut self.random).is_ok()
    }

    /// Whether a container could go to an invoker if that were empty and all others full.
    pub(crate) fn could_place(
        &mut self,
        request: &PlacementRequest,
        candidates: &Candidates,
        invoker: InvokerId,
    ) -> bool {
        let mut only = Candidates::new(candidates.iter().cloned().map(|mut candidate| {
            let is_it = candidate.invoker == invoker;
            candidate.free = if is_it { candidate.total } else { ByteSize::ZERO };
            candidate
        }));
        self.plan(request, &mut only)
    }

    /// The invokers that could run a container if they were empty.
    pub(crate) fn able(&self, request: &PlacementRequest, candidates: &Candidates) -> BTreeSet<InvokerId> {
        self.placement.able(request, candidates)
    }

    /// Why a container gets no place, for people.
    pub(crate) fn explain(&self, request: &PlacementRequest, candidates: &Candidates) -> String {
        self.placement.explain(request, candidates)
    }

    /// The table shows the container now, or it will not come.
    pub(crate) fn settle(&mut self, container: ContainerId) {
        self.promised.remove(&container);
    }
}

fn candidate(
    state: &State,
    id: InvokerId,
    row: &whiskraft_state::InvokerRecord,
    came_back: ByteSize,
) -> Candidate {
    // What the table promises counts at once, whoever promised it; what is being removed only the invoker knows.
    let promised = state.promised_on(id).saturating_sub(came_back);
    Candidate {
        invoker: id,
        usable: row.healthy,
        suspect: false,
        on_trial: false,
        total: row.profile.memory,
        free: row.profile.memory.saturating_sub(promised.max(row.busy)),
        tags: row.profile.tags.clone(),
        dedicated: row.profile.dedicated.clone(),
        kinds: row.profile.kinds.clone(),
        zone: row.profile.zone.clone(),
    }
}

/// Memory of containers that came back from invokers, on whom the table still shows them: to say so is on its way.
fn came_back(state: &State, jobs: &Jobs) -> BTreeMap<InvokerId, ByteSize> {
    let mut memory = BTreeMap::<InvokerId, ByteSize>::new();
    for row in jobs.without_place().filter_map(|id| state.container(id)) {
        if let Some((invoker, _)) = row.invoker {
            let sum = memory.entry(invoker).or_default();
            *sum = sum.saturating_add(row.memory);
        }
    }
    memory
}

/// Whether an invoker has room for all that the tables promise on it: then no other creation has taken the memory of one
/// that it refuses.
pub(crate) fn has_room(context: &Context, invoker: InvokerId) -> bool {
    context.node.read(|state| {
        let Some(row) = state.invoker(invoker) else {
            return false;
        };
        let promised = state.promised_on(invoker);
        promised.max(row.busy) <= row.profile.memory
    })
}

/// The action that a container runs.
///
/// # Errors
/// The error to report, and its text.
pub(crate) fn action(context: &Context, wish: &Wish) -> Result<v1::Action, (CreationError, String)> {
    let name = &wish.key.action;
    let missing = || {
        (
            CreationError::Fetch,
            format!("action {name} does not exist any more"),
        )
    };
    let key = DocumentKey::action(name).ok_or_else(missing)?;
    let found = context
        .node
        .document(&key)
        .map_err(|error| (CreationError::Whisk, error.to_string()))?;
    let (revision, body): (Revision, _) = found.ok_or_else(missing)?;
    if revision != wish.revision {
        // The queue hears of the new revision by itself and asks again.
        return Err((
            CreationError::Unknown,
            format!("action {name} has changed while its container was created"),
        ));
    }
    v1::Action::decode(body).map_err(|error| {
        (
            CreationError::Fetch,
            format!("action {name} cannot be read: {error}"),
        )
    })
}

/// What placement needs to know of a container. Kept with the job while it waits: the document does not change under
/// one revision.
///
/// # Errors
/// The error to report, and its text.
pub(crate) fn request(
    context: &Context,
    now: Instant,
    job: &mut Job,
) -> Result<PlacementRequest, (CreationError, String)> {
    if let Some(request) = &mut job.request {
        request.refused = job.job.refused(now).collect();
        return Ok(request.clone());
    }
    let action = action(context, &job.wish)?;
    let wish = &job.wish;
    let mut request = request_for(context, &wish.key, wish.memory, &Needs::of(&action));
    request.failed = job.job.failed().to_vec();
    request.refused = job.job.refused(now).collect();
    job.request = Some(request.clone());
    Ok(request)
}

/// The same of a container of any queue, whoever leads it.
pub(super) fn request_for(
    context: &Context,
    key: &QueueKey,
    memory: ByteSize,
    needs: &Needs,
) -> PlacementRequest {
    let zones = context.node.read(|state| {
        let on = state
            .containers_of(key)
            .filter(|(_, row)| row.state != ContainerState::Ended)
            .filter_map(|(_, row)| state.invoker(row.invoker?.0));
        let mut zones = BTreeMap::<String, u32>::new();
        on.for_each(|invoker| *zones.entry(invoker.profile.zone.clone()).or_default() += 1);
        zones
    });
    PlacementRequest {
        namespace: key.namespace.clone(),
        kind: needs.kind.clone(),
        memory,
        tags: needs.tags.clone(),
        strict: needs.strict,
        blackbox: needs.blackbox,
        zones,
        failed: Vec::new(),
        refused: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> ContainerId {
        let session = whiskraft_types::SessionId(1);
        ContainerId { session, seq }
    }

    /// An invoker that all of it may use, with memory for two of [`request`].
    fn candidates() -> Candidates {
        Candidates::new([Candidate {
            invoker: InvokerId(7),
            usable: true,
            suspect: false,
            on_trial: false,
            total: ByteSize::mib(512),
            free: ByteSize::mib(512),
            tags: Vec::new(),
            dedicated: Vec::new(),
            kinds: Vec::new(),
            zone: String::new(),
        }])
    }

    fn request() -> PlacementRequest {
        PlacementRequest {
            namespace: "guest".parse().unwrap(),
            kind: "python:3".to_owned(),
            memory: ByteSize::mib(256),
            tags: Vec::new(),
            strict: false,
            blackbox: false,
            zones: BTreeMap::new(),
            failed: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn unseen(
        placer: &Placer,
        on: impl Fn(ContainerId) -> Option<InvokerId> + Copy,
    ) -> Vec<(InvokerId, ByteSize)> {
        placer.unseen(on).collect()
    }

    #[test]
    fn what_is_promised_ahead_counts_until_the_table_has_it_or_the_reservation_is_answered() {
        let mut placer = Placer::new(&CreationConfig::default(), 1);
        let mut candidates = candidates();
        for seq in 1..=2 {
            let placed = placer.place_ahead(id(seq), &request(), &mut candidates);
            assert_eq!(placed, Ok(InvokerId(7)));
        }
        let third = placer.place_ahead(id(3), &request(), &mut candidates);
        assert_eq!(third, Err(Shortage::Memory));
        let promise = (InvokerId(7), ByteSize::mib(256));
        assert_eq!(unseen(&placer, |_| None), [promise; 2]);
        // The table has one there, and another one somewhere else. That the first got one counts for an invoker on trial.
        let on = |of: ContainerId| Some(InvokerId(6 + of.seq));
        assert_eq!(unseen(&placer, on), [(InvokerId(7), ByteSize::ZERO), promise]);
        // Whatever the answer was: nothing is left of the promises.
        assert!(placer.has_promised_ahead() && placer.settle_ahead());
        assert_eq!(unseen(&placer, |_| None), []);
        assert!(!placer.has_promised_ahead() && !placer.settle_ahead());
    }

    #[test]
    fn the_answer_to_a_reservation_leaves_promises_of_containers_that_have_a_slot() {
        let mut placer = Placer::new(&CreationConfig::default(), 1);
        let mut candidates = candidates();
        assert!(placer.place(id(1), &request(), &mut candidates).is_ok());
        assert!(placer.place_ahead(id(2), &request(), &mut candidates).is_ok());
        placer.settle_ahead();
        assert_eq!(unseen(&placer, |_| None), [(InvokerId(7), ByteSize::mib(256))]);
        placer.settle(id(1));
        assert_eq!(unseen(&placer, |_| None), []);
    }
}
