//! One unfinished activation.

use bytes::Bytes;
use whiskraft_proto::{activation_id_bytes, v1};
use whiskraft_types::{ActivationId, Epoch, Instant, QueueKey, SchedulerId};

use super::io::{Context, NewActivation, StreamId};

/// Where an unfinished activation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Waits until the queue's leader is known and connected.
    Waiting,
    /// Waits until the window of the leader's stream has room.
    Backlog { scheduler: SchedulerId },
    /// Handed to a stream, not answered.
    Sent { stream: StreamId, epoch: Epoch },
    /// Accepted by a scheduler.
    Accepted { stream: StreamId, epoch: Epoch },
}

impl Place {
    /// The scheduler it is at or about to go to.
    pub(super) const fn scheduler(self) -> Option<SchedulerId> {
        match self {
            Self::Waiting => None,
            Self::Backlog { scheduler } => Some(scheduler),
            Self::Sent { stream, .. } | Self::Accepted { stream, .. } => Some(stream.scheduler),
        }
    }

    /// Whether a scheduler may have it.
    pub(super) const fn is_out(self) -> bool {
        matches!(self, Self::Sent { .. } | Self::Accepted { .. })
    }
}

/// An activation without a result. Exists from before its first sending until it is settled.
#[derive(Debug)]
pub(super) struct Activation {
    /// Order of submission; kept when it is sent again.
    pub(super) seq: u64,
    pub(super) key: QueueKey,
    pub(super) payload: Bytes,
    pub(super) blocking: bool,
    pub(super) durable: bool,
    keyed: bool,
    not_before_ms: u64,
    pub(super) submitted_at: Instant,
    pub(super) deadline: Instant,
    pub(super) deadline_passed: bool,
    pub(super) given_up_at: Instant,
    /// Goes up only when the fate of the sending before is unknown; above 1 a leader that does not know the id
    /// holds it back until all invokers have reported.
    pub(super) attempt: u32,
    /// A scheduler could not say whether the journal has it. The next one is asked with the same attempt: what the journal
    /// knows it joins, and what it does not know has not run.
    pub(super) is_outcome_unknown: bool,
    /// Sendings of any kind.
    pub(super) sends: u32,
    /// `attempt` of the newest of them.
    pub(super) sent_attempt: u32,
    /// When a scheduler first confirmed it: its retention counts from then, whoever leads the queue later.
    pub(super) accepted_at: Option<Instant>,
    pub(super) place: Place,
    context: Context,
}

impl Activation {
    pub(super) fn new(now: Instant, seq: u64, new: NewActivation) -> (ActivationId, Self) {
        let activation = Self {
            seq,
            key: new.key,
            payload: new.payload,
            blocking: new.blocking,
            durable: new.durable,
            keyed: new.keyed,
            not_before_ms: new.not_before_ms,
            submitted_at: now,
            deadline: now + new.deadline,
            deadline_passed: false,
            given_up_at: now + new.given_up_after,
            attempt: if new.may_have_run { 2 } else { 1 },
            is_outcome_unknown: false,
            sends: 0,
            sent_attempt: 0,
            accepted_at: None,
            place: Place::Waiting,
            context: new.context,
        };
        (new.id, activation)
    }

    /// When something has to happen if nothing arrives.
    pub(super) fn timer(&self) -> Instant {
        if self.deadline_passed {
            self.given_up_at
        } else {
            self.deadline.min(self.given_up_at)
        }
    }

    /// Whether it may have reached a container. While it is false, giving up is a definite no.
    pub(super) const fn may_have_run(&self) -> bool {
        self.may_have_begun() || self.place.is_out()
    }

    /// Whether a scheduler may have it from an earlier sending.
    pub(super) const fn may_have_begun(&self) -> bool {
        self.attempt > 1 || self.is_outcome_unknown
    }

    /// Whether a new activation is the same request as this one.
    pub(super) fn is_joined_by(&self, new: &NewActivation) -> bool {
        self.keyed && new.keyed && self.key == new.key
    }

    /// Takes it back from wherever it is; `known_unsent` if it certainly did not arrive there.
    pub(super) fn take_back(&mut self, known_unsent: bool) {
        if self.place.is_out() && !known_unsent {
            self.attempt = self.attempt.saturating_add(1);
        }
        self.place = Place::Waiting;
    }

    pub(super) fn to_wire(&self, id: ActivationId, now: Instant, epoch: Epoch) -> v1::Submission {
        v1::Submission {
            id: activation_id_bytes(id),
            key: Some((&self.key).into()),
            epoch: epoch.0,
            attempt: self.attempt,
            blocking: self.blocking,
            payload: self.payload.clone(),
            deadline_ms: self.budget_ms(now),
            transaction: self.context.transaction.clone(),
            subject: self.context.subject.clone(),
            api_key: self.context.api_key.clone(),
            cause: self.context.cause.clone(),
            caller: self.context.caller.map(activation_id_bytes).unwrap_or_default(),
            waited_ms: self.waited_ms(now),
            durability: self.durability().into(),
            not_before_ms: self.not_before_ms,
        }
    }

    const fn durability(&self) -> v1::Durability {
        if self.durable {
            v1::Durability::Quorum
        } else {
            v1::Durability::Memory
        }
    }

    /// Time since a scheduler first accepted it, in milliseconds; 0 until then.
    fn waited_ms(&self, now: Instant) -> u64 {
        let waited = self.accepted_at.map(|at| now.saturating_since(at));
        waited.map_or(0, |waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
    }

    /// What is left to a caller who waits, in milliseconds; 0 when nobody does.
    fn budget_ms(&self, now: Instant) -> u32 {
        if !self.blocking || self.deadline <= now {
            return 0;
        }
        let left = self.deadline.saturating_since(now).as_millis();
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    }
}
