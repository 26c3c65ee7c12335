//! The queues that one shard leads, and the indexes that find them: by key, deadline, invoker and namespace.
//!
//! Invariant: every index entry names an occupied slot; [`LocalQueues::remove`] takes all of them along.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use whiskraft_queue::{ActionProfile, Input, MemoryQueue, Recovered};
use whiskraft_types::{
    Blank, ByteSize, ContainerId, Epoch, Instant, InvokerId, NamespaceName, QueueKey, Rare, SessionId,
    SmallMap, SmallSet,
};

use crate::message::{Payload, Record};
use crate::rate::Stock;
use crate::shard::actor::QueueInput;
use crate::shard::frozen::Frozen;

/// Place of a queue in its shard; reused after the queue is gone.
pub(crate) type Slot = usize;

/// What has been read of a queue's open activations, and when its newest part came: they grow older until the last one has.
#[derive(Debug, Default)]
pub(crate) struct Recovering {
    rows: Vec<Recovered<Payload>>,
    at: Instant,
}

impl Recovering {
    /// Takes a part in.
    pub(crate) fn add(&mut self, now: Instant, part: Vec<Recovered<Payload>>) {
        let passed = now.saturating_since(std::mem::replace(&mut self.at, now));
        for row in &mut self.rows {
            row.waited += passed;
            // One that must not begin yet has been ready for no longer than since it may.
            row.ready += row
                .not_before
                .map_or(passed, |at| now.saturating_since(at).min(passed));
        }
        self.rows.extend(part);
    }

    /// All of it, as it is at the last part.
    pub(crate) fn into_rows(self) -> Vec<Recovered<Payload>> {
        self.rows
    }
}

/// What a queue has to do with invokers.
#[derive(Debug, Default)]
pub(crate) struct Dealings {
    /// Where the containers are that it knows.
    pub(crate) places: SmallMap<ContainerId, InvokerId>,
    /// Invokers that were asked to register on their current stream and have not answered yet.
    pub(crate) asked: SmallSet<InvokerId>,
    /// Those it has anything to do with.
    invokers: SmallSet<InvokerId>,
}

impl Blank for Dealings {
    const BLANK: &'static Self = &Self {
        places: SmallMap::new(),
        asked: SmallSet::new(),
        invokers: SmallSet::new(),
    };
}

/// A queue under one leadership.
pub(crate) struct LocalQueue {
    /// Our session that leads it.
    pub(crate) session: SessionId,
    /// Memory of one container.
    pub(crate) memory: ByteSize,
    pub(crate) queue: MemoryQueue<Payload, Record>,
    pub(crate) dealings: Rare<Dealings>,
    /// What arrives while it is on its way to another scheduler.
    pub(crate) frozen: Option<Box<Frozen>>,
    /// While its open activations are read from the journal: those that have been.
    pub(crate) recovering: Option<Box<Recovering>>,
    /// Tokens of its namespace, if that has a rate limit.
    pub(crate) rate: Option<Arc<Stock>>,
    deadline: Option<Instant>,
}

impl LocalQueue {
    /// Which queue it is.
    pub(crate) const fn key(&self) -> &QueueKey {
        self.queue.key()
    }

    /// Generation of the leadership.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.queue.epoch()
    }

    /// What it needs of its action.
    pub(crate) const fn profile(&self) -> &ActionProfile {
        self.queue.action()
    }

    /// Takes over what its action is now, and gives what its queue has to hear of that. A frozen one does so when it goes
    /// on: only then it is known what it has by then.
    pub(crate) fn adopt(&mut self, profile: ActionProfile, memory: ByteSize) -> Option<QueueInput> {
        if let Some(frozen) = &mut self.frozen {
            frozen.hold_action(profile, memory);
            return None;
        }
        let known = self.profile();
        // Nor does the queue go back to an older revision.
        if *known == profile || profile.revision < known.revision {
            return None;
        }
        self.memory = memory;
        Some(Input::Action(profile))
    }

    /// Forgets where a container is; whether it knew.
    pub(crate) fn forget_place(&mut self, container: ContainerId) -> bool {
        self.dealings.places.contains_key(&container) && self.dealings.places.remove(&container).is_some()
    }

    /// Invokers that it has dealings with.
    pub(crate) fn invokers(&self) -> impl Iterator<Item = InvokerId> {
        self.dealings.invokers.iter().copied()
    }

    pub(crate) fn new(session: SessionId, memory: ByteSize, queue: MemoryQueue<Payload, Record>) -> Self {
        Self {
            session,
            memory,
            queue,
            dealings: Rare::new(),
            frozen: None,
            recovering: Some(Box::default()),
            rate: None,
            deadline: None,
        }
    }
}

