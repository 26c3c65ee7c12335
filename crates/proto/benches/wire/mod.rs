//! Frames of the hot path with as many elements of 200 bytes as wanted. For benches and for the test that counts
//! allocations.

use bytes::Bytes;
use whiskraft_proto::{InvalidMessage, Message, activation_id, required, v1};
use whiskraft_types::{ActivationId, ActivationRecord, ContainerId, InvokerId, QueueKey, SessionId};

/// Bytes of a payload or result.
const LEN: usize = 200;

/// Submissions, as an SDK sends them.
pub(crate) fn submit(count: u64) -> v1::SubmitFrame {
    v1::SubmitFrame {
        hello: None,
        submissions: (0..count).map(submission).collect(),
        received: (0..count).map(id).collect(),
    }
}

/// Hand-outs.
pub(crate) fn deliver(count: u64) -> v1::PullDown {
    let deliver = |number| v1::Deliver {
        id: id(number),
        container: Some(container(number)),
        epoch: 7,
        payload: Bytes::from(vec![b'x'; LEN]),
        attempt: 1,
        waited_ms: 3,
        transaction: "a1b2c3d4e5f6".to_owned(),
        subject: "guest".to_owned(),
        api_key: String::new(),
        cause: String::new(),
        run: 1,
    };
    v1::PullDown {
        deliver: (0..count).map(deliver).collect(),
        completed_acks: (0..count).map(id).collect(),
        ..Default::default()
    }
}

/// What has ended.
pub(crate) fn completed(count: u64) -> v1::PullUp {
    let completed = |number| v1::Completed {
        container: Some(container(number)),
        key: Some(key()),
        epoch: 7,
        record: Some(record(number).into()),
        credits: 1,
        run_us: 20_000,
    };
    let started = |number| v1::Started {
        id: id(number),
        container: Some(container(number)),
        epoch: 7,
    };
    v1::PullUp {
        started: (0..count).map(started).collect(),
        completed: (0..count).map(completed).collect(),
        ..Default::default()
    }
}

/// Results for an SDK.
pub(crate) fn results(count: u64) -> v1::ResultFrame {
    let completed = |number| v1::CompletedActivation {
        record: Some(record(number).into()),
        epoch: 7,
    };
    v1::ResultFrame {
        accepted: (0..count).map(id).collect(),
        completed: (0..count).map(completed).collect(),
        ..Default::default()
    }
}

/// A frame as it comes from the network: the buffer that its byte fields point into.
pub(crate) fn encoded(frame: &impl Message) -> Bytes {
    frame.encode_to_vec().into()
}

/// Submissions as `types`.
pub(crate) fn parse_submit(frame: v1::SubmitFrame) -> Result<usize, InvalidMessage> {
    for submission in &frame.submissions {
        let id = activation_id(&submission.id)?;
        let key = QueueKey::try_from(required(submission.key.clone(), "submission.key")?)?;
        std::hint::black_box((id, key));
    }
    for received in &frame.received {
        std::hint::black_box(activation_id(received)?);
    }
    Ok(frame.submissions.len())
}

/// Hand-outs as `types`.
pub(crate) fn parse_deliver(frame: v1::PullDown) -> Result<usize, InvalidMessage> {
    let len = frame.deliver.len();
    for deliver in frame.deliver {
        let id = activation_id(&deliver.id)?;
        let container: ContainerId = required(deliver.container, "deliver.container")?.into();
        std::hint::black_box((id, container, deliver.payload));
    }
    Ok(len)
}

/// What has ended as `types`.
pub(crate) fn parse_completed(frame: v1::PullUp) -> Result<usize, InvalidMessage> {
    let len = frame.completed.len();
    for completed in frame.completed {
        let key = QueueKey::try_from(required(completed.key, "completed.key")?)?;
        let container: ContainerId = required(completed.container, "completed.container")?.into();
        let record = ActivationRecord::try_from(required(completed.record, "completed.record")?)?;
        std::hint::black_box((key, container, record));
    }
    Ok(len)
}

/// Results as `types`.
pub(crate) fn parse_results(frame: v1::ResultFrame) -> Result<usize, InvalidMessage> {
    let len = frame.completed.len();
    for completed in frame.completed {
        let record = ActivationRecord::try_from(required(completed.record, "completed.record")?)?;
        std::hint::black_box(record);
    }
    Ok(len)
}

fn submission(number: u64) -> v1::Submission {
    v1::Submission {
        id: id(number),
        key: Some(key()),
        epoch: 7,
        attempt: 1,
        blocking: true,
        payload: Bytes::from(vec![b'x'; LEN]),
        subject: "guest".to_owned(),
        transaction: "a1b2c3d4e5f6".to_owned(),
        ..Default::default()
    }
}

fn record(number: u64) -> ActivationRecord<Bytes> {
    ActivationRecord {
        id: activation(number),
        status: whiskraft_types::ActivationStatus::Success,
        result: Bytes::from(vec![b'x'; LEN]),
        logs: Vec::new(),
        start_ms: 1_700_000_000_000,
        end_ms: 1_700_000_000_020,
        init_ms: None,
        wait_ms: 1,
        timed_out: false,
        ran_on: Some((InvokerId(3), container(number).into())),
        run: 1,
        cancelled: false,
    }
}

fn key() -> v1::QueueKey {
    v1::QueueKey {
        namespace: "guest".to_owned(),
        action: "guest/hello".to_owned(),
    }
}

fn container(number: u64) -> v1::ContainerId {
    ContainerId {
        session: SessionId(1234),
        seq: number,
    }
    .into()
}

fn activation(number: u64) -> ActivationId {
    let mut bytes = [0xab; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ActivationId::from_bytes(bytes)
}

fn id(number: u64) -> Bytes {
    whiskraft_proto::activation_id_bytes(activation(number))
}
