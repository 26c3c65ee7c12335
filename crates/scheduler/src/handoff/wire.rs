//! Moved activations between the queue's words and the wire, in frames of a bounded length.

use std::sync::Arc;
use std::time::Duration;

use whiskraft_proto::{InvalidMessage, activation_id, activation_id_bytes, identity, required, v1};
use whiskraft_queue::{ControllerId, Moved, MovedPlace, Outcome, RunEnd};
use whiskraft_types::{ActivationRecord, ActivationStatus, ContainerId, Epoch, InvokerId, QueueKey};

use crate::message::{Content, Payload, Record};

/// An activation on its way, as this crate has it.
pub(crate) type MovedActivation = Moved<Payload, Record>;

/// Length after which a frame is full; its last activation may exceed it.
const FRAME_LEN: usize = 1 << 20;
/// Activations in one frame: what each costs besides its bytes is counted by this.
const FRAME_ACTIVATIONS: usize = 4096;

/// Bytes that an activation holds in memory, about.
pub(crate) fn len_of(moved: &MovedActivation) -> usize {
    /// What the entry itself and its ids take.
    const ENTRY: usize = 256;
    let content = moved.payload.as_ref().map_or(0, |content| {
        content.arguments.len() + content.transaction.len() + content.subject.len() + content.api_key.len()
    });
    let outcome = match &moved.place {
        MovedPlace::Ended {
            outcome: Outcome::Record(record),
            ..
        } => record.result.len() + record.logs.iter().map(String::len).sum::<usize>(),
        _ => 0,
    };
    ENTRY + content + outcome
}

/// Queues as frames, in order; the hello is in the first.
pub(crate) fn frames(
    hello: v1::ImportFrame,
    queues: Vec<(QueueKey, Epoch, Vec<MovedActivation>)>,
) -> Vec<v1::ImportFrame> {
    let mut frames = Vec::new();
    let (mut frame, mut len, mut count) = (hello, 0, 0);
    for (key, epoch, activations) in queues {
        let part = |activations, last| v1::MovedQueue {
            key: Some((&key).into()),
            epoch: epoch.0,
            activations,
            last,
        };
        let mut written = Vec::new();
        for moved in activations {
            if len >= FRAME_LEN || count >= FRAME_ACTIVATIONS {
                frame.queues.push(part(std::mem::take(&mut written), false));
                frames.push(std::mem::take(&mut frame));
                (len, count) = (0, 0);
            }
            len += len_of(&moved);
            count += 1;
            written.push(to_wire(moved));
        }
        frame.queues.push(part(written, true));
    }
    frames.push(frame);
    frames
}

fn to_wire(moved: MovedActivation) -> v1::MovedActivation {
    let mut message = v1::MovedActivation {
        id: activation_id_bytes(moved.id),
        waited_us: micros(moved.waited),
        ready_us: micros(moved.ready),
        attempt: moved.attempt,
        run: moved.run,
        refusals: moved.refusals.into(),
        durable: moved.durable,
        cancelled: moved.cancelled,
        caller: moved.caller.map(activation_id_bytes).unwrap_or_default(),
        controllers: moved
            .controllers
            .iter()
            .map(|controller| controller.0.to_vec().into())
            .collect(),
        content: moved.payload.map(|content| v1::MovedContent {
            payload: content.arguments.clone(),
            transaction: content.transaction.clone(),
            subject: content.subject.clone(),
            api_key: content.api_key.clone(),
            cause: content.cause.clone(),
        }),
        ..Default::default()
    };
    let place = match moved.place {
        MovedPlace::Waiting => v1::MovedPlace::Waiting,
        MovedPlace::Held => v1::MovedPlace::Held,
        MovedPlace::Delayed(delay) => {
            message.delay_us = micros(delay);
            v1::MovedPlace::Delayed
        }
        MovedPlace::InFlight { container, started } => {
            message.container = Some(container.into());
            if started {
                v1::MovedPlace::Started
            } else {
                v1::MovedPlace::Delivered
            }
        }
        MovedPlace::Ended {
            outcome,
            end: _,
            lost,
            invoker,
            age,
        } => {
            message.end = Some(v1::MovedEnd {
                age_us: micros(age),
                invoker: invoker.map_or(0, |invoker| invoker.0),
                lost,
                outcome: Some(outcome_to_wire(outcome)),
            });
            v1::MovedPlace::Ended
        }
    };
    message.place = place.into();
    message
}

fn outcome_to_wire(outcome: Outcome<Record>) -> v1::moved_end::Outcome {
    use v1::moved_end::Outcome as End;

    match outcome {
        Outcome::Record(record) => End::Record(Arc::unwrap_or_clone(record).into()),
        Outcome::Failure { status, text } => End::Failure(v1::MovedFailure {
            status: v1::Status::from(status).into(),
            text,
        }),
        Outcome::Cancelled => End::NotRun(v1::MovedCancelled {}),
    }
}

