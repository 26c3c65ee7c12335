//! The messages, filled in as the SDK, a scheduler and an invoker fill them in for a call without special wishes.

use bytes::Bytes;
use whiskraft_proto::v1;

use super::frames::Frame;

/// The one who asks.
const CONTROLLER: [u8; 16] = [1; 16];
/// The one scheduler and the one invoker that there seem to be, and every number of theirs.
const NUMBER: u64 = 1;
/// Budget of a caller who waits for a minute.
const DEADLINE_MS: u32 = 60_000;

impl Frame for v1::SubmitFrame {
    type Record = v1::Submission;

    fn of(submissions: Vec<v1::Submission>) -> Self {
        Self {
            submissions,
            ..Self::default()
        }
    }
}

impl Frame for v1::ResultFrame {
    type Record = v1::CompletedActivation;

    fn of(completed: Vec<v1::CompletedActivation>) -> Self {
        Self {
            completed,
            ..Self::default()
        }
    }
}

impl Frame for v1::PullDown {
    type Record = v1::Deliver;

    fn of(deliver: Vec<v1::Deliver>) -> Self {
        Self {
            deliver,
            ..Self::default()
        }
    }
}

impl Frame for v1::PullUp {
    type Record = v1::Completed;

    fn of(completed: Vec<v1::Completed>) -> Self {
        Self {
            completed,
            ..Self::default()
        }
    }
}

/// First message of the controller.
pub(super) fn submit_hello() -> v1::SubmitFrame {
    let hello = v1::SubmitHello {
        controller: CONTROLLER.to_vec().into(),
        cluster_id: String::new(),
    };
    v1::SubmitFrame {
        hello: Some(hello),
        ..Default::default()
    }
}

/// The answer to it.
pub(super) fn submit_welcome() -> v1::ResultFrame {
    let welcome = v1::SubmitWelcome {
        scheduler: NUMBER,
        window: u32::MAX,
        payload_len_max: u64::MAX,
        cluster_id: String::new(),
    };
    v1::ResultFrame {
        welcome: Some(welcome),
        ..Default::default()
    }
}

/// First message of the worker.
pub(super) fn pull_hello() -> v1::PullUp {
    let hello = v1::InvokerHello {
        invoker: NUMBER,
        session: NUMBER,
        cluster_id: String::new(),
    };
    v1::PullUp {
        hello: Some(hello),
        ..Default::default()
    }
}

/// The answer to it.
pub(super) fn pull_welcome() -> v1::PullDown {
    v1::PullDown {
        welcome: Some(v1::ControlWelcome { scheduler: NUMBER }),
        ..Default::default()
    }
}

/// Record number `n`, in its place among those in flight.
pub(super) fn submission(n: u64, place: u32, payload: Bytes) -> v1::Submission {
    v1::Submission {
        id: id(n, place),
        key: Some(key()),
        epoch: NUMBER,
        attempt: 1,
        blocking: true,
        payload,
        deadline_ms: DEADLINE_MS,
        durability: v1::Durability::Memory.into(),
        ..Default::default()
    }
}

/// A record on its way to the worker.
pub(super) fn deliver(submission: v1::Submission) -> v1::Deliver {
    v1::Deliver {
        id: submission.id,
        container: Some(container()),
        epoch: submission.epoch,
        payload: submission.payload,
        attempt: submission.attempt,
        waited_ms: submission.waited_ms,
        transaction: submission.transaction,
        subject: submission.subject,
        api_key: submission.api_key,
        cause: submission.cause,
        run: 1,
    }
}

/// What the worker makes of it. Its moment is in microseconds, so that the way there can be told from the way back.
pub(super) fn completed(deliver: v1::Deliver, now_us: u64) -> v1::Completed {
    let record = v1::ActivationRecord {
        id: deliver.id,
        status: v1::Status::Success.into(),
        result: deliver.payload,
        start_ms: now_us,
        end_ms: now_us,
        wait_ms: deliver.waited_ms,
        invoker: Some(NUMBER),
        container: deliver.container,
        run: deliver.run,
        ..Default::default()
    };
    v1::Completed {
        container: deliver.container,
        key: Some(key()),
        epoch: deliver.epoch,
        record: Some(record),
        credits: 1,
        run_us: 1,
    }
}

/// A result on its way back to the controller.
pub(super) fn completed_activation(completed: v1::Completed) -> v1::CompletedActivation {
    v1::CompletedActivation {
        record: completed.record,
        epoch: completed.epoch,
    }
}

/// Number and place of a record by its id, if it is one of ours.
pub(super) fn read_id(id: &[u8]) -> Option<(u64, u32)> {
    let (n, place) = id.split_at_checked(8)?;
    let place = u64::from_be_bytes(place.try_into().ok()?);
    Some((u64::from_be_bytes(n.try_into().ok()?), u32::try_from(place).ok()?))
}

fn id(n: u64, place: u32) -> Bytes {
    let parts = [n.to_be_bytes(), u64::from(place).to_be_bytes()];
    Bytes::copy_from_slice(parts.as_flattened())
}

const fn container() -> v1::ContainerId {
    v1::ContainerId {
        session: NUMBER,
        seq: NUMBER,
    }
}

/// As long as those of `whiskraft bench run`.
fn key() -> v1::QueueKey {
    v1::QueueKey {
        namespace: "bench-0".to_owned(),
        action: "bench-0/a0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_round_with_its_id_and_payload() {
        let payload = Bytes::from_static(b"{}");
        let back = completed_activation(completed(deliver(submission(7, 3, payload.clone())), 1));
        let record = back.record.unwrap();
        assert_eq!((read_id(&record.id), &record.result), (Some((7, 3)), &payload));
        for id in [&b""[..], b"short", &[0; 17]] {
            assert_eq!(read_id(id), None);
        }
    }
}
