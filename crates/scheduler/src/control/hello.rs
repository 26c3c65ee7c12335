//! The first frame of an invoker's stream: who it is, and whether its session lives.

use tonic::Status;
use whiskraft_proto::v1;
use whiskraft_state::SessionOwner;
use whiskraft_types::{ContainerId, InvokerId, SessionId};

use crate::context::Context;

/// An invoker whose session is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) invoker: InvokerId,
    pub(crate) session: SessionId,
}

impl Peer {
    /// Whether a container is on it, in this session, as far as this node knows.
    pub(crate) fn has(self, context: &Context, container: ContainerId) -> bool {
        let on = context.node.read(|state| state.container(container)?.invoker);
        on == Some((self.invoker, self.session))
    }
}

/// What a hello amounts to.
pub(crate) enum Greeting {
    /// Go on.
    Welcome(Peer),
    /// Its session has ended.
    Expired,
}

/// Judges the first frame of a Control or Pull stream.
///
/// # Errors
/// A stream without a proper hello is of no use to anybody, so it ends with a status.
pub(crate) async fn greet(context: &Context, hello: Option<v1::InvokerHello>) -> Result<Greeting, Status> {
    let hello = hello.ok_or_else(|| Status::invalid_argument("the first frame must be a hello"))?;
    check_cluster(context, &hello.cluster_id)?;
    let peer = Peer {
        invoker: InvokerId(hello.invoker),
        session: SessionId(hello.session),
    };
    if is_alive(context, peer) {
        return Ok(Greeting::Welcome(peer));
    }
    // The session may have been opened through another scheduler a moment ago: catch up before judging.
    let caught_up = context.node.read_index().await;
    caught_up.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(if is_alive(context, peer) {
        Greeting::Welcome(peer)
    } else {
        Greeting::Expired
    })
}

/// Refuses a peer of another cluster: wrong addresses happen.
///
/// # Errors
/// Names both clusters.
pub(crate) fn check_cluster(context: &Context, theirs: &str) -> Result<(), Status> {
    let ours = context.node.cluster_id();
    if theirs.is_empty() || theirs == ours {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "this is cluster {ours}, not {theirs}; check the addresses"
    )))
}

fn is_alive(context: &Context, peer: Peer) -> bool {
    context.node.read(|state| {
        state
            .session(peer.session)
            .is_some_and(|row| matches!(&row.owner, SessionOwner::Invoker { id, .. } if *id == peer.invoker))
    })
}
