//! Activations that wait, in the order in which they were accepted.
//!
//! One that comes back from an invoker gets its old place again, so hand-outs keep the order of arrival even when
//! several come back in any order.

use std::collections::VecDeque;
use std::time::Duration;

use whiskraft_types::{ActivationId, Instant};

use crate::is_expired;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Order of acceptance.
    pub(crate) seq: u64,
    /// Whose.
    pub(crate) id: ActivationId,
    /// When it was accepted; never falls with `seq`.
    pub(crate) accepted_at: Instant,
}

/// Tickets by ascending `seq`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting {
    tickets: VecDeque<Ticket>,
}

impl Waiting {
    /// Puts a ticket at its place: the end for a new one.
    pub(crate) fn insert(&mut self, ticket: Ticket) {
        match self.tickets.back() {
            Some(last) if last.seq > ticket.seq => {
                let at = self.tickets.partition_point(|other| other.seq < ticket.seq);
                self.tickets.insert(at, ticket);
            }
            _ => self.tickets.push_back(ticket),
        }
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Ticket> {
        self.tickets.pop_front()
    }

    /// Takes one out of the middle.
    pub(crate) fn remove(&mut self, seq: u64) {
        if let Ok(at) = self.tickets.binary_search_by_key(&seq, |ticket| ticket.seq) {
            self.tickets.remove(at);
        }
    }

    /// Ids of those that have waited at least `age`, oldest first.
    pub(crate) fn older_than(&self, now: Instant, age: Duration) -> Vec<ActivationId> {
        self.tickets
            .range(..self.count_older(now, age))
            .map(|ticket| ticket.id)
            .collect()
    }

    /// How many, from the head, have waited at least `age`.
    pub(crate) fn count_older(&self, now: Instant, age: Duration) -> usize {
        let is_older = |ticket: &&Ticket| is_expired(now.saturating_since(ticket.accepted_at), age);
        self.tickets.iter().take_while(is_older).count()
    }

    /// All ids, oldest first.
    pub(crate) fn ids(&self) -> Vec<ActivationId> {
        self.tickets.iter().map(|ticket| ticket.id).collect()
    }

    /// When the oldest was accepted.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.tickets.front().map(|ticket| ticket.accepted_at)
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

    fn ticket(seq: u64) -> Ticket {
        let accepted_at = Instant::from_origin(Duration::from_secs(seq));
        Ticket {
            seq,
            id: ActivationId::from_bytes([seq as u8; 16]),
            accepted_at,
        }
    }

    #[test]
    fn what_comes_back_gets_its_old_place() {
        let mut waiting = Waiting::default();
        (1..=4).for_each(|seq| waiting.insert(ticket(seq)));
        let (first, second) = (waiting.pop().unwrap(), waiting.pop().unwrap());
        waiting.insert(first);
        waiting.insert(second);
        waiting.remove(3);
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop())
            .map(|ticket| ticket.seq)
            .collect();
        assert_eq!(order, [1, 2, 4]);
    }

    #[test]
    fn age_is_inclusive() {
        let mut waiting = Waiting::default();
        (1..=3).for_each(|seq| waiting.insert(ticket(seq)));
        let now = Instant::from_origin(Duration::from_secs(12));
        assert_eq!(waiting.count_older(now, Duration::from_secs(10)), 2);
    }
}
