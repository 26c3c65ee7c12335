//! What the client listener answers to plain HTTP, beside gRPC and on the same port: `GET /metrics` for Prometheus,
//! `GET /healthz` for load balancers and probes, `GET /ping` to see that somebody is there.
//!
//! These are routes beside those of the gRPC services in one router: a gRPC call passes no layer because of them.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::service::Routes;

use crate::context::Context;
use crate::metrics::{CONTENT_TYPE, Scraper};

/// Adds the plain routes to those of the gRPC services.
pub(crate) fn with_plain_routes(services: Routes, context: Context, scraper: Scraper) -> Routes {
    let plain = Router::new()
        .route("/ping", get(|| async { "pong\n" }))
        .route("/healthz", get(healthz).with_state(context))
        .route("/metrics", get(metrics).with_state(scraper));
    let router = services.into_axum_router().merge(plain).fallback(unknown);
    Routes::from(router).prepare()
}

/// 200 while this scheduler may act, else 503 and why not.
async fn healthz(State(context): State<Context>) -> Response {
    let reason = if context.is_draining() {
        "stopping: its queues move to other schedulers\n"
    } else if context.fence.session().is_none() {
        "no session: the schedulers have no quorum, or this one has just started\n"
    } else if !context.fence.allows(context.clock.now()) {
        "fenced: the lease has run out\n"
    } else {
        return "ok\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

async fn metrics(State(scraper): State<Scraper>) -> Response {
    match scraper.scrape().await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "scrape not answered");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
    }
}

/// An unknown method of gRPC, or an unknown page.
async fn unknown(request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        let status = tonic::Status::unimplemented("");
        return status.into_http::<axum::body::Body>();
    }
    (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /ping\n").into_response()
}
