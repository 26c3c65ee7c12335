//! etcd: puts, and watches of one key. No message path: it has no queue that hands each activation to one container.
//!
//! The part of its API that is needed, by hand: field numbers are those of `rpc.proto` and `kv.proto` of etcd 3.4.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::durable::{Client, Shape};

/// Keys that puts are spread over, so that the store stays as small as one of metadata is.
const KEYS: u64 = 10_000;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchResponse {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(string, tag = "6")]
    cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(message, optional, tag = "2")]
    kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

/// A client on one connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    channel: Channel,
}

/// Changes of a key.
pub(crate) struct Changes(Streaming<WatchResponse>);

impl Etcd {
    /// Connects to one server.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) async fn connect(server: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true);
        let channel = endpoint
            .connect()
            .await
            .with_context(|| format!("cannot connect to {server}"))?;
        Ok(Self { channel })
    }

    /// Sets a key; it is on the disks of a majority when this returns.
    ///
    /// # Errors
    /// What etcd says.
    pub(crate) async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let mut grpc = Grpc::new(&mut self.channel);
        grpc.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let put = grpc.unary(
            Request::new(PutRequest { key, value }),
            path,
            ProstCodec::<_, PutResponse>::default(),
        );
        put.await.context("cannot put")?;
        Ok(())
    }

    /// Watches a key, on a stream of its own, from when this returns.
    ///
    /// # Errors
    /// What etcd says.
    pub(crate) async fn watch(&mut self, key: &str) -> Result<Changes> {
        let mut grpc = Grpc::new(&mut self.channel);
        grpc.ready().await?;
        let create = WatchRequest {
            create: Some(WatchCreateRequest { key: key.into() }),
        };
        // A request stream that ended would end the watch.
        let requests = futures::stream::once(async { create }).chain(futures::stream::pending());
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let mut changes = grpc
            .streaming(Request::new(requests), path, codec)
            .await
            .context("cannot watch")?
            .into_inner();
        match changes
            .message()
            .await?
            .context("the watch ended before it began")?
        {
            WatchResponse {
                created: true,
                canceled: false,
                ..
            } => Ok(Changes(changes)),
            refused => bail!("the watch was refused: {}", refused.cancel_reason),
        }
    }
}

impl Changes {
    /// Values of the next changes, `None` when the watch has ended.
    ///
    /// # Errors
    /// If the connection fails.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(response) = self.0.message().await? else {
            return Ok(None);
        };
        Ok(Some(
            response
                .events
                .into_iter()
                .filter_map(|event| Some(event.kv?.value))
                .collect(),
        ))
    }
}

impl Client for Etcd {
    async fn connect(shape: &Shape) -> Result<Vec<Self>> {
        let mut connections = Vec::new();
        for n in 0..shape.connections as usize {
            connections.push(Self::connect(&shape.servers[n % shape.servers.len()]).await?);
        }
        Ok((0..shape.clients as usize)
            .map(|n| connections[n % connections.len()].clone())
            .collect())
    }

    async fn publish(&mut self, n: u64, message: Vec<u8>) -> Result<()> {
        self.put(format!("put/{}", n % KEYS).into(), message).await
    }
}
