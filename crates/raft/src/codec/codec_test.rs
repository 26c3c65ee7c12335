//! Golden bytes of everything that reaches the disk through the log. A difference here means that a running cluster
//! could not read its own log after an upgrade.

use std::time::Duration;

use whiskraft_state::{
    BlobChunk, BlobHash, Command, ContainerChange, ContainerUpdate, DocumentKey, EnsureQueue, Grant,
    GrantedContainer, InvokerProfile, InvokerReport, Leadership, MemberRecord, OpenSession, PutDocument,
    Refusal, Response, SessionOwner, SlotRequest,
};
use whiskraft_types::{
    ActionLimits, ByteSize, ContainerId, Epoch, InvokerId, LogRevision, NamespaceLimits, QueueKey, Revision,
    SchedulerId, SessionId,
};

use super::{CodecError, decode, encode};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key() -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "guest/hello".parse().unwrap(),
    }
}

fn document() -> DocumentKey {
    DocumentKey {
        kind: "action".to_owned(),
        namespace: "guest".parse().unwrap(),
        name: "hello".to_owned(),
    }
}

fn member() -> MemberRecord {
    MemberRecord {
        peer_address: "a:1".to_owned(),
        client_address: "a:2".to_owned(),
        zone: "z".to_owned(),
        version: "1".to_owned(),
        incarnation: [7; 16],
        draining: true,
    }
}

fn profile() -> InvokerProfile {
    InvokerProfile {
        memory: ByteSize::mib(1024),
        tags: vec!["gpu".to_owned()],
        dedicated: vec!["guest".parse().unwrap()],
        kinds: vec!["python:3".to_owned()],
        zone: "z".to_owned(),
        version: "1".to_owned(),
    }
}

fn updates() -> Vec<ContainerUpdate> {
    let container = ContainerId {
        session: SessionId(9),
        seq: 1,
    };
    [
        ContainerChange::Placed {
            invoker: InvokerId(3),
        },
        ContainerChange::Running,
        ContainerChange::Warm,
        ContainerChange::Removed,
        ContainerChange::Unplaced {
            invoker: InvokerId(3),
        },
        ContainerChange::Ended,
    ]
    .map(|change| {
        let is_report = matches!(change, ContainerChange::Running | ContainerChange::Warm);
        ContainerUpdate {
            container,
            change,
            reporter: is_report.then_some((InvokerId(3), SessionId(12))),
        }
    })
    .to_vec()
}

/// Place of a variant in the format; a new variant does not compile until it has one, and its golden bytes.
const fn place(command: &Command) -> usize {
    match command {
        Command::PutMember { .. } => 0,
        Command::RemoveMember { .. } => 1,
        Command::OpenSession(_) => 2,
        Command::RenewSessions { .. } => 3,
        Command::ExpireSessions { .. } => 4,
        Command::CloseSession { .. } => 5,
        Command::EnsureQueue(_) => 6,
        Command::RemoveQueue { .. } => 7,
        Command::SetActionThrottle { .. } => 8,
        Command::ReserveSlots { .. } => 9,
        Command::UpdateContainers { .. } => 10,
        Command::ReportInvokers { .. } => 11,
        Command::PutNamespace { .. } => 12,
        Command::DeleteNamespace { .. } => 13,
        Command::PutDocument(_) => 14,
        Command::DeleteDocument { .. } => 15,
        Command::PutBlobChunk(_) => 16,
        Command::SweepBlobs { .. } => 17,
        Command::SetDraining { .. } => 18,
        Command::MoveQueues { .. } => 19,
        Command::HandOver { .. } => 20,
        Command::ReservePlaces { .. } => 21,
    }
}

fn commands() -> Vec<Command> {
    let open = |owner| OpenSession {
        owner,
        incarnation: [8; 16],
        ttl: Duration::from_millis(2500),
    };
    let slot = SlotRequest {
        key: key(),
        epoch: Epoch(4),
        first_seq: 300,
        count: 2,
        revision: Revision(70_000),
        memory: ByteSize::mib(256),
        instances: Some(5),
    };
    let report = InvokerReport {
        invoker: InvokerId(3),
        session: SessionId(12),
        healthy: true,
        busy: ByteSize::mib(512),
        reclaimable: ByteSize::ZERO,
    };
    let put = PutDocument {
        key: document(),
        body: b"{}".to_vec(),
        expected: Some(Revision(0)),
        blobs: vec![BlobHash([9; 32])],
        limits: Some(ActionLimits::default()),
    };
    let chunk = BlobChunk {
        hash: BlobHash([9; 32]),
        len: 3,
        index: 0,
        data: vec![1, 2, 3],
    };
    vec![
        Command::PutMember {
            id: SchedulerId(1),
            member: member(),
        },
        Command::RemoveMember { id: SchedulerId(2) },
        Command::OpenSession(open(SessionOwner::Scheduler(SchedulerId(1)))),
        Command::OpenSession(open(SessionOwner::Invoker {
            id: InvokerId(3),
            profile: profile(),
        })),
        Command::RenewSessions {
            sessions: vec![(SessionId(5), 6)],
        },
        Command::ExpireSessions {
            sessions: vec![(SessionId(5), 251)],
        },
        Command::CloseSession {
            session: SessionId(5),
        },
        Command::EnsureQueue(EnsureQueue { key: key() }),
        Command::RemoveQueue {
            key: key(),
            epoch: Epoch(4),
        },
        Command::SetActionThrottle {
            key: key(),
            epoch: Epoch(4),
            throttled: true,
        },
        Command::ReserveSlots {
            session: SessionId(5),
            requests: vec![slot.clone()],
        },
        Command::UpdateContainers { updates: updates() },
        Command::ReportInvokers {
            reports: vec![report],
        },
        Command::PutNamespace {
            name: "guest".parse().unwrap(),
            limits: NamespaceLimits {
                containers: 30,
                over_provision_percent: 150,
                invocations_per_minute: Some(600),
                weight: 300,
            },
        },
        Command::DeleteNamespace {
            name: "guest".parse().unwrap(),
        },
        Command::PutDocument(put),
        Command::DeleteDocument {
            key: document(),
            expected: None,
        },
        Command::PutBlobChunk(chunk),
        Command::SweepBlobs {
            before: LogRevision(99),
        },
        Command::SetDraining {
            id: SchedulerId(1),
            draining: true,
        },
        Command::MoveQueues {
            session: SessionId(5),
            queues: vec![(key(), Epoch(4))],
        },
        Command::HandOver {
            session: SessionId(5),
            queues: vec![(key(), Epoch(4), SchedulerId(2))],
        },
        Command::ReservePlaces {
            session: SessionId(5),
            requests: vec![(slot, vec![InvokerId(3)])],
        },
    ]
}

