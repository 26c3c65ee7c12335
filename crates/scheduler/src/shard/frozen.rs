//! The shard's part of a hand-over at the scheduler that gives: freezes queues that are about to move, holds what arrives
//! for them, and lets those go on that did not move.
//!
//! Invariant: a frozen queue is not stepped, so what was exported of it stays all there is.
//! Invariant: what was held is handled in the order in which it came, here or by an answer that says where to go.

use std::time::Duration;

use whiskraft_queue::{ActionProfile, ControllerId, Input, QueueState};
use whiskraft_types::{ByteSize, Epoch, QueueKey, Rejection, SessionId};

use crate::context::StreamId;
use crate::control::hello::Peer;
use crate::handoff::MovedActivation;
use crate::message::{PullInput, Submission};
use crate::shard::actor::{QueueInput, Shard};
use crate::shard::local::{LocalQueue, Slot};

/// Frames held per queue; past it submissions are told to come back, and the stream of an invoker is cut, whose next
/// `Register` says it all again. Some hundred milliseconds of a busy queue.
const HELD_MAX: usize = 8192;

/// What arrived for a frozen queue.
pub(crate) enum Held {
    Submission(ControllerId, Submission),
    Pull(Peer, StreamId, PullInput),
    Input(QueueInput),
    /// What its action is, and the memory of a container.
    Action(ActionProfile, ByteSize),
}

/// What a frozen queue holds.
#[derive(Default)]
pub(crate) struct Frozen {
    held: Vec<Held>,
    /// How many of them may be refused instead.
    frames: usize,
}

/// Which queues are to be frozen.
#[derive(Debug, Clone)]
pub(crate) enum Pick {
    /// This one.
    Named(QueueKey),
    /// Up to `count`, those without open work first; no further one once so many activations are in them.
    Any { count: usize, activations: usize },
    /// The same, but only such as nothing is wrong with.
    Sound { count: usize, activations: usize },
    /// Up to `count` that hold activations back for an invoker that has not registered for so long.
    Deaf { count: usize, after: Duration },
}

impl Pick {
    /// Whether nothing more is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Named(_) => false,
            Self::Any { count, activations } | Self::Sound { count, activations } => {
                *count == 0 || *activations == 0
            }
            Self::Deaf { count, .. } => *count == 0,
        }
    }

    /// So much of it is there.
    pub(crate) fn take(&mut self, exported: &[Exported]) {
        match self {
            Self::Named(_) => {}
            Self::Any { count, activations } | Self::Sound { count, activations } => {
                let sum: usize = exported.iter().map(|queue| queue.activations.len()).sum();
                *count = count.saturating_sub(exported.len());
                *activations = activations.saturating_sub(sum);
            }
            Self::Deaf { count, .. } => *count = count.saturating_sub(exported.len()),
        }
    }
}

/// A queue that has stopped, and everything in it.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) activations: Vec<MovedActivation>,
}

impl Shard {
    /// Freezes queues of a session and says what is in them.
    pub(crate) fn freeze(&mut self, session: SessionId, pick: &Pick) -> Vec<Exported> {
        if self.fenced {
            // Nothing could be moved now, and what a fenced queue has put off is in no export.
            return Vec::new();
        }
        let is_free = |local: &LocalQueue| local.session == session && local.frozen.is_none();
        let (slots, activations_max) = match pick {
            Pick::Named(key) => (Vec::from_iter(self.queues.slot(key)), usize::MAX),
            Pick::Any { count, activations } => {
                let all = self.queues.slots();
                (self.pick(all, *count, |local| is_free(local)), *activations)
            }
            Pick::Sound { count, activations } => {
                let all = self.queues.slots();
                let may_go = |local: &LocalQueue| is_free(local) && is_sound(local);
                (self.pick(all, *count, may_go), *activations)
            }
            Pick::Deaf { count, after } => {
                let is_deaf = |local: &LocalQueue| {
                    let held_for = local
                        .queue
                        .holds_since()
                        .map(|since| self.now.saturating_since(since));
                    local.recovering.is_none() && held_for.is_some_and(|held_for| held_for >= *after)
                };
                // Asked for every second: not a look at every queue there is.
                let expecting = self.queues.expecting();
                let may_go = |local: &LocalQueue| is_free(local) && is_deaf(local);
                (self.pick(expecting, *count, may_go), usize::MAX)
            }
        };
        let (mut exported, mut sum) = (Vec::new(), 0);
        for slot in slots {
            if sum >= activations_max || !self.queues.get(slot).is_some_and(is_free) {
                continue;
            }
            self.step(slot, Input::Draining(true));
            if let Some(local) = self.queues.get_mut(slot) {
                local.frozen = Some(Box::default());
                let activations = local.queue.export(self.now);
                sum += activations.len();
                exported.push(Exported {
                    key: local.key().clone(),
                    epoch: local.epoch(),
                    activations,
                });
            }
        }
        exported
    }

    fn pick(&self, slots: Vec<Slot>, count: usize, may_go: impl Fn(&LocalQueue) -> bool) -> Vec<Slot> {
        let (mut quiet, mut busy) = (Vec::new(), Vec::new());
        for slot in slots {
            if quiet.len() >= count {
                break;
            }
            match self.queues.get(slot).filter(|local| may_go(local)) {
                Some(local) if has_work(local) => busy.push(slot),
                Some(_) => quiet.push(slot),
                None => {}
            }
        }
        let left = count - quiet.len();
        quiet.extend(busy.into_iter().take(left));
        quiet
    }

