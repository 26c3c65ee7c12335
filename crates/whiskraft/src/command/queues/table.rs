//! The queues as a table, and below it what the table cannot show: sums, and schedulers that are missing in it.

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use whiskraft_client::{QueueStatus, QueuesSnapshot};

use super::LIMIT_MAX;
use crate::units::show_ms;

/// Columns of every table.
const COLUMNS: &str = "QUEUE, LEADER, EPOCH, STATE, WAITING, OLDEST, CONTAINERS, AVERAGE, WAITS FOR";
/// Further ones of a wide table.
const COLUMNS_WIDE: &str = "LAST DECISION, DETAIL";

/// Renders a snapshot.
pub(super) fn render(snapshot: &QueuesSnapshot, wide: bool) -> String {
    let mut parts = Vec::new();
    if snapshot.queues.is_empty() {
        parts.push("no such queue".to_owned());
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let columns = COLUMNS
            .split(", ")
            .chain(COLUMNS_WIDE.split(", ").filter(|_| wide));
        table.set_header(columns);
        table.add_rows(snapshot.queues.iter().map(|queue| row(queue, wide)));
        parts.push(table.trim_fmt());
    }
    let shown = snapshot.queues.len();
    let (total, waiting) = (snapshot.queues_total, snapshot.waiting_total);
    parts.push(format!(
        "{shown} of {total} queues shown; {waiting} activations wait in all of them"
    ));
    let cut_off = snapshot.queues_matching.saturating_sub(shown as u64);
    if cut_off > 0 {
        parts.push(not_shown(cut_off, snapshot.queues_matching));
    }
    for scheduler in &snapshot.fenced {
        parts.push(format!(
            "scheduler {scheduler} has lost touch with the others and may not act: its queues stand still"
        ));
    }
    for (scheduler, error) in &snapshot.silent {
        parts.push(format!(
            "scheduler {scheduler} did not answer, its queues are missing: {error}"
        ));
    }
    parts.join("\n")
}

/// What the limit has cut off, and how to see it.
fn not_shown(cut_off: u64, matching: u64) -> String {
    let how = if matching <= LIMIT_MAX {
        format!("see them with --limit {matching}")
    } else {
        format!("--limit goes up to {LIMIT_MAX}; see them with --waiting, --action or --namespace")
    };
    let queues = if cut_off == 1 { "queue is" } else { "queues are" };
    format!("{cut_off} more {queues} not shown, those that wait less: {how}")
}

fn row(status: &QueueStatus, wide: bool) -> Vec<Cell> {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let millis = |duration: std::time::Duration| show_ms(duration.as_secs_f64() * 1000.0);
    let mut state = or_dash(Some(status.state.clone()).filter(|state| !state.is_empty()));
    if status.throttled {
        state.push_str(", throttled");
    }
    let waits_for = match status.wait_reason {
        Some(reason) => Cell::new(reason.name()).fg(Color::Yellow),
        None => Cell::new("-"),
    };
    let mut row = vec![
        Cell::new(super::super::shown::queue_name(&status.queue.key)),
        right(or_dash(status.queue.leader.map(|id| id.to_string()))),
        right(status.queue.epoch.to_string()),
        Cell::new(state),
        right((status.waiting + status.held_back).to_string()),
        right(or_dash((!status.oldest.is_zero()).then(|| millis(status.oldest)))),
        right(containers(status)),
        right(or_dash(status.duration_avg.map(millis))),
        waits_for,
    ];
    if wide {
        let decision = match status.last_decision.as_str() {
            "" => "-".to_owned(),
            text => format!("{text} ({} ago)", millis(status.decided_ago)),
        };
        row.push(Cell::new(decision));
        row.push(Cell::new(or_dash(
            Some(status.wait_detail.clone()).filter(|detail| !detail.is_empty()),
        )));
    }
    row
}

/// `running+starting/limit`, and what runs out beside it.
fn containers(status: &QueueStatus) -> String {
    let limit = match status.containers_limit {
        0 => "-".to_owned(),
        limit => limit.to_string(),
    };
    let old = match status.containers_old {
        0 => String::new(),
        old => format!(" ({old} old)"),
    };
    let (running, starting) = (status.containers_running, status.containers_in_progress);
    format!("{running}+{starting}/{limit}{old}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use whiskraft_client::CallError;
    use whiskraft_types::{SchedulerId, WaitReason};

    use super::super::super::shown::tests::queue;
    use super::*;

    fn waiting() -> QueueStatus {
        QueueStatus {
            state: "running".to_owned(),
            oldest: Duration::from_millis(2310),
            containers_running: 3,
            containers_in_progress: 1,
            wait_reason: Some(WaitReason::NamespaceLimit),
            wait_detail: "30 of 30 containers".to_owned(),
            last_decision: "nothing: at the limit".to_owned(),
            decided_ago: Duration::from_millis(80),
            throttled: true,
            containers_old: 2,
            ..queue(2, 7, 41)
        }
    }

    fn snapshot(queues: Vec<QueueStatus>) -> QueuesSnapshot {
        QueuesSnapshot {
            queues,
            queues_total: 9,
            queues_matching: 1,
            waiting_total: 50,
            fenced: vec![SchedulerId(3)],
            silent: vec![(
                SchedulerId(1),
                CallError::NoSuchScheduler {
                    operation: "queues",
                    scheduler: SchedulerId(1),
                },
            )],
            ..QueuesSnapshot::default()
        }
    }

    fn line(text: &str, start: &str) -> String {
        let mut lines = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start:?} in\n{text}"))
    }

    #[test]
    fn a_queue_is_one_line_and_the_reason_its_last_word() {
        let text = render(&snapshot(vec![waiting()]), false);
        assert_eq!(
            line(&text, "guest/hello"),
            "guest/hello 2 7 running, throttled 41 2.31 s 3+1/30 (2 old) 3.00 ms namespace-limit"
        );
        assert_eq!(
            line(&text, "1 of 9"),
            "1 of 9 queues shown; 50 activations wait in all of them"
        );
    }

    #[test]
    fn what_the_limit_cuts_off_is_counted_with_the_way_to_see_it() {
        let text = |queues_matching| {
            let snapshot = QueuesSnapshot {
                queues_matching,
                ..snapshot(vec![waiting()])
            };
            render(&snapshot, false)
        };
        assert!(!text(1).contains("not shown"), "{}", text(1));
        assert_eq!(
            line(&text(2), "1 more"),
            "1 more queue is not shown, those that wait less: see them with --limit 2"
        );
        assert_eq!(
            line(&text(9), "8 more"),
            "8 more queues are not shown, those that wait less: see them with --limit 9"
        );
        assert_eq!(
            line(&text(20_001), "20000 more"),
            "20000 more queues are not shown, those that wait less: --limit goes up to 10000; see them with --waiting, \
             --action or --namespace"
        );
    }

    #[test]
    fn wide_adds_decision_and_detail() {
        let text = render(&snapshot(vec![waiting()]), true);
        let row = line(&text, "guest/hello");
        assert!(
            row.ends_with("nothing: at the limit (80.0 ms ago) 30 of 30 containers"),
            "{row}"
        );
        assert!(line(&text, "QUEUE").ends_with("LAST DECISION DETAIL"));
    }

    #[test]
    fn missing_and_fenced_schedulers_are_named() {
        let text = render(&snapshot(Vec::new()), false);
        assert!(line(&text, "scheduler 1").contains("did not answer"));
        assert!(line(&text, "scheduler 3").contains("may not act"));
        assert_eq!(line(&text, "no such"), "no such queue");
    }
}
