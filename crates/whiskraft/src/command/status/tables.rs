//! The overview as text: one table each for nodes, queues and invokers, what is empty left out.

use comfy_table::{Cell, CellAlignment, Color, Table, presets};

use super::super::shown::Queue;
use super::overview::{Invoker, Lane, Node, Overview};
use crate::units::show_ms;

/// Rows of a table shown at most; more do not fit a terminal, and `--json` has them.
const ROWS_MAX: usize = 30;

/// Renders the whole overview.
pub(super) fn render(overview: &Overview) -> String {
    let Overview {
        nodes,
        queues,
        invokers,
        containers,
        ..
    } = overview;
    let mut parts = vec![
        header(overview),
        section(
            "SCHEDULER, ROLE, TERM, APPLIED, QUEUES, SESSION, CLIENT, PEER, ZONE, VERSION",
            nodes.iter().map(node_row).collect(),
        ),
    ];
    match invokers.as_slice() {
        [] => parts.push("no invokers: start one with `whiskraft invoker`".to_owned()),
        invokers => parts.push(section(
            "INVOKER, STATE, MEMORY, USED, SESSION, ZONE, TAGS",
            invokers.iter().map(invoker_row).collect(),
        )),
    }
    if !queues.is_empty() {
        parts.push(section(
            "QUEUE, LEADER, EPOCH, STATE, WAITING, DELIVERED, STARTED, CONTAINERS, AVERAGE, WAITS FOR",
            queues.iter().map(queue_row).collect(),
        ));
    }
    parts.push(format!(
        "{} queues, containers: {} in progress, {} running, {} warm; {} sessions",
        overview.queues_total, containers.in_progress, containers.running, containers.warm, overview.sessions
    ));
    if !overview.lanes.is_empty() {
        parts.push(journal(&overview.lanes));
    }
    parts.join("\n")
}

/// Who leads the lanes of the journal, and how far the slowest copies are behind.
fn journal(lanes: &[Lane]) -> String {
    let lane = |lane: &Lane| {
        let leader = lane.leader.map_or_else(
            || "without leader".to_owned(),
            |leader| format!("led by {leader}"),
        );
        let behind = match lane.behind {
            0 => String::new(),
            entries => format!(", {entries} entries behind"),
        };
        format!("lane {} {leader}{behind}", lane.lane)
    };
    let lanes: Vec<String> = lanes.iter().map(lane).collect();
    format!("journal: {}", lanes.join("; "))
}

/// What everything below depends on. Without a quorum the leader that somebody remembers leads nobody.
fn header(overview: &Overview) -> String {
    let Overview {
        cluster,
        quorum,
        term,
        ..
    } = overview;
    if !quorum.answered {
        return format!(
            "cluster {cluster}   NO QUORUM: {} of {} schedulers answered; nothing is accepted without a majority\n\
             what follows is what scheduler {} knew last (term {term}), and may be old",
            quorum.voters_answered, quorum.voters, quorum.tables_of
        );
    }
    match overview.leader {
        Some(leader) => format!("cluster {cluster}   raft leader {leader}, term {term}"),
        None => format!("cluster {cluster}   no raft leader: one is being elected, term {term}"),
    }
}

fn section(header: &str, rows: Vec<Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.split(", "));
    let hidden = rows.len().saturating_sub(ROWS_MAX);
    table.add_rows(rows.into_iter().take(ROWS_MAX));
    let text = table.trim_fmt();
    if hidden > 0 {
        format!("{text}\n … and {hidden} more (--json shows all)")
    } else {
        text
    }
}

