//! The HTTP side: listens, hands bodies to the family, answers.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::Response;
use axum::routing::post;
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;

use crate::answer::Answer;
use crate::family::Runner;
use crate::options::{Listen, Options};
use crate::orphans;

/// Largest body: 48 MiB of code as base64, and arguments, with room to spare.
const BODY_LEN_MAX: usize = 128 << 20;
/// Said to the owner over the lifeline once the proxy listens.
const READY: &[u8] = b"ready\n";

/// Why the proxy could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The async runtime did not start.
    #[error("the async runtime could not be started: {0}")]
    Runtime(#[source] io::Error),
    /// The directory for code.
    #[error("work directory {path} could not be made: {source}")]
    WorkDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address.
    #[error("could not listen on {listen:?}: {source}")]
    Listen {
        /// Where.
        listen: Listen,
        /// Why.
        source: io::Error,
    },
    /// The owner's end of the lifeline.
    #[error("could not tell the owner that the proxy listens: {0}")]
    Lifeline(#[source] io::Error),
    /// Accepting connections.
    #[error("serving ended: {0}")]
    Accept(#[source] io::Error),
}

/// Why the proxy stopped by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The user's process ended and the family or [`Options::stop_with_child`] says that the proxy ends with it.
    ChildEnded,
    /// Somebody asked the process to end.
    Terminated,
}

/// Tells the server to stop.
pub(crate) type Stop = Arc<Notify>;

struct Server {
    runner: Runner,
    stop: Stop,
}

/// Serves until the user's process ends for good (see [`Stopped`]).
///
/// # Errors
/// The work directory, the address or the lifeline cannot be used.
pub async fn serve(options: Options) -> Result<Stopped, ServeError> {
    let stop: Stop = Arc::default();
    let lifeline = options.lifeline;
    let work_dir = |source| ServeError::WorkDir {
        path: options.work_dir.clone(),
        source,
    };
    std::fs::create_dir_all(&options.work_dir).map_err(work_dir)?;
    let listen = options.listen.clone();
    let refused = |source| ServeError::Listen {
        listen: listen.clone(),
        source,
    };
    let app = |options| {
        let server = Arc::new(Server {
            runner: Runner::start(options, Arc::clone(&stop)),
            stop: Arc::clone(&stop),
        });
        let routes = Router::new()
            .route("/init", post(on_init))
            .route("/run", post(on_run))
            .fallback(on_unknown);
        routes
            .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
            .with_state(server)
    };
    match &listen {
        Listen::Unix(path) => {
            let listener = UnixListener::bind(path).map_err(refused)?;
            ready(lifeline)?;
            until(axum::serve(listener, app(options)), &stop).await
        }
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await.map_err(refused)?;
            ready(lifeline)?;
            // Small answers must not wait for the acknowledgement of earlier ones.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            until(axum::serve(listener, app(options)), &stop).await
        }
    }
}

async fn until(
    serving: impl IntoFuture<Output = io::Result<()>>,
    stop: &Notify,
) -> Result<Stopped, ServeError> {
    let serving = serving.into_future();
    tokio::select! {
        biased;
        () = stop.notified() => Ok(Stopped::ChildEnded),
        ended = serving => match ended {
            Ok(()) => Ok(Stopped::ChildEnded),
            Err(error) => Err(ServeError::Accept(error)),
        },
    }
}

/// Tells the owner, and watches for its end from a thread of its own: a blocked runtime must not keep us alive.
fn ready(lifeline: bool) -> Result<(), ServeError> {
    if !lifeline {
        return Ok(());
    }
    rustix::io::write(io::stdin().as_fd(), READY).map_err(|error| ServeError::Lifeline(error.into()))?;
    let watch = || {
        let mut buffer = [0; 64];
        loop {
            match rustix::io::read(io::stdin().as_fd(), &mut buffer) {
                Ok(read) if read > 0 => {}
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        orphans::kill_everything();
        std::process::exit(1);
    };
    let thread = std::thread::Builder::new().name("lifeline".to_owned());
    thread.spawn(watch).map(drop).map_err(ServeError::Lifeline)
}

async fn on_init(State(server): State<Arc<Server>>, body: Bytes) -> Response<Body> {
    let task = Arc::clone(&server);
    // A task of its own: a caller that hangs up must not leave a half-finished exchange with the launcher.
    finish(
        &server,
        tokio::spawn(async move { task.runner.init(&body).await }),
    )
    .await
}

async fn on_run(State(server): State<Arc<Server>>, body: Bytes) -> Response<Body> {
    let task = Arc::clone(&server);
    finish(&server, tokio::spawn(async move { task.runner.run(&body).await })).await
}

async fn on_unknown(State(server): State<Arc<Server>>) -> Response<Body> {
    respond(&server, server.runner.unknown_path()).await
}

async fn finish(server: &Server, task: tokio::task::JoinHandle<Answer>) -> Response<Body> {
    respond(server, task.await.unwrap_or(Answer::Cut)).await
}

async fn respond(server: &Server, answer: Answer) -> Response<Body> {
    match answer.into_response() {
        Some(response) => response,
        None => {
            server.stop.notify_one();
            std::future::pending().await
        }
    }
}
