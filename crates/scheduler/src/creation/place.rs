//! Where a container goes: builds the placement's view of the invokers from the local tables, lowered by what this
//! scheduler has promised and the tables do not show yet.

use std::collections::BTreeMap;

use whiskraft_proto::Message;
use whiskraft_proto::v1;
use whiskraft_queue::{
    BuiltInPlacement, Candidate, Candidates, Placement, PlacementRequest, PlacementSettings, Random,
};
use whiskraft_state::{ContainerState, DocumentKey, State};
use whiskraft_types::{ByteSize, ContainerId, CreationError, InvokerId, Revision};

use crate::config::CreationConfig;
use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::handle::Wish;
use crate::creation::is_blackbox;

/// Annotation that names the resources an action needs, as a JSON list of tags.
const TAGS: &str = "invoker-resources";
/// Annotation that says whether it can do without them.
const TAGS_STRICT: &str = "invoker-resources-strict-policy";

/// Chooses invokers.
#[derive(Debug)]
pub(crate) struct Placer {
    placement: Box<dyn Placement>,
    random: Random,
    memory_min: ByteSize,
    /// Memory promised to containers whose place the table does not show yet.
    promised: BTreeMap<ContainerId, (InvokerId, ByteSize)>,
}

impl Placer {
    pub(crate) fn new(config: &CreationConfig, seed: u64) -> Self {
        let settings = PlacementSettings {
            managed_fraction: config.managed_fraction,
            blackbox_fraction: config.blackbox_fraction,
            memory_min: config.memory_min,
        };
        Self {
            placement: Box::new(BuiltInPlacement { settings }),
            random: Random::seeded(seed),
            memory_min: config.memory_min,
            promised: BTreeMap::new(),
        }
    }

    /// The invokers of one batch: live, healthy and connected here.
    pub(crate) fn candidates(&self, context: &Context, streams: &ControlStreams) -> Candidates {
        let all: Vec<_> = context.node.read(|state| {
            let rows = state.invokers().filter(|(_, row)| row.healthy);
            rows.map(|(id, row)| (id, row.session, candidate(state, id, row)))
                .collect()
        });
        let connected = all
            .into_iter()
            .filter(|(id, session, _)| streams.is_connected(*id, *session));
        let mut candidates = Candidates::new(connected.map(|(_, _, candidate)| candidate));
        for (invoker, memory) in self.promised.values() {
            candidates.debit(*invoker, *memory, self.memory_min);
        }
        candidates
    }

    /// Chooses an invoker and remembers the promise.
    ///
    /// # Errors
    /// Why nobody can take it.
    pub(crate) fn place(
        &mut self,
        container: ContainerId,
        memory: ByteSize,
        request: &PlacementRequest,
        candidates: &mut Candidates,
    ) -> Result<InvokerId, CreationError> {
        let invoker = self.placement.place(request, candidates, &mut self.random)?;
        self.promised.insert(container, (invoker, memory));
        Ok(invoker)
    }

    /// The table shows the container now, or it will not come.
    pub(crate) fn settle(&mut self, container: ContainerId) {
        self.promised.remove(&container);
    }
}

fn candidate(state: &State, id: InvokerId, row: &whiskraft_state::InvokerRecord) -> Candidate {
    // What the table promises counts at once, whoever promised it; what is being removed only the invoker knows.
    let holds = state
        .containers_on(id)
        .filter(|(_, row)| row.state != ContainerState::Warm);
    let promised = holds.fold(ByteSize::ZERO, |sum, (_, row)| sum.saturating_add(row.memory));
    Candidate {
        invoker: id,
        free: row.profile.memory.saturating_sub(promised.max(row.busy)),
        tags: row.profile.tags.clone(),
        dedicated: row.profile.dedicated.clone(),
        kinds: row.profile.kinds.clone(),
        zone: row.profile.zone.clone(),
    }
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

/// What placement needs to know of a container.
pub(crate) fn request(
    context: &Context,
    wish: &Wish,
    action: &v1::Action,
    failed: &[InvokerId],
) -> PlacementRequest {
    let zones = context.node.read(|state| {
        let on = state
            .containers_of(&wish.key)
            .filter_map(|(_, row)| state.invoker(row.invoker?.0));
        let mut zones = BTreeMap::<String, u32>::new();
        on.for_each(|invoker| *zones.entry(invoker.profile.zone.clone()).or_default() += 1);
        zones
    });
    let annotation = |name| action.annotations.get(name).map(String::as_str);
    PlacementRequest {
        namespace: wish.key.namespace.clone(),
        kind: action.kind.clone(),
        memory: wish.memory,
        tags: annotation(TAGS)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default(),
        strict: annotation(TAGS_STRICT) != Some("false"),
        blackbox: is_blackbox(&action.kind),
        zones,
        failed: failed.to_vec(),
    }
}
