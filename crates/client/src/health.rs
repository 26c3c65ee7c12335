//! Health of all invokers as one list without holes, the form in which controllers report it.

use std::collections::BTreeMap;

use whiskraft_types::{ByteSize, InvokerId};

use crate::watch::Invoker;
use crate::{CallError, Client};

/// What an invoker is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Takes containers.
    Healthy,
    /// Alive, takes none.
    Unhealthy,
    /// No live session, or a number that nobody has.
    Offline,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvokerHealth {
    /// Its number.
    pub invoker: InvokerId,
    /// What it is good for.
    pub health: Health,
    /// Memory for containers.
    pub memory_total: ByteSize,
    /// Memory that containers use.
    pub memory_busy: ByteSize,
    /// Tags.
    pub tags: Vec<String>,
}

/// Longest list: numbers far apart must not make it grow without bound. More holes than this are left out.
const HOLES_MAX: u64 = 10_000;

impl Client {
    /// Health of all invokers, sorted by number; numbers between the smallest and the largest that nobody has are
    /// offline with no memory.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answers.
    pub async fn invoker_health(&self) -> Result<Vec<InvokerHealth>, CallError> {
        Ok(fill(self.status().await?.invokers))
    }
}

fn fill(invokers: Vec<Invoker>) -> Vec<InvokerHealth> {
    let mut lines: BTreeMap<InvokerId, InvokerHealth> = invokers
        .into_iter()
        .map(|invoker| (invoker.invoker, line(invoker)))
        .collect();
    let Some((first, last)) = lines
        .keys()
        .next()
        .copied()
        .zip(lines.keys().next_back().copied())
    else {
        return Vec::new();
    };
    let holes = (first.0..last.0)
        .map(InvokerId)
        .filter(|id| !lines.contains_key(id));
    let holes: Vec<_> = holes
        .take(usize::try_from(HOLES_MAX).unwrap_or(usize::MAX))
        .collect();
    for invoker in holes {
        lines.insert(
            invoker,
            InvokerHealth {
                invoker,
                health: Health::Offline,
                memory_total: ByteSize::ZERO,
                memory_busy: ByteSize::ZERO,
                tags: Vec::new(),
            },
        );
    }
    lines.into_values().collect()
}

fn line(invoker: Invoker) -> InvokerHealth {
    let is_live = invoker.session.is_some() && !invoker.removed;
    let health = match (is_live, invoker.healthy) {
        (false, _) => Health::Offline,
        (true, true) => Health::Healthy,
        (true, false) => Health::Unhealthy,
    };
    InvokerHealth {
        invoker: invoker.invoker,
        health,
        memory_total: invoker.memory_total,
        memory_busy: invoker.memory_busy,
        tags: invoker.tags,
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::SessionId;

    use super::*;

    fn invoker(id: u64, session: Option<u64>, healthy: bool) -> Invoker {
        Invoker {
            invoker: InvokerId(id),
            session: session.map(SessionId),
            healthy,
            memory_total: ByteSize::mib(512),
            memory_busy: ByteSize::ZERO,
            tags: Vec::new(),
            zone: String::new(),
            removed: false,
        }
    }

    #[test]
    fn the_list_is_sorted_and_has_no_holes() {
        let found = fill(vec![
            invoker(6, Some(1), true),
            invoker(3, Some(2), false),
            invoker(4, None, true),
        ]);
        let lines: Vec<_> = found.iter().map(|line| (line.invoker.0, line.health)).collect();
        assert_eq!(
            lines,
            [
                (3, Health::Unhealthy),
                (4, Health::Offline),
                (5, Health::Offline),
                (6, Health::Healthy)
            ]
        );
        assert_eq!(found[2].memory_total, ByteSize::ZERO);
    }

    #[test]
    fn no_invokers_make_an_empty_list_and_far_numbers_no_huge_one() {
        assert!(fill(Vec::new()).is_empty());
        let found = fill(vec![invoker(0, Some(1), true), invoker(u64::MAX, Some(2), true)]);
        assert_eq!(found.len() as u64, HOLES_MAX + 2);
    }
}
