//! Decisions of a lane: transcripts.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use whiskraft_types::{ActivationId, Epoch, NamespaceName, QueueKey};

use super::*;

/// A lane's rows in memory, changed as a store changes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Store {
    clock: LaneMillis,
    rows: BTreeMap<ActivationId, JournalRow>,
    payloads: BTreeMap<ActivationId, (Bytes, Option<LaneMillis>)>,
    records: BTreeMap<ActivationId, (Bytes, LaneMillis)>,
    open: BTreeSet<(QueueKey, ActivationId)>,
    dead: BTreeMap<(NamespaceName, UnixMillis, ActivationId), LaneMillis>,
    fences: BTreeMap<QueueKey, Fence>,
}

impl JournalRows for Store {
    type Error = Infallible;

    fn row(&self, id: ActivationId) -> Result<Option<JournalRow>, Infallible> {
        Ok(self.rows.get(&id).cloned())
    }

    fn fence(&self, key: &QueueKey) -> Result<Option<Fence>, Infallible> {
        Ok(self.fences.get(key).copied())
    }
}

impl Store {
    fn apply(&mut self, batch: JournalBatch) -> Vec<JournalOutcome> {
        let mut turn = Turn::new(self, self.clock);
        let Ok(outcomes) = turn.apply(&batch);
        let (clock, changes) = turn.finish();
        self.clock = clock;
        changes.into_iter().for_each(|change| self.change(change));
        outcomes
    }

    fn change(&mut self, change: RowChange) {
        match change {
            RowChange::PutRow(row) => drop(self.rows.insert(row.id, row)),
            RowChange::PutPayload { id, payload } => drop(self.payloads.insert(id, (payload, None))),
            RowChange::KeepPayload { id, expires } => {
                self.payloads.get_mut(&id).expect("a payload to keep").1 = Some(expires);
            }
            RowChange::DeletePayload(id) => drop(self.payloads.remove(&id)),
            RowChange::PutRecord { id, expires, record } => {
                drop(self.records.insert(id, (record, expires)));
            }
            RowChange::DeleteRecord(id) => drop(self.records.remove(&id)),
            RowChange::Open { key, id } => drop(self.open.insert((key, id))),
            RowChange::Close { key, id } => {
                assert!(self.open.remove(&(key, id)), "{id} was not open");
            }
            RowChange::List {
                namespace,
                at,
                id,
                expires,
            } => drop(self.dead.insert((namespace, at, id), expires)),
            RowChange::Unlist { namespace, at, id } => drop(self.dead.remove(&(namespace, at, id))),
            RowChange::PutFence { key, fence } => drop(self.fences.insert(key, fence)),
        }
    }

    /// What a compaction does: everything that has expired goes.
    fn compact(&mut self) {
        let clock = self.clock;
        self.rows.retain(|_, row| !row.is_expired(clock));
        self.payloads
            .retain(|_, (_, expires)| expires.is_none_or(|expires| expires > clock));
        self.records.retain(|_, (_, expires)| *expires > clock);
        self.dead.retain(|_, expires| *expires > clock);
        self.fences.retain(|_, fence| fence.expires() > clock);
    }
}

fn id(number: u8) -> ActivationId {
    ActivationId::from_bytes([number; 16])
}

fn key(number: u8) -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: format!("guest/a{number}").parse().unwrap(),
    }
}

fn accept(number: u8, queue: u8, epoch: u64, payload: u8) -> JournalCommand {
    JournalCommand::Accept(Accept {
        id: id(number),
        key: key(queue),
        epoch: Epoch(epoch),
        digest: Digest([payload; 16]),
        accepted: UnixMillis(1),
        waited: Duration::from_millis(3),
        not_before: None,
        payload: vec![payload].into(),
    })
}

fn retry(number: u8, queue: u8, epoch: u64, run: u32) -> JournalCommand {
    JournalCommand::Retry(Retry {
        id: id(number),
        key: key(queue),
        epoch: Epoch(epoch),
        run,
        pause: Duration::from_millis(50),
    })
}

fn end(number: u8, queue: u8, epoch: u64, run: u32, keep: u64, kind: EndKind) -> JournalCommand {
    JournalCommand::End(End {
        id: id(number),
        key: key(queue),
        epoch: Epoch(epoch),
        run,
        at: UnixMillis(7),
        keep: Duration::from_millis(keep),
        kind,
        record: vec![number].into(),
    })
}

