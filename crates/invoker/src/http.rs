//! What the invoker answers to plain HTTP, if it is given an address for that: `GET /metrics` for Prometheus,
//! `GET /healthz` for probes, `GET /ping` to see that somebody is there.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::event::Event;
use crate::metrics::{CONTENT_TYPE, Metrics, Snapshot};

/// The listener; closed when dropped.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Asker {
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

impl Asker {
    /// The numbers of now; `None` if the invoker has stopped.
    async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Look(answer)).await.ok()?;
        answered.await.ok()
    }
}

impl Http {
    /// Listens on an address.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) async fn start(
        address: &str,
        events: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/metrics", get(scrape))
            .route("/healthz", get(healthz))
            .route("/ping", get(|| async { "pong\n" }))
            .fallback(|| async { (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /ping\n") })
            .with_state(Asker { events, metrics });
        let task = tokio::spawn(async move {
            // It ends with the task only.
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "metrics are no longer served");
            }
        });
        Ok(Self { address, task })
    }
}

async fn scrape(State(asker): State<Asker>) -> Response {
    let Some(now) = asker.snapshot().await else {
        return stopped();
    };
    match asker.metrics.expose(&now) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// 200 while activations can start here, else 503 and why not.
async fn healthz(State(asker): State<Asker>) -> Response {
    let Some(now) = asker.snapshot().await else {
        return stopped();
    };
    match now.trouble {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

fn stopped() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the invoker has stopped\n").into_response()
}
