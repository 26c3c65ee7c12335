//! The Watch service for a server whose frames are encoded already: one change goes to many watchers, and only the first of them
//! makes the scheduler encode it.
//!
//! Beside the generated server, which encodes each message of each stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

use crate::v1;

/// Path of the service's one method.
const METHOD: &str = "/whiskraft.v1.Watch/Watch";

/// What a server of ready frames has to do.
pub trait ReadyWatch: Send + Sync + 'static {
    /// A stream of encoded [`v1::WatchFrame`]s.
    type Frames: tokio_stream::Stream<Item = Result<Bytes, Status>> + Send + 'static;

    /// Begins a stream.
    ///
    /// # Errors
    /// A status, if the request makes no sense.
    fn watch(&self, request: v1::WatchRequest) -> Result<Self::Frames, Status>;
}

/// The service, for a router.
#[derive(Debug)]
pub struct ReadyWatchServer<T> {
    inner: Arc<T>,
}

impl<T> ReadyWatchServer<T> {
    /// Serves `inner`.
    pub fn new(inner: T) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl<T> Clone for ReadyWatchServer<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T> NamedService for ReadyWatchServer<T> {
    const NAME: &'static str = "whiskraft.v1.Watch";
}

impl<T: ReadyWatch> Service<http::Request<Body>> for ReadyWatchServer<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Begin(Arc::clone(&self.inner));
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("").into_http());
            }
            Ok(Grpc::new(Ready).server_streaming(method, request).await)
        })
    }
}

/// The method.
struct Begin<T>(Arc<T>);

impl<T: ReadyWatch> ServerStreamingService<v1::WatchRequest> for Begin<T> {
    type Response = Bytes;
    type ResponseStream = T::Frames;
    type Future = std::future::Ready<Result<Response<T::Frames>, Status>>;

    fn call(&mut self, request: Request<v1::WatchRequest>) -> Self::Future {
        std::future::ready(self.0.watch(request.into_inner()).map(Response::new))
    }
}

/// Requests are decoded, frames are ready.
#[derive(Debug, Clone, Copy)]
struct Ready;

impl Codec for Ready {
    type Encode = Bytes;
    type Decode = v1::WatchRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Ready {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frame: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(frame);
        Ok(())
    }
}

impl Decoder for Ready {
    type Item = v1::WatchRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<v1::WatchRequest>, Status> {
        let request = v1::WatchRequest::decode(buffer);
        request
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