fn archive(number: u8, queue: u8, keep: u64) -> JournalCommand {
    JournalCommand::Archive(Archive {
        id: id(number),
        key: key(queue),
        accepted: UnixMillis(1),
        at: UnixMillis(7),
        keep: Duration::from_millis(keep),
        record: vec![number].into(),
    })
}

fn cancel(number: u8, queue: u8, epoch: u64) -> JournalCommand {
    JournalCommand::Cancel(Cancel {
        id: id(number),
        key: key(queue),
        epoch: Epoch(epoch),
    })
}

fn fence(queue: u8, epoch: u64) -> JournalCommand {
    JournalCommand::Fence {
        queues: vec![(key(queue), Epoch(epoch))],
    }
}

fn known(run: u32, ended: bool) -> JournalOutcome {
    JournalOutcome::Known(KnownActivation { run, ended })
}

fn stale(current: u64) -> JournalOutcome {
    JournalOutcome::Stale {
        current: Epoch(current),
    }
}

/// Applies commands, each at its time and in a batch of its own, and all of them in one batch per time; compares the
/// outcomes with the wanted ones.
fn check(script: Vec<(u64, JournalCommand, JournalOutcome)>) -> Store {
    let mut single = Store::default();
    let mut together: BTreeMap<u64, (Vec<JournalCommand>, Vec<JournalOutcome>)> = BTreeMap::new();
    for (now, command, wanted) in script {
        let now_ms = LaneMillis(now);
        let text = format!("{command:?} at {now}");
        let batch = JournalBatch {
            now: now_ms,
            commands: vec![command.clone()],
        };
        assert_eq!(single.apply(batch), std::slice::from_ref(&wanted), "{text}");
        let (commands, outcomes) = together.entry(now).or_default();
        commands.push(command);
        outcomes.push(wanted);
    }
    let mut batched = Store::default();
    for (now, (commands, wanted)) in together {
        let now = LaneMillis(now);
        assert_eq!(batched.apply(JournalBatch { now, commands }), wanted);
    }
    assert_eq!(
        batched, single,
        "order inside a batch counts like order of batches"
    );
    single
}

#[test]
fn an_id_is_accepted_once_and_joined_by_the_same_payload_only() {
    let store = check(vec![
        (10, accept(1, 0, 5, 1), JournalOutcome::Written),
        (10, accept(1, 0, 5, 1), known(1, false)),
        (10, accept(1, 0, 5, 2), JournalOutcome::Conflict),
        (10, accept(1, 1, 5, 1), JournalOutcome::Conflict),
        (11, end(1, 0, 5, 1, 100, EndKind::Record), JournalOutcome::Written),
        (11, accept(1, 0, 5, 1), known(1, true)),
        (11, accept(1, 0, 5, 2), JournalOutcome::Conflict),
    ]);
    assert_eq!(store.payloads.len(), 0, "the payload of one that has ended goes");
    assert_eq!(store.records[&id(1)].0.as_ref(), [1]);
    assert_eq!(store.open.len(), 0);
}

#[test]
fn what_names_an_older_epoch_changes_nothing() {
    check(vec![
        (10, accept(1, 0, 5, 1), JournalOutcome::Written),
        (10, accept(2, 0, 6, 1), JournalOutcome::Written),
        (10, accept(3, 0, 5, 1), stale(6)),
        (10, end(1, 0, 5, 1, 100, EndKind::Record), stale(6)),
        (10, fence(0, 9), JournalOutcome::Written),
        (10, fence(0, 7), JournalOutcome::Written),
        (10, retry(1, 0, 8, 2), stale(9)),
        (10, accept(1, 0, 8, 1), stale(9)),
        (10, accept(4, 1, 5, 1), JournalOutcome::Written),
        (10, end(1, 0, 9, 1, 100, EndKind::Record), JournalOutcome::Written),
    ]);
}

#[test]
fn runs_go_up_and_the_first_end_counts() {
    let store = check(vec![
        (10, end(1, 0, 5, 1, 100, EndKind::Record), JournalOutcome::Missing),
        (10, retry(1, 0, 5, 2), JournalOutcome::Missing),
        (10, accept(1, 0, 5, 1), JournalOutcome::Written),
        (10, retry(1, 0, 5, 1), known(1, false)),
        (10, retry(1, 0, 5, 3), JournalOutcome::Written),
        (10, end(1, 0, 5, 2, 100, EndKind::Record), known(3, false)),
        (10, end(1, 1, 5, 3, 100, EndKind::Record), JournalOutcome::Missing),
        (10, end(1, 0, 5, 3, 100, EndKind::Record), JournalOutcome::Written),
        (10, end(1, 0, 5, 3, 900, EndKind::DeadLetter), known(3, true)),
        (10, retry(1, 0, 5, 4), known(3, true)),
        (10, archive(1, 0, 900), known(3, true)),
    ]);
    assert_eq!(store.records[&id(1)].1, LaneMillis(110));
}

