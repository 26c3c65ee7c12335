//! Containers of this shard's queues, at exactly the log revision that the shard has been told of.
//!
//! A new leadership must know who had containers in the very apply that changed the epoch, and whose session ended
//! in it or just before; the node's tables may be ahead of that, so the shard keeps this small copy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_queue::KnownContainer;
use whiskraft_state::{ContainerRecord, ContainerState};
use whiskraft_types::{ContainerId, Instant, InvokerId, QueueKey, SessionId, SmallMap};

/// Shortest time between two looks for what is to be forgotten: each goes through all of it, and log entries come by the
/// hundred per second.
const PRUNE_PAUSE: Duration = Duration::from_secs(1);

/// What is kept of a container.
#[derive(Debug, Clone, Copy)]
struct Row {
    invoker: Option<(InvokerId, SessionId)>,
    known: KnownContainer,
    /// Whether it serves, or will: a paused or ended one is only asked for results.
    holds_slot: bool,
    /// Since when it runs, as far as this shard knows.
    running_since: Option<Instant>,
}

/// The copy.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    rows: BTreeMap<QueueKey, SmallMap<ContainerId, Row>>,
    /// Invokers whose session ended while they held a container of the queue, and when.
    lost: BTreeMap<QueueKey, Vec<(InvokerId, Instant)>>,
    /// Invokers that live and had a container of the queue until then: they may keep a result of it.
    recent: BTreeMap<QueueKey, Vec<(InvokerId, Instant)>>,
    /// When a container of the queue that an invoker had gave up its slot last, as long as that is remembered.
    left_at: BTreeMap<QueueKey, Instant>,
    pruned_at: Option<Instant>,
}

/// What a new leadership has to know.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Inheritance {
    pub(crate) expected: Vec<InvokerId>,
    pub(crate) lost: Vec<InvokerId>,
    pub(crate) containers: Vec<KnownContainer>,
}

impl Mirror {
    /// A container is new or changed.
    pub(crate) fn put(&mut self, now: Instant, id: ContainerId, record: &ContainerRecord) {
        let known = KnownContainer {
            container: id,
            invoker: record.invoker.map(|(invoker, _)| invoker),
            revision: record.revision,
            running: record.state == ContainerState::Running,
        };
        let rows = self.rows.entry(record.key.clone()).or_default();
        let before = rows.get(&id).and_then(|row| row.running_since);
        let row = Row {
            invoker: record.invoker,
            known,
            holds_slot: record.state.holds_slot(),
            running_since: known.running.then(|| before.unwrap_or(now)),
        };
        rows.insert(id, row);
        if let Some((invoker, _)) = record.invoker.filter(|_| !row.holds_slot && before.is_some()) {
            self.left_at.insert(record.key.clone(), now);
            note(&mut self.recent, now, &record.key, invoker);
        }
    }

    /// A container is gone; `ended` are the sessions that ended in the same apply.
    pub(crate) fn remove(
        &mut self,
        now: Instant,
        id: ContainerId,
        record: &ContainerRecord,
        ended: &BTreeSet<SessionId>,
    ) {
        if let Some(rows) = self.rows.get_mut(&record.key) {
            if rows
                .remove(&id)
                .is_some_and(|row| row.holds_slot && row.invoker.is_some())
            {
                self.left_at.insert(record.key.clone(), now);
            }
            if rows.is_empty() {
                self.rows.remove(&record.key);
            }
        }
        match record.invoker {
            Some((invoker, session)) if ended.contains(&session) => self.lose(now, &record.key, invoker),
            Some((invoker, _)) => note(&mut self.recent, now, &record.key, invoker),
            None => {}
        }
    }

    /// An invoker's session has ended: what it kept of queues is lost.
    pub(crate) fn invoker_gone(&mut self, now: Instant, invoker: InvokerId) {
        let mut left = Vec::new();
        self.recent.retain(|key, recent| {
            let before = recent.len();
            recent.retain(|(other, _)| *other != invoker);
            if recent.len() < before {
                left.push(key.clone());
            }
            !recent.is_empty()
        });
        for key in left {
            self.lose(now, &key, invoker);
        }
    }

    /// Whether the tables have the container of that queue.
    pub(crate) fn knows(&self, key: &QueueKey, id: ContainerId) -> bool {
        self.rows.get(key).is_some_and(|rows| rows.contains_key(&id))
    }

    fn lose(&mut self, now: Instant, key: &QueueKey, invoker: InvokerId) {
        note(&mut self.lost, now, key, invoker);
    }

