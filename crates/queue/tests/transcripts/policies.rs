//! Other policies than the built-in ones can be plugged in.

use std::sync::Arc;

use whiskraft_queue::{Decision, DecisionRule, DequeueOrder, Line, QueueSettings, Snapshot};

use crate::rig::{check, check_with};

/// Whoever came last goes first.
#[derive(Debug)]
struct NewestFirst;

impl DequeueOrder for NewestFirst {
    fn next(&self, line: Line<'_>) -> usize {
        line.len() - 1
    }
}

/// A container for each that waits, at once.
#[derive(Debug)]
struct OneEach;

impl DecisionRule for OneEach {
    fn decide(&self, snapshot: &Snapshot) -> Decision {
        let missing = snapshot.waiting - snapshot.existing - snapshot.in_progress;
        match u32::try_from(missing) {
            Ok(count @ 1..) => Decision::AddContainer { count },
            Ok(0) | Err(_) => Decision::Skip,
        }
    }
}

const SEVERAL_WAIT: &str = "
    have c1
    submit a1..a4
    credit c1 -> deliver a4 to c1
    refused a4 c1
    credit c1 x3 -> deliver a4 to c1, deliver a3 to c1, deliver a2 to c1";

#[test]
fn order_of_hand_out_is_that_of_the_settings() {
    let settings = QueueSettings {
        order: Arc::new(NewestFirst),
        ..QueueSettings::default()
    };
    check_with(settings, SEVERAL_WAIT);
    check(
        "have c1
         submit a1..a4
         credit c1 x2 -> deliver a1 to c1, deliver a2 to c1",
    );
}

#[test]
fn rule_of_scaling_is_that_of_the_settings() {
    let settings = QueueSettings {
        rule: Arc::new(OneEach),
        ..QueueSettings::default()
    };
    check_with(
        settings,
        "tick -> nothing
         submit a1..a3
         tick -> reserve 3",
    );
}
