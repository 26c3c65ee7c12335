//! What of an action's document is asked for at every change of leader, shared by the shards: reading and parsing it each
//! time would make moving many queues slow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use whiskraft_proto::Message;
use whiskraft_proto::v1;
use whiskraft_raft::Node;
use whiskraft_state::DocumentKey;
use whiskraft_types::{ActionName, Revision};

/// Actions remembered, some 100 bytes each; beyond it all are forgotten and read again.
const ACTIONS_MAX: usize = 65_536;

/// The cache; a cheap copy. One short lock per leadership or revision, none per activation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profiles {
    blackbox: Arc<Mutex<BTreeMap<ActionName, (Revision, bool)>>>,
}

impl Profiles {
    /// Whether containers of an action come from an image of the user; no if its document cannot be read.
    pub(crate) fn is_blackbox(&self, node: &Node, action: &ActionName, revision: Revision) -> bool {
        if let Some((_, known)) =
            self.with(|known| known.get(action).copied().filter(|(of, _)| *of == revision))
        {
            return known;
        }
        let document = DocumentKey::action(action);
        let body = document.and_then(|key| node.document(&key).ok().flatten());
        let Some((of, body)) = body else { return false };
        let kind = v1::Action::decode(body).map(|action| action.kind);
        let is_blackbox = kind.is_ok_and(|kind| crate::creation::is_blackbox(&kind));
        self.with(|known| {
            if known.len() >= ACTIONS_MAX {
                known.clear();
            }
            known.insert(action.clone(), (of, is_blackbox));
        });
        is_blackbox
    }

    fn with<T>(&self, access: impl FnOnce(&mut BTreeMap<ActionName, (Revision, bool)>) -> T) -> T {
        // Nothing under this lock can leave the map half changed.
        access(&mut self.blackbox.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
