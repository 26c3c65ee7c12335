//! An invoker that does what the test tells it to: streams to every scheduler, keepalives by itself, and either a
//! script or the usual answers.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use whiskraft_proto::v1;
use whiskraft_proto::v1::invoker_client::InvokerClient;

use super::{connect, rejection_kind, soon};

const MIB: u64 = 1 << 20;

/// Something a scheduler said.
#[derive(Debug)]
pub enum Said {
    Create(u64, v1::CreateContainer),
    Remove(u64, v1::RemoveContainer),
    Deliver(u64, v1::Deliver),
    CompletedAck(u64, [u8; 16]),
    Reregister(u64, v1::Reregister),
    PullRejected(u64, v1::PullRejected),
    WithdrawAck(u64, v1::ContainerId),
    Stop(u64, v1::StopActivation),
    Expired,
}

struct Link {
    control: mpsc::Sender<v1::ControlUp>,
    pull: mpsc::Sender<v1::PullUp>,
}

pub struct Invoker {
    pub id: u64,
    pub session: u64,
    links: BTreeMap<u64, Link>,
    said: mpsc::Receiver<Said>,
    said_sender: mpsc::Sender<Said>,
    keepalives: JoinHandle<()>,
    seq: u64,
    acked: watch::Sender<u64>,
}

impl Drop for Invoker {
    fn drop(&mut self) {
        self.keepalives.abort();
    }
}

pub fn request(id: u64, incarnation: u8) -> v1::OpenInvokerSessionRequest {
    v1::OpenInvokerSessionRequest {
        invoker: id,
        incarnation: vec![incarnation; 16].into(),
        memory_bytes: 4096 * MIB,
        ..Default::default()
    }
}

impl Invoker {
    /// Opens a session through the first scheduler, as soon as that one may act, and streams to all; healthy at once.
    pub async fn start(id: u64, schedulers: &[(u64, String)]) -> Self {
        use v1::open_invoker_session_response::Outcome;

        let mut client = InvokerClient::new(connect(&schedulers[0].1).await);
        let opening = async {
            loop {
                let answer = client.open_session(request(id, id as u8)).await.unwrap();
                match answer.into_inner().outcome.unwrap() {
                    Outcome::Opened(opened) => return opened,
                    Outcome::Rejection(rejection) => {
                        let kind = rejection_kind(Some(rejection));
                        let is_passing = matches!(kind, v1::rejection::Kind::Unavailable(_));
                        assert!(is_passing, "session refused: {kind:?}");
                    }
                }
            }
        };
        let opened = soon("a session is opened", opening).await;
        let (said_sender, said) = mpsc::channel(1024);
        let mut invoker = Self {
            id,
            session: opened.session,
            links: BTreeMap::new(),
            said,
            said_sender,
            keepalives: tokio::spawn(async {}),
            seq: 0,
            acked: watch::Sender::new(0),
        };
        for (scheduler, address) in schedulers {
            invoker.link(*scheduler, address).await;
        }
        let controls: Vec<_> = invoker.links.values().map(|link| link.control.clone()).collect();
        invoker.keepalives = tokio::spawn(async move {
            let mut interval = tokio::time::interval(Duration::from_millis(200));
            for seq in 1.. {
                interval.tick().await;
                // To all: the test must not care which of them lives.
                for control in &controls {
                    let keepalive = Some(v1::Keepalive { seq });
                    let _ = control.try_send(v1::ControlUp {
                        keepalive,
                        ..Default::default()
                    });
                }
            }
        });
        let memory = v1::MemoryReport {
            total_bytes: 4096 * MIB,
            healthy: true,
            ..Default::default()
        };
        invoker
            .control(
                schedulers[0].0,
                v1::ControlUp {
                    memory: Some(memory),
                    ..Default::default()
                },
            )
            .await;
        invoker
    }

    fn hello(&self) -> Option<v1::InvokerHello> {
        Some(v1::InvokerHello {
            invoker: self.id,
            session: self.session,
            cluster_id: String::new(),
        })
    }

