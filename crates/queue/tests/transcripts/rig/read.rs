//! How a transcript spells inputs.

use std::time::Duration;

use whiskraft_queue::{
    ActionProfile, CancelAnswer, ControllerId, Input, NamespaceCounts, Outcome, RetryPolicy, RunEnd, Verdict,
};
use whiskraft_types::{
    ActivationId, ContainerId, CreationError, Instant, InvokerId, Rare, Rejection, Revision, SessionId,
};

pub(super) fn simple(verb: &str, words: &[&str]) -> Option<Input<String, String>> {
    Some(match (verb, words) {
        ("received", [id]) => Input::Received {
            controller: controller("k1"),
            id: activation(id),
        },
        ("received", [id, "from", from]) => Input::Received {
            controller: controller(from),
            id: activation(id),
        },
        ("knotted", []) => Input::Knotted(true),
        ("unknotted", []) => Input::Knotted(false),
        ("withdraw", [id]) => Input::Withdraw {
            container: container(id),
        },
        ("started", [id, at]) => Input::Started {
            container: container(at),
            id: activation(id),
        },
        ("refused", [id, at]) => Input::Refused {
            container: container(at),
            id: activation(id),
        },
        ("disconnected", [id]) => Input::Disconnected {
            invoker: InvokerId(number(id)),
        },
        ("gone", [id]) => Input::InvokerGone {
            invoker: InvokerId(number(id)),
        },
        ("placed", [id]) => Input::ContainerPlaced {
            container: container(id),
            invoker: invoker_of(id),
        },
        ("unplaced", [id]) => Input::ContainerUnplaced {
            container: container(id),
        },
        ("running", [id]) => Input::ContainerRunning {
            container: container(id),
            invoker: invoker_of(id),
        },
        ("warm", [id]) => Input::ContainerWarm {
            container: container(id),
        },
        ("ended", [id]) => Input::ContainerEnded {
            container: container(id),
        },
        ("removed", [id]) => Input::ContainerRemoved {
            container: container(id),
        },
        ("action", [revision, rest @ ..]) => Input::Action(profile(number(revision), rest)),
        ("sampled", [time]) => Input::Sampled(duration(time)),
        ("room", []) => Input::NamespaceFull(false),
        ("full", []) => Input::NamespaceFull(true),
        ("drain", []) => Input::Draining(true),
        ("undrain", []) => Input::Draining(false),
        ("fence", []) => Input::Fence(true),
        ("unfence", []) => Input::Fence(false),
        ("removal-failed", []) => Input::RemovalFailed,
        ("cancel", [id, rest @ ..]) => Input::Cancel {
            ask: rest.first().map_or(1, |ask| ask.parse().unwrap()),
            id: activation(id),
        },
        ("marked", [id, words @ ..]) => Input::Marked {
            id: activation(id),
            answer: match words {
                [] => CancelAnswer::Stopping,
                ["ended"] => CancelAnswer::Ended,
                ["missing"] => CancelAnswer::Unavailable,
                other => panic!("no answer {other:?}"),
            },
        },
        ("journal", [id, words @ ..]) => Input::Journaled {
            id: activation(id),
            verdict: verdict(id, words),
        },
        _ => return None,
    })
}

pub(super) fn verdict(id: &str, words: &[&str]) -> Verdict<String> {
    match words {
        ["written"] => Verdict::Written,
        ["recorded"] => Verdict::Recorded(id.to_owned()),
        ["open", run, rest @ ..] => Verdict::Open {
            run: run.parse().unwrap(),
            not_before: rest.first().map(|at| Instant::ORIGIN + duration(at)),
        },
        ["ended"] => Verdict::Ended(Outcome::Record(id.to_owned())),
        ["expired"] => Verdict::Expired,
        ["conflict"] => Verdict::Conflict,
        ["refused"] => Verdict::Refused(Rejection::Draining),
        ["unknown"] => Verdict::Unknown,
        other => panic!("no verdict {other:?}"),
    }
}

/// `run 2`, else the first.
pub(super) fn run_in(words: &[&str]) -> u32 {
    let run = words.windows(2).find(|pair| pair[0] == "run");
    run.map_or(1, |pair| pair[1].parse().unwrap())
}