#[test]
fn a_dead_letter_keeps_its_payload_until_it_is_purged() {
    let purge = JournalCommand::Purge {
        ids: vec![id(1), id(9)],
    };
    let dead = vec![
        (10, accept(1, 0, 5, 1), JournalOutcome::Written),
        (
            10,
            end(1, 0, 5, 1, 100, EndKind::DeadLetter),
            JournalOutcome::Written,
        ),
    ];
    let listed = check(dead.clone());
    assert_eq!(
        listed.payloads[&id(1)],
        (Bytes::from_static(&[1]), Some(LaneMillis(110)))
    );
    assert_eq!(listed.dead.len(), 1);
    let purged = check([dead, vec![(10, purge, JournalOutcome::Written)]].concat());
    assert_eq!((purged.payloads.len(), purged.dead.len()), (0, 0));
    assert!(!purged.rows[&id(1)].is_dead_letter());
    assert_eq!(purged.records.len(), 1, "the record stays until it expires");
}

#[test]
fn what_has_expired_is_absent_and_leaves_nothing_to_its_successor() {
    let store = check(vec![
        (10, accept(1, 0, 5, 1), JournalOutcome::Written),
        (
            10,
            end(1, 0, 5, 1, 90, EndKind::DeadLetter),
            JournalOutcome::Written,
        ),
        (99, accept(1, 0, 5, 2), JournalOutcome::Conflict),
        (
            100,
            end(1, 0, 5, 1, 900, EndKind::Record),
            JournalOutcome::Missing,
        ),
        (100, accept(1, 0, 5, 2), JournalOutcome::Written),
        // The lane's clock never goes back.
        (101, accept(1, 0, 5, 2), known(1, false)),
    ]);
    assert_eq!(store.payloads[&id(1)], (Bytes::from_static(&[2]), None));
    assert_eq!((store.records.len(), store.dead.len()), (0, 0));
}

fn at(now: u64, command: JournalCommand) -> JournalBatch {
    JournalBatch {
        now: LaneMillis(now),
        commands: vec![command],
    }
}

#[test]
fn the_clock_of_a_lane_never_goes_back() {
    let mut store = Store::default();
    store.apply(at(500, archive(1, 0, 0)));
    assert_eq!(store.apply(at(10, accept(1, 0, 5, 1))), [JournalOutcome::Written]);
    assert_eq!(store.clock, LaneMillis(500));
}

#[test]
fn a_record_stays_for_its_time_by_the_lanes_clock_whatever_wall_time_its_proposer_names() {
    const YEAR: u64 = 365 * 24 * 60 * 60 * 1000;
    for wall in [0, 1_000, 20 * YEAR, 200 * YEAR, u64::MAX] {
        let mut store = Store::default();
        store.apply(at(1_000, accept(1, 0, 5, 1)));
        let JournalCommand::End(ended) = end(1, 0, 5, 1, 100, EndKind::DeadLetter) else {
            unreachable!("an end");
        };
        let ended = End {
            at: UnixMillis(wall),
            ..ended
        };
        // It was late by the clock of whoever led the lane.
        store.apply(at(900, JournalCommand::End(ended)));
        let JournalCommand::Archive(archived) = archive(2, 0, 100) else {
            unreachable!("a record");
        };
        let archived = Archive {
            at: UnixMillis(wall),
            ..archived
        };
        store.apply(at(1_000, JournalCommand::Archive(archived)));
        for number in [1, 2] {
            let row = &store.rows[&id(number)];
            assert_eq!(row.expires(), Some(LaneMillis(1_100)), "ended at {wall}");
            assert!(!row.is_expired(LaneMillis(1_099)) && row.is_expired(LaneMillis(1_100)));
            assert_eq!(store.records[&id(number)].1, LaneMillis(1_100));
        }
        assert_eq!(store.payloads[&id(1)].1, Some(LaneMillis(1_100)));
        assert_eq!(store.dead.values().next(), Some(&LaneMillis(1_100)));
    }
}

