//! What one command has caused so far.

use std::collections::BTreeSet;

use whiskraft_types::{LogRevision, NamespaceName};

use crate::event::{Applied, Effect, Event, Response};

/// Collects events and effects of one `apply`.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Log revision of the command.
    pub(crate) revision: LogRevision,
    events: Vec<Event>,
    effects: Vec<Effect>,
    /// Namespaces whose counts or limits changed: their throttle is judged once, at the end.
    touched: BTreeSet<NamespaceName>,
}

impl Turn {
    pub(crate) fn new(revision: LogRevision) -> Self {
        Self {
            revision,
            events: Vec::new(),
            effects: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        if self.events.is_empty() {
            // Most commands have one, and thousands of them are kept for those who follow: not room for four.
            self.events.reserve_exact(1);
        }
        self.events.push(event);
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn touch(&mut self, namespace: &NamespaceName) {
        if !self.touched.contains(namespace) {
            self.touched.insert(namespace.clone());
        }
    }

    pub(crate) fn take_touched(&mut self) -> BTreeSet<NamespaceName> {
        std::mem::take(&mut self.touched)
    }

    pub(crate) fn finish(mut self, response: Response) -> Applied {
        self.events.shrink_to_fit();
        Applied {
            response,
            events: self.events,
            effects: self.effects,
        }
    }
}
