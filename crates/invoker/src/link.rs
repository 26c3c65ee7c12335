//! The link to one scheduler: a Control and a Pull stream, opened again with back-off for as long as the task lives.
//!
//! One task per scheduler; it moves frames to the actor in order and decides nothing. Each stream has a connection
//! of its own, so that large results do not hold up keepalives.

use tokio::sync::{mpsc, watch};
use tonic::{Code, Streaming};
use whiskraft_proto::v1::invoker_client::InvokerClient;
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};
use whiskraft_types::{InvokerId, SchedulerId, SessionId};

use crate::backoff::Backoff;
use crate::config::LinkConfig;
use crate::event::{Event, LinkEvent, LinkUp};
use crate::frames::Merged;
use crate::session::connect_streams;

/// Frames that wait for the control stream. A link that cannot take more is cut; what it lost is said again when it
/// is open (memory and reports) or does not matter any more (keepalives).
const CONTROL_MAX: usize = 256;
/// The same for the pull stream, where opening begins with a registration of everything.
const PULL_MAX: usize = 4096;

/// The session that links announce; `None` while there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) session: SessionId,
    pub(crate) cluster_id: String,
}

/// What a link's task needs.
pub(crate) struct LinkTask {
    pub(crate) invoker: InvokerId,
    pub(crate) scheduler: SchedulerId,
    pub(crate) address: String,
    pub(crate) config: LinkConfig,
    pub(crate) session: watch::Receiver<Option<Announced>>,
    pub(crate) events: mpsc::Sender<Event>,
    /// Numbers of connections, never used twice for one scheduler.
    pub(crate) serial: u64,
}

struct Streams {
    /// The welcome, and whatever came with it.
    first: v1::ControlDown,
    control: Streaming<v1::ControlDown>,
    pull: Streaming<v1::PullDown>,
    up: LinkUp,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("connection failed: {0:?}")]
    Connect(#[from] tonic::transport::Error),
    #[error("call failed: {0}")]
    Call(#[from] tonic::Status),
    #[error("the session has ended")]
    Expired,
    #[error("the scheduler closed the control stream")]
    Closed,
    #[error("no streams within {0:?}")]
    Timeout(std::time::Duration),
}

impl LinkTask {
    /// Runs until the actor ends it or is gone.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(&self.config);
        loop {
            let Ok(announced) = self
                .session
                .wait_for(Option::is_some)
                .await
                .map(|session| session.clone())
            else {
                return;
            };
            let Some(announced) = announced else { continue };
            match self.open(&announced).await {
                Ok(streams) => {
                    backoff.reset();
                    tracing::info!(scheduler = %self.scheduler, address = self.address, "link open");
                    self.serial += 1;
                    let reason = self.serve(streams, &announced).await;
                    tracing::info!(scheduler = %self.scheduler, reason, "link closed");
                    if self.tell(LinkEvent::Down).await.is_err() {
                        return;
                    }
                }
                Err(LinkError::Expired) => {
                    let session = announced.session;
                    if self.tell(LinkEvent::Expired(session)).await.is_err() {
                        return;
                    }
                }
                Err(LinkError::Call(status)) if status.code() == Code::FailedPrecondition => {
                    let (session, reason) = (announced.session, status.message().to_owned());
                    let event = LinkEvent::OtherCluster { session, reason };
                    if self.tell(event).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::debug!(scheduler = %self.scheduler, %error, "link not open"),
            }
            backoff.wait().await;
        }
    }

    async fn open(&self, announced: &Announced) -> Result<Streams, LinkError> {
        let limit = self.config.connect_timeout * 2;
        let opening = self.open_streams(announced);
        tokio::time::timeout(limit, opening)
            .await
            .map_err(|_| LinkError::Timeout(limit))?
    }

    async fn open_streams(&self, announced: &Announced) -> Result<Streams, LinkError> {
        let hello = v1::InvokerHello {
            invoker: self.invoker.0,
            session: announced.session.0,
            cluster_id: announced.cluster_id.clone(),
        };
        let (control_sender, control_frames) = mpsc::channel(CONTROL_MAX);
        let (pull_sender, pull_frames) = mpsc::channel(PULL_MAX);
        // The first frames, before anybody else can send one.
        let _ = control_sender.try_send(v1::ControlUp {
            hello: Some(hello.clone()),
            ..Default::default()
        });
        let _ = pull_sender.try_send(v1::PullUp {
            hello: Some(hello),
            ..Default::default()
        });
        let mut control = self.client().await?;
        let mut pull = self.client().await?;
        let mut control = control.control(Merged::new(control_frames)).await?.into_inner();
        // Only this stream can say that the session has ended, so it is heard before the other one is opened.
        let first = control.message().await?.ok_or(LinkError::Closed)?;
        if first.expired.is_some() {
            return Err(LinkError::Expired);
        }
        let pull = pull.pull(Merged::new(pull_frames)).await?.into_inner();
        let up = LinkUp {
            session: announced.session,
            control: control_sender,
            pull: pull_sender,
        };
        Ok(Streams {
            first,
            control,
            pull,
            up,
        })
    }

    async fn client(&self) -> Result<InvokerClient<tonic::transport::Channel>, LinkError> {
        let channel = connect_streams(&self.address, &self.config).await?;
        Ok(InvokerClient::new(channel)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX))
    }

    /// Moves frames until a stream ends or the session changes; why it stopped.
    async fn serve(&mut self, streams: Streams, announced: &Announced) -> String {
        let Streams {
            first,
            mut control,
            mut pull,
            up,
        } = streams;
        for event in [LinkEvent::Up(up), LinkEvent::Control(first)] {
            if self.tell(event).await.is_err() {
                return "the invoker stops".to_owned();
            }
        }
        let mut session = self.session.clone();
        loop {
            let event = tokio::select! {
                biased;
                _ = session.wait_for(|now| now.as_ref() != Some(announced)) => {
                    return "the session has ended".to_owned();
                }
                frame = control.message() => match frame {
                    Ok(Some(frame)) => LinkEvent::Control(frame),
                    Ok(None) => return "the scheduler closed the control stream".to_owned(),
                    Err(status) => return format!("control stream: {status}"),
                },
                frame = pull.message() => match frame {
                    Ok(Some(frame)) => LinkEvent::Pull(frame),
                    Ok(None) => return "the scheduler closed the pull stream".to_owned(),
                    Err(status) => return format!("pull stream: {status}"),
                },
            };
            if self.tell(event).await.is_err() {
                return "the invoker stops".to_owned();
            }
        }
    }

    async fn tell(&self, event: LinkEvent) -> Result<(), mpsc::error::SendError<Event>> {
        let (scheduler, serial) = (self.scheduler, self.serial);
        self.events
            .send(Event::Link {
                scheduler,
                serial,
                event,
            })
            .await
    }
}
