//! What watchers of some tables are told of a batch of events, encoded once for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use whiskraft_proto::Message;
use whiskraft_proto::v1::{self, watch_frame::Frame};
use whiskraft_raft::Batch;
use whiskraft_state::{ContainerState, Event};
use whiskraft_types::LogRevision;

use crate::wire;

/// Frames that are remembered, and their bytes, the newest one beyond it: what watchers that keep up ask for, of as many sets of tables
/// as are in use, also after a burst.
const FRAMES_MAX: usize = 1024;
const BYTES_MAX: usize = 4 << 20;

/// Tables that somebody watches, a bit for each by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watched(u32);

impl Watched {
    /// `None` if there are none, or unknown ones.
    pub(super) fn parse(tables: &[i32]) -> Option<Self> {
        let known =
            |table: &i32| v1::Table::try_from(*table).is_ok_and(|table| table != v1::Table::Unspecified);
        let are_good = !tables.is_empty() && tables.iter().all(known);
        are_good.then(|| Self(tables.iter().fold(0, |all, table| all | bit(*table))))
    }

    pub(super) fn wants(self, event: &Event) -> bool {
        self.0 & bit(wire::table(event).into()) != 0 && is_told(event)
    }
}

fn bit(table: i32) -> u32 {
    u32::try_from(table)
        .ok()
        .and_then(|table| 1_u32.checked_shl(table))
        .unwrap_or_default()
}

/// The newest frames; shared by all watchers of this process.
#[derive(Debug, Default)]
pub(super) struct Told {
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Each with its bytes, once it is made.
    frames: BTreeMap<(LogRevision, Watched), (Cell, usize)>,
    /// The sum of them.
    bytes: usize,
}

/// A frame, made by whoever asks first; the others wait for it. `None` if the batch changes nothing in the tables.
type Cell = Arc<OnceLock<Option<Bytes>>>;

impl Told {
    /// The frame for watchers of these tables; `None` if the batch changes nothing in them.
    pub(super) fn frame(&self, batch: &Batch, tables: Watched) -> Option<Bytes> {
        let key = (batch.revision, tables);
        let Some(cell) = self.recent().cell(key) else {
            return changes(batch, tables);
        };
        let mut made = None;
        let frame = cell.get_or_init(|| {
            let frame = changes(batch, tables);
            made = Some(frame.as_ref().map_or(0, Bytes::len));
            frame
        });
        if let Some(len) = made {
            self.recent().note_made(key, &cell, len);
        }
        frame.clone()
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// Where a frame is or will be; `None` if it is older than all that are remembered: whoever is that far behind is alone.
    fn cell(&mut self, key: (LogRevision, Watched)) -> Option<Cell> {
        if let Some((cell, _)) = self.frames.get(&key) {
            return Some(Arc::clone(cell));
        }
        let is_full = self.frames.len() >= FRAMES_MAX || self.bytes > BYTES_MAX;
        let oldest = self.frames.keys().next().copied();
        if is_full && oldest.is_some_and(|oldest| key < oldest) {
            return None;
        }
        while self.frames.len() >= FRAMES_MAX {
            self.forget_oldest();
        }
        let cell = Cell::default();
        self.frames.insert(key, (Arc::clone(&cell), 0));
        Some(cell)
    }

    fn note_made(&mut self, key: (LogRevision, Watched), made: &Cell, len: usize) {
        // It may have been forgotten while it was made, and begun again.
        if let Some((cell, bytes)) = self.frames.get_mut(&key)
            && Arc::ptr_eq(cell, made)
        {
            *bytes = len;
            self.bytes += len;
        }
        while self.bytes > BYTES_MAX && self.frames.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, (_, bytes))) = self.frames.pop_first() {
            self.bytes -= bytes;
        }
    }
}

/// A frame as it goes on the wire.
pub(super) fn encoded(frame: Frame) -> Bytes {
    v1::WatchFrame { frame: Some(frame) }.encode_to_vec().into()
}

