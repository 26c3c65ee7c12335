//! What the invoker's actor is told, by links, owner tasks of containers and the session's task.

use tokio::sync::{mpsc, oneshot};
use whiskraft_pool::WorkerId;
use whiskraft_proto::v1;
use whiskraft_types::{SchedulerId, SessionId};

use crate::backend::Instance;
use crate::metrics::Snapshot;
use crate::session::{OpenError, Opened};
use crate::words::Input;

/// Events that wait for the actor; when full, links stop reading (back pressure on schedulers) and owner tasks wait.
pub(crate) const EVENTS_MAX: usize = 4096;

/// One event.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something on the link to a scheduler.
    Link {
        /// The scheduler.
        scheduler: SchedulerId,
        /// Number of the connection; older ones are no more.
        serial: u64,
        /// What.
        event: LinkEvent,
    },
    /// From the owner task of a container.
    Worker(Input),
    /// A container exists; sent just before the pool is told.
    Instance(WorkerId, Instance),
    /// The session's task has an answer.
    Session(Result<Opened, OpenError>),
    /// Somebody wants the numbers of now.
    Look(oneshot::Sender<Snapshot>),
    /// The members of the cluster, asked for because one was unknown or time had passed.
    Members(Vec<v1::SchedulerAddress>),
}

/// Something on a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Both streams are open.
    Up(LinkUp),
    /// A frame on the control stream.
    Control(v1::ControlDown),
    /// A frame on the pull stream.
    Pull(v1::PullDown),
    /// The scheduler says that this session has ended.
    Expired(SessionId),
    /// At the scheduler's address another cluster answers, which does not know this session.
    OtherCluster {
        /// The session announced.
        session: SessionId,
        /// Both clusters, in words.
        reason: String,
    },
    /// The connection has ended.
    Down,
}

/// The sending ends of an open link.
#[derive(Debug)]
pub(crate) struct LinkUp {
    /// Session that was announced on it.
    pub(crate) session: SessionId,
    /// Control stream.
    pub(crate) control: mpsc::Sender<v1::ControlUp>,
    /// Pull stream.
    pub(crate) pull: mpsc::Sender<v1::PullUp>,
}
