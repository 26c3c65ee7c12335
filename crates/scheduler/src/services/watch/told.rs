//! What watchers of some tables are told of a batch of events, encoded once for all of them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use whiskraft_proto::Message;
use whiskraft_proto::v1::{self, watch_frame::Frame};
use whiskraft_raft::Batch;
use whiskraft_state::{ContainerState, Event};
use whiskraft_types::LogRevision;

use crate::wire;

/// Frames that are remembered: watchers that keep up ask for the newest few, of as many sets of tables as are in use.
const FRAMES_MAX: usize = 64;
/// Longest frame that is; a longer one is rare, and all of them must not add up.
const FRAME_LEN_MAX: usize = 64 << 10;

/// Tables that somebody watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched(BTreeSet<i32>);

impl Watched {
    /// `None` if there are none, or unknown ones.
    pub(super) fn parse(tables: &[i32]) -> Option<Self> {
        let known =
            |table: &i32| v1::Table::try_from(*table).is_ok_and(|table| table != v1::Table::Unspecified);
        let are_good = !tables.is_empty() && tables.iter().all(known);
        are_good.then(|| Self(tables.iter().copied().collect()))
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        self.0.contains(&i32::from(wire::table(event))) && is_told(event)
    }
}

/// The newest frames; shared by all watchers of this process.
#[derive(Debug, Default)]
pub(super) struct Told {
    recent: Mutex<VecDeque<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    revision: LogRevision,
    tables: Watched,
    frame: Option<Bytes>,
}

impl Told {
    /// The frame for watchers of these tables; `None` if the batch changes nothing in them.
    pub(super) fn frame(&self, batch: &Batch, tables: &Watched) -> Option<Bytes> {
        // Held while the frame is made, so that whoever asks next finds it.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recent
            .iter()
            .rev()
            .find(|known| known.revision == batch.revision && known.tables == *tables);
        if let Some(found) = found {
            return found.frame.clone();
        }
        let frame = changes(batch, tables);
        if frame.as_ref().is_none_or(|frame| frame.len() <= FRAME_LEN_MAX) {
            if recent.len() == FRAMES_MAX {
                recent.pop_front();
            }
            recent.push_back(Remembered {
                revision: batch.revision,
                tables: tables.clone(),
                frame: frame.clone(),
            });
        }
        frame
    }
}

/// A frame as it goes on the wire.
pub(super) fn encoded(frame: Frame) -> Bytes {
    v1::WatchFrame { frame: Some(frame) }.encode_to_vec().into()
}

fn changes(batch: &Batch, tables: &Watched) -> Option<Bytes> {
    let wanted = batch.events.iter().filter(|event| tables.wants(event));
    let events: Vec<_> = wanted.map(wire::event).collect();
    let frame = Frame::Events(v1::WatchBatch {
        revision: batch.revision.0,
        events,
        last: true,
    });
    let is_empty = matches!(&frame, Frame::Events(batch) if batch.events.is_empty());
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
        let first = told.frame(&batch(7, &["a", "b"]), &tables).unwrap();
        let second = told.frame(&batch(7, &["a", "b"]), &tables).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        let Some(Frame::Events(read)) = v1::WatchFrame::decode(first).unwrap().frame else {
            panic!("no events")
        };
        assert_eq!((read.revision, read.events.len(), read.last), (7, 2, true));
        let next = told.frame(&batch(8, &["a"]), &tables).unwrap();
        assert_ne!(next, second);
    }

    #[test]
    fn each_hears_of_the_tables_it_has_named() {
        let told = Told::default();
        let both = watched(&[v1::Table::Queues, v1::Table::Namespaces]);
        assert_eq!(
            told.frame(&batch(7, &["a"]), &watched(&[v1::Table::Queues])),
            None
        );
        assert!(told.frame(&batch(7, &["a"]), &both).is_some());
        assert_eq!(
            told.frame(&batch(7, &["a"]), &watched(&[v1::Table::Queues])),
            None
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let told = Told::default();
        let tables = watched(&[v1::Table::Namespaces]);
        for revision in 1..200 {
            told.frame(&batch(revision, &["a"]), &tables);
        }
        assert_eq!(told.recent.lock().unwrap().len(), FRAMES_MAX);
        let names: Vec<_> = (0..20_000).map(|n| format!("n{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(told.frame(&batch(200, &names), &tables).unwrap().len() > FRAME_LEN_MAX);
        let recent = told.recent.lock().unwrap();
        assert!(recent.iter().all(|known| known.revision < LogRevision(200)));
    }

    #[test]
    fn unknown_tables_are_refused() {
        for tables in [&[][..], &[0], &[99], &[1, 99]] {
            assert_eq!(Watched::parse(tables), None);
        }
    }
}