fn number(value: Option<u64>) -> Cell {
    Cell::new(text(value)).set_alignment(CellAlignment::Right)
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn node_row(node: &Node) -> Vec<Cell> {
    let (mut role, color) = match (&node.role, node.reachable) {
        (Some(role), _) => (role.clone(), Color::Green),
        (None, true) => ("no answer".to_owned(), Color::Yellow),
        (None, false) => ("unreachable".to_owned(), Color::Red),
    };
    let is_fenced = node.fenced == Some(true);
    if is_fenced {
        role.push_str(", fenced");
    }
    if node.draining {
        role.push_str(", draining");
    }
    let is_impaired = color == Color::Green && (is_fenced || node.draining);
    let role = Cell::new(role).fg(if is_impaired { Color::Yellow } else { color });
    vec![
        Cell::new(node.id),
        role,
        number(node.term),
        number(node.applied),
        number(Some(node.queues)),
        number(node.session),
        Cell::new(text(node.client_address.as_deref())),
        Cell::new(&node.peer_address),
        Cell::new(&node.zone),
        Cell::new(&node.version),
    ]
}

fn invoker_row(invoker: &Invoker) -> Vec<Cell> {
    let state = match (invoker.session, invoker.healthy) {
        (None, _) => Cell::new("gone").fg(Color::Red),
        (Some(_), true) => Cell::new("healthy").fg(Color::Green),
        (Some(_), false) => Cell::new("unhealthy").fg(Color::Yellow),
    };
    let mib = |bytes: u64| Cell::new(format!("{} MiB", bytes >> 20)).set_alignment(CellAlignment::Right);
    vec![
        Cell::new(invoker.id),
        state,
        mib(invoker.memory_total_bytes),
        mib(invoker.memory_busy_bytes),
        number(invoker.session),
        Cell::new(&invoker.zone),
        Cell::new(invoker.tags.join(",")),
    ]
}

fn queue_row(queue: &Queue) -> Vec<Cell> {
    let own = queue.action.strip_prefix(&format!("{}/", queue.namespace));
    let name = match own {
        Some(_) => queue.action.clone(),
        None => format!("{} of {}", queue.action, queue.namespace),
    };
    let containers = &queue.containers;
    let counts = format!(
        "{}+{}+{}",
        containers.in_progress, containers.running, containers.warm
    );
    vec![
        Cell::new(name),
        number(queue.leader),
        number(Some(queue.epoch)),
        Cell::new(if queue.state.is_empty() { "-" } else { &queue.state }),
        number(Some(queue.waiting + queue.held_back)),
        number(Some(queue.delivered)),
        number(Some(queue.started)),
        Cell::new(counts).set_alignment(CellAlignment::Right),
        Cell::new(text(queue.duration_avg_ms.map(show_ms))).set_alignment(CellAlignment::Right),
        Cell::new(text(queue.wait_reason)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::overview::tests::overview;
    use super::*;

    #[test]
    fn everything_is_seen_at_a_glance() {
        let text = render(&overview());
        let mut lines = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut row = |start: &str| {
            lines
                .find(|line| line.starts_with(start))
                .unwrap_or_else(|| panic!("{start:?} in\n{text}"))
        };
        assert!(row("cluster c1").contains("raft leader 2, term 5"));
        assert!(row("2 leader 5 50 1").contains("10.0.0.2:7401"));
        assert!(row("3 unreachable - -").contains("10.0.0.3:7400"));
        assert!(row("1 healthy").contains("1024 MiB 256 MiB"));
        assert!(row("guest/hello").starts_with("guest/hello 2 7 - 12"));
        assert!(
            row("journal:").starts_with("journal: lane 1 led by 2, "),
            "{text}"
        );
    }

    #[test]
    fn without_a_quorum_the_header_says_so_and_names_no_leader() {
        let mut overview = overview();
        overview.quorum.answered = false;
        overview.quorum.voters_answered = 1;
        let text = render(&overview);
        let mut lines = text.lines();
        assert!(
            lines
                .next()
                .unwrap()
                .contains("NO QUORUM: 1 of 3 schedulers answered")
        );
        assert!(lines.next().unwrap().contains("may be old"));
        assert!(!text.contains("raft leader"));
    }

    #[test]
    fn a_draining_node_is_shown_as_such_even_if_it_does_not_answer() {
        let mut overview = overview();
        overview.nodes.iter_mut().for_each(|node| node.draining = true);
        let text = render(&overview);
        assert!(
            text.contains("leader, draining") && text.contains("unreachable, draining"),
            "{text}"
        );
    }

    #[test]
    fn long_tables_are_cut() {
        let mut overview = overview();
        overview.queues = vec![overview.queues[0].clone(); 40];
        let text = render(&overview);
        assert_eq!(text.matches("guest/hello").count(), ROWS_MAX);
        assert!(text.contains("and 10 more"));
    }
}
