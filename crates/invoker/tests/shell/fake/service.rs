//! What a fake scheduler answers by itself.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1::documents_server::Documents;
use whiskraft_proto::v1::invoker_server;
use whiskraft_proto::v1::{self, open_invoker_session_response::Outcome};

use super::{CHANNEL, Said, Service, lock};

impl Service {
    fn lives(&self, hello: &v1::InvokerHello) -> bool {
        let state = lock(&self.state);
        !state.incarnation.is_empty() && hello.session == state.session
    }

    async fn say(&self, said: Said) {
        let _ = self.said.send(said).await;
    }

    async fn read_control(
        self,
        mut frames: Streaming<v1::ControlUp>,
        down: mpsc::Sender<Result<v1::ControlDown, Status>>,
    ) {
        while let Ok(Some(frame)) = frames.message().await {
            if let Some(hello) = frame.hello {
                let cluster = lock(&self.state).cluster;
                if hello.cluster_id != cluster {
                    let theirs = hello.cluster_id;
                    let refused =
                        Status::failed_precondition(format!("this is cluster {cluster}, not {theirs}"));
                    lock(&self.state).hellos_refused += 1;
                    let _ = down.send(Err(refused)).await;
                    return;
                }
                if !self.lives(&hello) {
                    let expired = Some(v1::SessionExpired {});
                    let _ = down
                        .send(Ok(v1::ControlDown {
                            expired,
                            ..Default::default()
                        }))
                        .await;
                    return;
                }
                let welcome = Some(v1::ControlWelcome { scheduler: self.id });
                let _ = down
                    .send(Ok(v1::ControlDown {
                        welcome,
                        ..Default::default()
                    }))
                    .await;
                lock(&self.node).control = Some(down.clone());
                self.say(Said::Hello(hello)).await;
            }
            let (mute_keepalives, mute_reports) = {
                let node = lock(&self.node);
                (node.mute_keepalives, node.mute_reports)
            };
            if let Some(keepalive) = frame.keepalive {
                self.say(Said::Keepalive(keepalive.seq)).await;
                if !mute_keepalives {
                    let keepalive_ack = Some(v1::KeepaliveAck { seq: keepalive.seq });
                    let _ = down
                        .send(Ok(v1::ControlDown {
                            keepalive_ack,
                            ..Default::default()
                        }))
                        .await;
                    let mut state = lock(&self.state);
                    state.acked = state.session;
                }
            }
            if let Some(memory) = frame.memory {
                self.say(Said::Memory(memory)).await;
            }
            let leaves = frame.leaving.is_some();
            for report in frame.reports {
                let report_acks = vec![report.seq];
                self.say(Said::Report(report)).await;
                if !mute_reports {
                    let _ = down
                        .send(Ok(v1::ControlDown {
                            report_acks,
                            ..Default::default()
                        }))
                        .await;
                }
            }
            if leaves {
                self.say(Said::Leaving).await;
                if !lock(&self.node).mute_leaving {
                    lock(&self.state).incarnation = Bytes::new();
                    let expired = Some(v1::SessionExpired {});
                    let _ = down
                        .send(Ok(v1::ControlDown {
                            expired,
                            ..Default::default()
                        }))
                        .await;
                }
            }
        }
    }

    async fn read_pull(
        self,
        mut frames: Streaming<v1::PullUp>,
        down: mpsc::Sender<Result<v1::PullDown, Status>>,
    ) {
        while let Ok(Some(frame)) = frames.message().await {
            if let Some(hello) = frame.hello {
                lock(&self.node).pull = Some(down.clone());
                self.say(Said::Hello(hello)).await;
            }
            let said = (frame.registers.into_iter().map(Said::Register))
                .chain(frame.started.into_iter().map(Said::Started))
                .chain(frame.completed.into_iter().map(Said::Completed))
                .chain(frame.refused.into_iter().map(Said::Refused))
                .chain(frame.withdraw.into_iter().map(Said::Withdraw))
                .chain(frame.credits.into_iter().map(Said::Credit));
            for said in said.collect::<Vec<_>>() {
                self.say(said).await;
            }
        }
    }
}

type Down<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl invoker_server::Invoker for Service {
    async fn open_session(
        &self,
        request: Request<v1::OpenInvokerSessionRequest>,
    ) -> Result<Response<v1::OpenInvokerSessionResponse>, Status> {
        let request = request.into_inner();
        let mut state = lock(&self.state);
        if let Some(kind) = state.refuse.clone() {
            state.sessions_refused += 1;
            let outcome = Some(Outcome::Rejection(v1::Rejection { kind: Some(kind) }));
            return Ok(Response::new(v1::OpenInvokerSessionResponse { outcome }));
        }
        if state.incarnation != request.incarnation {
            state.incarnation = request.incarnation;
            state.session += 1;
        }
        let opened = v1::OpenedSession {
            session: state.session,
            ttl_ms: u32::try_from(state.ttl.as_millis()).unwrap(),
            keepalive_ms: u32::try_from(state.keepalive.as_millis()).unwrap(),
            cluster_id: state.cluster.to_owned(),
            schedulers: state.members.clone(),
        };
        let outcome = Some(Outcome::Opened(opened));
        Ok(Response::new(v1::OpenInvokerSessionResponse { outcome }))
    }

    type ControlStream = Down<v1::ControlDown>;

    async fn control(
        &self,
        request: Request<Streaming<v1::ControlUp>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let reader = tokio::spawn(self.clone().read_control(request.into_inner(), sender));
        lock(&self.node).readers.push(reader.abort_handle());
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    type PullStream = Down<v1::PullDown>;

    async fn pull(
        &self,
        request: Request<Streaming<v1::PullUp>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let reader = tokio::spawn(self.clone().read_pull(request.into_inner(), sender));
        lock(&self.node).readers.push(reader.abort_handle());
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}

#[tonic::async_trait]
impl Documents for Service {
    async fn change_documents(
        &self,
        _: Request<v1::ChangeDocumentsRequest>,
    ) -> Result<Response<v1::ChangeDocumentsResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn get_document(
        &self,
        _: Request<v1::GetDocumentRequest>,
    ) -> Result<Response<v1::GetDocumentResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn list_documents(
        &self,
        _: Request<v1::ListDocumentsRequest>,
    ) -> Result<Response<v1::ListDocumentsResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn put_blob(
        &self,
        _: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    type GetBlobStream = Down<v1::BlobChunk>;

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let mut state = lock(&self.state);
        state.blob_reads += 1;
        let blob = state.blobs.get(request.into_inner().sha256.as_ref()).cloned();
        let blob = blob.ok_or_else(|| Status::not_found("no such blob"))?;
        let chunks = blob.chunks(4).map(|data| {
            Ok(v1::BlobChunk {
                data: Bytes::copy_from_slice(data),
                ..Default::default()
            })
        });
        Ok(Response::new(
            futures::stream::iter(chunks.collect::<Vec<_>>()).boxed(),
        ))
    }

    async fn put_namespace(
        &self,
        _: Request<v1::PutNamespaceRequest>,
    ) -> Result<Response<v1::PutNamespaceResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
}
