//! Golden bytes of the journal: what a lane's log, its rows and its answers are on disk and between schedulers.

use std::time::Duration;

use whiskraft_state::journal::{
    Accept, Archive, Cancel, Delay, Digest, End, EndKind, JournalBatch, JournalCommand, JournalOutcome,
    JournalRow, KnownActivation, LaneMillis, Retry, RowState, UnixMillis,
};
use whiskraft_types::{ActivationId, Epoch, QueueKey};

use super::{decode, encode};
use crate::store::LaneState;
use crate::types::{
    Entry, LeaderId, LogId, LogIdRecord, MembershipRecord, Proposal, decode_entry, encode_payload,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id() -> ActivationId {
    ActivationId::from_bytes([0xab; 16])
}

fn key() -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "guest/hello".parse().unwrap(),
    }
}

fn commands() -> Vec<JournalCommand> {
    let end = |kind| End {
        id: id(),
        key: key(),
        epoch: Epoch(300),
        run: 2,
        at: UnixMillis(1_700_000_000_000),
        keep: Duration::from_secs(86_400),
        kind,
        record: vec![1, 2, 255].into(),
    };
    vec![
        JournalCommand::Accept(Accept {
            id: id(),
            key: key(),
            epoch: Epoch(300),
            digest: Digest([0xcd; 16]),
            accepted: UnixMillis(1_700_000_000_000),
            waited: Duration::from_millis(5),
            not_before: Some(Delay {
                time: Duration::from_secs(60),
                due: UnixMillis(7),
            }),
            payload: vec![0, 1, 254, 255].into(),
        }),
        JournalCommand::Retry(Retry {
            id: id(),
            key: key(),
            epoch: Epoch(300),
            run: 2,
            pause: Duration::from_millis(7),
        }),
        JournalCommand::End(end(EndKind::Record)),
        JournalCommand::End(end(EndKind::DeadLetter)),
        JournalCommand::Archive(Archive {
            id: id(),
            key: key(),
            accepted: UnixMillis(1),
            at: UnixMillis(2),
            keep: Duration::from_secs(3),
            record: vec![9].into(),
        }),
        JournalCommand::Fence {
            queues: vec![(key(), Epoch(300))],
        },
        JournalCommand::Purge { ids: vec![id()] },
        JournalCommand::Cancel(Cancel {
            id: id(),
            key: key(),
            epoch: Epoch(300),
        }),
    ]
}

fn outcomes() -> Vec<JournalOutcome> {
    let known = KnownActivation { run: 3, ended: true };
    vec![
        JournalOutcome::Written,
        JournalOutcome::Known(known),
        JournalOutcome::Conflict,
        JournalOutcome::Stale { current: Epoch(300) },
        JournalOutcome::Missing,
    ]
}

fn rows() -> Vec<JournalRow> {
    let row = |digest, state| JournalRow {
        id: id(),
        key: key(),
        digest,
        accepted: UnixMillis(1),
        since: LaneMillis(4),
        run: 2,
        cancelled: digest.is_some(),
        state,
    };
    let ended = |dead_letter| RowState::Ended {
        at: UnixMillis(5),
        expires: LaneMillis(6),
        dead_letter,
    };
    vec![
        row(
            Some(Digest([1; 16])),
            RowState::Open {
                not_before: None,
                due: None,
            },
        ),
        row(Some(Digest([1; 16])), ended(true)),
        row(None, ended(false)),
    ]
}

fn lane_state() -> LaneState {
    let last = LogIdRecord {
        term: 3,
        node: 2,
        index: 300,
    };
    LaneState {
        last: Some(last),
        membership: MembershipRecord {
            log: Some(last),
            voters: vec![[1, 2].into()],
            addresses: [(1, "a:1".to_owned())].into(),
        },
        clock: LaneMillis(1_700_000_000_000),
    }
}

#[test]
fn bytes_of_the_journal_do_not_change() {
    let mut encoded = Vec::new();
    encoded.extend(commands().iter().map(|command| hex(&encode(command).unwrap())));
    encoded.extend(outcomes().iter().map(|outcome| hex(&encode(outcome).unwrap())));
    encoded.extend(rows().iter().map(|row| hex(&encode(row).unwrap())));
    encoded.push(hex(&encode(&lane_state()).unwrap()));
    let golden: Vec<&str> = include_str!("journal.golden").lines().collect();
    assert_eq!(encoded, golden);
    for command in commands() {
        assert_eq!(decode::<JournalCommand>(&encode(&command).unwrap()), Ok(command));
    }
    for outcome in outcomes() {
        assert_eq!(decode::<JournalOutcome>(&encode(&outcome).unwrap()), Ok(outcome));
    }
    for row in rows() {
        assert_eq!(decode::<JournalRow>(&encode(&row).unwrap()), Ok(row));
    }
    assert_eq!(
        decode::<LaneState>(&encode(&lane_state()).unwrap()),
        Ok(lane_state())
    );
}

#[test]
fn an_entry_of_a_lane_is_its_tag_and_its_batch() {
    let batch = JournalBatch {
        now: LaneMillis(7),
        commands: commands(),
    };
    let entry = Entry {
        log_id: LogId {
            leader_id: LeaderId { term: 1, node_id: 2 },
            index: 3,
        },
        payload: openraft::EntryPayload::Normal(Proposal::Journal(batch.clone()).into()),
    };
    let bytes = encode_payload(&entry).unwrap();
    let plain = encode(&batch).unwrap();
    assert_eq!(bytes[..3], [1, 1, 3], "format, version, tag of the variant");
    assert_eq!(bytes[3..], plain[2..]);
    assert_eq!(decode_entry(entry.log_id, bytes.clone()).unwrap(), entry);
}
