//! Entries counted by kind.

use std::collections::BTreeMap;

use serde_json::json;
use whiskraft_raft::{Content, Step};
use whiskraft_state::Response;
use whiskraft_types::LogRevision;

use super::describe;
use crate::output;

/// How many entries of each kind, and how many of them were refused.
#[derive(Debug, Default)]
pub(super) struct Summary {
    range: Option<(LogRevision, LogRevision)>,
    kinds: BTreeMap<&'static str, (u64, u64)>,
}

impl Summary {
    /// Counts an entry.
    pub(super) fn take(&mut self, step: &Step) {
        let first = self.range.map_or(step.revision, |(first, _)| first);
        self.range = Some((first, step.revision));
        let (entries, refused) = self.kinds.entry(describe::kind(&step.content)).or_default();
        *entries += 1;
        if let Content::Command { applied, .. } = &step.content
            && matches!(applied.response, Response::Refused(_))
        {
            *refused += 1;
        }
    }

    /// Prints what was counted.
    pub(super) fn print(&self, as_json: bool) {
        let (first, last) = self.range.unwrap_or_default();
        if as_json {
            let kinds = self.kinds.iter().map(|(kind, (entries, refused))| {
                let counts = json!({ "entries": entries, "refused": refused });
                ((*kind).to_owned(), counts)
            });
            let kinds: serde_json::Map<_, _> = kinds.collect();
            return output::line(json!({ "from": first.0, "to": last.0, "kinds": kinds }));
        }
        output::line(format_args!("revisions {first} to {last}"));
        for (kind, (entries, refused)) in &self.kinds {
            let refused = match refused {
                0 => String::new(),
                refused => format!(", {refused} refused"),
            };
            output::line(format_args!("{entries:>10} {kind}{refused}"));
        }
    }
}
