//! Why it waits: each reason of the closed list, and none when nothing waits.

use std::collections::BTreeSet;

use whiskraft_types::WaitReason;

use crate::rig::check;

const FENCED: &str = "
    submit a1
    fence
    why fenced
    unfence
    why deciding";

const DRAINING: &str = "
    submit a1
    drain
    why draining
    undrain
    why deciding";

const HELD_BACK: &str = "
    started-up
    wait 60s
    takeover i1 with c1
    submit a1 attempt 2 waited 5s
    submit a2
    why held-back
    register i1 c1 has asks 1 -> deliver a1 to c1
    why deciding";

const TAKING_OVER: &str = "
    takeover i1
    submit a1
    why taking-over
    wait 1s -> reserve 1
    why container-starting";

const RESULTS_OWED: &str = "
    settings results-max 1
    have c1
    credit c1
    submit a1..a2
    completed a1 c1 +1
    why results-owed
    received a1 -> ack a1 to i1, deliver a2 to c1
    why none";

const NAMESPACE_LIMIT_ZERO: &str = "
    started-up
    submit a1
    tick limit 0
    why namespace-limit-zero
    wait 200ms limit 5 -> reserve 1
    why namespace-limit-zero
    granted 1 c1
    running c1
    why deciding";

const NAMESPACE_LIMIT_LOWERED_TO_ZERO: &str = "
    have c1
    running c1
    credit c1
    submit a1..a2
    full
    tick limit 0 running 1 -> nothing
    why namespace-limit-zero";

const ACTION_BROKEN: &str = "
    have c1
    credit c1
    submit a1 -> accepted a1, deliver a1 to c1
    removed c1
    have c2
    creation-failed c2 image: no such image -> nothing
    refused a1 c1
    why action-broken
    wait 100ms -> reserve 1";

const NO_INVOKER: &str = "
    started-up
    submit a1
    tick -> reserve 1
    granted 1 c9
    creation-failed c9 resources: none of 2 invokers has the tags gpu
    why no-invoker
    removed c9
    wait 100ms -> reserve 1
    granted 1 c1
    why no-invoker
    running c1
    why deciding";

const NO_INVOKER_AT_ALL: &str = "
    started-up
    submit a1
    tick -> reserve 1
    granted 1 c1
    why container-starting
    delayed c1 invokers: no invoker has the tag gpu
    why no-invoker
    placed c1
    why container-starting
    running c1
    why deciding";

const NO_MEMORY: &str = "
    started-up
    submit a1
    tick -> reserve 1
    granted 1 c1 c2
    delayed c1 resources: all memory is used
    why no-memory
    placed c2
    why container-starting
    delayed c2 pool: all memory is used
    why no-memory
    creation-failed c2 pool: all memory is used
    removed c1
    why no-memory";

const CREATION_FAILING: &str = "
    started-up
    submit a1
    tick -> reserve 1
    granted 1 c1
    creation-failed c1 start: the container engine does not answer
    why creation-failing
    wait 100ms -> reserve 1
    granted 1 c2
    running c2
    why deciding";

const CONTAINER_STARTING: &str = "
    submit a1
    why deciding
    tick -> reserve 1
    why container-starting
    granted 1 c1
    why container-starting
    credit c1 -> deliver a1 to c1
    why none";

const NAMESPACE_LIMIT: &str = "
    started-up
    submit a1
    tick limit 2 running 2 -> starved
    why namespace-limit
    room
    why deciding";

const ACTION_LIMIT: &str = "
    action r1 instances 1
    have c1
    running c1
    submit a1
    wait 100ms running 1 -> nothing
    why action-limit
    tick limit 1 running 1
    why action-limit
    room
    action r1 instances 2
    why deciding";

const CONTAINERS_BUSY: &str = "
    have c1
    running c1
    sampled 1ms
    submit a1
    submit a2
    why deciding
    tick running 1 -> nothing
    why containers-busy
    credit c1 x2
    why none";

const DECIDING: &str = "
    why none
    submit a1
    why deciding
    have c1
    credit c1 -> deliver a1 to c1
    why none";

#[test]
fn every_reason_is_reached_and_ends() {
    let transcripts = [
        FENCED,
        DRAINING,
        HELD_BACK,
        TAKING_OVER,
        RESULTS_OWED,
        NAMESPACE_LIMIT_ZERO,
        NAMESPACE_LIMIT_LOWERED_TO_ZERO,
        ACTION_BROKEN,
        NO_INVOKER,
        NO_INVOKER_AT_ALL,
        NO_MEMORY,
        CREATION_FAILING,
        CONTAINER_STARTING,
        NAMESPACE_LIMIT,
        ACTION_LIMIT,
        CONTAINERS_BUSY,
        DECIDING,
    ];
    transcripts.iter().for_each(|transcript| check(transcript));
    let told: BTreeSet<&str> = transcripts
        .iter()
        .flat_map(|transcript| transcript.lines())
        .filter_map(|line| line.trim().strip_prefix("why "))
        .collect();
    for reason in WaitReason::ALL {
        assert!(
            told.contains(reason.name()),
            "no transcript reaches {}",
            reason.name()
        );
    }
}