    /// Starts anew from other rows; what has vanished meanwhile and whose invoker's session lives no more counts as
    /// lost.
    pub(crate) fn replace(&mut self, now: Instant, mut new: Self, is_live: impl Fn(SessionId) -> bool) {
        for (key, rows) in &self.rows {
            let kept = new.rows.get(key);
            let gone: BTreeSet<InvokerId> = rows
                .iter()
                .filter(|(id, _)| !kept.is_some_and(|kept| kept.contains_key(*id)))
                .filter_map(|(_, row)| row.invoker.filter(|(_, session)| !is_live(*session)))
                .map(|(invoker, _)| invoker)
                .collect();
            for (id, row) in new.rows.get_mut(key).into_iter().flat_map(SmallMap::iter_mut) {
                let before = rows.get(id).and_then(|row| row.running_since);
                row.running_since = row.running_since.map(|since| before.unwrap_or(since));
            }
            for invoker in gone {
                new.lose(now, key, invoker);
            }
        }
        for (key, lost) in std::mem::take(&mut self.lost) {
            new.lost.entry(key).or_default().extend(lost);
        }
        new.recent = std::mem::take(&mut self.recent);
        new.left_at = std::mem::take(&mut self.left_at);
        *self = new;
    }

    /// Forgets losses older than `keep`, and containers that went longer than `recent` ago; at once or within
    /// [`PRUNE_PAUSE`].
    pub(crate) fn prune(&mut self, now: Instant, keep: Duration, recent: Duration) {
        let pruned_at = self.pruned_at;
        if pruned_at.is_some_and(|at| now.saturating_since(at) < PRUNE_PAUSE) {
            return;
        }
        self.pruned_at = Some(now);
        forget(&mut self.lost, now, keep);
        forget(&mut self.recent, now, recent);
        self.left_at.retain(|_, at| now.saturating_since(*at) < recent);
    }

    /// What a leadership that starts now inherits.
    pub(crate) fn inheritance(&self, key: &QueueKey) -> Inheritance {
        let rows = self.rows.get(key);
        let rows = || rows.into_iter().flat_map(SmallMap::values);
        let recent = self.recent.get(key).into_iter().flatten();
        let expected: BTreeSet<InvokerId> = rows()
            .filter_map(|row| Some(row.invoker?.0))
            .chain(recent.map(|(invoker, _)| *invoker))
            .collect();
        let containers = rows().filter(|row| row.holds_slot).map(|row| row.known).collect();
        let lost = self
            .lost
            .get(key)
            .into_iter()
            .flatten()
            .map(|(invoker, _)| *invoker);
        // One that is back under a new session is expected as well: what its former life ran stays unknown.
        Inheritance {
            expected: expected.into_iter().collect(),
            lost: lost.collect(),
            containers,
        }
    }

    /// Queues with a container on an invoker.
    pub(crate) fn queues_on(&self, invoker: InvokerId) -> impl Iterator<Item = &QueueKey> {
        let is_there = move |row: &Row| row.invoker.is_some_and(|(on, _)| on == invoker);
        self.rows
            .iter()
            .filter(move |(_, rows)| rows.values().any(&is_there))
            .map(|(key, _)| key)
    }

    /// Since when a container of a queue runs.
    pub(crate) fn running_since(&self, key: &QueueKey, id: ContainerId) -> Option<Instant> {
        self.rows.get(key)?.get(&id)?.running_since
    }

    /// When a container of a queue that an invoker had gave up its slot last, if that is not long ago.
    pub(crate) fn left_at(&self, key: &QueueKey) -> Option<Instant> {
        self.left_at.get(key).copied()
    }

    /// Containers of a queue that run, with their invokers.
    pub(crate) fn running(&self, key: &QueueKey) -> impl Iterator<Item = (ContainerId, InvokerId)> {
        let rows = self.rows.get(key).into_iter().flatten();
        rows.filter(|(_, row)| row.known.running)
            .filter_map(|(id, row)| Some((*id, row.invoker?.0)))
    }
}

type Noted = BTreeMap<QueueKey, Vec<(InvokerId, Instant)>>;

fn note(noted: &mut Noted, now: Instant, key: &QueueKey, invoker: InvokerId) {
    let invokers = noted.entry(key.clone()).or_default();
    invokers.retain(|(other, _)| *other != invoker);
    invokers.push((invoker, now));
}

