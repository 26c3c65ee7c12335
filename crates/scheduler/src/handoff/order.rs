//! What a move of queues is asked for, and what becomes of each of them.

use whiskraft_types::{Epoch, Rejection, SchedulerId};

/// Who leads the queues of a batch next.
#[derive(Debug, Clone)]
pub(crate) enum Targets {
    /// This one.
    Only(SchedulerId),
    /// These, each with how many queues it leads: the one with the fewest gets the next.
    Fewest(Vec<(u32, SchedulerId)>),
}

/// Whether queues may be moved without what is in them, as after a death: their controllers submit it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    Never,
    /// Only those for which the next leader has no room.
    TooLarge,
    Always,
}

/// What became of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Others lead it now, in this epoch; so many activations went with it.
    Moved { epoch: Epoch, activations: usize },
    /// It goes on here.
    Stayed(Rejection),
    /// The session has ended, and the queue with it.
    Gone,
}

impl Targets {
    /// Who leads the next queue. With nobody to choose from a scheduler that there is not, which takes nothing.
    pub(super) fn next(&mut self) -> SchedulerId {
        match self {
            Self::Only(to) => *to,
            Self::Fewest(others) => others.iter_mut().min().map_or(SchedulerId(0), |(led, id)| {
                *led = led.saturating_add(1);
                *id
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_go_round_by_how_many_each_leads() {
        let mut targets = Targets::Fewest(vec![(3, SchedulerId(2)), (1, SchedulerId(3))]);
        let given: Vec<u64> = (0..5).map(|_| targets.next().0).collect();
        assert_eq!(given, [3, 3, 2, 3, 2]);
    }
}