#[test]
fn waiting_and_pauses_are_measured_on_the_lanes_clock() {
    let ms = Duration::from_millis;
    let mut store = Store::default();
    store.apply(at(1_000, accept(1, 0, 5, 1)));
    let row = &store.rows[&id(1)];
    assert_eq!(row.waited(LaneMillis(1_500)), ms(503));
    assert_eq!(row.waited(LaneMillis(0)), ms(0), "never negative");
    store.apply(at(2_000, retry(1, 0, 5, 2)));
    let row = &store.rows[&id(1)];
    assert_eq!(row.waited(LaneMillis(2_000)), ms(1_003));
    for wall in [0, 2_020, u64::MAX] {
        assert_eq!(row.due_in(LaneMillis(2_010), UnixMillis(wall)), ms(42));
        assert_eq!(row.due_in(LaneMillis(2_052), UnixMillis(wall)), ms(0));
    }
}

#[test]
fn a_delay_ends_by_the_lanes_clock_and_a_wall_clock_moves_it_by_a_bounded_time() {
    let secs = Duration::from_secs;
    let JournalCommand::Accept(accepted) = accept(1, 0, 5, 1) else {
        unreachable!("an acceptance");
    };
    // At two in the morning, to begin at three.
    let delay = Delay {
        time: secs(3_600),
        due: UnixMillis(10_800_000),
    };
    let accepted = Accept {
        not_before: Some(delay),
        ..accepted
    };
    let mut store = Store::default();
    store.apply(at(5_000, JournalCommand::Accept(accepted)));
    let row = &store.rows[&id(1)];
    let half_past = LaneMillis(5_000 + 1_800_000);
    let rounding = Duration::from_millis(2);
    // Half an hour later, by the clocks of other nodes.
    for (wall, left) in [
        (9_000_000, secs(1_800)),
        (9_030_000, secs(1_770)),
        (9_000_000 - 3_600_000, secs(1_800) + rounding),
        (9_000_000 + 3_600_000, secs(1_740) + rounding),
        (u64::MAX, secs(1_740) + rounding),
    ] {
        assert_eq!(row.due_in(half_past, UnixMillis(wall)), left, "at {wall}");
    }
}

#[test]
fn a_wish_to_cancel_stays_with_what_is_open() {
    let store = check(vec![
        (10, cancel(1, 0, 5), JournalOutcome::Missing),
        (10, accept(1, 0, 5, 1), JournalOutcome::Written),
        (10, cancel(1, 1, 5), JournalOutcome::Missing),
        (10, cancel(1, 0, 4), stale(5)),
        (10, cancel(1, 0, 5), JournalOutcome::Written),
        (10, cancel(1, 0, 5), JournalOutcome::Written),
        (10, accept(1, 0, 5, 1), known(1, false)),
        (10, retry(1, 0, 5, 2), JournalOutcome::Written),
        (10, accept(2, 0, 5, 1), JournalOutcome::Written),
        (10, accept(3, 0, 5, 1), JournalOutcome::Written),
        (10, end(3, 0, 5, 1, 100, EndKind::Record), JournalOutcome::Written),
        (10, cancel(3, 0, 5), known(1, true)),
        (110, cancel(3, 0, 5), JournalOutcome::Missing),
    ]);
    let marked = |number| store.rows[&id(number)].cancelled;
    assert_eq!([marked(1), marked(2), marked(3)], [true, false, false]);
}

#[test]
fn an_archived_record_is_joined_by_its_queue_and_overwritten_by_nobody() {
    check(vec![
        (10, archive(1, 0, 100), JournalOutcome::Written),
        (10, archive(1, 0, 900), known(1, true)),
        (10, accept(1, 0, 5, 1), known(1, true)),
        (10, accept(1, 1, 5, 1), JournalOutcome::Conflict),
        (10, accept(2, 0, 5, 1), JournalOutcome::Written),
        (10, archive(2, 0, 100), known(1, false)),
    ]);
}

#[test]
fn an_epoch_is_forgotten_a_month_after_it_was_named() {
    const KEPT_MS: u64 = FENCE_KEPT.as_secs() * 1000;
    check(vec![
        (10, fence(0, 9), JournalOutcome::Written),
        (9 + KEPT_MS, accept(1, 0, 5, 1), stale(9)),
        (10 + KEPT_MS, accept(1, 0, 5, 1), JournalOutcome::Written),
        (10 + KEPT_MS, accept(2, 0, 4, 1), stale(5)),
    ]);
}
