//! One answer to `GET /metrics`: counters as they are, gauges computed from tables, Raft and queues at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use whiskraft_queue::SuspicionReason;
use whiskraft_raft::{LaneStatus, Role};
use whiskraft_state::{Counts, InvokerRecord, SessionOwner, State};
use whiskraft_types::{CreationError, InvokerId, WaitReason};

use super::counters::{LeadershipEvent, REASONS, STATUSES, ShardCounters};
use super::exposition::Exposition;
use super::totals::{QueueTotals, Totals, top};
use super::{self as m};
use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::CreationHandle;
use crate::journal::JournalHandle;
use crate::shard::ShardsHandle;

/// Answers under way at a time; a monitor asks every few seconds.
const SCRAPES_MAX: usize = 2;

/// States of an invoker with a session.
const INVOKER_STATES: [&str; 7] = [
    "healthy",
    "unhealthy",
    "disconnected",
    SuspicionReason::Flapping.name(),
    SuspicionReason::Slow.name(),
    SuspicionReason::Silent.name(),
    SuspicionReason::Failing.name(),
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    /// Somebody else asks.
    #[error("too many scrapes at a time")]
    Busy,
    /// The process stops.
    #[error("the scheduler is stopping")]
    Stopping,
    /// A mistake of ours.
    #[error("metrics could not be encoded")]
    Encode(#[from] prometheus::Error),
}

/// Answers scrapes; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct Scraper {
    context: Context,
    shards: ShardsHandle,
    streams: ControlStreams,
    creation: CreationHandle,
    journal: JournalHandle,
    turns: Arc<Semaphore>,
}

