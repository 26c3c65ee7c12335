//! Activations that wait, in the order in which the first scheduler accepted them.
//!
//! One that comes back from an invoker, or comes again after a change of leader, gets its old place, so hand-outs keep
//! the order of arrival even when several come back in any order.

use std::collections::VecDeque;
use std::time::Duration;

use whiskraft_types::{ActivationId, Blank, Instant};

use crate::is_expired;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Order of acceptance by this leader; decides between tickets of the same moment.
    pub(crate) seq: u64,
    /// Whose.
    pub(crate) id: ActivationId,
    /// When the first scheduler accepted it, on the clock of this one.
    pub(crate) accepted_at: Instant,
    /// From when on it may wait for a container: its acceptance, or the end of its delay.
    pub(crate) ready_at: Instant,
    /// Whether it is in the journal: such a one may wait longer.
    pub(crate) is_durable: bool,
}

/// How long activations may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Those in memory only.
    pub(crate) memory: Duration,
    /// Durable ones.
    pub(crate) durable: Duration,
}

impl Retention {
    /// When a ticket has waited too long.
    pub(crate) fn end_of(&self, ticket: &Ticket) -> Instant {
        ticket.ready_at
            + if ticket.is_durable {
                self.durable
            } else {
                self.memory
            }
    }
}

impl Ticket {
    pub(crate) const fn place(&self) -> (Instant, u64) {
        (self.accepted_at, self.seq)
    }
}

/// Tickets by ascending place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting {
    tickets: VecDeque<Ticket>,
    /// How many are durable.
    durable: usize,
}

impl Blank for Waiting {
    const BLANK: &'static Self = &Self {
        tickets: VecDeque::new(),
        durable: 0,
    };
}

impl Waiting {
    /// Puts a ticket at its place: the end for a new one.
    pub(crate) fn insert(&mut self, ticket: Ticket) {
        self.durable += usize::from(ticket.is_durable);
        if self.tickets.capacity() == 0 {
            // Most queues never have more than one; a list takes room for four at first.
            self.tickets.reserve_exact(1);
        }
        match self.tickets.back() {
            Some(last) if last.place() > ticket.place() => {
                let at = self.position(&ticket);
                self.tickets.insert(at, ticket);
            }
            _ => self.tickets.push_back(ticket),
        }
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Ticket> {
        self.take(0)
    }

    /// Takes the one at a place, or the last.
    pub(crate) fn take(&mut self, place: usize) -> Option<Ticket> {
        let ticket = self
            .tickets
            .remove(place.min(self.tickets.len().checked_sub(1)?))?;
        self.durable -= usize::from(ticket.is_durable);
        Some(ticket)
    }

    /// The one at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&Ticket> {
        self.tickets.get(place)
    }

    /// Takes one out of the middle.
    pub(crate) fn remove(&mut self, ticket: &Ticket) {
        if let Ok(at) = self.tickets.binary_search_by_key(&ticket.place(), Ticket::place) {
            self.take(at);
        }
    }

    /// Ids of those that have waited too long, oldest first.
    pub(crate) fn expired(&self, now: Instant, retention: Retention) -> Vec<ActivationId> {
        // Nobody has waited for longer than since its acceptance.
        let shortest = if self.durable == self.tickets.len() {
            retention.durable
        } else {
            retention.memory.min(retention.durable)
        };
        self.tickets
            .range(..self.count_older(now, shortest))
            .filter(|ticket| retention.end_of(ticket) <= now)
            .map(|ticket| ticket.id)
            .collect()
    }

    /// When the first has waited too long.
    pub(crate) fn next_expiry(&self, retention: Retention) -> Option<Instant> {
        if self.durable == 0 {
            return self.oldest().map(|at| at + retention.memory);
        }
        self.tickets.iter().map(|ticket| retention.end_of(ticket)).min()
    }

    /// How many, from the head, have waited at least `age`.
    pub(crate) fn count_older(&self, now: Instant, age: Duration) -> usize {
        self.tickets
            .partition_point(|ticket| is_expired(now.saturating_since(ticket.accepted_at), age))
    }

    /// Ids of those that are wanted, oldest first.
    pub(crate) fn ids_where(&self, wanted: impl Fn(&Ticket) -> bool) -> Vec<ActivationId> {
        let tickets = self.tickets.iter().filter(|ticket| wanted(ticket));
        tickets.map(|ticket| ticket.id).collect()
    }

    /// Whether a durable one waits.
    pub(crate) const fn has_durable(&self) -> bool {
        self.durable > 0
    }

    /// When the oldest that is in memory only was accepted.
    pub(crate) fn oldest_in_memory(&self) -> Option<Instant> {
        if self.durable == self.tickets.len() {
            return None;
        }
        let mut tickets = self.tickets.iter();
        tickets
            .find(|ticket| !ticket.is_durable)
            .map(|ticket| ticket.accepted_at)
    }

    /// When the oldest was accepted.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.tickets.front().map(|ticket| ticket.accepted_at)
    }

    /// How many are before this one.
    pub(crate) fn position(&self, ticket: &Ticket) -> usize {
        self.tickets
            .partition_point(|other| other.place() < ticket.place())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(seq: u64, secs: u64) -> Ticket {
        let accepted_at = Instant::from_origin(Duration::from_secs(secs));
        Ticket {
            seq,
            id: ActivationId::from_bytes([seq as u8; 16]),
            accepted_at,
            ready_at: accepted_at,
            is_durable: false,
        }
    }

    fn order(mut waiting: Waiting) -> Vec<u64> {
        std::iter::from_fn(|| waiting.pop())
            .map(|ticket| ticket.seq)
            .collect()
    }

    #[test]
    fn what_comes_back_gets_its_old_place() {
        let mut waiting = Waiting::default();
        (1..=4).for_each(|seq| waiting.insert(ticket(seq, seq)));
        let (first, second) = (waiting.pop().unwrap(), waiting.pop().unwrap());
        waiting.insert(first);
        waiting.insert(second);
        waiting.remove(&ticket(3, 3));
        assert_eq!(order(waiting), [1, 2, 4]);
    }

    #[test]
    fn place_is_that_of_the_first_acceptance() {
        let mut waiting = Waiting::default();
        for (seq, secs) in [(1, 5), (2, 5), (3, 2), (4, 9), (5, 3), (6, 5)] {
            waiting.insert(ticket(seq, secs));
        }
        assert_eq!(waiting.position(&ticket(5, 3)), 1);
        assert_eq!(waiting.oldest(), Some(ticket(3, 2).accepted_at));
        waiting.remove(&ticket(2, 5));
        assert_eq!(order(waiting), [3, 5, 1, 6, 4]);
    }

    #[test]
    fn age_is_inclusive() {
        let mut waiting = Waiting::default();
        (1..=3).for_each(|seq| waiting.insert(ticket(seq, seq)));
        let now = Instant::from_origin(Duration::from_secs(12));
        assert_eq!(waiting.count_older(now, Duration::from_secs(10)), 2);
    }
}
