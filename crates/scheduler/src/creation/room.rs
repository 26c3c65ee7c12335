//! Room for those below their entitlement: containers of others end for them.
//!
//! One scheduler decides that for the whole cluster, the Raft leader. Several would each take from the same namespace what
//! the tables show it to have too much of, and it would fall below its share by as many containers as there are
//! schedulers. What waits elsewhere is in the tables too, so the one who decides needs to ask nobody. After a change of
//! leader the new one does not know whom the old one told to go, and may tell as many again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use whiskraft_queue::{Candidates, PlacementRequest};
use whiskraft_types::{ContainerId, NamespaceName, QueueKey};

use crate::creation::actor::CreationActor;
use crate::creation::in_progress::OnItsWay;
use crate::creation::place;
use crate::creation::pools::{Placeless, Pool, Pools};
use crate::creation::turns::{Among, Starving};

/// Time in which its own scheduler finds a place for a container if there is one: what has none for longer waits.
pub(super) const WAITS_MIN: Duration = Duration::from_millis(25);
/// Creations of one namespace that room is looked for in one go.
const NEEDY_MAX: usize = 4;

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

    /// Whether containers of other schedulers wait for memory, as far as the tables tell.
    pub(super) fn waits_elsewhere(&self) -> bool {
        let ages = WAITS_MIN..self.settings.timeout(true);
        self.parts
            .in_progress
            .waits_elsewhere(self.now, ages, |id| self.jobs.contains(id))
    }

    /// One creation at a time gets room, so that no more ends than is needed: the next one sees what that one left. Those
    /// for whom room was made before count as served.
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
        while let Some(namespace) = pools.order.next(needy.keys()) {
            let Some(need) = needy.get_mut(&namespace).and_then(VecDeque::pop_front) else {
                needy.remove(&namespace);
                continue;
            };
            let Some(pool) = pools.of(&need.key) else { continue };
            let is_due = pool.shares.may_reclaim(&namespace);
            if !is_due && !need.is_first {
                continue;
            }
            if self.placer.plan(&need.request, &mut planned) {
                pools.take(&need.key, need.request.memory);
                continue;
            }
            let has_asked = (is_due && self.take_from_others(pool, &need.request, &planned))
                || (need.is_first && self.take_a_turn(pool, Among::Queues, &need.request, &planned))
                || (is_due
                    && pool.shares.holds_nothing(&namespace)
                    && self.take_a_turn(pool, Among::Namespaces, &need.request, &planned));
            if has_asked {
                return self.look_soon();
            }
        }
    }

    fn take_from_others(&mut self, pool: &Pool, request: &PlacementRequest, planned: &Candidates) -> bool {
        let around = (&self.parts.context, &self.parts.streams);
        let (now, placer) = (self.now, &mut self.placer);
        self.reclaiming
            .make_room(now, around, placer, pool, request, planned)
    }

    /// Somebody gives a place to one that has none.
    fn take_a_turn(
        &mut self,
        pool: &Pool,
        among: Among,
        request: &PlacementRequest,
        planned: &Candidates,
    ) -> bool {
        let (now, placer, reclaiming) = (self.now, &mut self.placer, &mut self.reclaiming);
        let turns = &mut self.turns;
        let victims = self.parts.context.node.read(|state| {
            let is_leaving = |id| reclaiming.has_asked(id);
            turns.take(now, state, among, (placer, pool, planned), request, is_leaving)
        });
        for victim in &victims {
            reclaiming.ask(now, &self.parts.streams, victim);
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