impl Scraper {
    pub(crate) fn new(
        context: Context,
        shards: ShardsHandle,
        streams: ControlStreams,
        creation: CreationHandle,
        journal: JournalHandle,
    ) -> Self {
        Self {
            context,
            shards,
            streams,
            creation,
            journal,
            turns: Arc::new(Semaphore::new(SCRAPES_MAX)),
        }
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// See [`ScrapeError`].
    pub(crate) async fn scrape(&self) -> Result<Vec<u8>, ScrapeError> {
        let Ok(_turn) = self.turns.try_acquire() else {
            return Err(ScrapeError::Busy);
        };
        let totals = self
            .shards
            .walk(Totals::default())
            .await
            .ok_or(ScrapeError::Stopping)?;
        let mut text = Exposition::default();
        self.info(&mut text);
        let sum = self.context.metrics.sum();
        activations(&mut text, &sum);
        queues(&mut text, &totals);
        containers(&mut text, &sum, &totals);
        self.tables(&mut text);
        self.raft(&mut text);
        self.life(&mut text);
        self.journal(&mut text);
        text.histogram(m::TURN, &sum.turn);
        Ok(text.encode()?)
    }

    fn info(&self, text: &mut Exposition) {
        let node = &self.context.node;
        let version = node.read(|state| state.member(node.id()).map(|member| member.version.clone()));
        let values = vec![node.id().to_string(), version.unwrap_or_default()];
        text.rows(m::INFO, [(values, 1.0)]);
    }

    /// What the replicated tables say; read in one piece per kind, none of which is larger than the cluster has
    /// namespaces, invokers or sessions.
    fn tables(&self, text: &mut Exposition) {
        let node = &self.context.node;
        let (queues, namespaces, throttled) = node.read(|state| {
            let namespaces: Vec<_> = state
                .namespaces_counted()
                .map(|(name, counts)| (vec![name.to_string()], *counts))
                .collect();
            let throttled = state.namespaces_counted();
            let throttled = throttled
                .filter(|(name, _)| state.is_namespace_throttled(name))
                .count();
            (state.queues_len(), namespaces, throttled)
        });
        text.one(m::QUEUES, queues as f64);
        text.one(m::NAMESPACES_THROTTLED, throttled as f64);
        let total = namespaces.iter().fold(Counts::default(), |mut sum, (_, counts)| {
            add_counts(&mut sum, *counts);
            sum
        });
        text.by(m::CONTAINERS, by_state(total));
        let namespaces = top(namespaces, |counts| counts.total().into(), add_counts);
        let rows = namespaces.into_iter().flat_map(|(names, counts)| {
            by_state(counts)
                .map(move |(state, count)| ([names.clone(), vec![state.to_owned()]].concat(), count))
        });
        text.rows(m::NAMESPACE_CONTAINERS, rows);
        let (invokers, memory, sessions) =
            node.read(|state| (self.invokers(state), memory(state), sessions(state)));
        text.by(m::INVOKERS, invokers);
        text.by(m::INVOKER_MEMORY, memory);
        text.by(m::SESSIONS, sessions);
    }

    /// Each in one state: what keeps it from work for longer comes first.
    fn invokers(&self, state: &State) -> [(&'static str, f64); INVOKER_STATES.len()] {
        let suspects = self.creation.suspects();
        let of = |(id, row): (InvokerId, &InvokerRecord)| match suspects.get(&id) {
            _ if !row.healthy => "unhealthy",
            _ if !self.streams.is_connected(id, row.session) => "disconnected",
            Some(suspicion) => suspicion.reason.name(),
            None => "healthy",
        };
        let mut counts = INVOKER_STATES.map(|name| (name, 0.0));
        for name in state.invokers().map(of) {
            if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == name) {
                *count += 1.0;
            }
        }
        counts
    }

    fn raft(&self, text: &mut Exposition) {
        let raft = self.context.node.status();
        let roles = [
            ("leader", Role::Leader),
            ("follower", Role::Follower),
            ("candidate", Role::Candidate),
            ("learner", Role::Learner),
            ("stopped", Role::Stopped),
        ];
        text.by(
            m::RAFT_ROLE,
            roles.map(|(name, role)| (name, f64::from(u8::from(raft.role == role)))),
        );
        text.one(m::RAFT_TERM, raft.term as f64);
        text.one(m::RAFT_LAST_LOG, raft.last_log.0 as f64);
        text.one(m::RAFT_APPLIED, raft.applied.0 as f64);
        let lanes = |value: fn(&LaneStatus) -> u64| {
            let lanes = raft.lanes.iter();
            let row = |lane: &LaneStatus| (lane.lane.0.to_string(), value(lane) as f64);
            lanes.map(row).collect::<Vec<_>>()
        };
        text.by(m::LANE_LEADS, lanes(|lane| u64::from(lane.role == Role::Leader)));
        text.by(m::LANE_LAST_LOG, lanes(|lane| lane.last_log.0));
        text.by(m::LANE_APPLIED, lanes(|lane| lane.applied.0));
        let revision = self.context.node.read(State::revision);
        text.one(m::LOG_REVISION, revision.0 as f64);
    }

    fn journal(&self, text: &mut Exposition) {
        let journal = &self.context.metrics.journal;
        text.rows(m::JOURNAL_ENTRIES, journal.rows());
        text.one(m::JOURNAL_ACCEPTING, self.journal.accepting() as f64);
        text.one(m::JOURNAL_BATCHES, number(&journal.batches));
        text.histogram(m::JOURNAL_APPEND, &journal.append);
        text.histogram(m::JOURNAL_RECOVERY, &journal.recovery);
        text.one(m::JOURNAL_RECOVERED, number(&journal.recovered));
        let archived = [
            ("kept", number(&journal.archived)),
            ("dropped", number(&journal.unarchived)),
        ];
        text.by(m::JOURNAL_ARCHIVED, archived);
    }

    /// Session, proposals, watchers.
    fn life(&self, text: &mut Exposition) {
        let metrics = &self.context.metrics;
        let fenced = !self.context.fence.allows(self.context.clock.now());
        text.one(m::FENCED, f64::from(u8::from(fenced)));
        let keepalives = [
            ("acknowledged", number(&metrics.keepalives_acknowledged)),
            ("failed", number(&metrics.keepalives_failed)),
        ];
        text.by(m::KEEPALIVES, keepalives);
        let proposals = [
            ("done", number(&metrics.proposals_done)),
            ("refused", number(&metrics.proposals_refused)),
            ("failed", number(&metrics.proposals_failed)),
        ];
        text.by(m::PROPOSALS, proposals);
        text.histogram(m::PROPOSAL, &metrics.proposal);
        text.one(m::WATCHERS, metrics.watchers.load(Ordering::Relaxed) as f64);
    }
}

fn number(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn activations(text: &mut Exposition, sum: &ShardCounters) {
    text.one(m::ACCEPTED, number(&sum.accepted));
    text.by(
        m::REJECTED,
        REASONS.into_iter().zip(sum.rejected.iter().map(number)),
    );
    text.one(m::DELIVERED, number(&sum.delivered));
    text.by(
        m::COMPLETED,
        STATUSES.into_iter().zip(sum.completed.iter().map(number)),
    );
    let reasons = WaitReason::ALL.into_iter().map(WaitReason::name);
    text.by(m::DROPPED, reasons.zip(sum.dropped.iter().map(number)));
    text.histogram(m::WAIT, &sum.wait);
    let events = LeadershipEvent::NAMES.into_iter();
    text.by(m::LEADERSHIPS, events.zip(sum.leaderships.iter().map(number)));
}

fn queues(text: &mut Exposition, totals: &Totals) {
    text.one(m::QUEUES_LED, totals.queues as f64);
    text.one(m::QUEUES_THROTTLED, totals.throttled as f64);
    let of = |reason| totals.reasons.get(&reason).copied().unwrap_or_default() as f64;
    text.by(
        m::QUEUES_WAITING,
        WaitReason::ALL.map(|reason| (reason.name(), of(reason))),
    );
    let namespaces = totals.waiting.iter();
    let namespaces = namespaces.map(|(name, waiting)| (vec![name.to_string()], *waiting));
    let namespaces = top(namespaces, |waiting| *waiting, |sum, waiting| *sum += waiting);
    let rows = namespaces
        .into_iter()
        .map(|(names, waiting)| (names, waiting as f64));
    text.rows(m::WAITING, rows);
}

fn containers(text: &mut Exposition, sum: &ShardCounters, totals: &Totals) {
    text.by(
        m::RESERVATIONS,
        [
            ("granted", number(&sum.granted)),
            ("refused", number(&sum.refused)),
        ],
    );
    let failed = CreationError::ALL
        .into_iter()
        .map(CreationError::name)
        .zip(sum.failed.iter().map(number));
    text.by(
        m::CREATIONS,
        [("running", number(&sum.running))].into_iter().chain(failed),
    );
    text.histogram(m::START, &sum.start);
    let used = totals
        .used
        .iter()
        .map(|(key, totals)| (vec![key.namespace.to_string(), key.action.to_string()], *totals));
    let weight = |totals: &QueueTotals| totals.waiting + totals.in_progress + totals.running;
    let used = top(used, weight, |sum, more| {
        sum.waiting += more.waiting;
        sum.in_progress += more.in_progress;
        sum.running += more.running;
    });
    let waiting = used
        .iter()
        .map(|(names, totals)| (names.clone(), totals.waiting as f64));
    text.rows(m::ACTION_WAITING, waiting);
    let rows = used.iter().flat_map(|(names, totals)| {
        let states = [("in-progress", totals.in_progress), ("running", totals.running)];
        states.map(|(state, count)| ([names.as_slice(), &[state.to_owned()]].concat(), count as f64))
    });
    text.rows(m::ACTION_CONTAINERS, rows);
}

fn add_counts(sum: &mut Counts, more: Counts) {
    sum.in_progress = sum.in_progress.saturating_add(more.in_progress);
    sum.running = sum.running.saturating_add(more.running);
    sum.warm = sum.warm.saturating_add(more.warm);
}

fn by_state(counts: Counts) -> [(&'static str, f64); 3] {
    [
        ("in-progress", counts.in_progress.into()),
        ("running", counts.running.into()),
        ("warm", counts.warm.into()),
    ]
}

fn memory(state: &State) -> [(&'static str, f64); 3] {
    let (mut total, mut busy, mut reclaimable) = (0, 0, 0);
    for (_, row) in state.invokers() {
        total += row.profile.memory.as_bytes();
        busy += row.busy.as_bytes();
        reclaimable += row.reclaimable.as_bytes();
    }
    [
        ("total", total as f64),
        ("busy", busy as f64),
        ("reclaimable", reclaimable as f64),
    ]
}

fn sessions(state: &State) -> [(&'static str, f64); 2] {
    let is_scheduler = |owner: &SessionOwner| matches!(owner, SessionOwner::Scheduler(_));
    let schedulers = state
        .sessions()
        .filter(|(_, row)| is_scheduler(&row.owner))
        .count();
    let all = state.sessions().count();
    [
        ("scheduler", schedulers as f64),
        ("invoker", (all - schedulers) as f64),
    ]
}
