//! Invokers: what they offer and report. A record lives as long as the session.

use whiskraft_types::{ByteSize, ContainerId, InvokerId, SessionId};

use crate::command::InvokerReport;
use crate::event::{Event, Response};
use crate::record::{InvokerProfile, InvokerRecord};
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_report_invokers(&mut self, reports: &[InvokerReport], turn: &mut Turn) -> Response {
        for report in reports {
            let row = self.tables.invokers.get_mut(&report.invoker);
            let Some(row) = row.filter(|row| row.session == report.session) else {
                continue;
            };
            let InvokerReport {
                healthy,
                busy,
                reclaimable,
                ..
            } = *report;
            if (row.healthy, row.busy, row.reclaimable) != (healthy, busy, reclaimable) {
                (row.healthy, row.busy, row.reclaimable) = (healthy, busy, reclaimable);
                turn.event(Event::Invoker(report.invoker, Some(row.clone())));
            }
        }
        Response::Done
    }

    /// Records an invoker whose session has just opened. It gets containers once it has reported health.
    pub(crate) fn put_invoker(
        &mut self,
        id: InvokerId,
        session: SessionId,
        profile: &InvokerProfile,
        turn: &mut Turn,
    ) {
        let row = InvokerRecord {
            session,
            profile: profile.clone(),
            healthy: false,
            busy: ByteSize::ZERO,
            reclaimable: ByteSize::ZERO,
        };
        self.tables.invokers.insert(id, row.clone());
        turn.event(Event::Invoker(id, Some(row)));
    }

    /// Forgets an invoker whose session has ended, with its containers.
    pub(crate) fn delete_invoker(&mut self, id: InvokerId, turn: &mut Turn) {
        self.tables.invokers.remove(&id);
        turn.event(Event::Invoker(id, None));
        let containers: Vec<ContainerId> = self.index.containers_on(id).collect();
        containers
            .into_iter()
            .for_each(|container| drop(self.delete_container(container, turn)));
    }
}

#[cfg(test)]
#[path = "invokers_test.rs"]
mod tests;
