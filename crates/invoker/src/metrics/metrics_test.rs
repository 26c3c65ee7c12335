//! What is counted appears, in the base unit, and every name is documented.

use std::collections::BTreeSet;

use super::*;

fn snapshot() -> Snapshot {
    Snapshot {
        lives: vec![Life::Ready, Life::Ready, Life::Paused],
        memory: MemoryUse {
            total: ByteSize::mib(4),
            busy: ByteSize::mib(2),
            reclaimable: ByteSize::mib(1),
            healthy: true,
        },
        results: 5,
        keepalive_age: Some(Duration::from_millis(250)),
        connected: 3,
        trouble: None,
    }
}

fn exposed(metrics: &Metrics) -> String {
    metrics.expose(&snapshot()).unwrap()
}

#[test]
fn what_happened_is_counted_in_base_units() {
    let metrics = Metrics::new().unwrap();
    metrics.created(Duration::from_millis(20));
    metrics.resumed(Duration::from_millis(2));
    metrics.creation_failed(CreationError::ResourceNotEnough);
    metrics.ended(Status::Success, 1_500);
    metrics.ended(Status::WhiskError, 0);
    metrics.refused();
    let text = exposed(&metrics);
    for line in [
        r#"whiskraft_invoker_creations_total{error="",outcome="created"} 1"#,
        r#"whiskraft_invoker_creations_total{error="",outcome="resumed"} 1"#,
        r#"whiskraft_invoker_creations_total{error="resource-not-enough",outcome="failed"} 1"#,
        r#"whiskraft_invoker_create_seconds_sum{kind="cold"} 0.02"#,
        r#"whiskraft_invoker_create_seconds_count{kind="warm"} 1"#,
        r#"whiskraft_invoker_activations_total{status="whisk-error"} 1"#,
        "whiskraft_invoker_run_seconds_sum 0.0015",
        "whiskraft_invoker_run_seconds_count 1",
        "whiskraft_invoker_refused_total 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn what_is_now_is_shown_with_every_state() {
    let text = exposed(&Metrics::new().unwrap());
    for line in [
        r#"whiskraft_invoker_containers{state="ready"} 2"#,
        r#"whiskraft_invoker_containers{state="removing"} 0"#,
        r#"whiskraft_invoker_container_memory_bytes{use="busy"} 2097152"#,
        "whiskraft_invoker_results_kept 5",
        "whiskraft_invoker_keepalive_age_seconds 0.25",
        "whiskraft_invoker_connected_schedulers 3",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let metrics = Metrics::new().unwrap();
    metrics.created(Duration::ZERO);
    metrics.ended(Status::Success, 1);
    let text = exposed(&metrics);
    let shown: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let (_, invoker) = include_str!("../../../../docs/metrics.md")
        .split_once("## Invoker")
        .expect("a section of the invoker");
    let documented: BTreeSet<&str> = invoker
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(shown, documented);
}
