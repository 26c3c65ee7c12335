//! Puts the role together, serves its listener, and takes it down in order.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::service::Routes;
use whiskraft_proto::transport::{scheduler_incoming, scheduler_server};
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};
use whiskraft_raft::Node;

use crate::balance::BalanceActor;
use crate::cluster::{Cluster, Peers};
use crate::config::{ConfigError, SchedulerConfig};
use crate::context::{Context, Phase};
use crate::control::registry::ControlStreams;
use crate::control::stream::ControlParts;
use crate::creation::{CreationActor, CreationHandle, CreationParts, InProgress};
use crate::deaf::DeafActor;
use crate::drain::{self, DrainActor};
use crate::follower::Follower;
use crate::handoff::HandOver;
use crate::http::with_plain_routes;
use crate::internal::InternalController;
use crate::journal::{JournalActor, JournalHandle};
use crate::knots::Knots;
use crate::letters::Letters;
use crate::message::Request;
use crate::metrics::Scraper;
use crate::neighbours::Neighbours;
use crate::orphans::Orphans;
use crate::profiles::Profiles;
use crate::proposals::ProposalsActor;
use crate::rate::{RateActor, RateHandle};
use crate::reports::ReportsActor;
use crate::schedules::ScheduleActor;
use crate::services::{
    ActivationService, ControllerService, DocumentsService, HandOffService, InvokerService, NeighbourService,
    OperatorService, WatchService,
};
use crate::session::SessionTask;
use crate::shard::{CHANGES_MAX, REQUESTS_MAX, Shard, ShardHandle, ShardParts, ShardsHandle};
use crate::updates::UpdatesActor;

/// Longest time for the session to be closed and streams to end; after it the process goes anyway.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why the role did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The listener cannot be used.
    #[error("client listener cannot be used")]
    Listener(#[source] std::io::Error),
}