/// `failed` or `stopped`, else well.
pub(super) fn end_in(words: &[&str]) -> RunEnd {
    if words.contains(&"failed") {
        RunEnd::Failed
    } else if words.contains(&"stopped") {
        RunEnd::Cancelled
    } else {
        RunEnd::Success
    }
}

pub(super) fn profile(revision: u64, words: &[&str]) -> ActionProfile {
    let value = |name| words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    ActionProfile {
        revision: Revision(revision),
        concurrency: value("concurrency").map_or(1, |count| count.parse().unwrap()),
        instances: value("instances").map(|count| count.parse().unwrap()),
        blackbox: words.contains(&"blackbox"),
        timeout: value("timeout").map_or(Duration::from_secs(60), duration),
        deleted: words.contains(&"deleted"),
        retry: Rare::of(RetryPolicy {
            runs_max: value("runs").map_or(1, |count| count.parse().unwrap()),
            backoff: value("backoff").map_or(Duration::from_secs(1), duration),
            backoff_max: value("backoff-max").map_or(Duration::from_secs(60), duration),
            age_max: value("age-max").map(duration),
            on_loss: words.contains(&"on-loss"),
        }),
    }
}

/// `100ms` or `2s`.
pub(super) fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: u64 = digits.parse().unwrap();
    if text.ends_with("ms") {
        Duration::from_millis(count)
    } else {
        Duration::from_secs(count)
    }
}

/// `c1 resources: no room`
pub(super) fn creation_error(text: &str) -> (ContainerId, CreationError, String) {
    let (what, message) = text.split_once(": ").unwrap();
    let (id, error) = what.split_once(' ').unwrap();
    let error = match error {
        "invokers" => CreationError::NoAvailableInvokers,
        "resources" => CreationError::NoAvailableResources,
        "pool" => CreationError::ResourceNotEnough,
        "start" => CreationError::Whisk,
        "image" => CreationError::BlackBox,
        "fetch" => CreationError::Fetch,
        "limit" => CreationError::InvalidLimit,
        other => panic!("no error {other:?}"),
    };
    (container(id), error, message.to_owned())
}

pub(super) fn counts(words: &[&str]) -> NamespaceCounts {
    let value = |name| {
        words
            .windows(2)
            .find(|pair| pair[0] == name)
            .map(|pair| pair[1].parse().unwrap())
    };
    NamespaceCounts {
        limit: value("limit").unwrap_or(10),
        limit_over: value("over").or(value("limit")).unwrap_or(10),
        running: value("running").unwrap_or(0),
        in_progress: value("starting").unwrap_or(0),
    }
}

pub(super) fn number(name: &str) -> u64 {
    name[1..]
        .parse()
        .unwrap_or_else(|_| panic!("no number in {name:?}"))
}

pub(super) fn activation(name: &str) -> ActivationId {
    ActivationId::from_bytes(u128::from(number(name)).to_be_bytes())
}

pub(super) fn controller(name: &str) -> ControllerId {
    ControllerId(u128::from(number(name)).to_be_bytes())
}

pub(super) fn container(name: &str) -> ContainerId {
    ContainerId {
        session: SessionId(1),
        seq: number(name),
    }
}

pub(super) fn invoker_of(name: &str) -> InvokerId {
    InvokerId(match number(name) {
        seq @ 10.. => seq / 10,
        _ => 1,
    })
}

/// Splits expectations at commas and spells `accepted a1..a3` out.
pub(super) fn split(expected: &str) -> Vec<String> {
    if expected == "nothing" {
        return Vec::new();
    }
    let protected = expected.replace("\\,", "\u{0}");
    let mut parts = Vec::new();
    for part in protected.split(',').map(|part| part.trim().replace('\u{0}', ",")) {
        match part
            .strip_prefix("accepted ")
            .and_then(|ids| ids.split_once(".."))
        {
            Some((first, last)) => {
                parts.extend((number(first)..=number(last)).map(|id| format!("accepted a{id}")));
            }
            None => parts.push(part),
        }
    }
    parts
}
