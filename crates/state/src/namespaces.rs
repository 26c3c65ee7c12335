//! Limits of namespaces, and the throttle that follows from them.

use whiskraft_types::{NamespaceLimits, NamespaceName};

use crate::event::{Event, Refusal, Response};
use crate::record::NamespaceRecord;
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_put_namespace(
        &mut self,
        name: &NamespaceName,
        limits: &NamespaceLimits,
        turn: &mut Turn,
    ) -> Response {
        let row = NamespaceRecord {
            limits: limits.clone(),
        };
        if self.tables.namespaces.insert(name.clone(), row.clone()).as_ref() != Some(&row) {
            turn.event(Event::Namespace(name.clone(), Some(row)));
            turn.touch(name);
        }
        Response::Done
    }

    pub(crate) fn apply_delete_namespace(
        &mut self,
        name: &NamespaceName,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        self.tables.namespaces.remove(name).ok_or(Refusal::NotFound)?;
        turn.event(Event::Namespace(name.clone(), None));
        turn.touch(name);
        Ok(Response::Done)
    }

    /// Judges the namespaces that a command touched, once, after all its changes: one event at most for each.
    pub(crate) fn judge_namespaces(&mut self, turn: &mut Turn) {
        for name in turn.take_touched() {
            if let Some(throttled) = self.index.judge_namespace(&name, self.tables.slots_max(&name)) {
                turn.event(Event::NamespaceThrottle(name, throttled));
            }
        }
    }
}

#[cfg(test)]
#[path = "namespaces_test.rs"]
mod tests;
