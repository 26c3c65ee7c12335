//! Room for those below their entitlement: containers of others end for them.
//!
//! One scheduler decides that for the whole cluster, the Raft leader. Several would each take from the same namespace what
//! the tables show it to have too much of, and it would fall below its share by as many containers as there are
//! schedulers. What waits elsewhere is in the tables too, so the one who decides needs to ask nobody. After a change of
//! leader the new one does not know whom the old one told to go, and may tell as many again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use whiskraft_queue::{Candidates, Holding, PlacementRequest};
use whiskraft_types::{ByteSize, ContainerId, NamespaceName, QueueKey};

use crate::creation::actor::CreationActor;
use crate::creation::in_progress::{OnItsWay, PlacelessSum};
use crate::creation::place;
use crate::creation::pools::{Placeless, Pool, Pools};
use crate::creation::turns::{Among, Starving};

/// Time in which its own scheduler finds a place for a container if there is one: what has none for longer waits.
pub(super) const WAITS_MIN: Duration = Duration::from_millis(25);
/// Time for which one may be on its way while there is memory enough.
const AMPLE_WAIT_MAX: Duration = Duration::from_millis(250);
/// Creations of one namespace that room is looked for in one go.
const NEEDY_MAX: usize = 4;
/// Creations for which containers end in one go; the others are looked at again in a moment.
const SERVED_MAX: usize = 16;

/// A container that has no place.
struct Need {
    key: QueueKey,
    request: PlacementRequest,
    /// Whether it would be the first one of its queue.
    is_first: bool,
}

/// Those of each namespace, in order.
type Needy = BTreeMap<NamespaceName, VecDeque<Need>>;

impl CreationActor {
    /// Whether it falls to this scheduler to make room. One that was the leader and is cut off has old tables.
    pub(super) fn makes_room(&self) -> bool {
        let context = &self.parts.context;
        context.node.is_leader() && context.fence.allows(self.now)
    }

    /// Who there is if everything on its way finds memory: it waits for its own scheduler to get to it, and nobody is to go
    /// before another. What has waited for long counts as short of some: it may fit nowhere that others fit. `more` has no slot
    /// yet and counts as well.
    pub(super) fn ample(&mut self, more: PlacelessSum) -> Option<Candidates> {
        let candidates = self.candidates();
        let wanted = self.parts.in_progress.placeless(self.now).and(more);
        // Those that everything may use.
        let usable = candidates.iter().filter(|one| {
            let is_open = one.tags.is_empty() && one.dedicated.is_empty() && one.kinds.is_empty();
            one.usable && is_open && !one.suspect && !one.on_trial
        });
        let left = usable.filter_map(|one| candidates.left(one.invoker));
        // However they are spread, so much of each may be too little for one more.
        let free = left.map(|free| free.saturating_sub(wanted.largest));
        let free = free.fold(ByteSize::ZERO, ByteSize::saturating_add);
        let is_ample = wanted.oldest < AMPLE_WAIT_MAX && wanted.together <= free;
        is_ample.then_some(candidates)
    }

    /// Whether containers of other schedulers wait for memory, as far as the tables tell.
    pub(super) fn waits_elsewhere(&self) -> bool {
        let ages = WAITS_MIN..self.settings.timeout(true);
        self.parts
            .in_progress
            .waits_elsewhere(self.now, ages, |id| self.jobs.contains(id))
    }

