//! Changes of a lane that are applied and not yet in the engine.
//!
//! Most activations end soon after they were accepted. What a lane does is in its log, on disk, before it is applied; so
//! its rows can reach the engine later, many at once, and of an activation that has ended by then only the end does. A
//! restart applies again what is only in the log.
//!
//! Invariant: the layer being written, and above it the open one, hide what the engine has for the same keys.
//! Invariant: a layer reaches the engine whole, with the log id it leads to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use whiskraft_state::journal::{Fence, JournalRow, LaneMillis};
use whiskraft_types::{ActivationId, QueueKey};

use super::lane_rows::LaneState;

/// Bytes of changes after which a layer is to be written: some thousand activations, and what a restart applies again.
const FULL_BYTES: usize = 2 << 20;
/// What a row and a place in a list take, about.
const ROW_BYTES: usize = 192;
const LISTED_BYTES: usize = 128;
/// What stands beside a payload or record, about.
const VALUE_BYTES: usize = 64;

/// A value with the time at which it expires.
pub(super) type Expiring = (Option<LaneMillis>, Bytes);
/// Where in the log how many bytes were applied.
pub(super) type Marks = Vec<(u64, u64)>;

/// What is to become of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot<T> {
    /// It is set, and nothing below this layer has it: deleted again, it leaves no trace.
    New(T),
    /// It is set.
    Put(T),
    /// It is removed.
    Deleted,
}

impl<T> Slot<T> {
    /// The value, if it is not removed.
    pub(super) const fn value(&self) -> Option<&T> {
        match self {
            Self::New(value) | Self::Put(value) => Some(value),
            Self::Deleted => None,
        }
    }
}

/// Some changes.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) rows: BTreeMap<ActivationId, JournalRow>,
    pub(super) payloads: BTreeMap<ActivationId, Slot<Expiring>>,
    pub(super) records: BTreeMap<ActivationId, Slot<Expiring>>,
    /// By key of the engine: when it expires.
    pub(super) index: BTreeMap<Vec<u8>, Slot<Option<LaneMillis>>>,
    pub(super) fences: BTreeMap<QueueKey, Fence>,
    /// How far they bring the lane; `None` if nothing was applied.
    pub(super) reached: Option<LaneState>,
    /// The lane's clock before the first of them.
    since: LaneMillis,
    pub(super) marks: Option<Marks>,
    bytes: usize,
}

impl Layer {
    /// Whether it is to be written.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }

    fn is_empty(&self) -> bool {
        self.reached.is_none()
    }
}

/// All layers of a lane, the newest first.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) open: Layer,
    /// The one that is being written.
    pub(super) writing: Option<Arc<Layer>>,
}