/// The running role. Dropping it ends all tasks at once; [`Scheduler::shutdown`] is the graceful way.
#[derive(Debug)]
pub struct Scheduler {
    context: Context,
    incarnation: [u8; 16],
    phase: watch::Sender<Phase>,
    shards: ShardsHandle,
    hand_over: HandOver,
    session: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Scheduler {
    /// Starts the role on a node that serves already, and a listener that is bound already.
    ///
    /// # Errors
    /// If settings contradict each other or the listener cannot be used.
    pub fn start(
        config: SchedulerConfig,
        node: Node,
        client_listener: TcpListener,
    ) -> Result<Self, StartError> {
        config.check()?;
        let listener = listener(client_listener).map_err(StartError::Listener)?;
        let (phase, watched) = watch::channel(Phase::Serving);
        let context = Context::new(config, node, watched);
        let incarnation: [u8; 16] = rand::random();

        let mut tasks = JoinSet::new();
        let streams = ControlStreams::default();
        let (creation, messages) = CreationHandle::channel();
        let profiles = Profiles::default();
        let (rates, asks) = RateActor::channel(context.clone());
        let journal = JournalHandle::new(&context.config.journal);
        let shards = start_shards(
            &mut tasks, &context, &creation, &streams, &profiles, &rates, &journal,
        );
        tasks.spawn(RateActor::new(rates.clone(), shards.clone(), asks).run());
        let (updates_actor, updates) = UpdatesActor::new(context.clone());
        let (reports_actor, reports) = ReportsActor::new(context.clone());
        tasks.spawn(updates_actor.run());
        tasks.spawn(reports_actor.run());
        let in_progress = InProgress::default();
        let creation_parts = CreationParts {
            context: context.clone(),
            messages,
            shards: shards.clone(),
            streams: streams.clone(),
            updates: updates.clone(),
            in_progress: in_progress.clone(),
            suspects: creation.suspects_view(),
            profiles,
            seed: rand::random(),
        };
        tasks.spawn(CreationActor::new(creation_parts).run());
        let hand_over = HandOver::new(context.clone(), shards.clone(), creation.clone());
        let draining = start_moves(&mut tasks, &context, &hand_over);
        let follower = Follower::new(
            context.clone(),
            incarnation,
            shards.clone(),
            streams.clone(),
            creation.clone(),
            draining,
            in_progress,
        );
        tasks.spawn(follower.run());
        let session = tokio::spawn(SessionTask::new(context.clone(), incarnation).run());
        let control = ControlParts {
            context: context.clone(),
            streams,
            creation,
            updates,
            reports,
        };
        tasks.spawn(Orphans::new(context.clone()).run());
        let peers = Peers::new(context.clone());
        let (internal, stream) = InternalController::new(context.clone(), shards.clone(), peers.clone());
        tasks.spawn(stream.run());
        tasks.spawn(ScheduleActor::new(context.clone(), internal.clone()).run());
        let cluster = Cluster::new(context.clone(), shards.clone(), peers);
        let calls = Calls {
            letters: Letters::new(context.clone(), cluster.clone(), internal.clone()),
            cluster,
            internal,
            journal,
        };
        tasks.spawn(serve(
            context.clone(),
            shards.clone(),
            control,
            calls,
            rates,
            hand_over.clone(),
            listener,
        ));
        Ok(Self {
            context,
            incarnation,
            phase,
            shards,
            hand_over,
            session,
            tasks,
        })
    }

    /// What tells the sessions of this process from those of any other.
    #[must_use]
    pub const fn incarnation(&self) -> [u8; 16] {
        self.incarnation
    }

    /// Waits until a task has ended that should not have: the process must not go on without it.
    pub async fn failed(&mut self) {
        // No task ends before shutdown but by a panic, which the runtime has reported.
        if self.session.is_finished() {
            return;
        }
        tokio::select! {
            _ = self.tasks.join_next() => {}
            _ = &mut self.session => {}
        }
    }

    /// Ends the role: hands its queues over, takes no new activation, closes the session so that what is left moves at once,
    /// tells controllers where to go, ends all streams.
    pub async fn shutdown(mut self) {
        self.phase.send_replace(Phase::Leaving);
        tracing::info!("scheduler leaves, its queues go to others");
        let leaving = drain::leave(&self.context, &self.hand_over);
        let wait_max = self.context.config.handoff.leave_wait_max;
        if tokio::time::timeout(wait_max, leaving).await.is_err() {
            tracing::warn!("not all queues were handed over in time");
        }
        self.phase.send_replace(Phase::Draining);
        let drained = async {
            // One that has failed was awaited already.
            if !self.session.is_finished() {
                let _ = (&mut self.session).await;
            }
            // Every shard has dropped its queues, and told whose they are now, before it answers this.
            for shard in 0..self.shards.len() {
                let (answer, answered) = oneshot::channel();
                self.shards.send(shard, Request::Barrier { answer }).await;
                let _ = answered.await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_WAIT_MAX, drained).await.is_err() {
            tracing::warn!("queues not handed over in time, they move when the session ends");
        }
        self.phase.send_replace(Phase::Stopping);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_WAIT_MAX, ended).await.is_err() {
            tracing::warn!("streams did not end in time");
        }
        tracing::info!(scheduler = %self.context.node.id(), "scheduler stopped");
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.session.abort();
        self.phase.send_replace(Phase::Stopping);
    }
}

fn listener(bound: TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    bound.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(bound)
}

/// Starts what moves queues by itself; the sender says whether this member drains.
fn start_moves(tasks: &mut JoinSet<()>, context: &Context, hand_over: &HandOver) -> watch::Sender<bool> {
    let (draining, ordered) = watch::channel(false);
    tasks.spawn(DrainActor::new(context.clone(), hand_over.clone(), ordered).run());
    tasks.spawn(BalanceActor::new(context.clone(), hand_over.clone()).run());
    tasks.spawn(DeafActor::new(context.clone(), hand_over.clone()).run());
    draining
}

fn start_shards(
    tasks: &mut JoinSet<()>,
    context: &Context,
    creation: &CreationHandle,
    streams: &ControlStreams,
    profiles: &Profiles,
    rates: &RateHandle,
    journal: &JournalHandle,
) -> ShardsHandle {
    let meters = context.metrics.meters();
    let mut handles = Vec::with_capacity(meters.len());
    let mut receivers = Vec::with_capacity(meters.len());
    for meter in meters {
        let (requests, requests_receiver) = mpsc::channel(REQUESTS_MAX);
        let (changes, changes_receiver) = mpsc::channel(CHANGES_MAX);
        handles.push(ShardHandle { requests, changes });
        receivers.push((requests_receiver, changes_receiver, meter));
    }
    let shards = ShardsHandle::new(handles);
    let (proposals, waiting) = ProposalsActor::channel();
    tasks.spawn(ProposalsActor::new(context.clone(), shards.clone(), waiting).run());
    let (neighbours_actor, neighbours) = Neighbours::new(context.clone());
    tasks.spawn(neighbours_actor.run());
    let (knots_actor, knots) = Knots::new(context.clone(), shards.clone());
    tasks.spawn(knots_actor.run());
    tasks.spawn(JournalActor::new(context.clone(), shards.clone(), journal.shared()).run());
    let settings = Arc::new(context.config.queue.settings(&context.config.journal));
    for (index, (requests, changes, meter)) in receivers.into_iter().enumerate() {
        let parts = ShardParts {
            context: context.clone(),
            index,
            shards: shards.clone(),
            requests,
            changes,
            meter,
            creation: creation.clone(),
            proposals: proposals.clone(),
            neighbours: neighbours.clone(),
            knots: knots.clone(),
            rates: rates.clone(),
            journal: journal.clone(),
            streams: streams.clone(),
            settings: Arc::clone(&settings),
            profiles: profiles.clone(),
        };
        tasks.spawn(Shard::new(parts).run());
    }
    shards
}

/// What answers calls about single activations.
struct Calls {
    cluster: Cluster,
    letters: Letters,
    internal: InternalController,
    journal: JournalHandle,
}

async fn serve(
    context: Context,
    shards: ShardsHandle,
    control: ControlParts,
    calls: Calls,
    rates: RateHandle,
    hand_over: HandOver,
    listener: tokio::net::TcpListener,
) {
    use whiskraft_proto::activation::activation_service_server::ActivationServiceServer;

    use v1::controller_server::ControllerServer;
    use v1::documents_server::DocumentsServer;
    use v1::hand_off_server::HandOffServer;
    use v1::invoker_server::InvokerServer;
    use v1::neighbour_server::NeighbourServer;
    use v1::operator_server::OperatorServer;

    let creation = control.creation.clone();
    let Calls {
        cluster,
        letters,
        internal,
        journal,
    } = calls;
    let scraper = Scraper::new(
        context.clone(),
        shards.clone(),
        control.streams.clone(),
        creation.clone(),
        journal,
    );
    let neighbour = NeighbourServer::new(NeighbourService::new(cluster.clone(), internal));
    let controller = ControllerService::new(context.clone(), shards.clone(), cluster, letters);
    let controller = ControllerServer::new(controller);
    let invoker = InvokerServer::new(InvokerService::new(control, shards.clone()));
    let documents = DocumentsServer::new(DocumentsService::new(context.clone()));
    let activation = ActivationServiceServer::new(ActivationService::new(context.clone(), shards.clone()));
    let handoff = HandOffServer::new(HandOffService::new(
        context.clone(),
        shards.clone(),
        hand_over.clone(),
    ));
    let stopping = context.clone();
    let services = Routes::new(controller.max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(invoker.max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(activation.max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(neighbour.max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(documents.max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(handoff.max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(WatchService::server(context.clone()))
        .add_service(OperatorServer::new(OperatorService::new(
            context.clone(),
            shards,
            rates,
            creation,
            hand_over,
        )));
    let served = scheduler_server()
        .add_routes(with_plain_routes(services, context, scraper))
        .serve_with_incoming_shutdown(scheduler_incoming(listener), async move {
            stopping.stopping().await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "client listener failed");
    }
}
