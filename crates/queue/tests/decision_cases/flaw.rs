//! What we do where a case pins a flaw of the original, by the number of the flaw. Nothing here knows a case by id.
//!
//! Each answer is worked out without the function under test, or from its answer to a different question.

use whiskraft_queue::{BuiltInRule, Decision, DecisionRule as _, QueueState, Snapshot};

use crate::field::{Verdict, same};

/// Judges our decision where the original is known to be wrong.
pub(crate) fn decision(
    flaw: &str,
    snapshot: &Snapshot,
    original: Decision,
    found: Decision,
) -> Result<Verdict, String> {
    let (expected, because) = match flaw {
        "W2" | "W3" => {
            let running = Snapshot {
                state: QueueState::Running,
                ..*snapshot
            };
            let is_full = snapshot.state == QueueState::ActionThrottled && capacity(snapshot) <= 0;
            let expected = if is_full {
                original
            } else {
                BuiltInRule.decide(&running)
            };
            (
                expected,
                "a queue that is full needs containers more than any, so it scales like a running one",
            )
        }
        "W5" => {
            let namespace_room = room(snapshot);
            let is_throttling = matches!(original, Decision::EnableNamespaceThrottling { .. });
            let expected = if is_throttling && namespace_room > 0 {
                Decision::Skip
            } else {
                original
            };
            (
                expected,
                "only a namespace without room is throttled; an action at its own limit must not do that",
            )
        }
        "W14" => (
            with_stale_part_in_full(snapshot, original),
            "containers in progress lower the demand once, not in both parts of the sum",
        ),
        // Other flaws are not in the rule itself: then the rule must agree with the original.
        _ => (original, ""),
    };
    same("decision instead of the flaw", &expected, &found)?;
    if found == original {
        return Ok(Verdict::AsOriginal);
    }
    Ok(Verdict::Instead {
        original: format!("{original:?}"),
        ours: format!("say {found:?}"),
        because,
    })
}

fn room(s: &Snapshot) -> i64 {
    s.namespace_limit - s.existing_in_namespace - s.in_progress_in_namespace
}

fn capacity(s: &Snapshot) -> i64 {
    room(s).min(s.action_limit - s.existing - s.in_progress)
}

/// The answer of row R6a when the stale part is not lowered by the containers in progress.
fn with_stale_part_in_full(s: &Snapshot, original: Decision) -> Decision {
    let Some(average) = s.average_ms.filter(|average| *average > 0.0) else {
        return original;
    };
    let per_container = s.stale_threshold.as_millis() as f64 / average * s.concurrency as f64;
    let (total, fresh) = (s.existing + s.in_progress, s.waiting + s.incoming - s.stale);
    let is_r6a = fresh as f64 >= per_container * total as f64 && total < fresh;
    if s.state != QueueState::Running || !is_r6a || capacity(s) <= 0 || total == 0 {
        return original;
    }
    let fresh_part = ((fresh as f64 / per_container - total as f64).ceil() as i64).min(fresh - total);
    let stale_part = ((s.stale as f64 / per_container).ceil() as i64).min(s.stale);
    let wanted = fresh_part + stale_part;
    let fits = u32::try_from(wanted.min(capacity(s)).max(0)).expect("a demand within the capacity");
    match (wanted > capacity(s), capacity(s) >= room(s)) {
        _ if wanted <= 0 => Decision::Skip,
        (true, true) => Decision::EnableNamespaceThrottling {
            count: fits,
            drop: false,
        },
        (true, false) | (false, _) => Decision::AddContainer { count: fits },
    }
}
