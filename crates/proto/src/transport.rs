//! Settings of the connections between controllers, invokers and schedulers. Each is here once, so that what measures the wire
//! alone measures the same wire.

use std::io;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_stream::{Stream, StreamExt};
use tonic::codegen::http::Uri;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tower::{Service, ServiceExt};

pub use crate::gathered::Gathered;

/// Flow control windows of HTTP/2: a stream carries many activations, a connection a few streams.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Pings on idle connections find peers that have vanished without a word.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_WAIT_MAX: Duration = Duration::from_secs(4);

/// How whoever connects notices that the other end is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Pause between two pings.
    pub ping_interval: Duration,
    /// Longest wait for the answer to a ping.
    pub ping_wait: Duration,
}

/// A scheduler's server for controllers and invokers.
#[must_use]
pub fn scheduler_server() -> Server {
    Server::builder()
        // Each connection says first which of the two it speaks; its calls are not asked again.
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_WAIT_MAX))
}

/// What such a server accepts connections from.
pub fn scheduler_incoming(
    listener: impl Into<TcpIncoming>,
) -> impl Stream<Item = io::Result<Gathered<TcpStream>>> {
    let accepted = listener.into().with_nodelay(Some(true));
    accepted.map(|connection| connection.map(Gathered::new))
}

/// A controller's connection to a scheduler.
#[must_use]
pub fn controller_endpoint(address: Endpoint, patience: Patience) -> Endpoint {
    watched(address, patience)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// An invoker's connection to a scheduler.
#[must_use]
pub fn invoker_endpoint(address: Endpoint, patience: Patience) -> Endpoint {
    watched(address, patience)
}

/// Connects, and lets what is ready be written together. Head and body of a call are: by itself HTTP/2 writes one after the other.
///
/// # Errors
/// Why there is no connection.
pub async fn connect(endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
    let (endpoint, connector) = connector(endpoint);
    endpoint.connect_with_connector(connector).await
}

/// The same when the connection is first needed, and again whenever it is lost.
#[must_use]
pub fn connect_lazily(endpoint: &Endpoint) -> Channel {
    let (endpoint, connector) = connector(endpoint);
    endpoint.connect_with_connector_lazy(connector)
}

/// What tonic uses by itself, around which a connection is gathered. The time for a connection is the connector's, which shares it
/// among the addresses of a name; tonic would cut off all of them together.
fn connector(
    endpoint: &Endpoint,
) -> (
    Endpoint,
    impl Service<
        Uri,
        Response = TokioIo<Gathered<TcpStream>>,
        Error = impl std::error::Error + Send + Sync + 'static,
        Future = impl Send,
    > + Send
    + 'static,
) {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(endpoint.get_connect_timeout());
    let connector = connector.map_response(|connection| TokioIo::new(Gathered::new(connection.into_inner())));
    (endpoint.clone().connect_timeout(Duration::MAX), connector)
}

fn watched(address: Endpoint, patience: Patience) -> Endpoint {
    address
        .connect_timeout(patience.connect)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(patience.ping_interval)
        .keep_alive_timeout(patience.ping_wait)
        .keep_alive_while_idle(true)
}