/// All queues of a shard.
#[derive(Default)]
pub(crate) struct LocalQueues {
    /// Boxed: the list doubles as it grows.
    slots: Vec<Option<Box<LocalQueue>>>,
    free: Vec<Slot>,
    by_key: HashMap<QueueKey, Slot>,
    deadlines: BTreeSet<(Instant, Slot)>,
    by_invoker: BTreeSet<(InvokerId, Slot)>,
    by_namespace: BTreeSet<(NamespaceName, Slot)>,
    /// Those that may expect invokers to register; each is struck off at the first look after it does not.
    expecting: BTreeSet<Slot>,
}

impl LocalQueues {
    /// Adds a queue; its key must not be there.
    pub(crate) fn insert(&mut self, queue: LocalQueue) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let before = self.by_key.insert(queue.key().clone(), slot);
        assert!(
            before.is_none(),
            "queue {} is led twice by one shard",
            queue.key()
        );
        self.by_namespace.insert((queue.key().namespace.clone(), slot));
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Box::new(queue));
        }
        slot
    }

    /// Removes a queue.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<LocalQueue>> {
        let queue = self.slots.get_mut(slot)?.take()?;
        self.by_key.remove(queue.key());
        self.by_namespace.remove(&(queue.key().namespace.clone(), slot));
        self.expecting.remove(&slot);
        for invoker in queue.dealings.invokers.iter() {
            self.by_invoker.remove(&(*invoker, slot));
        }
        if let Some(deadline) = queue.deadline {
            self.deadlines.remove(&(deadline, slot));
        }
        self.free.push(slot);
        Some(queue)
    }

    /// Notes that a queue has dealings with an invoker.
    pub(crate) fn link(&mut self, slot: Slot, invoker: InvokerId) {
        if let Some(queue) = self.get_mut(slot)
            && queue.dealings.invokers.insert(invoker)
        {
            self.by_invoker.insert((invoker, slot));
        }
    }

    /// Forgets the dealings of all queues with an invoker; gives those that had some.
    pub(crate) fn unlink(&mut self, invoker: InvokerId) -> Vec<Slot> {
        let slots = self.linked(invoker);
        for slot in &slots {
            self.by_invoker.remove(&(invoker, *slot));
            if let Some(queue) = self.get_mut(*slot) {
                queue.dealings.invokers.remove(&invoker);
                queue.dealings.asked.remove(&invoker);
            }
        }
        slots
    }

    /// Notes that a queue expects invokers to register.
    pub(crate) fn note_expecting(&mut self, slot: Slot) {
        self.expecting.insert(slot);
    }

    /// Queues that expect invokers to register.
    pub(crate) fn expecting(&mut self) -> Vec<Slot> {
        let slots = &self.slots;
        let queue = |slot: Slot| slots.get(slot)?.as_deref();
        self.expecting
            .retain(|slot| queue(*slot).is_some_and(|local| local.queue.expects_invokers()));
        self.expecting.iter().copied().collect()
    }

    /// Notes when a queue wants its next tick.
    pub(crate) fn schedule(&mut self, slot: Slot) {
        let Some(queue) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let next = queue.queue.next_deadline();
        if queue.deadline == next {
            return;
        }
        if let Some(old) = std::mem::replace(&mut queue.deadline, next) {
            self.deadlines.remove(&(old, slot));
        }
        if let Some(next) = next {
            self.deadlines.insert((next, slot));
        }
    }

    /// Takes the earliest deadline that has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Slot> {
        let (_, slot) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.deadlines.pop_first();
        if let Some(queue) = self.get_mut(slot) {
            queue.deadline = None;
        }
        Some(slot)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn slot(&self, key: &QueueKey) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&LocalQueue> {
        self.slots.get(slot)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut LocalQueue> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    /// Occupied slots.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        (0..self.slots.len())
            .filter(|slot| self.get(*slot).is_some())
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LocalQueue> {
        self.slots.iter().flatten().map(Box::as_ref)
    }

    /// Places for queues, occupied or not; slots are below this.
    pub(crate) fn places_len(&self) -> usize {
        self.slots.len()
    }

    /// Queues that have dealings with an invoker.
    pub(crate) fn linked(&self, invoker: InvokerId) -> Vec<Slot> {
        let range = (invoker, Slot::MIN)..=(invoker, Slot::MAX);
        self.by_invoker.range(range).map(|(_, slot)| *slot).collect()
    }

    /// Queues of a namespace.
    pub(crate) fn in_namespace(&self, namespace: &NamespaceName) -> Vec<Slot> {
        let range = (namespace.clone(), Slot::MIN)..=(namespace.clone(), Slot::MAX);
        self.by_namespace.range(range).map(|(_, slot)| *slot).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use whiskraft_queue::QueueSettings;
    use whiskraft_types::{ActivationId, Revision};

    use super::*;
    use crate::message::Content;

    /// What an action asks for at a revision.
    pub(in crate::shard) fn profile(revision: u64) -> ActionProfile {
        ActionProfile {
            revision: Revision(revision),
            concurrency: 1,
            instances: None,
            blackbox: false,
            timeout: Duration::from_secs(60),
            deleted: false,
            retry: Rare::new(),
        }
    }

    /// A queue of an action at revision 1, whose containers take a MiB.
    pub(in crate::shard) fn queue(action: &str) -> LocalQueue {
        let key = QueueKey {
            namespace: "guest".parse().unwrap(),
            action: action.parse().unwrap(),
        };
        let settings = Arc::new(QueueSettings::default());
        let queue = MemoryQueue::new(key, Epoch(1), profile(1), settings, Instant::ORIGIN);
        LocalQueue::new(SessionId(1), ByteSize::mib(1), queue)
    }

    fn step(queues: &mut LocalQueues, slot: Slot, input: QueueInput) {
        let local = queues.get_mut(slot).unwrap();
        local.queue.step(Instant::ORIGIN, input, &mut Vec::new());
    }

    fn take_over(queues: &mut LocalQueues, action: &str, expected: &[InvokerId]) -> Slot {
        let slot = queues.insert(queue(action));
        queues.note_expecting(slot);
        let takeover = Input::Takeover {
            expected: expected.to_vec(),
            lost: Vec::new(),
            containers: Vec::new(),
            recovers: true,
        };
        step(queues, slot, takeover);
        slot
    }

    fn register(invoker: InvokerId) -> QueueInput {
        Input::Register {
            invoker,
            containers: Vec::new(),
            unacknowledged: Vec::new(),
        }
    }

    #[test]
    fn a_queue_is_looked_at_until_all_that_it_expects_have_registered() {
        let mut queues = LocalQueues::default();
        let [one, two] = [1, 2].map(InvokerId);
        let first = take_over(&mut queues, "guest/first", &[one, two]);
        let second = take_over(&mut queues, "guest/second", &[two]);
        let nobody = take_over(&mut queues, "guest/nobody", &[]);
        assert_eq!(queues.expecting(), [first, second]);
        assert!(!queues.expecting.contains(&nobody), "struck off");
        step(&mut queues, first, register(one));
        step(&mut queues, second, register(two));
        assert_eq!(queues.expecting(), [first]);
        step(&mut queues, first, Input::InvokerGone { invoker: two });
        assert!(queues.expecting().is_empty());
    }

    #[test]
    fn a_slot_used_again_expects_what_its_new_queue_does() {
        let mut queues = LocalQueues::default();
        let slot = take_over(&mut queues, "guest/old", &[InvokerId(1)]);
        queues.remove(slot);
        assert!(queues.expecting().is_empty());
        assert_eq!(queues.insert(queue("guest/created")), slot);
        assert!(queues.expecting.is_empty(), "nothing is left of the old one");
        queues.remove(slot);
        assert_eq!(take_over(&mut queues, "guest/taken", &[InvokerId(2)]), slot);
        assert_eq!(queues.expecting(), [slot]);
    }

    #[test]
    fn what_was_read_first_is_as_old_in_the_end_as_if_it_had_been_read_last() {
        let at = |secs| Instant::from_origin(Duration::from_secs(secs));
        let payload = Arc::new(Content {
            arguments: "{}".into(),
            transaction: String::new(),
            subject: String::new(),
            api_key: String::new(),
            cause: String::new(),
        });
        let row = |number, waited, not_before: Option<u64>| Recovered {
            id: ActivationId::from_bytes([number; 16]),
            waited: Duration::from_secs(waited),
            ready: Duration::from_secs(if not_before.is_some() { 0 } else { waited }),
            run: 1,
            not_before: not_before.map(at),
            cancelled: false,
            payload: Arc::clone(&payload),
        };
        let mut recovering = Recovering::default();
        recovering.add(
            at(100),
            vec![row(1, 8, None), row(2, 50, Some(103)), row(3, 9, Some(200))],
        );
        recovering.add(at(105), vec![row(4, 10, None)]);
        recovering.add(at(106), Vec::new());
        let ages = recovering
            .into_rows()
            .into_iter()
            .map(|row| (row.waited.as_secs(), row.ready.as_secs()));
        assert_eq!(ages.collect::<Vec<_>>(), [(14, 14), (56, 3), (15, 0), (11, 11)]);
    }
}