    /// The queue certainly did not move: it goes on with what it has and what came meanwhile.
    pub(crate) fn unfreeze(&mut self, slot: Slot) {
        let frozen = self.queues.get_mut(slot).and_then(|local| local.frozen.take());
        let Some(frozen) = frozen else { return };
        // Submissions last: until the queue goes on it takes none. Nothing is delivered before the rest is known.
        let mut submissions = Vec::new();
        for held in frozen.held {
            match held {
                Held::Submission(controller, submission) => submissions.push((controller, submission)),
                Held::Pull(peer, stream, input) => self.on_pull(peer, stream, input),
                Held::Input(input) => self.step(slot, input),
                Held::Action(profile, memory) => self.adopt(slot, profile, memory),
            }
        }
        self.step(slot, Input::Draining(false));
        for (controller, submission) in submissions {
            self.on_submission(controller, submission);
        }
    }

    /// The queue is led elsewhere, as the tables say: everybody who waits for an answer hears where.
    pub(crate) fn dismiss(&mut self, frozen: Frozen) {
        for held in frozen.held {
            match held {
                Held::Submission(controller, submission) => self.on_submission(controller, submission),
                Held::Pull(peer, stream, input) => self.on_pull(peer, stream, input),
                // What it says is in the tables too, or is asked for again.
                Held::Input(_) | Held::Action(..) => {}
            }
        }
    }

    /// Keeps a submission for later.
    pub(crate) fn hold_submission(&mut self, slot: Slot, controller: ControllerId, submission: Submission) {
        match self.frozen_with_room(slot) {
            Some(frozen) => frozen.held.push(Held::Submission(controller, submission)),
            None => self.reject(controller, submission, Rejection::Draining),
        }
    }

    /// Keeps a frame of an invoker for later.
    pub(crate) fn hold_pull(&mut self, slot: Slot, peer: Peer, stream: StreamId, input: PullInput) {
        match self.frozen_with_room(slot) {
            Some(frozen) => frozen.held.push(Held::Pull(peer, stream, input)),
            None => {
                if self.outbox.cut_invoker(peer.invoker, stream) {
                    self.disconnect(peer.invoker);
                }
            }
        }
    }

    /// The frozen queue with one more frame counted, if there is room for it.
    fn frozen_with_room(&mut self, slot: Slot) -> Option<&mut Frozen> {
        let frozen = self.queues.get_mut(slot)?.frozen.as_deref_mut()?;
        if frozen.frames >= HELD_MAX {
            return None;
        }
        frozen.frames += 1;
        Some(frozen)
    }
}

impl Frozen {
    /// Keeps an input of the queue. What the log says cannot be dropped; there is little of it for one queue. A tick comes
    /// again, and an outcome whose confirmation is dropped is kept a while longer.
    pub(crate) fn hold(&mut self, input: QueueInput) {
        match input {
            Input::Tick(_) => {}
            Input::Received { .. } if self.frames >= HELD_MAX => {}
            input => {
                self.frames += usize::from(matches!(input, Input::Received { .. }));
                self.held.push(Held::Input(input));
            }
        }
    }

    /// Keeps what its action is.
    pub(crate) fn hold_action(&mut self, profile: ActionProfile, memory: ByteSize) {
        self.held.push(Held::Action(profile, memory));
    }
}

/// Whether nothing is wrong with a queue: it serves, and has settled what a former leader left.
fn is_sound(local: &LocalQueue) -> bool {
    let view = local.queue.view();
    let serves = matches!(view.state, QueueState::Running | QueueState::Idle);
    serves && view.held == 0 && !view.is_throttled && local.recovering.is_none()
}

fn has_work(local: &LocalQueue) -> bool {
    local.queue.waiting_len() > 0 || local.queue.view().in_flight > 0
}

#[cfg(test)]
mod tests {
    use whiskraft_types::Instant;

    use super::*;
    use crate::shard::local::tests::{profile, queue};

    #[test]
    fn an_action_that_changes_and_changes_back_during_a_freeze_ends_as_it_was() {
        let mut local = queue("guest/hello");
        local.frozen = Some(Box::default());
        let limited = ActionProfile {
            instances: Some(3),
            ..profile(1)
        };
        for (profile, memory) in [(limited, 2), (profile(1), 1)] {
            assert!(local.adopt(profile, ByteSize::mib(memory)).is_none(), "it waits");
            assert_eq!(
                (local.profile().instances, local.memory),
                (None, ByteSize::mib(1))
            );
        }
        let mut adopted = Vec::new();
        for held in local.frozen.take().unwrap().held {
            let Held::Action(profile, memory) = held else {
                panic!("nothing else was held");
            };
            let input = local.adopt(profile, memory).unwrap();
            local.queue.step(Instant::ORIGIN, input, &mut Vec::new());
            adopted.push((local.profile().instances, local.memory));
        }
        assert_eq!(adopted, [(Some(3), ByteSize::mib(2)), (None, ByteSize::mib(1))]);
    }

    #[test]
    fn what_is_no_news_or_older_changes_nothing() {
        let mut local = queue("guest/hello");
        for revision in [0, 1] {
            assert!(local.adopt(profile(revision), ByteSize::mib(9)).is_none());
        }
        assert_eq!(local.memory, ByteSize::mib(1));
        assert!(local.adopt(profile(2), ByteSize::mib(9)).is_some());
        assert_eq!(local.memory, ByteSize::mib(9));
    }
}