fn changes(batch: &Batch, tables: Watched) -> Option<Bytes> {
    let wanted = batch.events.iter().filter(|event| tables.wants(event));
    let events: Vec<_> = wanted.map(wire::event).collect();
    let is_empty = events.is_empty();
    let frame = Frame::Events(v1::WatchBatch {
        revision: batch.revision.0,
        events,
        last: true,
    });
    (!is_empty).then(|| encoded(frame))
}

/// Whether watchers hear of it: not of a container that has ended, since they heard then that it is gone, and of a queue only
/// who leads it.
fn is_told(event: &Event) -> bool {
    match event {
        Event::Container { record, before, .. } => before.unwrap_or(record.state) != ContainerState::Ended,
        Event::HandedOver { .. } => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::NamespaceName;

    use super::*;

    fn batch(revision: u64, namespaces: &[&str]) -> Batch {
        let event = |name: &&str| Event::Namespace(name.parse::<NamespaceName>().unwrap(), None);
        Batch {
            revision: LogRevision(revision),
            events: namespaces.iter().map(event).collect(),
        }
    }

    fn watched(tables: &[v1::Table]) -> Watched {
        let tables: Vec<_> = tables.iter().map(|table| i32::from(*table)).collect();
        Watched::parse(&tables).unwrap()
    }

    #[test]
    fn watchers_of_the_same_tables_share_one_frame() {
        let told = Told::default();
        let tables = watched(&[v1::Table::Namespaces]);
        let first = told.frame(&batch(7, &["a", "b"]), tables).unwrap();
        let second = told.frame(&batch(7, &["a", "b"]), tables).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        let Some(Frame::Events(read)) = v1::WatchFrame::decode(first).unwrap().frame else {
            panic!("no events")
        };
        assert_eq!((read.revision, read.events.len(), read.last), (7, 2, true));
        let next = told.frame(&batch(8, &["a"]), tables).unwrap();
        assert_ne!(next, second);
    }

    #[test]
    fn each_hears_of_the_tables_it_has_named() {
        let told = Told::default();
        let both = watched(&[v1::Table::Queues, v1::Table::Namespaces]);
        assert_eq!(told.frame(&batch(7, &["a"]), watched(&[v1::Table::Queues])), None);
        assert!(told.frame(&batch(7, &["a"]), both).is_some());
        assert_eq!(told.frame(&batch(7, &["a"]), watched(&[v1::Table::Queues])), None);
    }

    #[test]
    fn a_burst_is_encoded_once_however_long_it_is() {
        let told = Told::default();
        let tables = watched(&[v1::Table::Namespaces]);
        let burst = || (1..=200).map(|revision| told.frame(&batch(revision, &["a"]), tables).unwrap());
        let first: Vec<_> = burst().map(|frame| frame.as_ptr()).collect();
        assert_eq!(burst().map(|frame| frame.as_ptr()).collect::<Vec<_>>(), first);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_go() {
        let told = Told::default();
        let tables = watched(&[v1::Table::Namespaces]);
        for revision in 1..2000 {
            told.frame(&batch(revision, &["a"]), tables);
        }
        assert_eq!(told.recent().frames.len(), FRAMES_MAX);
        assert!(
            told.frame(&batch(3, &["a"]), tables).is_some(),
            "for one that is far behind"
        );
        assert!(!told.recent().frames.contains_key(&(LogRevision(3), tables)));
        let names: Vec<_> = (0..200_000).map(|n| format!("n{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for revision in 2000..2003 {
            let long = batch(revision, &names);
            let frame = told.frame(&long, tables).unwrap();
            assert!(frame.len() > BYTES_MAX / 2);
            assert_eq!(
                told.frame(&long, tables).unwrap().as_ptr(),
                frame.as_ptr(),
                "the newest is shared"
            );
        }
        let recent = told.recent();
        assert!(recent.frames.len() <= 2);
        let frames = recent
            .frames
            .values()
            .filter_map(|(cell, _)| cell.get()?.as_ref());
        assert_eq!(recent.bytes, frames.map(Bytes::len).sum::<usize>());
    }

    #[test]
    fn unknown_tables_are_refused() {
        for tables in [&[][..], &[0], &[99], &[1, 99]] {
            assert_eq!(Watched::parse(tables), None);
        }
    }
}
