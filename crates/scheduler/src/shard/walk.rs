//! Looks at all queues of the shards in pieces, so that an operator's question never stalls the queues: after a
//! bounded piece the walk goes back to who asked, and comes again as a new request behind what arrived meanwhile.
//!
//! Invariant: a turn spends at most [`WORK_MAX`] plus one queue's worth of work on a walk.
//! A queue that comes or goes during a walk may be missed or seen; one that stays is seen exactly once.

use std::any::Any;
use std::fmt;
use std::ops::ControlFlow;

use tokio::sync::oneshot;

use crate::message::Request;
use crate::shard::actor::Shard;
use crate::shard::handle::ShardsHandle;
use crate::shard::local::{LocalQueue, Slot};

/// Work of one piece, in steps of some ten nanoseconds: well below a millisecond.
const WORK_MAX: usize = 4096;

/// Looks at queues, one after the other.
pub(crate) trait Visitor: Any + Send {
    /// Looks at one queue; gives the work it took beyond one step, or ends the walk.
    fn visit(&mut self, shard: &Shard, local: &LocalQueue) -> ControlFlow<(), usize>;
}

/// How far a walk through one shard has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    next: Slot,
    /// Whether this shard has no more queues for it.
    is_done: bool,
    /// Whether the visitor has seen enough, here and elsewhere.
    is_over: bool,
}

impl Progress {
    /// Visits places below `len` until the piece is full; `visit` gives the work beyond one step.
    fn piece(&mut self, len: usize, mut visit: impl FnMut(Slot) -> ControlFlow<(), usize>) {
        let mut work = 0;
        while work < WORK_MAX {
            if self.next >= len {
                self.is_done = true;
                return;
            }
            let flow = visit(self.next);
            self.next += 1;
            match flow {
                ControlFlow::Continue(more) => work += 1 + more,
                ControlFlow::Break(()) => {
                    self.is_over = true;
                    return;
                }
            }
        }
    }
}

/// A visitor and its place in the shard.
pub(crate) struct Walk {
    visitor: Box<dyn Visitor>,
    progress: Progress,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// Does one piece of a walk.
    pub(crate) fn walk(&self, mut walk: Walk) -> Walk {
        let visitor = &mut walk.visitor;
        walk.progress.piece(self.queues.places_len(), |slot| {
            let place = self.queues.get(slot);
            place.map_or(ControlFlow::Continue(0), |local| visitor.visit(self, local))
        });
        walk
    }
}

impl ShardsHandle {
    /// Leads a visitor through all shards; `None` only when the process stops.
    pub(crate) async fn walk<V: Visitor>(&self, visitor: V) -> Option<V> {
        let mut walk = Walk {
            visitor: Box::new(visitor),
            progress: Progress::default(),
        };
        for shard in 0..self.len() {
            (walk.progress.next, walk.progress.is_done) = (0, false);
            while !walk.progress.is_done && !walk.progress.is_over {
                let (answer, answered) = oneshot::channel();
                self.send(shard, Request::Walk { walk, answer }).await;
                walk = answered.await.ok()?;
            }
        }
        let visitor: Box<dyn Any> = walk.visitor;
        visitor.downcast().ok().map(|visitor| *visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(len: usize, work: usize) -> Vec<usize> {
        let mut progress = Progress::default();
        let mut seen = Vec::new();
        let mut pieces = Vec::new();
        while !progress.is_done {
            let before = seen.len();
            progress.piece(len, |slot| {
                seen.push(slot);
                ControlFlow::Continue(work)
            });
            pieces.push(seen.len() - before);
        }
        assert!(seen.into_iter().eq(0..len), "each exactly once, in order");
        pieces
    }

    #[test]
    fn a_turn_looks_at_a_bounded_number_of_queues() {
        assert_eq!(pieces(100_000, 0).into_iter().max(), Some(WORK_MAX));
        let busy = pieces(10_000, WORK_MAX / 8);
        assert!(
            busy.into_iter().all(|count| count <= 8),
            "what is costly counts more"
        );
        assert_eq!(pieces(3, WORK_MAX), [1, 1, 1, 0]);
    }

    #[test]
    fn a_walk_ends_when_its_visitor_has_seen_enough() {
        let mut progress = Progress::default();
        progress.piece(10, |slot| {
            if slot == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(0)
            }
        });
        assert!(progress.is_over && progress.next == 3);
    }
}
