//! Follows the replicated tables and passes their changes on, in log order: to every shard, to the Control streams of
//! invokers whose session ended, and to the creation actor.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use whiskraft_queue::Observation;
use whiskraft_raft::{Batch, StreamEnd};
use whiskraft_state::{ContainerState, Event, MemberRecord, SessionOwner, SessionRecord, State};
use whiskraft_types::{ContainerId, SessionId};

use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::{CreationHandle, InProgress};
use crate::shard::{ShardsHandle, TableChanges};

/// The follower.
pub(crate) struct Follower {
    context: Context,
    incarnation: [u8; 16],
    shards: ShardsHandle,
    streams: ControlStreams,
    creation: CreationHandle,
    /// Whether this member's record says that it is draining.
    draining: watch::Sender<bool>,
    in_progress: InProgress,
    /// Live sessions of this very process; one of an earlier process does not make us a leader.
    own: Arc<BTreeSet<SessionId>>,
    /// Sessions of this process, ended ones included: whose containers the creation actor knows.
    reserved: BTreeSet<SessionId>,
}

impl Follower {
    pub(crate) fn new(
        context: Context,
        incarnation: [u8; 16],
        shards: ShardsHandle,
        streams: ControlStreams,
        creation: CreationHandle,
        draining: watch::Sender<bool>,
        in_progress: InProgress,
    ) -> Self {
        Self {
            context,
            incarnation,
            shards,
            streams,
            creation,
            draining,
            in_progress,
            own: Arc::default(),
            reserved: BTreeSet::new(),
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            let (state, mut events) = self.context.node.subscribe();
            self.reset(&state).await;
            loop {
                match events.next().await {
                    Ok(batch) => self.on_batch(batch).await,
                    Err(StreamEnd::Lagged) => {
                        break tracing::warn!("fell behind the log, starts anew from the tables");
                    }
                    Err(StreamEnd::Stopped) => return,
                }
            }
        }
    }

    async fn reset(&mut self, state: &State) {
        let own: BTreeSet<_> = state
            .sessions()
            .filter(|(_, row)| self.is_own(row))
            .map(|(id, _)| id)
            .collect();
        self.reserved.extend(&own);
        self.own = Arc::new(own);
        self.streams
            .expire_all(|session| state.session(session).is_none());
        self.streams.announce_members();
        self.on_member(state.member(self.context.node.id()));
        self.in_progress.reset(self.context.clock.now(), state);
        for shard in 0..self.shards.len() {
            let own = Arc::clone(&self.own);
            self.shards
                .change(
                    shard,
                    TableChanges::Reset {
                        state: state.clone(),
                        own,
                    },
                )
                .await;
        }
    }

    fn on_member(&self, record: Option<&MemberRecord>) {
        let draining = record.is_some_and(|record| record.draining);
        self.draining
            .send_if_modified(|before| std::mem::replace(before, draining) != draining);
    }

    fn is_own(&self, row: &SessionRecord) -> bool {
        row.owner == SessionOwner::Scheduler(self.context.node.id()) && row.incarnation == self.incarnation
    }

    async fn on_batch(&mut self, batch: Arc<Batch>) {
        self.in_progress.follow(self.context.clock.now(), &batch.events);
        let mut ended = BTreeSet::new();
        let mut observed = Vec::new();
        let mut members_changed = false;
        let (mut gone, mut running): (Vec<ContainerId>, Vec<ContainerId>) = Default::default();
        for event in &batch.events {
            match event {
                Event::Session(id, Some(row)) if self.is_own(row) => {
                    Arc::make_mut(&mut self.own).insert(*id);
                    self.reserved.insert(*id);
                }
                Event::Session(_, Some(row)) => observed.extend(match &row.owner {
                    SessionOwner::Invoker { id, .. } => Some((*id, Observation::Opened)),
                    SessionOwner::Scheduler(_) => None,
                }),
                Event::Invoker(id, None) => observed.push((*id, Observation::Ended)),
                Event::Session(id, None) => {
                    ended.insert(*id);
                    Arc::make_mut(&mut self.own).remove(id);
                    self.streams.expire(*id);
                }
                Event::Container {
                    id, record, removed, ..
                } if self.reserved.contains(&id.session) => match record.state {
                    _ if *removed => gone.push(*id),
                    ContainerState::InProgress => {}
                    ContainerState::Ended => gone.push(*id),
                    ContainerState::Running | ContainerState::Warm => running.push(*id),
                },
                Event::Member(id, record) => {
                    members_changed = true;
                    if *id == self.context.node.id() {
                        self.on_member(record.as_ref());
                    }
                }
                _ => {}
            }
        }
        self.creation.observed(observed);
        if members_changed {
            self.streams.announce_members();
        }
        let ended = Arc::new(ended);
        for shard in 0..self.shards.len() {
            let (batch, ended, own) = (Arc::clone(&batch), Arc::clone(&ended), Arc::clone(&self.own));
            self.shards
                .change(shard, TableChanges::Batch { batch, ended, own })
                .await;
        }
        // Its invoker may have told another scheduler.
        for container in running {
            self.creation.succeeded(container).await;
        }
        if !gone.is_empty() {
            self.creation.gone(gone).await;
        }
    }
}
