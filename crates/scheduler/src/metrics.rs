//! Every metric of the scheduler: its name, unit, labels and meaning, and nothing else. What is counted where is in the
//! modules below; `docs/metrics.md` has the same list, and a test holds the two together.
//!
//! Invariant: every label has a bounded set of values: a closed list of the code, or the names of the [`TOP_MAX`]
//! namespaces and actions that use most, the rest summed as [`OTHER`].

mod counters;
mod exposition;
mod journal;
mod scrape;
mod totals;

pub(crate) use counters::{Histogram, LeadershipEvent, Metrics, Proposed, ShardMeter, Watcher};
pub(crate) use exposition::CONTENT_TYPE;
pub(crate) use journal::{EntryKind, EntryOutcome};
pub(crate) use scrape::Scraper;

/// Namespaces, and actions, with series of their own.
pub(crate) const TOP_MAX: usize = 1000;
/// Label value under which all others are summed; no namespace and no action can be called so.
pub(crate) const OTHER: &str = "(other)";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// A number of now.
    Gauge,
    /// Observations by size.
    Histogram,
}

#[cfg(test)]
impl Kind {
    /// As the exposition names it.
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric {
    /// With prefix and unit.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Names of its labels.
    pub(crate) labels: &'static [&'static str],
    /// What it counts: the base unit, or the thing.
    pub(crate) unit: &'static str,
    /// What it means.
    pub(crate) help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] in $unit:literal: $help:literal;)*) => {
        $(
            #[doc = $help]
            pub(crate) const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                unit: $unit,
                help: $help,
            };
        )*
        /// All of them, for the tests of rules and documentation.
        #[cfg(test)]
        const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    INFO = Gauge "whiskraft_info" ["scheduler", "version"] in "1":
        "Always 1; says which scheduler this is and its version.";
    ACCEPTED = Counter "whiskraft_activations_accepted_total" [] in "activations":
        "Submissions that this scheduler's queues accepted; one that is submitted again counts again.";
    REJECTED = Counter "whiskraft_activations_rejected_total" ["reason"] in "activations":
        "Submissions refused, by reason.";
    DELIVERED = Counter "whiskraft_activations_delivered_total" [] in "activations":
        "Activations handed to containers; one that an invoker gave back counts again.";
    COMPLETED = Counter "whiskraft_activations_completed_total" ["status"] in "activations":
        "Outcomes told to controllers, by status; one that is asked for again counts again.";
    DROPPED = Counter "whiskraft_activations_dropped_total" ["reason"] in "activations":
        "Activations that this scheduler itself ended at a deadline, by what kept them waiting.";
    WAIT = Histogram "whiskraft_activation_wait_seconds" [] in "seconds":
        "From acceptance to delivery to a container.";
    WAITING = Gauge "whiskraft_activations_waiting" ["namespace"] in "activations":
        "Activations that wait in queues led here, by invocation namespace.";
    ACTION_WAITING = Gauge "whiskraft_action_activations_waiting" ["namespace", "action"] in "activations":
        "Activations that wait in queues led here, by queue.";
    QUEUES = Gauge "whiskraft_queues" [] in "queues":
        "Queues of the whole cluster.";
    QUEUES_LED = Gauge "whiskraft_queues_led" [] in "queues":
        "Queues that this scheduler leads.";
    QUEUES_WAITING = Gauge "whiskraft_queues_waiting" ["reason"] in "queues":
        "Queues led here in which something waits, by the reason why.";
    QUEUES_THROTTLED = Gauge "whiskraft_queues_throttled" [] in "queues":
        "Queues led here that refuse new activations because they are full.";
    LEADERSHIPS = Counter "whiskraft_queue_leaderships_total" ["event"] in "queues":
        "Leaderships of queues that began here (created, taken over) and ended here (moved away, removed).";
    CONTAINERS = Gauge "whiskraft_containers" ["state"] in "containers":
        "Containers of the whole cluster, by state.";
    NAMESPACE_CONTAINERS = Gauge "whiskraft_namespace_containers" ["namespace", "state"] in "containers":
        "Containers of the whole cluster, by invocation namespace and state.";
    ACTION_CONTAINERS = Gauge "whiskraft_action_containers" ["namespace", "action", "state"] in "containers":
        "Containers of queues led here, by queue and state; warm ones and those of older revisions left out.";
    RESERVATIONS = Counter "whiskraft_reservations_total" ["outcome"] in "containers":
        "Container slots asked of the log: granted, or refused because of a limit or a change of leader.";
    CREATIONS = Counter "whiskraft_creations_total" ["outcome"] in "containers":
        "Creations that ended: running, or the error of the last attempt.";
    START = Histogram "whiskraft_container_start_seconds" [] in "seconds":
        "From the grant of a container's slot until it runs.";
    NAMESPACES_THROTTLED = Gauge "whiskraft_namespaces_throttled" [] in "namespaces":
        "Namespaces that use all the containers they may.";
    INVOKERS = Gauge "whiskraft_invokers" ["state"] in "invokers":
        "Invokers with a session: healthy, unhealthy, disconnected (without a stream to this scheduler), or given no containers, or one at a time, by this scheduler while others can take them: flapping, slow, silent, failing.";
    INVOKER_MEMORY = Gauge "whiskraft_invoker_memory_bytes" ["use"] in "bytes":
        "Memory of all invokers together: total, busy, and of paused containers.";
    RAFT_ROLE = Gauge "whiskraft_raft_role" ["role"] in "1":
        "1 for the role of this node in the Raft group, 0 for the others.";
    RAFT_TERM = Gauge "whiskraft_raft_term" [] in "terms":
        "Current Raft term.";
    RAFT_LAST_LOG = Gauge "whiskraft_raft_last_log_index" [] in "entries":
        "Last entry of this node's log.";
    RAFT_APPLIED = Gauge "whiskraft_raft_applied_index" [] in "entries":
        "Last entry that this node has applied.";
    LANE_LEADS = Gauge "whiskraft_lane_leads" ["lane"] in "1":
        "1 for a lane of the journal that this node leads, else 0.";
    LANE_LAST_LOG = Gauge "whiskraft_lane_last_log_index" ["lane"] in "entries":
        "Last entry of this node's log of a lane.";
    LANE_APPLIED = Gauge "whiskraft_lane_applied_index" ["lane"] in "entries":
        "Last entry of a lane that this node has applied.";
    LOG_REVISION = Gauge "whiskraft_log_revision" [] in "revisions":
        "Log revision of this node's tables: what watchers have seen at most.";
    PROPOSALS = Counter "whiskraft_proposals_total" ["outcome"] in "proposals":
        "Proposals of this scheduler to the log: done, refused by the tables, or failed for want of a quorum.";
    PROPOSAL = Histogram "whiskraft_proposal_seconds" [] in "seconds":
        "From a proposal to the log's answer.";
    SESSIONS = Gauge "whiskraft_sessions" ["owner"] in "sessions":
        "Live sessions, by kind of owner.";
    KEEPALIVES = Counter "whiskraft_keepalives_total" ["outcome"] in "keepalives":
        "Keepalives of this scheduler's session: acknowledged or failed.";
    FENCED = Gauge "whiskraft_fenced" [] in "1":
        "1 while this scheduler may not act because its lease has run out, else 0.";
    WATCHERS = Gauge "whiskraft_watchers" [] in "streams":
        "Open watch streams.";
    JOURNAL_ENTRIES = Counter "whiskraft_journal_entries_total" ["kind", "outcome"] in "entries":
        "Entries that this scheduler's queues had for the journal: new activations, further runs, ends; by what became of them.";
    JOURNAL_ACCEPTING = Gauge "whiskraft_journal_accepting" [] in "activations":
        "Durable activations that wait for the disks of a majority.";
    JOURNAL_BATCHES = Counter "whiskraft_journal_batches_total" [] in "batches":
        "Groups of entries that were appended to a lane together.";
    JOURNAL_APPEND = Histogram "whiskraft_journal_append_seconds" [] in "seconds":
        "From the append of a group until a majority has it on disk, or that failed.";
    JOURNAL_RECOVERY = Histogram "whiskraft_journal_recovery_seconds" [] in "seconds":
        "From the begin of a leadership until all that its queue has open in the journal is known.";
    JOURNAL_RECOVERED = Counter "whiskraft_journal_recovered_total" [] in "activations":
        "Open activations that were read from the journal after a change of leader.";
    JOURNAL_ARCHIVED = Counter "whiskraft_journal_archived_total" ["outcome"] in "records":
        "Records of activations that were not durable: kept, or dropped for want of room or a majority.";
    TURN = Histogram "whiskraft_shard_turn_seconds" [] in "seconds":
        "Length of one turn of a shard of queues.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("whiskraft_"), "{name} has no prefix");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            for unit in ["seconds", "bytes"] {
                let suffix = name.trim_end_matches("_total").ends_with(&format!("_{unit}"));
                assert_eq!(suffix, metric.unit == unit, "{name} and its unit {}", metric.unit);
            }
            assert!(
                metric.help.ends_with('.') && metric.help.len() > 15,
                "{name} says nothing"
            );
        }
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let labels = |labels: &[&str]| {
            let quoted: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            quoted.join(", ")
        };
        let rows: Vec<String> = ALL
            .iter()
            .map(|metric| {
                let (name, kind, help) = (metric.name, metric.kind.name(), metric.help);
                format!(
                    "| `{name}` | {kind} | {} | {} | {help} |",
                    metric.unit,
                    labels(metric.labels)
                )
            })
            .collect();
        let documented: Vec<&str> = include_str!("../../../docs/metrics.md")
            .lines()
            .skip_while(|line| *line != "## Scheduler")
            .take_while(|line| *line == "## Scheduler" || !line.starts_with("## "))
            .filter(|line| line.starts_with("| `"))
            .collect();
        assert_eq!(
            documented,
            rows,
            "docs/metrics.md should have these rows:\n{}",
            rows.join("\n")
        );
    }
}