fn responses() -> Vec<Response> {
    let container = ContainerId {
        session: SessionId(9),
        seq: 1,
    };
    let resume = Some((
        ContainerId {
            session: SessionId(8),
            seq: 2,
        },
        InvokerId(3),
    ));
    let refused = |refusal| Response::Refused(refusal);
    vec![
        Response::Done,
        Response::Session(SessionId(5)),
        Response::Leadership(Leadership {
            leader: SchedulerId(1),
            epoch: Epoch(2),
            revision: Revision(3),
        }),
        Response::Grants(vec![
            Grant::Granted(vec![GrantedContainer { container, resume }]),
            Grant::StaleEpoch,
        ]),
        Response::Revision(Revision(3)),
        Response::Missing(vec![1, 300]),
        refused(Refusal::NoSession {
            session: SessionId(5),
        }),
        refused(Refusal::Held {
            owner: "invoker 3".to_owned(),
            holder: SessionId(5),
        }),
        refused(Refusal::NoScheduler),
        refused(Refusal::NoAction {
            action: "guest/hello".to_owned(),
        }),
        refused(Refusal::StaleEpoch { current: Epoch(2) }),
        refused(Refusal::Conflict { current: Revision(3) }),
        refused(Refusal::MissingBlob {
            hash: BlobHash([9; 32]),
        }),
        refused(Refusal::NotFound),
        refused(Refusal::Invalid {
            reason: "no".to_owned(),
        }),
        Response::HandedOver(vec![(key(), Epoch(4))]),
    ]
}

#[test]
fn bytes_of_commands_do_not_change() {
    let golden: Vec<&str> = include_str!("commands.golden").lines().collect();
    let commands = commands();
    let encoded: Vec<String> = commands
        .iter()
        .map(|command| hex(&encode(command).unwrap()))
        .collect();
    assert_eq!(encoded, golden);
    for command in &commands {
        assert_eq!(decode::<Command>(&encode(command).unwrap()).as_ref(), Ok(command));
    }
    let mut places: Vec<usize> = commands.iter().map(place).collect();
    places.dedup();
    assert_eq!(
        places,
        (0..=21).collect::<Vec<_>>(),
        "every variant, in the order of the format"
    );
    for (command, text) in commands.iter().zip(&golden) {
        assert_eq!(text[4..6], format!("{:02x}", place(command)), "{command:?}");
    }
}

#[test]
fn bytes_of_responses_do_not_change() {
    let golden: Vec<&str> = include_str!("responses.golden").lines().collect();
    let responses = responses();
    let encoded: Vec<String> = responses
        .iter()
        .map(|response| hex(&encode(response).unwrap()))
        .collect();
    assert_eq!(encoded, golden);
    for response in &responses {
        assert_eq!(
            decode::<Response>(&encode(response).unwrap()).as_ref(),
            Ok(response)
        );
    }
}

#[test]
fn what_is_not_a_record_is_named() {
    assert_eq!(
        decode::<u64>(&[2, 1, 0]),
        Err(CodecError::Version {
            format: 2,
            version: 1
        })
    );
    assert_eq!(
        decode::<u64>(&[1, 9, 0]),
        Err(CodecError::Version {
            format: 1,
            version: 9
        })
    );
    let text = decode::<u64>(&[1, 1, 5, 0]).unwrap_err().to_string();
    assert_eq!(text, "record of 4 bytes is damaged: 1 bytes follow the value");
    assert!(matches!(
        decode::<u64>(&[1]),
        Err(CodecError::Damaged { len: 1, .. })
    ));
    // A length that no record has must not become an allocation.
    assert!(matches!(
        decode::<Vec<u8>>(&[1, 1, 253, 255, 255, 255, 255, 255, 255, 255, 127]),
        Err(CodecError::Damaged { .. })
    ));
}
