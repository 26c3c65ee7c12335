//! Room for those below their entitlement: containers of others end for them.
//!
//! One scheduler decides that for the whole cluster, the Raft leader. Several would each take from the same namespace what
//! the tables show it to have too much of, and it would fall below its share by as many containers as there are
//! schedulers. What waits elsewhere is in the tables too, so the one who decides needs to ask nobody. After a change of leader the new one
//! does not know whom the old one told to go, and may tell as many again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use whiskraft_queue::{Candidates, FairShares, PlacementRequest};
use whiskraft_types::{ContainerId, NamespaceName, QueueKey};

use crate::creation::actor::CreationActor;
use crate::creation::in_progress::OnItsWay;
use crate::creation::place;
use crate::creation::rotation::Starving;

/// Time in which its own scheduler finds a place for a container if there is one: what has none for longer waits.
pub(super) const WAITS_MIN: Duration = Duration::from_millis(25);
/// Creations of one namespace that room is looked for in one go.
const NEEDY_MAX: usize = 4;
/// Queues of other schedulers that are looked at in one go.
const QUEUES_MAX: usize = 1024;

/// What has no place, by namespace and in order, and whether it would be the first container of its queue.
type Needy = BTreeMap<NamespaceName, VecDeque<(PlacementRequest, bool)>>;

impl CreationActor {
    /// Whether it falls to this scheduler to make room.
    pub(super) fn makes_room(&self) -> bool {
        self.parts.context.node.is_leader()
    }

    /// Whether containers of other schedulers wait for memory, as far as the tables tell.
    pub(super) fn waits_elsewhere(&self) -> bool {
        let ages = WAITS_MIN..self.settings.timeout(true);
        self.parts
            .in_progress
            .waits_elsewhere(self.now, ages, |id| self.jobs.contains(id))
    }

    /// Queues of others whose containers have no place, and whether an invoker could ever give them one: what waits
    /// for an invoker of another kind wants no memory, and nobody leaves some idle for it.
    pub(super) fn servable(&self, candidates: &Candidates) -> BTreeMap<QueueKey, bool> {
        let mut servable = BTreeMap::new();
        for (_, row) in self.foreign() {
            if servable.len() < QUEUES_MAX && !servable.contains_key(&row.key) {
                let request = self.request_of(&row);
                let can = request.is_some_and(|request| self.placer.can_serve(&request, candidates));
                servable.insert(row.key, can);
            }
        }
        servable
    }

    /// Those of all schedulers that would be the first containers of their queues.
    pub(super) fn starving(&self, servable: &BTreeMap<QueueKey, bool>) -> Starving {
        let mut all = self.foreign();
        all.retain(|(_, row)| servable.get(&row.key).copied().unwrap_or(true));
        all.extend(self.own());
        self.parts.context.node.read(|state| Starving::of(state, &all))
    }

    /// One creation at a time gets room, so that no more ends than is needed: the next one sees what that one left. Those
    /// for whom room was made before count as served.
    pub(super) fn make_room(&mut self, candidates: &Candidates, shares: &FairShares) {
        self.turns.prune(self.now);
        let mut needy = self.needy(candidates);
        let (mut planned, mut shares) = (self.reclaiming.planned(candidates), shares.clone());
        while let Some(namespace) = shares.next(needy.keys()) {
            let Some((request, is_first)) = needy.get_mut(&namespace).and_then(VecDeque::pop_front) else {
                needy.remove(&namespace);
                continue;
            };
            let is_due = shares.may_reclaim(&namespace);
            if (is_due || is_first) && self.placer.plan(&request, &mut planned) {
                shares.take(&namespace, request.memory);
                continue;
            }
            let has_asked = (is_due && self.take_from_others(&shares, &request, &planned))
                || (is_first && self.take_a_turn(&request, &planned));
            if has_asked {
                return self.look_soon();
            }
            if !is_due {
                needy.remove(&namespace);
            }
        }
    }

    fn take_from_others(
        &mut self,
        shares: &FairShares,
        request: &PlacementRequest,
        planned: &Candidates,
    ) -> bool {
        let around = (&self.parts.context, &self.parts.streams);
        let (now, placer) = (self.now, &mut self.placer);
        self.reclaiming
            .make_room(now, around, placer, shares, request, planned)
    }

    /// A queue of the namespace gives its place to another one that has none.
    fn take_a_turn(&mut self, request: &PlacementRequest, planned: &Candidates) -> bool {
        let (now, placer, reclaiming) = (self.now, &mut self.placer, &mut self.reclaiming);
        let turns = &mut self.turns;
        let victims = self.parts.context.node.read(|state| {
            let is_leaving = |id| reclaiming.has_asked(id);
            turns.take(now, state, (placer, planned), request, is_leaving)
        });
        for victim in &victims {
            reclaiming.ask(now, &self.parts.streams, victim);
        }
        !victims.is_empty()
    }

    /// What has no place, here and elsewhere: first containers of queues first, then the oldest of each namespace.
    fn needy(&mut self, candidates: &Candidates) -> Needy {
        let mut all = self.foreign();
        all.extend(self.own());
        let starving = self.parts.context.node.read(|state| Starving::of(state, &all));
        all.sort_by_key(|(id, row)| (!starving.contains(*id), row.since, *id));
        let mut needy = Needy::new();
        for (id, row) in all {
            if needy
                .get(&row.key.namespace)
                .is_some_and(|own| own.len() >= NEEDY_MAX)
            {
                continue;
            }
            let known = self.jobs.get_mut(id).and_then(|job| job.request.clone());
            let Some(request) = known.or_else(|| self.request_of(&row)) else {
                continue;
            };
            if self.placer.can_serve(&request, candidates) {
                let need = (request, starving.contains(id));
                needy.entry(row.key.namespace).or_default().push_back(need);
            }
        }
        needy
    }

    /// Containers of this scheduler that wait for memory.
    fn own(&self) -> Vec<(ContainerId, OnItsWay)> {
        self.parts.in_progress.pick(|id, _| self.waiting.contains(id))
    }

    /// Containers of other schedulers that have no place and are not given up.
    fn foreign(&self) -> Vec<(ContainerId, OnItsWay)> {
        let age_max = self.settings.timeout(true);
        self.parts.in_progress.pick(|id, row| {
            row.invoker.is_none() && self.now.saturating_since(row.since) < age_max && !self.jobs.contains(id)
        })
    }

    fn request_of(&self, row: &OnItsWay) -> Option<PlacementRequest> {
        let context = &self.parts.context;
        let needs = self
            .parts
            .profiles
            .needs(&context.node, &row.key.action, row.revision)?;
        Some(place::request_for(context, &row.key, row.memory, &needs))
    }
}
