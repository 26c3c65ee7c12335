//! An explanation in words.

use whiskraft_client::{Explanation, Progress, QueueStatus};
use whiskraft_types::{ActivationId, QueueKey};

use super::super::advice::{Facts, advice, meaning};
use super::super::shown::queue_name;
use crate::units::{show_moment, show_ms};

/// Everything known of the activation, one sentence a line. `containers` is the namespace's limit, if known.
pub(super) fn describe(
    id: ActivationId,
    key: &QueueKey,
    best: &Explanation,
    containers: Option<u32>,
) -> String {
    let queue = queue_name(key);
    let mut lines = vec![match &best.found.progress {
        Progress::Delayed => format!(
            "activation {id} of {queue} is not to begin before {}",
            best.found
                .not_before
                .map_or_else(|| "a later time".to_owned(), show_moment)
        ),
        Progress::Gone => format!("activation {id} of {queue} has ended and its record has expired"),
        Progress::Waiting => format!(
            "activation {id} waits in the queue {queue}, {} so far",
            waited(best)
        ),
        Progress::Delivered => format!(
            "activation {id} of {queue} was handed to {}, which has not started it yet",
            place(best)
        ),
        Progress::Started => format!("activation {id} of {queue} runs in {}", place(best)),
        Progress::Done(record) => format!(
            "activation {id} of {queue} has ended with {}; see `whiskraft activation get {id}`",
            record.status.text()
        ),
    }];
    if best.found.durable {
        lines.push("it is on the disks of a majority of the schedulers".to_owned());
    }
    if best.found.runs > 1 {
        lines.push(format!("this is run {} of it", best.found.runs));
    }
    if best.attempt > 1 {
        lines.push(format!(
            "it was submitted {} times: a scheduler or a connection was lost on the way",
            best.attempt
        ));
    }
    lines.push(format!(
        "scheduler {} leads its queue in epoch {}",
        best.found.scheduler, best.found.epoch
    ));
    if best.found.progress == Progress::Waiting {
        lines.extend(best.position.map(before));
        if let Some(status) = &best.queue {
            lines.push(containers_of(status));
            lines.extend(why(status));
            lines.extend(what_helps(key, status, containers));
        }
    }
    lines.join("\n")
}

/// Why what waits in a queue waits, if anything does.
pub(in super::super) fn why(status: &QueueStatus) -> Option<String> {
    let because = match (status.wait_reason, status.wait_detail.as_str()) {
        (None, "") => return None,
        (Some(reason), "") => meaning(reason).to_owned(),
        (None, detail) => detail.to_owned(),
        (Some(reason), detail) => format!("{} ({detail})", meaning(reason)),
    };
    Some(format!("it waits because {because}"))
}

fn what_helps(key: &QueueKey, status: &QueueStatus, containers: Option<u32>) -> Option<String> {
    let facts = Facts {
        key,
        leader: status.queue.leader,
        containers,
    };
    let advice = advice(status.wait_reason?, &facts);
    Some(format!("what helps: {advice}"))
}

fn waited(best: &Explanation) -> String {
    show_ms(best.waited.as_secs_f64() * 1000.0)
}

fn before(position: u64) -> String {
    match position {
        0 => "it is the next to be served".to_owned(),
        1 => "1 activation is served before it".to_owned(),
        more => format!("{more} activations are served before it"),
    }
}

fn place(best: &Explanation) -> String {
    match (best.container, best.invoker) {
        (Some(container), Some(invoker)) => format!("container {container} on invoker {invoker}"),
        (Some(container), None) => format!("container {container}"),
        (None, _) => "a container".to_owned(),
    }
}

fn containers_of(status: &QueueStatus) -> String {
    let (running, starting) = (status.containers_running, status.containers_in_progress);
    let limit = match status.containers_limit {
        0 => String::new(),
        limit => format!(" of at most {limit}"),
    };
    let average = status.duration_avg.map_or_else(String::new, |average| {
        format!(
            "; a run takes {} on average",
            show_ms(average.as_secs_f64() * 1000.0)
        )
    });
    format!("the queue has {running} containers and {starting} starting{limit}{average}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use whiskraft_client::FoundActivation;
    use whiskraft_types::{ContainerId, Epoch, InvokerId, SchedulerId, SessionId, WaitReason};

    use super::super::super::shown::tests::queue;
    use super::*;

    fn key() -> QueueKey {
        queue(2, 7, 42).queue.key
    }

    fn explanation(progress: Progress) -> Explanation {
        let status = QueueStatus {
            wait_reason: Some(WaitReason::NamespaceLimit),
            wait_detail: "30 of 30 containers".to_owned(),
            containers_running: 30,
            ..queue(2, 7, 42)
        };
        Explanation {
            found: FoundActivation {
                progress,
                key: Some(status.queue.key.clone()),
                epoch: Epoch(7),
                scheduler: SchedulerId(2),
                durable: false,
                runs: 1,
                accepted: None,
                not_before: None,
                dead_letter: false,
            },
            position: Some(41),
            waited: Duration::from_millis(12_400),
            attempt: 2,
            container: Some(ContainerId {
                session: SessionId(4),
                seq: 5,
            }),
            invoker: Some(InvokerId(9)),
            queue: Some(status),
        }
    }

    #[test]
    fn a_waiting_one_is_explained_with_place_reason_and_help() {
        let id = ActivationId::from_bytes([1; 16]);
        let text = describe(id, &key(), &explanation(Progress::Waiting), Some(30));
        let expected = [
            format!("activation {id} waits in the queue guest/hello, 12.40 s so far"),
            "it was submitted 2 times: a scheduler or a connection was lost on the way".to_owned(),
            "scheduler 2 leads its queue in epoch 7".to_owned(),
            "41 activations are served before it".to_owned(),
            "the queue has 30 containers and 0 starting of at most 30; a run takes 3.00 ms on average"
                .to_owned(),
            "it waits because its namespace uses all the containers it may (30 of 30 containers)".to_owned(),
            "what helps: raise the limit of 30 with: whiskraft namespace set guest --containers 60"
                .to_owned(),
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_running_one_names_its_container_and_no_reason() {
        let id = ActivationId::from_bytes([1; 16]);
        let text = describe(id, &key(), &explanation(Progress::Started), None);
        assert!(text.contains("runs in container c4-5 on invoker 9"), "{text}");
        assert!(!text.contains("because"), "{text}");
        let text = describe(id, &key(), &explanation(Progress::Delivered), None);
        assert!(text.contains("has not started it yet"), "{text}");
    }
    #[test]
    fn a_delayed_durable_one_says_until_when_and_which_run_it_is() {
        let mut delayed = explanation(Progress::Delayed);
        delayed.found.durable = true;
        delayed.found.runs = 3;
        delayed.found.not_before = Some(std::time::UNIX_EPOCH + Duration::from_millis(1_500));
        let text = describe(ActivationId::from_bytes([1; 16]), &key(), &delayed, None);
        for part in [
            "not to begin before 1970-01-01T00:00:01.500Z",
            "on the disks of a majority",
            "run 3",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
