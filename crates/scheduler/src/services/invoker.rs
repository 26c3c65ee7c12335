//! Invoker service: sessions, Control and Pull streams.

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::identity;
use whiskraft_proto::v1::{self, invoker_server::Invoker};
use whiskraft_state::{Command, InvokerProfile, OpenSession, Response as Answer, SessionOwner};
use whiskraft_types::{ByteSize, InvokerId, NameError, Rejection};

use crate::control::hello::{Greeting, greet};
use crate::control::stream::{ControlParts, ControlStream};
use crate::pull::PullStream;
use crate::shard::ShardsHandle;
use crate::wire;

/// Frames under way per stream.
const FRAMES_MAX: usize = 4;
/// Tags, kinds and dedicated namespaces an invoker may have of each: all of them are in every scheduler's memory.
const WORDS_MAX: usize = 64;

/// Implements the service; one per process.
#[derive(Clone)]
pub(crate) struct InvokerService {
    parts: ControlParts,
    shards: ShardsHandle,
}

impl InvokerService {
    pub(crate) const fn new(parts: ControlParts, shards: ShardsHandle) -> Self {
        Self { parts, shards }
    }

    async fn open(&self, request: v1::OpenInvokerSessionRequest) -> Result<v1::OpenedSession, Rejection> {
        let open = self.check(request)?;
        self.parts.context.available().await?;
        let proposed = self.parts.context.propose(Command::OpenSession(open)).await;
        let (revision, answer) = proposed.map_err(|error| wire::propose_error(&error))?;
        let session = match answer {
            Answer::Session(session) => session,
            Answer::Refused(refusal) => return Err(wire::refusal(refusal)),
            _ => return Err(wire::unexpected("OpenSession")),
        };
        let context = &self.parts.context;
        let _ = context.node.wait_applied(revision).await;
        let millis = |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        Ok(v1::OpenedSession {
            session: session.0,
            ttl_ms: millis(context.config.session.ttl),
            keepalive_ms: millis(context.config.session.keepalive),
            cluster_id: context.node.cluster_id().to_owned(),
            schedulers: context.scheduler_addresses(),
        })
    }

    fn check(&self, request: v1::OpenInvokerSessionRequest) -> Result<OpenSession, Rejection> {
        let invalid = |reason: String| Rejection::Invalid { reason };
        let incarnation =
            identity(&request.incarnation, "incarnation").map_err(|error| invalid(error.to_string()))?;
        for (field, len) in [
            ("tags", request.tags.len()),
            ("dedicated_namespaces", request.dedicated_namespaces.len()),
            ("kinds", request.kinds.len()),
        ] {
            if len > WORDS_MAX {
                return Err(invalid(format!("{field}: {len} entries, at most {WORDS_MAX}")));
            }
        }
        let dedicated = request.dedicated_namespaces.iter().map(|name| name.parse());
        let dedicated = dedicated
            .collect::<Result<_, NameError>>()
            .map_err(|error| invalid(error.to_string()))?;
        let profile = InvokerProfile {
            memory: ByteSize::bytes(request.memory_bytes),
            tags: request.tags,
            dedicated,
            kinds: request.kinds,
            zone: request.zone,
            version: request.version,
        };
        let owner = SessionOwner::Invoker {
            id: InvokerId(request.invoker),
            profile,
        };
        Ok(OpenSession {
            owner,
            incarnation,
            ttl: self.parts.context.config.session.ttl,
        })
    }
}

#[tonic::async_trait]
impl Invoker for InvokerService {
    async fn open_session(
        &self,
        request: Request<v1::OpenInvokerSessionRequest>,
    ) -> Result<Response<v1::OpenInvokerSessionResponse>, Status> {
        use v1::open_invoker_session_response::Outcome;

        let outcome = match self.open(request.into_inner()).await {
            Ok(opened) => Outcome::Opened(opened),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::OpenInvokerSessionResponse {
            outcome: Some(outcome),
        }))
    }

    type ControlStream = BoxStream<'static, Result<v1::ControlDown, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<v1::ControlUp>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let mut incoming = request.into_inner();
        let (frames, receiver) = mpsc::channel(FRAMES_MAX);
        let parts = self.parts.clone();
        tokio::spawn(async move {
            let context = parts.context.clone();
            let opened = tokio::select! {
                () = context.stopping() => return,
                first = incoming.message() => first,
            };
            let Ok(Some(mut first)) = opened else { return };
            match greet(&context, first.hello.take()).await {
                Ok(Greeting::Welcome(peer)) => {
                    ControlStream::new(parts, peer, frames).run(incoming, first).await
                }
                Ok(Greeting::Expired) => {
                    let expired = Some(v1::SessionExpired {});
                    let _ = frames
                        .send(Ok(v1::ControlDown {
                            expired,
                            ..Default::default()
                        }))
                        .await;
                }
                Err(status) => drop(frames.send(Err(status)).await),
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    type PullStream = BoxStream<'static, Result<v1::PullDown, Status>>;

    async fn pull(
        &self,
        request: Request<Streaming<v1::PullUp>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let mut incoming = request.into_inner();
        let (frames, receiver) = mpsc::channel(FRAMES_MAX);
        let (context, shards) = (self.parts.context.clone(), self.shards.clone());
        tokio::spawn(async move {
            let opened = tokio::select! {
                () = context.stopping() => return,
                first = incoming.message() => first,
            };
            let Ok(Some(mut first)) = opened else { return };
            match greet(&context, first.hello.take()).await {
                Ok(Greeting::Welcome(peer)) => {
                    PullStream::new(context, shards, peer, frames)
                        .run(first, incoming)
                        .await
                }
                // The Control stream says so; this one has no frame for it.
                Ok(Greeting::Expired) => drop(
                    frames
                        .send(Err(Status::unauthenticated("the session has ended")))
                        .await,
                ),
                Err(status) => drop(frames.send(Err(status)).await),
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}