fn forget(noted: &mut Noted, now: Instant, keep: Duration) {
    noted.retain(|_, invokers| {
        invokers.retain(|(_, at)| now.saturating_since(*at) < keep);
        !invokers.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use whiskraft_types::{ByteSize, Epoch, LogRevision, Revision};

    use super::*;

    fn container(seq: u64) -> ContainerId {
        ContainerId {
            session: SessionId(1),
            seq,
        }
    }

    fn record(invoker: u64, state: ContainerState) -> ContainerRecord {
        ContainerRecord {
            key: QueueKey {
                namespace: "guest".parse().unwrap(),
                action: "guest/hello".parse().unwrap(),
            },
            revision: Revision(1),
            invoker: Some((InvokerId(invoker), SessionId(100 + invoker))),
            state,
            memory: ByteSize::mib(128),
            epoch: Epoch(1),
            since: LogRevision(1),
            resumes: None,
        }
    }

    fn at(secs: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn a_leadership_inherits_who_had_containers_and_who_was_lost_with_one() {
        let mut mirror = Mirror::default();
        let (running, warm, lost) = (
            record(7, ContainerState::Running),
            record(8, ContainerState::Warm),
            record(9, ContainerState::Running),
        );
        mirror.put(at(0), container(1), &running);
        mirror.put(at(0), container(2), &warm);
        mirror.put(at(0), container(3), &lost);
        mirror.remove(at(1), container(3), &lost, &BTreeSet::from([SessionId(109)]));
        let inherited = mirror.inheritance(&running.key);
        assert_eq!(inherited.expected, [InvokerId(7), InvokerId(8)]);
        assert_eq!(inherited.lost, [InvokerId(9)]);
        let known: Vec<_> = inherited.containers.iter().map(|known| known.container).collect();
        assert_eq!(known, [container(1)], "a paused container runs nothing");
    }

    #[test]
    fn a_container_that_ended_by_itself_loses_nobody_but_its_invoker_is_asked_for_a_while() {
        let mut mirror = Mirror::default();
        let row = record(7, ContainerState::Running);
        mirror.put(at(0), container(1), &row);
        assert!(mirror.knows(&row.key, container(1)) && !mirror.knows(&row.key, container(2)));
        mirror.remove(at(1), container(1), &row, &BTreeSet::new());
        assert!(!mirror.knows(&row.key, container(1)));
        let inherited = mirror.inheritance(&row.key);
        assert_eq!(
            (inherited.expected, inherited.lost),
            (vec![InvokerId(7)], Vec::new())
        );
        mirror.prune(at(10), Duration::from_secs(5), Duration::from_secs(9));
        assert_eq!(mirror.inheritance(&row.key), Inheritance::default());
    }

    #[test]
    fn one_that_has_ended_is_asked_for_results_as_long_as_it_is_there_and_served_until_it_ended() {
        let mut mirror = Mirror::default();
        let running = record(7, ContainerState::Running);
        let ended = record(7, ContainerState::Ended);
        mirror.put(at(0), container(1), &running);
        mirror.put(at(3), container(1), &ended);
        let inherited = mirror.inheritance(&ended.key);
        assert_eq!(inherited.expected, [InvokerId(7)]);
        assert_eq!(inherited.containers, []);
        mirror.remove(at(9), container(1), &ended, &BTreeSet::new());
        assert_eq!(mirror.left_at(&ended.key), Some(at(3)));
    }

    #[test]
    fn a_reservation_that_came_to_nothing_served_nobody() {
        let mut mirror = Mirror::default();
        let row = ContainerRecord {
            invoker: None,
            ..record(7, ContainerState::InProgress)
        };
        mirror.put(at(0), container(1), &row);
        mirror.remove(at(1), container(1), &row, &BTreeSet::new());
        assert_eq!(mirror.left_at(&row.key), None);
    }

    #[test]
    fn losses_are_forgotten() {
        let mut mirror = Mirror::default();
        let row = record(7, ContainerState::Running);
        mirror.put(at(0), container(2), &row);
        mirror.remove(at(1), container(2), &row, &BTreeSet::from([SessionId(107)]));
        mirror.prune(at(5), Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(mirror.inheritance(&row.key).lost, [InvokerId(7)]);
        mirror.prune(at(6), Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(mirror.inheritance(&row.key), Inheritance::default());
    }

    #[test]
    fn what_is_to_be_forgotten_is_looked_for_once_a_second() {
        let mut mirror = Mirror::default();
        let row = record(7, ContainerState::Running);
        let (keep, recent) = (Duration::from_secs(5), Duration::from_secs(5));
        mirror.put(at(0), container(1), &row);
        mirror.remove(at(0), container(1), &row, &BTreeSet::new());
        let after = |millis| at(0) + Duration::from_millis(millis);
        mirror.prune(after(4_900), keep, recent);
        mirror.prune(after(5_899), keep, recent);
        assert_eq!(mirror.inheritance(&row.key).expected, [InvokerId(7)]);
        mirror.prune(after(5_900), keep, recent);
        assert_eq!(mirror.inheritance(&row.key), Inheritance::default());
    }

    #[test]
    fn an_invoker_that_is_lost_takes_the_results_of_containers_along_that_went_before() {
        let mut mirror = Mirror::default();
        let row = record(7, ContainerState::Running);
        mirror.put(at(0), container(1), &row);
        mirror.remove(at(1), container(1), &row, &BTreeSet::new());
        mirror.invoker_gone(at(2), InvokerId(8));
        assert_eq!(mirror.inheritance(&row.key).expected, [InvokerId(7)]);
        mirror.invoker_gone(at(2), InvokerId(7));
        let inherited = mirror.inheritance(&row.key);
        assert_eq!(
            (inherited.expected, inherited.lost),
            (Vec::new(), vec![InvokerId(7)])
        );
    }

    #[test]
    fn what_vanished_unseen_with_its_session_counts_as_lost() {
        let mut mirror = Mirror::default();
        mirror.put(at(0), container(1), &record(7, ContainerState::Running));
        mirror.put(at(0), container(2), &record(8, ContainerState::Running));
        mirror.replace(at(1), Mirror::default(), |session| session == SessionId(108));
        let inherited = mirror.inheritance(&record(7, ContainerState::Running).key);
        assert_eq!(
            (inherited.lost, inherited.expected),
            (vec![InvokerId(7)], Vec::new())
        );
    }
}
