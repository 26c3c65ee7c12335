//! Opening the invoker's session at any scheduler that answers.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use whiskraft_proto::transport::{self, Patience, invoker_endpoint};
use whiskraft_proto::v1::invoker_client::InvokerClient;
use whiskraft_proto::v1::open_invoker_session_response::Outcome;
use whiskraft_proto::{InvalidMessage, v1};
use whiskraft_types::{InvokerId, Rejection, SessionId};

use crate::backoff::Backoff;
use crate::clock;
use crate::config::{InvokerConfig, LinkConfig};

/// Failed rounds over all addresses between two warnings.
const ROUNDS_PER_WARNING: u64 = 10;

/// An open session.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) ttl: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) cluster_id: String,
    pub(crate) schedulers: Vec<v1::SchedulerAddress>,
}

/// Why no session can be opened, however often it is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process has this invoker's id.
    #[error(
        "invoker id {0} is held by another live process; stop that one or start this one with another id"
    )]
    Held(InvokerId),
    /// The schedulers will never accept this invoker.
    #[error("schedulers refuse invoker {invoker}: {reason}")]
    Refused {
        /// The invoker.
        invoker: InvokerId,
        /// What they say.
        reason: String,
    },
}

/// What the request says about this process; the same for every try.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub(crate) request: v1::OpenInvokerSessionRequest,
    pub(crate) link: LinkConfig,
    pub(crate) held_grace: Duration,
}

impl Opener {
    pub(crate) fn new(config: &InvokerConfig, incarnation: [u8; 16], kinds: Vec<String>) -> Self {
        let request = v1::OpenInvokerSessionRequest {
            invoker: config.id.0,
            incarnation: incarnation.to_vec().into(),
            memory_bytes: config.pool.memory.as_bytes(),
            tags: config.tags.clone(),
            dedicated_namespaces: config.dedicated_namespaces.clone(),
            kinds,
            zone: config.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Self {
            request,
            link: config.link.clone(),
            held_grace: config.held_grace,
        }
    }

    /// Tries the addresses in turn until one opens the session, or none ever will.
    pub(crate) async fn open(&self, addresses: &[String]) -> Result<Opened, OpenError> {
        let mut backoff = Backoff::new(&self.link);
        let give_up_at = clock::now() + self.held_grace;
        let mut tries: u64 = 0;
        loop {
            let at = (clock::below(addresses.len()) + tries as usize) % addresses.len().max(1);
            let address = addresses.get(at).map(String::as_str).unwrap_or_default();
            tries += 1;
            match self.open_at(address).await {
                Ok(opened) => return Ok(opened),
                Err(TryError::Rejected(Rejection::Conflict)) if clock::now() >= give_up_at => {
                    return Err(OpenError::Held(InvokerId(self.request.invoker)));
                }
                Err(TryError::Rejected(Rejection::Conflict)) => {
                    if tries == 1 {
                        let invoker = self.request.invoker;
                        tracing::warn!(
                            invoker,
                            "another process holds this id; waiting for its session to end"
                        );
                    }
                }
                Err(TryError::Rejected(Rejection::Invalid { reason })) => {
                    return Err(OpenError::Refused {
                        invoker: InvokerId(self.request.invoker),
                        reason,
                    });
                }
                Err(error) if tries % (ROUNDS_PER_WARNING * addresses.len().max(1) as u64) == 1 => {
                    tracing::warn!(address, %error, "no session yet, trying on");
                }
                Err(error) => tracing::debug!(address, %error, "no session yet, trying on"),
            }
            backoff.wait().await;
        }
    }

    /// One try at one address; also the way to learn the members, since it finds an open session again.
    pub(crate) async fn open_at(&self, address: &str) -> Result<Opened, TryError> {
        let channel = connect(address, &self.link).await?;
        let response = InvokerClient::new(channel)
            .open_session(self.request.clone())
            .await?
            .into_inner();
        match response.outcome {
            Some(Outcome::Opened(opened)) => Ok(Opened {
                session: SessionId(opened.session),
                ttl: Duration::from_millis(opened.ttl_ms.into()),
                keepalive: Duration::from_millis(opened.keepalive_ms.max(1).into()),
                cluster_id: opened.cluster_id,
                schedulers: opened.schedulers,
            }),
            Some(Outcome::Rejection(rejection)) => Err(TryError::Rejected(rejection.try_into()?)),
            None => Err(TryError::Invalid(InvalidMessage::Missing { field: "outcome" })),
        }
    }
}

/// Why one try failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TryError {
    #[error("connection failed: {0:?}")]
    Connect(#[from] tonic::transport::Error),
    #[error("call failed: {0}")]
    Call(#[from] tonic::Status),
    #[error("refused: {0}")]
    Rejected(Rejection),
    #[error("the answer cannot be understood: {0}")]
    Invalid(#[from] InvalidMessage),
}

/// A connection whose peer is noticed to be silent within ping pause plus ping timeout. Calls on it have no time
/// limit of their own, since streams live long.
pub(crate) async fn connect_streams(
    address: &str,
    link: &LinkConfig,
) -> Result<Channel, tonic::transport::Error> {
    transport::connect(&endpoint(address, link)?).await
}

/// A connection for calls, each of which ends within the connect timeout.
pub(crate) async fn connect(address: &str, link: &LinkConfig) -> Result<Channel, tonic::transport::Error> {
    // Opening goes through the log, which may be electing a leader: give it twice the time of a connect.
    let endpoint = endpoint(address, link)?.timeout(link.connect_timeout * 2);
    transport::connect(&endpoint).await
}

fn endpoint(address: &str, link: &LinkConfig) -> Result<Endpoint, tonic::transport::Error> {
    let patience = Patience {
        connect: link.connect_timeout,
        ping_interval: link.ping_interval,
        ping_wait: link.ping_timeout,
    };
    let address = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(invoker_endpoint(address, patience))
}
