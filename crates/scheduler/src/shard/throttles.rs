//! Throttle changes that found no room among the proposals. A queue says each once, and without it the table would show
//! the old one for ever, so they are kept here and said again.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_types::{Epoch, Instant, QueueKey};

use crate::proposals::Proposal;
use crate::shard::actor::Shard;
use crate::shard::local::Slot;

/// Pause before they are said again.
const PAUSE: Duration = Duration::from_millis(100);

/// The newest change of each queue that nobody has taken; at most one for each queue led here.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    unsaid: BTreeMap<QueueKey, (Epoch, bool)>,
    next: Option<Instant>,
}

impl Throttles {
    /// When to say them again.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Passes a change on; keeps it if `push` does not take it.
    fn say(&mut self, now: Instant, key: QueueKey, change: (Epoch, bool), push: impl Fn(Proposal) -> bool) {
        if push(proposal(&key, change)) {
            self.unsaid.remove(&key);
        } else {
            self.unsaid.insert(key, change);
            self.next.get_or_insert(now + PAUSE);
        }
    }

    /// Passes on what is kept of leaderships that last, in order, until `push` takes no more.
    fn repeat(
        &mut self,
        now: Instant,
        is_led: impl Fn(&QueueKey, Epoch) -> bool,
        push: impl Fn(Proposal) -> bool,
    ) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let mut has_room = true;
        self.unsaid.retain(|key, change| {
            if !is_led(key, change.0) {
                return false;
            }
            has_room = has_room && push(proposal(key, *change));
            !has_room
        });
        self.next = (!self.unsaid.is_empty()).then(|| now + PAUSE);
    }
}

fn proposal(key: &QueueKey, (epoch, throttled): (Epoch, bool)) -> Proposal {
    Proposal::SetThrottle {
        key: key.clone(),
        epoch,
        throttled,
    }
}

impl Shard {
    /// The throttle of a queue has changed.
    pub(crate) fn set_throttle(&mut self, slot: Slot, throttled: bool) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        let (key, change) = (local.key().clone(), (local.epoch(), throttled));
        let proposals = &self.parts.proposals;
        self.throttles
            .say(self.now, key, change, |proposal| proposals.push(proposal));
    }

    /// Says again what found no room, if it is time to.
    pub(crate) fn repeat_throttles(&mut self) {
        let (queues, proposals) = (&self.queues, &self.parts.proposals);
        let epoch_of = |key: &QueueKey| Some(queues.get(queues.slot(key)?)?.epoch());
        self.throttles.repeat(
            self.now,
            |key, epoch| epoch_of(key) == Some(epoch),
            |proposal| proposals.push(proposal),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn key(action: &str) -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: action.parse().unwrap(),
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    /// A channel with room for so many.
    fn room_for<'a>(room: usize, taken: &'a RefCell<Vec<Proposal>>) -> impl Fn(Proposal) -> bool + use<'a> {
        let len_max = taken.borrow().len() + room;
        move |proposal| {
            let has_room = taken.borrow().len() < len_max;
            if has_room {
                taken.borrow_mut().push(proposal);
            }
            has_room
        }
    }

    #[test]
    fn a_change_without_room_is_said_again_with_its_newest_value() {
        let (mut throttles, taken) = (Throttles::default(), RefCell::default());
        let (a, b) = (key("guest/a"), key("guest/b"));
        throttles.say(at(0), a.clone(), (Epoch(7), true), room_for(0, &taken));
        throttles.say(at(10), b.clone(), (Epoch(8), true), room_for(0, &taken));
        throttles.say(at(20), a.clone(), (Epoch(7), false), room_for(0, &taken));
        assert_eq!(throttles.next(), Some(at(100)));
        throttles.repeat(at(99), |_, _| true, room_for(9, &taken));
        assert_eq!(taken.borrow().as_slice(), []);
        throttles.repeat(at(100), |_, _| true, room_for(1, &taken));
        assert_eq!(throttles.next(), Some(at(200)));
        throttles.repeat(at(200), |_, _| true, room_for(9, &taken));
        let said = [proposal(&a, (Epoch(7), false)), proposal(&b, (Epoch(8), true))];
        assert_eq!(taken.borrow().as_slice(), said);
        assert_eq!(throttles.next(), None);
    }

    #[test]
    fn what_is_out_of_date_is_not_said_again() {
        let (mut throttles, taken) = (Throttles::default(), RefCell::default());
        let (a, b) = (key("guest/a"), key("guest/b"));
        throttles.say(at(0), a.clone(), (Epoch(7), true), room_for(0, &taken));
        throttles.say(at(0), b.clone(), (Epoch(8), true), room_for(0, &taken));
        throttles.say(at(10), a.clone(), (Epoch(7), false), room_for(1, &taken));
        throttles.repeat(at(100), |key, _| *key == a, room_for(9, &taken));
        assert_eq!(taken.borrow().as_slice(), [proposal(&a, (Epoch(7), false))]);
        assert_eq!(throttles.next(), None);
    }
}
