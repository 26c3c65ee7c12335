//! The invoker as its owner sees it: start, stop, wait.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::actor::{Actor, Phase};
use crate::backend::Backend;
use crate::clock;
use crate::code::CodeCache;
use crate::config::InvokerConfig;
use crate::event::{EVENTS_MAX, Event};
use crate::http::Http;
use crate::metrics::Metrics;
use crate::outgoing::Outgoing;
use crate::run::Right;
use crate::session::{OpenError, Opener};
use crate::words::Pool;
use crate::worker::Host;

/// Why an invoker does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error("setting {setting}: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong and what to write instead.
        reason: String,
    },
    /// The address for metrics cannot be listened on.
    #[error("cannot listen on {address} for metrics: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// No session can be had.
    #[error(transparent)]
    Session(#[from] OpenError),
}

/// Why an invoker has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It was told to.
    Shutdown,
    /// Its session ended and it gets no new one.
    NoSession(OpenError),
    /// Its task died of a bug; the log says where.
    Crashed,
}

/// A running invoker. Dropping it shuts it down without anybody waiting for that.
#[derive(Debug)]
pub struct Invoker {
    shutdown: Option<oneshot::Sender<()>>,
    stopped: watch::Receiver<Option<StopReason>>,
    _task: JoinHandle<()>,
    http: Option<Http>,
}

impl Invoker {
    /// Opens a session, trying until a scheduler answers, and begins to serve.
    ///
    /// # Errors
    /// [`StartError`] for settings that make no sense, an id that another process holds, or schedulers that will
    /// never accept this invoker.
    pub async fn start(config: InvokerConfig, backend: Arc<dyn Backend>) -> Result<Self, StartError> {
        check(&config)?;
        let capabilities = backend.capabilities();
        let opener = Arc::new(Opener::new(&config, clock::incarnation(), capabilities.kinds));
        let (events_sender, events) = mpsc::channel(EVENTS_MAX);
        let metrics = Arc::new(Metrics::new().expect("names and labels are constants that a test tries"));
        let http = serve_http(&config, &events_sender, &metrics).await?;
        let opened = opener.open(&config.schedulers).await?;

        let (addresses, known_addresses) = watch::channel(config.schedulers.clone());
        let (shutdown, shutdown_asked) = oneshot::channel();
        let (stopped_sender, stopped) = watch::channel(None);
        let (right_sender, right) = watch::channel(Right::default());
        let host = Host {
            invoker: config.id,
            code: CodeCache::new(config.code_cache, known_addresses, config.link.clone()),
            api_host: config.api_host.clone(),
            events: events_sender,
            metrics,
            right,
            backend: Arc::clone(&backend),
        };
        let now = clock::now();
        let actor = Actor {
            pool: Pool::new((&config.pool).into()),
            host: Arc::new(host),
            opener,
            events,
            deaths: backend.take_events(),
            shutdown: shutdown_asked,
            addresses,
            announced: watch::Sender::new(None),
            right: right_sender,
            keepalives: None,
            links: Default::default(),
            workers: Default::default(),
            by_instance: Default::default(),
            early_deaths: Default::default(),
            outputs: Vec::new(),
            outgoing: Outgoing::default(),
            refresh_at: now + clock::jittered(config.members_refresh),
            refreshing: false,
            repeat_at: now + config.report_repeat,
            phase: Phase::Serving,
            reported: 0,
            session_task: None,
            next_serial: 0,
            config,
        };
        let actor_task = tokio::spawn(actor.run(opened));
        let task = tokio::spawn(async move {
            let reason = actor_task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "invoker task died");
                StopReason::Crashed
            });
            stopped_sender.send_replace(Some(reason));
        });
        Ok(Self {
            shutdown: Some(shutdown),
            stopped,
            _task: task,
            http,
        })
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// Shuts down in good order: asks for nothing more, refuses what is not started, waits up to the configured grace
    /// for what runs, removes all containers, and leaves.
    pub async fn shutdown(mut self) -> StopReason {
        if let Some(shutdown) = self.shutdown.take() {
            // Fails only if it has stopped already.
            let _ = shutdown.send(());
        }
        self.stopped().await
    }

    /// Waits until the invoker has stopped, for whatever reason.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.clone();
        let reason = stopped
            .wait_for(Option::is_some)
            .await
            .map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or(StopReason::Crashed)
    }
}

/// Before the session: a wrong address must not cost the cluster one.
async fn serve_http(
    config: &InvokerConfig,
    events: &mpsc::Sender<Event>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Http>, StartError> {
    let Some(address) = &config.metrics_listen else {
        return Ok(None);
    };
    let http = Http::start(address, events.clone(), Arc::clone(metrics)).await;
    http.map(Some).map_err(|error| StartError::Listen {
        address: address.clone(),
        reason: error.to_string(),
    })
}

fn check(config: &InvokerConfig) -> Result<(), StartError> {
    let wrong = |setting, reason: &str| {
        Err(StartError::Setting {
            setting,
            reason: reason.to_owned(),
        })
    };
    if config.schedulers.is_empty() {
        return wrong(
            "invoker.schedulers",
            "empty; name the client address of at least one scheduler",
        );
    }
    if config.pool.memory.as_bytes() == 0 {
        return wrong("invoker.pool.memory", "0; no container would ever fit");
    }
    if config.pool.results_len_max == 0 || config.pool.results_bytes_max.as_bytes() == 0 {
        return wrong(
            "invoker.pool.results-len-max, results-bytes-max",
            "0; no container would ever ask for work",
        );
    }
    if config.link.backoff_min.is_zero() || config.report_repeat.is_zero() || config.members_refresh.is_zero()
    {
        return wrong(
            "invoker.link.backoff-min, report-repeat, members-refresh",
            "0; must be more",
        );
    }
    Ok(())
}