/// An activation as it came.
///
/// # Errors
/// Names the field that is missing or makes no sense.
pub(crate) fn from_wire(message: v1::MovedActivation) -> Result<MovedActivation, InvalidMessage> {
    let controllers = message.controllers.iter();
    let controllers = controllers
        .map(|controller| Ok(ControllerId(identity(controller, "activation.controllers")?)))
        .collect::<Result<_, InvalidMessage>>()?;
    let place = match message.place() {
        v1::MovedPlace::Unspecified => {
            return Err(InvalidMessage::Missing {
                field: "activation.place",
            });
        }
        v1::MovedPlace::Waiting => MovedPlace::Waiting,
        v1::MovedPlace::Held => MovedPlace::Held,
        v1::MovedPlace::Delayed => MovedPlace::Delayed(Duration::from_micros(message.delay_us)),
        v1::MovedPlace::Delivered => in_flight(message.container, false)?,
        v1::MovedPlace::Started => in_flight(message.container, true)?,
        v1::MovedPlace::Ended => ended(required(message.end, "activation.end")?)?,
    };
    Ok(Moved {
        id: activation_id(&message.id)?,
        place,
        waited: Duration::from_micros(message.waited_us),
        ready: Duration::from_micros(message.ready_us),
        attempt: message.attempt,
        run: message.run,
        refusals: u8::try_from(message.refusals).unwrap_or(u8::MAX),
        durable: message.durable,
        cancelled: message.cancelled,
        // One that cannot be read is none, as in a submission.
        caller: activation_id(&message.caller).ok(),
        controllers,
        payload: message.content.map(|content| {
            Arc::new(Content {
                arguments: content.payload,
                transaction: content.transaction,
                subject: content.subject,
                api_key: content.api_key,
                cause: content.cause,
            })
        }),
    })
}

fn in_flight(
    container: Option<v1::ContainerId>,
    started: bool,
) -> Result<MovedPlace<Record>, InvalidMessage> {
    Ok(MovedPlace::InFlight {
        container: ContainerId::from(required(container, "activation.container")?),
        started,
    })
}

fn ended(end: v1::MovedEnd) -> Result<MovedPlace<Record>, InvalidMessage> {
    use v1::moved_end::Outcome as End;

    let outcome = match required(end.outcome, "activation.end.outcome")? {
        End::Record(record) => Outcome::Record(Arc::new(ActivationRecord::try_from(record)?)),
        End::Failure(failure) => Outcome::Failure {
            status: ActivationStatus::try_from(failure.status())?,
            text: failure.text,
        },
        End::NotRun(_) => Outcome::Cancelled,
    };
    let run_end = match &outcome {
        Outcome::Record(record) => Some(RunEnd::of(record.status, record.cancelled)),
        Outcome::Cancelled => Some(RunEnd::Cancelled),
        Outcome::Failure { .. } => None,
    };
    Ok(MovedPlace::Ended {
        end: run_end,
        outcome,
        lost: end.lost,
        invoker: Some(InvokerId(end.invoker)).filter(|invoker| invoker.0 > 0),
        age: Duration::from_micros(end.age_us),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use whiskraft_types::{ActivationId, SessionId};

    use super::*;

    fn key(action: &str) -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: action.parse().unwrap(),
        }
    }

    fn moved(number: u8, place: MovedPlace<Record>, len: usize) -> MovedActivation {
        let content = Content {
            arguments: Bytes::from(vec![b'x'; len]),
            transaction: "tid".to_owned(),
            subject: "anna".to_owned(),
            api_key: "u:k".to_owned(),
            cause: "c".to_owned(),
        };
        Moved {
            id: ActivationId::from_bytes([number; 16]),
            place,
            waited: Duration::from_micros(1_234_567),
            ready: Duration::from_micros(1_234),
            run: 2,
            refusals: 1,
            durable: true,
            cancelled: true,
            payload: Some(Arc::new(content)),
            attempt: 3,
            caller: Some(ActivationId::from_bytes([9; 16])),
            controllers: vec![ControllerId([7; 16]), ControllerId([8; 16])],
        }
    }

    fn hello() -> v1::ImportFrame {
        v1::ImportFrame {
            session: 5,
            ..Default::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let container = ContainerId {
            session: SessionId(4),
            seq: 2,
        };
        let in_flight = |started| MovedPlace::InFlight { container, started };
        let ended = |outcome, end, invoker| MovedPlace::Ended {
            outcome,
            end,
            lost: true,
            invoker,
            age: Duration::from_micros(17),
        };
        let failure = Outcome::Failure {
            status: ActivationStatus::WhiskError,
            text: "lost".to_owned(),
        };
        let places = vec![
            MovedPlace::Held,
            MovedPlace::Waiting,
            MovedPlace::Delayed(Duration::from_micros(5)),
            in_flight(false),
            in_flight(true),
            ended(failure, None, Some(InvokerId(3))),
            ended(Outcome::Cancelled, Some(RunEnd::Cancelled), None),
        ];
        let numbered = places.into_iter().zip(1..);
        let all: Vec<_> = numbered.map(|(place, number)| moved(number, place, 8)).collect();
        let read: Result<Vec<_>, _> = all
            .iter()
            .map(|moved| from_wire(to_wire(moved.clone())))
            .collect();
        assert_eq!(read.unwrap(), all);
        let bad = v1::MovedActivation {
            place: 0,
            ..to_wire(all[0].clone())
        };
        assert!(from_wire(bad).is_err());
    }

    #[test]
    fn frames_are_bounded_and_keep_the_order_and_every_queue_has_one_end() {
        let big: Vec<_> = (1..=5)
            .map(|number| moved(number, MovedPlace::Waiting, 600_000))
            .collect();
        let queues = vec![
            (key("guest/a"), Epoch(4), Vec::new()),
            (key("guest/b"), Epoch(5), big),
            (key("guest/c"), Epoch(6), vec![moved(6, MovedPlace::Waiting, 10)]),
        ];
        let frames = frames(hello(), queues);
        assert_eq!((frames.len(), frames[0].session, frames[1].session), (3, 5, 0));
        let parts: Vec<_> = frames.iter().flat_map(|frame| &frame.queues).collect();
        let ends: Vec<_> = parts
            .iter()
            .filter(|part| part.last)
            .map(|part| part.epoch)
            .collect();
        assert_eq!(ends, [4, 5, 6]);
        let ids: Vec<u8> = parts
            .iter()
            .flat_map(|part| &part.activations)
            .map(|moved| moved.id[0])
            .collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    }
}
