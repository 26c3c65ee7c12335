//! What each reason to wait means, and what would help: one text each, for every variant there is.

use whiskraft_types::{QueueKey, SchedulerId, WaitReason};

/// What a text can name.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    pub(super) key: &'a QueueKey,
    pub(super) leader: Option<SchedulerId>,
    /// Most containers of the namespace now, if known.
    pub(super) containers: Option<u32>,
}

/// Why it waits, as the rest of a sentence that begins with "it waits because".
pub(super) const fn meaning(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::Fenced => {
            "the scheduler that leads its queue has lost touch with the others and may not act"
        }
        WaitReason::Draining => "its queue is on its way to another scheduler",
        WaitReason::HeldBack => {
            "it was submitted again after a change of leader, and not every invoker has said yet whether it runs there"
        }
        WaitReason::TakingOver => "a new leader waits for the invokers to say which containers there are",
        WaitReason::ResultsOwed => "too many results of this queue wait for callers that do not fetch them",
        WaitReason::NamespaceLimitZero => "its namespace may run nothing: the limit is 0 containers",
        WaitReason::ActionBroken => "the action cannot be started",
        WaitReason::NoInvoker => {
            "no invoker runs this kind of action, serves this namespace or has the tags that it needs"
        }
        WaitReason::NoMemory => "the invokers that could run it have no memory left",
        WaitReason::CreationFailing => "creating a container for it failed; the next try comes after a pause",
        WaitReason::ContainerStarting => "a container for it is being started",
        WaitReason::NamespaceLimit => "its namespace uses all the containers it may",
        WaitReason::ActionLimit => "the action uses all the containers it may",
        WaitReason::ContainersBusy => {
            "all containers of the action are at work, and they are enough to serve what waits in time"
        }
        WaitReason::Deciding => "the next scaling decision is due in a moment",
    }
}

/// What would help: a sentence without its full stop, with the command where there is one.
pub(super) fn advice(reason: WaitReason, facts: &Facts) -> String {
    let (namespace, action) = (&facts.key.namespace, &facts.key.action);
    let set = |options: String| format!("whiskraft namespace set {namespace} {options}");
    match reason {
        WaitReason::Fenced => format!(
            "bring the schedulers back that{} cannot reach; `whiskraft status` shows who is missing",
            facts.leader.map_or_else(String::new, |id| format!(" scheduler {id}"))
        ),
        WaitReason::Draining => {
            "nothing: it moves by itself within a second or so; `whiskraft status` shows which schedulers drain"
                .to_owned()
        }
        WaitReason::HeldBack | WaitReason::TakingOver => {
            "wait for the invokers; `whiskraft status` shows which are gone or unhealthy".to_owned()
        }
        WaitReason::ResultsOwed => {
            "restart the callers that stopped reading their results; what they owe is let go when they disconnect"
                .to_owned()
        }
        WaitReason::NamespaceLimitZero => format!("allow containers with: {}", set("--containers 30".to_owned())),
        WaitReason::ActionBroken => format!("mend the action and store it again with: whiskraft action put {action} FILE"),
        WaitReason::NoInvoker => {
            "start an invoker that can run it (`whiskraft help invoker`), or take the tags off the action".to_owned()
        }
        WaitReason::NoMemory => format!(
            "start another invoker, give the action less with `whiskraft action put {action} FILE --memory SIZE`, or give the namespace a greater share with: {}",
            set("--weight N".to_owned())
        ),
        WaitReason::CreationFailing => {
            "look at the reason given and at the invokers' logs; it is tried again by itself".to_owned()
        }
        WaitReason::ContainerStarting => "nothing: it starts when the container is there".to_owned(),
        WaitReason::NamespaceLimit => match facts.containers {
            Some(limit) => format!(
                "raise the limit of {limit} with: {}",
                set(format!("--containers {}", limit.saturating_mul(2).max(1)))
            ),
            None => format!("raise the limit with: {}", set("--containers N".to_owned())),
        },
        WaitReason::ActionLimit => {
            format!("raise the action's own limit with: whiskraft action put {action} FILE --instances N")
        }
        WaitReason::ContainersBusy => "nothing: its turn comes soon, and more containers are started if not".to_owned(),
        WaitReason::Deciding => "nothing: it is decided within 100 ms".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key() -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "lib/hello".parse().unwrap(),
        }
    }

    fn advise(reason: WaitReason, containers: Option<u32>) -> String {
        let facts = Facts {
            key: &key(),
            leader: Some(SchedulerId(2)),
            containers,
        };
        advice(reason, &facts)
    }

    #[test]
    fn every_reason_has_a_meaning_of_its_own_and_an_advice() {
        let meanings: BTreeSet<_> = WaitReason::ALL.into_iter().map(meaning).collect();
        assert_eq!(meanings.len(), WaitReason::ALL.len());
        for reason in WaitReason::ALL {
            let text = advise(reason, None);
            assert!(text.len() > 20 && !text.ends_with('.'), "{reason:?}: {text}");
            assert!(!meaning(reason).ends_with('.'));
        }
    }

    #[test]
    fn what_a_command_can_change_is_advised_with_the_command() {
        let commands = [
            (WaitReason::Fenced, "whiskraft status"),
            (
                WaitReason::NamespaceLimitZero,
                "whiskraft namespace set guest --containers 30",
            ),
            (WaitReason::ActionBroken, "whiskraft action put lib/hello FILE"),
            (WaitReason::NoMemory, "whiskraft namespace set guest --weight N"),
            (
                WaitReason::NamespaceLimit,
                "whiskraft namespace set guest --containers 60",
            ),
            (
                WaitReason::ActionLimit,
                "whiskraft action put lib/hello FILE --instances N",
            ),
        ];
        for (reason, command) in commands {
            let text = advise(reason, Some(30));
            assert!(text.contains(command), "{reason:?}: {text}");
        }
    }
}
