//! The invokers of one batch of placements and what is left of them.

use whiskraft_types::{ByteSize, InvokerId, NamespaceName};

/// An invoker that has a session. Those that can get nothing now are candidates too: the parts of the cluster are taken
/// over all of them, or they would move whenever one fills up or is disturbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub invoker: InvokerId,
    /// Whether it is healthy and connected.
    pub usable: bool,
    /// Whether it is judged to do its work badly: it gets nothing while somebody else serves the request.
    pub suspect: bool,
    /// Whether one container is all it gets, after which it is a suspect: it has to show that it works again.
    pub on_trial: bool,
    /// Memory it has for containers.
    pub total: ByteSize,
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

/// The invokers of one batch of placements.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// By id. Of one that has dropped out nothing is free.
    all: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    candidate: Candidate,
    /// Whether less than the smallest container is left of it.
    dropped_out: bool,
}

impl Candidates {
    /// Candidates in any order.
    #[must_use]
    pub fn new(candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let mut all: Vec<_> = candidates
            .into_iter()
            .map(|candidate| Entry {
                candidate,
                dropped_out: false,
            })
            .collect();
        all.sort_by_key(|entry| entry.candidate.invoker);
        Self { all }
    }

    /// Takes memory from an invoker; it drops out when less than `memory_min` is left.
    pub fn debit(&mut self, invoker: InvokerId, memory: ByteSize, memory_min: ByteSize) {
        if let Some(at) = self.position(invoker) {
            let Entry {
                candidate,
                dropped_out,
            } = &mut self.all[at];
            candidate.free = candidate.free.saturating_sub(memory);
            if *dropped_out || candidate.free < memory_min {
                (candidate.free, *dropped_out) = (ByteSize::ZERO, true);
            }
        }
    }

    /// Counts memory as free again that will come free; one that had dropped out is back with that.
    pub fn give_back(&mut self, invoker: InvokerId, memory: ByteSize) {
        if let Some(at) = self.position(invoker) {
            let Entry {
                candidate,
                dropped_out,
            } = &mut self.all[at];
            candidate.free = candidate.free.saturating_add(memory).min(candidate.total);
            *dropped_out = false;
        }
    }

    /// Gives an invoker a container.
    pub fn give(&mut self, invoker: InvokerId, memory: ByteSize, memory_min: ByteSize) {
        self.debit(invoker, memory, memory_min);
        if let Some(at) = self.position(invoker) {
            let candidate = &mut self.all[at].candidate;
            candidate.suspect |= std::mem::take(&mut candidate.on_trial);
        }
    }

    /// Memory left of an invoker; `None` if it has dropped out or is not a candidate.
    #[must_use]
    pub fn left(&self, invoker: InvokerId) -> Option<ByteSize> {
        let entry = &self.all[self.position(invoker)?];
        (!entry.dropped_out).then_some(entry.candidate.free)
    }

    /// All of them by id, with what is left of them.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.all.iter().map(|entry| &entry.candidate)
    }

    fn position(&self, invoker: InvokerId) -> Option<usize> {
        self.all
            .binary_search_by_key(&invoker, |entry| entry.candidate.invoker)
            .ok()
    }
}
