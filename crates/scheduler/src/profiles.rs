//! What of an action's document is asked for again and again, shared by the shards and the creation actor: reading and
//! parsing it each time would make moving many queues slow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use whiskraft_proto::Message;
use whiskraft_proto::v1;
use whiskraft_queue::RetryPolicy;
use whiskraft_raft::Node;
use whiskraft_state::DocumentKey;
use whiskraft_types::{ActionName, Rare, Revision};

use crate::annotations::Annotations;
use crate::creation::is_blackbox;

/// Actions remembered, some 200 bytes each; beyond it all are forgotten and read again.
const ACTIONS_MAX: usize = 65_536;

/// What a container of an action needs of its invoker, besides memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) kind: String,
    pub(crate) tags: Vec<String>,
    /// Whether it cannot do without the tags.
    pub(crate) strict: bool,
    /// Whether it comes from an image of the user.
    pub(crate) blackbox: bool,
    /// When a durable activation that failed runs again; of the queue's concern only.
    pub(crate) retry: Rare<RetryPolicy>,
}

impl Needs {
    pub(crate) fn of(action: &v1::Action) -> Self {
        // Checked when it was stored; what an earlier release let through asks for nothing.
        let annotations = Annotations::read_what_can_be(&action.annotations);
        Self {
            kind: action.kind.clone(),
            tags: annotations.tags,
            strict: annotations.strict,
            blackbox: is_blackbox(&action.kind),
            retry: Rare::of(annotations.retry),
        }
    }
}

type Known = BTreeMap<ActionName, (Revision, Arc<Needs>)>;

/// The cache; a cheap copy. One short lock per leadership or revision, none per activation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profiles {
    known: Arc<Mutex<Known>>,
}

impl Profiles {
    /// Whether containers of an action come from an image of the user; no if its document cannot be read.
    pub(crate) fn is_blackbox(&self, node: &Node, action: &ActionName, revision: Revision) -> bool {
        let needs = self.needs(node, action, revision);
        needs.is_some_and(|needs| needs.blackbox)
    }

    /// What containers of an action need; `None` if its document cannot be read.
    pub(crate) fn needs(&self, node: &Node, action: &ActionName, revision: Revision) -> Option<Arc<Needs>> {
        let known = self.with(|known| {
            let (of, needs) = known.get(action)?;
            (*of == revision).then(|| needs.clone())
        });
        if known.is_some() {
            return known;
        }
        let (of, body) = node.document(&DocumentKey::action(action)?).ok()??;
        let needs = Arc::new(Needs::of(&v1::Action::decode(body).ok()?));
        self.with(|known| {
            if known.len() >= ACTIONS_MAX {
                known.clear();
            }
            known.insert(action.clone(), (of, needs.clone()));
        });
        Some(needs)
    }

    fn with<T>(&self, access: impl FnOnce(&mut Known) -> T) -> T {
        // Nothing under this lock can leave the map half changed.
        access(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
