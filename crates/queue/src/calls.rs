//! Calls that wait for each other: whether a queue's containers come free by themselves.
//!
//! An activation that calls another one and waits for it keeps its container all the while. If every container of a
//! queue is kept like that, and what is waited for has no container to come, time changes nothing: the callers have to
//! be told. Asked by [`MemoryQueue`](crate::MemoryQueue) about itself when nothing can be added, and by the scheduler
//! about several queues of one namespace, which may be led by different schedulers.
//! What is not known counts as coming free: nobody is told for a mistake that only waiting is needed.

use std::collections::BTreeMap;

use whiskraft_types::ActivationId;

/// An activation that another one waits for, and that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The one that waits.
    pub caller: ActivationId,
    /// The one it waits for.
    pub id: ActivationId,
    /// Whether that one has no container yet.
    pub waits: bool,
}

/// What one queue knows of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Whether it can serve without the end of anything that runs in it: it has or gets a container with room, or it is
    /// not known yet what it has.
    pub is_free: bool,
    /// What its containers have.
    pub in_flight: Vec<ActivationId>,
    /// What was called and is in this queue.
    pub calls: Vec<Call>,
}

/// Whether a container of one of these queues comes free without anybody else's doing. The queues are all those of the
/// namespace that can be known of, each once.
///
/// Exact: an activation ends by itself unless one of its calls does not; a call that waits is served if a container of
/// its queue comes free; a container comes free if what runs in it ends.
#[must_use]
pub fn comes_free(queues: &[Calls], whose: usize) -> bool {
    let mut judge = Judge::new(queues);
    judge.run();
    judge.is_free.get(whose).copied().unwrap_or(true)
}

struct Judge<'a> {
    queues: &'a [Calls],
    /// The queue of what is in flight.
    home: BTreeMap<ActivationId, usize>,
    /// Who waits for what is in flight.
    caller_of: BTreeMap<ActivationId, ActivationId>,
    /// Calls of what is in flight that may never end.
    open: BTreeMap<ActivationId, usize>,
    is_free: Vec<bool>,
    /// What ends by itself and has not been looked at.
    ending: Vec<ActivationId>,
}

impl<'a> Judge<'a> {
    fn new(queues: &'a [Calls]) -> Self {
        let mut home = BTreeMap::new();
        for (place, queue) in queues.iter().enumerate() {
            home.extend(queue.in_flight.iter().map(|id| (*id, place)));
        }
        let (mut caller_of, mut open) = (BTreeMap::new(), BTreeMap::<_, usize>::new());
        for call in queues.iter().flat_map(|queue| &queue.calls) {
            if !home.contains_key(&call.caller) || !(call.waits || home.contains_key(&call.id)) {
                continue;
            }
            if !call.waits && caller_of.insert(call.id, call.caller).is_some() {
                continue;
            }
            *open.entry(call.caller).or_default() += 1;
        }
        let ending = home.keys().filter(|id| !open.contains_key(*id));
        let ending = ending.copied().collect();
        Self {
            queues,
            home,
            caller_of,
            open,
            is_free: vec![false; queues.len()],
            ending,
        }
    }

    fn run(&mut self) {
        for (place, queue) in self.queues.iter().enumerate() {
            if queue.is_free {
                self.free(place);
            }
        }
        while let Some(id) = self.ending.pop() {
            if let Some(place) = self.home.get(&id) {
                self.free(*place);
            }
            if let Some(caller) = self.caller_of.remove(&id) {
                self.end_call(caller);
            }
        }
    }

    /// A queue serves what waits in it.
    fn free(&mut self, place: usize) {
        let (Some(queue), Some(is_free)) = (self.queues.get(place), self.is_free.get_mut(place)) else {
            return;
        };
        if std::mem::replace(is_free, true) {
            return;
        }
        for call in queue.calls.iter().filter(|call| call.waits) {
            self.end_call(call.caller);
        }
    }

    fn end_call(&mut self, caller: ActivationId) {
        if let Some(open) = self.open.get_mut(&caller) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.open.remove(&caller);
                self.ending.push(caller);
            }
        }
    }
}

#[cfg(test)]
mod calls_test;
