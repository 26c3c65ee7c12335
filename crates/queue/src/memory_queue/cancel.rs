//! A caller wants its activation to end: in every stage, once or several times.
//!
//! What was answered is kept: an activation of which `BeforeStart` was said never starts, and one of which `Stopping` was
//! said ends as cancelled, even if its record, on its way at that moment, tells of a run that went well: its caller was told
//! so, and nobody else waits for what it has given up.
//! Of a durable one nothing is said that the next leader would not know: the journal has its end before the answer, or,
//! where the end has to wait for an invoker, a mark that it ends as cancelled. The wish for one that is in memory only is
//! memory as well; a record that says itself that it was stopped ends the activation under the next leader too.

use whiskraft_types::{ActivationId, ContainerId, Instant};

use super::MemoryQueue;
use super::ending::End;
use crate::ledger::{Ending, Mark, Next, Stage};
use crate::{CancelAnswer, Output};

/// Wishes for one activation that wait for the journal; further ones are asked to come again.
const ASKS_MAX: usize = 16;

/// What a wish to cancel meets.
enum Found {
    /// Nothing to end.
    Over(CancelAnswer),
    /// In a line, before this run: it can end here and now.
    InLine { is_durable: bool, run: u32 },
    /// It ends when its stage does: that is said once the journal knows it.
    Held,
    /// The same, answered when the journal has the end.
    Later,
    /// In a container.
    At(ContainerId),
}

/// The answer about one that ended in a line before this run of it: it may have begun in an earlier one.
pub(super) const fn in_line(run: u32) -> CancelAnswer {
    if run > 1 {
        CancelAnswer::Stopping
    } else {
        CancelAnswer::BeforeStart
    }
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_cancel(
        &mut self,
        now: Instant,
        ask: u64,
        id: ActivationId,
        out: &mut Vec<Output<P, R>>,
    ) {
        let answer = match self.to_cancel(id) {
            Found::Over(answer) => answer,
            _ if self.is_fenced || self.is_draining || self.is_unread(id) => CancelAnswer::Unavailable,
            Found::Later => return self.answer_later(ask, id, out),
            Found::Held => {
                self.answer_later(ask, id, out);
                return self.answer_asks(id, out);
            }
            Found::At(container) => {
                self.answer_later(ask, id, out);
                return self.stop(now, id, container, out);
            }
            Found::InLine { is_durable: true, .. } => {
                // In this order: the answer follows the entry of the journal.
                self.answer_later(ask, id, out);
                return self.finish(now, id, End::cancelled(None), out);
            }
            Found::InLine { run, .. } => {
                self.mark_cancelled(id);
                self.finish(now, id, End::cancelled(None), out);
                in_line(run)
            }
        };
        out.push(Output::CancelAnswered { ask, answer });
    }

    fn to_cancel(&self, id: ActivationId) -> Found {
        let Some(entry) = self.ledger.find(id) else {
            let has_ended = self.ledger.is_settled(id) || self.ledger.is_recorded(id);
            return Found::Over(if has_ended {
                CancelAnswer::Ended
            } else {
                CancelAnswer::Unknown
            });
        };
        match &entry.stage {
            Stage::Done(_) => Found::Over(CancelAnswer::Ended),
            Stage::Ending(Ending {
                next: Next::End { .. },
                ..
            }) if !entry.is_cancelled => Found::Over(CancelAnswer::Ended),
            // Its end as cancelled is under way, or follows: those who ask meanwhile hear the same as the first.
            Stage::Ending(_) | Stage::Journaling { .. } => Found::Later,
            Stage::Held => Found::Held,
            Stage::Waiting | Stage::Delayed(_) => Found::InLine {
                is_durable: entry.is_durable(),
                run: entry.run,
            },
            Stage::Delivered(container) | Stage::Adopted(container) | Stage::Started(container) => {
                Found::At(*container)
            }
        }
    }

    fn mark_cancelled(&mut self, id: ActivationId) {
        if let Some(entry) = self.ledger.find_mut(id) {
            entry.is_cancelled = true;
        }
    }

    /// Notes who is to be told when the journal has the end, or knows that it will be this one.
    fn answer_later(&mut self, ask: u64, id: ActivationId, out: &mut Vec<Output<P, R>>) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        entry.is_cancelled = true;
        if entry.asks.len() < ASKS_MAX {
            entry.asks.push(ask);
        } else {
            let answer = CancelAnswer::Unavailable;
            out.push(Output::CancelAnswered { ask, answer });
        }
    }

    /// What is sure is said: at once of one in memory, of a durable one once the journal knows it.
    fn answer_asks(&mut self, id: ActivationId, out: &mut Vec<Output<P, R>>) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if entry.asks.is_empty() {
            return;
        }
        match entry.mark {
            Mark::None if entry.is_durable() => {
                entry.mark = Mark::UnderWay;
                out.push(Output::Mark { id });
            }
            Mark::UnderWay => {}
            Mark::None | Mark::Written => answer_all(&mut entry.asks, CancelAnswer::Stopping, out),
        }
    }

    /// The journal knows that it ends as cancelled, and whoever leads the queue next: said even while fenced. Or it does not
    /// have it.
    pub(super) fn on_marked(&mut self, id: ActivationId, answer: CancelAnswer, out: &mut Vec<Output<P, R>>) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        entry.mark = if answer == CancelAnswer::Stopping {
            Mark::Written
        } else {
            Mark::None
        };
        answer_all(&mut entry.asks, answer, out);
    }

    /// Tells the invoker. Where others may run in the same container it goes on running: then the activation ends here
    /// and now, and its record is only acknowledged.
    pub(super) fn stop(
        &mut self,
        now: Instant,
        id: ActivationId,
        container: ContainerId,
        out: &mut Vec<Output<P, R>>,
    ) {
        if let Some(invoker) = self.containers.find(container).and_then(|known| known.invoker) {
            out.push(Output::Stop {
                invoker,
                container,
                id,
            });
        }
        if self.action.concurrency > 1 {
            // Of a durable one they hear when the journal has this end.
            let entry = self.ledger.find_mut(id).filter(|entry| !entry.is_durable());
            let mut asks = entry
                .map(|entry| std::mem::take(&mut entry.asks))
                .unwrap_or_default();
            self.finish(now, id, End::cancelled(None), out);
            return answer_all(&mut asks, CancelAnswer::Stopping, out);
        }
        self.answer_asks(id, out);
    }
}

fn answer_all<P, R>(asks: &mut Vec<u64>, answer: CancelAnswer, out: &mut Vec<Output<P, R>>) {
    let asks = asks.drain(..);
    out.extend(asks.map(|ask| Output::CancelAnswered { ask, answer }));
}
