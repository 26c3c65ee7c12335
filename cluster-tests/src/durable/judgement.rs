//! What a history of durable work, the records and the starts say together.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_types::ActivationId;

use super::{Evidence, Fate, Operation, look};
use crate::cluster::Cluster;
use crate::starts::Start;

/// How long everything that was accepted may take to end once the faults are over.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Examples in the message of a failed test.
const SHOWN: usize = 5;

/// What was found. Lists name what must not be.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Activations acknowledged.
    pub accepted: usize,
    /// Refused for good.
    pub refused: usize,
    /// Of unknown fate to their submitter.
    pub unknown: usize,
    /// Of these, ones that have a record.
    pub unknown_done: usize,
    /// Submitted more than once by hand.
    pub resubmitted: usize,
    /// Submitted by two clients at once.
    pub twice: usize,
    /// Starts in the invokers' own record.
    pub starts: usize,
    /// Acknowledged, and without a record at some scheduler.
    pub lost: Vec<String>,
    /// With a record that is not the result of their arguments.
    pub wrong: Vec<String>,
    /// With records that differ between schedulers or moments.
    pub changed: Vec<String>,
    /// Started more often than their record says they were run.
    pub started_twice: Vec<String>,
    /// With a record of success and no start.
    pub never_started: Vec<String>,
    /// Refused for good, and started all the same.
    pub refused_started: Vec<String>,
    /// Refused with a conflict, though nobody else has their id.
    pub conflicts: Vec<String>,
}

/// Judges a history after the faults are over: reads every activation from every scheduler that is up and compares with what the
/// invokers recorded. `early` are records read while the faults were on; they must not have changed.
pub async fn judge(
    cluster: &Cluster,
    history: &[Operation],
    early: &BTreeMap<ActivationId, Evidence>,
) -> Judgement {
    let mut judgement = Judgement::default();
    let accepted: Vec<&Operation> = history.iter().filter(|one| one.fate == Fate::Accepted).collect();
    let open: Vec<&Operation> = history
        .iter()
        .filter(|one| matches!(one.fate, Fate::Unknown(_)))
        .collect();
    let endpoints = cluster.running_endpoints();
    let ended = |evidence: &Evidence| matches!(evidence.state, State::Done | State::Gone);
    // The first waits for the ends, the others have to know at once what it knows.
    let first = look(&endpoints[0], &accepted, END_LIMIT, ended).await;
    let rest = endpoints[1..]
        .iter()
        .map(|endpoint| look(endpoint, &accepted, Duration::ZERO, ended));
    let rest = join_all(rest).await;
    let starts = cluster.starts.by_id();
    let settled = |evidence: &Evidence| matches!(evidence.state, State::Done | State::Unknown);
    let unknown = look(&endpoints[0], &open, END_LIMIT, settled).await;
    for operation in history {
        judgement.count(operation);
        let started = starts
            .get(&operation.id.to_string())
            .map_or(&[][..], Vec::as_slice);
        match &operation.fate {
            Fate::Accepted => {
                let evidence = std::iter::once(&first).chain(&rest);
                let evidence: Vec<&Evidence> = evidence.filter_map(|one| one.get(&operation.id)).collect();
                judgement.weigh(operation, &evidence, early.get(&operation.id), started);
            }
            Fate::Refused(why) => {
                if !started.is_empty() {
                    judgement.refused_started.push(format!("{} {why}", operation.id));
                }
                if why.contains("other payload") || why.contains("onflict") {
                    judgement.conflicts.push(format!("{} {why}", operation.id));
                }
            }
            Fate::Unknown(_) => {
                let evidence = unknown.get(&operation.id);
                let done = evidence.filter(|evidence| evidence.state == State::Done);
                judgement.unknown_done += usize::from(done.is_some());
                let runs = done.map_or(1, |evidence| evidence.runs.max(1));
                judgement.weigh_starts(operation, started, runs);
            }
        }
    }
    judgement.starts = starts.values().map(Vec::len).sum();
    judgement
}

impl Judgement {
    fn count(&mut self, operation: &Operation) {
        match operation.fate {
            Fate::Accepted => self.accepted += 1,
            Fate::Refused(_) => self.refused += 1,
            Fate::Unknown(_) => self.unknown += 1,
        }
        self.resubmitted += usize::from(operation.tries > 1);
        self.twice += usize::from(operation.twice);
    }

