//! How a transcript spells outputs.

use whiskraft_queue::{CancelAnswer, ControllerId, JournalEntry, Outcome, Output};
use whiskraft_types::{ActivationId, ActivationStatus, Instant, Rejection, ThrottleScope};

use super::read::invoker_of;

fn show_id(id: ActivationId) -> String {
    format!("a{}", u128::from_be_bytes(*id.as_bytes()))
}

pub(super) fn show(output: &Output<String, String>, shows_age: bool) -> String {
    let controller_name = |controller: &ControllerId| format!("k{}", u128::from_be_bytes(controller.0));
    match output {
        Output::Accept { id, .. } => format!("accepted {}", show_id(*id)),
        Output::Reject { id, rejection, .. } => {
            format!("rejected {} {}", show_id(*id), show_rejection(rejection))
        }
        Output::Deliver {
            invoker,
            container,
            id,
            waited,
            run,
            ..
        } => {
            let name = format!("c{}", container.seq);
            assert_eq!(*invoker, invoker_of(&name), "delivered to the wrong invoker");
            let age = if shows_age {
                format!(" after {}ms", waited.as_millis())
            } else {
                String::new()
            };
            let run = if *run > 1 {
                format!(" run {run}")
            } else {
                String::new()
            };
            format!("deliver {} to {name}{run}{age}", show_id(*id))
        }
        Output::Complete {
            controller,
            id,
            outcome,
            run,
        } => {
            let to = format!(" to {}", controller_name(controller));
            show_outcome(*id, outcome, &to, *run)
        }
        Output::Journal { id, entry } => show_entry(*id, entry),
        Output::Archive { id, outcome, run } => {
            format!("archive {}", show_outcome(*id, outcome, "", *run))
        }
        Output::Mark { id } => format!("mark {}", show_id(*id)),
        Output::CancelAnswered { ask, answer } => {
            let answer = match answer {
                CancelAnswer::Unknown => "unknown",
                CancelAnswer::BeforeStart => "before-start",
                CancelAnswer::Stopping => "stopping",
                CancelAnswer::Ended => "ended",
                CancelAnswer::Unavailable => "unavailable",
            };
            format!("answer {ask} {answer}")
        }
        Output::Stop { container, id, .. } => format!("stop {} in c{}", show_id(*id), container.seq),
        Output::AcknowledgeInvoker { invoker, id } => format!("ack {} to i{invoker}", show_id(*id)),
        Output::WithdrawAck { container } => format!("withdrawn c{}", container.seq),
        Output::Reserve { count } => format!("reserve {count}"),
        Output::SetThrottle(true) => "throttle on".to_owned(),
        Output::SetThrottle(false) => "throttle off".to_owned(),
        Output::Starved => "starved".to_owned(),
        Output::Entangled => "entangled".to_owned(),
        Output::Silent { container, .. } => format!("silent c{}", container.seq),
        Output::Late { container, age, .. } => format!("late c{} {}ms", container.seq, age.as_millis()),
        Output::RemoveContainer { container } => format!("remove c{}", container.seq),
        Output::RemoveQueue => "remove queue".to_owned(),
    }
}

fn show_outcome(id: ActivationId, outcome: &Outcome<String>, to: &str, run: u32) -> String {
    let id = show_id(id);
    let run = if run > 1 {
        format!(" run {run}")
    } else {
        String::new()
    };
    match outcome {
        Outcome::Record(record) => {
            assert_eq!(*record, id, "the record of another activation");
            format!("done {id}{to}{run}")
        }
        Outcome::Failure {
            status: ActivationStatus::WhiskError,
            text,
        } => {
            format!("failed {id}{to}{run} whisk: {text}")
        }
        Outcome::Failure { status, text } => {
            assert_eq!(*status, ActivationStatus::DeveloperError);
            format!("failed {id}{to}{run} developer: {text}")
        }
        Outcome::Cancelled => format!("cancelled {id}{to}{run}"),
    }
}

fn show_entry(id: ActivationId, entry: &JournalEntry<String, String>) -> String {
    let since = |at: &Instant| at.saturating_since(Instant::ORIGIN).as_millis();
    match entry {
        JournalEntry::Accept { not_before: None, .. } => format!("journal {}", show_id(id)),
        JournalEntry::Accept {
            not_before: Some(at), ..
        } => format!("journal {} at {}ms", show_id(id), since(at)),
        JournalEntry::Retry { run, not_before } => {
            format!(
                "journal retry {} run {run} at {}ms",
                show_id(id),
                since(not_before)
            )
        }
        JournalEntry::End {
            outcome,
            run,
            dead_letter,
        } => {
            let dead = if *dead_letter { " dead-letter" } else { "" };
            format!("journal end{dead} {}", show_outcome(id, outcome, "", *run))
        }
    }
}

fn show_rejection(rejection: &Rejection) -> String {
    let name = match rejection {
        Rejection::NoQueue => "no-queue",
        Rejection::Throttled {
            scope,
            limit: Some(limit),
            ..
        } => {
            let scope = match scope {
                ThrottleScope::Action => "action",
                ThrottleScope::Namespace => "namespace",
                ThrottleScope::Results => "results",
                ThrottleScope::Rate | ThrottleScope::Stream => panic!("a queue does not say {rejection}"),
            };
            return format!("throttled {scope} {limit}");
        }
        Rejection::Conflict => "conflict",
        Rejection::Unavailable { .. } => "unavailable",
        Rejection::Invalid { .. } => "invalid",
        Rejection::Draining => "draining",
        other => panic!("a queue does not say {other}"),
    };
    name.to_owned()
}
