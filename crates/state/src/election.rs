//! Who leads a queue: of two live schedulers picked by a fixed hash, the one with fewer queues.
//!
//! The hash is part of the replicated format: every release must place a queue where the others place it, so
//! neither [`hash`] nor [`two_of`] may change without a new version of the commands that elect.

use whiskraft_types::{LogRevision, QueueKey, SchedulerId, SessionId};

use crate::state::State;

/// Chooses leaders within one command; the candidates do not change while it runs.
#[derive(Debug)]
pub(crate) struct Election {
    /// By scheduler id.
    candidates: Vec<(SchedulerId, SessionId)>,
}

impl Election {
    /// Members that live and take queues; if there are none those that live and drain: who was asked to go serves until
    /// there is somebody to go to.
    pub(crate) fn among(state: &State) -> Self {
        let willing = Self::live(state, |is_draining| !is_draining);
        if willing.is_empty() {
            return Self::live(state, |_| true);
        }
        willing
    }

    /// Members that live and take queues but for one session: where its queues may be moved to.
    pub(crate) fn without(state: &State, session: SessionId) -> Self {
        let mut election = Self::live(state, |is_draining| !is_draining);
        election.candidates.retain(|(_, candidate)| *candidate != session);
        election
    }

    fn live(state: &State, takes_queues: impl Fn(bool) -> bool) -> Self {
        let willing = state
            .members()
            .filter(|(_, member)| takes_queues(member.draining));
        let candidates = willing
            .filter_map(|(id, _)| Some((id, state.scheduler_session(id)?)))
            .collect();
        Self { candidates }
    }

    /// The candidate of this id.
    pub(crate) fn find(&self, id: SchedulerId) -> Option<(SchedulerId, SessionId)> {
        self.candidates.iter().find(|(other, _)| *other == id).copied()
    }

    /// Whether nobody can lead.
    pub(crate) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The leader of a queue, by the queues that the candidates lead at this point of the command.
    pub(crate) fn leader(
        &self,
        state: &State,
        key: &QueueKey,
        revision: LogRevision,
    ) -> Option<(SchedulerId, SessionId)> {
        let (first, second) = two_of(self.candidates.len(), hash(key, revision));
        let drawn = [self.candidates.get(first), self.candidates.get(second)]
            .into_iter()
            .flatten()
            .copied();
        drawn.min_by_key(|(id, session)| (state.queues_led(*session), *id))
    }
}

/// Positions of two different candidates out of `len`; the same one twice if there is only one.
fn two_of(len: usize, hash: u64) -> (usize, usize) {
    let len = len as u64;
    let first = (hash & 0xffff_ffff).checked_rem(len).unwrap_or_default();
    // The other half of the hash picks among the rest: those after `first` move up by one.
    let second = (hash >> 32)
        .checked_rem(len.saturating_sub(1))
        .map_or(first, |at| at + u64::from(at >= first));
    (first as usize, second as usize)
}

/// Over namespace, a zero byte, action and the little-endian revision.
fn hash(key: &QueueKey, revision: LogRevision) -> u64 {
    let namespace = key.namespace.as_str().bytes().chain([0]);
    let bytes = namespace
        .chain(key.action.as_str().bytes())
        .chain(revision.0.to_le_bytes());
    crate::hash::of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: format!("guest/a{n}").parse().unwrap(),
        }
    }

    #[test]
    fn hash_is_part_of_the_format() {
        // Computed by another implementation of the text above.
        assert_eq!(hash(&key(1), LogRevision(7)), 0xcf2951e2e53f7893);
        assert_eq!(hash(&key(1), LogRevision(8)), 0xa44899c1371299aa);
        assert_eq!(hash(&key(2), LogRevision(7)), 0x3e7eb2ffc3acef14);
    }

    #[test]
    fn two_different_candidates_are_drawn_and_each_pair_comes_up() {
        for len in 2..6 {
            let mut pairs = std::collections::BTreeSet::new();
            for n in 0..500 {
                let (a, b) = two_of(len, hash(&key(n), LogRevision(3)));
                assert!(a < len && b < len && a != b, "{a} {b} of {len}");
                pairs.insert((a, b));
            }
            assert_eq!(pairs.len(), len * (len - 1));
        }
        assert_eq!(two_of(1, 12345 << 20), (0, 0));
        assert_eq!(two_of(0, 12345), (0, 0));
    }
}