    fn weigh(
        &mut self,
        operation: &Operation,
        evidence: &[&Evidence],
        early: Option<&Evidence>,
        started: &[Start],
    ) {
        let id = operation.id;
        if let Some(open) = evidence.iter().find(|one| one.state != State::Done) {
            self.lost.push(format!("{id} is {:?}", open.state));
            return;
        }
        let Some(first) = evidence.first() else {
            self.lost.push(format!("{id}: nobody was asked"));
            return;
        };
        if !first.is_right(operation.n) {
            let (status, echo) = (first.status, &first.echo);
            self.wrong
                .push(format!("{id} n={} status {status} result {echo:?}", operation.n));
        }
        let all = evidence.iter().copied().chain(early);
        if all.clone().any(|one| one.digest != first.digest) {
            let digests: Vec<u64> = all.map(|one| one.digest).collect();
            self.changed.push(format!("{id} {digests:x?}"));
        }
        if started.is_empty() {
            self.never_started.push(id.to_string());
        }
        self.weigh_starts(operation, started, first.runs.max(1));
    }

    /// At most one start of each run, and no run that the record does not know.
    fn weigh_starts(&mut self, operation: &Operation, started: &[Start], runs: u32) {
        let mut seen = BTreeMap::<u32, usize>::new();
        for start in started {
            *seen.entry(start.run).or_default() += 1;
        }
        if seen.iter().any(|(run, count)| *run > runs || *count > 1) {
            self.started_twice.push(format!("{operation:?} {started:?}"));
        }
    }

    /// What must not be, with what was found of it.
    fn violations(&self) -> [(&'static str, &Vec<String>); 7] {
        [
            ("lost", &self.lost),
            ("wrong result", &self.wrong),
            ("records that differ", &self.changed),
            ("started twice", &self.started_twice),
            ("done without a start", &self.never_started),
            ("refused and started", &self.refused_started),
            ("conflict with itself", &self.conflicts),
        ]
    }

    /// Whether nothing was found that must not be.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.violations().iter().all(|(_, list)| list.is_empty())
    }

    /// Checks that nothing was found that must not be.
    ///
    /// # Panics
    /// With what was found.
    pub fn assert_kept(&self) {
        for (what, list) in self.violations() {
            assert!(
                list.is_empty(),
                "{what}: {} of {}, as {:?}",
                list.len(),
                self.accepted,
                &list[..list.len().min(SHOWN)]
            );
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted={} refused={} unknown={} (of these done {}) resubmitted={} submitted twice at once={} starts={}; \
             lost={} wrong={} records that differ={} started twice={} never started={} refused and started={}",
            self.accepted,
            self.refused,
            self.unknown,
            self.unknown_done,
            self.resubmitted,
            self.twice,
            self.starts,
            self.lost.len(),
            self.wrong.len(),
            self.changed.len(),
            self.started_twice.len(),
            self.never_started.len(),
            self.refused_started.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_client::Client;

    use super::*;

    fn operation(n: u64) -> Operation {
        Operation {
            id: Client::draw_id(),
            key: crate::tenants::queue(&crate::tenants::namespace("n", 0), 0),
            n,
            began: Duration::ZERO,
            took: Duration::ZERO,
            tries: 1,
            twice: false,
            fate: Fate::Accepted,
        }
    }

    fn evidence(n: u64) -> Evidence {
        Evidence {
            state: State::Done,
            runs: 1,
            dead_letter: false,
            digest: 7,
            status: 1,
            echo: Some((n, super::super::proof(n))),
        }
    }

    fn start(operation: &Operation, run: u32) -> Start {
        Start {
            id: operation.id.to_string(),
            run,
            invoker: 1,
            at_ms: 0,
        }
    }

    fn weighed(change: impl FnOnce(&mut Evidence, &mut Vec<Start>)) -> Judgement {
        let operation = operation(5);
        let (mut last, mut starts) = (evidence(5), vec![start(&operation, 1)]);
        change(&mut last, &mut starts);
        let mut judgement = Judgement::default();
        judgement.weigh(&operation, &[&evidence(5), &last], None, &starts);
        judgement
    }

    #[test]
    fn what_is_right_is_found_right() {
        weighed(|_, _| ()).assert_kept();
    }

    #[test]
    fn each_violation_is_found() {
        let lost = weighed(|last, _| last.state = State::Unknown);
        assert_eq!(lost.lost.len(), 1);
        let changed = weighed(|last, _| last.digest = 8);
        assert_eq!(changed.changed.len(), 1);
        let twice = weighed(|_, starts| starts.push(starts[0].clone()));
        assert_eq!(twice.started_twice.len(), 1);
        let unknown_run = weighed(|_, starts| starts[0].run = 2);
        assert_eq!(unknown_run.started_twice.len(), 1);
        let never = weighed(|_, starts| starts.clear());
        assert_eq!(never.never_started.len(), 1);
        let operation = operation(5);
        let mut wrong = Judgement::default();
        wrong.weigh(&operation, &[&evidence(6)], None, &[start(&operation, 1)]);
        assert_eq!(wrong.wrong.len(), 1);
    }
}
