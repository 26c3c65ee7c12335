//! What the proxy answers over HTTP, always with a Content-Length.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};

/// Says that the user's process ended for lack of memory; only present then, with the value `memory`.
pub(crate) const EXHAUSTED_HEADER: HeaderName = HeaderName::from_static("whiskraft-exhausted");

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Sent to the caller.
    Reply {
        /// HTTP status.
        status: u16,
        /// Body, JSON but for the skeleton's `OK`.
        body: Vec<u8>,
        /// Whether memory ran out.
        exhausted: bool,
    },
    /// The connection ends without an answer, as that of a runtime whose only process ended.
    Cut,
}

impl Answer {
    /// An answer with this body.
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Reply {
            status,
            body: body.into(),
            exhausted: false,
        }
    }

    /// `{"error": <text>}`.
    pub(crate) fn error(status: u16, text: &str) -> Self {
        Self::new(status, serde_json::json!({ "error": text }).to_string())
    }

    /// The same answer, and why.
    pub(crate) fn out_of_memory(self) -> Self {
        match self {
            Self::Reply { status, body, .. } => Self::Reply {
                status,
                body,
                exhausted: true,
            },
            Self::Cut => Self::Cut,
        }
    }

    /// The HTTP response; `None` for a cut.
    pub(crate) fn into_response(self) -> Option<Response<Body>> {
        let Self::Reply {
            status,
            body,
            exhausted,
        } = self
        else {
            return None;
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if exhausted {
            headers.insert(EXHAUSTED_HEADER, HeaderValue::from_static("memory"));
        }
        Some(response)
    }
}