    /// One creation after the other gets room, so that no more ends than is needed: the next one sees what that one left.
    /// Those for whom room was made before count as served.
    pub(super) fn make_room(
        &mut self,
        placeless: &Placeless,
        candidates: &Candidates,
        pools: &mut Pools,
        starving: &Starving,
    ) {
        self.turns.prune(self.now);
        let mut needy = self.needy(placeless, pools, starving);
        let mut planned = self.reclaiming.planned(candidates);
        let (mut served, mut unclaimable) = (0, BTreeSet::new());
        while let Some(namespace) = pools.order.next(needy.keys()) {
            let Some(need) = needy.get_mut(&namespace).and_then(VecDeque::pop_front) else {
                needy.remove(&namespace);
                continue;
            };
            let Some((number, pool)) = pools.numbered(&need.key) else {
                continue;
            };
            let is_due = pool.shares.may_reclaim(&namespace);
            if !is_due && !need.is_first {
                continue;
            }
            if self.placer.plan(&need.request, &mut planned) {
                pools.take(&need.key, need.request.memory);
                continue;
            }
            // What one has not found nobody finds who needs as much.
            let kind = (number, need.request.memory, pool.shares.holds_nothing(&namespace));
            let may_claim = is_due && !unclaimable.contains(&kind);
            let mut victims = Vec::new();
            if may_claim {
                victims = self.claimed(pool, &need.request, &planned);
                if victims.is_empty() {
                    unclaimable.insert(kind);
                }
            }
            if victims.is_empty() {
                victims = self.in_turn(pool, &need, is_due, &planned);
            }
            victims.iter().for_each(|victim| pools.lose(victim));
            if self.end(&victims, &mut planned) && self.placer.plan(&need.request, &mut planned) {
                pools.take(&need.key, need.request.memory);
                served += 1;
            }
            if served == SERVED_MAX {
                return self.look_soon();
            }
        }
        if let Some(next) = self.turns.next() {
            self.look_by(next);
        }
    }

    /// Containers of namespaces with more than their share that have to end so that one gets its place.
    fn claimed(&mut self, pool: &Pool, request: &PlacementRequest, planned: &Candidates) -> Vec<Holding> {
        let (context, placer) = (&self.parts.context, &mut self.placer);
        self.reclaiming.victims(context, placer, pool, request, planned)
    }

    /// Those that have to because it is its turn.
    fn in_turn(&mut self, pool: &Pool, need: &Need, is_due: bool, planned: &Candidates) -> Vec<Holding> {
        let Need {
            request, is_first, ..
        } = need;
        let among_queues = is_first.then_some(Among::Queues);
        let has_nothing = is_due && pool.shares.holds_nothing(&request.namespace);
        let among_namespaces = has_nothing.then_some(Among::Namespaces);
        let (now, placer, reclaiming) = (self.now, &mut self.placer, &self.reclaiming);
        let turns = &mut self.turns;
        for among in among_queues.into_iter().chain(among_namespaces) {
            let victims = self.parts.context.node.read(|state| {
                let is_leaving = |id| reclaiming.has_asked(id);
                turns.take(now, state, among, (placer, pool, planned), request, is_leaving)
            });
            if !victims.is_empty() {
                return victims;
            }
        }
        Vec::new()
    }

    /// Tells containers to end; false if there are none. What cannot be told now is tried again at the next look.
    fn end(&mut self, victims: &[Holding], planned: &mut Candidates) -> bool {
        for victim in victims {
            if self.reclaiming.ask(self.now, &self.parts.streams, victim) {
                planned.give_back(victim.invoker, victim.memory);
            }
        }
        !victims.is_empty()
    }

    /// What could have a place and has none, here and elsewhere: first containers of queues first, then the oldest of each
    /// namespace.
    fn needy(&mut self, placeless: &Placeless, pools: &Pools, starving: &Starving) -> Needy {
        let could = placeless.iter().filter(|(_, row)| pools.of(&row.key).is_some());
        let mut all: Vec<_> = could.collect();
        all.sort_by_key(|(id, row)| (!starving.contains(**id), row.since, **id));
        let mut needy = Needy::new();
        for (id, row) in all {
            let own = needy.entry(row.key.namespace.clone()).or_default();
            if own.len() < NEEDY_MAX
                && let Some(request) = self.request_of(*id, row)
            {
                own.push_back(Need {
                    key: row.key.clone(),
                    request,
                    is_first: starving.contains(*id),
                });
            }
        }
        needy
    }

    /// What placement needs to know of a container of any scheduler; `None` if its action cannot be read.
    pub(super) fn request_of(&mut self, id: ContainerId, row: &OnItsWay) -> Option<PlacementRequest> {
        let known = self.jobs.get_mut(id).and_then(|job| job.request.clone());
        known.or_else(|| {
            let (context, profiles) = (&self.parts.context, &self.parts.profiles);
            let needs = profiles.needs(&context.node, &row.key.action, row.revision)?;
            Some(place::request_for(context, &row.key, row.memory, &needs))
        })
    }
}
