//! Passes status and memory of invokers on to the replicated table: status at once, memory coalesced and only when
//! it changed. Fed by the control streams.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use whiskraft_state::{Command, InvokerReport};
use whiskraft_types::{Instant, InvokerId};

use crate::context::Context;

/// Reports that wait; one that finds no room is dropped, as the next one says the same and more.
const REPORTS_MAX: usize = 1024;
/// Time between two proposals of memory: placement debits what it promised meanwhile by itself.
const PAUSE: Duration = Duration::from_millis(500);

/// The near end; a cheap copy.
#[derive(Clone)]
pub(crate) struct ReportsHandle {
    sender: mpsc::Sender<InvokerReport>,
}

impl ReportsHandle {
    /// Notes the newest report of an invoker.
    pub(crate) fn push(&self, report: InvokerReport) {
        let _ = self.sender.try_send(report);
    }
}

/// Collects and proposes.
pub(crate) struct ReportsActor {
    context: Context,
    reports: mpsc::Receiver<InvokerReport>,
    newest: BTreeMap<InvokerId, InvokerReport>,
    /// When the next proposal may leave.
    next: Instant,
}

impl ReportsActor {
    pub(crate) fn new(context: Context) -> (Self, ReportsHandle) {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let next = context.clock.now();
        (
            Self {
                context,
                reports,
                newest: BTreeMap::new(),
                next,
            },
            ReportsHandle { sender },
        )
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        loop {
            tokio::select! {
                biased;
                () = context.stopping() => return,
                () = context.clock.sleep_until(self.next), if !self.newest.is_empty() => self.propose().await,
                report = self.reports.recv() => match report {
                    Some(report) => self.on_report(report),
                    None => return,
                },
            }
        }
    }

    /// Keeps a report only if it says something that the table does not.
    fn on_report(&mut self, report: InvokerReport) {
        let (changed, urgent) = self.context.node.read(|state| {
            state.invoker(report.invoker).map_or((false, false), |row| {
                let same_memory = row.busy == report.busy && row.reclaimable == report.reclaimable;
                let same_health = row.healthy == report.healthy;
                (
                    row.session == report.session && !(same_memory && same_health),
                    !same_health,
                )
            })
        });
        if !changed {
            self.newest.remove(&report.invoker);
            return;
        }
        if urgent {
            self.next = self.context.clock.now();
        }
        self.newest.insert(report.invoker, report);
    }

    async fn propose(&mut self) {
        let reports: Vec<_> = std::mem::take(&mut self.newest).into_values().collect();
        let proposed = self
            .context
            .node
            .propose(Command::ReportInvokers {
                reports: reports.clone(),
            })
            .await;
        match proposed {
            Ok((revision, _)) => {
                let _ = self.context.node.wait_applied(revision).await;
            }
            // Kept for the next round, unless something newer has come.
            Err(error) => {
                tracing::debug!(%error, "invoker reports not proposed, tries again");
                self.newest = reports
                    .into_iter()
                    .map(|report| (report.invoker, report))
                    .collect();
            }
        }
        self.next = self.context.clock.now() + PAUSE;
    }
}
