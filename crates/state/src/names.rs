//! Names that many rows have, each kept once: a row that was read has texts of its own.

use std::collections::BTreeSet;

use whiskraft_types::{ActionName, NamespaceName, QueueKey};

use crate::rows::Rows;
use crate::tables::Tables;

/// The names that were seen.
#[derive(Default)]
struct Names {
    namespaces: BTreeSet<NamespaceName>,
    actions: BTreeSet<ActionName>,
}

impl Names {
    fn share(&mut self, key: &QueueKey) -> QueueKey {
        QueueKey {
            namespace: once(&mut self.namespaces, &key.namespace),
            action: once(&mut self.actions, &key.action),
        }
    }
}

/// The name as it was first seen.
fn once<T: Ord + Clone>(seen: &mut BTreeSet<T>, name: &T) -> T {
    seen.get(name).cloned().unwrap_or_else(|| {
        seen.insert(name.clone());
        name.clone()
    })
}

impl Tables {
    /// Gives rows that have the same names the same texts.
    pub(crate) fn share_names(&mut self) {
        let mut names = Names::default();
        let mut queues = Rows::default();
        for (key, queue) in self.queues.iter() {
            queues.insert(names.share(key), queue.clone());
        }
        self.queues = queues;
        let mut containers = Rows::default();
        for (id, row) in self.containers.iter() {
            let mut row = row.clone();
            row.key = names.share(&row.key);
            containers.insert(*id, row);
        }
        self.containers = containers;
    }
}