impl Layers {
    /// What the layers say of a key; `None`: the engine knows.
    fn find<'a, T>(&'a self, of: impl Fn(&'a Layer) -> Option<&'a T>) -> Option<&'a T> {
        of(&self.open).or_else(|| self.writing.as_deref().and_then(of))
    }

    pub(super) fn row(&self, id: ActivationId) -> Option<&JournalRow> {
        self.find(|layer| layer.rows.get(&id))
    }

    pub(super) fn payload(&self, id: ActivationId) -> Option<&Slot<Expiring>> {
        self.find(|layer| layer.payloads.get(&id))
    }

    pub(super) fn record(&self, id: ActivationId) -> Option<&Slot<Expiring>> {
        self.find(|layer| layer.records.get(&id))
    }

    pub(super) fn fence(&self, key: &QueueKey) -> Option<Fence> {
        self.find(|layer| layer.fences.get(key)).copied()
    }

    /// Places in lists from a key (inclusive) to another (exclusive), ascending: whether each is there.
    pub(super) fn listed(&self, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let range = || (std::ops::Bound::Included(from), std::ops::Bound::Excluded(to));
        let mut listed = BTreeMap::new();
        if from >= to {
            return Vec::new();
        }
        for layer in self.writing.as_deref().into_iter().chain([&self.open]) {
            let places = layer.index.range::<[u8], _>(range());
            listed.extend(places.map(|(key, slot)| (key.clone(), slot.value().is_some())));
        }
        listed.into_iter().collect()
    }

    pub(super) fn put_row(&mut self, row: JournalRow) {
        if self.open.rows.insert(row.id, row).is_none() {
            self.open.bytes += ROW_BYTES;
        }
    }

    /// Sets the payload of an activation that was just accepted: an earlier one of the same id was deleted when that ended.
    pub(super) fn put_new_payload(&mut self, id: ActivationId, payload: Bytes) {
        self.open.bytes += VALUE_BYTES + payload.len();
        let is_new = self.payload(id).is_none();
        let payload = (None, payload);
        let slot = if is_new {
            Slot::New(payload)
        } else {
            Slot::Put(payload)
        };
        self.open.payloads.insert(id, slot);
    }

    pub(super) fn put_payload(&mut self, id: ActivationId, expires: LaneMillis, payload: Bytes) {
        self.open.bytes += VALUE_BYTES + payload.len();
        self.open.payloads.insert(id, Slot::Put((Some(expires), payload)));
    }

    pub(super) fn delete_payload(&mut self, id: ActivationId) {
        match self.open.payloads.get(&id) {
            Some(Slot::New((_, payload))) => {
                self.open.bytes = self.open.bytes.saturating_sub(VALUE_BYTES + payload.len());
                self.open.payloads.remove(&id);
            }
            _ => {
                self.open.bytes += VALUE_BYTES;
                self.open.payloads.insert(id, Slot::Deleted);
            }
        }
    }

    pub(super) fn put_record(&mut self, id: ActivationId, expires: LaneMillis, record: Bytes) {
        self.open.bytes += VALUE_BYTES + record.len();
        self.open.records.insert(id, Slot::Put((Some(expires), record)));
    }

    pub(super) fn delete_record(&mut self, id: ActivationId) {
        self.open.bytes += VALUE_BYTES;
        self.open.records.insert(id, Slot::Deleted);
    }

    /// Lists something under a key that no list has.
    pub(super) fn list(&mut self, key: Vec<u8>, expires: Option<LaneMillis>) {
        let below = self.writing.as_deref().and_then(|layer| layer.index.get(&key));
        let is_new =
            below.is_none() && !matches!(self.open.index.get(&key), Some(Slot::Put(_) | Slot::Deleted));
        self.open.bytes += LISTED_BYTES;
        let slot = if is_new {
            Slot::New(expires)
        } else {
            Slot::Put(expires)
        };
        self.open.index.insert(key, slot);
    }

    pub(super) fn unlist(&mut self, key: Vec<u8>) {
        if let Some(Slot::New(_)) = self.open.index.get(&key) {
            self.open.bytes = self.open.bytes.saturating_sub(LISTED_BYTES);
            self.open.index.remove(&key);
        } else {
            self.open.bytes += LISTED_BYTES;
            self.open.index.insert(key, Slot::Deleted);
        }
    }

    pub(super) fn put_fence(&mut self, key: QueueKey, fence: Fence) {
        self.open.bytes += LISTED_BYTES;
        self.open.fences.insert(key, fence);
    }

    /// Notes how far the changes have brought the lane, whose clock stood there before; the lane's clock before the first one
    /// that is not written.
    pub(super) fn reach(
        &mut self,
        state: &LaneState,
        marks: Option<&[(u64, u64)]>,
        before: LaneMillis,
    ) -> LaneMillis {
        if self.open.is_empty() {
            self.open.since = before;
        }
        self.open.reached = Some(state.clone());
        if let Some(marks) = marks {
            self.open.marks = Some(marks.to_vec());
        }
        self.writing.as_ref().map_or(self.open.since, |layer| layer.since)
    }

    /// The layer to be written next; `None` if there is nothing. Until it was [written](Self::written) it is given again.
    pub(super) fn begin_write(&mut self) -> Option<Arc<Layer>> {
        if self.writing.is_none() && !self.open.is_empty() {
            self.writing = Some(Arc::new(std::mem::take(&mut self.open)));
        }
        self.writing.clone()
    }

    /// The engine has what [`Self::begin_write`] gave.
    pub(super) fn written(&mut self) {
        self.writing = None;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ActivationId {
        ActivationId::from_bytes([number; 16])
    }

    fn payload() -> Bytes {
        Bytes::from_static(b"payload")
    }

    #[test]
    fn what_began_and_ended_in_one_layer_leaves_no_trace() {
        let mut layers = Layers::default();
        layers.put_new_payload(id(1), payload());
        layers.list(vec![1], None);
        assert_eq!(layers.listed(&[0], &[9]), [(vec![1], true)]);
        layers.delete_payload(id(1));
        layers.unlist(vec![1]);
        assert_eq!(layers.payload(id(1)), None);
        assert_eq!(layers.listed(&[0], &[9]), []);
        assert_eq!(layers.open.bytes, 0);
    }

    #[test]
    fn what_a_layer_below_has_is_hidden_until_it_is_removed_there() {
        let mut layers = Layers::default();
        layers.put_new_payload(id(1), payload());
        layers.list(vec![1], None);
        layers.list(vec![2], None);
        layers.reach(&LaneState::default(), None, LaneMillis(0));
        assert!(layers.begin_write().is_some());
        layers.delete_payload(id(1));
        layers.unlist(vec![1]);
        layers.list(vec![3], None);
        assert_eq!(layers.payload(id(1)), Some(&Slot::Deleted));
        let listed = [(vec![1], false), (vec![2], true), (vec![3], true)];
        assert_eq!(layers.listed(&[0], &[9]), listed);
        assert_eq!(layers.listed(&[2], &[3]), [(vec![2], true)]);
        // Set again above a removal, it is removed again and not forgotten.
        layers.put_new_payload(id(1), payload());
        layers.delete_payload(id(1));
        assert_eq!(layers.payload(id(1)), Some(&Slot::Deleted));
        layers.written();
        assert_eq!(layers.listed(&[0], &[9]), [(vec![1], false), (vec![3], true)]);
    }

    #[test]
    fn a_layer_is_given_until_it_is_written_and_the_clock_counts_from_the_first_that_is_not() {
        let mut layers = Layers::default();
        assert!(layers.begin_write().is_none(), "nothing was applied");
        let at = |clock| LaneState {
            clock: LaneMillis(clock),
            ..LaneState::default()
        };
        assert_eq!(layers.reach(&at(5), None, LaneMillis(3)), LaneMillis(3));
        assert_eq!(layers.reach(&at(9), None, LaneMillis(5)), LaneMillis(3));
        let first = layers.begin_write().unwrap();
        assert_eq!(layers.reach(&at(20), None, LaneMillis(9)), LaneMillis(3));
        let again = layers.begin_write().unwrap();
        assert!(Arc::ptr_eq(&first, &again), "it could not be written");
        layers.written();
        assert_eq!(layers.reach(&at(21), None, LaneMillis(20)), LaneMillis(9));
    }
}
