//! What the scheduler around a queue does: passes facts in, carries wishes out, ticks when asked to.

use std::time::Duration;

use whiskraft_queue::{Input, Outcome, Output};
use whiskraft_types::{ActivationId, Instant};

use crate::world::{Answer, LIMIT, World};

impl World {
    pub(crate) fn tell(&mut self, input: Input<String, String>) {
        let mut out = Vec::new();
        self.queue.step(self.now, input, &mut out);
        for output in out {
            self.trace.push(format!("{output:?}"));
            self.carry_out(output);
        }
    }

    pub(crate) fn carry_out(&mut self, output: Output<String, String>) {
        match output {
            Output::Accept { id, .. } => {
                assert!(!self.fenced, "invariant 2: a fenced leader accepts nothing");
                assert!(
                    !self.draining || self.model.stages.contains_key(&id),
                    "invariant 8: a draining queue takes nothing new"
                );
                let call = self.calls.get_mut(&id).unwrap();
                let at = *call.accepted_at.get_or_insert(self.now);
                let earliest = self.now.since_origin().saturating_sub(self.settings.retention);
                let at = at.max(Instant::from_origin(earliest));
                let is_first_here = !call.submitted_here;
                (call.submitted_here, call.lost_at) = (true, None);
                self.model.accepted(id, call.attempt, at, is_first_here);
            }
            Output::Reject { id, rejection, .. } if rejection.is_retryable() => {
                assert!(
                    self.calls[&id].attempt > 1 || self.fenced || self.draining,
                    "a first attempt is told for good"
                );
            }
            Output::Reject { id, rejection, .. } => self.answer(id, Answer::Refused(rejection)),
            Output::Deliver {
                invoker,
                container,
                id,
                payload,
                ..
            } => {
                assert!(!self.fenced, "invariant 2: a fenced leader delivers nothing");
                assert!(!self.draining, "invariant 8: a draining queue delivers nothing");
                assert_eq!(payload, id.to_string());
                assert_eq!(
                    self.table[&container].revision, self.revision,
                    "delivered to an old revision"
                );
                self.model.delivered(id);
                let invoker = self.invokers.get_mut(&invoker).unwrap();
                if invoker.is_heard() {
                    invoker.inbox.push_back((id, container));
                }
            }
            Output::Complete { id, outcome, .. } => {
                if let Outcome::Failure { .. } = outcome {
                    assert!(!self.fenced, "invariant 2: a fenced leader decides nothing");
                }
                self.model.done(id);
                self.ghosts.remove(&id);
                self.answer(id, Answer::Ended(outcome));
            }
            Output::AcknowledgeInvoker { invoker, id } => {
                self.invokers.get_mut(&invoker).unwrap().results.remove(&id);
            }
            Output::Reserve { count } => {
                assert!(!self.fenced, "invariant 2: a fenced leader asks for nothing");
                assert!(!self.draining, "invariant 8: a draining queue asks for nothing");
                let counts = self.counts();
                let asked: u32 = self.asked.iter().sum();
                let sum = counts.running + counts.in_progress + asked + count;
                assert!(
                    sum <= LIMIT,
                    "invariant 3: asks for {count} beside {counts:?} and {asked} asked"
                );
                self.asked.push_back(count);
            }
            Output::SetThrottle(throttled) => self.throttled = throttled,
            Output::RemoveContainer { container } => self.end_container(container),
            Output::RemoveQueue => self.removed = true,
            Output::WithdrawAck { .. }
            | Output::Starved
            | Output::Entangled
            | Output::Silent { .. }
            | Output::Late { .. }
            | Output::Archive { .. } => {}
            Output::Journal { .. }
            | Output::Mark { .. }
            | Output::CancelAnswered { .. }
            | Output::Stop { .. } => {
                panic!("nobody asked for {output:?}")
            }
        }
    }

    pub(crate) fn answer(&mut self, id: ActivationId, answer: Answer) {
        let call = self.calls.get_mut(&id).unwrap();
        match &call.answer {
            None => call.answer = Some(answer),
            Some(before) => assert_eq!(*before, answer, "invariant 1: one outcome per activation"),
        }
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..100_000 {
            match self
                .queue
                .next_deadline()
                .filter(|at| *at <= until && !self.removed)
            {
                Some(at) => {
                    self.now = self.now.max(at);
                    let counts = self.counts();
                    self.tell(Input::Tick(counts));
                    self.note_stuck();
                }
                None => {
                    self.now = until;
                    return self.note_stuck();
                }
            }
        }
        panic!("the queue wants a tick for ever");
    }

    pub(crate) fn note_stuck(&mut self) {
        let view = self.queue.view();
        let counts = self.counts();
        let is_stuck = view.waiting > view.held
            && self.table.is_empty()
            && self.asked.is_empty()
            && counts.running + counts.in_progress < LIMIT
            && !self.fenced
            && !self.draining;
        self.stuck_since = is_stuck.then(|| self.stuck_since.unwrap_or(self.now));
    }
}