    pub async fn link(&mut self, scheduler: u64, address: &str) {
        let mut client = InvokerClient::new(connect(address).await);
        let (control, receiver) = mpsc::channel(1024);
        control
            .send(v1::ControlUp {
                hello: self.hello(),
                ..Default::default()
            })
            .await
            .unwrap();
        let mut down = client
            .control(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        let welcome = soon("control welcome", down.message()).await.unwrap().unwrap();
        assert_eq!(welcome.welcome.unwrap().scheduler, scheduler);
        let acked = self.acked.clone();
        let said = self.said_sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = down.message().await {
                let creates = frame
                    .create
                    .into_iter()
                    .map(|create| Said::Create(scheduler, create));
                let removes = frame
                    .remove
                    .into_iter()
                    .map(|remove| Said::Remove(scheduler, remove));
                let expired = frame.expired.into_iter().map(|_| Said::Expired);
                acked.send_modify(|count| *count += frame.report_acks.len() as u64);
                for item in creates.chain(removes).chain(expired) {
                    let _ = said.send(item).await;
                }
            }
        });
        self.link_pull(scheduler, &mut client, control).await;
    }

    async fn link_pull(
        &mut self,
        scheduler: u64,
        client: &mut InvokerClient<tonic::transport::Channel>,
        control: mpsc::Sender<v1::ControlUp>,
    ) {
        let (pull, receiver) = mpsc::channel(1024);
        pull.send(v1::PullUp {
            hello: self.hello(),
            ..Default::default()
        })
        .await
        .unwrap();
        let mut down = client
            .pull(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        let welcome = soon("pull welcome", down.message()).await.unwrap().unwrap();
        assert_eq!(welcome.welcome.unwrap().scheduler, scheduler);
        let said = self.said_sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = down.message().await {
                let id = |bytes: bytes::Bytes| <[u8; 16]>::try_from(&bytes[..]).unwrap();
                let mut items: Vec<Said> = Vec::new();
                items.extend(
                    frame
                        .reregister
                        .into_iter()
                        .map(|item| Said::Reregister(scheduler, item)),
                );
                items.extend(
                    frame
                        .deliver
                        .into_iter()
                        .map(|item| Said::Deliver(scheduler, item)),
                );
                items.extend(
                    frame
                        .completed_acks
                        .into_iter()
                        .map(|item| Said::CompletedAck(scheduler, id(item))),
                );
                items.extend(
                    frame
                        .rejected
                        .into_iter()
                        .map(|item| Said::PullRejected(scheduler, item)),
                );
                let stops = frame.stops.into_iter();
                items.extend(stops.map(|item| Said::Stop(scheduler, item)));
                let acks = frame.withdraw_acks.into_iter();
                items.extend(acks.map(|item| Said::WithdrawAck(scheduler, item.container.unwrap())));
                for item in items {
                    let _ = said.send(item).await;
                }
            }
        });
        self.links.insert(scheduler, Link { control, pull });
    }

    pub async fn said(&mut self) -> Said {
        soon("word of a scheduler", self.said.recv()).await.unwrap()
    }

    /// What was said already and not looked at.
    pub fn heard(&mut self) -> Vec<Said> {
        std::iter::from_fn(|| self.said.try_recv().ok()).collect()
    }

    pub async fn control(&self, scheduler: u64, frame: v1::ControlUp) {
        self.links[&scheduler].control.send(frame).await.unwrap();
    }

    pub async fn pull(&self, scheduler: u64, frame: v1::PullUp) {
        self.links[&scheduler].pull.send(frame).await.unwrap();
    }

    pub async fn next_create(&mut self) -> (u64, v1::CreateContainer) {
        loop {
            if let Said::Create(scheduler, create) = self.said().await {
                return (scheduler, create);
            }
        }
    }

    pub async fn next_deliver(&mut self) -> (u64, v1::Deliver) {
        loop {
            if let Said::Deliver(scheduler, deliver) = self.said().await {
                return (scheduler, deliver);
            }
        }
    }

    pub async fn next_reregister(&mut self) -> (u64, v1::Reregister) {
        loop {
            if let Said::Reregister(scheduler, reregister) = self.said().await {
                return (scheduler, reregister);
            }
        }
    }

    pub async fn report(
        &mut self,
        scheduler: u64,
        create: &v1::CreateContainer,
        change: v1::container_report::Change,
    ) {
        self.seq += 1;
        let report = v1::ContainerReport {
            seq: self.seq,
            container: create.container,
            key: create.key.clone(),
            change: Some(change),
        };
        self.control(
            scheduler,
            v1::ControlUp {
                reports: vec![report],
                ..Default::default()
            },
        )
        .await;
    }

    /// Waits until every report so far is acknowledged, which is after it took effect.
    pub async fn all_acked(&self) {
        let mut acked = self.acked.subscribe();
        let all = acked.wait_for(|count| *count >= self.seq);
        soon("acks of all reports", all).await.unwrap();
    }

    /// The container runs and asks for `credits` activations.
    pub async fn run(&mut self, scheduler: u64, create: &v1::CreateContainer, credits: u32) {
        let running = v1::container_report::Change::Running(v1::ContainerRunning {});
        self.report(scheduler, create, running).await;
        let credit = v1::Credit {
            container: create.container,
            key: create.key.clone(),
            epoch: create.epoch,
            count: credits,
            warmed: false,
        };
        self.pull(
            scheduler,
            v1::PullUp {
                credits: vec![credit],
                ..Default::default()
            },
        )
        .await;
    }

    /// Waits for a creation and lets it succeed.
    pub async fn serve_create(&mut self) -> (u64, v1::CreateContainer) {
        let (scheduler, create) = self.next_create().await;
        self.run(scheduler, &create, 1).await;
        (scheduler, create)
    }

    pub async fn started(&self, scheduler: u64, deliver: &v1::Deliver) {
        let started = v1::Started {
            id: deliver.id.clone(),
            container: deliver.container,
            epoch: deliver.epoch,
        };
        self.pull(
            scheduler,
            v1::PullUp {
                started: vec![started],
                ..Default::default()
            },
        )
        .await;
    }

    /// Runs an activation: its result is its payload.
    pub async fn complete(&self, scheduler: u64, key: &v1::QueueKey, deliver: &v1::Deliver, credits: u32) {
        self.complete_with(scheduler, key, deliver, credits, record(self.id, deliver))
            .await;
    }

    /// Runs an activation that fails.
    pub async fn fail(&self, scheduler: u64, key: &v1::QueueKey, deliver: &v1::Deliver, credits: u32) {
        let record = v1::ActivationRecord {
            status: v1::Status::ApplicationError.into(),
            result: r#"{"error":"boom\nTraceback"}"#.into(),
            ..record(self.id, deliver)
        };
        self.complete_with(scheduler, key, deliver, credits, record).await;
    }

    /// Runs an activation that ends like this.
    pub async fn complete_with(
        &self,
        scheduler: u64,
        key: &v1::QueueKey,
        deliver: &v1::Deliver,
        credits: u32,
        record: v1::ActivationRecord,
    ) {
        let completed = v1::Completed {
            run_us: 1000,
            container: deliver.container,
            key: Some(key.clone()),
            epoch: deliver.epoch,
            record: Some(record),
            credits,
        };
        self.pull(
            scheduler,
            v1::PullUp {
                completed: vec![completed],
                ..Default::default()
            },
        )
        .await;
    }
}

pub fn record(invoker: u64, deliver: &v1::Deliver) -> v1::ActivationRecord {
    v1::ActivationRecord {
        id: deliver.id.clone(),
        status: v1::Status::Success.into(),
        result: deliver.payload.clone(),
        start_ms: 1000,
        end_ms: 1010,
        invoker: Some(invoker),
        container: deliver.container,
        run: deliver.run,
        ..Default::default()
    }
}
