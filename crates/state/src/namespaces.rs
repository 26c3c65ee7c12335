//! Limits of namespaces, and the throttle that follows from them.

use std::ops::RangeInclusive;

use whiskraft_types::{NamespaceLimits, NamespaceName};

use crate::bounds::{OVER_PROVISION_RANGE, WEIGHT_RANGE};
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
    ) -> Result<Response, Refusal> {
        check_limits(limits)?;
        let row = NamespaceRecord {
            limits: limits.clone(),
        };
        if self.tables.namespaces.insert(name.clone(), row.clone()).as_ref() != Some(&row) {
            turn.event(Event::Namespace(name.clone(), Some(row)));
            turn.touch(name);
        }
        Ok(Response::Done)
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
            if let Some(throttled) = self
                .index
                .judge_namespace(&name, self.tables.slots_over_max(&name))
            {
                turn.event(Event::NamespaceThrottle(name, throttled));
            }
        }
    }
}

fn check_limits(limits: &NamespaceLimits) -> Result<(), Refusal> {
    check_range("weight", limits.weight, WEIGHT_RANGE)?;
    check_range(
        "over-provision percent",
        limits.over_provision_percent,
        OVER_PROVISION_RANGE,
    )?;
    limits.invocations_per_minute.map_or(Ok(()), |rate| {
        check_range("invocations per minute", rate, 1..=u32::MAX)
    })
}

fn check_range(what: &str, value: u32, range: RangeInclusive<u32>) -> Result<(), Refusal> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    let reason = format!("{what} is {value}, {least} to {most} are allowed");
    Err(Refusal::Invalid { reason })
}

#[cfg(test)]
#[path = "namespaces_test.rs"]
mod tests;
