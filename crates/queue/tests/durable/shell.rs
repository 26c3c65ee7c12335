//! What the scheduler around a queue does: passes facts in, carries wishes out, ticks when asked to.

use std::time::Duration;

use whiskraft_queue::{CancelAnswer, Input, JournalEntry, Outcome, Output, RunEnd};
use whiskraft_types::ActivationId;

use crate::hosts::Sent;
use crate::journal::{Pending, Row};
use crate::world::{Answer, Record, World};

impl World {
    pub(crate) fn tell(&mut self, input: Input<String, Record>) {
        let mut out = Vec::new();
        self.queue.step(self.now, input, &mut out);
        out.into_iter().for_each(|output| self.carry_out(output));
    }

    fn carry_out(&mut self, output: Output<String, Record>) {
        match output {
            Output::Accept { id, .. } => {
                assert!(!self.fenced, "a fenced leader accepts nothing");
                assert!(
                    !self.is_durable(id) || self.rows.contains_key(&id),
                    "{id} is accepted and not in the journal"
                );
                let now = self.now;
                let call = self.calls.get_mut(&id).unwrap();
                call.accepted_at.get_or_insert(now);
                call.lost_at = None;
            }
            Output::Reject { rejection, .. } if rejection.is_retryable() => {}
            Output::Reject { id, rejection, .. } => {
                assert!(
                    self.calls[&id].accepted_at.is_none() || !self.is_durable(id),
                    "{id} was accepted and is refused: {rejection}"
                );
                self.answer(id, Answer::Refused(rejection));
            }
            Output::Deliver {
                invoker,
                container,
                id,
                run,
                payload,
                ..
            } => {
                assert!(!self.fenced, "a fenced leader delivers nothing");
                assert_eq!(payload, id.to_string());
                assert!(!self.never.contains(&id), "{id} was not to start");
                if self.is_durable(id) {
                    let row = &self.rows[&id];
                    assert!(row.ended.is_none(), "{id} has ended and is delivered");
                    assert!(!self.stopping.contains(&id), "{id} was to stop and begins");
                    assert_eq!(row.run, run, "{id} runs as the journal does not know");
                    assert!(
                        row.not_before.is_none_or(|at| at <= self.now),
                        "{id} begins early"
                    );
                }
                let host = self.hosts.get_mut(&invoker).unwrap();
                if host.is_heard() {
                    host.inbox.push_back(Sent::Deliver(id, run, container));
                }
            }
            Output::Stop {
                invoker,
                container,
                id,
            } => {
                let host = self.hosts.get_mut(&invoker).unwrap();
                if host.is_heard() {
                    host.inbox.push_back(Sent::Stop(id, container));
                }
            }
            Output::Complete { id, outcome, .. } => self.on_complete(id, outcome),
            Output::Journal { id, entry } => self.on_journal(id, entry),
            Output::Mark { id } => {
                assert!(self.rows.contains_key(&id), "{id} is not in the journal");
                assert!(!self.marks.contains(&id), "{id} is marked twice at once");
                self.marks.push(id);
            }
            Output::CancelAnswered { ask, answer } => self.on_cancel_answered(ask, answer),
            Output::AcknowledgeInvoker { invoker, id } => self.on_acknowledge(invoker, id),
            Output::Reserve { count } => self.asked.push_back(count),
            Output::RemoveContainer { container } => self.end_container(container),
            Output::RemoveQueue => self.removed = true,
            Output::SetThrottle(_)
            | Output::WithdrawAck { .. }
            | Output::Starved
            | Output::Entangled
            | Output::Silent { .. }
            | Output::Late { .. } => {}
            Output::Archive { .. } => panic!("nobody asked for it"),
        }
    }

    fn on_complete(&mut self, id: ActivationId, outcome: Outcome<Record>) {
        if self.is_durable(id) {
            assert!(!self.fenced, "a fenced leader answers nothing");
            assert_eq!(
                self.rows[&id].ended.as_ref(),
                Some(&outcome),
                "{id} ended otherwise in the journal"
            );
        } else {
            self.ghosts.retain(|(ghost, _), _| *ghost != id);
            self.check_stopped(id, &outcome);
        }
        self.answer(id, Answer::Ended(outcome));
    }

    fn on_journal(&mut self, id: ActivationId, entry: JournalEntry<String, Record>) {
        assert!(
            self.pending.iter().all(|pending| pending.id != id),
            "{id} has two entries under way"
        );
        // Whatever a leader makes of a record that an invoker keeps: the first end counts.
        let has_ended = self.rows.get(&id).is_some_and(|row| row.ended.is_some());
        match &entry {
            JournalEntry::Accept { .. } => assert!(!self.fenced && !self.recovering),
            JournalEntry::Retry { .. } | JournalEntry::End { .. } if has_ended => {}
            JournalEntry::Retry { .. } => {
                assert!(!self.stopping.contains(&id), "{id} was to stop and runs again");
            }
            JournalEntry::End { outcome, .. } => self.check_stopped(id, outcome),
        }
        self.pending.push(Pending { id, entry });
    }

    /// What a leader has said to stop ends as cancelled.
    fn check_stopped(&self, id: ActivationId, outcome: &Outcome<Record>) {
        let is_cancelled = match outcome {
            Outcome::Cancelled => true,
            Outcome::Record(record) => record.end == RunEnd::Cancelled,
            Outcome::Failure { .. } => false,
        };
        assert!(
            is_cancelled || !self.stopping.contains(&id),
            "{id} was to stop and ends as {outcome:?}"
        );
    }

    fn on_cancel_answered(&mut self, ask: u64, answer: CancelAnswer) {
        let id = self.asks.remove(&ask).expect("one answer per wish");
        let has_ended = |world: &Self| {
            let is_written = world.rows.get(&id).is_some_and(|row| row.ended.is_some());
            is_written || !world.is_durable(id)
        };
        match answer {
            CancelAnswer::BeforeStart => {
                assert!(has_ended(self), "{id} is not in the journal as ended");
                self.never.insert(id);
            }
            CancelAnswer::Stopping => {
                let is_known = |row: &Row| row.cancelled || row.ended.is_some();
                assert!(
                    !self.is_durable(id) || self.rows.get(&id).is_some_and(is_known),
                    "{id} is to stop and the next leader would not know"
                );
                self.stopping.insert(id);
            }
            CancelAnswer::Ended | CancelAnswer::Unknown | CancelAnswer::Unavailable => {}
        }
    }

    fn answer(&mut self, id: ActivationId, answer: Answer) {
        let is_durable = self.is_durable(id);
        let call = self.calls.get_mut(&id).unwrap();
        match &call.answer {
            None => call.answer = Some(answer),
            // An expired result of one in memory may be refused later.
            Some(before) => assert!(
                *before == answer || !is_durable,
                "{id}: {before:?}, then {answer:?}"
            ),
        }
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..100_000 {
            let due = self.queue.next_deadline();
            match due.filter(|at| *at <= until && !self.removed) {
                Some(at) => {
                    self.now = self.now.max(at);
                    let counts = self.counts();
                    self.tell(Input::Tick(counts));
                }
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("the queue wants a tick for ever");
    }
}
